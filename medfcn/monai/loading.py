"""Volumes from disk as MONAI `MetaTensor`s, read by medfcn's own readers."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep
from numpy.typing import DTypeLike, NDArray

from medfcn.errors import VolumeError
from medfcn.slices.preprocess import stack_channels
from medfcn.volumes import ReadOptions, Volume, VolumeLike, as_volume, require_same_grid
from medfcn.volumes.geometry import SAME_GRID_VOXELS

_READ_STRICTLY = ReadOptions()


class LoadVolumed(MapTransform):
    """Loads volumes with medfcn's readers, which read a file right or refuse it in one line.

    Replaces MONAI's `LoadImaged` and `EnsureChannelFirstd`. The volumes of all keys must share one grid. All get the
    affine of the first key.

    Args:
        keys: Entries to load. Each is a path, a `Volume`, a nibabel image or an `(array, affine)` tuple, or a list of
            these, one for each channel.
        dtype: Type of the voxels, one for all keys or one for each; `None` keeps that of the file.
        options: Opt in to files that are otherwise refused.
        allow_missing_keys: Skip entries that are missing.

    Example:
        >>> sample = LoadVolumed("image")({"image": (np.ones((4, 5, 6)), np.diag([-1.0, 1, 2, 1]))})
        >>> sample["image"].shape, sample["image"].affine[2, 2].item()
        (torch.Size([1, 4, 5, 6]), 2.0)
    """

    def __init__(
        self,
        keys: KeysCollection,
        dtype: DTypeLike | Sequence[DTypeLike] = np.float32,
        *,
        options: ReadOptions = _READ_STRICTLY,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.dtype = ensure_tuple_rep(dtype, len(self.keys))
        self.options = options

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the entries of `data`.

        Returns:
            `data` with a `(C, I, J, K)` `MetaTensor` for each key. Its `meta` has MONAI's `filename_or_obj`,
            `original_affine` and `spatial_shape`, and `notes`: the notes of the reader, separated by semicolons.

        Raises:
            VolumeError: A file cannot be trusted to be a volume, or its values do not fit `dtype`.
            GeometryMismatchError: Two volumes are on different grids.
            MissingFileError: A file is missing.
        """
        result = dict(data)
        first: Volume | None = None
        for key, dtype in self.key_iterator(result, self.dtype):
            sources: list[VolumeLike] = result[key] if isinstance(result[key], list) else [result[key]]
            volumes = [as_volume(source, options=self.options) for source in sources]
            first = first or volumes[0]
            notes: list[str] = []
            volumes = [volume.reordered_to(first) for volume in volumes]
            for volume in volumes:
                voxels = require_same_grid(first, volume)
                notes += volume.notes
                notes += [f"{voxels:.2g} voxels from {first.name}"] if voxels > SAME_GRID_VOXELS else []
            array = np.stack([_converted(volume, dtype) for volume in volumes])
            result[key] = _tensor(array, first.affine, name=str(sources[0]) if _is_path(sources[0]) else volume.name)
            result[key].meta["notes"] = "; ".join(notes)
        return result


def _is_path(source: VolumeLike) -> bool:
    return isinstance(source, str) or hasattr(source, "__fspath__")


def _converted(volume: Volume, dtype: DTypeLike) -> NDArray[Any]:
    """The voxels of a volume as another type, if that can hold them."""
    if dtype is None or volume.array.dtype == dtype:
        return volume.array
    kind, array = np.dtype(dtype), volume.array
    with np.errstate(over="ignore", invalid="ignore"):
        converted: NDArray[Any] = array.astype(kind)
        # Floating types round; they must hold the range. Integer types must hold every value.
        fits = np.isfinite(converted).all() if kind.kind == "f" else np.array_equal(converted, array)
    if not fits:
        raise VolumeError(
            f"{volume.name or 'volume'}: has values that {kind} cannot hold; give another dtype, or None to keep "
            f"{array.dtype}",
            field="dtype",
        )
    return converted


def _tensor(array: NDArray[Any], affine: NDArray[np.float64], *, name: str = "") -> MetaTensor:
    """A `(C, I, J, K)` array as MONAI's loader would give it."""
    place = torch.from_numpy(np.array(affine))
    meta = {"original_affine": place.clone(), "spatial_shape": np.array(array.shape[1:])}
    if name:
        meta["filename_or_obj"] = name
    return MetaTensor(torch.from_numpy(np.array(array, order="C")), affine=place, meta=meta)


def image_tensor(volumes: Sequence[Volume]) -> MetaTensor:
    """The channels of a case as one `(C, I, J, K)` float32 `MetaTensor` with their RAS+ affine.

    Raises:
        GeometryMismatchError: A channel is on another grid than the first.
        VolumeError: An intensity is beyond float32.
    """
    return _tensor(stack_channels(volumes), volumes[0].affine)


def label_tensor(labels: NDArray[Any], affine: NDArray[np.float64]) -> MetaTensor:
    """The `(I, J, K)` labels of a case as a `(1, I, J, K)` `MetaTensor`."""
    return _tensor(labels[None], affine)
