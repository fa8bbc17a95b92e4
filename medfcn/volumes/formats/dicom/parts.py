"""Several volumes in one series: time points, echoes, acquisitions, b-values.

A volume has one slice at each position. Where there are several, a field of the headers must tell them apart; without
one, slices are doubled and nobody can say which is meant.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medfcn.errors import GeometryError, VolumeError
from medfcn.text import listed
from medfcn.volumes.formats.dicom.header import MARKS, Frame
from medfcn.volumes.formats.dicom.stack import normal_of

_RANKED = ("TemporalPositionIdentifier", "TriggerTime", "AcquisitionTime", "ContentTime")
"""Times that may differ from position to position: the n-th time at each position is of volume n."""
_SAME_PLACE = 1e-3


@dataclass(frozen=True)
class Part:
    """One volume of a series.

    Attributes:
        value: The value of the field in which it differs from the others; empty where it is the only one.
        frames: Its slices, in no order.
    """

    value: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Parts:
    """The volumes of a series.

    Attributes:
        field: The field, or two, in which they differ; empty where there is one volume.
        parts: In the order of the values.
    """

    field: str
    parts: tuple[Part, ...]

    def chosen(self, index: int | None) -> Part:
        """The volume of this number, from 0.

        Raises:
            VolumeError: There are several and none was chosen, or there is none of that number.
        """
        count = len(self.parts)
        if index is None and count == 1:
            return self.parts[0]
        values = listed((part.value for part in self.parts), limit=4)
        differ = f", which differ in {self.field} ({values})" if self.field else ""
        slices = f"{count} volumes of {len(self.parts[0].frames)} slices in one series{differ}"
        if index is None:
            message = f"{slices}; choose one of 0 to {count - 1} with --volume"
        elif index >= count:
            remedy = f"choose one of 0 to {count - 1} with --volume" if count > 1 else "give --volume 0"
            message = f"volume {index} was chosen of {slices if count > 1 else 'one volume'}; {remedy}"
        else:
            return self.parts[index]
        raise VolumeError(message, code="SHAPE_4D", field=self.field or "volume_index")


def parts_of(frames: Sequence[Frame]) -> Parts:
    """The volumes that the slices of one orientation are.

    Raises:
        GeometryError: Slices are doubled, and no field tells them apart.
    """
    places = _by_place(frames)
    deepest = max(len(part) for part in places.values())
    if deepest == 1:
        return Parts("", (Part("", tuple(frames)),))
    known = [name for name in MARKS if len({frame.marks.get(name) for frame in frames}) > 1]
    for names in (*((name,) for name in known), *combinations(known, 2)):
        found = _split(places, lambda frame, names=names: tuple(frame.marks.get(name, "") for name in names))  # type: ignore[misc]
        if found is not None:
            return Parts(" and ".join(names), found)
    for name in known:
        ranked = _ranked(places, name) if name in _RANKED else None
        if ranked is not None:
            return Parts(name, ranked)
    raise GeometryError(_doubled(places), code="SLICE_DOUBLED", field="ImagePositionPatient")


def _by_place(frames: Sequence[Frame]) -> Mapping[tuple[int, ...], list[Frame]]:
    """Slices by their position; equal ones are together."""
    order = sorted(frames, key=lambda frame: frame.position)
    places: dict[tuple[int, ...], list[Frame]] = {}
    key, last = (0,), None
    for frame in order:
        here = np.array(frame.position)
        if last is None or float(np.abs(here - last).max()) > _SAME_PLACE:
            key, last = (len(places),), here
        places.setdefault(key, []).append(frame)
    return places


def _split(
    places: Mapping[tuple[int, ...], Sequence[Frame]], value_of: Callable[[Frame], tuple[str, ...]]
) -> tuple[Part, ...] | None:
    """Volumes by the value of a slice; None unless each has one slice at each position."""
    groups: dict[tuple[str, ...], dict[tuple[int, ...], Frame]] = {}
    for place, frames in places.items():
        for frame in frames:
            group = groups.setdefault(value_of(frame), {})
            if place in group:
                return None
            group[place] = frame
    if any(len(group) < len(places) for group in groups.values()):
        return None
    order = sorted(groups, key=_sortable)
    return tuple(Part(" and ".join(filter(None, value)) or "none", tuple(groups[value].values())) for value in order)


def _ranked(places: Mapping[tuple[int, ...], Sequence[Frame]], name: str) -> tuple[Part, ...] | None:
    """Volumes by the order of a time at each position; None unless each position has as many, all different."""
    counts = {len(frames) for frames in places.values()}
    times = [[frame.marks.get(name, "") for frame in frames] for frames in places.values()]
    if len(counts) != 1 or any("" in those or len(set(those)) < len(those) for those in times):
        return None
    rows = [sorted(frames, key=lambda frame: _sortable((frame.marks[name],))) for frames in places.values()]
    columns = list(zip(*rows, strict=True))
    return tuple(Part(f"from {column[0].marks[name]}", column) for column in columns)


def _sortable(values: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
    """Numbers in their order, then text."""

    def one(text: str) -> tuple[float, str]:
        try:
            return float(text), ""
        except ValueError:
            return float("inf"), text

    return tuple(one(text) for text in values)


def _doubled(places: Mapping[tuple[int, ...], Sequence[Frame]]) -> str:
    many = [frames for frames in places.values() if len(frames) > 1]
    first = many[0]
    position = float(normal_of(first[0]) @ np.array(first[0].position))
    others = f", and {len(many) - 1} more positions" if len(many) > 1 else ""
    names = listed((frame.name for frame in first), limit=3)
    return (
        f"{len(first)} slices at {position:.2f} mm ({names}){others}, and no field tells them apart; keep one of each"
    )
