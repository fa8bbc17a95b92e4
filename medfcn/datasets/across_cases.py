"""Problems that show only in all cases together: copies, labels that are in no mask, structures that overlap."""

from collections.abc import Mapping, Sequence

from medfcn.datasets.check_report import CaseFacts, ImageFacts
from medfcn.datasets.problems import Problem, Severity
from medfcn.datasets.unstated_ignore import unstated_ignore_problems
from medfcn.labels import LabelMap
from medfcn.labels.values import ANY, ValueSet
from medfcn.text import listed


def duplicates(cases: Sequence[CaseFacts]) -> list[Problem]:
    """The same voxels under two names: harmless in one group, a leak between groups."""
    seen: dict[str, tuple[CaseFacts, ImageFacts]] = {}
    problems = []
    for case in cases:
        for image in case.images:
            other_case, other = seen.setdefault(image.voxels_sha256, (case, image))
            if other is image or image.is_constant:
                continue
            severity: Severity = "error" if other_case.group != case.group else "warning"
            found = f"the same voxels as {other.file} ({other_case.id})"
            remedy = "take one out, or put both in one group"
            problems.append(Problem("IMAGE_DUPLICATE", severity, case.id, image.file, "voxels", found, remedy))
    return problems


def shared_voxels(labels: LabelMap | None, names: Mapping[int, str]) -> list[Problem]:
    """A warning where structures overlap: nobody stated that they do."""
    if labels is None or not names or not labels.overlapping:
        return []
    shared = listed(overlap.name for overlap in labels.overlaps if len(overlap.labels) > 1)
    remedy = "fine where one is a part of another: each label is then trained and scored whole"
    return [Problem("LABELS_OVERLAP", "warning", "", "", "labels", f"voxels are in two structures: {shared}", remedy)]


def across_cases(cases: Sequence[CaseFacts], labels: LabelMap | None, names: Mapping[int, str]) -> list[Problem]:
    """Problems that can only be seen in all masks together: labels, or values of them, that none contains."""
    masks = [case.label for case in cases if case.label is not None]
    if not masks:
        return []
    problems = [] if names else unstated_ignore_problems(cases)
    present = sorted({value for mask in masks for value in mask.voxels})
    contained = f"the masks contain {listed(names.get(value, value) for value in present) or 'nothing but 0'}"
    for entry, of_label in labels.values_by_entry if labels else ():
        # A range promises nothing about each of its values: it is absent if none of them is present.
        is_one = entry.values == ANY or bool(entry.structures)
        named = () if is_one else of_label
        absent = [value for value in named if not set(present) & ValueSet((value,))]
        code, values = "LABEL_ABSENT", ""
        if len(absent) < len(named):
            code, values = "LABEL_VALUE_ABSENT", f"value{'s' * (len(absent) > 1)} {listed(absent)} of "
        if absent or (is_one and not set(present) & ValueSet(of_label)):
            found = f"no case has {values}{entry}; {contained}"
            problems.append(Problem(code, "warning", "", "", "labels", found, "check the name and its values"))
    if not (present if labels is None else set(present) & labels.named_values):
        found, remedy = "no case has a foreground voxel", "check the labels, or name them with --labels"
        if present and labels:
            requested = f"no case has a voxel of the requested labels, {listed(labels.entries)}"
            found, remedy = f"{requested}; {contained}", "correct --labels"
        problems.append(Problem("LABELS_EMPTY", "error", "", "", "labels", found, remedy))
    return problems
