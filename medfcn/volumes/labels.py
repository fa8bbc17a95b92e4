"""Labels: which values of a mask mean what, and masks whose voxels are whole numbers.

A `LabelMap` is an ordered list of foreground labels. A label of one value is written to masks as that value;
one merged from several is written as its place in the list.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError, SettingsError
from medfcn.volumes.names import NIFTI_EXTENSIONS, extension_of, printable
from medfcn.volumes.options import ReadOptions
from medfcn.volumes.volume import DEFAULT_OPTIONS, Volume, VolumeLike, as_volume

LARGEST_LABEL = 65535

ROUNDING = 1e-3
"""How far a voxel may be from a whole number and still be that label."""
_PIECE = 1 << 20


@dataclass(frozen=True)
class LabelEntry:
    """One foreground label.

    Args:
        name: What it is called in reports.
        values: The values of a reference that belong to it.
        written: The value it has in a mask that medfcn writes.
    """

    name: str
    values: tuple[int, ...]
    written: int


@dataclass(frozen=True)
class LabelMap:
    """The foreground labels, in their order; the network's channel `k` is the `k`-th, 0 is background.

    Args:
        entries: The labels.
        unnamed: What a value that no entry names is: background, or a reason to refuse the mask.

    Raises:
        SettingsError: Two entries share a name, a value or what they are written as; or a value is no label.

    Example:
        >>> labels = LabelMap.parse("hippocampus=1+2,other=3")
        >>> labels.encode(np.array([[[0, 1, 2, 3, 9]]]), name="case").tolist()
        [[[0, 1, 1, 2, 0]]]
        >>> labels.decode(np.array([[[0, 1, 2]]])).tolist()
        [[[0, 1, 3]]]
    """

    entries: tuple[LabelEntry, ...]
    unnamed: Literal["background", "refuse"] = "background"

    def __post_init__(self) -> None:
        if not 1 <= len(self.entries) <= 255:
            raise SettingsError(f"labels: {len(self.entries)} labels; expected 1 to 255, as NAME=V[+V...],...")
        names: set[str] = set()
        owners: dict[int, str] = {}
        for entry in self.entries:
            shown_name = printable(entry.name)
            if not entry.name or entry.name in names:
                raise SettingsError(f"labels: the name {shown_name!r} is empty or given twice; give each its own")
            names.add(entry.name)
            for value in entry.values:
                if not 1 <= value <= LARGEST_LABEL:
                    raise SettingsError(
                        f"labels: {shown_name}={value}; values are 1 to {LARGEST_LABEL}, 0 is the background"
                    )
                if value in owners:
                    other = printable(owners[value])
                    raise SettingsError(
                        f"labels: the value {value} belongs to {other} and to {shown_name}; name it once"
                    )
                owners[value] = entry.name
        self._check_written()

    def _check_written(self) -> None:
        written: dict[int, LabelEntry] = {}
        for place, entry in enumerate(self.entries, start=1):
            if not entry.values or entry.written != (entry.values[0] if len(entry.values) == 1 else place):
                raise SettingsError(
                    f"labels: {printable(entry.name)} cannot be written as {entry.written}; a single value "
                    "is written "
                    "as itself, a merged one as its place in the list"
                )
            other = written.setdefault(entry.written, entry)
            if other is not entry:
                merged, single = (entry, other) if len(entry.values) > 1 else (other, entry)
                raise SettingsError(
                    f"labels: {printable(merged.name)} (merged, so written as its place in the list) and "
                    f"{printable(single.name)} would both be written as {entry.written}; put "
                    f"{printable(merged.name)} at a place that is no other label's value"
                )

    @classmethod
    def parse(cls, text: str) -> "LabelMap":
        """Read `NAME=V[+V...],...`; values that no entry names are background.

        Raises:
            SettingsError: The text is not of that form, or the labels contradict each other.

        Example:
            >>> LabelMap.parse("anterior=1,posterior=2").names
            ('anterior', 'posterior')
        """
        entries: list[LabelEntry] = []
        for place, part in enumerate(text.split(","), start=1):
            name, equals, numbers = (piece.strip() for piece in part.partition("="))
            digits = [number.strip() for number in numbers.split("+")]
            if not (name and equals) or not all(number.isascii() and number.isdigit() for number in digits):
                raise SettingsError(
                    f"labels: {printable(part.strip())!r} is not NAME=V[+V...]; write for example organ=1 or "
                    "left=1+3,right=2+4"
                )
            # A number of more digits than a label can have is refused before it is converted.
            values = tuple(int(number[:12]) for number in digits)
            entries.append(LabelEntry(name, values, values[0] if len(values) == 1 else place))
        return cls(tuple(entries))

    @classmethod
    def from_names(cls, names: Mapping[int, str]) -> "LabelMap":
        """One label for each value, in the order of the values, without 0; others are refused in masks.

        Example:
            >>> LabelMap.from_names({0: "background", 2: "posterior", 1: "anterior"}).names
            ('anterior', 'posterior')
        """
        chosen = sorted((int(value), str(name)) for value, name in names.items() if int(value) != 0)
        return cls(tuple(LabelEntry(name, (value,), value) for value, name in chosen), unnamed="refuse")

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names, in order."""
        return tuple(entry.name for entry in self.entries)

    def encode(self, array: NDArray[Any], *, name: str) -> NDArray[np.uint8]:
        """The values of a mask as places in the list: 0 for background, `k` for the `k`-th entry, from 1.

        Args:
            array: Whole numbers, any shape.
            name: The case, for messages.

        Returns:
            uint8, the same shape, contiguous as `array` is.

        Raises:
            LabelError: A value is negative, not whole, or not named while `unnamed` is "refuse".
        """
        whole, _ = whole_numbers(array, name=name)
        most = int(whole.max()) if whole.size else 0
        table = np.zeros(max(most, *(max(entry.values) for entry in self.entries)) + 1, dtype=np.uint8)
        for place, entry in enumerate(self.entries, start=1):
            table[list(entry.values)] = place
        if self.unnamed == "refuse":
            strange = [value for value in label_counts(whole) if value != 0 and table[value] == 0]
            if strange:
                raise LabelError(
                    f"{printable(name)}: unexpected label values {listed(strange)}; expected "
                    f"{listed(sorted(value for entry in self.entries for value in entry.values))}; name "
                    "those that "
                    "matter with --labels NAME=V"
                )
        encoded = np.empty_like(whole, dtype=np.uint8)
        for target, part in _pieces(encoded, whole):
            target[...] = table[part]
        return encoded

    def decode(self, index_array: NDArray[Any]) -> NDArray[Any]:
        """The inverse for masks that are written: from places in the list to the values written."""
        written = np.array([0, *(entry.written for entry in self.entries)])
        values: NDArray[Any] = written.astype(np.min_scalar_type(int(written.max())))[index_array]
        return values

    def to_json(self) -> dict[str, Any]:
        """A value that JSON can hold."""
        return {
            "entries": [
                {"name": entry.name, "values": list(entry.values), "written": entry.written} for entry in self.entries
            ],
            "unnamed": self.unnamed,
        }

    @classmethod
    def from_json(cls, value: Any) -> "LabelMap":
        """The inverse of `to_json`.

        Raises:
            SettingsError: `value` is not what `to_json` gives.

        Example:
            >>> labels = LabelMap.parse("hippocampus=1+2")
            >>> LabelMap.from_json(labels.to_json()) == labels
            True
        """
        try:
            unnamed = value.get("unnamed", "background")
            rows = [(row["name"], row["values"], row["written"]) for row in value["entries"]]
        except (AttributeError, KeyError, TypeError) as error:
            raise SettingsError(f"labels: not a label map ({type(error).__name__}); expected entries") from error
        if unnamed not in ("background", "refuse"):
            raise SettingsError(f"labels: unnamed is {unnamed!r}; expected background or refuse")
        for name, values, written in rows:
            numbers = [*values, written] if isinstance(values, list) else [None]
            if not isinstance(name, str) or not all(type(number) is int for number in numbers):
                raise SettingsError("labels: an entry is not a name, a list of whole numbers and a whole number")
        return cls(tuple(LabelEntry(name, tuple(values), written) for name, values, written in rows), unnamed=unnamed)


def read_mask(
    source: VolumeLike, *, labels: LabelMap | None = None, options: ReadOptions = DEFAULT_OPTIONS
) -> Volume:
    """Read a mask: a volume whose voxels are whole numbers from 0 up.

    Values within 1e-3 of a whole number are rounded, and the volume's `notes` say so. The values are those of
    the file; `labels` is only asked what 255 means.

    Args:
        source: What `as_volume` accepts.
        labels: Naming 255 (`--labels organ=255`) opts in to masks drawn with 255, and to files that
            scale 255 down to 1.
        options: How a file is read.

    Returns:
        A volume of the smallest unsigned integers.

    Raises:
        LabelError: A value is negative, not whole, above 65535, or a 255 that nobody named.
        VolumeError: As in `read_volume`.
    """
    named = {value for entry in labels.entries for value in entry.values} if labels else set()
    if isinstance(source, str | os.PathLike) and extension_of(source) in NIFTI_EXTENSIONS:
        volume = _unscaled_where_ambiguous(source, named, options)
    else:
        volume = as_volume(source, options=options)
    who = volume.name or "mask"
    whole, off = whole_numbers(volume.array, name=who)
    _check_255(whole, named, who)
    notes = volume.notes + ((f"voxels rounded to whole labels (by up to {off:.1g})",) if off else ())
    return Volume(whole, volume.affine, name=volume.name, header=volume.header, sha256=volume.sha256, notes=notes)


def _unscaled_where_ambiguous(source: Any, named: set[int], options: ReadOptions) -> Volume:
    """Read a mask whose header may scale it, such as 255 by 1/255, where both readings look like labels."""
    from medfcn.volumes.nifti import intensities_of, read_stored, volume_of_stored

    stored = read_stored(source, options=options)
    header = stored.header
    raw = stored.array.copy() if header.is_scaled else stored.array
    scaled = intensities_of(stored, options)
    if not header.is_scaled or raw.dtype.kind not in "iu" or int(raw.min()) < 0 or int(raw.max()) > LARGEST_LABEL:
        return scaled
    as_stored = [int(value) for value in np.unique(raw)]
    as_scaled = [float(value) for value in np.unique(scaled.array)]
    names_stored = bool(named.intersection(as_stored))
    names_scaled = any(abs(value - round(value)) <= ROUNDING and round(value) in named for value in as_scaled)
    if names_stored == names_scaled:
        raise LabelError(
            f"{printable(stored.name)}: stores the values {listed(as_stored)} and scl_slope "
            f"{header.slope:.6g} makes "
            f"them {listed(as_scaled)}; say which is meant, such as --labels organ={as_stored[-1]}"
        )
    if not names_stored:
        return scaled
    return volume_of_stored(stored, raw, ("scl_slope ignored: the labels named are the stored values",))


def whole_numbers(array: NDArray[Any], *, name: str) -> tuple[NDArray[Any], float]:
    """A mask's voxels as the smallest unsigned integers, and by how much they had to be rounded at most.

    Raises:
        LabelError: A voxel is negative, above 65535, or more than 1e-3 from a whole number.

    Example:
        >>> whole_numbers(np.array([[[0.0, 0.9999]]]), name="case")[0].tolist()
        [[[0, 1]]]
    """
    off = 0.0
    if array.dtype.kind == "f":
        for (part,) in _pieces(array):  # so that no second volume of floats is made
            here = float(np.abs(part - np.rint(part)).max()) if part.size else 0.0
            if not here <= ROUNDING:  # NaN too
                raise LabelError(
                    f"{printable(name)}: values that are no labels: {listed(_not_whole(array))}; "
                    "a mask holds whole numbers (was an image or a probability given?)"
                )
            off = max(off, here)
    elif array.dtype.kind not in "biu":
        raise LabelError(f"{printable(name)}: voxels of type {array.dtype} are no labels; give whole numbers")
    if array.dtype.kind == "b":
        return array.astype(np.uint8), 0.0
    least, most = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if least < -ROUNDING or most > LARGEST_LABEL + ROUNDING:
        outside = np.unique(array[(array < -ROUNDING) | (array > LARGEST_LABEL)])
        raise LabelError(
            f"{printable(name)}: label values {listed(outside.tolist())} are outside 0 to {LARGEST_LABEL}; "
            "re-export the mask, or give one that holds labels"
        )
    smallest = np.min_scalar_type(round(most))
    if array.dtype == smallest:
        return array, off
    whole = np.empty_like(array, dtype=smallest)
    for target, part in _pieces(whole, array):
        target[...] = np.rint(part) if off else part
    return whole, off


def _pieces(first: NDArray[Any], *others: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Views of arrays of one shape, some voxels at a time, in the order in which the first lies in memory.

    numpy widens what it uses as an index to 8 bytes a voxel, so whole volumes are not worked on at once.
    """
    turned = tuple(array.T if first.flags.f_contiguous else array for array in (first, *others))
    if first.ndim == 0 or first.size <= _PIECE:
        yield turned
        return
    length = turned[0].shape[0]
    step = max(1, _PIECE * length // first.size)
    for start in range(0, length, step):
        yield tuple(array[start : start + step] for array in turned)


def label_counts(array: NDArray[Any]) -> dict[int, int]:
    """How many voxels have each value, for unsigned integers up to 65535, in the order of the values.

    Example:
        >>> label_counts(np.array([[[0, 2, 2]]], dtype=np.uint8))
        {0: 1, 2: 2}
    """
    counts = np.zeros(int(array.max()) + 1 if array.size else 1, dtype=np.int64)
    for (part,) in _pieces(array):
        counts += np.bincount(part.ravel(order="K"), minlength=len(counts))
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _not_whole(array: NDArray[Any]) -> list[float]:
    strange = array[~(np.abs(array - np.rint(array)) <= ROUNDING)]
    values: list[float] = np.unique(strange[:1_000_000]).tolist()
    return values


def _check_255(whole: NDArray[Any], named: set[int], name: str) -> None:
    """Refuse a 255 that nobody named: as often "yes" in a picture of a mask as a label."""
    if 255 in named or int(whole.max()) < 255 or not (whole == 255).any():
        return
    values = list(label_counts(whole))
    if named and any(value in named for value in values):
        return
    raise LabelError(
        f"{printable(name)}: label values {listed(values)}; if 255 is the foreground, say so with --labels organ=255"
    )


def listed(values: Sequence[float], *, limit: int = 8) -> str:
    """The first few of some values, for a message.

    Example:
        >>> listed([1, 2.5, 3], limit=2)
        '1, 2.5, ...'
    """
    text = ", ".join(f"{value:.6g}" for value in values[:limit])
    return text + (", ..." if len(values) > limit else "")
