"""Prepared slices on disk, memory-mapped: read once from the volumes, then as fast as memory.

The files of a case are named by a hash of everything that its slices follow from: the content of its image and label
files, the plan and the labels. So the same content, prepared in the same way, is found again, and nothing else is.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.files import atomic_write
from medfcn.labels import IGNORED
from medfcn.settings import View

_FORMAT = 1
"""To be increased whenever the same content and settings give other slices."""


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


def store_key(hashes: Iterable[str], settings: dict[str, Any]) -> str:
    """The name of the slices that files with these hashes and these settings give."""
    text = json.dumps([_FORMAT, list(hashes), settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_case(folder: Path, key: str, images: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """Store a case's slices along one view under a key.

    Args:
        folder: The folder of the store.
        key: From `store_key`.
        images: `(N, C, H, W)`.
        labels: `(N, H, W)`.
    """
    for name, array in (("images", images), ("labels", labels)):
        with atomic_write(folder / f"{key}.{name}.npy") as file:
            np.save(file, array, allow_pickle=False)


def open_case(folder: Path, key: str, case_id: str, view: View) -> StoredCase | None:
    """A case's slices along a view, memory-mapped; None if the key is not there."""
    paths = [folder / f"{key}.{name}.npy" for name in ("images", "labels")]
    if not all(path.is_file() for path in paths):
        return None
    images, labels = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
    values = [value for value in np.unique(labels) if value not in (0, IGNORED)]
    present = [np.flatnonzero((labels == value).any(axis=(1, 2))) for value in values]
    return StoredCase(id=case_id, view=view, images=images, labels=labels, label_slices=tuple(present))
