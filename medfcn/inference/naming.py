"""The names of a case's files in a folder of masks: flat, or as BIDS names derivatives."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from medfcn.datasets import Case
from medfcn.datasets.bids import OWN
from medfcn.datasets.bids_files import DESCRIPTION, GRID, BidsFile, described, joined
from medfcn.errors import SettingsError
from medfcn.files import write_bytes, write_json
from medfcn.labels import LabelEntry
from medfcn.runs.folder import LOGS_FOLDER, PROBABILITIES_FOLDER
from medfcn.text import shown
from medfcn.volumes.formats.nifti_labels import TableLabel

_VERSION = "1.10.0"
"""The version of BIDS."""
_SOURCE = "source"
"""The name of the data set with the images in links."""
_FARTHEST = 2
"""Folders up to a data set that is named by its place; one that is farther is named alone."""
_COMMON = ("sub", "ses", "acq", "rec", "run", "part", "chunk", *GRID[:2])
_ENTITIES = {
    "anat": frozenset((*_COMMON, "task", "echo", "ce")),
    "func": frozenset((*_COMMON, "task", "echo", "ce", "dir")),
    "dwi": frozenset((*_COMMON, "dir")),
}
"""By kind of data, the entities that BIDS allows for a segmentation."""
_README = """# Masks of medfcn

`sub-…_desc-medfcn_dseg.nii.gz` are masks, on the grids of their images. `dseg.tsv` names their values. The `.json`
beside each says which model made it of which image, and how large each label is. `_probseg` are probabilities.
`logs/` has the tables of the whole folder.

Research use only; not a medical device.
"""


@dataclass(frozen=True)
class MaskNames:
    """Names of files relative to the folder of the masks: `<case>.nii.gz`, `probabilities/<case>.nii.gz`."""

    tables = ""
    """The folder of the tables; empty for that of the masks."""

    def mask(self, case: Case) -> str:
        """The name of a case's mask."""
        return f"{case.id}.nii.gz"

    def probabilities(self, case: Case, entries: Sequence[LabelEntry]) -> tuple[str, ...]:
        """The name of the probabilities of each label."""
        return tuple(f"{PROBABILITIES_FOLDER}/{stem}.nii.gz" for stem in stems_of(case.id, entries))

    def about(self, case: Case) -> Mapping[str, object]:
        """Further keys of a mask's record."""
        return {}

    def prepare(self, folder: Path, labels: Sequence[TableLabel]) -> None:
        """Write what the folder needs beside the masks."""

    def named(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """The cases with the ids that masks have.

        Raises:
            SettingsError: A case cannot be named so, or two get one name.
        """
        return tuple(cases)


@dataclass(frozen=True)
class BidsNames(MaskNames):
    """Names of BIDS derivatives: `sub-01/ses-1/anat/sub-01_ses-1_desc-medfcn_dseg.nii.gz`.

    Args:
        folder: The folder of the masks.
    """

    folder: Path
    tables = LOGS_FOLDER

    def mask(self, case: Case) -> str:
        """The name of a case's mask."""
        return self._path(case, {"desc": OWN}, "dseg")

    def probabilities(self, case: Case, entries: Sequence[LabelEntry]) -> tuple[str, ...]:
        """The name of the probabilities of each label, with `label-` where there are several."""
        plain = [re.sub("[^A-Za-z0-9]", "", entry.name) for entry in entries]
        words = [
            word if word and plain.count(word) == 1 else str(entry.written)
            for word, entry in zip(plain, entries, strict=True)
        ]
        of_label: list[dict[str, str]] = [{"label": word} if len(entries) > 1 else {} for word in words]
        return tuple(self._path(case, {**label, "desc": OWN}, "probseg") for label in of_label)

    def about(self, case: Case) -> Mapping[str, object]:
        """`Sources`: the images by their place in their data set."""
        root = root_of([case])
        if root is None or self._link(root) is None:
            return {}
        places = [Path(os.path.abspath(image)).relative_to(root).as_posix() for image in case.images]  # noqa: PTH100
        return {"Sources": [f"bids:{_SOURCE}:{place}" for place in places]}

    def named(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """The cases with the ids of BIDS, as their masks have when they are read.

        Raises:
            SettingsError: A case has no name of BIDS, or two masks would get one name.
        """
        found = []
        for case in cases:
            own = own_name(case)
            if own is None:
                raise SettingsError(
                    f"format bids: {case.id} is no name of BIDS, such as sub-01_ses-1; give a BIDS data set as "
                    "INPUT, or leave --format out",
                    field="format",
                )
            found.append(replace(case, id=own.id))
        taken: dict[str, Case] = {}
        for before, case in zip(cases, found, strict=True):
            mask = self.mask(case)
            other = next(
                (one for key in (mask, case.id) if (one := taken.setdefault(key, before)) is not before), None
            )
            if other is not None:
                raise SettingsError(
                    f"format bids: {other.id} and {before.id} would get one mask, {Path(mask).name}; predict "
                    "them into two outputs (--bids, --cases)",
                    field="format",
                )
        return tuple(found)

    def prepare(self, folder: Path, labels: Sequence[TableLabel]) -> None:
        """Write the table of labels and a text for readers, unless they are there."""
        table = "".join(f"{one.value}\t{one.line}\t{one.colour}\n" for one in labels)
        texts = {"README.md": _README, "dseg.tsv": f"index\tname\tcolor\n{table}"}
        for name, text in texts.items():
            path = folder / name
            if not path.exists() or (name == "dseg.tsv" and path.read_bytes() != text.encode()):
                write_bytes(path, text.encode())

    def describe(self, root: Path | None) -> None:
        """Write `dataset_description.json`, unless it is there.

        Args:
            root: The data set with the images; None where there is none.
        """
        if (self.folder / DESCRIPTION).exists():
            return
        stated = {} if root is None else described(root)
        doi, link = stated.get("DatasetDOI"), None if root is None else self._link(root)
        source: dict[str, object] = {"URL": link or (shown(root) if root else "unknown")}
        source |= {"DOI": doi} if isinstance(doi, str) else {}
        content: dict[str, object] = {
            "Name": "Masks of medfcn",
            "BIDSVersion": _VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [
                {"Name": OWN, "Version": version("medfcn"), "Description": "2D fully convolutional networks"}
            ],
            "SourceDatasets": [source],
        }
        if link is not None:
            content["DatasetLinks"] = {_SOURCE: link}
        write_json(self.folder / DESCRIPTION, content)

    def _link(self, root: Path) -> str | None:
        """The path from the masks to a data set; None if it is far, so that its path would say where people work."""
        link = Path(os.path.relpath(root, self.folder))
        return link.as_posix() if sum(part == ".." for part in link.parts) <= _FARTHEST else None

    def _path(self, case: Case, more: Mapping[str, str], suffix: str) -> str:
        own = own_name(case)
        entities = {} if own is None else own.entities
        folder = case.images[0].parent.name if case.images else "anat"
        kind = folder if folder in _ENTITIES and (folder != "func" or "task" in entities) else "anat"
        kept = {key: value for key, value in entities.items() if key in _ENTITIES[kind]}
        parts = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
        return "/".join([*parts, kind, f"{joined({**kept, **more}, suffix)}.nii.gz"])


def stems_of(name: str, entries: Sequence[LabelEntry]) -> tuple[str, ...]:
    """The beginning of the name of each label's file; by value, as a label's name may not be fit for a path."""
    return tuple(f"{name}_{entry.written}" if len(entries) > 1 else name for entry in entries)


def own_name(case: Case) -> BidsFile | None:
    """The name of a case by BIDS; an id may end in a suffix, or not, as that of a subject without any image."""
    return BidsFile.at(Path(f"{case.id}.nii.gz")) or BidsFile.at(Path(f"{case.id}_image.nii.gz"))


def _data_set_of(image: Path) -> Path | None:
    """The data set that an image is in: the folder of its subject's folder."""
    path = Path(os.path.abspath(image))  # noqa: PTH100 - links of DataLad are not to be followed
    return next((above.parent for above in path.parents if above.name.startswith("sub-")), None)


def root_of(cases: Sequence[Case]) -> Path | None:
    """The one data set that all images are in; None if there is none, or there are several."""
    roots = {_data_set_of(image) for case in cases for image in case.images}
    return roots.pop() if len(roots) == 1 else None
