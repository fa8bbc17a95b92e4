"""A file on disk and a `Volume` that can be trusted: read right, or refused in one line."""

from medfcn.volumes.geometry import orientation_of, spacing_mm
from medfcn.volumes.options import ReadOptions
from medfcn.volumes.reading import as_volume, read_volume
from medfcn.volumes.volume import Volume, VolumeLike, require_same_grid

__all__ = [
    "ReadOptions",
    "Volume",
    "VolumeLike",
    "as_volume",
    "orientation_of",
    "read_volume",
    "require_same_grid",
    "spacing_mm",
]
