"""The bytes of a file, plain or gzip, read to their end and checked on the way.

A file is opened once. What comes out of a gzip stream is counted, its CRC and length are verified, and
the SHA-256 of the file's own bytes is computed from the same read.
"""

import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar, cast

from medfcn.errors import MissingFileError, VolumeError
from medfcn.text import shown
from medfcn.volumes.formats.sniff import describe_bytes

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20
"""Bytes that are read or uncompressed at a time."""
LARGEST_RATIO = 1032
"""Deflate cannot do better than this: 258 bytes for two bits."""

T = TypeVar("T")


def gzip_reader(file: IO[bytes]) -> IO[bytes]:
    """Uncompress a gzip stream with igzip where it is installed, with the standard library elsewhere."""
    try:
        from isal import igzip
    except ImportError:  # platforms without a wheel of isal
        return cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb"))
    opener: Any = igzip.IGzipFile
    return cast(IO[bytes], opener(fileobj=file, mode="rb"))


def crc32(content: bytes | memoryview, start: int = 0) -> int:
    """The CRC of some bytes, going on from that of the bytes before them."""
    try:
        from isal import isal_zlib
    except ImportError:  # platforms without a wheel of isal
        return zlib.crc32(content, start)
    checksum: int = isal_zlib.crc32(content, start)
    return checksum


def stream_errors() -> tuple[type[Exception], ...]:
    """What `gzip_reader` raises for a stream that is cut off or damaged."""
    known = (OSError, EOFError, zlib.error, ValueError)
    try:
        from isal import isal_zlib
    except ImportError:  # platforms without a wheel of isal
        return known
    error: Any = isal_zlib.error
    return (*known, error)


def gzip_writer(file: IO[bytes], *, level: int) -> IO[bytes]:
    """Compress into `file` so that equal input gives equal bytes: no time and no file name in the header.

    Args:
        file: Receives the compressed bytes; it is not closed.
        level: 0 to 3, igzip's scale; the standard library gets a level of about the same size.
    """
    try:
        from isal import igzip
    except ImportError:  # platforms without a wheel of isal
        return cast(IO[bytes], gzip.GzipFile("", "wb", (1, 2, 4, 6)[level], fileobj=file, mtime=0))
    opener: Any = igzip.IGzipFile
    return cast(IO[bytes], opener("", "wb", level, fileobj=file, mtime=0))


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
    """A regular file, opened, whose content (uncompressed if it is gzip) is read from start to end.

    Args:
        path: The file.

    Raises:
        MissingFileError: It is not there.
        VolumeError: It is a folder, a pipe, a device or a dangling link, or it may not be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = shown(path)
        self._file = _open_regular(Path(path), self.name)
        try:
            self.file_size = os.fstat(self._file.fileno()).st_size
            self.head = self._raw(lambda: self._file.read(512))
            self.is_gzip = self.head.startswith(GZIP_MAGIC)
            self._rewind()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "ByteSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _rewind(self) -> None:
        self._raw(lambda: self._file.seek(0))
        self._hashed = _Hashed(self._file)
        self._content: IO[bytes] = (
            gzip_reader(cast(IO[bytes], self._hashed)) if self.is_gzip else cast(IO[bytes], self._hashed)
        )
        self.position = 0

    def _raw(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise VolumeError(f"{self.name}: cannot be read ({reason}); check the disk") from error

    def read(self, count: int) -> bytes:
        """Up to `count` bytes of content; fewer only at its end.

        Raises:
            VolumeError: The gzip stream is cut off or damaged.
        """
        parts: list[bytes] = []
        missing = count
        while missing > 0:
            part = self._some(min(missing, CHUNK))
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _some(self, count: int) -> bytes:
        try:
            part = self._content.read(count)
        except stream_errors() as error:
            raise self._broken(error) from error
        self.position += len(part)
        return part

    def _broken(self, error: Exception) -> VolumeError:
        if not self.is_gzip:
            return VolumeError(f"{self.name}: cannot be read ({_reason(error)}); check the disk")
        if isinstance(error, EOFError):
            return VolumeError(
                f"{self.name}: the gzip stream is cut off, or other bytes follow it ({self.file_size} bytes, "
                f"{self.position} uncompressed); copy or download the file again"
            )
        return VolumeError(
            f"{self.name}: the gzip stream is damaged near byte {self.position} of its content "
            f"({_reason(error)}); copy or download the file again"
        )

    def skip(self, count: int) -> int:
        """Read and drop `count` bytes; returns how many there were."""
        left = count
        while left > 0:
            part = self._some(min(left, CHUNK))
            if not part:
                break
            left -= len(part)
        return count - left

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` with content; returns how many bytes there were."""
        filled = 0
        while filled < len(buffer):
            if not self.is_gzip:
                count = self._straight_into(buffer[filled : filled + CHUNK])
                if not count:
                    break
                filled += count
                continue
            part = self._some(min(len(buffer) - filled, CHUNK))
            if not part:
                break
            buffer[filled : filled + len(part)] = part
            filled += len(part)
        return filled

    def _straight_into(self, buffer: memoryview) -> int:
        count = self._raw(lambda: self._hashed.readinto(buffer))
        self.position += count
        return count

    def require_end(self, expected: int) -> None:
        """Check that the content ends here; a gzip stream's CRC and length are verified by this.

        Raises:
            VolumeError: There is at least one byte more, or the stream is damaged.
        """
        if self._some(1):
            surplus = "more" if self.is_gzip else f"{self.file_size}"
            raise VolumeError(
                f"{self.name}: the header describes {expected} bytes and the file holds {surplus}; "
                "its dim or datatype is wrong, re-export it"
            )

    def require_length(self, expected: int, *, max_bytes: int) -> None:
        """Check, before anything is allocated, that the content can be exactly `expected` bytes long.

        Where a gzip file's own note of its length says otherwise, the stream is read through once without
        keeping it.

        Raises:
            VolumeError: It is shorter or longer, cannot be that long, or is longer than `max_bytes`.
        """
        if expected > max_bytes:
            raise VolumeError(
                f"{self.name}: the header describes {expected} bytes, more than the limit of {max_bytes}; "
                f"pass --max-bytes {expected} if that is right"
            )
        if not self.is_gzip:
            if self.file_size != expected:
                self._refuse_size(expected, self.file_size)
            return
        if expected > LARGEST_RATIO * self.file_size + 1024:
            raise VolumeError(
                f"{self.name}: the header describes {expected} bytes, more than {self.file_size} bytes of "
                "gzip "
                "data can hold; the file is cut off or its dim is wrong, copy or re-export it"
            )
        if self._noted_length() != expected % (1 << 32):
            position = self.position
            found = position + self.skip(expected - position)
            if found < expected:
                self._refuse_size(expected, found)
            self.require_end(expected)
            self._rewind()
            self.skip(position)

    def _refuse_size(self, expected: int, found: int) -> None:
        hint = (
            "the file is cut off, copy it again" if found < expected else "its dim or datatype is wrong, re-export it"
        )
        raise VolumeError(f"{self.name}: the header describes {expected} bytes and the file holds {found}; {hint}")

    def _noted_length(self) -> int:
        """The uncompressed length modulo 2^32 that a gzip file ends with."""
        try:
            return int.from_bytes(os.pread(self._file.fileno(), 4, max(self.file_size - 4, 0)), "little")
        except OSError as error:
            raise VolumeError(f"{self.name}: cannot be read ({_reason(error)}); check the disk") from error

    @property
    def sha256(self) -> str:
        """The hash of the file's own bytes; complete once the content has been read to its end."""
        return self._hashed.digest.hexdigest()


def _open_regular(path: Path, name: str) -> IO[bytes]:
    """Open a regular file; anything else is refused without being opened."""
    try:
        kind = path.stat().st_mode
    except FileNotFoundError as error:
        if path.is_symlink():
            raise MissingFileError(f"{name}: a link to a file that is not there; restore the file") from error
        raise MissingFileError(f"{name}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        raise VolumeError(f"{name}: cannot be opened ({_reason(error)}); check the path") from error
    if not stat.S_ISREG(kind):
        raise VolumeError(f"{name}: {_kind_of(kind)}, not a file; give a volume file")
    try:
        # Not blocking, in case a pipe takes the file's place between the two calls.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise VolumeError(f"{name}: cannot be opened ({_reason(error)}); check its permissions") from error
    file = os.fdopen(descriptor, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise VolumeError(f"{name}: not a regular file; give a volume file")
    return cast(IO[bytes], file)


def _kind_of(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe (FIFO)"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _reason(error: BaseException) -> str:
    """A library's words for what went wrong, on one line and without a path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:120] or type(error).__name__


def refuse_compression_mismatch(source: ByteSource, extension: str) -> None:
    """Refuse gzip data under a plain name, and plain data under a gzip name, saying what the file is.

    Raises:
        VolumeError: The name and the first bytes disagree, or the file is empty.
    """
    if not source.head:
        raise VolumeError(f"{source.name}: {describe_bytes(b'')}")
    wants_gzip = extension.endswith(".gz")
    if wants_gzip and not source.is_gzip:
        plain = source.head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")
        found = f"uncompressed NIfTI; rename it to {extension[:-3]}" if plain else describe_bytes(source.head)
        raise VolumeError(f"{source.name}: named {extension} but is {found}")
    if source.is_gzip and not wants_gzip:
        raise VolumeError(f"{source.name}: named {extension} but is gzip data; rename it to {extension}.gz")


def joint_hash(first: str, second: str) -> str:
    """One hash for two files that make one volume, from theirs."""
    return hashlib.sha256(f"{first}{second}".encode()).hexdigest()
