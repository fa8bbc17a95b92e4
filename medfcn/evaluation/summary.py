"""Summary of a table of scores: one of each label, and of all labels together."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medfcn.evaluation.cohort import Cohort
from medfcn.evaluation.definitions import Definitions
from medfcn.evaluation.estimates import INTERVAL, OVER_PATIENTS, mean_of
from medfcn.evaluation.label_summary import (
    DISTANCES,
    SHARES,
    LabelSummary,
    PartlyLabelled,
    micro_scores,
    summarise_label,
)
from medfcn.evaluation.scores import LabelScores
from medfcn.evaluation.strata import HOW_GAP, Strata, strata_lines, stratify
from medfcn.evaluation.summary_text import brief_lines, is_clustered, summary_lines
from medfcn.files import plain_json
from medfcn.text import page


@dataclass(frozen=True)
class Summary:
    """Summary of a table of scores.

    Attributes:
        labels: One summary for each label.
        macro: Mean over labels of each metric's mean over cases; labels without a value are left out.
        micro: Overlap with the voxels of all cases and labels counted together.
        definitions: Definitions of the numbers.
        notes: Facts that a reader needs: predictions that are missing, masks that were left out.
        partly_labelled: What the figures of cases mean of which less than half is labelled; empty without any.
        strata: Each label by the values of each column of the cohort.
    """

    labels: tuple[LabelSummary, ...]
    macro: Mapping[str, float]
    micro: Mapping[str, float]
    definitions: Definitions
    notes: tuple[str, ...] = ()
    partly_labelled: str = ""
    strata: tuple[Strata, ...] = ()

    @property
    def is_clustered(self) -> bool:
        """True if several cases are of one patient; intervals are then over patients."""
        return is_clustered(self.labels)

    @property
    def interval(self) -> str:
        """The definition of the intervals, in words."""
        return OVER_PATIENTS if self.is_clustered else INTERVAL

    def __getitem__(self, label: str) -> LabelSummary:
        """The summary of the label of that name."""
        for summary in self.labels:
            if summary.label == label:
                return summary
        raise KeyError(label)

    def to_json(self) -> dict[str, Any]:
        """Values for a JSON file: NaN is `None` and infinity `"inf"`."""
        said = {"partly_labelled": self.partly_labelled} if self.partly_labelled else {}
        by: dict[str, dict[str, Any]] = {}
        for each in self.strata:
            by.setdefault(each.column, {"gap": HOW_GAP, "labels": {}})["labels"][each.label] = each.to_json()
        return {
            **said,
            "definitions": self.definitions.to_json(),
            "interval": self.interval,
            "labels": {summary.label: summary.to_json() for summary in self.labels},
            "macro": plain_json(self.macro),
            "micro": plain_json(self.micro),
            "notes": list(self.notes),
            **({"by": by} if by else {}),
        }

    def to_text(self, *, all_metrics: bool = True) -> str:
        """A table for a terminal.

        Args:
            all_metrics: A row for each metric of each label, and the definitions at the foot; else a row for each
                label, at most 80 columns wide.
        """
        if not all_metrics:
            return page(brief_lines(self.labels, self.notes, strata=strata_lines(self.strata)))
        return page(
            summary_lines(
                self.labels, self.definitions, self.notes, self.partly_labelled, strata=strata_lines(self.strata)
            )
        )


def summarise(
    rows: Iterable[LabelScores],
    definitions: Definitions,
    *,
    penalty_mm: float | str | None = None,
    notes: Sequence[str] = (),
    failed: int = 0,
    cohort: Cohort | None = None,
) -> Summary:
    """Summarise rows; their order changes only the order of the labels.

    Args:
        rows: Scores of cases and labels.
        definitions: Definitions of the scores.
        penalty_mm: Distance of a miss in `penalised_mean`: millimetres, or `"diagonal"`, that of the largest
            volume missed.
        notes: Notes to keep in the summary.
        failed: Number of cases that could not be scored.
        cohort: The patients and strata of the cases.

    Returns:
        One summary for each label, in the order in which labels first appear.
    """
    rows = tuple(rows)
    by_label: dict[str, list[LabelScores]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    cohort = cohort or Cohort()
    labels = tuple(
        summarise_label(label, of_label, penalty_mm=penalty_mm, failed=failed, cohort=cohort)
        for label, of_label in by_label.items()
    )
    partly = PartlyLabelled.among(rows)
    said = "" if partly is None else partly.text(len({row.case for row in rows}))
    strata = tuple(
        stratify(column, label, of_label, cohort) for column in cohort.columns for label, of_label in by_label.items()
    )
    return Summary(labels, _macro(labels), micro_scores(rows), definitions, tuple(notes), said, strata)


def _macro(labels: Sequence[LabelSummary]) -> dict[str, float]:
    means = {}
    for metric in (*SHARES, *DISTANCES):
        values = [summary[metric].mean for summary in labels]
        means[metric] = mean_of(np.array([value for value in values if not math.isnan(value)]))
    return means
