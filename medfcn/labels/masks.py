"""Masks: volumes whose voxels are whole numbers, read with care for 255 and for scaled files."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError
from medfcn.labels.label_map import LabelMap
from medfcn.labels.whole_numbers import LARGEST_LABEL, ROUNDING, label_counts, numbers_text, whole_numbers
from medfcn.volumes.names import NIFTI_EXTENSIONS, extension_of
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions
from medfcn.volumes.reading import as_volume, read_stored, volume_of
from medfcn.volumes.volume import Volume, VolumeLike

ROUNDED = "voxels rounded to whole labels"
"""Begins the note on a mask whose voxels were not quite whole numbers."""


def read_mask(
    source: VolumeLike, *, labels: LabelMap | None = None, options: ReadOptions = DEFAULT_OPTIONS
) -> Volume:
    """Read a mask: a volume whose voxels are whole numbers from 0 up.

    Values within 1e-3 of a whole number are rounded, and the volume's `notes` say so. The values are those of
    the file; `labels` only says what 255 means.

    Args:
        source: What `as_volume` accepts.
        labels: Naming 255 (`--labels organ=255`, `ignore=255`) opts in to masks drawn with 255, and to files
            that scale 255 down to 1.
        options: How a file is read.

    Returns:
        A volume of the smallest unsigned integers that can hold the values.

    Raises:
        LabelError: A value is negative, not whole, above 65535, or a 255 that nobody named.
        VolumeError: As in `read_volume`.
    """
    named = set(labels.named_values.union(labels.ignored)) if labels else set()
    if isinstance(source, str | os.PathLike) and extension_of(source) in NIFTI_EXTENSIONS:
        volume = _unscaled_where_ambiguous(source, named, options)
    else:
        volume = as_volume(source, options=options)
    who = volume.name or "mask"
    whole, off = whole_numbers(volume.array, name=who)
    _check_255(whole, named, who)
    notes = volume.notes + ((f"{ROUNDED} (by up to {off:.1g})",) if off else ())
    return Volume(whole, volume.affine, name=volume.name, header=volume.header, sha256=volume.sha256, notes=notes)


def _unscaled_where_ambiguous(source: Any, named: set[int], options: ReadOptions) -> Volume:
    """Read a mask whose header may scale it, such as 255 by 1/255, where both readings look like labels."""
    stored = read_stored(source, options=options)
    raw = stored.array.copy() if stored.is_scaled else stored.array
    scaled = volume_of(stored, options=options)
    if not stored.is_scaled or raw.dtype.kind not in "iu" or int(raw.min()) < 0 or int(raw.max()) > LARGEST_LABEL:
        return scaled
    as_stored = [int(value) for value in np.unique(raw)]
    as_scaled = [float(value) for value in np.unique(scaled.array)]
    names_stored = bool(named.intersection(as_stored))
    names_scaled = any(abs(value - round(value)) <= ROUNDING and round(value) in named for value in as_scaled)
    if names_stored == names_scaled:
        raise LabelError(
            f"{stored.name}: stores the values {numbers_text(as_stored)} and scl_slope {stored.slope:.6g} makes "
            f"them {numbers_text(as_scaled)}; say which is meant, such as --labels organ={as_stored[-1]}",
            field="scl_slope",
        )
    if not names_stored:
        return scaled
    note = "scl_slope ignored: the labels named are the stored values"
    return volume_of(replace(stored, array=raw, slope=1.0, inter=0.0, notes=(*stored.notes, note)), options=options)


def _check_255(whole: NDArray[Any], named: set[int], name: str) -> None:
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
