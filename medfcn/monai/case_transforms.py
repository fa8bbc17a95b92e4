"""A user's own MONAI transforms between reading and slicing: applied to a case, undone for its mask, in the card.

They see a dictionary with `image`, `(C, I, J, K)` float32, and in training `label`, `(1, I, J, K)` with the values of
the file: MONAI `MetaTensor`s on the grid of the file.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, InvertibleTransform, MapTransform, allow_missing_keys_mode
from monai.transforms.traits import RandomizableTrait
from numpy.typing import NDArray

from medfcn.errors import ModelError, SettingsError, VolumeError
from medfcn.memory_errors import raise_shortage
from medfcn.monai.loading import image_tensor, label_tensor
from medfcn.monai.recorded import TransformRecord
from medfcn.text import listed, one_line
from medfcn.volumes import Volume, require_same_grid

Transforms = Compose | Sequence[Callable[..., Any]] | Callable[..., Any]
"""A `Compose` of dictionary transforms, a list of them, or one."""
_STAYS_SHARE = 0.5
"""Share of a label's voxels that must be in the label again after the transforms were undone."""
_GROWTH_MOST, _VOXELS_MANY = 64, 16_000_000
"""As in `medfcn.slices.grid`: a larger growth comes from a wrong unit."""
_SAME_AFFINE = 1e-3
"""Millimetres; MONAI rounds affines as it inverts them."""


@dataclass(frozen=True)
class Transformed:
    """A case after the transforms.

    Attributes:
        images: One volume for each channel.
        mask: The values of the label file, on the grid of `images`; None without a label.
        trace: What undoing the transforms takes.
        original: The first channel as it was read.
    """

    images: tuple[Volume, ...]
    mask: Volume | None
    trace: MetaTensor
    original: Volume

    def without_voxels(self) -> "Transformed":
        """The same with empty volumes, which is enough to undo the transforms."""
        empty, original = (
            volume.with_array(np.broadcast_to(np.uint8(0), volume.shape))
            for volume in (self.images[0], self.original)
        )
        return Transformed((empty,), None, self.trace, original)


class CaseTransforms:
    """Deterministic transforms of a case.

    Args:
        transforms: A `Compose`, a list of transforms, or one.

    Attributes:
        records: Each transform as a card has it.

    Raises:
        SettingsError: One is random, or is not a transform.
    """

    def __init__(self, transforms: Transforms) -> None:
        chain = list(_flat(transforms))
        for transform in chain:
            if isinstance(transform, RandomizableTrait):
                raise SettingsError(
                    f"transforms: {type(transform).__name__} is random, so a prediction could not repeat it; medfcn "
                    "augments the training slices itself (the settings under [augment])",
                    code="TRANSFORM_RANDOM",
                    field="transforms",
                )
            if not callable(transform):
                raise SettingsError(
                    f"transforms: {type(transform).__name__} is not a transform; give a Compose of dictionary "
                    "transforms",
                    field="transforms",
                )
        self.compose = Compose(chain)
        self.records = tuple(TransformRecord.of(transform) for transform in chain)
        self._has_keys = any(isinstance(transform, MapTransform) for transform in chain)

    @classmethod
    def from_json(cls, value: Sequence[Mapping[str, Any]]) -> "CaseTransforms":
        """Build the transforms of a card.

        Raises:
            ModelError: One cannot be built from a card.
        """
        records = [TransformRecord(entry["name"], entry["arguments"], entry["sha256"]) for entry in value]
        missing = [record.name for record in records if record.arguments is None]
        if missing:
            raise ModelError(
                f"transforms: the run was trained with {listed(missing)}, which no card can hold; pass the same "
                "transforms again in a script: medfcn.load(run, transforms=...), predict(..., transforms=...)",
                code="TRANSFORMS_MISSING",
                field="transforms",
            )
        return cls([record.build() for record in records])

    @classmethod
    def of_run(cls, stored: Sequence[Mapping[str, Any]], given: Transforms | None) -> "CaseTransforms":
        """The transforms of a run.

        Args:
            stored: As its card has them.
            given: As a script passes them again; None builds them from the card.

        Raises:
            ModelError: They cannot be built from the card, or others are given.
        """
        if given is None:
            return cls.from_json(stored)
        transforms = cls(given)
        names = [[entry["name"] for entry in each] for each in (stored, transforms.to_json())]
        same = names[0] == names[1] and all(
            # What no card can hold is the script's word: code may change and do the same.
            entry["arguments"] is None or entry["sha256"] == record.sha256
            for entry, record in zip(stored, transforms.records, strict=True)
        )
        if not same:
            raise ModelError(
                f"transforms: the run was trained with others ({listed(names[0])}, and their arguments); pass those "
                "again, or leave them out",
                field="transforms",
            )
        return transforms

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, for a card."""
        return [record.to_json() for record in self.records]

    @property
    def sha256(self) -> str:
        """A hash of all transforms and their arguments, the same in every process."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def __call__(self, images: Sequence[Volume], mask: Volume | None = None) -> Transformed:
        """Transform a case.

        Args:
            images: One volume for each channel.
            mask: The label file as it was read.

        Raises:
            VolumeError: A transform fails, or what it gives is not a case.
            GeometryMismatchError: Image and label are on different grids afterwards.
        """
        who = images[0].name or "case"
        self._require_modest(who, images[0])
        sample: dict[Any, Any] = {"image": image_tensor(images)}
        if mask is not None:
            exact = np.float32 if mask.array.max() < 2**24 else np.float64
            sample["label"] = label_tensor(mask.array.astype(exact), images[0].affine)
        try:
            with allow_missing_keys_mode(self.compose) if self._has_keys else nullcontext():
                after = self.compose(sample)
            image = _checked(after["image"], len(images))
            label = _checked(after["label"], 1) if mask is not None else None
        except Exception as error:  # a transform is anyone's code
            raise_shortage(error)
            cause = error.__cause__ or error
            raise VolumeError(
                f"{who}: the transforms failed ({type(cause).__name__}: {one_line(str(cause))[:200]}); correct them",
                code="TRANSFORMS_FAILED",
                field="transforms",
            ) from error
        affine = image.affine.cpu().numpy().astype(np.float64)
        volumes = tuple(
            Volume(channel, affine, name=volume.name, sha256=volume.sha256, notes=volume.notes)
            for channel, volume in zip(image.cpu().numpy().astype(np.float32), images, strict=True)
        )
        if not all(np.isfinite(volume.array).all() for volume in volumes):
            raise VolumeError(
                f"{who}: the transforms give NaN or infinity; correct them",
                code="TRANSFORMS_FAILED",
                field="transforms",
            )
        meta = {name: value for name, value in image.meta.items() if name != "affine"}
        operations = list(image.applied_operations)
        trace = MetaTensor(torch.zeros(1), affine=image.affine, meta=meta, applied_operations=operations)
        moved = None
        if mask is not None and label is not None:
            moved = Volume(_whole(label, who), label.affine.cpu().numpy(), name=mask.name, sha256=mask.sha256)
            require_same_grid(volumes[0], moved)
        return Transformed(volumes, moved, trace, images[0])

    def _require_modest(self, who: str, image: Volume) -> None:
        """Refuse to resample to a grid that no memory holds."""
        extent_mm = math.prod(size * spacing for size, spacing in zip(image.shape, image.spacing_mm, strict=True))
        for record in self.records:
            pixdim = (record.arguments or {}).get("pixdim") if record.name == "Spacingd" else None
            edges = [edge for edge in np.ravel(pixdim if pixdim is not None else []) if edge > 0]
            edges = edges * 3 if len(edges) == 1 else edges
            if len(edges) == 3 and extent_mm / math.prod(edges) > max(_GROWTH_MOST * image.array.size, _VOXELS_MANY):
                raise VolumeError(
                    f"{who}: the transforms would make {extent_mm / math.prod(edges):.3g} voxels of "
                    f"{image.array.size}; correct pixdim",
                    code="TRANSFORMS_FAILED",
                    field="transforms",
                )

    def undo(self, values: NDArray[Any], transformed: Transformed) -> NDArray[Any]:
        """Bring a mask or probabilities from the grid of the transformed case to the grid of the file.

        Args:
            values: `(I', J', K')` indices, which go by the nearest voxel, or `(L, I', J', K')` probabilities, which
                are interpolated.
            transformed: Of the case.

        Raises:
            VolumeError: The transforms cannot be undone.
        """
        is_mask = values.ndim == 3
        predicted = torch.from_numpy(np.ascontiguousarray(values[None] if is_mask else values, dtype=np.float32))
        inverted = Invertd("pred", self.compose, orig_keys="image", nearest_interp=is_mask)
        who, original = transformed.original.name or "case", transformed.original
        try:
            if self._has_keys:
                sample: dict[Any, Any] = {"image": transformed.trace, "pred": MetaTensor(predicted)}
                back = inverted(sample)["pred"]
            else:
                back = MetaTensor(predicted, affine=transformed.trace.affine)
        except Exception as error:  # a transform is anyone's code
            raise_shortage(error)
            cause = error.__cause__ or error
            raise self._not_undone(who, f"{type(cause).__name__}: {one_line(str(cause))[:200]}") from error
        if tuple(back.shape[1:]) != original.shape:
            raise self._not_undone(who, f"shape {tuple(back.shape[1:])} instead of {original.shape}")
        if not np.allclose(back.affine.cpu().numpy(), original.affine, atol=_SAME_AFFINE):
            raise self._not_undone(who, "another affine than that of the file")
        array: NDArray[Any] = back.cpu().numpy()
        return np.rint(array[0]).astype(values.dtype) if is_mask else array.astype(values.dtype, copy=False)

    def _not_undone(self, who: str, reason: str) -> VolumeError:
        chain = [type(transform).__name__ for transform in self.compose.transforms]
        lost = [
            type(transform).__name__
            for transform in self.compose.transforms
            if not isinstance(transform, InvertibleTransform)
        ]
        return VolumeError(
            f"{who}: the transforms cannot be undone for its mask ({reason}); use transforms that MONAI can invert "
            f"wherever a grid changes; these cannot be inverted: {listed(lost or chain)}",
            code="TRANSFORMS_FAILED",
            field="transforms",
        )

    def require_usable(self, images: Sequence[Volume], mask: Volume) -> None:
        """Try the transforms on a case before any work.

        Raises:
            VolumeError: They fail, or a mask would not come back to the grid of the file.
            SettingsError: The same case comes out in two ways.
        """
        first, second = (self(images, mask) for _ in range(2))
        if not all(
            np.array_equal(one.array, two.array) for one, two in zip(first.images, second.images, strict=True)
        ):
            raise SettingsError(
                f"transforms: {images[0].name or 'a case'} comes out in another way each time, so a prediction could "
                "not repeat it; give deterministic transforms",
                code="TRANSFORM_RANDOM",
                field="transforms",
            )
        if first.mask is None:
            return
        back = self.undo((first.mask.array != 0).astype(np.uint8), first) != 0
        # A crop may lose a part of the label, and no transform may move it.
        if back.any() and (mask.array[back] != 0).mean() < _STAYS_SHARE:
            raise self._not_undone(images[0].name or "case", "its label comes back in another place")

    def __getstate__(self) -> dict[str, Any]:
        # Another process prepares nothing with them; they may hold what cannot be pickled.
        return {"records": self.records}


def _flat(transforms: Any) -> Iterator[Any]:
    """The transforms of nested chains, one by one.

    Raises:
        SettingsError: A chain is lazy, or more than a chain.
    """
    if type(transforms) is Compose:
        if transforms.lazy or transforms.overrides or transforms.map_items is not True or transforms.unpack_items:
            raise SettingsError(
                "transforms: a Compose with lazy, overrides, map_items or unpack_items cannot be written in a card; "
                "give a plain Compose",
                field="transforms",
            )
        transforms = list(transforms.transforms)
    if isinstance(transforms, list | tuple):
        for transform in transforms:
            yield from _flat(transform)
    else:
        yield transforms


def _checked(tensor: Any, channels: int) -> MetaTensor:
    if not isinstance(tensor, MetaTensor):
        raise TypeError(f"a {type(tensor).__name__} comes out, not a MetaTensor")
    if tensor.ndim != 4 or tensor.shape[0] != channels:
        raise ValueError(f"shape {tuple(tensor.shape)} comes out, expected ({channels}, I, J, K)")
    return tensor


def _whole(label: MetaTensor, who: str) -> NDArray[Any]:
    """The values of a label, as unsigned whole numbers.

    Raises:
        VolumeError: They are not whole numbers any more.
    """
    array = label.cpu().numpy()[0]
    rounded: NDArray[Any] = np.rint(array)
    if not np.array_equal(rounded, array) or array.min() < 0:
        odd = float(array[(rounded != array) | (array < 0)].reshape(-1)[0])
        raise VolumeError(
            f'{who}: the transforms give its label the value {odd:g}; give them mode="nearest" for the key "label"',
            code="TRANSFORMS_FAILED",
            field="transforms",
        )
    return rounded.astype(np.min_scalar_type(int(rounded.max())))
