"""Files that several processes may write at once, and that the first one decides, without common locks."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from medfcn.files import write_bytes


def write_once(path: Path, content: bytes) -> bool:
    """Write a file, unless there is one. Of two processes that begin at once, one is the first.

    Args:
        path: The file; its folder exists.
        content: Of a few bytes.

    Returns:
        True if it is this process's content that the file has.

    Raises:
        WriteError: The disk is full, or the folder may not be written to.
    """
    if path.exists():
        return False
    # A link is made or refused in one step on every file system that has links, NFS included.
    own = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    write_bytes(own, content)
    try:
        os.link(own, path)
    except FileExistsError:
        return False
    except OSError:  # no links here: who begins at the very same moment with something else is not seen
        if path.exists():
            return False
        write_bytes(path, content)
    finally:
        with suppress(OSError):
            own.unlink()
    return True
