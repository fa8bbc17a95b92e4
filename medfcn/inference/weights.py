"""`model.safetensors`: a network's weights, in a file that cannot contain code."""

import struct
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from medfcn.decoding import decode_json
from medfcn.errors import ModelError, SettingsError
from medfcn.files import write_bytes
from medfcn.inference.card import Card
from medfcn.networks.design import MonaiDesign, planned_design
from medfcn.networks.fcn import build_network
from medfcn.networks.network import SliceNetwork
from medfcn.runs.folder import RunFolder
from medfcn.text import shown

_REMEDY = "copy the run folder again"


def write_weights(path: Path, network: SliceNetwork) -> None:
    """Write a network's weights, whole or not at all."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in network.state_dict().items():
        kept = tensor.detach().cpu().contiguous()
        # Some networks of MONAI have one tensor under two names, which safetensors refuses.
        is_shared = any(kept.data_ptr() == other.data_ptr() for other in tensors.values())
        tensors[name] = kept.clone() if is_shared else kept
    write_bytes(path, save_tensors(tensors))


def read_network(path: Path, card: Card) -> SliceNetwork:
    """The card's network with the file's weights; shapes are compared before memory is allocated.

    Raises:
        ModelError: The file is broken, or its weights are not those of the card's network.
    """
    found = _declared_tensors(path)
    if sum(card.plan.widths) * card.settings.network.width > sum(shape[0] for _, shape in found.values() if shape):
        raise ModelError(
            f"{path.name}: contains fewer channels than plan.widths in {RunFolder.card}; {_REMEDY}",
            code="WEIGHTS_MISFIT",
        )
    try:
        design = planned_design(card.settings.network, card.plan, card.labels)
        with torch.device("meta"):
            network = build_network(design)
    except SettingsError as error:
        raise ModelError(f"{RunFolder.card}: {error}", field=error.field) from error
    expected = {
        name: ("F32" if tensor.is_floating_point() else "I64", tuple(tensor.shape))
        for name, tensor in network.state_dict().items()
    }
    if found != expected:
        odd = min(name for name in set(found) | set(expected) if found.get(name) != expected.get(name))
        raise ModelError(
            f"{path.name}: weights do not fit the network in {RunFolder.card}, first at {odd}: found "
            f"{found.get(odd)}, expected {expected.get(odd)}; {_REMEDY}",
            code="WEIGHTS_MISFIT",
            field=odd,
        )
    tensors = read_safetensors(path, remedy=_REMEDY)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(
                f"{path.name}: {name} contains NaN or infinite weights; train again",
                code="WEIGHTS_NOT_FINITE",
                field=name,
            )
    if isinstance(design, MonaiDesign):  # it may have values outside of its state dict, which `meta` leaves empty
        with torch.random.fork_rng(devices=[]):
            network = build_network(design)
        network.load_state_dict(tensors)
    else:
        network.load_state_dict(tensors, assign=True)
    return network


def is_safetensors(path: Path) -> bool:
    """True if a file begins as a safetensors file does: with the length of a header, then its JSON."""
    return _header_of(path)[:1] == b"{"


def _header_of(path: Path) -> bytes:
    """The header of a safetensors file; empty if it has none."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return file.read(length) if length <= min(path.stat().st_size - 8, 100 * 2**20) else b""


def read_safetensors(path: Path, *, remedy: str = "get the file again") -> dict[str, torch.Tensor]:
    """The tensors of any safetensors file.

    Raises:
        ModelError: It is broken.
    """
    try:
        return load_tensors(path.read_bytes())
    except SafetensorError as error:
        raise ModelError(f"{shown(path)}: {error}; {remedy}") from error


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str = ""
    shape: tuple[int, ...] = ()


def _declared_tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The types and shapes that a safetensors file declares, from its header alone."""
    content = _header_of(path)
    if not content:
        raise ModelError(f"{path.name}: not a safetensors file; {_REMEDY}")
    header = decode_json(content, dict[str, _Tensor], source=path.name, error=ModelError, remedy=_REMEDY)
    return {name: (tensor.dtype, tensor.shape) for name, tensor in header.items() if name != "__metadata__"}
