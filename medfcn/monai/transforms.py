"""The way from a volume to the slices that a network sees, as invertible MONAI transforms.

All are dictionary transforms on MONAI's `MetaTensor`, so they compose with MONAI's own. They run the functions of
`medfcn.slices`: what they return is equal to the bit to what `medfcn train` and `medfcn predict` compute.

Example:
    A volume whose axes point to L, P and S comes out in R, A, S order, and returns exactly:

    >>> from monai.data import MetaTensor
    >>> image = MetaTensor(torch.arange(24.0).reshape(1, 2, 3, 4), affine=torch.diag(torch.tensor([-1.0, -1, 2, 1])))
    >>> to_grid = ToNetworkGridd(keys=["image"])
    >>> sample = to_grid({"image": image})
    >>> bool((sample["image"][0] == image[0].flip(0, 1)).all())
    True
    >>> bool((to_grid.inverse(sample)["image"] == image).all())
    True
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, InvertibleTransform, MapTransform
from monai.utils import ensure_tuple_rep
from numpy.typing import NDArray

from medfcn.errors import SettingsError
from medfcn.labels import LabelMap
from medfcn.labels.label_map import LabelsLike
from medfcn.settings import View
from medfcn.slices.grid import (
    GridMap,
    from_stored_order,
    map_to_network,
    to_native_grid,
    to_network_grid,
    to_stored_order,
)
from medfcn.slices.overlaps import overlaps_to_native, overlaps_to_network
from medfcn.slices.plan import Intensity, Plan
from medfcn.slices.preprocess import normalise_channels
from medfcn.slices.slicing import neighbours, slice_volume, stack_slices
from medfcn.volumes import orientation_of, spacing_mm

Mode = Literal["bilinear", "nearest"]
_CLASSES_MOST = 255
"""With more different values than these, a volume is no map of a few classes."""


class ToNetworkGridd(MapTransform, InvertibleTransform):
    """Re-orders the axes of a volume to R, A, S and resamples it to the spacing of the network grid.

    The inverse brings volumes, masks and probabilities back to the grid of the file.

    Args:
        keys: Entries to change, each a `(C, I, J, K)` `MetaTensor` with a RAS+ affine in millimetres.
        spacing_mm: Wanted voxel edge lengths in R, A, S order; `None` keeps those of the volume.
        mode: One for all keys or one for each. `bilinear` interpolates linearly along each axis and gives float32.
            `nearest` keeps the type and invents no value: of up to 255 classes it takes the one with the largest
            linearly interpolated share, of more the nearest voxel. `None` takes `nearest` for integers and `bilinear`
            for all others. The mode is stored in the trace, as in MONAI's own transforms, so that
            `Invertd(nearest_interp=True)` changes it.
        members: For labels that overlap: `(A + 1, L)`, see `LabelMap.members`. Entries with mode `nearest` are then
            the indices of overlaps.
        allow_missing_keys: Skip entries that are missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing_mm: tuple[float | None, float | None, float | None] = (None, None, None),
        mode: str | Sequence[str | None] | None = None,
        *,
        members: NDArray[np.bool_] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing_mm = spacing_mm
        self.mode = tuple(_mode(each) for each in ensure_tuple_rep(mode, len(self.keys)))
        self.members = members

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring the entries of `data` to the network grid."""
        result = dict(data)
        for key, wanted in self.key_iterator(result, self.mode):
            native = _as_meta_tensor(result[key])
            mode: Mode = wanted or ("bilinear" if native.is_floating_point() else "nearest")
            affine = native.affine.cpu().numpy().astype(np.float64)
            shape = (int(native.shape[1]), int(native.shape[2]), int(native.shape[3]))
            grid = map_to_network(shape, orientation_of(affine), spacing_mm(affine), self.spacing_mm)
            moved = _like(
                native, self._moved(_array(native), grid, mode, to_network=True), affine @ grid.native_voxel
            )
            if self.tracing:
                trace = {"mode": mode, "grid": grid.to_json(), "affine": affine.tolist()}
                self.push_transform(moved, orig_size=shape, extra_info=trace)  # type: ignore[no-untyped-call]
            result[key] = moved
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring the entries of `data` back to the grids they came from, with the mode in their traces."""
        result = dict(data)
        for key in self.key_iterator(result):
            moved = result[key]
            trace = self.get_most_recent_transform(moved)["extra_info"]
            grid = GridMap.from_json(trace["grid"])
            array = self._moved(moved.detach().cpu().numpy(), grid, _mode(trace["mode"]), to_network=False)
            result[key] = _like(moved, array, np.array(trace["affine"], dtype=np.float64))
            self.pop_transform(result[key])
        return result

    def _moved(self, array: NDArray[Any], grid: GridMap, mode: Mode | None, *, to_network: bool) -> NDArray[Any]:
        """A `(C, ...)` array on the other grid."""
        resample = to_network_grid if to_network else to_native_grid
        if mode != "nearest":
            return resample(array.astype(np.float32, copy=False), grid)
        if self.members is not None:
            move = overlaps_to_network if to_network else overlaps_to_native
            channels = [move(channel.astype(np.uint8), grid, self.members) for channel in array]
            return np.stack(channels).astype(array.dtype)
        if array.dtype == np.uint8 and array.max(initial=0) < _CLASSES_MOST:
            return resample(array, grid)
        values, codes = np.unique(array, return_inverse=True)
        if len(values) > _CLASSES_MOST:
            return _nearest(array, grid, to_network=to_network)
        moved: NDArray[Any] = values[resample(codes.reshape(array.shape).astype(np.uint8), grid)]
        return moved


def _mode(name: object) -> Mode | None:
    """One of the two modes, from its name or from an enum of MONAI.

    Raises:
        SettingsError: It is another.
    """
    if name is None:
        return None
    text = str(getattr(name, "value", name))
    for known in get_args(Mode):
        if text == known:
            mode: Mode = known
            return mode
    raise SettingsError(f"mode {text!r} is not bilinear or nearest; change it", field="mode")


def _nearest(array: NDArray[Any], grid: GridMap, *, to_network: bool) -> NDArray[Any]:
    """`(C, ...)` values of the nearest voxels, for volumes of more values than there can be classes."""
    native = tuple(grid.native_shape[axis] for axis in grid.axes)
    sizes, shape = (native, grid.shape) if to_network else (grid.shape, native)
    ratios = np.array(grid.spacing_mm) / np.array(grid.spacing_native_mm)
    if not to_network:
        ratios = 1 / ratios
    moved = from_stored_order(array, grid) if to_network else array
    for axis, (size, length, ratio) in enumerate(zip(sizes, shape, ratios, strict=True)):
        from_centre = (np.arange(length) + 0.5 - length / 2) * ratio
        # Ties go outwards on either side, so that a reversed axis gives the same.
        places = np.where(from_centre < 0, np.ceil(from_centre + size / 2 - 1), np.floor(from_centre + size / 2))
        moved = np.take(moved, np.clip(places, 0, size - 1).astype(np.intp), axis=1 + axis)
    return moved if to_network else to_stored_order(moved, grid)


class EncodeLabelsd(MapTransform, InvertibleTransform):
    """Turns the values of masks into the indices that a network is trained on.

    0 is the background, k the k-th label, or the k-th overlap where labels overlap, and 255 is ignored. The inverse
    turns indices into the values that medfcn writes.

    Args:
        keys: Entries to change, each a `(1, I, J, K)` mask.
        labels: The meaning of the values, such as `hippocampus=1+2`.
        allow_missing_keys: Skip entries that are missing.

    Example:
        >>> encode = EncodeLabelsd("label", LabelMap.parse("organ=4,vessel=7"))
        >>> encode({"label": torch.tensor([[[[0, 4, 7]]]])})["label"].as_tensor()
        tensor([[[[0, 1, 2]]]], dtype=torch.uint8)
    """

    def __init__(self, keys: KeysCollection, labels: LabelsLike, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = LabelMap.of(labels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Encode the entries of `data`.

        Raises:
            LabelError: A value is negative, not whole, or neither named nor ignored.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            mask = _as_meta_tensor(result[key])
            name = str(mask.meta.get("filename_or_obj", key))
            result[key] = _like(mask, self.labels.encode(mask.detach().cpu().numpy(), name=name))
            self.push_transform(result[key])  # type: ignore[no-untyped-call]
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Decode the entries of `data`."""
        result = dict(data)
        for key in self.key_iterator(result):
            indices = result[key]
            result[key] = _like(indices, self.labels.decode(indices.detach().cpu().numpy().astype(np.uint8)))
            self.pop_transform(result[key])
        return result


class NormaliseIntensityd(MapTransform):
    """Brings each channel to mean 0 and standard deviation 1, as the plan says.

    Args:
        keys: Entries to change, each `(C, I, J, K)`.
        intensities: One for each channel.
        allow_missing_keys: Skip entries that are missing.
    """

    def __init__(
        self, keys: KeysCollection, intensities: Sequence[Intensity], *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.intensities = tuple(intensities)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise the entries of `data`."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = _as_meta_tensor(result[key])
            array = _array(image).astype(np.float32, copy=False)
            result[key] = _like(image, normalise_channels(array, self.intensities))
        return result


class SliceVolumed(MapTransform, InvertibleTransform):
    """Cuts a volume into a batch of 2D slices, each with its neighbours as further channels.

    `(C, R, A, S)` becomes `(N, context·C, H, W)`: N slices along the axis of the view, as the network takes them. The
    channels of a slice are those of the lowest neighbour first; at the ends of the volume the outermost slice is
    repeated. The affine stays that of the volume.

    The inverse stacks slices again: those of the volume itself, of which it takes the middle one of each context, and
    also predictions `(N, K, H, W)` of any number of channels.

    Args:
        keys: Entries to change, each `(C, R, A, S)` on the network grid.
        view: The plane of the slices.
        context: Slices seen at once, odd; one for all keys or one for each, such as 3 for an image and 1 for a label.
        allow_missing_keys: Skip entries that are missing.

    Example:
        >>> sample = {"image": torch.rand(2, 30, 40, 20), "label": torch.zeros(1, 30, 40, 20)}
        >>> slices = SliceVolumed(["image", "label"], "axial", context=(3, 1))(sample)
        >>> slices["image"].shape, slices["label"].shape
        (torch.Size([20, 6, 30, 40]), torch.Size([20, 1, 30, 40]))
    """

    def __init__(
        self,
        keys: KeysCollection,
        view: View,
        *,
        context: int | Sequence[int] = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.view = view
        self.context = ensure_tuple_rep(context, len(self.keys))
        for count in self.context:
            if count < 1 or count % 2 == 0:
                raise SettingsError(f"context {count!r} is not an odd number from 1; change it", field="context")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the entries of `data` into slices."""
        result = dict(data)
        for key, context in self.key_iterator(result, self.context):
            volume = _as_meta_tensor(result[key])
            cut = _like(volume, with_neighbours(slice_volume(_array(volume), self.view), context))
            if self.tracing:
                trace = {"view": self.view, "context": context, "channels": int(volume.shape[0])}
                size = tuple(volume.shape[1:])
                self.push_transform(cut, orig_size=size, extra_info=trace)  # type: ignore[no-untyped-call]
            result[key] = cut
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Stack the slices of `data` to `(C, R, A, S)` volumes."""
        result = dict(data)
        for key in self.key_iterator(result):
            cut = result[key]
            trace = self.get_most_recent_transform(cut)["extra_info"]
            context, channels = int(trace["context"]), int(trace["channels"])
            slices = cut.detach().cpu().numpy()
            middle = slices[:, context // 2 * channels :][:, :channels]
            # A prediction may have as many channels as the input; only the input repeats the slices around each.
            if slices.shape[1] == context * channels and np.array_equal(slices, with_neighbours(middle, context)):
                slices = middle
            result[key] = _like(cut, stack_slices(slices, trace["view"]))
            self.pop_transform(result[key])
        return result


def with_neighbours(slices: NDArray[Any], context: int) -> NDArray[Any]:
    """`(N, C, H, W)` slices as `(N, context·C, H, W)`: each between its neighbours, lowest first."""
    if context == 1:
        return slices
    count, channels, height, width = slices.shape
    around = slices[neighbours(np.arange(count), count, context)]
    return np.ascontiguousarray(around.reshape(count, context * channels, height, width))


def network_transforms(
    plan: Plan, keys: Sequence[str] = ("image",), *, members: NDArray[np.bool_] | None = None
) -> Compose:
    """The transforms from a volume on its own grid to the network grid, as training and prediction make it.

    Args:
        plan: How volumes become slices.
        keys: `image` is interpolated linearly and normalised; all others are labels.
        members: For labels that overlap; see `ToNetworkGridd`.
    """
    modes = ["bilinear" if key == "image" else "nearest" for key in keys]
    return Compose(
        [
            ToNetworkGridd(keys, plan.spacing_mm, modes, members=members),
            NormaliseIntensityd("image", plan.intensities),
        ]
    )


def _as_meta_tensor(value: Any) -> MetaTensor:
    return value if isinstance(value, MetaTensor) else MetaTensor(value)


def _array(tensor: MetaTensor) -> NDArray[Any]:
    """The numbers of a tensor, without the work that MONAI does for each operation on a `MetaTensor`."""
    with torch._C.DisableTorchFunctionSubclass():
        array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def _like(tensor: MetaTensor, array: NDArray[Any], affine: NDArray[np.float64] | None = None) -> MetaTensor:
    """An array with the trace and the metadata of a tensor; also with its affine, unless another is given."""
    place = tensor.affine if affine is None else torch.from_numpy(affine)
    return MetaTensor(
        torch.from_numpy(np.ascontiguousarray(array)).to(tensor.device),
        affine=place,
        meta={name: value for name, value in tensor.meta.items() if name != "affine"},
        applied_operations=list(tensor.applied_operations),
    )
