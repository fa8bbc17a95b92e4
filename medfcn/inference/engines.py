"""The libraries that run a network: torch, ONNX Runtime, OpenVINO.

Each turns a trained network into a function of slices that gives logits. Everything before and after (slices, tiles,
probabilities, masks) is the same for all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from medfcn.errors import MedfcnError, ModelError, SettingsError, needing
from medfcn.inference.devices import has_fast_bfloat16
from medfcn.memory_errors import raise_shortage
from medfcn.networks.fcn import pad_to_multiple
from medfcn.networks.folding import folded
from medfcn.networks.graph import INPUT, onnx_graph, stride_of
from medfcn.networks.network import SliceNetwork
from medfcn.networks.sliding import Network
from medfcn.networks.straight import straight
from medfcn.runs.arithmetic import Arithmetic
from medfcn.settings import EngineName, Precision
from medfcn.slices.plan import Plan
from medfcn.text import listed

_LARGEST_DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.1}
"""The most by which logits of an engine may differ from those of torch in float32, as a share of the largest."""
_TRIED = (1.0, 0.7, 1.2)
"""Edges of the slices on which they are compared, in windows, for a network that takes any size."""


class Engine(Protocol):
    """A library that runs networks."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The arithmetic that it knows."""

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds of device that it runs on."""

    def require(self) -> None:
        """Refuse to go on without the library.

        Raises:
            MissingFileError: It is not installed.
        """

    def runner(self, network: SliceNetwork, plan: Plan, arithmetic: Arithmetic, threads: int) -> Network:
        """A function of `(N, C·context, H, W)` slices that gives `(N, K, H, W)` logits.

        Args:
            network: In evaluation mode, on its device; it is not changed.
            plan: That of its model.
            arithmetic: Of this engine.
            threads: CPU threads.
        """


class TorchEngine:
    """torch itself. In bfloat16 the sliding asks it for that; see `medfcn.networks.sliding`."""

    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    devices = ("cpu", "cuda", "mps")

    def require(self) -> None:
        """Do nothing: it is always there."""

    def runner(self, network: SliceNetwork, plan: Plan, arithmetic: Arithmetic, threads: int) -> Network:
        """The network, with folded batch normalisation or as it is; its layers are called straight."""
        return straight(folded(network) if arithmetic.folded else network)


class OnnxEngine:
    """ONNX Runtime on the CPU."""

    precisions: tuple[Precision, ...] = ("float32",)
    devices = ("cpu",)

    def require(self) -> None:
        """Refuse to go on without ONNX Runtime, or without the library with which torch writes a graph."""
        for library in ("onnxruntime", "onnx"):
            _library(library, "onnx")

    def runner(self, network: SliceNetwork, plan: Plan, arithmetic: Arithmetic, threads: int) -> Network:
        """A session of ONNX Runtime."""
        onnxruntime = _library("onnxruntime", "onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        graph = onnx_graph(network, plan.channels_in, plan.window)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

        def run(slices: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run(None, {INPUT: slices.contiguous().numpy()})[0])

        return _of_any_size(run, network)


class OpenVinoEngine:
    """OpenVINO on the CPU.

    It reads the network as ONNX. Its own way from torch, `openvino.convert_model`, reports to a web service
    that it was used (2026.4.1 with openvino-telemetry 2025.2.0); nothing is to leave this machine.
    """

    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    devices = ("cpu",)

    def require(self) -> None:
        """Refuse to go on without OpenVINO, or without the library with which torch writes a graph."""
        for library in ("openvino", "onnx"):
            _library(library, "openvino")

    def runner(self, network: SliceNetwork, plan: Plan, arithmetic: Arithmetic, threads: int) -> Network:
        """A compiled network of OpenVINO."""
        openvino = _library("openvino", "openvino")
        properties = openvino.properties
        hints = {
            properties.hint.inference_precision(): {"float32": "f32", "bfloat16": "bf16"}[arithmetic.precision],
            properties.inference_num_threads(): threads,
        }
        core = openvino.Core()
        graph = core.read_model(onnx_graph(network, plan.channels_in, plan.window))
        compiled = core.compile_model(graph, "CPU", hints)

        def run(slices: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(compiled(slices.contiguous().numpy())[0].copy())

        return _of_any_size(run, network)


_ENGINES: Mapping[EngineName, Engine] = {
    "torch": TorchEngine(),
    "onnx": OnnxEngine(),
    "openvino": OpenVinoEngine(),
}


def require_possible(arithmetic: Arithmetic, device: torch.device) -> None:
    """Refuse an arithmetic that this machine cannot do.

    Raises:
        MissingFileError: The library is not installed.
        SettingsError: It does not know the precision or the device, or the processor has no fast bfloat16.
    """
    engine, name = _ENGINES[arithmetic.engine], arithmetic.engine
    if device.type not in engine.devices:
        raise SettingsError(
            f"engine {name}: runs on {listed(engine.devices)}, not on {device.type}; give --device cpu, or --engine "
            "torch",
            code="ENGINE_UNFIT",
            field="engine",
        )
    if arithmetic.precision not in engine.precisions:
        raise SettingsError(
            f"precision {arithmetic.precision}: the engine {name} knows {listed(engine.precisions)}; give one of "
            "these, or another engine",
            code="ENGINE_UNFIT",
            field="precision",
        )
    engine.require()
    if arithmetic.precision == "bfloat16" and not has_fast_bfloat16(device):
        lacks = "CPU has no bfloat16 (AVX512-BF16 or AMX)" if device.type == "cpu" else "GPU has no fast bfloat16"
        raise SettingsError(
            f"precision bfloat16: this machine's {lacks}, and would take many times as long; take float32, or "
            "another machine",
            code="ENGINE_UNFIT",
            field="precision",
        )


def runner_of(
    network: SliceNetwork, plan: Plan, arithmetic: Arithmetic, *, device: torch.device, threads: int
) -> Network:
    """A function of slices that gives a network's logits in some arithmetic.

    Another engine than torch is compared with torch first, on slices of three sizes.

    Raises:
        MissingFileError: The library is not installed.
        SettingsError: This machine cannot do it.
        ModelError: The library cannot run the network, or its logits are others than torch's.
        MemoryShortError: Memory ran out.
    """
    require_possible(arithmetic, device)
    name = arithmetic.engine
    try:
        runner = _ENGINES[name].runner(network, plan, arithmetic, threads)
        if name != "torch":
            _require_alike(runner, network, plan, arithmetic)
    except MedfcnError:
        raise
    except Exception as error:  # whatever the library raises for an operation that it does not have
        raise_shortage(error)
        raise ModelError(
            f"engine {name}: cannot run this network: {error}; take --engine torch",
            code="ENGINE_UNFIT",
            field="engine",
        ) from error
    return runner


def _library(name: str, extra: str) -> Any:
    with needing(name, f"the engine {extra}", extra):
        return importlib.import_module(name)


def _of_any_size(run: Network, network: SliceNetwork) -> Network:
    """A function of slices of any size, from one whose edges are multiples of the network's coarsest stride."""
    if not network.takes_any_size:
        return run
    stride = stride_of(network)

    def padded(slices: torch.Tensor) -> torch.Tensor:
        height, width = slices.shape[-2:]
        return run(pad_to_multiple(slices, stride))[..., :height, :width]

    return padded


def _require_alike(runner: Network, network: SliceNetwork, plan: Plan, arithmetic: Arithmetic) -> None:
    """Refuse an engine whose logits are not torch's."""
    for slices in _trial_slices(network, plan):
        with torch.inference_mode():
            ours, theirs = network(slices), runner(slices)
        share = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))
        if not share <= _LARGEST_DIFFERENCE[arithmetic.precision]:
            size = "×".join(map(str, slices.shape[-2:]))
            raise ModelError(
                f"engine {arithmetic.engine}: the logits of a slice of {size} pixels differ from torch's by "
                f"{share:.2g} of the largest; take --engine torch",
                code="ENGINE_UNFIT",
                field="engine",
            )


def _trial_slices(network: SliceNetwork, plan: Plan) -> Iterator[torch.Tensor]:
    """Noise as the network would see it, in one size or three."""
    random = np.random.default_rng(0)
    for number, scale in enumerate(_TRIED if network.takes_any_size else _TRIED[:1], start=1):
        size = [max(2, round(edge * scale)) for edge in plan.window]
        noise = random.normal(size=(number, plan.channels_in, *size)).astype(np.float32)
        yield torch.from_numpy(noise).contiguous(memory_format=torch.channels_last)
