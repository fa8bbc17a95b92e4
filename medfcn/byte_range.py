"""Bytes that lie together in a file: a whole file, or one of the files in an archive that compresses nothing."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medfcn.errors import MedfcnError, not_a_file
from medfcn.text import shown

_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class ByteRange:
    """A range of a file's bytes; it is read when it is asked for.

    Attributes:
        path: The file.
        start: Its first byte.
        length: Bytes.
        name: For messages; never the whole path.
    """

    path: Path
    start: int
    length: int
    name: str

    @classmethod
    def of(cls, path: Path, *, error: type[MedfcnError], remedy: str) -> ByteRange:
        """All bytes of a file.

        Raises:
            MedfcnError: As `error`: it is a folder, a pipe or a device.
            OSError: It is not there, or cannot be read.
        """
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise error(f"{shown(path)}: {not_a_file(status.st_mode, remedy)}", code="FILE_NOT_REGULAR")
        return cls(path, 0, status.st_size, path.name)

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """Some of the bytes, fewer where the range ends."""
        most = max(0, self.length - start)
        with self.path.open("rb") as file:
            file.seek(self.start + start)
            return file.read(most if length is None else min(length, most))

    def sha256(self) -> str:
        """The SHA-256 of the bytes, in hexadecimal."""
        found = hashlib.sha256()
        for part in self._parts():
            found.update(part)
        return found.hexdigest()

    def _parts(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.length
            while left and (part := file.read(min(left, _AT_ONCE))):
                left -= len(part)
                yield part
