"""Segmentations and structure sets alike: their structures by name, each a mask on the grid of an image."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import VolumeError, naming
from medfcn.text import shown
from medfcn.volumes.formats.dicom.contours import contour_mask, read_structure_set
from medfcn.volumes.formats.dicom.header import SEGMENTATIONS, STRUCTURE_SET, is_dicom_file, read_identity
from medfcn.volumes.formats.dicom.segmentation import read_segmentation, segment_mask
from medfcn.volumes.formats.dicom.series import dicom_files, is_label
from medfcn.volumes.geometry import Affine, Shape


def label_files_at(path: Path) -> tuple[Path, ...]:
    """The segmentations and structure sets that a path stands for: itself, or those directly in a folder."""
    files = dicom_files(path) if path.is_dir() else [path] if is_dicom_file(path) else []
    return tuple(file for file in files if is_label(read_identity(file)))


def structure_names(path: Path) -> tuple[str, ...]:
    """The names of the structures in a file.

    Raises:
        VolumeError: It is damaged, or no segmentation and no structure set.
    """
    if _kind(path) == STRUCTURE_SET:
        return tuple(read_structure_set(path).contours)
    return tuple(read_segmentation(path).names)


def structure_mask(path: Path, name: str, affine: Affine, shape: Shape) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """The voxels of a structure on the grid of an image, and notes; see `segment_mask` and `contour_mask`."""
    read = contour_mask if _kind(path) == STRUCTURE_SET else segment_mask
    return read(path, name, affine, shape)


def _kind(path: Path) -> str:
    kind = read_identity(path).sop_class
    if kind not in (*SEGMENTATIONS, STRUCTURE_SET):
        with naming(shown(path)):
            raise VolumeError("is neither a DICOM segmentation nor an RTSTRUCT; give a label", code="FILE_KIND")
    return kind
