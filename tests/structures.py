"""Data sets with one file for each structure, and what is in them."""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (24, 20, 12)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """A NIfTI file on a grid of 2 x 2 x 3 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.diag([-2.0, -2.0, 3.0, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(voxels, grid)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid, 1)
    image.set_qform(grid, 1)
    nib.save(image, path)
    return path


def box(*ranges: slice) -> np.ndarray:
    """A mask that is 1 in a box."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[ranges] = 1
    return mask


def organs(case: int = 0, *, overlap: int = 0) -> dict[str, np.ndarray]:
    """Three structures, of which the first two share `overlap` slices; 864, 720 + 144 x overlap and 48 voxels."""
    return {
        "liver": box(slice(2, 14), slice(2, 14), slice(1, 7)),
        "spleen": box(slice(2, 14), slice(2, 14), slice(7 - overlap, 12)),
        "kidney": box(slice(18, 22), slice(2 + case, 5 + case), slice(4, 8)),
    }


def lay_out(root: Path, layout: str, masks: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
    """Cases with an image, in one of the layouts.

    Args:
        root: The data set.
        layout: `segmentations` (TotalSegmentator), `flat` (all files in the case's folder) or `beside` (`images/` and
            `labels/<case>/`).
        masks: Structures by case.
    """
    random = np.random.default_rng(0)
    for case, structures in masks.items():
        signal = sum((60 * (nth + 1) * mask for nth, mask in enumerate(structures.values())), start=np.zeros(SHAPE))
        image = (signal + random.normal(100, 4, SHAPE)).astype(np.int16)
        save(root / f"images/{case}.nii.gz" if layout == "beside" else root / case / "ct.nii.gz", image)
        folder = {"segmentations": root / case / "segmentations", "flat": root / case}.get(
            layout, root / "labels" / case
        )
        for name, mask in structures.items():
            save(folder / f"{name}.nii.gz", mask)
    return root
