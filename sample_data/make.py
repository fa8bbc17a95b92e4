"""Make the sample volumes: `python sample_data/make.py [FOLDER]`.

Every volume is a phantom that is drawn from formulas and seeded random numbers; nothing in it was measured on
anyone. Each shows a curved organ with a bright core among tissue that shares its intensities but not its
texture or its layers. See the README beside this file.
"""

# nibabel is annotated only in part.
# mypy: disable-error-code="no-untyped-call"

import gzip
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float32]
Axes = tuple[Array, Array, Array]

SEED = 20260
SAMPLE_MM = 0.45  # how far apart the points are whose mean is a voxel: this makes the partial volume

# Brightness of each tissue, relative to white.
AIR, FLUID, RIM, STROMA, PARENCHYMA, CORE = 0.02, 0.22, 0.30, 0.46, 0.64, 0.86


@dataclass(frozen=True)
class Acquisition:
    """How one volume is sampled and stored.

    Attributes:
        split: `train` or `test`.
        shape: Voxels left to right, posterior to anterior, inferior to superior; `axes` re-orders them.
        spacing_mm: Voxel edge lengths in the same order.
        axes: Where the stored axes point, such as `LPS`.
        storage: Data type of the file; `scaled` is int16 with a slope and an intercept.
        tilt_degrees: Angles of the grid about the world's x, y and z axes; all 0 is not oblique.
    """

    split: Literal["train", "test"]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str
    storage: Literal["uint8", "int16", "uint16", "float32", "scaled"]
    tilt_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)


ACQUISITIONS = (
    Acquisition("train", (60, 60, 24), (1.1, 1.1, 2.5), "RAS", "int16"),
    Acquisition("train", (48, 48, 40), (1.4, 1.4, 1.4), "LPS", "uint8"),
    Acquisition("train", (64, 60, 22), (1.05, 1.05, 2.8), "LPS", "uint16"),
    Acquisition("train", (60, 64, 20), (1.1, 1.1, 3.0), "LAS", "float32"),
    Acquisition("train", (46, 50, 38), (1.4, 1.4, 1.4), "PIR", "int16"),
    Acquisition("train", (60, 60, 26), (1.1, 1.15, 2.2), "RAS", "scaled", (14.0, -9.0, 17.0)),
    Acquisition("train", (56, 56, 24), (1.2, 1.2, 2.4), "ASR", "uint8"),
    Acquisition("train", (52, 52, 34), (1.3, 1.3, 1.6), "LPI", "uint16"),
    Acquisition("train", (64, 64, 22), (1.0, 1.0, 2.5), "RPS", "int16"),
    Acquisition("train", (50, 48, 40), (1.4, 1.4, 1.4), "SAL", "scaled"),
    Acquisition("train", (58, 60, 22), (1.15, 1.1, 2.6), "RAI", "float32"),
    Acquisition("train", (60, 60, 24), (1.1, 1.1, 2.4), "LPS", "uint8"),
    Acquisition("test", (60, 60, 24), (1.1, 1.1, 2.5), "LPS", "int16"),
    Acquisition("test", (48, 48, 40), (1.4, 1.4, 1.4), "RAS", "uint8"),
    Acquisition("test", (62, 60, 22), (1.05, 1.1, 2.8), "PIR", "float32", (-12.0, 16.0, -21.0)),
    Acquisition("test", (56, 56, 26), (1.2, 1.2, 2.2), "LAS", "scaled"),
)


@dataclass(frozen=True)
class Ripples:
    """A random field of mean 0 and standard deviation 1, made of plane waves.

    Attributes:
        vectors: `(N, 3)` radians per millimetre.
        phases: `(N,)` radians.
    """

    vectors: Array
    phases: Array

    @classmethod
    def draw(cls, rng: np.random.Generator, wavelength_mm: float, *, flatness: float = 1.0) -> "Ripples":
        """Twelve waves of about one wavelength; a small `flatness` keeps them near the axial plane."""
        directions = rng.normal(size=(12, 3)) * (1.0, 1.0, flatness)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths_mm = wavelength_mm * rng.uniform(0.8, 1.25, size=(12, 1))
        vectors = 2 * np.pi * directions / lengths_mm
        return cls(vectors.astype(np.float32), rng.uniform(0, 2 * np.pi, 12).astype(np.float32))

    def on(self, axes: Axes) -> Array:
        """The field on the grid that three `(1D)` axes in millimetres span."""
        total = np.zeros(tuple(len(axis) for axis in axes), np.float32)
        for (x, y, z), phase in zip(self.vectors, self.phases, strict=True):
            # exp(i k·r) is a product over the axes: one outer product a wave instead of one cosine a point.
            plane = np.exp(1j * (x * axes[0] + phase))[:, None] * np.exp(1j * y * axes[1])
            column = np.exp(1j * z * axes[2])
            total += np.multiply.outer(plane.real, column.real) - np.multiply.outer(plane.imag, column.imag)
        return np.asarray(total * np.sqrt(2 / len(self.phases)), np.float32)


@dataclass(frozen=True)
class Layer:
    """What is drawn wherever a structure is deeper than `depth_mm` (negative: around its surface)."""

    depth_mm: float
    brightness: float
    texture: Ripples | None = None
    contrast: float = 0.0


@dataclass(frozen=True)
class Structure:
    """A chain of balls with a bumpy surface, filled in layers from the outside in.

    Attributes:
        centres_mm: `(K, 3)` in the grid's own millimetres, around its centre.
        radii_mm: `(K,)`.
        layers: From the outermost to the innermost.
        bumps: What pushes the surface in and out.
        bump_mm: By how much.
    """

    centres_mm: Array
    radii_mm: Array
    layers: tuple[Layer, ...]
    bumps: Ripples
    bump_mm: float

    def box(self, axes: Axes) -> tuple[slice, slice, slice]:
        """The part of a grid that the structure can touch."""
        reach = self.radii_mm[:, None] + 2.5 + 3 * self.bump_mm
        low, high = (self.centres_mm - reach).min(axis=0), (self.centres_mm + reach).max(axis=0)
        i, j, k = (
            slice(int(np.searchsorted(axis, start)), int(np.searchsorted(axis, stop)))
            for axis, start, stop in zip(axes, low, high, strict=True)
        )
        return i, j, k

    def depth_mm(self, axes: Axes) -> Array:
        """Millimetres below the surface on the grid the axes span; negative outside."""
        depth = np.full(tuple(len(axis) for axis in axes), -np.inf, np.float32)
        for centre, radius in zip(self.centres_mm, self.radii_mm, strict=True):
            x, y, z = (np.square(axis - middle) for axis, middle in zip(axes, centre, strict=True))
            np.maximum(depth, radius - np.sqrt(x[:, None, None] + y[:, None] + z), out=depth)
        return depth + np.float32(self.bump_mm) * self.bumps.on(axes)

    def draw_on(self, canvas: Array, axes: Axes) -> NDArray[np.bool_]:
        """Draw the layers over what `canvas` shows; returns where the structure is."""
        inside = np.zeros(canvas.shape, np.bool_)
        box = self.box(axes)
        local = (axes[0][box[0]], axes[1][box[1]], axes[2][box[2]])
        if all(len(axis) for axis in local):
            depth = self.depth_mm(local)
            for layer in self.layers:
                fill = np.full_like(depth, layer.brightness)
                if layer.texture is not None:
                    fill += layer.contrast * layer.texture.on(local)
                np.copyto(canvas[box], fill, where=depth > layer.depth_mm)
            inside[box] = depth > 0
        return inside


def draw_arc(
    rng: np.random.Generator, *, radius_mm: float, angle_degrees: float, thickness_mm: float
) -> tuple[Array, Array]:
    """Centres `(K, 3)` and radii `(K,)` of a bean: an arc in a random plane around the origin, tapered."""
    angles = np.radians(np.linspace(-0.5, 0.5, 13) * angle_degrees)
    arc = radius_mm * np.stack([np.cos(angles), np.sin(angles), 0.15 * np.sin(2 * angles)], axis=1)
    arc -= (arc.min(axis=0) + arc.max(axis=0)) / 2
    along = np.linspace(-1, 1, len(angles))
    radii = thickness_mm * (1 - 0.25 * along**2) * (1 + rng.uniform(-0.1, 0.1) * along)
    # Four normal numbers are a uniformly random rotation.
    turned = arc @ Rotation.from_quat(rng.normal(size=4)).as_matrix().T
    return turned.astype(np.float32), radii.astype(np.float32)


def draw_organ(rng: np.random.Generator, half_size_mm: Array) -> Structure:
    """The organ: fine-grained parenchyma around a bright core, wholly inside the grid, in any pose."""
    centres, radii = draw_arc(
        rng,
        radius_mm=rng.uniform(11, 14),
        angle_degrees=rng.uniform(120, 165),
        thickness_mm=rng.uniform(8.5, 10),
    )
    room = half_size_mm - 2 - (np.abs(centres) + radii[:, None]).max(axis=0)
    place = rng.uniform(-1, 1, 3) * np.maximum(room, 0)
    grain = Ripples.draw(rng, 5.0, flatness=0.4)
    layers = (
        Layer(-1.4, RIM),
        Layer(0.0, PARENCHYMA * rng.uniform(0.97, 1.03), grain, 0.10),
        Layer(5.2, CORE * rng.uniform(0.97, 1.03), grain, 0.06),
    )
    return Structure((centres + place).astype(np.float32), radii, layers, Ripples.draw(rng, 22.0), 0.5)


def draw_confounder(rng: np.random.Generator, half_size_mm: Array, kind: int) -> Structure:
    """Tissue that shares the organ's brightness, or its outline, or its layers, but never its grain."""
    size = rng.uniform(0.85, 1.15)
    coarse = Ripples.draw(rng, 16.0)
    parenchyma = Layer(0.0, PARENCHYMA * rng.uniform(0.97, 1.03), coarse, 0.08)
    if kind == 0:  # the organ's twin in outline and rim, but smooth and without a core
        centres, radii = draw_arc(rng, radius_mm=12.5, angle_degrees=140, thickness_mm=9.5 * size)
        layers: tuple[Layer, ...] = (Layer(-1.4, RIM), parenchyma)
    elif kind == 1:  # a rounder one, inside out: a bright wall around parenchyma
        centres, radii = draw_arc(rng, radius_mm=5, angle_degrees=120, thickness_mm=9.0 * size)
        layers = (Layer(-1.2, RIM), Layer(0.0, CORE, coarse, 0.05), Layer(4.0, PARENCHYMA, coarse, 0.08))
    elif kind == 2:  # a loop of bowel: a wall around fluid
        centres, radii = draw_arc(rng, radius_mm=14, angle_degrees=240, thickness_mm=6.5 * size)
        layers = (parenchyma, Layer(2.8, FLUID))
    elif kind == 3:  # a vessel
        centres, radii = draw_arc(rng, radius_mm=26, angle_degrees=110, thickness_mm=2.6 * size)
        layers = (Layer(0.0, CORE),)
    else:  # a mass without a rim
        centres, radii = draw_arc(rng, radius_mm=8, angle_degrees=60, thickness_mm=11.0 * size)
        layers = (parenchyma,)
    place = rng.uniform(-1, 1, 3) * half_size_mm
    return Structure((centres + place).astype(np.float32), radii, layers, Ripples.draw(rng, 18.0), 0.6)


def draw_body_wall(rng: np.random.Generator, half_size_mm: Array) -> Structure:
    """The rest of the body: fat, muscle as bright as parenchyma, and stroma; air on one side."""
    direction = rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(70, 90)
    edge = rng.uniform(0.85, 1.05) * half_size_mm[:2].max()
    toward = np.array([np.cos(direction), np.sin(direction)]) * (edge - radius)
    heights = np.linspace(-1.5, 1.5, 7) * half_size_mm[2]
    drift = rng.uniform(-0.15, 0.15, 2)
    centres = np.stack([toward[0] + drift[0] * heights, toward[1] + drift[1] * heights, heights], axis=1)
    layers = (
        Layer(0.0, CORE * 0.95),
        Layer(2.5, PARENCHYMA, Ripples.draw(rng, 14.0), 0.08),
        Layer(rng.uniform(8.0, 11.0), STROMA, Ripples.draw(rng, 20.0), 0.07),
    )
    radii = np.full(len(heights), radius, np.float32)
    return Structure(centres.astype(np.float32), radii, layers, Ripples.draw(rng, 40.0), 1.0)


def overlap_mm(first: Structure, second: Structure) -> float:
    """By how many millimetres the balls of two structures reach into each other, at most."""
    apart = np.linalg.norm(first.centres_mm[:, None] - second.centres_mm[None], axis=2)
    return float((first.radii_mm[:, None] + second.radii_mm[None] - apart).max())


def cover_mm(inner: Structure, outer: Structure) -> float:
    """How many millimetres of `outer` lie over every ball of `inner`, at least."""
    apart = np.linalg.norm(inner.centres_mm[:, None] - outer.centres_mm[None], axis=2)
    return float(((outer.radii_mm[None] - apart).max(axis=1) - inner.radii_mm).min())


def draw_scene(rng: np.random.Generator, half_size_mm: Array) -> tuple[Structure, ...]:
    """All structures of one volume, in the order they are drawn; the organ comes last."""
    wall = draw_body_wall(rng, half_size_mm)
    organ = draw_organ(rng, half_size_mm)
    while cover_mm(organ, wall) < 9.0:
        organ = draw_organ(rng, half_size_mm)
    structures = [wall]
    for kind in (3, 2, 4, 4, 1, 0, 0, 1, 3, 4):
        for _ in range(60):
            candidate = draw_confounder(rng, half_size_mm, kind)
            if overlap_mm(candidate, organ) < 2.0 and cover_mm(candidate, wall) > 4.0:
                structures.append(candidate)
                break
    return (*structures, organ)


def sample(scene: Sequence[Structure], acquisition: Acquisition) -> tuple[Array, NDArray[np.bool_]]:
    """What box-shaped voxels show of a scene, and which of them the organ, drawn last, fills to half."""
    finer = [max(2, round(size / SAMPLE_MM)) for size in acquisition.spacing_mm]
    x, y, z = (
        ((np.arange(count * parts) + 0.5) * (size / parts) - count * size / 2).astype(np.float32)
        for count, parts, size in zip(acquisition.shape, finer, acquisition.spacing_mm, strict=True)
    )
    canvas = np.full((len(x), len(y), len(z)), AIR, np.float32)
    inside = np.zeros(canvas.shape, np.bool_)
    for structure in scene:
        inside = structure.draw_on(canvas, (x, y, z))
    blocks = tuple(number for pair in zip(acquisition.shape, finer, strict=True) for number in pair)
    brightness = canvas.reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float64).astype(np.float32)
    return brightness, inside.reshape(blocks).mean(axis=(1, 3, 5)) >= 0.5


def bias_field(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """A smooth factor around 1, as a surface coil leaves it: a quadratic in the voxels' places."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, count) for count in shape), indexing="ij", sparse=True)
    terms = (x, y, z, x * y, x * z, y * z, x * x - 1 / 3, y * y - 1 / 3, z * z - 1 / 3)
    weights = rng.uniform(-0.14, 0.14, len(terms))
    exponent = np.zeros(shape)
    for weight, term in zip(weights, terms, strict=True):
        exponent += weight * term
    return np.exp(exponent).astype(np.float32)


def add_rician_noise(rng: np.random.Generator, brightness: Array, sigma: float) -> Array:
    """The magnitude of a complex signal with Gaussian noise in both parts (Gudbjartsson and Patz, 1995)."""
    real, imaginary = rng.normal(0, sigma, (2, *brightness.shape))
    noisy: Array = np.hypot(brightness + real, imaginary).astype(np.float32)
    return noisy


def quantise(brightness: Array, storage: str) -> tuple[NDArray[np.generic], float, float]:
    """Numbers as a file stores them, with the slope and intercept that a reader applies.

    Args:
        brightness: With white at about 160 to 200, so that a step is a fifth to a tenth of the noise; finer
            steps would only store digits of noise.
        storage: See `Acquisition`.
    """
    if storage == "uint8":
        return np.clip(np.rint(brightness), 0, 255).astype(np.uint8), 1.0, 0.0
    if storage == "uint16":
        return np.rint(brightness).astype(np.uint16), 1.0, 0.0
    if storage == "float32":
        return (np.rint(brightness) / np.float32(128)).astype(np.float32), 1.0, 0.0
    if storage == "scaled":
        return np.rint(brightness - 100).astype(np.int16), 2.5, 250.0
    return np.rint(brightness - 40).astype(np.int16), 1.0, 0.0


def affine_of(rng: np.random.Generator, acquisition: Acquisition) -> NDArray[np.float64]:
    """Voxel indices (before re-ordering) to RAS+ millimetres, around a random point of the scanner."""
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", acquisition.tilt_degrees, degrees=True).as_matrix()
    affine[:3, :3] = turn * acquisition.spacing_mm
    middle = (np.array(acquisition.shape) - 1) / 2
    affine[:3, 3] = np.round(rng.uniform(-60, 60, 3), 1) - affine[:3, :3] @ middle
    return affine


def to_nifti(
    voxels: NDArray[np.generic],
    affine: NDArray[np.float64],
    axes: str,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> nib.Nifti1Image:
    """An image of `voxels` re-ordered to `axes`, with one and the same sform and qform, in millimetres."""
    turn = nib.orientations.axcodes2ornt(axes)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), turn)
    stored = nib.orientations.apply_orientation(voxels, turn)
    image = nib.Nifti1Image(stored, affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape))
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(slope, intercept)
    return image


def make_case(number: int) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Image and mask of the `number`-th sample, from 1; each depends on the seed and its number alone."""
    acquisition = ACQUISITIONS[number - 1]
    rng = np.random.default_rng([SEED, number])
    half_size_mm = (np.array(acquisition.shape) * acquisition.spacing_mm / 2).astype(np.float32)
    brightness, organ = sample(draw_scene(rng, half_size_mm), acquisition)
    brightness *= bias_field(rng, acquisition.shape)
    noisy = add_rician_noise(rng, brightness, rng.uniform(0.03, 0.05)) * np.float32(rng.uniform(160, 200))
    stored, slope, intercept = quantise(noisy, acquisition.storage)
    affine = affine_of(rng, acquisition)
    return (
        to_nifti(stored, affine, acquisition.axes, slope, intercept),
        to_nifti(organ.astype(np.uint8), affine, acquisition.axes),
    )


def write_nifti(image: nib.Nifti1Image, path: Path) -> None:
    """Write a `.nii.gz` whose bytes do not depend on its name or on the time."""
    content = io.BytesIO()
    image.to_stream(content)
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed:
        packed.write(content.getvalue())


def main(folder: Path) -> None:
    """Write all samples to `folder/{train,test}/{images,labels}/sample_NN.nii.gz`."""
    for number, acquisition in enumerate(ACQUISITIONS, start=1):
        for name, image in zip(("images", "labels"), make_case(number), strict=True):
            path = folder / acquisition.split / name / f"sample_{number:02d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_nifti(image, path)
    print(f"wrote {len(ACQUISITIONS)} volumes and their masks to {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
