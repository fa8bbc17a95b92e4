"""What three readers make of a volume: its voxels, their place, and their notes."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NEAR_VOXELS = 0.05
"""Corners that lie farther apart than this are placed differently."""
NEAR_VALUES = 1e-5
"""Voxels that differ by more than this, relative to the largest of the volume, are scaled differently."""

Affine = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What a reader made of a file; `refused` has its words where it made nothing."""

    voxels: NDArray[np.float64] | None = None
    affine: Affine | None = None
    notes: tuple[str, ...] = ()
    refused: str = ""


def by_nibabel(path: Path) -> Seen:
    """What nibabel says."""
    import nibabel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nibabel.load(path)
            voxels = np.asarray(image.dataobj)
    except Exception as error:
        return Seen(refused=f"{type(error).__name__}: {error}"[:200])
    return Seen(voxels.astype(np.float64), np.asarray(image.affine, dtype=np.float64))


def by_simpleitk(path: Path) -> Seen:
    """What SimpleITK says, in RAS+."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = SimpleITK.ReadImage(os.fspath(path))
        voxels = SimpleITK.GetArrayFromImage(image).T
    except RuntimeError as error:
        return Seen(refused=str(error).strip().splitlines()[-1][:200])
    count = image.GetDimension()
    affine = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(count, count) @ np.diag(image.GetSpacing())
    kept = min(count, 3)
    affine[:kept, :kept] = directions[:kept, :kept]
    affine[:kept, 3] = image.GetOrigin()[:kept]
    affine[:2] *= -1.0
    return Seen(voxels.astype(np.float64), affine)


def by_medfcn(path: Path) -> Seen:
    """What medfcn says."""
    from medfcn.errors import MedfcnError
    from medfcn.volumes import read_volume

    try:
        volume = read_volume(path)
    except MedfcnError as error:
        return Seen(refused=str(error))
    return Seen(volume.array.astype(np.float64), volume.affine, volume.notes)


def apart(first: Seen, second: Seen) -> str:
    """How two readers differ, or nothing."""
    if first.voxels is None or second.voxels is None or first.affine is None or second.affine is None:
        return ""
    sizes = first.voxels.shape[:3]
    a, b = (np.squeeze(seen.voxels) for seen in (first, second))  # type: ignore[arg-type]
    if a.shape != b.shape:
        return f"shape: {first.voxels.shape} and {second.voxels.shape}"
    corners = np.array([[*np.multiply(corner, np.array(sizes) - 1), 1.0] for corner in np.ndindex(2, 2, 2)]).T
    distances = np.linalg.norm(((first.affine - second.affine) @ corners)[:3], axis=0)
    edge = max(float(np.linalg.norm(first.affine[:3, :3], axis=0).min()), 1e-30)
    if not distances.max() / edge <= NEAR_VOXELS:
        return f"place: {distances.max():.3g} mm, {distances.max() / edge:.3g} voxels"
    # Directions of axes of one voxel, which no corner shows.
    steps = np.linalg.norm((first.affine - second.affine)[:3, :3], axis=0) / np.linalg.norm(
        first.affine[:3, :3], axis=0
    )
    if not steps.max() <= NEAR_VOXELS:
        return f"direction: axis {int(np.argmax(steps))} by {steps.max():.3g} of its length"
    scale = max(float(np.abs(a).max()), float(np.abs(b).max()), 1e-300)
    with np.errstate(invalid="ignore"):
        far = np.abs(a - b).max() / scale
    if not far <= NEAR_VALUES:
        return f"values: {far:.3g} of the largest"
    return ""
