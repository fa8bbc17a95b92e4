"""A file on disk and a `Volume` that can be trusted: read right, or refused in one line."""

from medfcn.volumes.formats.nifti_header import NiftiGeometry
from medfcn.volumes.geometry import (
    corner_displacement_mm,
    corner_displacement_voxels,
    is_oblique,
    is_sheared,
    orientation_of,
    spacing_mm,
)
from medfcn.volumes.options import ReadOptions
from medfcn.volumes.reading import as_volume, read_volume
from medfcn.volumes.volume import Volume, VolumeLike, require_same_grid

__all__ = [
    "NiftiGeometry",
    "ReadOptions",
    "Volume",
    "VolumeLike",
    "as_volume",
    "corner_displacement_mm",
    "corner_displacement_voxels",
    "is_oblique",
    "is_sheared",
    "orientation_of",
    "read_volume",
    "require_same_grid",
    "spacing_mm",
]
