"""Masks: volumes whose voxels are whole numbers, read with care for 255 and for scaled files."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError
from medfcn.labels.label_map import LabelMap
from medfcn.labels.values import ValueSet
from medfcn.labels.whole_numbers import LARGEST_TABLE, ROUNDING, label_counts, numbers_text, whole_numbers
from medfcn.volumes.formats.stored import StoredVolume
from medfcn.volumes.names import NIFTI_EXTENSIONS, extension_of
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions
from medfcn.volumes.reading import as_volume, read_stored, volume_count, volume_of
from medfcn.volumes.volume import Volume, VolumeLike

ROUNDED = "voxels rounded to whole labels"
"""Begins the note on a mask whose voxels were not quite whole numbers."""
_MOST_ROUNDING = 0.499


def read_mask(
    source: VolumeLike, *, labels: LabelMap | None = None, options: ReadOptions = DEFAULT_OPTIONS
) -> Volume:
    """Read a mask: a volume whose voxels are whole numbers from 0 up.

    Values within 1e-3 of a whole number are rounded, and the volume's `notes` say so. Where a file stores integers
    and a slope below 1, as nibabel does of floats under an integer header, rounding to these integers moved a value
    by up to half the slope, and that is undone. The values are those of the file; `labels` only says which of two
    readings of a scaled file is meant, and what 255 means.

    Args:
        source: What `as_volume` accepts.
        labels: Naming 255 (`--labels organ=255`, `ignore=255`) opts in to masks drawn with 255, and to files
            that scale 255 down to 1.
        options: How a file is read. A volume is chosen of a 4D file only: the mask of a 4D image is 3D.

    Returns:
        A volume of the smallest unsigned integers that can hold the values.

    Raises:
        LabelError: A value is negative, not whole, above 2^32 - 1, or a 255 that nobody named.
        VolumeError: As in `read_volume`.
    """
    if options.volume_index is not None and volume_count(source) == 1:
        options = replace(options, volume_index=None)
    named = ValueSet((*labels.named_values.values, *labels.ignored)) if labels else ValueSet(())
    if isinstance(source, str | os.PathLike) and extension_of(source) in NIFTI_EXTENSIONS:
        is_any = labels is not None and labels.is_any
        volume, rounding = _unscaled_where_ambiguous(source, named, options, is_any=is_any)
    else:
        volume, rounding = as_volume(source, options=options), ROUNDING
    who = volume.name or "mask"
    whole, off = whole_numbers(volume.array, name=who, rounding=rounding)
    _check_255(whole, named, who)
    notes = volume.notes + ((f"{ROUNDED} (by up to {off:.1g})",) if off else ())
    return Volume(whole, volume.affine, name=volume.name, header=volume.header, sha256=volume.sha256, notes=notes)


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


def _check_255(whole: NDArray[Any], named: ValueSet, name: str) -> None:
    """Refuse a 255 that nobody named: it may be a label, or the foreground of a mask saved as a picture."""
    if 255 in named or int(whole.max()) < 255 or not (whole == 255).any():
        return
    values = list(label_counts(whole))
    if named and any(value in named for value in values):
        return
    raise LabelError(
        f"{name}: label values {numbers_text(values)}; if 255 is the foreground, say so with --labels "
        "organ=255, if nobody labelled those voxels, with ignore=255"
    )
