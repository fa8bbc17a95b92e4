"""A network as source code of plain torch, or of MONAI, that runs without medfcn."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn

from medfcn.errors import ModelError
from medfcn.memory_errors import raise_shortage
from medfcn.networks import further_looks
from medfcn.networks.design import Head
from medfcn.networks.graph import PaddedNetwork, stride_of
from medfcn.networks.monai_nets import MonaiNetwork, network_arguments
from medfcn.networks.network import SliceNetwork
from medfcn.slices.plan import Plan
from medfcn.text import one_line

_HEAD = '"""The network{of}. Made by `medfcn export --format bundle`."""\n'
_OF_MONAI = """
from monai.networks import nets


class Network(nets.{name}):
    def __init__(self):
        super().__init__(
{arguments}
        )
"""
_OF_TORCH = '''
import torch
from torch import nn


class Network(nn.Module):
    """`(N, {channels}, H, W)` slices of any size to `(N, {classes}, H, W)` logits."""

    def __init__(self):
        super().__init__()
{parts}

    def forward(self, slices):
        height, width = slices.shape[-2:]
        rows, columns = (max(-(-edge // {stride}), 2) * {stride} for edge in (height, width))
        padded = nn.functional.pad(slices, (0, columns - width, 0, rows - height))
        return self.logits(padded)[..., :height, :width]

'''
_LOOKING = '''"""The network with further looks at what it found. Made by `medfcn export --format bundle`."""
import torch

from scripts.looks import looked_again
from scripts.network import Network


class LookingNetwork(Network):
    """Slices that are given at once are neighbours: the part that is looked at again has one place in all of them."""

    def forward(self, slices):
        once, size = super().forward, torch.tensor(slices.shape[-2:], device=slices.device)
        how = {{"angles": {angles}, "part": {part}, "head": "{head}"}}
        return looked_again(once, slices, once(slices), size, **how)
'''


@dataclass(frozen=True)
class PlainNetwork:
    """A network that needs nothing of medfcn.

    Attributes:
        source: A module with a class `Network`, which is built without arguments.
        weights: Its state dictionary.
    """

    source: str
    weights: Mapping[str, torch.Tensor]


def plain_network(network: SliceNetwork) -> PlainNetwork:
    """The network as source code, with the weights under the names that it has there.

    medfcn's own is traced by `torch.fx`, so that what stays are layers of `torch.nn` in the order in which they run.
    One of MONAI is named with its arguments.

    Raises:
        ModelError: It cannot be traced, or has a layer whose source does not build it again.
    """
    if isinstance(network, MonaiNetwork):
        source = _HEAD.format(of=" of MONAI") + _OF_MONAI.format(
            name=network.design.name,
            arguments="\n".join(
                f"            {name}={value!r}," for name, value in network_arguments(network.design).items()
            ),
        )
        return PlainNetwork(source, network.network.state_dict())
    return _traced(network)


def plain_looks(plan: Plan, head: Head) -> dict[str, str]:
    """The modules `looks` and `looking` of the further looks of a plan; none if it has none.

    Args:
        plan: That of the network.
        head: The meaning of its logits.
    """
    if not plan.turns:
        return {}
    looking = _LOOKING.format(angles=plan.turns, part=plan.trained, head=head)
    return {"looks": inspect.getsource(further_looks), "looking": looking}


def _traced(network: SliceNetwork) -> PlainNetwork:
    whole = PaddedNetwork(network).eval()
    try:
        graph = fx.Tracer().trace(whole)
    except Exception as error:  # whatever a network does that cannot be traced
        raise_shortage(error)
        raise ModelError(f"the network cannot be written as plain torch: {one_line(str(error))}") from error
    parts: dict[str, str] = {}
    weights: dict[str, torch.Tensor] = {}
    for node in graph.nodes:
        if node.op not in ("call_module", "get_attr"):
            continue
        own = str(node.target).removeprefix("network.")
        node.target = own.replace(".", "_")
        if node.op == "get_attr":
            holder, _, name = own.rpartition(".")
            value = getattr(network.get_submodule(holder), name)
            parts[node.target] = f"nn.Parameter(torch.empty({tuple(value.shape)}))"
            weights[node.target] = value.detach()
            continue
        part = network.get_submodule(own)
        parts[node.target] = _source_of(part, own)
        weights |= {f"{node.target}.{name}": value for name, value in part.state_dict().items()}
    classes = getattr(network, "channels_out", 1)
    channels = next(value.shape[1] for value in weights.values() if value.ndim == 4)
    source = _HEAD.format(of=", traced from medfcn's") + _OF_TORCH.format(
        channels=channels,
        classes=classes,
        stride=stride_of(network),
        parts="\n".join(f"        self.{name} = {code}" for name, code in parts.items()),
    )
    return PlainNetwork(source + "\n".join(_forward(graph)) + "\n", weights)


def _source_of(part: nn.Module, name: str) -> str:
    """The call that builds a layer of `torch.nn` again.

    Raises:
        ModelError: It builds another one.
    """
    source = f"nn.{one_line(repr(part))}"
    try:
        again = eval(source, {"nn": nn})
        is_alike = repr(again) == repr(part) and _shapes(again) == _shapes(part)
    except Exception:  # a layer whose text is not its call
        is_alike = False
    if not is_alike:
        raise ModelError(f"the layer {name} ({type(part).__name__}) cannot be written as plain torch", field="format")
    return source


def _shapes(part: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in part.state_dict().items()}


def _forward(graph: fx.Graph) -> Iterator[str]:
    """The lines of the method `logits`.

    Raises:
        ModelError: They need something besides torch.
    """
    lines = [line for line in graph.python_code("self").src.splitlines() if line.strip()]
    if not lines[0].startswith("def forward(self, slices"):
        raise ModelError("the network cannot be written as plain torch: it takes more than slices", field="format")
    yield "    def logits(self, slices):"
    for line in lines[1:]:
        yield f"    {line.split(';  ', 1)[0].rstrip()}"
