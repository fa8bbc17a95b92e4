"""Prepared slices on disk, memory-mapped: read once from the volumes, then as fast as memory.

The files of a case are named by a hash of everything that its slices follow from: the content of its image and label
files, the plan and the labels. So the same content, prepared in the same way, is found again, and nothing else is.
Their hashes are kept, and compared when they are opened.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from medfcn.decoding import read_json
from medfcn.errors import DatasetError, naming
from medfcn.files import atomic_write, sha256_of, write_json
from medfcn.labels import IGNORED
from medfcn.memory_errors import raise_shortage
from medfcn.settings import View

_ARRAYS = ("images", "labels")
_FORMAT = 1
"""To be increased whenever the same content and settings give other slices."""
_UNREADABLE = (ValueError, TypeError, SyntaxError, TokenError, RecursionError)
"""Errors of numpy for a header that it cannot parse: it takes it for Python."""


@dataclass(frozen=True)
class StoredCase:
    """One case's slices along one view.

    Attributes:
        id: The case.
        view: The plane of the slices.
        images: `(N, C, H, W)` float32.
        labels: `(N, H, W)` uint8: 0 for background, k for the k-th label (or overlap), `IGNORED`.
        label_slices: For each label (or overlap) that is present, the numbers of the slices that contain it.
    """

    id: str
    view: View
    images: NDArray[np.float32]
    labels: NDArray[np.uint8]
    label_slices: tuple[NDArray[np.intp], ...]


def require_whole(case_id: str, *arrays: NDArray[Any]) -> None:
    """Refuse arrays of which the file was cut off since they were mapped: to read them there would end the process.

    Args:
        case_id: The case, for the message.
        arrays: Memory-mapped, or views of such; others pass.

    Raises:
        DatasetError: A file is shorter than its array, or not there.
    """
    for array in arrays:
        mapped: Any = array
        while mapped is not None and not isinstance(mapped, np.memmap):
            mapped = getattr(mapped, "base", None)
        if mapped is None or mapped.filename is None:
            continue
        needed = mapped.offset + mapped.nbytes
        try:
            found = os.stat(mapped.filename).st_size  # noqa: PTH116  # a Path is made in five times the time
        except OSError:
            found = 0
        if found < needed:
            raise DatasetError(
                f"{case_id}: its prepared slices were cut off while they were in use: {Path(mapped.filename).name} "
                f"has {found:,} of {needed:,} bytes; go on with --resume, which prepares them anew",
                code="SLICES_DAMAGED",
            )


def store_key(hashes: Iterable[str], settings: dict[str, Any]) -> str:
    """The name of the slices that files with these hashes and these settings give."""
    text = json.dumps([_FORMAT, list(hashes), settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _Mark:
    """The JSON file of a case along one view, written last: the slices with it are complete.

    Files that earlier medfcn wrote do not contain their key.
    """

    format: int
    sha256: dict[str, str]
    key: str = ""


class _Hashed:
    """A file whose bytes pass through a hash as they are written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.file.write(content)


def write_case(folder: Path, key: str, images: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """Store a case's slices along one view under a key, with their hashes.

    Args:
        folder: The folder of the store.
        key: From `store_key`.
        images: `(N, C, H, W)`.
        labels: `(N, H, W)`.
    """
    hashes = {}
    arrays: tuple[NDArray[Any], ...] = (images, labels)
    for name, array in zip(_ARRAYS, arrays, strict=True):
        with atomic_write(folder / f"{key}.{name}.npy") as file:
            hashed = _Hashed(file)
            np.save(cast(BinaryIO, hashed), array, allow_pickle=False)
        hashes[name] = hashed.digest.hexdigest()
    write_json(folder / f"{key}.json", asdict(_Mark(_FORMAT, hashes, key)))


def open_case(folder: Path, key: str, case_id: str, view: View) -> StoredCase | None:
    """A case's slices along a view, memory-mapped; None if they are not there, or not complete.

    Raises:
        DatasetError: They are damaged: their bytes are not those that were written.
        MemoryShortError: There is no memory to look at them.
    """
    mark, paths = folder / f"{key}.json", [folder / f"{key}.{name}.npy" for name in _ARRAYS]
    if not all(path.is_file() for path in (mark, *paths)):
        return None
    try:
        found = read_json(mark, _Mark, error=DatasetError, remedy="it is made again")
        if [sha256_of(path) for path in paths] != [found.sha256.get(name) for name in _ARRAYS]:
            raise ValueError("their SHA-256 is not the one that was recorded")
        if found.key not in ("", key):
            raise ValueError("they are those of another case or view")
        images, labels = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
        if (images.ndim, images.dtype, labels.dtype, labels.shape) != (
            *(4, np.float32, np.uint8),
            (images.shape[0], *images.shape[2:]),
        ):
            raise ValueError(f"their shapes are {images.shape} and {labels.shape}")
    except (OSError, EOFError, *_UNREADABLE) as error:
        with naming(case_id):
            raise_shortage(error)
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DatasetError(
            f"{case_id}: its prepared slices are damaged: {why}; start again with --overwrite", code="SLICES_DAMAGED"
        ) from error
    values = [value for value in np.unique(labels) if value not in (0, IGNORED)]
    present = [np.flatnonzero((labels == value).any(axis=(1, 2))) for value in values]
    return StoredCase(id=case_id, view=view, images=images, labels=labels, label_slices=tuple(present))
