"""A disk that becomes full: the files of medfcn take a number of bytes, and then the system refuses."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from medfcn import files


class _Full(io.FileIO):
    """A file on such a disk."""

    room: list[int]
    number: int

    def write(self, content: object) -> int:
        view = memoryview(content).cast("B")  # type: ignore[arg-type]
        if len(view) > self.room[0]:
            raise OSError(self.number, os.strerror(self.number))
        self.room[0] -= len(view)
        return super().write(view)


@contextmanager
def room_for(count: int, number: int = errno.ENOSPC) -> Iterator[list[int]]:
    """Let all files together take `count` bytes; yields the number that is left, which may be set."""
    room = [count]

    def open_part(path: Path) -> BinaryIO:
        with original(path) as file:
            name = file.name
        full = _Full(name, "wb")
        full.room, full.number = room, number
        return cast(BinaryIO, io.BufferedWriter(full))

    original = files._open_part
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "_open_part", open_part)
        yield room
