"""Masks: volumes whose voxels are whole numbers, read with care for 255 and for scaled files."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError, naming
from medfcn.labels.dicom import dicom_grid, dicom_structure
from medfcn.labels.image_like import NOT_WHOLE, is_image
from medfcn.labels.label_map import LabelMap
from medfcn.labels.structures import StructureFiles, choose_structures, parts_of, require_storable
from medfcn.labels.values import ANY, ValueSet
from medfcn.labels.whole_numbers import LARGEST_TABLE, ROUNDING, label_counts, numbers_text, whole_numbers
from medfcn.text import listed, shown
from medfcn.volumes.formats.seg_nrrd import segment_names
from medfcn.volumes.formats.stored import StoredVolume
from medfcn.volumes.names import NIFTI_EXTENSIONS, extension_of
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions
from medfcn.volumes.reading import as_volume, read_stored, volume_count, volume_of
from medfcn.volumes.volume import Volume, VolumeLike, require_same_grid

ROUNDED = "voxels rounded to whole labels"
"""Begins the note on a mask whose voxels were not quite whole numbers."""
_MOST_ROUNDING = 0.499
_ANY = LabelMap.parse("structure=any")
"""Any one value is the structure of a file of its own."""
_NAMES = "abcdefgh"
"""Names of the labels in a remedy, one a value."""


def read_mask(
    source: VolumeLike, *, labels: LabelMap | None = None, options: ReadOptions = DEFAULT_OPTIONS
) -> Volume:
    """Read a mask: a volume whose voxels are whole numbers from 0 up.

    Values within 1e-3 of a whole number are rounded, and the volume's `notes` say so. Where a file stores integers
    and a slope below 1, as nibabel does of floats under an integer header, rounding to these integers moved a value
    by up to half the slope, and that is undone. The values are those of the file; `labels` only says which of two
    readings of a scaled file is meant, and what 255 means.

    Args:
        source: What `as_volume` accepts, or one file for each structure (see `medfcn.labels.structures`); these are
            read one after the other, and `labels` says which.
        labels: Naming 255 (`--labels organ=255`, `ignore=255`) opts in to masks drawn with 255, and to files
            that scale 255 down to 1.
        options: How a file is read. A volume is chosen of a 4D file only: the mask of a 4D image is 3D.

    Returns:
        A volume of the smallest unsigned integers that can hold the values.

    Raises:
        LabelError: A value is negative, not whole, above 2^32 - 1, or a 255 that nobody named; or a file of 3D Slicer
            gives the name of a label to another value.
        VolumeError: As in `read_volume`.
    """
    if isinstance(source, StructureFiles):
        return _read_structures(source, labels or choose_structures(None, source.files), options)
    if options.volume_index is not None and volume_count(source) == 1:
        options = replace(options, volume_index=None)
    named = ValueSet((*labels.named_values.values, *labels.ignored)) if labels else ValueSet(())
    if isinstance(source, str | os.PathLike) and extension_of(source) in NIFTI_EXTENSIONS:
        is_any = labels is not None and labels.is_any
        volume, rounding = _unscaled_where_ambiguous(source, named, options, is_any=is_any)
    else:
        volume, rounding = as_volume(source, options=options), ROUNDING
    if labels and isinstance(source, str | os.PathLike) and extension_of(source).endswith((".nrrd", ".nhdr")):
        _refuse_other_names(segment_names(source), labels, volume.name)
    who = volume.name or "mask"
    whole, off = whole_numbers(volume.array, name=who, rounding=rounding)
    _check_255(whole, named, who)
    notes = volume.notes + ((f"{ROUNDED} (by up to {off:.1g})",) if off else ())
    return Volume(whole, volume.affine, name=volume.name, header=volume.header, sha256=volume.sha256, notes=notes)


def _read_structures(source: StructureFiles, labels: LabelMap, options: ReadOptions) -> Volume:
    """The structures of some labels as one mask, on the grid of the first; no two files are in memory at once."""
    lacking = source.lacking(labels)
    if lacking and not source.empty_if_absent:
        raise LabelError(
            f"{source.case}: no file of {listed(lacking)} in {shown(source.folder)}/; add an empty mask where there "
            "is nothing to draw, or name the other structures with --labels",
            code="STRUCTURE_MISSING",
            field="label",
        )
    grid: Volume | None = dicom_grid(source, options) if source.is_dicom else None
    mask: NDArray[Any] = np.zeros(() if grid is None else grid.shape, dtype=np.uint8)
    notes: list[str] = []
    hashes: list[str] = []
    # From the last label to the first: a voxel that is there already moves its places one up; see `value_of_places`.
    for place, part in reversed(list(enumerate(parts_of(labels), start=1))):
        inside: NDArray[np.bool_] | None = None
        for name in (name for name in part if name in source.files):
            file = source.files[name]
            with naming(source.case):
                if grid is not None and not extension_of(file):
                    one = dicom_structure(file, name, grid)
                else:
                    one = _read_structure(file, options, grid)
            notes += one.notes
            hashes.append(f"{file.name} {one.sha256}")
            inside = one.array != 0 if inside is None else inside | (one.array != 0)
            if grid is None:
                grid, mask = one, np.zeros_like(one.array, dtype=np.uint8)
        if inside is not None and inside.any():
            mask = _with_label(mask, inside, place, len(labels.entries), source.case)
    if grid is None:  # an empty mask, where any file of the case says how large
        grid = _read_structure(next(iter(source.files.values())), options, None)
        mask = np.zeros_like(grid.array, dtype=np.uint8)
    sha256 = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return replace(grid.with_array(mask), name=source.case, sha256=sha256, notes=tuple(dict.fromkeys(notes)))


def _with_label(mask: NDArray[Any], inside: NDArray[np.bool_], place: int, count: int, name: str) -> NDArray[Any]:
    """A mask with one more label, whose place comes before those that it contains."""
    before = mask[inside].astype(np.int64)
    largest = int(before.max()) * (count + 1) + place
    require_storable(largest, name)
    if np.iinfo(mask.dtype).max < largest:
        mask = mask.astype(np.min_scalar_type(largest))
    mask[inside] = before * (count + 1) + place
    return mask


def _read_structure(file: Path, options: ReadOptions, grid: Volume | None) -> Volume:
    """One structure, in the order of others of its case.

    Raises:
        LabelError: It has several values besides 0.
        GeometryMismatchError: It is on another grid.
    """
    one = read_mask(file, labels=_ANY, options=options)
    found = label_counts(one.array).keys() - {0}
    if len(found) > 1:
        raise LabelError(
            f"{file.name}: has the values {numbers_text(sorted(found))}; a file of one structure has 0 and one other "
            "value: split it, or, where it is the mask of several labels, list the cases in a CSV with the columns "
            "id,image,label",
            field="label",
        )
    if grid is not None:
        one = one.reordered_to(grid)
        with naming(file.name):
            require_same_grid(replace(grid, name="the other structures"), one)
    return one


def _unscaled_where_ambiguous(
    source: Any, named: ValueSet, options: ReadOptions, *, is_any: bool
) -> tuple[Volume, float]:
    """Read a mask whose header may scale it, such as 255 by 1/255, where both readings may look like labels.

    Returns:
        The mask, and the farthest that a voxel may be from a whole number.
    """
    stored = read_stored(source, options=options)
    raw = stored.array.copy() if stored.is_scaled else stored.array
    scaled = volume_of(stored, options=options)
    if not stored.is_scaled or raw.dtype.kind not in "iu":
        return scaled, ROUNDING
    most = max(abs(float(scaled.array.min())), abs(float(scaled.array.max())))
    # Half a slope was lost when the stored integers were rounded, and a little to float32.
    lost = min(abs(stored.slope) / 2 + 1e-6 * most, _MOST_ROUNDING) if abs(stored.slope) < 1.0 else 0.0
    rounding = max(lost, ROUNDING)
    if int(raw.min()) < 0 or int(raw.max()) > LARGEST_TABLE:
        return scaled, rounding
    as_stored = [int(value) for value in np.unique(raw)]
    as_scaled = [float(value) for value in np.unique(scaled.array)]
    if all(round(value * stored.slope + stored.inter) == value for value in as_stored):  # a slope of almost 1
        return scaled, _MOST_ROUNDING
    if is_any and stored.inter == 0:  # 0 is 0 in both readings, and every other value the label
        return scaled, rounding
    if not _stored_values_are_meant(as_stored, as_scaled, named, rounding, stored):
        return scaled, rounding
    note = "scl_slope ignored: the labels named are the stored values"
    plain = replace(stored, array=raw, slope=1.0, inter=0.0, notes=(*stored.notes, note))
    return volume_of(plain, options=options), ROUNDING


def _stored_values_are_meant(
    as_stored: list[int], as_scaled: list[float], named: ValueSet, rounding: float, stored: StoredVolume
) -> bool:
    """True if the labels are the stored values, False if they are the scaled ones.

    Raises:
        LabelError: Neither the labels named nor the values decide it.
    """
    whole = [round(value) for value in as_scaled if abs(value - round(value)) <= rounding]
    names_stored, names_scaled = bool(set(as_stored) & named), bool(set(whole) & named)
    if names_stored != names_scaled:
        return names_stored
    # Several labels do not become whole numbers by chance; a single value may be a mask drawn with 255.
    if abs(stored.slope) < 1.0 and len(whole) == len(as_scaled) and len(set(whole) - {0}) > 1:
        return False
    raise LabelError(
        f"{stored.name}: stores the values {numbers_text(as_stored)} and scl_slope {stored.slope:.6g} makes "
        f"them {numbers_text(as_scaled)}; say which is meant, such as --labels organ={as_stored[-1]}",
        field="scl_slope",
    )


def _refuse_other_names(stated: Iterable[tuple[int, str]], labels: LabelMap, who: str) -> None:
    """Refuse a mask whose file gives the name of a label to a value that is not the label's.

    Raises:
        LabelError: It does.
    """
    values = {entry.name.casefold(): entry.values for entry in labels.entries}
    for value, name in stated:
        known = values.get(name.casefold(), ANY)
        if known != ANY and value not in ValueSet(known):
            raise LabelError(
                f"{who}: names the value {value} {name!r}, and the labels are {listed(map(str, labels.entries))}; "
                "export it with the values of the others, or name the values that it has with --labels",
                code="LABELS_DIFFER",
                field="labels",
            )


def _check_255(whole: NDArray[Any], named: ValueSet, name: str) -> None:
    """Refuse a 255 that nobody named: it may be a label, or the foreground of a mask saved as a picture."""
    if 255 in named or int(whole.max()) < 255 or not (whole == 255).any():
        return
    values = list(label_counts(whole))
    if named and any(value in named for value in values):
        return
    if is_image(whole, len(values)):
        raise LabelError(
            f"{name}: {len(values)} different values up to {values[-1]}; give a mask (is this an image?)",
            field=NOT_WHOLE,
        )
    found = [value for value in values if value not in (0, 255)][: len(_NAMES) - 1]
    others = [f"{letter}={value}" for letter, value in zip(_NAMES, found, strict=False)]
    is_foreground = f"a label, say so with --labels {','.join([*others, f'{_NAMES[len(others)]}=255'])}"
    if not others:
        is_foreground = "the foreground, say so with --labels organ=255"
    raise LabelError(
        f"{name}: label values {numbers_text(values)}; if 255 is {is_foreground}, if nobody labelled those voxels, "
        f"with {','.join([*others, 'ignore=255'])}"
    )
