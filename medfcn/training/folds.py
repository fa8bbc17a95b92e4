"""Which cases are trained on and which are kept for validation. A group (a patient) is never parted."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from medfcn.errors import DatasetError
from medfcn.volumes import Case

_VALIDATION_MOST = 24
"""Validation cases beyond this change the choice of weights little, and cost training time."""


@dataclass(frozen=True)
class Split:
    """Case ids by use, each sorted."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


def split_by_group(cases: Sequence[Case], *, validation_share: float, seed: int) -> Split:
    """Keep a share of the groups for validation, at least one and at most about 24 cases.

    Raises:
        DatasetError: There are fewer than two groups.
    """
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case.id)
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
