"""DICOM segmentations and structure sets as masks of structures, each on the grid of its image."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from medfcn.errors import LabelError, VolumeError
from medfcn.files import sha256_of
from medfcn.labels.structures import StructureFiles
from medfcn.text import listed, shown
from medfcn.volumes.formats.dicom.labels import label_files_at, structure_mask, structure_names
from medfcn.volumes.names import extension_of
from medfcn.volumes.options import ReadOptions
from medfcn.volumes.reading import read_grid
from medfcn.volumes.volume import Volume


def is_dicom_label(path: Path) -> bool:
    """True if a path is a DICOM segmentation or structure set, or a folder with one."""
    try:
        return not extension_of(path) and bool(label_files_at(path))
    except (VolumeError, OSError):
        return False


def dicom_label(path: Path, case: str) -> StructureFiles:
    """The mask that a DICOM file is, or that those of a folder are together.

    Raises:
        VolumeError: There is none, or a file is damaged.
        LabelError: Two files have a structure of one name.
    """
    files = label_files_at(path)
    if not files:
        raise VolumeError(
            f"{shown(path)}: no DICOM segmentation and no RTSTRUCT; give a label", code="FILE_KIND", field="label"
        )
    return structures_in(files, case, path)


def structures_in(files: Iterable[Path], case: str, folder: Path) -> StructureFiles:
    """The structures of some DICOM files as one mask.

    Args:
        files: Segmentations and structure sets of one image.
        case: The case's id.
        folder: Where they are, or the one file.

    Raises:
        VolumeError: A file is damaged.
        LabelError: Two files have a structure of one name.
    """
    structures: dict[str, Path] = {}
    for file in files:
        names = structure_names(file)
        if twice := [name for name in names if name in structures]:
            raise LabelError(
                f"{shown(file)}: has {listed(twice)}, as {shown(structures[twice[0]])} has; keep one of the two",
                code="STRUCTURE_RARE",
                field="label",
            )
        structures |= dict.fromkeys(names, file)
    return StructureFiles(case, folder, structures)


def dicom_grid(source: StructureFiles, options: ReadOptions) -> Volume:
    """The grid of the image of some structures, without voxels.

    Raises:
        LabelError: The image is not known.
        VolumeError: It is refused.
    """
    if source.image is None:
        raise LabelError(
            f"{source.case}: a DICOM label says nothing of voxels without its image; give both in one data set",
            field="label",
        )
    return replace(read_grid(source.image, options=options), header=None, notes=())


def dicom_structure(file: Path, name: str, grid: Volume) -> Volume:
    """One structure of a DICOM file, on a grid."""
    mask, notes = structure_mask(file, name, grid.affine, grid.shape)
    return replace(grid.with_array(mask), name=shown(file), sha256=sha256_of(file), notes=notes)
