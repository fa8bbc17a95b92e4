"""The looks of one training at its curve: when they are due, what they take, and what they say."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from medfcn.inference.model import Model
from medfcn.progress import Progress
from medfcn.text import counted, listed
from medfcn.training.curve import Curve
from medfcn.training.pictures import picture
from medfcn.training.record import CURVE_DICE, Log
from medfcn.training.schedule import Schedule, curve_steps, picture_steps


@dataclass(frozen=True)
class Due:
    """The work that is due after a step."""

    validation: bool = False
    look: bool = False
    picture: bool = False


class CurveLooks:
    """Looks at a few validation slices on the way, for the curve alone.

    Args:
        curve: The slices; None looks at none.
        log: Gets the pictures.
        progress: Where the first look is reported.
    """

    def __init__(self, curve: Curve | None, log: Log, progress: Progress) -> None:
        self.curve = curve if curve is not None and curve.cases else None
        self.log = log
        self.progress = progress
        self._seconds: list[float] = []
        self._is_reported = False

    def steps(self, schedule: Schedule | int) -> set[int]:
        """The steps after which a look is due."""
        if self.curve is None:
            return set()
        cost = self.curve.cost
        return curve_steps(schedule, cost=cost) if isinstance(schedule, int) else schedule.curve_steps(cost)

    def seconds(self, count: int, *, pace: float) -> float:
        """Time for so many looks: as long as those before; as a step before the first."""
        return count * fmean(self._seconds or [pace])

    def due(self, step: int, *, validations: set[int], looks: set[int]) -> Due:
        """The work that is due after a step."""
        return Due(step in validations, step in looks, step in looks and step in picture_steps(looks))

    def report(self, looks: set[int]) -> None:
        """Say, before the first look, what the curve shows and that nothing is chosen by it."""
        if self.curve is None or not looks or self._is_reported:
            return
        self._is_reported = True
        absent = f"; none of these slices has {listed(self.curve.absent)}" if self.curve.absent else ""
        self.progress.say(
            f"curve: Dice of {counted(self.curve.slices, 'slice')} of "
            f"{counted(len(self.curve.cases), 'validation case')}, {counted(len(looks), 'time')}; nothing is chosen "
            f"by it{absent}"
        )

    def look(self, model: Model, step: int, *, is_drawn: bool = False) -> dict[str, float | None]:
        """The Dice of the slices by column of the log; the picture is kept if it is due."""
        if self.curve is None:
            return {}
        began = time.monotonic()
        look = self.curve.look(model)
        if is_drawn:
            labels = self.curve.labels
            values = len(labels.overlaps) if labels.overlapping else len(labels.entries)
            self.log.add_picture(step, picture(self.curve.blocks, look.indices, self.curve.view, values=values))
        self._seconds.append(time.monotonic() - began)
        return self.log.named(CURVE_DICE, look.dice, look.of_labels)


def scored_text(column: str, dices: Mapping[str, float | None], names: Sequence[str]) -> str:
    """A Dice in words, with that of each label where there are several.

    Args:
        column: Of the log, such as `validation_dice`.
        dices: The Dice by column, those of each label included; see `Log.named`.
        names: Names of the labels.

    Example:
        >>> dices = {"curve_dice": 0.9, "curve_dice_organ": 0.95, "curve_dice_core": 0.85}
        >>> scored_text("curve_dice", dices, ["organ", "core"])
        'curve Dice 0.9000 (organ 0.9500, core 0.8500)'
        >>> scored_text("curve_dice", {"curve_dice": None}, ["organ"])
        'no label to validate on'
    """
    dice = dices[column]
    if dice is None:
        return "no label to validate on"
    values = {name: dices.get(f"{column}_{name}") for name in names if len(names) > 1}
    each = [f"{name} {value:.4f}" for name, value in values.items() if value is not None and not math.isnan(value)]
    return f"{column.replace('_dice', ' Dice')} {dice:.4f}" + (f" ({listed(each)})" if each else "")
