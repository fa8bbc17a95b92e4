"""Model and settings files that mean harm, made in a folder: none may be accepted, and nothing in them may be run.

Each payload would do no more than make an empty file, `payload_ran`, beside the specimen. Links lead to
`outside/secret.txt`, whose text must appear nowhere.
"""

import hashlib
import io
import json
import os
import pickle
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from medfcn.runs.one_file import archive_bytes
from tests.inference.models import saved, tiny_model

Json = dict[str, Any]
Kind = Literal["model", "weights", "settings"]
SECRET = "SECRET-OF-ANOTHER-PATIENT"
MARKER = "payload_ran"
CARD, WEIGHTS = "model.json", "model.safetensors"


@dataclass(frozen=True)
class Workshop:
    """An empty folder in which a specimen is made, with a sound model to start from.

    Attributes:
        folder: Of one specimen.
        card: The sound `model.json`.
        weights: The sound `model.safetensors`.
    """

    folder: Path
    card: Json
    weights: bytes

    @property
    def marker(self) -> Path:
        """The file that a payload would make."""
        return self.folder / MARKER

    @property
    def secret(self) -> Path:
        """A file outside of the specimen."""
        path = self.folder / "outside" / "secret.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(SECRET)
        return path

    def run(self, *, card: Json | bytes | None = None, weights: bytes | None = None, sign: bool = True) -> Path:
        """A run folder; `sign` puts the right hash of the weights into the card."""
        folder = self.folder / "run"
        folder.mkdir()
        content = self.weights if weights is None else weights
        text = card if isinstance(card, bytes) else json.dumps(self.signed(card, content, sign=sign)).encode()
        (folder / WEIGHTS).write_bytes(content)
        (folder / CARD).write_bytes(text)
        return folder

    def signed(self, card: Json | None, weights: bytes, *, sign: bool = True) -> Json:
        card = json.loads(json.dumps(self.card if card is None else card))
        return card | ({"weights_sha256": hashlib.sha256(weights).hexdigest()} if sign else {})

    def archive(self, files: Mapping[str, bytes] | None = None) -> bytes:
        """A sound `.medfcn` archive of some files."""
        return archive_bytes(self.files() if files is None else files, medfcn="0.1.0")

    def files(self, **changed: Any) -> dict[str, bytes]:
        card = self.signed(changed.get("card"), changed.get("weights", self.weights))
        return {CARD: json.dumps(card).encode(), WEIGHTS: changed.get("weights", self.weights)}

    def one_file(self, content: bytes) -> Path:
        path = self.folder / "model.medfcn"
        path.write_bytes(content)
        return path


Make = Callable[[Workshop], Path]


@dataclass(frozen=True)
class Specimen:
    """One file that means harm.

    Attributes:
        name: Of what it tries.
        kind: Where it is given: as a RUN, to `--encoder-weights`, or to `--config`.
        make: Makes it and returns its path.
    """

    name: str
    kind: Kind
    make: Make = field(repr=False)

    def arguments(self, path: Path, image: Path, dataset: Path, output: Path) -> list[str]:
        """The command line that gets it."""
        if self.kind == "model":
            return ["predict", str(path), str(image), "-o", str(output), "--device", "cpu"]
        option = "--encoder-weights" if self.kind == "weights" else "--config"
        preset = ["--preset", "fcn8s"] if self.kind == "weights" else []
        return ["train", str(dataset), "-o", str(output), option, str(path), "--steps", "1", *preset]


class _Payload:
    """Unpickling this would make the marker."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def workshop(folder: Path) -> Workshop:
    """A workshop in an empty folder."""
    model = saved(tiny_model(labels="left=1,right=2"), folder / "sound")
    made = Workshop(folder, json.loads((model / CARD).read_bytes()), (model / WEIGHTS).read_bytes())
    for path in model.iterdir():
        path.unlink()
    model.rmdir()
    return made


# --- cards


def _put(value: Any, *path: Any) -> Make:
    """A run folder whose card has another value at a path."""

    def make(shop: Workshop) -> Path:
        card = json.loads(json.dumps(shop.card))
        holder = card
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        return shop.run(card=card, sign=path != ("weights_sha256",))

    return make


def _network(**settings: Any) -> Make:
    def make(shop: Workshop) -> Path:
        card = json.loads(json.dumps(shop.card))
        card["settings"]["network"] |= settings
        if settings.get("monai"):
            card["plan"]["widths"] = []
        return shop.run(card=card)

    return make


def _text(content: bytes) -> Make:
    return lambda shop: shop.run(card=content)


def _transform(name: str, **arguments: Any) -> Make:
    record = {"name": name, "arguments": arguments, "sha256": "0" * 64}
    return _put([record], "transforms")


HUGE = 10**30
CARDS: dict[str, Make] = {
    "widths of 10^12 weights": _put([4096] * 8, "plan", "widths"),
    "widths beyond any": _put([HUGE, 6], "plan", "widths"),
    "width factor": _network(width=16.0),
    "width factor beyond any": _network(width=1e300),
    "VGG of 10^12 weights": _network(preset="fcn8s", classifier_channels=16384, width=16.0),
    "score maps": _network(score_channels=4096),
    "refinements without end": _network(refinements=10**9),
    "decoder without end": _network(decoder_widths=[4096] * 10**5),
    "context": _put(65535, "plan", "context"),
    "window": _put([2**20, 2**20], "plan", "window"),
    "UNet of 10^12 weights": _network(monai="UNet", monai_arguments={"channels": [65536] * 8, "strides": [2] * 7}),
    "UNet without end": _network(
        monai="UNet", monai_arguments={"channels": [1] * 64, "strides": [1] * 63, "num_res_units": 65536}
    ),
    "SegResNet without end": _network(monai="SegResNet", monai_arguments={"blocks_down": [65536] * 4}),
    "DynUNet of 10^12 weights": _network(
        monai="DynUNet",
        monai_arguments={
            "kernel_size": [3] * 6, "strides": [1, 2, 2, 2, 2, 2], "upsample_kernel_size": [2] * 5,
            "filters": [65536] * 6,
        },
    ),
    "SwinUNETR without end": _network(monai="SwinUNETR", monai_arguments={"depths": [65536] * 4}),
    "network by a module's name": _network(monai="os.system", monai_arguments={"command": "true"}),
    "network by a dunder": _network(monai="__builtins__"),
    "network that is a module": _network(monai="unet"),
    "network that fetches": _network(monai="SegResNet", monai_arguments={"pretrained": True, "url": "file:///etc"}),
    "argument that names code": _network(monai="UNet", monai_arguments={"act": "__import__('os').getcwd()"}),
    "preset that does not exist": _network(preset="../../preset"),
    "transform that is code": _transform("os.system", command="true"),
    "transform that writes": _transform("SaveImaged", keys="image", output_dir="/tmp"),
    "transform that reads": _transform("LoadImaged", keys="image"),
    "transform of a lambda": _transform("Lambdad", keys="image", func="lambda x: x"),
    "transform by a target": _transform("Identityd", keys="image", _target_="os.getcwd"),
    "transform without a bound": _transform("Resized", keys="image", spatial_size=[10**6] * 3),
    "settings with a table of code": _put({"_target_": "os.getcwd"}, "settings", "hooks"),
    "unknown key": _put("true", "on_load"),
    "unknown key in the plan": _put("true", "plan", "hook"),
    "control characters": _put("\x1b[2J\x1b]0;owned\x07", "settings", "network", "preset"),
    "label that is a path": _put(-1, "labels", "entries", 0, "written"),
    "wrong hash": _put("0" * 64, "weights_sha256"),
    "hash of nothing": _put("", "weights_sha256"),
    "another format": _put(10**9, "format"),
    "card that is a pickle": lambda shop: shop.run(card=pickle.dumps(_Payload(shop.marker))),
    "card that is YAML": _text(b"!!python/object/apply:os.getcwd []\n"),
    "card of a million brackets": _text(b"[" * 10**6),
    "card with a number of a million digits": _text(b'{"format": ' + b"9" * 10**6 + b"}"),
    "card of entities": _text(b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>'),
    "card that is not UTF-8": _text(b'{"format": 2, "\xff\xfe": 1}'),
    "card with a key twice": lambda shop: shop.run(
        card=json.dumps(shop.card).encode()[:-1] + b', "plan": {"views": ["axial"]}}'
    ),
}  # fmt: skip


# --- weights: of a run folder (signed and not), in a .medfcn file, and for --encoder-weights


def _pickled(protocol: int) -> Callable[[Workshop], bytes]:
    return lambda shop: pickle.dumps({"head.weight": _Payload(shop.marker)}, protocol=protocol)


def _torch_saved(*, as_zip: bool) -> Callable[[Workshop], bytes]:
    def content(shop: Workshop) -> bytes:
        buffer = io.BytesIO()
        torch.save({"head.weight": _Payload(shop.marker)}, buffer, _use_new_zipfile_serialization=as_zip)
        return buffer.getvalue()

    return content


def _legacy_tar(shop: Workshop) -> bytes:
    """As torch before 0.1.10 saved: a tar archive with pickles."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(_Payload(shop.marker), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _zip_of(files: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _torchscript(shop: Workshop) -> bytes:
    """The layout of a TorchScript archive, with code and a pickle that would run."""
    return _zip_of({
        "model/constants.pkl": pickle.dumps(_Payload(shop.marker), protocol=2),
        "model/data.pkl": pickle.dumps(_Payload(shop.marker), protocol=2),
        "model/code/__torch__.py": b"class Net(Module):\n  def forward(self, x): return x\n",
        "model/version": b"3\n",
    })  # fmt: skip


def _header(text: bytes, rest: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + rest


def _changed_header(change: Callable[[Json], Any]) -> Callable[[Workshop], bytes]:
    def content(shop: Workshop) -> bytes:
        length = struct.unpack("<Q", shop.weights[:8])[0]
        header, rest = json.loads(shop.weights[8 : 8 + length]), shop.weights[8 + length :]
        change(header)
        return _header(json.dumps(header).encode(), rest)

    return content


def _key_twice(shop: Workshop) -> bytes:
    length = struct.unpack("<Q", shop.weights[:8])[0]
    text, rest = shop.weights[8 : 8 + length].rstrip(), shop.weights[8 + length :]
    return _header(text[:-1] + b', "head.bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', rest)


_EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
CONTENTS: dict[str, Callable[[Workshop], bytes]] = {
    **{f"pickle of protocol {protocol}": _pickled(protocol) for protocol in (0, 2, 5)},
    "torch.save": _torch_saved(as_zip=True),
    "torch.save of before 1.6": _torch_saved(as_zip=False),
    "tar of before torch 0.1.10": _legacy_tar,
    "TorchScript": _torchscript,
    "deflated torch.save": lambda shop: _zip_of(
        {"archive/data.pkl": pickle.dumps(_Payload(shop.marker)), "archive/data/0": bytes(10**7)},
        method=zipfile.ZIP_DEFLATED,
    ),
    "numpy archive of objects": lambda shop: _zip_of({"a.npy": _object_array(shop)}),
    "nothing": lambda shop: b"",
    "header of 2^63 bytes": lambda shop: _header(b"{}", length=2**63),
    "header of gigabytes": lambda shop: _header(b"{}", shop.weights, length=5 * 2**30),
    "header of brackets": lambda shop: _header(b"[" * 10**6),
    "header of very many tensors": lambda shop: _header(
        json.dumps({f"t{number}": _EMPTY for number in range(30_000)}).encode()
    ),
    "header with a key twice": _key_twice,
    "shape of 10^12 numbers": _changed_header(lambda header: header["head.weight"].update(shape=[10**6] * 2)),
    "shape that overflows": _changed_header(lambda header: header["head.weight"].update(shape=[2**32, 2**32, 2**32])),
    "negative shape": _changed_header(lambda header: header["head.weight"].update(shape=[-1, -5, 1, 1])),
    "offsets that overlap": _changed_header(lambda header: header["head.weight"].update(data_offsets=[0, 4])),
    "offsets beyond the file": _changed_header(lambda header: header["head.weight"].update(data_offsets=[0, 2**62])),
    "unknown type": _changed_header(lambda header: header["head.weight"].update(dtype="OBJECT")),
    "metadata of a megabyte of code": _changed_header(
        lambda header: header.update(__metadata__={"__reduce__": {"os.system": "true"}})
    ),
    "tensor of a path": _changed_header(lambda header: header.update({"../../x": header.pop("head.weight")})),
}  # fmt: skip


def _object_array(shop: Workshop) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickle.dumps(_Payload(shop.marker))


def _weights_file(content: Callable[[Workshop], bytes], name: str) -> Make:
    def make(shop: Workshop) -> Path:
        path = shop.folder / name
        path.write_bytes(content(shop))
        return path

    return make


# --- links, pipes, holes in a run folder


def _instead(name: str, replace: Callable[[Path, Workshop], object]) -> Make:
    """A run folder with something else in the place of a file."""

    def make(shop: Workshop) -> Path:
        folder = shop.run()
        path = folder / name
        path.unlink(missing_ok=True)
        replace(path, shop)
        return folder

    return make


def _outside_model(path: Path, shop: Workshop) -> None:
    """A link to a sound file that lies elsewhere."""
    there = shop.secret.parent / path.name
    there.write_bytes(json.dumps(shop.signed(None, shop.weights)).encode() if path.name == CARD else shop.weights)
    path.symlink_to(there)


def _fold_outside(shop: Workshop) -> Path:
    folder = shop.run()
    there = shop.secret.parent / "fold_1"
    there.mkdir()
    for name in (CARD, WEIGHTS):
        (folder / name).rename(there / name)
    (folder / "fold_1").symlink_to(there)
    return folder


def _hole(path: Path, start: bytes, length: int) -> None:
    """A file of which all but the start is a hole, which takes no space."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(length)


def _listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path must be short
        try:
            end.bind(path.name)
        finally:
            os.chdir(here)


PLACES: dict[str, Make] = {
    "card is a link to a secret": _instead(CARD, lambda path, shop: path.symlink_to(shop.secret)),
    "weights are a link to a secret": _instead(WEIGHTS, lambda path, shop: path.symlink_to(shop.secret)),
    "card is a link to a card elsewhere": _instead(CARD, _outside_model),
    "weights are a link to weights elsewhere": _instead(WEIGHTS, _outside_model),
    "fold is a link to elsewhere": _fold_outside,
    "cases are a link to a secret": _instead("cases.csv", lambda path, shop: path.symlink_to(shop.secret)),
    "card is a link to itself": _instead(CARD, lambda path, shop: path.symlink_to(path.name)),
    "card is a link to nothing": _instead(CARD, lambda path, shop: path.symlink_to("nothing")),
    "card is a pipe": _instead(CARD, lambda path, shop: os.mkfifo(path)),
    "weights are a pipe": _instead(WEIGHTS, lambda path, shop: os.mkfifo(path)),
    "weights are a socket": _instead(WEIGHTS, lambda path, shop: _listen(path)),
    "weights are endless": _instead(WEIGHTS, lambda path, shop: path.symlink_to("/dev/zero")),
    "card is a folder": _instead(CARD, lambda path, shop: path.mkdir()),
    "card of a terabyte": _instead(CARD, lambda path, shop: _hole(path, b"{", 2**40)),
    "weights of a terabyte": _instead(WEIGHTS, lambda path, shop: _hole(path, shop.weights, 2**40)),
    "weights with a header of a gigabyte": _instead(
        WEIGHTS, lambda path, shop: _hole(path, _header(b"{", length=2**30), 2**30 + 8)
    ),
}


# --- .medfcn files


def _raw_zip(entries: list[tuple[str, bytes, Mapping[str, Any]]]) -> bytes:
    """A stored zip archive whose fields can be set at will.

    Args:
        entries: Name, content and other values of fields: `flags`, `method`, `attributes`, `extra`, `length`,
            `local_name`, `at` (the place that the list of files claims), `comment`.
    """
    body, central = b"", b""
    for name, content, more in entries:
        place, raw = len(body), name.encode()
        local = str(more.get("local_name", name)).encode()
        crc, length, extra = zlib.crc32(content), more.get("length", len(content)), more.get("extra", b"")
        flags, method = more.get("flags", 0), more.get("method", 0)
        body += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 0x21, crc, length, length, len(local), len(extra)
        )
        body += local + extra + content
        attributes, comment = more.get("attributes", 0o100644 << 16), more.get("comment", b"")
        fields = (
            crc,
            len(content),
            length,
            len(raw),
            len(extra),
            len(comment),
            0,
            0,
            attributes,
            more.get("at", place),
        )
        central += struct.pack("<4s6H3L5H2L", b"PK\1\2", 3 << 8 | 20, 20, flags, method, 0, 0x21, *fields)
        central += raw + extra + comment
    count = len(entries)
    return body + central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(central), len(body), 0)


def _entries(shop: Workshop) -> list[tuple[str, bytes, Mapping[str, Any]]]:
    """The files of a sound archive."""
    with zipfile.ZipFile(io.BytesIO(shop.archive())) as archive:
        return [(name, archive.read(name), {}) for name in archive.namelist()]


def _with_entry(name: str, content: bytes = b"x", **more: Any) -> Callable[[Workshop], bytes]:
    return lambda shop: _raw_zip([*_entries(shop), (name, content, more)])


def _with_fields(**more: Any) -> Callable[[Workshop], bytes]:
    """All fields as they should be but those of the weights."""
    return lambda shop: _raw_zip([
        (name, content, more if name == WEIGHTS else {}) for name, content, _ in _entries(shop)
    ])  # fmt: skip


def _with_contents(change: Callable[[Json], Any]) -> Callable[[Workshop], bytes]:
    """Another `contents.json`."""

    def content(shop: Workshop) -> bytes:
        (name, text, _), *others = _entries(shop)
        value = json.loads(text)
        change(value)
        return _raw_zip([(name, json.dumps(value).encode(), {}), *others])

    return content


def _end_changed(**fields: int) -> Callable[[Workshop], bytes]:
    """Another end of the list of files."""
    names = ("disk", "start_disk", "here", "count", "length", "start", "comment")

    def content(shop: Workshop) -> bytes:
        whole = shop.archive()
        values = dict(zip(names, struct.unpack("<4H2LH", whole[-18:]), strict=True)) | fields
        return whole[:-18] + struct.pack("<4H2LH", *values.values())

    return content


def _overlapping(shop: Workshop) -> bytes:
    """Many names for the same bytes, as in a bomb of overlapping files (Fifield, USENIX WOOT 2019)."""
    entries = _entries(shop)
    return _raw_zip([*entries, *((f"copy_{number}", entries[2][1], {"at": 0}) for number in range(500))])


def _archive_with(**files: bytes) -> Callable[[Workshop], bytes]:
    """A sound archive with more files, whose hashes are right."""
    return lambda shop: shop.archive(shop.files() | files)


def _card_in_archive(change: Callable[[Json], Any]) -> Callable[[Workshop], bytes]:
    def content(shop: Workshop) -> bytes:
        card = json.loads(json.dumps(shop.card))
        change(card)
        return shop.archive(shop.files(card=card))

    return content


ARCHIVES: dict[str, Callable[[Workshop], bytes]] = {
    "empty file": lambda shop: b"",
    "empty archive": lambda shop: _zip_of({}),
    "pickle": lambda shop: pickle.dumps(_Payload(shop.marker)),
    "tar": _legacy_tar,
    "torch.save": _torch_saved(as_zip=True),
    "TorchScript": _torchscript,
    "deflated": lambda shop: _zip_of({name: text for name, text, _ in _entries(shop)}, method=zipfile.ZIP_DEFLATED),
    "bzip2": lambda shop: _zip_of({name: text for name, text, _ in _entries(shop)}, method=zipfile.ZIP_BZIP2),
    "bomb": lambda shop: _zip_of({"contents.json": b" " * 10**8}, method=zipfile.ZIP_DEFLATED),
    "bomb of overlapping files": _overlapping,
    "claims 4 GB": _with_fields(length=2**32 - 1),
    "path upwards": _with_entry("../escaped.txt"),
    "path upwards in a folder": _with_entry("fold_1/../../escaped.txt"),
    "absolute path": _with_entry("/tmp/escaped.txt"),
    "path of Windows": _with_entry("C:\\escaped.txt"),
    "path with backslashes": _with_entry("..\\escaped.txt"),
    "name with a NUL": _with_entry("card.md\0.txt"),
    "name with control characters": _with_entry("\x1b[2J\nname"),
    "name of 60,000 letters": _with_entry("n" * 60_000),
    "link upwards": _with_entry("link", b"../outside/secret.txt", attributes=0o120777 << 16),
    "weights are a link": _with_fields(attributes=0o120777 << 16),
    "device": _with_fields(attributes=0o020666 << 16),
    "folder": _with_entry("folder/", b""),
    "weights twice": _with_entry(WEIGHTS, b"x"),
    "card twice": lambda shop: _raw_zip([*_entries(shop), *_entries(shop)[1:2]]),
    "other name in front of the content": _with_fields(local_name="model.safetensorz"),
    "encrypted": _with_fields(flags=1),
    "length after the content": _with_fields(flags=8),
    "method of zstd": _with_fields(method=93),
    "extra field": _with_fields(extra=struct.pack("<2HQ", 1, 8, 2**62)),
    "comment of a file": _with_fields(comment=b"true"),
    "script in front": lambda shop: b"#!/bin/sh\ntrue\n" + shop.archive(),
    "bytes after the end": lambda shop: shop.archive() + b"\0" * 30,
    "second archive after the end": lambda shop: shop.archive() + _zip_of({CARD: b"{}"}),
    "bytes between the files": _with_fields(at=1),
    "cut short": lambda shop: shop.archive()[:-200],
    "list of 4 GB": _end_changed(length=2**32 - 1),
    "list beyond the file": _end_changed(start=2**32 - 1),
    "65,535 files": _end_changed(here=65535, count=65535),
    "several disks": _end_changed(disk=1, start_disk=1),
    "comment that is not there": _end_changed(comment=100),
    "no contents": lambda shop: _raw_zip(_entries(shop)[1:]),
    "contents of another format": _with_contents(lambda value: value.update(format=99)),
    "contents with an unknown key": _with_contents(lambda value: value.update(on_load="true")),
    "contents without a file": _with_contents(lambda value: value["files"].pop(CARD)),
    "contents with a file that is not there": _with_contents(
        lambda value: value["files"].update({"/etc/hostname": {"bytes": 1, "sha256": "0" * 64}})
    ),
    "wrong hash": _with_contents(lambda value: value["files"][WEIGHTS].update(sha256="0" * 64)),
    "wrong length": _with_contents(lambda value: value["files"][WEIGHTS].update(bytes=1)),
    "contents of brackets": lambda shop: _raw_zip([("contents.json", b"[" * 10**5, {}), *_entries(shop)[1:]]),
    "code beside the model": _archive_with(**{"hubconf.py": b"raise SystemExit"}),
    "code in a folder": _archive_with(**{"scripts/load.py": b"raise SystemExit"}),
    "a model and folds": lambda shop: shop.archive(
        shop.files() | {f"fold_1/{name}": text for name, text in shop.files().items()}
    ),
    "a fold without weights": lambda shop: shop.archive(
        {f"fold_1/{name}": text for name, text in shop.files().items()} | {f"fold_2/{CARD}": shop.files()[CARD]}
    ),
    "card with an unknown key": _card_in_archive(lambda card: card.update(on_load="true")),
    "network of 10^12 weights": _card_in_archive(lambda card: card["plan"].update(widths=[4096] * 8)),
    "transform that is code": _card_in_archive(
        lambda card: card.update(transforms=[{"name": "os.getcwd", "arguments": {}, "sha256": ""}])
    ),
    "weights of another hash than the card's": lambda shop: shop.archive(
        {CARD: json.dumps(shop.card | {"weights_sha256": "0" * 64}).encode(), WEIGHTS: shop.weights}
    ),
    **{
        f"weights that are {name}": lambda shop, content=CONTENTS[name]: shop.archive(  # type: ignore[misc]
            shop.files(weights=content(shop))
        )
        for name in ("pickle of protocol 2", "torch.save", "header of gigabytes", "shape of 10^12 numbers")
    },
}  # fmt: skip


def _odd_file(make: Callable[[Path, Workshop], object]) -> Make:
    def made(shop: Workshop) -> Path:
        path = shop.folder / "model.medfcn"
        make(path, shop)
        return path

    return made


ODD_FILES: dict[str, Make] = {
    "a pipe": _odd_file(lambda path, shop: os.mkfifo(path)),
    "a folder": _odd_file(lambda path, shop: path.mkdir()),
    "a link to nothing": _odd_file(lambda path, shop: path.symlink_to("nothing.medfcn")),
    "a terabyte": _odd_file(lambda path, shop: _hole(path, shop.archive(), 2**40)),
    "endless": _odd_file(lambda path, shop: path.symlink_to("/dev/zero")),
}


SETTINGS: dict[str, bytes] = {
    "code": b"[training]\nsteps = __import__('os').getcwd()\n",
    "unknown table": b"[hooks]\non_start = 'true'\n",
    "unknown key": b"[training]\n_target_ = 'os.getcwd'\n",
    "YAML": b"!!python/object/apply:os.getcwd []\n",
    "brackets": b"a = " + b"[" * 10**5,
    "key of very many parts": b"a.b" + b".c" * 10**5 + b" = 1\n",
    "not UTF-8": b"\xff\xfe[training]\n",
    "control characters": b"[training]\n\x1b[2J = 1\n",
    "network that fetches": b"[network]\nmonai = 'SegResNet'\nmonai_arguments = {url = 'file:///etc/hostname'}\n",
    "network by a module's name": b"[network]\nmonai = 'os.system'\n",
    "number beyond any": b"[network]\nwidth = 1e400\n",
}


def specimens() -> tuple[Specimen, ...]:
    """All specimens, by unique names."""
    found = [Specimen(f"card: {name}", "model", make) for name, make in CARDS.items()]
    for name, content in CONTENTS.items():
        found += [
            Specimen(f"weights: {name}", "model", lambda shop, c=content: shop.run(weights=c(shop))),  # type: ignore[misc]
            Specimen(f"encoder: {name}", "weights", _weights_file(content, "vgg16.pth")),
        ]
    found += [Specimen(f"folder: {name}", "model", make) for name, make in PLACES.items()]
    found += [
        Specimen(f"file: {name}", "model", lambda shop, c=content: shop.one_file(c(shop)))  # type: ignore[misc]
        for name, content in ARCHIVES.items()
    ]
    found += [Specimen(f"file: {name}", "model", make) for name, make in ODD_FILES.items()]
    found += [
        Specimen(f"settings: {name}", "settings", _weights_file(lambda _, t=text: t, "run.toml"))  # type: ignore[misc]
        for name, text in SETTINGS.items()
    ]
    return tuple(found)
