"""Scribbles of which nobody said which value is that of the voxels that nobody labelled."""

import math
from collections import defaultdict
from collections.abc import Sequence

from medfcn.datasets.check_report import CaseFacts
from medfcn.datasets.problems import Problem
from medfcn.text import counted

_SHARE = 0.9
"""A value of so many of a mask's voxels, beside others, is most likely that of voxels that nobody labelled."""


def unstated_ignore_problems(cases: Sequence[CaseFacts]) -> list[Problem]:
    """A warning where one value beside others fills nearly all of most masks; taken as a label, it would be learned.

    Args:
        cases: All cases; the values that are stated as ignored are not in their facts.
    """
    shares: defaultdict[int, list[float]] = defaultdict(list)
    masks = 0
    for case in cases:
        if case.label is None or not case.images:
            continue
        masks += 1
        counts = case.label.voxels
        value = max(counts, key=lambda one: counts[one], default=0)
        share = counts.get(value, 0) / max(math.prod(case.images[0].shape), 1)
        if len(counts) > 1 and share >= _SHARE:
            shares[value].append(share)
    return [
        Problem(
            "IGNORE_UNSTATED",
            "warning",
            "",
            "",
            "labels",
            f"value {value} is {100 * sum(found) / len(found):.3g} % of the voxels in {len(found)} of "
            f"{counted(masks, 'mask')}",
            f"if nobody labelled these voxels, add ignore={value} to the labels (--labels organ=1,ignore={value})",
        )
        for value, found in shares.items()
        if 2 * len(found) > masks
    ]
