"""Which cases are trained on and which are kept for validation. A group (a patient) is never parted."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfcn.datasets import Case
from medfcn.errors import DatasetError, SettingsError
from medfcn.runs.folder import RunFolder

_VALIDATION_MOST = 24
"""Validation cases beyond this change the choice of weights little, and cost training time."""


@dataclass(frozen=True)
class Split:
    """Case ids by use, each sorted.

    Attributes:
        training: Learnt from.
        validation: Never learnt from, and scored at the end.
        fold: Such as `2 of 5`; empty where the data set is not folded. Nothing is chosen on the validation cases of a
            fold, so that their scores are those of unseen cases; without folds they choose the weights.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    fold: str = ""


def split_by_group(cases: Sequence[Case], *, validation_share: float, seed: int) -> Split:
    """Keep a share of the groups for validation, at least one and at most about 24 cases.

    Raises:
        DatasetError: There are fewer than two groups.
    """
    groups = _groups_of(cases)
    if len(groups) < 2:
        raise DatasetError(
            f"{len(cases)} cases in {len(groups)} group: training needs two groups or more, one to validate on; "
            "add cases, or correct --groups"
        )
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    wanted = min(validation_share * len(cases), _VALIDATION_MOST)
    kept: list[str] = []
    for group in order[:-1]:
        if kept and len(kept) + len(groups[group]) / 2 > wanted:
            break
        kept += groups[group]
    training = [case.id for case in cases if case.id not in set(kept)]
    return Split(training=tuple(sorted(training)), validation=tuple(sorted(kept)))


@dataclass(frozen=True)
class Folds:
    """Which of how many folds a command trains.

    Attributes:
        numbers: From 1.
        count: In all, at least 2.
        is_all: Whether all were asked for at once, and share a budget.
    """

    numbers: tuple[int, ...]
    count: int
    is_all: bool

    @classmethod
    def of(cls, fold: str | None, folds: int | None) -> "Folds | None":
        """The folds that `--fold K/N` or `--folds N` ask for; None when neither is given.

        Raises:
            SettingsError: Both are given, or they are not such numbers.

        Example:
            >>> Folds.of("2/5", None)
            Folds(numbers=(2,), count=5, is_all=False)
            >>> Folds.of(None, 3).numbers
            (1, 2, 3)
        """
        if fold is not None and folds is not None:
            raise SettingsError("fold and folds are given together; give one of them")
        if folds is not None:
            if folds < 2:
                raise SettingsError(f"folds {folds}: at least 2 are needed; give a larger number")
            return cls(tuple(range(1, folds + 1)), folds, is_all=True)
        if fold is None:
            return None
        match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", fold)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count or count < 2:
            raise SettingsError(f"fold {fold!r} is not K/N with K from 1 to N; write for example 2/5")
        return cls((number,), count, is_all=False)

    def folders(self, run: Path) -> tuple[Path, ...]:
        """The run folders to make."""
        return tuple(fold_folder(run, number) for number in self.numbers)


def fold_folder(run: Path, number: int) -> Path:
    """Where a fold's run lies."""
    return RunFolder(run).fold(number).path


def split_into_folds(
    cases: Sequence[Case],
    label_voxels: Mapping[str, Sequence[int]],
    label_names: Sequence[str],
    *,
    count: int,
    seed: int,
) -> tuple[Split, ...]:
    """Every case in the validation part of one fold, and in the training part of all others.

    The folds that a table prescribes are kept, in the order of their names. Otherwise groups are dealt out, those
    with the rarest label first and among them the largest, each to the fold that has the fewest cases of that label,
    then the fewest cases. What comes of it follows from the cases and the seed, on whichever machine.

    Args:
        cases: In any order.
        label_voxels: By case id, the voxels of each label.
        label_names: Of the labels, in that order.
        count: How many folds.
        seed: Of the order in which equal groups are dealt out.

    Returns:
        The folds, the first is fold 1.

    Raises:
        DatasetError: There are fewer groups than folds, the table prescribes another number of folds, or a part of a
            fold has no case with some label.

    Source:
        Iterative stratification: Sechidis, Tsoumakas, Vlahavas, ECML PKDD 2011, of groups instead of cases.
    """
    ordered = sorted(cases, key=lambda case: case.id)
    prescribed = any(case.fold is not None for case in ordered)
    held = _prescribed(ordered, count) if prescribed else _dealt(ordered, label_voxels, count, seed)
    splits = tuple(
        Split(
            training=tuple(case.id for case in ordered if case.id not in part),
            validation=tuple(case.id for case in ordered if case.id in part),
            fold=f"{number} of {count}",
        )
        for number, part in enumerate(held, start=1)
    )
    remedy = (
        "change the column fold" if prescribed else "take fewer folds, or prescribe them in a table's column fold"
    )
    for split in splits:
        for use, ids in (("training", split.training), ("validation", split.validation)):
            for position, name in enumerate(label_names):
                if not any(label_voxels[case_id][position] for case_id in ids):
                    having = sum(bool(label_voxels[case.id][position]) for case in ordered)
                    raise DatasetError(
                        f"fold {split.fold}: none of its {len(ids)} {use} cases holds {name} "
                        f"(of all {len(ordered)} cases {having} do); {remedy}"
                    )
    return splits


def _groups_of(cases: Iterable[Case]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case.id)
    return groups


def _prescribed(cases: Sequence[Case], count: int) -> list[set[str]]:
    """The folds of a table, in the order of their names, as numbers where all are."""
    names = sorted({str(case.fold) for case in cases})
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    if len(names) != count:
        shown = ", ".join(names)
        raise DatasetError(
            f"the table prescribes {len(names)} folds ({shown}), {count} are asked for; ask for as many"
        )
    return [{case.id for case in cases if case.fold == name} for name in names]


def _dealt(cases: Sequence[Case], label_voxels: Mapping[str, Sequence[int]], count: int, seed: int) -> list[set[str]]:
    groups = _groups_of(cases)
    if len(groups) < count:
        raise DatasetError(
            f"{count} folds of {len(groups)} groups ({len(cases)} cases): a group is never parted; take fewer folds"
        )
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    labels = range(len(label_voxels[cases[0].id]))
    # For each group and label, the cases that hold it.
    holding = {
        group: [sum(bool(label_voxels[case_id][label]) for case_id in ids) for label in labels]
        for group, ids in groups.items()
    }
    rarity = {label: sum(bool(holding[group][label]) for group in order) for label in labels}
    rarest_first = sorted(labels, key=lambda label: rarity[label])

    def leading(group: str) -> int:
        """The place in `rarest_first` of the rarest label that a group holds; the last for one without any."""
        return next((place for place, label in enumerate(rarest_first) if holding[group][label]), len(rarest_first))

    held: list[set[str]] = [set() for _ in range(count)]
    counts = [[0] * (len(rarest_first) + 1) for _ in range(count)]
    for group in sorted(order, key=lambda group: (leading(group), -len(groups[group]))):
        place = leading(group)
        number = min(range(count), key=lambda fold: (counts[fold][place], len(held[fold])))
        held[number].update(groups[group])
        for other, label in enumerate(rarest_first):
            counts[number][other] += holding[group][label]
        counts[number][-1] = len(held[number])
    return held
