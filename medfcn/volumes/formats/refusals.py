"""Errors about volume files that several formats raise, each worded once.

None of them names the file: the function that opened it adds the name, see `medfcn.errors.naming`.
"""

from medfcn.errors import GeometryError, VolumeError
from medfcn.volumes.formats.sniff import describe_bytes


def bad_field(code: str, field: str, found: str, remedy: str = "re-export the file") -> VolumeError:
    """An error about one field of a header; a `GeometryError` where the code begins with `GRID`.

    Example:
        >>> bad_field("SHAPE", "dim[1]", "is 0; expected at least 1")
        VolumeError('dim[1] is 0; expected at least 1; re-export the file')
    """
    kind = GeometryError if code.startswith("GRID") else VolumeError
    return kind(f"{field} {found}; {remedy}", code=code, field=field)


def other_kind(head: bytes, before: str = "", *, code: str = "FILE_KIND") -> VolumeError:
    """An error that names the real kind of a file from its first bytes; an empty file has a code of its own."""
    return VolumeError(f"{before}{describe_bytes(head)}", code=code if head else "FILE_EMPTY")


def wrong_size(expected: int, found: int, *, at_least: bool = False) -> VolumeError:
    """An error about a file with fewer or more bytes than its header describes.

    Args:
        expected: Bytes that the header describes.
        found: Bytes that the file contains.
        at_least: Whether reading stopped there and the file contains more.
    """
    start = f"the header describes {expected} bytes and the file contains {found}{' or more' if at_least else ''}; "
    if found < expected:
        return VolumeError(f"{start}the file is cut off, copy it again", code="FILE_CUT_OFF")
    return VolumeError(f"{start}its size or voxel type is wrong, re-export it", code="FILE_SIZE")


def require_allowed(expected: int, max_bytes: int) -> None:
    """Check a number of bytes against the limit, before anything is allocated.

    Raises:
        VolumeError: It is larger.
    """
    if expected > max_bytes:
        raise VolumeError(
            f"the header describes {expected} bytes, more than the limit of {max_bytes}; "
            f"pass --max-bytes {expected} if that is right",
            code="FILE_SIZE",
        )


def unreadable(error: BaseException, what: str = "read", remedy: str = "check the disk") -> VolumeError:
    """An error of the operating system, without a path."""
    return VolumeError(f"cannot be {what} ({_reason(error)}); {remedy}", code="FILE_UNREADABLE")


def broken_stream(error: Exception, position: int) -> VolumeError:
    """An error of a compressed stream, after `position` bytes of its content."""
    if isinstance(error, EOFError):
        found, code = "is cut off, or other bytes follow it", "FILE_CUT_OFF"
    else:
        found, code = f"is damaged ({_reason(error)})", "FILE_DAMAGED"
    message = f"the compressed stream {found}, after {position} bytes of its content; copy or download the file again"
    return VolumeError(message, code=code)


def _reason(error: BaseException) -> str:
    """A library's words for what went wrong, on one line and without a path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:120] or type(error).__name__
