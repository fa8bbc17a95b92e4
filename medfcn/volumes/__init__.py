"""A file on disk and a `Volume` that can be trusted: read right, or refused in one line."""

from medfcn.volumes.cases import Case, Dataset, find_dataset, find_inputs, find_masks, require_complete
from medfcn.volumes.check import CheckReport, check_dataset
from medfcn.volumes.geometry import (
    corner_displacement_mm,
    corner_displacement_voxels,
    is_oblique,
    is_sheared,
    orientation_of,
    require_same_grid,
    spacing_mm,
)
from medfcn.volumes.header import NiftiGeometry
from medfcn.volumes.labels import IGNORED, LabelEntry, LabelMap, read_mask
from medfcn.volumes.nifti import read_volume, to_nibabel, write_volume
from medfcn.volumes.options import ReadOptions
from medfcn.volumes.parts import LabelPart
from medfcn.volumes.problems import Problem
from medfcn.volumes.volume import Volume, VolumeLike, as_volume

__all__ = [
    "IGNORED",
    "Case",
    "CheckReport",
    "Dataset",
    "LabelEntry",
    "LabelMap",
    "LabelPart",
    "NiftiGeometry",
    "Problem",
    "ReadOptions",
    "Volume",
    "VolumeLike",
    "as_volume",
    "check_dataset",
    "corner_displacement_mm",
    "corner_displacement_voxels",
    "find_dataset",
    "find_inputs",
    "find_masks",
    "is_oblique",
    "is_sheared",
    "orientation_of",
    "read_mask",
    "read_volume",
    "require_complete",
    "require_same_grid",
    "spacing_mm",
    "to_nibabel",
    "write_volume",
]
