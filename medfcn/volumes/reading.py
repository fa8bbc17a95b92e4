"""The one door for volumes: any supported file, array or image becomes a `Volume`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medfcn.errors import VolumeError, naming
from medfcn.files import sha256_of
from medfcn.text import shown
from medfcn.volumes.formats.dicom.series import count_volumes as count_in_series
from medfcn.volumes.formats.dicom.series import is_dicom, read_series, series_at, series_grid, series_sha256
from medfcn.volumes.formats.itk import read_itk
from medfcn.volumes.formats.nifti import count_volumes, read_nifti, read_nifti_volumes, stored_of_image
from medfcn.volumes.formats.stored import StoredVolume, of_one_value, without_trailing_ones
from medfcn.volumes.names import OTHER_EXTENSIONS, extension_of, stem_of
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions
from medfcn.volumes.refused import RefusedFile
from medfcn.volumes.volume import Volume, VolumeLike


def as_volume(source: VolumeLike, *, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """A `Volume` from a path, an image or an array.

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
    if isinstance(source, RefusedFile):
        source.refuse()
    if isinstance(source, str | os.PathLike):
        return read_volume(source, options=options)
    if isinstance(source, tuple | list) and len(source) == 2:
        return Volume(without_trailing_ones(np.asarray(source[0])), np.asarray(source[1]))
    if hasattr(source, "dataobj") and hasattr(source, "affine"):
        return volume_of(stored_of_image(source, options=options), options=options)
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
            `.mha`, `.mhd`; or DICOM: the folder of a series, or one file of it.
        options: The files to accept that are refused otherwise.

    Raises:
        MissingFileError: The file, or the other file of a pair, is not there.
        VolumeError: It is not what its name says, is cut off or damaged, is not a 3D image of numbers, or
            contains NaN or infinity.
        GeometryError: Its transforms are absent, broken or contradict each other.
    """
    return volume_of(read_stored(path, options=options), options=options)


def read_channels(source: VolumeLike, count: int, *, options: ReadOptions = DEFAULT_OPTIONS) -> tuple[Volume, ...]:
    """The volumes in the fourth dimension of one source, as Task01 and Task05 of the Decathlon store their channels.

    Args:
        source: As in `as_volume`; an array may have four dimensions.
        count: Number of volumes that are expected; 1 reads as `as_volume` does.
        options: How they are read.

    Raises:
        VolumeError: There are more or fewer, or one cannot be trusted.

    Example:
        >>> [volume.shape for volume in read_channels((np.ones((5, 4, 3, 2)), np.eye(4)), 2)]
        [(5, 4, 3), (5, 4, 3)]
    """
    if count == 1:
        return (as_volume(source, options=options),)
    found = volume_count(source, series=options.series)
    if found != count:
        if found == 1:
            as_volume(source, options=options)  # raises where the source has a fault of its own
        name = shown(source) if isinstance(source, str | os.PathLike) else "image"
        raise VolumeError(
            f"{name}: {found} of {count} channels in the fourth dimension; give a file with all of "
            f"them, or {count} files",
            code="SHAPE_4D",
            field="dim",
        )
    if isinstance(source, str | os.PathLike) and extension_of(source):
        return tuple(volume_of(one, options=options) for one in read_nifti_volumes(source, options=options))
    if isinstance(source, str | os.PathLike):
        chosen = (replace(options, volume_index=number) for number in range(count))
        return tuple(volume_of(read_series(source, options=one), options=one) for one in chosen)
    if isinstance(source, tuple | list):
        array = np.asarray(source[0])
        return tuple(Volume(array[..., channel], np.asarray(source[1])) for channel in range(count))
    return tuple(as_volume(source, options=replace(options, volume_index=channel)) for channel in range(count))


def volume_count(source: VolumeLike, *, series: str | None = None) -> int:
    """Number of volumes in the fourth dimension of a source; 1 where there is none, or where the source is refused.

    Args:
        source: As in `as_volume`; of a DICOM series its time points, echoes or acquisitions are counted.
        series: Which series of a folder of DICOM files is meant.

    Example:
        >>> volume_count((np.ones((5, 4, 3, 2)), np.eye(4))), volume_count((np.ones((5, 4, 3)), np.eye(4)))
        (2, 1)
    """
    if isinstance(source, str | os.PathLike):
        if extension_of(source):
            return count_volumes(source) if extension_of(source) in (".nii", ".nii.gz") else 1
        return count_in_series(source, wanted=series) if is_dicom(source) else 1
    pair = isinstance(source, tuple | list) and len(source) == 2
    stored: Any = source[0] if pair else getattr(source, "dataobj", None)  # type: ignore[index]
    shape = stored.shape if hasattr(stored, "shape") else np.shape(stored)
    return int(shape[3]) if len(shape) == 4 else 1


def read_stored(path: str | os.PathLike[str], *, options: ReadOptions = DEFAULT_OPTIONS) -> StoredVolume:
    """Read the numbers that a file stores, without the scaling of its header; errors as in `read_volume`."""
    if isinstance(path, RefusedFile):
        path.refuse()
    extension = extension_of(path)
    if not extension and is_dicom(path):
        return read_series(path, options=options)
    read = read_itk if extension in OTHER_EXTENSIONS else read_nifti
    return read(path, options=options)


def read_grid(path: str | os.PathLike[str], *, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """The grid of a file, as a volume of zeros in one place of memory; the pixels of a DICOM series are not read.

    Errors as in `read_volume`.
    """
    if not extension_of(path) and is_dicom(path):
        grid = series_grid(path, options=options)
        return Volume(of_one_value(np.uint8(0), grid.shape), grid.affine, grid.name)
    volume = read_volume(path, options=options)
    return volume.with_array(of_one_value(np.uint8(0), volume.shape))


def source_sha256(path: str | os.PathLike[str], *, options: ReadOptions = DEFAULT_OPTIONS) -> str:
    """The hash that a volume read from this path has; of a pair of files or a DICOM series, of all of them.

    Raises:
        OSError: A file cannot be read.
        MedfcnError: It is no series.
    """
    extension = extension_of(path)
    if not extension and is_dicom(path):
        return series_sha256(series_at(Path(path), wanted=options.series).files)
    if extension in (".nii", ".nii.gz"):
        return sha256_of(Path(path))
    return read_stored(path, options=options).sha256  # its header may name a second file


def volume_of(stored: StoredVolume, *, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """The volume that a file's stored numbers stand for, in their memory where possible.

    Raises:
        VolumeError: A voxel is NaN or infinite.
    """
    with naming(stored.name or "image"):
        array, notes = stored.intensities(options)
    return Volume(array, stored.affine, stem_of(stored.name), stored.geometry, stored.sha256, notes)
