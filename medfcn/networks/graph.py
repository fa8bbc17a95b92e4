"""A network as an ONNX graph, slices in and logits out, for libraries that run networks without torch."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from medfcn.errors import ModelError
from medfcn.memory_errors import raise_shortage
from medfcn.networks.design import Head
from medfcn.networks.fcn import FCN
from medfcn.networks.further_looks import looked_again
from medfcn.networks.network import SliceNetwork
from medfcn.slices.plan import Plan

INPUT, SIZE, OUTPUT = "slices", "size", "logits"
"""The names of the graph's inputs and output; only a network that looks again has a size."""
_OPSET = 20
"""The newest that torch's quick exporter writes."""


class PaddedNetwork(nn.Module):
    """A network of slices whose edges are multiples of its coarsest stride already.

    Args:
        network: The network; the padding of an FCN is left out, because exporters freeze it.
    """

    def __init__(self, network: SliceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """`(N, K, H, W)` float32 logits of `(N, C, H, W)` slices."""
        if not isinstance(self.network, FCN):
            logits: torch.Tensor = self.network(slices)
            return logits
        maps = self.network.maps_of_padded(slices)
        return self.network.logits(maps, (slices.shape[-2], slices.shape[-1]))


class LookingNetwork(nn.Module):
    """A network that looks again at what it found, for exporters; see `looked_again`.

    Args:
        network: The network.
        angles: Degrees by which the part around what it found is turned, each for one more look.
        part: `(h, w)` pixels of that part; slices are at least as large.
        head: The meaning of the logits.
    """

    def __init__(
        self, network: SliceNetwork, *, angles: tuple[float, ...], part: tuple[int, int], head: Head
    ) -> None:
        super().__init__()
        self.padded = PaddedNetwork(network)
        self.angles, self.part, self.head = angles, part, head

    def forward(self, slices: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """`(N, K, H, W)` float32 logits of `(N, C, H, W)` slices that share a place of the part.

        H and W are multiples of the coarsest stride; `(2,)` rows and columns of the slices themselves are `size`.
        """
        logits, network = self.padded(slices), self.padded.network
        return looked_again(network, slices, logits, size, angles=self.angles, part=self.part, head=self.head)


@dataclass(frozen=True)
class Exportable:
    """A network that looks at slices as its plan says, in the form that exporters take.

    Attributes:
        network: On the CPU, in evaluation mode.
        inputs: Arguments to export it with, by their names.
        free: The edges of each that `torch.export` leaves free.
    """

    network: nn.Module
    inputs: dict[str, torch.Tensor]
    free: dict[str, Any]

    @classmethod
    def of(cls, network: SliceNetwork, plan: Plan, head: Head) -> Self:
        """The network with the further looks of its plan, if it has some."""
        slices, free = example_of(network, plan.channels_in, plan.window), free_edges(network)
        if not plan.turns:
            return cls(PaddedNetwork(network).cpu().eval(), {INPUT: slices}, free)
        looking = LookingNetwork(network, angles=plan.turns, part=plan.trained, head=head)
        size = torch.tensor(slices.shape[-2:])
        return cls(looking.cpu().eval(), {INPUT: slices, SIZE: size}, free | {SIZE: None})


def stride_of(network: SliceNetwork) -> int:
    """Pixels of which the edges of slices must be multiples, twice at least; 1 for a network of one size."""
    return network.encoder.strides[-1] if isinstance(network, FCN) else 1


def example_of(network: SliceNetwork, channels_in: int, window: tuple[int, int]) -> torch.Tensor:
    """Slices to export a network with: zeros of a size that no other edge has by chance, if it takes any size."""
    stride = max(4, stride_of(network))
    return torch.zeros(2, channels_in, *((5 * stride, 3 * stride) if network.takes_any_size else window))


def free_edges(network: SliceNetwork) -> dict[str, dict[int, Any]]:
    """The edges of the input that `torch.export` leaves free: N, and H and W if the network takes any size."""
    free = torch.export.Dim.DYNAMIC
    return {INPUT: {0: free, 2: free, 3: free} if network.takes_any_size else {0: free}}


def onnx_graph(network: SliceNetwork, channels_in: int, window: tuple[int, int]) -> bytes:
    """A network as an ONNX file, made in a fraction of a second, for this machine alone.

    torch's newer exporter, which `medfcn export` uses, takes seven CPU seconds for the same graph (torch 2.13).

    Args:
        network: On the CPU. The number of slices is free, and their size too if it takes any.
        channels_in: Channels of a slice, with those of its neighbours.
        window: Pixels that it was trained on.

    Raises:
        ModelError: torch cannot export it.
    """
    sizes = {0: "n", 2: "h", 3: "w"} if network.takes_any_size else {0: "n"}
    written = io.BytesIO()
    with exporting("the network as ONNX", field="engine"):
        torch.onnx.export(
            PaddedNetwork(network).eval(),
            (example_of(network, channels_in, window),),
            written,  # type: ignore[arg-type]  # its types know paths only
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: sizes, OUTPUT: sizes},
        )
    return written.getvalue()


@contextmanager
def exporting(what: str, *, field: str) -> Iterator[None]:
    """Export quietly, and turn whatever torch raises for a network that it cannot export into one error.

    Args:
        what: What is exported, for the message.
        field: The option that asks for it.

    Raises:
        MemoryShortError: Memory ran out inside.
        ModelError: Something else was raised inside.
    """
    with quiet_export():
        try:
            yield
        except Exception as error:
            raise_shortage(error)
            raise ModelError(f"torch cannot export {what}: {error}", field=field) from error


@contextmanager
def quiet_export(level: int = logging.WARNING) -> Iterator[None]:
    """Export without the warnings of libraries on their own inner steps, and their lines up to a level."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
