"""A BIDS root as a data set: images from the root, labels from its derivatives, subjects as groups.

A label belongs to the image whose entities it repeats: `sub-01_ses-1_run-1_desc-manual_dseg` to
`sub-01_ses-1_run-1_T1w`. An entity that only labels have, such as `desc`, says nothing about the image.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medfcn.datasets.assemble import Draft, Place, assemble, usual_channel_count
from medfcn.datasets.bids_choice import BidsChoice
from medfcn.datasets.bids_files import (
    OF_LABELS,
    SEGMENTATIONS,
    BidsFile,
    BidsTree,
    bids_tree,
    derived_roots,
    generated_by,
    joined,
)
from medfcn.datasets.bids_tables import label_names, participants
from medfcn.datasets.case_folders import structures_of
from medfcn.datasets.cases import Dataset, MaskFile, NamedLabels
from medfcn.datasets.listing import is_folder
from medfcn.datasets.problems import Problem
from medfcn.errors import DatasetError, MissingFileError
from medfcn.labels.structures import StructureFiles
from medfcn.text import listed, shown
from medfcn.volumes.names import stem_of
from medfcn.volumes.refused import RefusedFile

OWN = "medfcn"
"""The tool whose derivatives are predictions: no labels, unless they are chosen by name."""


def bids_dataset(root: Path, text: str | None = None, *, labelled: bool = True) -> Dataset:
    """The data set of a BIDS root.

    Args:
        root: The folder of the subjects: of raw data with `derivatives/`, or of a derivative with images and labels.
        text: Which files are meant; see `BidsChoice.parse`.
        labelled: Look for labels too.

    Raises:
        SettingsError: `text` is not of its form.
        DatasetError: There are several kinds of images or of labels, and none is chosen; or no image.
    """
    choice, tree = BidsChoice.parse(text), bids_tree(root)
    found = [file for file in tree.files if file.is_image]
    if not found and not tree.refused:
        raise DatasetError(
            f"{shown(root)}: a BIDS data set without images{_instead(tree)}", code="FOLDER_EMPTY", field="bids"
        )
    images = choice.images(found, shown(root)) if found else ()
    if not labelled:
        choice.require_images_only(found, shown(root))
    suffixes = choice.suffixes or tuple(dict.fromkeys(image.suffix for image in images)) or ("image",)
    labels = _Labels.of(tree, choice, images) if labelled else _Labels()
    return _assembled(tree, _cases_of(images, suffixes), suffixes, labels)


def bids_masks(root: Path, text: str | None = None) -> Dataset:
    """The labels of a BIDS root as a data set, of which only these are complete.

    They have the ids of its images, or their own where it has no images, or several kinds of them.

    Raises:
        SettingsError: `text` is not of its form.
        DatasetError: There are no labels, or several kinds of them.
    """
    choice, tree = BidsChoice.parse(text), bids_tree(root)
    found = [file for file in tree.files if file.is_image]
    kinds = {file.suffix for file in found}
    images = choice.images(found, shown(root)) if found and (choice.suffixes or len(kinds) == 1) else ()
    suffixes = choice.suffixes or tuple(kinds) if images else ("image",)
    labels = _Labels.of(tree, choice, images)
    if not labels.files:
        raise DatasetError(
            f"{shown(root)}: a BIDS data set without labels; expected dseg or mask files in it or its derivatives",
            code="FOLDER_EMPTY",
            field="bids",
        )
    return _assembled(tree, _cases_of(images, suffixes), suffixes, labels)


def _instead(tree: BidsTree) -> str:
    """The folder to give instead of a root without images."""
    if any(file.suffix in SEGMENTATIONS for file in tree.files):
        return ", only labels; give the root with its images, and this folder with --bids derivatives=PATH"
    return "; expected sub-<label>/[ses-<label>/]anat/sub-<label>…_<suffix>.nii.gz"


@dataclass(frozen=True)
class _ScanCase:
    """The images of one case by channel, and the files that cannot be used."""

    id: str
    channels: dict[int, BidsFile] = field(default_factory=dict)
    refused: list[RefusedFile] = field(default_factory=list)

    def is_of(self, label: BidsFile, *, exactly: bool = False) -> bool:
        """True if a label repeats only entities of one of the images; `exactly`: and all of them."""
        wanted = _of_scan(label)
        images = [_of_scan(image) for image in self.channels.values()]
        return any(wanted == image if exactly else wanted.items() <= image.items() for image in images)


def _of_scan(file: BidsFile) -> dict[str, str]:
    return {key: value for key, value in file.entities.items() if key not in OF_LABELS}


def _cases_of(images: Sequence[BidsFile], suffixes: Sequence[str]) -> dict[str, _ScanCase]:
    """Images → cases: the images of one name; of several suffixes, those of a session where each is there once."""
    sessions = [(image.entities["sub"], image.entities.get("ses"), image.suffix) for image in images]
    by_session = len(suffixes) > 1 and len(set(sessions)) == len(sessions)
    several = len({(image.id, image.suffix) for image in images}) < len({_name(image) for image in images})
    cases: dict[str, _ScanCase] = {}
    for image in images:
        own = {key: image.entities[key] for key in ("sub", "ses") if key in image.entities}
        name = joined(own) if by_session else joined(image.entities) if several else image.id
        case = cases.setdefault(name, _ScanCase(name))
        place = suffixes.index(image.suffix)
        other = case.channels.setdefault(place, image)
        if other is not image:
            found = f"both {shown(other.path)} and {shown(image.path)} are its image"
            error = DatasetError(f"{name}: {found}; remove one", code="ID_DUPLICATE", field="image")
            case.refused.append(RefusedFile(image.path, error))
    return cases


def _name(image: BidsFile) -> str:
    return joined(image.entities, image.suffix)


@dataclass(frozen=True)
class _Labels:
    """The labels that are meant, and the meaning of their values."""

    files: tuple[BidsFile, ...] = ()
    named: NamedLabels = field(default_factory=NamedLabels)

    @classmethod
    def of(cls, tree: BidsTree, choice: BidsChoice, images: Sequence[BidsFile]) -> "_Labels":
        """The labels of a root: its own, and those of its derivatives."""
        roots = _roots_of(tree.root, choice)
        trees = [tree if root == tree.root else bids_tree(root, name) for name, root in roots.items()]
        found = [file for one in trees for file in one.files if file.suffix in SEGMENTATIONS]
        if images:
            found = _without_others(found, images, [file for file in tree.files if file.is_image])
        kept = choice.labels(found, images, shown(tree.root))
        return cls(kept, label_names([(file, roots[file.source]) for file in kept if file.suffix == "dseg"]))

    def by_case(self, cases: Mapping[str, _ScanCase]) -> dict[str, list[BidsFile]]:
        """The labels of each case; those that may be of several belong to all of them; of none, to a new one."""
        found: defaultdict[str, list[BidsFile]] = defaultdict(list)
        by_subject: defaultdict[str, list[_ScanCase]] = defaultdict(list)
        for case in cases.values():
            for image in list(case.channels.values())[:1]:
                by_subject[image.subject].append(case)
        for label in self.files:
            near = by_subject[label.subject]
            fitting = [case.id for case in near if case.is_of(label)]
            exact = [case.id for case in near if case.is_of(label, exactly=True)]
            for name in (exact if len(exact) == 1 else fitting) or [label.id]:
                found[name].append(label)
        return dict(found)


def _without_others(
    labels: Sequence[BidsFile], chosen: Sequence[BidsFile], images: Sequence[BidsFile]
) -> list[BidsFile]:
    """Labels without those that belong to images that were not chosen alone."""
    chosen_scans, scans = _scans_by_subject(chosen), _scans_by_subject(images)

    def is_of(label: BidsFile, by_subject: Mapping[str, Sequence[dict[str, str]]]) -> bool:
        wanted = _of_scan(label).items()
        return any(wanted <= scan.items() for scan in by_subject.get(label.subject, ()))

    return [label for label in labels if is_of(label, chosen_scans) or not is_of(label, scans)]


def _scans_by_subject(images: Iterable[BidsFile]) -> dict[str, list[dict[str, str]]]:
    found: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for image in images:
        found[image.subject].append(_of_scan(image))
    return dict(found)


def _roots_of(root: Path, choice: BidsChoice) -> dict[str, Path]:
    """The folders that labels may be in, by the name of the derivative; empty for the root itself.

    Raises:
        MissingFileError: The chosen derivative is not there.
    """
    derived = derived_roots(root)
    if not choice.derivatives:
        return {"": root} | {name: path for name, path in derived.items() if generated_by(path) != OWN}
    given = Path(choice.derivatives).expanduser()
    for path in (derived.get(choice.derivatives), given, root / given):
        if path is not None and is_folder(path):
            return {choice.derivatives: path}
    known = f"; there are {listed(derived)}" if derived else ""
    raise MissingFileError(
        f"{shown(root)}: no derivative {choice.derivatives}{known}; correct --bids derivatives=…", field="bids"
    )


def _mask_of(case: str, labels: Sequence[BidsFile], ambiguous: Collection[str]) -> MaskFile | RefusedFile | None:
    """The mask of a case: one file, or one for each `label-`."""
    if not labels:
        return None
    are_structures = labels[0].suffix == "mask" and any("label" in label.entities for label in labels)
    by_structure: defaultdict[str, list[BidsFile]] = defaultdict(list)
    for label in labels:
        by_structure[label.value("label") if are_structures else ""].append(label)
    nearest = [label for of_one in by_structure.values() for label in _nearest(of_one)]
    shared = [label for label in nearest if label.path.as_posix() in ambiguous]
    if len(nearest) == len(by_structure) and not shared:
        files = {label.value("label"): label.path for label in nearest}
        return StructureFiles(case, nearest[0].path.parent, files) if are_structures else nearest[0].path
    first = (shared or nearest)[0].path
    found = f"{listed(shown(label.path) for label in nearest)} are its labels"
    if shared and len(nearest) == len(by_structure):
        found = f"{shown(first)} may be the label of other images too"
    error = DatasetError(
        f"{case}: {found}; choose with --bids, or name the label as its image is", code="ID_DUPLICATE", field="label"
    )
    return RefusedFile(first, error)


def _nearest(labels: Sequence[BidsFile]) -> list[BidsFile]:
    """The labels that repeat most entities of the image."""
    most = max(len(_of_scan(label)) for label in labels)
    return [label for label in labels if len(_of_scan(label)) == most]


def _assembled(tree: BidsTree, cases: Mapping[str, _ScanCase], suffixes: tuple[str, ...], labels: _Labels) -> Dataset:
    """Cases and labels → the data set, with what each lacks in the words of BIDS."""
    by_case = labels.by_case(cases)
    uses: defaultdict[str, int] = defaultdict(int)
    for label in (label for found in by_case.values() for label in found):
        uses[label.path.as_posix()] += 1
    ambiguous = {path for path, count in uses.items() if count > 1}
    drafts = [
        _draft(cases.get(name, _ScanCase(name)), by_case.get(name, []), ambiguous)
        for name in sorted({*cases, *by_case})
    ]
    drafts += [
        Draft(name if is_folder(file.path) else stem_of(file.path), {}, None, name, refused=(("image", file),))
        for name, file in tree.refused
    ]
    named = structures_of(draft.label for draft in drafts)
    if not named.are_structures:
        named = labels.named
    channels = suffixes if usual_channel_count(drafts, named=len(suffixes)) == len(suffixes) else suffixes[:1]
    dataset = assemble(Place(tree.root, "bids", channel=suffixes.__getitem__), drafts, channels, named)
    groups = {draft.id: draft.group for draft in drafts}
    columns, broken = participants(tree.root, groups)
    problems = [_worded(problem, has_labels=bool(labels.files)) for problem in dataset.problems]
    return replace(
        dataset,
        problems=(*broken, *problems, *_unused(dataset, tree.strangers)),
        has_groups=True,
        columns=columns,
    )


def _draft(case: _ScanCase, labels: Sequence[BidsFile], ambiguous: Collection[str]) -> Draft:
    mask = _mask_of(case.id, labels, ambiguous)
    refused = [("image", file) for file in case.refused]
    if isinstance(mask, RefusedFile):
        refused.append(("label", mask))
        mask = None
    subject = next(iter((*case.channels.values(), *labels))).subject
    images = {place: image.path for place, image in case.channels.items()}
    return Draft(case.id, images, mask, group=subject, refused=tuple(refused))


def _worded(problem: Problem, *, has_labels: bool) -> Problem:
    """A problem in the words of BIDS; that labels are missing is a warning where there is none at all."""
    if problem.code == "LABEL_MISSING":
        found = "no dseg or mask repeats the entities of this image"
        remedy = f"add {problem.case}_dseg.nii.gz to a derivative, or take the image out"
        if not has_labels:
            remedy = "add a derivative with labels to train on it; predict needs none"
        return replace(problem, found=found, remedy=remedy, severity="error" if has_labels else "warning")
    if problem.code == "IMAGE_MISSING":
        found = "no image has the entities of this label"
        return replace(problem, found=found, remedy="add the image, or take the label out")
    if problem.code == "CHANNEL_MISSING":
        return replace(problem, remedy="add the file, or choose suffixes that every session has with --bids suffix=…")
    return problem


def _unused(dataset: Dataset, strangers: Iterable[Path]) -> list[Problem]:
    return [
        Problem(
            "FILE_UNUSED", "warning", "", dataset.relative(path), "image",
            "its name is not one of BIDS: it is not used",
            "name it sub-<label>…_<suffix>.nii.gz, or list it in .bidsignore",
        )
        for path in strangers
    ]  # fmt: skip
