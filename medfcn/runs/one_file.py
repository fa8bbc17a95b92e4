"""`model.medfcn`: a model in one file, a zip archive in which nothing is compressed.

An archive is read only if each of its bytes that is not content is the one that `archive_bytes` would write for the
same files: no compression, no links, no second entry of a name, nothing before, between or after the entries. So
every zip reader sees the same files in it, and the same model always makes the same bytes.

Source:
    PKWARE, APPNOTE.TXT, .ZIP file format specification, 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from medfcn.byte_range import ByteRange
from medfcn.decoding import read_json
from medfcn.errors import MissingFileError, ModelError
from medfcn.files import json_bytes
from medfcn.text import one_line

ENDING = ".medfcn"
CONTENTS_FILE = "contents.json"
"""In the archive, first: the version of this format, and the hash of every other file."""
GET_AGAIN = "get the file again"
_FORMAT = 1
_LARGEST = 2**32 - 2**20
"""Bytes of an archive without the extension for larger ones."""
_MOST_FILES, _LARGEST_CONTENTS = 512, 2**20
_NAME = re.compile(r"(?:[a-z][a-z0-9_]{0,31}/)?[A-Za-z][A-Za-z0-9._-]{0,63}")
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_VERSION, _UNIX_FILE = 20, 0o100644 << 16
_DAY = 0x21
"""The first day of 1980: an archive does not say when it was made."""


@dataclass(frozen=True)
class _Entry:
    name: str
    crc: int
    length: int

    def local(self) -> bytes:
        """The bytes in front of the content."""
        name = self.name.encode()
        sizes = (self.crc, self.length, self.length)
        return _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DAY, *sizes, len(name), 0) + name

    def central(self, start: int) -> bytes:
        """Its line in the list of files at the end; `start` is the place of `local`."""
        name = self.name.encode()
        sizes = (self.crc, self.length, self.length)
        made_by = 3 << 8 | _VERSION
        fields = (b"PK\1\2", made_by, _VERSION, 0, 0, 0, _DAY, *sizes, len(name), 0, 0, 0, 0, _UNIX_FILE, start)
        return _CENTRAL.pack(*fields) + name


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes: int
    sha256: str


class _Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    medfcn: str
    files: dict[str, _File]


def archive_bytes(files: Mapping[str, bytes], *, medfcn: str) -> bytes:
    """The bytes of an archive; the same files and version always make the same ones.

    Args:
        files: The content of each file by its name, in this order; at most one folder deep.
        medfcn: The version that writes it.

    Raises:
        ModelError: Together they have 4 GiB or more.
    """
    listed = {name: {"bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()} for name, part in files.items()}
    first = json_bytes({"format": _FORMAT, "medfcn": medfcn, "files": listed})
    parts, central, start = [], [], 0
    for name, part in {CONTENTS_FILE: first, **files}.items():
        entry = _Entry(name, zlib.crc32(part), len(part))
        parts += [entry.local(), part]
        central.append(entry.central(start))
        start += len(parts[-2]) + len(part)
    if start > _LARGEST:
        raise ModelError(f"the model has {start} bytes, and one file holds {_LARGEST}; copy the run folder instead")
    return b"".join([*parts, *central, _end(len(central), sum(map(len, central)), start)])


def _end(count: int, length: int, start: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, length, start, 0)


def read_archive(path: Path) -> dict[str, ByteRange]:
    """The files of an archive by name, without `contents.json`; their hashes are compared.

    Raises:
        MissingFileError: There is no such file.
        ModelError: It is not one that medfcn wrote, or has changed since.
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; check the path of the model")
    whole = ByteRange.of(path, error=ModelError, remedy=GET_AGAIN)
    places = _places(whole)
    first = places.pop(CONTENTS_FILE, None)
    if first is None or first.length > _LARGEST_CONTENTS:
        raise _refused(whole, f"{CONTENTS_FILE} is missing or too long")
    found = read_json(first, _Version, error=ModelError, remedy=GET_AGAIN).format
    if found != _FORMAT:
        raise ModelError(
            f"{whole.name}: format {found} is not {_FORMAT}; use the medfcn version that wrote it",
            code="MODEL_FORMAT",
            field="format",
        )
    known = read_json(first, _Contents, error=ModelError, remedy=GET_AGAIN).files
    if known.keys() != places.keys():
        odd = min(known.keys() ^ places.keys())
        raise _refused(whole, f"{one_line(odd, limit=80)} is not both in it and in {CONTENTS_FILE}")
    for name, place in places.items():
        if place.length != known[name].bytes or place.sha256() != known[name].sha256:
            raise ModelError(
                f"{whole.name}: the SHA-256 of {name} is not the one in {CONTENTS_FILE}; {GET_AGAIN}",
                field="weights_sha256",
            )
    return places


class _Version(msgspec.Struct, frozen=True):
    format: int


def _refused(whole: ByteRange, why: str) -> ModelError:
    return ModelError(f"{whole.name}: not a model as `medfcn export` writes it: {why}; {GET_AGAIN}")


def _places(whole: ByteRange) -> dict[str, ByteRange]:
    """The place of each file, by the list at the end; everything besides their content is compared."""
    end = whole.read(whole.length - _END.size) if whole.length >= _END.size else b""
    if end[:4] != b"PK\5\6":
        raise _refused(whole, "no zip archive that ends with its list of files")
    _, _, _, _, count, length, start, _ = _END.unpack(end)
    is_short = count <= _MOST_FILES and length <= count * (_CENTRAL.size + 128)
    if whole.length > _LARGEST or not is_short or start + length + _END.size != whole.length:
        raise _refused(whole, "its list of files has no sound length")
    central = whole.read(start, length)
    places: dict[str, ByteRange] = {}
    at = place = 0
    for _ in range(count):
        entry = _entry_in(whole, central, at)
        local, line = entry.local(), entry.central(place)
        stop = place + len(local) + entry.length
        is_sound = stop <= start and entry.name not in places and central[at : at + len(line)] == line
        if not is_sound or whole.read(place, len(local)) != local:
            raise _refused(whole, f"{entry.name} is compressed, a link, twice in it, or not where it should be")
        places[entry.name] = ByteRange(whole.path, place + len(local), entry.length, f"{whole.name}: {entry.name}")
        at, place = at + len(line), stop
    if (at, place) != (length, start) or end != _end(count, length, start):
        raise _refused(whole, "it contains bytes besides its files")
    return places


def _entry_in(whole: ByteRange, central: bytes, at: int) -> _Entry:
    if at + _CENTRAL.size > len(central):
        raise _refused(whole, "its list of files ends too early")
    fields = _CENTRAL.unpack_from(central, at)
    crc, length, name_length = fields[7], fields[9], fields[10]
    raw = central[at + _CENTRAL.size : at + _CENTRAL.size + name_length]
    name = raw.decode("ascii", errors="replace")
    if not _NAME.fullmatch(name):
        raise _refused(whole, f"{one_line(name, limit=80)!r} is no name of a file in it")
    return _Entry(name, crc, length)
