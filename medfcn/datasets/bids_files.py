"""The files of a BIDS data set: their names, and where they are.

Source:
    Brain Imaging Data Structure 1.10, "Common principles": names are entities `key-value` in a fixed order, then a
    suffix.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfcn.datasets.listing import files_in, is_folder
from medfcn.datasets.tables import read_text
from medfcn.decoding import read_json
from medfcn.errors import DatasetError, MedfcnError, MissingFileError
from medfcn.text import shown
from medfcn.volumes.names import extension_of, stem_of
from medfcn.volumes.refused import RefusedFile

DESCRIPTION = "dataset_description.json"
DERIVATIVES = "derivatives"
_IGNORE_FILE = ".bidsignore"
ENTITIES = (
    "sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec",
    "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk",
    "atlas", "seg", "scale", "res", "den", "label", "desc",
)  # fmt: skip
"""The short names of all entities, in the order of names."""
SEGMENTATIONS = ("dseg", "mask")
"""The suffixes of labels."""
PROBABILITIES = "probseg"
_NO_IMAGES = (*SEGMENTATIONS, PROBABILITIES, "defacemask")
GRID = ("space", "res", "den")
"""Entities that say on which grid a derivative is."""
OF_LABELS = (*GRID, "atlas", "seg", "scale", "label", "desc")
"""Entities that a label may have and its image may not."""
_DEEPEST = 3
"""Folders below that of a subject: session, kind of data, and one more."""
_SUBJECT = re.compile(r"sub-[A-Za-z0-9+]+")
_ENTITY = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")


@dataclass(frozen=True)
class BidsFile:
    """One volume of a BIDS data set.

    Attributes:
        path: The file.
        entities: Values by short name, in the order of the name.
        suffix: The end of the name, such as `T1w`.
        source: The name of the derivative that it is in; empty for the data set itself.
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str
    source: str = ""

    @classmethod
    def at(cls, path: Path, source: str = "") -> "BidsFile | None":
        """The file at a path; None if its name is not one of BIDS.

        Example:
            >>> found = BidsFile.at(Path("sub-01_ses-1_run-02_T1w.nii.gz"))
            >>> found.id, found.suffix
            ('sub-01_ses-1_run-02', 'T1w')
            >>> BidsFile.at(Path("T1w.nii.gz"))
        """
        *parts, suffix = stem_of(path).split("_")
        pairs = [(found[1], found[2]) for part in parts if (found := _ENTITY.fullmatch(part))]
        entities = dict(pairs)
        if len(pairs) < len(parts) or len(entities) < len(pairs) or "sub" not in entities or not suffix.isalnum():
            return None
        return cls(path, entities, suffix, source)

    @property
    def is_image(self) -> bool:
        """True if it is not a segmentation."""
        return self.suffix not in _NO_IMAGES

    @property
    def subject(self) -> str:
        """Such as `sub-01`."""
        return f"sub-{self.entities['sub']}"

    @property
    def id(self) -> str:
        """The name without what only says which of several labels or pictures of one scan it is."""
        return joined({key: value for key, value in self.entities.items() if key not in OF_LABELS or key in GRID})

    @property
    def datatype(self) -> str:
        """The name of its folder, such as `anat`."""
        return self.path.parent.name

    def value(self, key: str) -> str:
        """The value of an entity, of `suffix` or of `datatype`; `none` without one."""
        own = {"suffix": self.suffix, "datatype": self.datatype}
        return own.get(key) or self.entities.get(key, "none")


def joined(entities: Mapping[str, str], suffix: str = "") -> str:
    """A name from entities, which are put in order.

    Example:
        >>> joined({"ses": "1", "sub": "01", "desc": "medfcn"}, "dseg")
        'sub-01_ses-1_desc-medfcn_dseg'
    """
    order = {key: place for place, key in enumerate(ENTITIES)}
    keys = sorted(entities, key=lambda key: order.get(key, len(order)))
    return "_".join([*(f"{key}-{entities[key]}" for key in keys), *([suffix] if suffix else [])])


@dataclass(frozen=True)
class BidsTree:
    """The volumes below one root.

    Attributes:
        root: The folder.
        files: Those with a name of BIDS, in the order of the paths.
        strangers: Those with another name.
        refused: Subjects' folders and files that cannot be used, by the name of the subject.
    """

    root: Path
    files: tuple[BidsFile, ...]
    strangers: tuple[Path, ...] = ()
    refused: tuple[tuple[str, RefusedFile], ...] = ()


def is_bids(path: Path) -> bool:
    """True if a folder is the root of a BIDS data set, raw or derived."""
    if not is_folder(path):
        return False
    subjects = _subjects_in(path)
    if (path / DESCRIPTION).is_file():
        return bool(subjects)
    return any(
        extension_of(file) and file.name.startswith(f"{folder.name}_") and file.parent != folder
        for folder in subjects
        if is_folder(folder)
        for file in _walk(folder, _DEEPEST)
    )


def bids_below(path: Path) -> list[Path]:
    """The roots of BIDS data sets in a folder that is none itself, such as `derivatives/`."""
    return [inner for inner in files_in(path) if is_bids(inner)]


def bids_tree(root: Path, source: str = "") -> BidsTree:
    """The volumes of a root, without those that its `.bidsignore` names.

    Args:
        root: The folder.
        source: The name of a derivative.
    """
    ignored = _ignored(root)
    files: list[BidsFile] = []
    strangers: list[Path] = []
    refused: list[tuple[str, RefusedFile]] = []
    for folder in _subjects_in(root):
        if not is_folder(folder):
            found = "is a link to a folder that is not there" if folder.is_symlink() else "is no folder"
            error = MissingFileError(
                f"{shown(folder)}: {found}; fetch it (datalad get), or take it out", code="FILE_NOT_FETCHED"
            )
            refused.append((folder.name, RefusedFile(folder, error)))
            continue
        inside = [file for file in _walk(folder, _DEEPEST) if not ignored(file.relative_to(root).as_posix())]
        volumes = [file for file in inside if extension_of(file)]
        if not inside and not source:
            error = MissingFileError(
                f"{shown(folder)}: contains no file; fetch it (datalad get), or take it out", code="FILE_NOT_FETCHED"
            )
            refused.append((folder.name, RefusedFile(folder, error)))
        for file in volumes:
            named = BidsFile.at(file, source)
            if named is None:
                strangers.append(file)
            elif named.subject != folder.name:
                found = f"is named after {named.subject}, and in the folder of {folder.name}"
                refused.append((folder.name, RefusedFile(file, _misplaced(file, found))))
            else:
                files.append(named)
    return BidsTree(root, tuple(files), tuple(strangers), tuple(refused))


def _misplaced(file: Path, found: str) -> MedfcnError:
    return DatasetError(f"{shown(file)}: {found}; put it where it belongs", code="ID_INVALID", field="id")


def _subjects_in(root: Path) -> list[Path]:
    return [path for path in files_in(root) if _SUBJECT.fullmatch(path.name)]


def _walk(folder: Path, depth: int) -> Iterable[Path]:
    """The files below a folder, and links that lead nowhere."""
    for path in files_in(folder):
        if is_folder(path) and not extension_of(path):
            if depth:
                yield from _walk(path, depth - 1)
        else:
            yield path


def _ignored(root: Path) -> Callable[[str], bool]:
    """A test of the paths that a `.bidsignore` names, as `.gitignore` does; the last pattern that fits decides."""
    path = root / _IGNORE_FILE
    lines = read_text(path).splitlines() if path.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def is_ignored(relative: str) -> bool:
        decided = False
        for pattern in patterns:
            if _fits(relative, pattern.removeprefix("!")):
                decided = not pattern.startswith("!")
        return decided

    return is_ignored


def _fits(relative: str, pattern: str) -> bool:
    """True if a path, or a folder above it, fits a pattern of `.gitignore`.

    Example:
        >>> _fits("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/"), _fits("sub-01/anat/x.nii", "anat/x.nii")
        (True, False)
        >>> _fits("sub-01/anat/x.nii", "**/anat/*.nii"), _fits("sub-01/anat/x.nii", "x.*")
        (True, True)
    """
    parts = relative.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts))]
    paths = above if pattern.endswith("/") else [*above, relative]
    plain = pattern.strip("/")
    if "/" not in plain and not pattern.startswith("/"):
        return any(fnmatch.fnmatchcase(path.rpartition("/")[2], plain) for path in paths)
    pieces = plain.split("/")
    return any(_fits_pieces(path.split("/"), pieces) for path in paths)


def _fits_pieces(parts: Sequence[str], pieces: Sequence[str]) -> bool:
    if not pieces:
        return not parts
    if pieces[0] == "**":
        return any(_fits_pieces(parts[count:], pieces[1:]) for count in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pieces[0]) and _fits_pieces(parts[1:], pieces[1:])


def derived_roots(root: Path) -> dict[str, Path]:
    """The derivatives of a data set, by name; none where it has no `derivatives/`."""
    folder = root / DERIVATIVES
    if not is_folder(folder):
        return {}
    found = {path.name: path for path in files_in(folder) if is_folder(path) and _subjects_in(path)}
    return found | ({DERIVATIVES: folder} if _subjects_in(folder) else {})


def described(root: Path) -> Mapping[str, object]:
    """The content of `dataset_description.json`; empty if there is none that can be read."""
    try:
        return read_json(root / DESCRIPTION, dict[str, object], error=DatasetError, remedy="correct it")
    except (MedfcnError, OSError):
        return {}


def generated_by(root: Path) -> str:
    """The name of the first tool that a derivative says it was made by; empty without one."""
    tools = described(root).get("GeneratedBy")
    first = tools[0] if isinstance(tools, list) and tools else None
    name = first.get("Name") if isinstance(first, dict) else None
    return name if isinstance(name, str) else ""
