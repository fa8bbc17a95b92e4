"""Facts that are stated once in a folder which several processes share, on machines without common locks."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from medfcn.files import write_bytes


def state_once(path: Path, content: bytes) -> None:
    """Write a file, unless there is one. Of two processes that begin at once, one is the first.

    Args:
        path: The file; its folder exists.
        content: Of a few bytes.

    Raises:
        WriteError: The disk is full, or the folder may not be written to.
    """
    if path.exists():
        return
    # A link is made or refused in one step on every file system that has links, NFS included.
    own = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    write_bytes(own, content)
    try:
        with suppress(FileExistsError):
            os.link(own, path)
    except OSError:  # no links here: who begins at the very same moment with something else is not seen
        if not path.exists():
            write_bytes(path, content)
    finally:
        own.unlink(missing_ok=True)
