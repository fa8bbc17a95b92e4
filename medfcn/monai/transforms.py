"""MONAI transforms that bring a volume to the network grid, and masks back.

Both are dictionary transforms on MONAI's `MetaTensor`, so they compose with any of MONAI's own; `ToNetworkGridd`
is invertible. They run the steps of `medfcn.slices.preprocess`, to the bit; medfcn itself calls those, because
importing MONAI takes longer than the masks of thirty small volumes.

Example:
    An oblique-free LPS volume comes out as R, A, S, and returns exactly:

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
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, InvertibleTransform, MapTransform
from numpy.typing import NDArray

from medfcn.slices.grid import GridMap, map_to_network, to_native_grid, to_network_grid
from medfcn.slices.plan import Intensity, Plan
from medfcn.slices.preprocess import normalise_channels, stack_channels
from medfcn.volumes import Volume, orientation_of, spacing_mm


class ToNetworkGridd(MapTransform, InvertibleTransform):
    """Re-orders a volume's axes to R, A, S and resamples it to the network's spacing.

    Floating tensors are interpolated linearly, integer ones as labels. The inverse brings either back to the
    native grid.

    Args:
        keys: Entries to change, each a `(C, I, J, K)` MetaTensor with a RAS+ affine in millimetres.
        spacing_mm: Wanted voxel edge lengths in R, A, S order; `None` keeps a volume's own.
        allow_missing_keys: Pass over entries that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing_mm: tuple[float | None, float | None, float | None] = (None, None, None),
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing_mm = spacing_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with its entries on the network grid."""
        result = dict(data)
        for key in self.key_iterator(result):
            native = result[key]
            affine = native.affine.numpy().astype(np.float64)
            shape = (int(native.shape[1]), int(native.shape[2]), int(native.shape[3]))
            grid = map_to_network(shape, orientation_of(affine), spacing_mm(affine), self.spacing_mm)
            array = to_network_grid(native.numpy(), grid)
            moved = MetaTensor(
                torch.from_numpy(np.ascontiguousarray(array)),
                affine=torch.from_numpy(affine @ grid.native_voxel),
                meta={name: value for name, value in native.meta.items() if name != "affine"},
                applied_operations=list(native.applied_operations),
            )
            self.push_transform(moved, extra_info={"grid": grid.to_json(), "affine": affine.tolist()})  # type: ignore[no-untyped-call]
            result[key] = moved
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with its entries back on the grids they came from."""
        result = dict(data)
        for key in self.key_iterator(result):
            record = self.pop_transform(result[key])["extra_info"]
            values = to_native_grid(result[key].numpy(), GridMap.from_json(record["grid"]))
            back = MetaTensor(
                torch.from_numpy(np.ascontiguousarray(values)),
                affine=torch.tensor(record["affine"], dtype=torch.float64),
                meta={name: value for name, value in result[key].meta.items() if name != "affine"},
                applied_operations=list(result[key].applied_operations),
            )
            result[key] = back
        return result


class NormaliseIntensityd(MapTransform):
    """Brings each channel to mean 0 and standard deviation 1 as the plan says.

    Args:
        keys: Entries to change, each `(C, I, J, K)`.
        intensities: One for each channel.
        allow_missing_keys: Pass over entries that are not there.
    """

    def __init__(
        self, keys: KeysCollection, intensities: Sequence[Intensity], *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.intensities = tuple(intensities)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with its entries normalised."""
        result = dict(data)
        for key in self.key_iterator(result):
            tensor = result[key].clone()
            array = tensor.numpy()
            array[:] = normalise_channels(array, self.intensities)
            result[key] = tensor
        return result


def network_transforms(plan: Plan, keys: Sequence[str] = ("image",)) -> Compose:
    """The transforms from a case's own grid to the network's input, as training and prediction make it.

    Args:
        plan: How volumes become slices.
        keys: `"image"` is normalised; others (`"label"`) only change grids.
    """
    return Compose(
        [
            ToNetworkGridd(keys, plan.spacing_mm),
            NormaliseIntensityd(["image"], plan.intensities),
        ]
    )


def image_tensor(volumes: Sequence[Volume]) -> MetaTensor:
    """A case's channels as one `(C, I, J, K)` float32 MetaTensor with their RAS+ affine.

    Raises:
        GeometryMismatchError: A channel lies on another grid than the first.
        VolumeError: An intensity is beyond float32.
    """
    stacked = stack_channels(volumes)
    return MetaTensor(torch.from_numpy(stacked), affine=torch.from_numpy(np.array(volumes[0].affine)))


def label_tensor(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> MetaTensor:
    """A case's labels as a `(1, I, J, K)` uint8 MetaTensor."""
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(labels)[None]), affine=torch.from_numpy(np.array(affine)))
