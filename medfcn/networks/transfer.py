"""A trained network's weights → the start of another training: fine-tuning, and the stages of FCN-32s, 16s and 8s.

Source:
    Stage by stage, each from the former's weights with the new skip's scores at zero: Long, Shelhamer, Darrell,
    CVPR 2015, section 4.2.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from medfcn.errors import ModelError
from medfcn.networks.design import AnyDesign
from medfcn.networks.fcn import FCN, build_network
from medfcn.networks.network import SliceNetwork
from medfcn.settings import NetworkSettings

_SAME = (
    *("monai", "monai_arguments"),
    *("encoder", "scores", "skips", "fusion", "upsampling", "refinements", "normalisation", "negative_slope"),
)
"""Parts that must be those of the run: with others, weights of the same name and shape could mean something else."""


@dataclass(frozen=True)
class Transfer:
    """How a network starts from a trained one, tensor by tensor.

    Attributes:
        taken: Tensors that take the trained values.
        zeroed: Scores of skips that the trained network did not have; they start at zero.
        relabelled: Layers that give scores or logits for labels that the trained network did not have; they start at
            random.
        fresh: Other tensors that come with finer skips: upsampling starts as linear interpolation, the rest at
            random.
    """

    taken: tuple[str, ...]
    zeroed: tuple[str, ...]
    relabelled: tuple[str, ...]
    fresh: tuple[str, ...]

    def start(self, network: SliceNetwork, trained: SliceNetwork) -> None:
        """Put the trained weights into `network`, which is initialised already; `trained` stays as it is."""
        state, given = network.state_dict(), trained.state_dict()
        state |= {name: given[name] for name in self.taken}
        state |= {name: torch.zeros_like(state[name]) for name in self.zeroed}
        network.load_state_dict(state)


def require_same_parts(settings: NetworkSettings, trained: NetworkSettings, *, source: str) -> None:
    """Refuse a network that is built differently from the trained one, or that ends coarser.

    Args:
        settings: Of the new network, from `with_preset`.
        trained: Of the trained one, likewise.
        source: The name of the trained one, for messages.

    Raises:
        ModelError: A part differs that weights depend on.
    """
    here, there = vars(settings), vars(trained)
    for part in _SAME:
        if here[part] != there[part]:
            raise ModelError(
                f"{source}: network.{part} is {there[part]!r} there and {here[part]!r} here, its weights do not fit; "
                "leave the network as the run has it, or start from another run",
                code="WEIGHTS_MISFIT",
                field=f"network.{part}",
            )
    if settings.monai is None and here["finest_stride"] > there["finest_stride"]:
        raise ModelError(
            f"{source}: network.finest_stride is {there['finest_stride']} there and {here['finest_stride']} here; "
            "skips can be added to a run and not taken away: take at most that, or start from another run",
            code="WEIGHTS_MISFIT",
            field="network.finest_stride",
        )


def label_layers(design: AnyDesign) -> frozenset[str]:
    """The tensors whose shape follows from the number of labels: the head, or score maps that are logits."""
    with torch.device("meta"):
        here, more = (
            _shapes(build_network(dataclasses.replace(design, label_count=count)))
            for count in (design.label_count, design.label_count + 1)
        )
    return frozenset(name for name, shape in here.items() if more[name] != shape)


def choose_carried(network: SliceNetwork, trained: SliceNetwork, *, same_labels: bool, source: str) -> Transfer:
    """Decide how each tensor of a network starts, and refuse a network that does not fit.

    Args:
        network: The new one; only its design and shapes are looked at.
        trained: With the same parts; see `require_same_parts`. Its maps may end coarser.
        same_labels: True if both networks segment the same labels in the same order.
        source: The name of the trained one, for messages.

    Raises:
        ModelError: A tensor is missing, left over, or of another shape, and may not be; the first is named.
    """
    same_logits = same_labels and network.design.head == trained.design.head
    of_labels = () if same_logits else label_layers(network.design)
    shapes, given = _shapes(network), _shapes(trained)
    is_finer = False
    new_scores: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    if isinstance(network, FCN) and isinstance(trained, FCN):
        is_finer = network.fused_strides[-1] < trained.fused_strides[-1]
        new_scores = tuple(f"scores.{step}." for step in range(len(trained.scores), len(network.scores)))
        new = tuple(f"fusions.{step}." for step in range(len(trained.fusions), len(network.fusions)))
        new += ("restore.",) if is_finer else ()
    kinds: dict[str, list[str]] = {"taken": [], "zeroed": [], "relabelled": [], "fresh": []}
    for name, shape in shapes.items():
        if name.startswith(new_scores):
            kind = "zeroed"
        elif name.startswith(new):
            kind = "fresh"
        elif name in of_labels:
            kind = "relabelled"
        elif given.get(name) == shape:
            kind = "taken"
        elif is_finer and name.startswith("head."):  # it sees the new finest map
            kind = "fresh"
        else:
            raise _misfit(name, given.get(name), shape, source)
        kinds[kind].append(name)
    for name, shape in given.items():
        if name not in shapes and not (is_finer and name.startswith("restore.")):
            raise _misfit(name, shape, None, source)
    return Transfer(**{kind: tuple(names) for kind, names in kinds.items()})


def _misfit(name: str, found: tuple[int, ...] | None, wanted: tuple[int, ...] | None, source: str) -> ModelError:
    return ModelError(
        f"{source}: its weights do not fit this network, first at {name}: {found or 'nothing'} there, "
        f"{wanted or 'nothing'} here; leave network, context and channels as the run has them, or start from another",
        code="WEIGHTS_MISFIT",
        field=name,
    )


def _shapes(network: nn.Module) -> Mapping[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
