"""`model.safetensors`: a network's weights, in a file that cannot contain code."""

import hashlib
import math
import struct
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from medfcn.byte_range import ByteRange
from medfcn.decoding import decode_json
from medfcn.errors import ModelError, SettingsError
from medfcn.files import write_bytes
from medfcn.inference.card import Card
from medfcn.memory import require_memory
from medfcn.networks.bounded import bounded_building
from medfcn.networks.design import MonaiDesign, planned_design
from medfcn.networks.fcn import build_network
from medfcn.networks.network import SliceNetwork
from medfcn.runs.folder import RunFolder
from medfcn.text import one_line, shown

_LONGEST_HEADER = 2**23
"""Bytes; a network of 10,000 tensors has a header of one."""
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2}
"""The bytes of a number of each type; of all others one."""


def write_weights(path: Path, network: SliceNetwork) -> None:
    """Write a network's weights, whole or not at all."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in network.state_dict().items():
        kept = tensor.detach().cpu().contiguous()
        # Some networks of MONAI have one tensor under two names, which safetensors refuses.
        is_shared = any(kept.data_ptr() == other.data_ptr() for other in tensors.values())
        tensors[name] = kept.clone() if is_shared else kept
    write_bytes(path, save_tensors(tensors))


def read_network(file: ByteRange, card: Card, *, remedy: str) -> SliceNetwork:
    """The card's network with the file's weights; sizes and shapes are compared before memory is allocated.

    Args:
        file: `model.safetensors`, or its place in another file.
        card: The model's card.
        remedy: What to do if the file is broken, for messages.

    Raises:
        ModelError: The file is broken, or its weights are not those of the card's network.
        MemoryShortError: They do not fit into memory.
    """
    found = _declared_tensors(file, remedy)
    if sum(card.plan.widths) * card.settings.network.width > sum(shape[0] for _, shape in found.values() if shape):
        raise ModelError(
            f"{file.name}: contains fewer channels than plan.widths in {RunFolder.card}; {remedy}",
            code="WEIGHTS_MISFIT",
        )
    numbers = sum(math.prod(shape) for _, shape in found.values())
    try:
        design = planned_design(card.settings.network, card.plan, card.labels)
        with torch.device("meta"), bounded_building(len(found), numbers, source=file.name, remedy=remedy):
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
            f"{file.name}: weights do not fit the network in {RunFolder.card}, first at {odd}: found "
            f"{found.get(odd)}, expected {expected.get(odd)}; {remedy}",
            code="WEIGHTS_MISFIT",
            field=odd,
        )
    require_memory(2 * file.length, file.name)
    content = file.read()
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise ModelError(
            f"{file.name}: its SHA-256 is not the one in {RunFolder.card}; {remedy}", field="weights_sha256"
        )
    tensors = _tensors_in(content, file.name, remedy)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(
                f"{file.name}: {name} contains NaN or infinite weights; train again",
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
    return _header_of(ByteRange.of(path, error=ModelError, remedy="get the file again"))[:1] == b"{"


def _header_of(file: ByteRange) -> bytes:
    """The header of a safetensors file; empty if it has none, or one that is longer than any network's."""
    start = file.read(0, 8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    return file.read(8, length) if length <= min(file.length - 8, _LONGEST_HEADER) else b""


def read_safetensors(path: Path, *, remedy: str = "get the file again") -> dict[str, torch.Tensor]:
    """The tensors of any safetensors file.

    Raises:
        ModelError: It is broken.
    """
    return _tensors_in(path.read_bytes(), shown(path), remedy)


def _tensors_in(content: bytes, name: str, remedy: str) -> dict[str, torch.Tensor]:
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise ModelError(f"{name}: {error}; {remedy}") from error


_Length = Annotated[int, msgspec.Meta(ge=0, le=2**32)]


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str = ""
    shape: Annotated[tuple[_Length, ...], msgspec.Meta(max_length=8)] = ()


def _declared_tensors(file: ByteRange, remedy: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The types and shapes that a safetensors file declares, from its header alone.

    Raises:
        ModelError: It is no such file, or has another length than these need.
    """
    content = _header_of(file)
    if not content:
        raise ModelError(f"{file.name}: not a safetensors file; {remedy}")
    header = decode_json(content, dict[str, _Tensor], source=file.name, error=ModelError, remedy=remedy)
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in header.items() if name != "__metadata__"}
    length = 8 + len(content) + sum(_BYTES.get(kind, 1) * math.prod(shape) for kind, shape in found.values())
    if length != file.length:
        raise ModelError(
            f"{file.name}: {file.length} bytes, expected {one_line(str(length), limit=40)} for its tensors; {remedy}"
        )
    return found
