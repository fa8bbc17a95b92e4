"""The bytes of a file, plain or gzip, read to their end and checked on the way.

A file is opened once. The content of a gzip stream is counted, its CRC and length are verified, and the SHA-256 of
the file's own bytes is computed from the same read.
"""

import gzip
import hashlib
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from medfcn.errors import MissingFileError, VolumeError, naming, not_a_file
from medfcn.memory_errors import raise_shortage
from medfcn.systems import OPEN_FLAGS, WITHOUT_WAITING
from medfcn.text import shown
from medfcn.volumes.formats.refusals import broken_stream, require_allowed, unreadable, wrong_size

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20
"""Number of bytes that are read or uncompressed at once."""
LARGEST_RATIO = 1032
"""Deflate cannot do better than this: 258 bytes for two bits."""


def _fast(standard: Any) -> Any:
    """The module of isal that replaces `gzip` or `zlib`; the standard one where isal has no wheel."""
    try:
        from isal import igzip, isal_zlib
    except ImportError:
        return standard
    return igzip if standard is gzip else isal_zlib


def gzip_reader(file: IO[bytes]) -> io.BufferedIOBase:
    """Uncompress a gzip stream."""
    return cast(io.BufferedIOBase, _fast(gzip).GzipFile(fileobj=file, mode="rb"))


def gzip_writer(file: IO[bytes], *, level: int) -> IO[bytes]:
    """Compress into `file` so that equal writes give equal bytes: no time and no file name in the header.

    The same content in other pieces is another stream of the same content: igzip ends its matches where a piece ends.

    Args:
        file: Receives the compressed bytes; it is not closed.
        level: 0 to 3, igzip's scale; the standard library gets a level of about the same size.
    """
    library = _fast(zlib)
    own_level = (1, 2, 4, 6)[level] if library is zlib else level
    return cast(IO[bytes], _GzipWriter(file, library.compressobj(own_level, zlib.DEFLATED, -zlib.MAX_WBITS), level))


class _GzipWriter(io.RawIOBase):
    """A gzip stream that hands each write to the compressor as it is.

    `GzipFile` joins small writes from Python 3.12 on, so that igzip's bytes would be those of one Python.
    """

    def __init__(self, file: IO[bytes], compressor: Any, level: int) -> None:
        self._file, self._compressor = file, compressor
        self._length = self._checksum = 0
        no_time, fastest, any_system = bytes(4), 4 if level == 0 else 0, 255
        file.write(GZIP_MAGIC + bytes([8, 0]) + no_time + bytes([fastest, any_system]))

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        self._file.write(self._compressor.compress(view))
        self._length += len(view)
        self._checksum = crc32(view, self._checksum)
        return len(view)

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._file.write(self._compressor.flush())
            self._file.write(struct.pack("<LL", self._checksum, self._length % (1 << 32)))
        finally:
            super().close()


def crc32(content: bytes | memoryview, start: int = 0) -> int:
    """The CRC of some bytes, going on from that of the bytes before them."""
    return int(_fast(zlib).crc32(content, start))


def stream_errors() -> tuple[type[Exception], ...]:
    """The errors that `gzip_reader` raises for a stream that is cut off or damaged."""
    return OSError, EOFError, zlib.error, ValueError, _fast(zlib).error


class _Hashed(io.RawIOBase):
    """A file whose bytes pass through a hash as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self.file.readinto(buffer))  # type: ignore[attr-defined]
        self.digest.update(memoryview(buffer)[:count])
        return count


class ByteSource:
    """The content of an open file (uncompressed if it is gzip), read from start to end. See `opened`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.is_gzip = False
        with self._guarded():
            self.file_size = os.fstat(file.fileno()).st_size
            self.head = file.read(512)
        self.is_gzip = self.head.startswith(GZIP_MAGIC)
        self._rewind()

    def _rewind(self) -> None:
        with self._guarded():
            self._file.seek(0)
        self._hashed = _Hashed(self._file)
        self._content = gzip_reader(cast(IO[bytes], self._hashed)) if self.is_gzip else self._hashed
        self.position = 0

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Replace a library's error by one that says what to do."""
        try:
            yield
        except stream_errors() as error:
            raise_shortage(error)
            raise (broken_stream(error, self.position) if self.is_gzip else unreadable(error)) from error

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` with content; returns how many bytes there were.

        Raises:
            VolumeError: The gzip stream is cut off or damaged, or the disk cannot be read.
        """
        filled = 0
        while filled < len(buffer):
            with self._guarded():
                count = self._content.readinto(buffer[filled : filled + CHUNK])
            if not count:
                break
            filled += count
            self.position += count
        return filled

    def read(self, count: int) -> bytes:
        """Up to `count` bytes of content; fewer only at its end."""
        buffer = bytearray(count)
        return bytes(buffer[: self.read_into(memoryview(buffer))])

    def skip(self, count: int) -> int:
        """Read and drop `count` bytes; returns how many there were."""
        scratch, done = memoryview(bytearray(min(count, CHUNK))), 0
        while part := self.read_into(scratch[: count - done]):
            done += part
        return done

    def require_end(self, expected: int) -> None:
        """Check that the content ends here; a gzip stream's CRC and length are verified by this.

        Raises:
            VolumeError: There is at least one byte more, or the stream is damaged.
        """
        if self.read(1):
            raise wrong_size(expected, self.position, at_least=True)

    def require_length(self, expected: int, *, max_bytes: int) -> None:
        """Check, before anything is allocated, that the content can be exactly `expected` bytes long.

        If the length stored at the end of a gzip file differs, the stream is read once without keeping it.

        Raises:
            VolumeError: It is shorter or longer, cannot be that long, or is longer than `max_bytes`.
        """
        require_allowed(expected, max_bytes)
        if not self.is_gzip:
            if self.file_size != expected:
                raise wrong_size(expected, self.file_size)
            return
        if expected > LARGEST_RATIO * self.file_size + 1024:
            raise VolumeError(
                f"the header describes {expected} bytes, more than {self.file_size} bytes of gzip data can contain; "
                "the file is cut off or its dim is wrong, copy or re-export it",
                code="FILE_CUT_OFF",
            )
        if self._stored_length() != expected % (1 << 32):
            position = self.position
            found = position + self.skip(expected - position)
            if found < expected:
                raise wrong_size(expected, found)
            self.require_end(expected)
            self._rewind()
            self.skip(position)

    def _stored_length(self) -> int:
        """The uncompressed length modulo 2^32, from the last four bytes of a gzip file."""
        try:
            return int.from_bytes(os.pread(self._file.fileno(), 4, max(self.file_size - 4, 0)), "little")
        except OSError as error:
            raise unreadable(error) from error

    @property
    def sha256(self) -> str:
        """The hash of the file's own bytes; complete once the content has been read to its end."""
        return self._hashed.digest.hexdigest()


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[ByteSource]:
    """Open a regular file; errors that are raised while it is open get its name in front.

    Raises:
        MissingFileError: It is not there.
        VolumeError: It is a folder, a pipe, a device or a dangling link, or it may not be read.
    """
    with naming(shown(path)), _open_regular(Path(path)) as file:
        yield ByteSource(file)


def _not_fetched(link: Path) -> str:
    """A link that leads nowhere, in words."""
    target = os.fspath(link.readlink())
    remedy = "fetch it (datalad get, git annex get, dvc pull), or restore the file"
    if "annex/objects" in target:
        remedy = "run `datalad get` or `git annex get`"
    elif "dvc" in target:
        remedy = "run `dvc pull`"
    return f"a link to a file that is not there: its content was not fetched; {remedy}"


def _open_regular(path: Path) -> IO[bytes]:
    """Open a regular file; refuse anything else without opening it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        if path.is_symlink():
            raise MissingFileError(_not_fetched(path), code="FILE_NOT_FETCHED") from error
        raise MissingFileError("no such file; check the path") from error
    except (OSError, ValueError) as error:
        raise unreadable(error, "opened", "check the path") from error
    if not stat.S_ISREG(mode):
        raise VolumeError(not_a_file(mode, "give a volume file"), code="FILE_NOT_REGULAR")
    try:
        # Not blocking, in case a pipe takes the file's place between the two calls.
        descriptor = os.open(path, os.O_RDONLY | WITHOUT_WAITING | OPEN_FLAGS)
    except (OSError, ValueError) as error:
        raise unreadable(error, "opened", "check its permissions") from error
    file = os.fdopen(descriptor, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise VolumeError("not a regular file; give a volume file", code="FILE_NOT_REGULAR")
    return cast(IO[bytes], file)


def joint_hash(first: str, second: str) -> str:
    """One hash for two files that make one volume, from theirs."""
    return hashlib.sha256(f"{first}{second}".encode()).hexdigest()
