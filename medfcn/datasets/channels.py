"""Channels that a data set states without anything to see: constant in every case, such as a missing modality.

They are left out of training, and of prediction with its model.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from medfcn.datasets.check_report import CaseFacts
from medfcn.datasets.problems import Problem
from medfcn.text import counted, listed

_Item = TypeVar("_Item")


class DroppedChannel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A channel that is left out.

    Attributes:
        place: Its number among the channels of a case, from 0.
        name: Its name.
    """

    place: Annotated[int, msgspec.Meta(ge=0, le=4096)]
    name: str


@dataclass(frozen=True)
class ChannelUse:
    """Which of a case's channels a network uses.

    Attributes:
        used: The names of the channels that it uses, in order.
        dropped: The channels that it does not use.

    Raises:
        ValueError: The dropped channels are not in order, or beyond the last one.

    Example:
        >>> use = ChannelUse(("T1", "FLAIR"), (DroppedChannel(1, "T2"),))
        >>> use.names, use.places
        (('T1', 'T2', 'FLAIR'), (0, 2))
        >>> use.of(["t1.nii", "t2.nii", "flair.nii"]), use.of(["t1.nii", "flair.nii"])
        (('t1.nii', 'flair.nii'), ('t1.nii', 'flair.nii'))
    """

    used: tuple[str, ...]
    dropped: tuple[DroppedChannel, ...] = ()

    def __post_init__(self) -> None:
        places = self.dropped_places
        if list(places) != sorted(set(places)) or not set(places) <= set(range(self.count)):
            raise ValueError(f"dropped places {places} are not those of {self.count} channels")

    @property
    def dropped_places(self) -> tuple[int, ...]:
        """The numbers of the dropped channels."""
        return tuple(channel.place for channel in self.dropped)

    @property
    def count(self) -> int:
        """Number of all channels."""
        return len(self.used) + len(self.dropped)

    @property
    def places(self) -> tuple[int, ...]:
        """The numbers of the used channels."""
        return tuple(place for place in range(self.count) if place not in self.dropped_places)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all channels, in order."""
        used, dropped = iter(self.used), {channel.place: channel.name for channel in self.dropped}
        return tuple(dropped[place] if place in dropped else next(used) for place in range(self.count))

    def of(self, items: Sequence[_Item]) -> tuple[_Item, ...]:
        """The items of the used channels, from those of all channels; any other number of items stays as it is."""
        return tuple(items[place] for place in self.places) if len(items) == self.count else tuple(items)


def constant_channels(
    cases: Sequence[CaseFacts], names: Sequence[str], complete: Collection[str]
) -> tuple[DroppedChannel, ...]:
    """The channels that are constant in every case, of those that have all channels; none if all channels are.

    Args:
        cases: The facts of the cases.
        names: One name per channel.
        complete: The ids of the cases that lack no file.
    """
    whole = [case.images for case in cases if case.id in complete and len(case.images) == len(names)]
    found = [
        DroppedChannel(place, name)
        for place, name in enumerate(names)
        if whole and all(images[place].is_constant for images in whole)
    ]
    return tuple(found) if len(found) < len(names) else ()


def dropped_text(dropped: Sequence[DroppedChannel]) -> str:
    """Dropped channels in words.

    Example:
        >>> dropped_text([DroppedChannel(1, "T2")])
        'channel T2 has one value in every case'
    """
    names, several = listed(channel.name for channel in dropped), len(dropped) > 1
    return f"channel{'s' * several} {names} {'have' if several else 'has'} one value in every case"


def dropped_problem(dropped: Sequence[DroppedChannel], used: int) -> Problem:
    """The problem of dropped channels, for the whole data set.

    Args:
        dropped: At least one.
        used: Number of channels that are left.
    """
    what = "it is" if len(dropped) == 1 else "they are"
    remedy = f"{what} left out of training and prediction, which use the other {counted(used, 'channel')}"
    return Problem("CHANNEL_CONSTANT", "warning", "", "", "channels", dropped_text(dropped), remedy)
