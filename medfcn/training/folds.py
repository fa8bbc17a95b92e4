"""The use of each case: training or validation. Cases of one group (a patient) are never split across the two."""

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medfcn.calls import require_one
from medfcn.datasets.cases import Case, Splits
from medfcn.errors import DatasetError, SettingsError
from medfcn.runs.folder import RunFolder
from medfcn.text import counted, listed
from medfcn.training.label_coverage import cover
from medfcn.training.survey import Survey

_VALIDATION_MOST = 24
"""More validation cases than these change the choice of weights little, and cost training time."""


@dataclass(frozen=True)
class Split:
    """Case ids by use, each sorted.

    Attributes:
        training: The cases to train on.
        validation: The cases that are never trained on, and scored at the end.
        fold: Such as `2 of 5`; empty without folds. Nothing is chosen on the validation cases of a fold, so their
            scores are those of new cases; without folds the validation cases choose the weights.
        origin: A line about splits that the data set prescribes; empty without.
        notes: A line for each label that is in only one of both parts.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    fold: str = ""
    origin: str = ""
    notes: tuple[str, ...] = ()


def split_cases(found: Survey, *, validation_share: float, seed: int) -> Split:
    """The cases to train on and to validate with: as the data set prescribes, else by `split_by_group`.

    Args:
        found: The cases and their labels.
        validation_share: Share of the cases to validate with.
        seed: Random seed.

    Raises:
        DatasetError: There are fewer than two groups, or a prescribed part has no case that can be used.
    """
    voxels, prescribed, count = found.label_voxels, found.dataset.splits, found.dataset.fold_count
    origin = ""
    if prescribed is not None and len(prescribed.parts) == 1:
        split = Split(*_usable(prescribed, 0, found.cases))
        unused = len(found.cases) - len(split.training) - len(split.validation)
        origin = f"the split is that of {prescribed.source}"
        if unused:
            origin += f"; {counted(unused, 'case')} in neither of its parts, and not used"
    else:
        split = split_by_group(found.cases, validation_share=validation_share, seed=seed, label_voxels=voxels)
        if count:
            origin = f"{count} folds are prescribed, and not used without --folds {count} or --fold K/{count}"
    return replace(split, origin=origin, notes=_lacking(split, voxels, found.labels.names))


def _usable(splits: Splits, place: int, cases: Iterable[Case]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both parts of a prescribed split, with the cases that can be used."""
    usable = {case.id for case in cases}
    training, validation = (tuple(sorted(usable.intersection(part))) for part in splits.parts[place])
    if not training or not validation:
        raise DatasetError(
            f"{splits.source}: split {place + 1} has no {'validation' if training else 'training'} case that can be "
            "used; correct it",
            code="SPLITS_INVALID",
        )
    return training, validation


def _lacking(split: Split, label_voxels: Mapping[str, Sequence[int]], label_names: Sequence[str]) -> tuple[str, ...]:
    """A line for each label that is in only one part of a split."""
    counts = [
        [sum(bool(label_voxels[name][place]) for name in part) for place in range(len(label_names))]
        for part in (split.training, split.validation)
    ]
    lines = []
    for name, trained, scored in zip(label_names, *counts, strict=True):
        if trained and not scored:
            lines.append(f"{name}: in no validation case, so it has no score ({counted(trained, 'training case')})")
        if scored and not trained:
            lines.append(f"{name}: in no training case, so it is not learned ({counted(scored, 'validation case')})")
    if not any(counts[1]):
        lines.append("no validation case contains a label: nothing is chosen on them, and the last weights are kept")
    return tuple(lines)


def split_by_group(
    cases: Sequence[Case],
    *,
    validation_share: float,
    seed: int,
    label_voxels: Mapping[str, Sequence[int]] | None = None,
) -> Split:
    """Keep a share of the groups for validation, at least one and at most about 24 cases.

    Groups are drawn at random. If the drawn ones lack a label that others contain, or are the only ones with a label,
    as few as possible are exchanged, such that the training cases contain every label, and the validation cases too.
    A label of a single group is learned, and has no score.

    Args:
        cases: In any order.
        validation_share: Share of the cases.
        seed: Random seed.
        label_voxels: By case id, the voxels of each label.

    Raises:
        DatasetError: There are fewer than two groups.
    """
    groups = _groups_of(cases)
    if len(groups) < 2:
        raise DatasetError(
            f"{counted(len(cases), 'case')} in {counted(len(groups), 'group')}: training needs two groups or more, "
            "one of them for validation; add cases, or correct --groups",
            code="GROUPS_FEW",
            field="groups",
        )
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    wanted = min(validation_share * len(cases), _VALIDATION_MOST)
    drawn: list[str] = []
    count = 0
    for group in order[:-1]:
        if drawn and count + len(groups[group]) / 2 > wanted:
            break
        drawn.append(group)
        count += len(groups[group])
    labels_of = {
        group: {place for name in names for place, voxels in enumerate((label_voxels or {}).get(name, ())) if voxels}
        for group, names in groups.items()
    }
    exchanged = _exchanged(order, drawn, labels_of, groups)
    if exchanged and _reach(exchanged, labels_of) > _reach(drawn, labels_of):
        drawn = exchanged
    kept = {name for group in drawn for name in groups[group]}
    training = [case.id for case in cases if case.id not in kept]
    return Split(training=tuple(sorted(training)), validation=tuple(sorted(kept)))


def _labels_in(groups: Iterable[str], labels_of: Mapping[str, Collection[int]]) -> set[int]:
    return {label for group in groups for label in labels_of[group]}


def _reach(kept: Collection[str], labels_of: Mapping[str, Collection[int]]) -> tuple[int, int]:
    """Number of labels that can be learned, then of those that can be scored, if some groups are for validation."""
    others = [group for group in labels_of if group not in kept]
    return len(_labels_in(others, labels_of)), len(_labels_in(kept, labels_of))


def _exchanged(
    order: Sequence[str],
    drawn: Sequence[str],
    labels_of: Mapping[str, Collection[int]],
    groups: Mapping[str, Sequence[str]],
) -> list[str]:
    """Groups with every label that can be on both sides, filled up with drawn ones to the same number of cases."""
    kept = cover(order, labels_of)  # the drawn groups are the first in order
    everything = _labels_in(order, labels_of)
    least = sum(len(groups[group]) for group in drawn)
    for group in drawn:
        others = [other for other in order if other not in kept and other != group]
        is_room = sum(len(groups[other]) for other in kept) + len(groups[group]) / 2 <= least
        if group not in kept and is_room and _labels_in(others, labels_of) == everything:
            kept.append(group)
    return kept


@dataclass(frozen=True)
class Folds:
    """The folds that a command trains.

    Attributes:
        numbers: Their numbers, from 1.
        count: Number of folds of the cross-validation, at least 2.
        is_all: True if all were requested at once, and share a budget.
    """

    numbers: tuple[int, ...]
    count: int
    is_all: bool

    @classmethod
    def of(cls, fold: str | None, folds: int | None) -> "Folds | None":
        """The folds that `--fold K/N` or `--folds N` request; None if neither is given.

        Raises:
            SettingsError: Both are given, or they are not such numbers.

        Example:
            >>> Folds.of("2/5", None)
            Folds(numbers=(2,), count=5, is_all=False)
            >>> Folds.of(None, 3).numbers
            (1, 2, 3)
        """
        require_one(fold=fold, folds=folds)
        if folds is not None and folds < 2:
            raise SettingsError(f"folds {folds}: at least 2 are needed; give a larger number", field="folds")
        if folds is not None:
            return cls(tuple(range(1, folds + 1)), folds, is_all=True)
        if fold is None:
            return None
        match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", fold)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count or count < 2:
            message = f"fold {fold!r} is not K/N with K from 1 to N; write for example 2/5"
            raise SettingsError(message, field="fold")
        return cls((number,), count, is_all=False)

    def folders(self, run: Path) -> tuple[Path, ...]:
        """The run folders to make."""
        return tuple(RunFolder(run).fold(number).path for number in self.numbers)

    def name(self, number: int) -> str:
        """The name of a fold in a split and in its card."""
        return f"{number} of {self.count}"


def split_into_folds(
    cases: Sequence[Case],
    label_voxels: Mapping[str, Sequence[int]],
    label_names: Sequence[str],
    *,
    count: int,
    seed: int,
    prescribed: Splits | None = None,
) -> tuple[Split, ...]:
    """Put every case into the validation part of one fold, and into the training part of all others.

    Prescribed splits are kept, and so are prescribed folds, in the order of their names. Otherwise groups are
    distributed: those with the rarest label first, and among them the largest first, each into the fold with the
    fewest cases of that label, then with the fewest cases. The result depends on the cases and the seed alone, not on
    the machine.

    Args:
        cases: In any order.
        label_voxels: For each case id, the number of voxels of each label.
        label_names: The names of the labels, in that order.
        count: Number of folds.
        seed: Random seed of the order in which equal groups are distributed.
        prescribed: The splits of the data set, such as those of nnU-Net.

    Returns:
        The folds, the first is fold 1.

    Raises:
        DatasetError: There are fewer groups than folds, another number of folds is prescribed, or a part of a fold
            has no case with some label.

    Source:
        Iterative stratification: Sechidis, Tsoumakas, Vlahavas, ECML PKDD 2011, of groups instead of cases.
    """
    ordered = sorted(cases, key=lambda case: case.id)
    ids = [case.id for case in ordered]
    remedy = "take fewer folds, or prescribe them in a table's column fold"
    if prescribed is not None:
        remedy = f"correct {prescribed.source}"
        _require_count(len(prescribed.parts), count, prescribed.source)
        parts = [_usable(prescribed, place, ordered) for place in range(count)]
    else:
        if any(case.fold is not None for case in ordered):
            remedy = "change the folds of the data set"
            kept = _prescribed(ordered, count)
        else:
            kept = _distributed(ordered, label_voxels, count, seed)
        parts = [(tuple(i for i in ids if i not in part), tuple(i for i in ids if i in part)) for part in kept]
    splits = tuple(Split(*part, fold=f"{number} of {count}") for number, part in enumerate(parts, start=1))
    for split in splits:
        for use, used in (("training", split.training), ("validation", split.validation)):
            for position, name in enumerate(label_names):
                if not any(label_voxels[case_id][position] for case_id in used):
                    total = sum(bool(label_voxels[case_id][position]) for case_id in ids)
                    raise DatasetError(
                        f"fold {split.fold}: none of its {len(used)} {use} cases contains {name} "
                        f"(of all {len(ids)} cases {total} do); {remedy}",
                        code="FOLD_INVALID",
                        field="fold",
                    )
    return splits


def _groups_of(cases: Iterable[Case]) -> dict[str, list[str]]:
    """The ids of each group's cases."""
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case.id)
    return groups


def _prescribed(cases: Sequence[Case], count: int) -> list[set[str]]:
    """The folds of a table, in the order of their names: as numbers, if all names are numbers."""
    names = sorted({str(case.fold) for case in cases})
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    _require_count(len(names), count, "the data set", f" ({listed(names)})")
    return [{case.id for case in cases if case.fold == name} for name in names]


def _require_count(prescribed: int, count: int, source: str, names: str = "") -> None:
    if prescribed != count:
        how = "request as many" if prescribed > 1 else "train without folds"
        raise DatasetError(
            f"{source} prescribes {counted(prescribed, 'fold')}{names}, {count} are requested; {how}",
            code="FOLD_INVALID",
            field="folds",
        )


def _distributed(
    cases: Sequence[Case], label_voxels: Mapping[str, Sequence[int]], count: int, seed: int
) -> list[set[str]]:
    """The validation cases of each fold; see `split_into_folds`."""
    groups = _groups_of(cases)
    if len(groups) < count:
        raise DatasetError(
            f"{count} folds of {len(groups)} groups ({len(cases)} cases): a group is never split; take fewer folds",
            code="GROUPS_FEW",
            field="folds",
        )
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    labels = range(len(label_voxels[cases[0].id]))
    # For each group, the number of its cases that contain each label.
    containing = {
        group: [sum(bool(label_voxels[case_id][label]) for case_id in ids) for label in labels]
        for group, ids in groups.items()
    }
    rarest_first = sorted(labels, key=lambda label: sum(bool(numbers[label]) for numbers in containing.values()))

    def rank(group: str) -> int:
        """The place in `rarest_first` of the rarest label in a group; the last place for a group without labels."""
        places = (place for place, label in enumerate(rarest_first) if containing[group][label])
        return next(places, len(rarest_first))

    parts: list[set[str]] = [set() for _ in range(count)]
    counts = [[0] * (len(rarest_first) + 1) for _ in range(count)]  # of cases in each fold: by label, and in all
    for group in sorted(order, key=lambda group: (rank(group), -len(groups[group]))):
        number = min(range(count), key=lambda fold: (counts[fold][rank(group)], counts[fold][-1]))
        parts[number].update(groups[group])
        for place, label in enumerate(rarest_first):
            counts[number][place] += containing[group][label]
        counts[number][-1] = len(parts[number])
    return parts
