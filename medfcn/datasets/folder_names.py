"""The folders of images and of labels in a data set's folder, by the names that people usually give them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from medfcn.datasets.listing import files_in, is_folder
from medfcn.errors import DatasetError
from medfcn.text import shown

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "volumes", "scans")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "segmentations", "segs", "seg")
"""Names that are understood, in any letters, where one folder of each kind is there."""


@dataclass(frozen=True)
class FolderPair:
    """The two folders of a data set.

    Attributes:
        images: The name of the folder of images.
        labels: That of the folder of labels; empty where there is none.
        layout: Its name in `LAYOUTS`.
    """

    images: str
    labels: str
    layout: str


def folder_pair(root: Path) -> FolderPair | None:
    """The folders of images and labels in a folder; None where no folder is one of images.

    `images` and `labels` (or nnU-Net's `imagesTr` and `labelsTr`) are taken where they are. Else a folder stands for
    `images` whose name is in `IMAGE_FOLDERS`, in any letters, if there is one of `LABEL_FOLDERS` too.

    Raises:
        DatasetError: Several folders may be the one that is meant.
    """
    if (root / "images").is_dir() or not (root / "imagesTr").is_dir():
        images, labels = _named(root, "images", IMAGE_FOLDERS), _named(root, "labels", LABEL_FOLDERS)
        if images == ["images"] or (images and labels):
            return FolderPair(_only(root, "images", images), _only(root, "labels", labels), "folders")
    images, labels = _named(root, "imagesTr", ("imagestr",)), _named(root, "labelsTr", ("labelstr",))
    return FolderPair(_only(root, "imagesTr", images), _only(root, "labelsTr", labels), "nnunet") if images else None


def holds_labels(folder: Path) -> bool:
    """True if a folder has the name, and the place, of the labels of a data set."""
    name = folder.name
    if name == "labels":
        return True
    if name.lower() not in (*LABEL_FOLDERS, "labelstr") or not is_folder(folder):
        return False
    try:
        pair = folder_pair(folder.parent)
    except DatasetError:
        return False
    return pair is not None and pair.labels == name


def _named(root: Path, usual: str, names: Collection[str]) -> list[str]:
    """The folder of the usual name, or else all whose names are understood."""
    if (root / usual).is_dir():
        return [usual]
    return [path.name for path in files_in(root) if path.name.lower() in names and is_folder(path)]


def _only(root: Path, usual: str, found: list[str]) -> str:
    """The name of the one folder that was found; empty if none was."""
    if len(found) > 1:
        raise DatasetError(
            f"{shown(root)}: {' and '.join(f'{name}/' for name in found)} may each be the folder of {usual}; name "
            f"the one that is meant {usual}/",
            code="DATASET_LAYOUT",
        )
    return "".join(found)
