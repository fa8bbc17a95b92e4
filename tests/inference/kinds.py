"""Volumes of several kinds, made by hand: a body with an organ, as MR, CT and PET show it."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from medfcn.volumes import Volume
from tests.slices.stored_orders import Order, stored_in

SHAPE, SPACING = (48, 40, 16), (1.5, 1.5, 4.0)
Array = NDArray[np.float64]


def affine(spacing: tuple[float, float, float] = SPACING) -> Array:
    """Axes to the left, the back and the head."""
    return np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])


def body(seed: int) -> tuple[Array, Array, np.random.Generator]:
    """Whole numbers: 0 air, 1 fat, 2 muscle, 3 the organ, 4 bone; and smooth noise of standard deviation 1."""
    random = np.random.default_rng(seed)
    at = [np.linspace(-1, 1, size).reshape([-1 if axis == place else 1 for place in range(3)])
          for axis, size in enumerate(SHAPE)]  # fmt: skip
    middle, size = random.uniform(-0.06, 0.06, 3), random.uniform(0.92, 1.08, 3)
    r, a, s = ((axis - shift) / edge for axis, shift, edge in zip(at, middle, size, strict=True))
    tissue = np.zeros(SHAPE)
    tissue[(r / 0.9) ** 2 + (a / 0.85) ** 2 + 0 * s < 1] = 1
    tissue[(r / 0.78) ** 2 + (a / 0.72) ** 2 + 0 * s < 1] = 2
    tissue[((r - 0.3) / 0.35) ** 2 + ((a - 0.2) / 0.3) ** 2 + ((s - 0.1) / 0.7) ** 2 < 1] = 3
    tissue[((r + 0.3) / 0.13) ** 2 + ((a + 0.3) / 0.13) ** 2 + 0 * s < 1] = 4
    smooth = gaussian_filter(random.normal(size=SHAPE), (1.5, 1.5, 0.7))
    return tissue, smooth / smooth.std(), random


def seen(seed: int, levels: tuple[float, ...], *, texture: float, noise: float, blur: float = 0.4) -> Array:
    """The body with an intensity for each tissue."""
    tissue, smooth, random = body(seed)
    image = gaussian_filter(np.array(levels)[tissue.astype(int)], (blur, blur, blur / 3))
    return image + texture * smooth * (tissue > 0) + noise * random.normal(size=SHAPE)


def mr(seed: int) -> Array:
    """The kind to train on; every volume has a scale of its own."""
    scale = np.random.default_rng(seed + 1000).uniform(0.5, 2)
    return scale * np.abs(seen(seed, (0, 300, 120, 200, 30), texture=25, noise=6))


def other_mr(seed: int) -> Array:
    """MR with another contrast: fat dark, the organ bright."""
    return np.abs(seen(seed, (0, 60, 80, 400, 10), texture=12, noise=6))


def ct(seed: int) -> Array:
    """In HU."""
    return seen(seed, (-1000, -100, 50, 110, 900), texture=8, noise=15)


def pet(seed: int) -> Array:
    """In SUV."""
    return np.abs(seen(seed, (0, 0.2, 0.6, 5, 0.4), texture=0.1, noise=0.02, blur=2.5))


def volume(array: Array, matrix: Array | None = None) -> Volume:
    return Volume(np.ascontiguousarray(array.astype(np.float32)), affine() if matrix is None else matrix)


def resampled(array: Array, spacing: tuple[float, float, float]) -> Volume:
    """The same place in other voxels."""
    factors = [old / new for old, new in zip(SPACING, spacing, strict=True)]
    return volume(zoom(array, factors, order=1), affine(spacing))


def stored(array: Array, order: Order) -> Volume:
    """The same place in another order of axes."""
    moved, matrix = stored_in(array.astype(np.float32), affine(), order)
    return Volume(np.ascontiguousarray(moved), matrix)


def write_dataset(folder: Path, *kinds: Callable[[int], Array], cases: int = 10) -> Path:
    """A data set of bodies; each kind is a channel."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for seed in range(cases):
        for channel, kind in enumerate(kinds):
            ending = f"_{channel:04d}" if len(kinds) > 1 else ""
            file = folder / "images" / f"case_{seed}{ending}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(kind(seed).astype(np.float32), affine()), file)
        mask = (body(seed)[0] == 3).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, affine()), folder / "labels" / f"case_{seed}.nii.gz")
    return folder
