"""The sample data with two labels that overlap: the whole organ (values 1 and 2) and its inside (value 2)."""

import gzip
import shutil
from pathlib import Path

import numpy as np

SAMPLE_DATA = Path(__file__).resolve().parents[1] / "sample_data"
LABELS = "whole=1+2,inside=2"
_VOXELS_FROM = 352
"""Bytes of a NIfTI header."""


def write_two_labels(folder: Path) -> Path:
    """The training cases of the sample data, the same bytes every time: a voxel with six neighbours has value 2."""
    shutil.copytree(SAMPLE_DATA / "train" / "images", folder / "images")
    (folder / "labels").mkdir()
    for path in sorted((SAMPLE_DATA / "train" / "labels").iterdir()):
        content = bytearray(gzip.decompress(path.read_bytes()))
        shape = np.frombuffer(content, dtype="<i2", count=4, offset=40)[1:]
        mask = np.frombuffer(content, dtype=np.uint8, offset=_VOXELS_FROM).reshape(shape, order="F")
        around = np.pad(mask, 1)
        inside = mask.copy()
        for axis in range(3):
            for step in (-1, 1):
                inside &= np.roll(around, step, axis)[1:-1, 1:-1, 1:-1]
        content[_VOXELS_FROM:] = (mask + inside).tobytes(order="F")
        (folder / "labels" / path.name.removesuffix(".gz")).write_bytes(content)
    return folder
