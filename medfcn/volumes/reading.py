"""The one door for volumes: any supported file, array or image becomes a `Volume`."""

import os

import numpy as np

from medfcn.errors import VolumeError
from medfcn.volumes.formats.itk import read_other
from medfcn.volumes.formats.nifti import intensities_of, read_stored, volume_of_image
from medfcn.volumes.names import OTHER_EXTENSIONS, extension_of
from medfcn.volumes.options import ReadOptions
from medfcn.volumes.volume import DEFAULT_OPTIONS, Volume, VolumeLike, without_trailing_ones


def as_volume(source: VolumeLike, *, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """A `Volume` from whatever stands for one.

    Args:
        source: A path, a `Volume` (returned as it is), a nibabel image, or a tuple of array and affine.
        options: How a file or a nibabel image is read.

    Raises:
        VolumeError: It cannot be trusted to be a volume.
        MissingFileError: The file is not there.

    Example:
        >>> as_volume((np.ones((2, 2, 2, 1)), np.eye(4))).shape
        (2, 2, 2)
    """
    if isinstance(source, Volume):
        return source
    if isinstance(source, str | os.PathLike):
        return read_volume(source, options=options)
    if isinstance(source, tuple | list) and len(source) == 2:
        return Volume(without_trailing_ones(np.asarray(source[0])), np.asarray(source[1]))
    if hasattr(source, "dataobj") and hasattr(source, "affine"):
        return volume_of_image(source, options=options)
    raise VolumeError(
        f"{type(source).__name__} is not a volume; give a path, a Volume, a nibabel image, or (array, affine)"
    )


def read_volume(path: str | os.PathLike[str], *, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """Read a volume, or refuse it in one line.

    Voxels keep their type unless the header scales them; scaled 8- and 16-bit and float32 voxels become
    float32 (each computed in float64), others float64. Trailing dimensions of length 1 are dropped and
    restored on writing.

    Args:
        path: `.nii`, `.nii.gz`, either file of a `.hdr`/`.img` pair (plain or `.gz`), `.nrrd`, `.nhdr`,
            `.mha`, `.mhd`.
        options: What to opt in to.

    Raises:
        MissingFileError: The file, or the other file of a pair, is not there.
        VolumeError: It is not what its name says, is cut off or damaged, is not a 3D image of numbers, or
            holds NaN or infinity.
        GeometryError: Its transforms are absent, broken or contradict each other.
    """
    if extension_of(path) in OTHER_EXTENSIONS:
        return read_other(path, options=options)
    stored = read_stored(path, options=options)
    return intensities_of(stored, options)
