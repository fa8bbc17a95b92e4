"""A tree of DICOM files as a data set: series are images, segmentations and structure sets are their labels."""

from dataclasses import replace
from pathlib import Path

from medfcn.datasets.assemble import Draft, Place, assemble
from medfcn.datasets.case_folders import structures_of
from medfcn.datasets.cases import Dataset
from medfcn.datasets.dicom_tree import DicomTree, dicom_tree, labels_of_series
from medfcn.datasets.problems import Problem
from medfcn.errors import MedfcnError
from medfcn.labels.dicom import structures_in
from medfcn.labels.structures import StructureFiles
from medfcn.volumes.refused import RefusedFile


def dicom_dataset(root: Path) -> Dataset:
    """The data set of a tree of DICOM files.

    Raises:
        DatasetError: There is no series of images in it.
    """
    tree = dicom_tree(root)
    labels, unused = labels_of_series(tree)
    groups = tree.groups()
    labelled = {groups[name] for name in labels}
    # Of a patient's CT, PET and scouts, often one has the label; what is left without one would need none.
    spare = [one for one in tree.images if one.id not in labels and groups[one.id] in labelled]
    drafts = [
        _draft(tree, number, groups[one.id], labels.get(one.id, []))
        for number, one in enumerate(tree.images)
        if one not in spare
    ]
    named = structures_of(draft.label for draft in drafts)
    dataset = assemble(Place(root, "dicom"), drafts, ("image",), named)
    problems = [_about_label(problem, is_labelled=bool(tree.labels)) for problem in dataset.problems]
    problems += [
        Problem(
            "FILE_UNUSED", "warning", "", dataset.relative(path), "label",
            "belongs to no series here, or nothing says to which: it is not used",
            "put it into the folder of its series",
        )
        for path in unused
    ]  # fmt: skip
    problems += [
        Problem(
            "FILE_UNUSED", "warning", "", dataset.relative(one.path), "image",
            f"series {one.id} has no label, and another one of this patient has: it is not used",
            "add a label to train on it; predict takes it as it is",
        )
        for one in spare
    ]  # fmt: skip
    known = any(one.series.patient for one in tree.images)
    return replace(dataset, problems=tuple(problems), has_groups=known)


def _draft(tree: DicomTree, number: int, group: str, files: list[Path]) -> Draft:
    """The case of one series."""
    one = tree.images[number]
    refused = [] if one.problem is None else [("image", RefusedFile(one.path, one.problem))]
    label: StructureFiles | None = None
    try:
        label = structures_in(files, one.id, files[0].parent).on_grid_of(one.path) if files else None
    except MedfcnError as error:
        refused.append(("label", RefusedFile(files[0], error)))
    return Draft(one.id, {0: one.path}, label, group=group, refused=tuple(refused))


def _about_label(problem: Problem, *, is_labelled: bool) -> Problem:
    """The problem of a series without a label in the words of DICOM; a warning where the tree has none at all."""
    if problem.code != "LABEL_MISSING":
        return problem
    found = "no DICOM segmentation and no RTSTRUCT refers to this series"
    remedy = "add one to train on it; predict needs none" if not is_labelled else "add one, or take the series out"
    return replace(problem, found=found, remedy=remedy, severity="error" if is_labelled else "warning")
