"""Formats other than NIfTI, through SimpleITK."""

import os

from medfcn.errors import VolumeError
from medfcn.volumes.names import shown
from medfcn.volumes.options import ReadOptions
from medfcn.volumes.volume import Volume


def read_other(path: str | os.PathLike[str], *, options: ReadOptions) -> Volume:
    """Read a volume that is not NIfTI."""
    raise VolumeError(f"{shown(path)}: only NIfTI can be read so far; convert it to .nii.gz")
