"""The check of cases of which only some labels were drawn."""

from collections.abc import Mapping
from pathlib import Path

from medfcn.datasets.cases import Case
from medfcn.datasets.problems import CaseProblems
from medfcn.errors import LabelError
from medfcn.labels import LabelMap
from medfcn.labels.partial_labels import drawn_labels
from medfcn.labels.values import ValueSet
from medfcn.text import listed


def look_at_drawn(
    case: Case, labels: LabelMap, counts: Mapping[int, int], problems: CaseProblems, file: Path
) -> None:
    """Compare the labels that a case names as drawn with those that there are, and with its mask.

    Args:
        case: The case.
        labels: The labels to look for.
        counts: Voxels by value of the mask.
        problems: Where what is found is added.
        file: The mask.
    """
    try:
        drawn = drawn_labels(case.labelled, labels, case=case.id)
    except LabelError as error:
        problems.refuse(error, file, "label")
        return
    others = {
        entry.name: voxels
        for place, (entry, values) in enumerate(labels.values_by_entry, start=1)
        if drawn and place not in drawn
        if (voxels := sum(counts[value] for value in set(counts) & ValueSet(values)))
    }
    if others:
        found = listed(f"{voxels:,} voxels of {name}" for name, voxels in others.items())
        remedy = "they count as not drawn; name the label too if it is drawn throughout"
        problems.warn("LABELLED_OTHERS", file, "labelled", f"{found}, which labelled does not name", remedy)
