"""Folders with one file for each structure: a folder a case, as TotalSegmentator writes them.

The structures are the volumes of `<case>/segmentations/`, or those of `<case>/` itself beside an image such as
`ct.nii.gz`. Their names are the labels' names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medfcn.datasets.cases import Dataset, MaskFile, NamedLabels
from medfcn.datasets.listing import files_in, is_folder, list_volumes, volume_named, volumes_in
from medfcn.datasets.problems import Problem
from medfcn.datasets.tables import checked_id
from medfcn.errors import DatasetError, MedfcnError
from medfcn.labels.dicom import dicom_label
from medfcn.labels.structures import StructureFiles, usual_names
from medfcn.text import counted, listed, shown
from medfcn.volumes.formats.dicom.series import is_dicom
from medfcn.volumes.names import extension_of
from medfcn.volumes.refused import RefusedFile

_STRUCTURES = ("segmentations", "segmentation", "masks", "labels", "structures")
_IMAGE = re.compile(
    r"(ct|cta|cbct|mra?|mri|pet|pt|suv|image|img|imaging|volume|scan|t1|t1w|t1c|t1ce|t1gd|t2|t2w|flair|dwi|adc)"
    r"(_\d{4})?",
    re.I,
)
"""Names of images beside structures."""


@dataclass(frozen=True)
class CaseFolder:
    """The folder of one case.

    Args:
        images: By name.
        structures: Its mask; None without a file of a structure.
        others: Volumes beside `segmentations/` that have no image's name.
        refused: Files that cannot be used, such as two of one name.
    """

    images: Mapping[str, Path]
    structures: StructureFiles | None
    others: tuple[Path, ...]
    refused: tuple[RefusedFile, ...] = ()


def read_case_folder(folder: Path) -> CaseFolder:
    """The images and structures in the folder of a case."""
    listing = list_volumes(folder)
    volumes = listing.volumes
    images = {name: file for name, file in volumes.items() if _IMAGE.fullmatch(name)}
    others = {name: file for name, file in volumes.items() if name not in images}
    inside = {found: list_volumes(found) for name in _STRUCTURES if (found := folder / name).is_dir()}
    inner = next((found for found, those in inside.items() if those.names), None)
    where, structures = (inner, dict(inside[inner].volumes)) if inner else (folder, others)
    if inner and not images and len(others) == 1:  # the one volume there is, whatever its name
        images, others = others, {}
    mask = StructureFiles(folder.name, where, structures) if structures else None
    refused = (*listing.refused.values(), *(inside[inner].refused.values() if inner else ()))
    return CaseFolder(images, mask, tuple(others.values()) if inner else (), refused)


def case_folders(root: Path) -> dict[str, CaseFolder]:
    """The folders of cases in a folder, by id; none if volumes are there beside them."""
    found: dict[str, CaseFolder] = {}
    for path in files_in(root):
        if extension_of(path):
            return {}
        if path.is_dir():
            case = read_case_folder(path)
            if case.images or case.structures or case.refused:
                found[checked_id(path.name, where=shown(root))] = case
    return found


def masks_in(folder: Path) -> tuple[dict[str, MaskFile], dict[str, RefusedFile]]:
    """The masks in a folder by case id: its volumes, or else its folders with one file for each structure.

    Returns:
        The masks, and the files that cannot be used.
    """
    listing = list_volumes(folder)
    if not listing.names:  # beside masks of volumes, DICOM files are what was exported of these
        listing = list_volumes(folder, dicom=True)
    if listing.names:
        masks: dict[str, MaskFile] = dict(listing.volumes)
        refused = dict(listing.refused)
        for name, file in listing.volumes.items():
            if not extension_of(file):
                try:
                    masks[name] = dicom_label(file, name)
                except MedfcnError as error:
                    del masks[name]
                    refused[name] = RefusedFile(file, error)
        return masks, refused
    cases = case_folders(folder)
    broken = {name: case.refused[0] for name, case in cases.items() if case.refused}
    return {name: case.structures for name, case in cases.items() if case.structures and name not in broken}, broken


def mask_at(path: Path, case: str = "") -> MaskFile:
    """A mask that an entry names: a file, or a folder with one file for each structure."""
    if not extension_of(path) and is_dicom(path):
        return dicom_label(path, case or path.stem)
    if not extension_of(path) and is_folder(path):
        return StructureFiles(case or path.name, path, volumes_in(path))
    return volume_named(path)


def structures_of(masks: Iterable[MaskFile | None]) -> NamedLabels:
    """The structures of some masks; no labels where each mask is one file.

    Raises:
        DatasetError: Some masks are one file, and others one for each structure.
    """
    given = [mask for mask in masks if mask is not None]
    structured = [mask for mask in given if isinstance(mask, StructureFiles)]
    single = next((mask for mask in given if not isinstance(mask, StructureFiles)), None)
    if structured and single is not None:
        raise DatasetError(
            f"{shown(single)}: is one file, while the label of {structured[0].case} is one file for each structure; "
            "store all labels alike",
            code="DATASET_LAYOUT",
            field="label",
        )
    usual, rare = usual_names(structured)
    return NamedLabels(structures=usual, rare_structures=rare)


def rare_structures_problem(dataset: Dataset) -> Problem | None:
    """The error about structures that few cases have a file of, unless the labels are chosen; None without any."""
    rare = dataset.named.rare_structures
    if not rare:
        return None
    masks = [case.label for case in dataset.all_cases if isinstance(case.label, StructureFiles)]
    counts = {name: sum(name in mask.files for mask in masks) for name in rare}
    if len(rare) == 1:
        having = counts[rare[0]]
        few = f"only {having} of {counted(len(masks), 'case')} {'has' if having == 1 else 'have'} a file of {rare[0]}"
    else:
        each = listed(f"{name} ({count})" for name, count in counts.items())
        few = f"less than half of {counted(len(masks), 'case')} have a file of each of these structures: {each}"
    remedy = "add empty masks to the others where there is nothing to draw, or name the structures with --labels"
    return Problem("STRUCTURE_RARE", "error", "", "", "labels", few, remedy)
