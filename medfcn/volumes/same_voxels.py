"""A hash of a volume's voxels, by which a volume is known that was saved anew: in another format, type or order."""

import hashlib

import numpy as np

from medfcn.scratch import release
from medfcn.volumes.geometry import axis_order
from medfcn.volumes.volume import Volume

_SLICES = 8
"""Slices that are copied at a time."""


def voxels_sha256(volume: Volume) -> str:
    """Equal for equal numbers on one shape, once the axes run to the right, front and head.

    The affine decides that order and nothing else. Numbers are compared as float32.

    Example:
        >>> stored = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([-1.0, -1, 3, 1]))
        >>> saved_anew = Volume(stored.array[::-1, ::-1].astype(np.float64), np.diag([1.0, 1, 3, 1]))
        >>> voxels_sha256(stored) == voxels_sha256(saved_anew)
        True
        >>> voxels_sha256(stored) == voxels_sha256(stored.with_array(stored.array + 1))
        False
    """
    order, signs = axis_order(np.eye(4), volume.affine)
    array = volume.array.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    is_stored_so = abs(array.strides[2]) == max(map(abs, array.strides))
    digest = hashlib.sha256(f"{array.shape}".encode())
    for first in range(0, array.shape[2], _SLICES):  # never a copy of the whole
        part = np.ascontiguousarray(array[:, :, first : first + _SLICES].T, dtype=np.float32)
        digest.update((part + np.float32(0)).data)  # -0.0 is 0.0
        if is_stored_so:  # else each part needs pages of the whole file
            release(volume.array)
    release(volume.array)
    return digest.hexdigest()
