"""The layouts of data sets, each read into a `Dataset`."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from medfcn.datasets.assemble import (
    Draft,
    Place,
    assemble,
    is_there,
    stacked_channels,
    usual_channel_count,
)
from medfcn.datasets.bids import bids_dataset
from medfcn.datasets.bids_files import bids_below, is_bids
from medfcn.datasets.case_folders import CaseFolder, case_folders, mask_at, masks_in, structures_of
from medfcn.datasets.cases import Dataset, Splits
from medfcn.datasets.column_names import unread_split
from medfcn.datasets.dataset_json import Description, Entry, read_description
from medfcn.datasets.dicom_layout import dicom_dataset
from medfcn.datasets.dicom_tree import has_dicom
from medfcn.datasets.folder_names import folder_pair
from medfcn.datasets.listing import files_in, is_folder, list_volumes, volume_named
from medfcn.datasets.misplaced import misplaced, side_by_side
from medfcn.datasets.prescribed_splits import read_splits, splits_elsewhere
from medfcn.datasets.problems import Problem
from medfcn.datasets.tables import Table, checked_id, inside_root, read_table
from medfcn.errors import DatasetError, MedfcnError, MissingFileError, SettingsError, refuse_pipe
from medfcn.labels.partial_labels import parse_labelled
from medfcn.runs.folder import RunFolder
from medfcn.text import counted, listed, shown
from medfcn.volumes.names import case_id_of, extension_of, stem_of, twin_key
from medfcn.volumes.refused import RefusedFile

_EXPECTED = (
    "expected images/ and labels/, a dataset.json, imagesTr/ and labelsTr/, folders of cases with an image and "
    "segmentations/, a BIDS data set, DICOM series, or a CSV or TSV file"
)
_TABLES = (".csv", ".tsv")
LAYOUTS = {
    "folders": "images/<case>.nii.gz (or <case>_0000.nii.gz, _0001 … for channels) and labels/<case>.nii.gz",
    "decathlon": "dataset.json with a training list, as in the Medical Segmentation Decathlon and MONAI",
    "nnunet": "imagesTr/<case>_0000.nii.gz and labelsTr/<case>.nii.gz, with dataset.json: an nnU-Net raw folder",
    "case folders": "<case>/<image>.nii.gz and <case>/segmentations/<structure>.nii.gz, as in TotalSegmentator",
    "bids": "sub-<label>/[ses-<label>/]<kind>/sub-<label>…_<suffix>.nii.gz, labels in derivatives/: a BIDS data set",
    "dicom": "folders of DICOM series, with segmentations or structure sets that refer to them",
    "table": "a CSV or TSV with the columns image (or image_<channel>), label, and perhaps id, group, fold, labelled",
}
"""The layouts that are recognised, in words."""


def dataset_at(path: Path, *, allow_outside: bool, bids: str | None = None) -> Dataset:
    """Recognise the layout of a folder or file, and read it.

    Args:
        path: A folder, a table or a `dataset.json`.
        allow_outside: Paths in a table or list may lead out of its folder.
        bids: The choice of files of a BIDS root, as `--bids` has it; None takes the only ones.

    Raises:
        DatasetError: It has no layout that is known, or cannot be read; the message says what is there.
    """
    require_bids(path, bids)
    if not exists_as_folder(path):
        if path.name == "dataset.json":
            return dataset_at(path.parent, allow_outside=allow_outside)
        if path.suffix.lower() in _TABLES:
            return _from_table(path, allow_outside=allow_outside)
        refuse_pipe(path, DatasetError)
        found = misplaced(path, "data set") or f"not a data set; {_EXPECTED}"
        raise DatasetError(f"{path}: {found}", code="DATASET_LAYOUT")
    about, has_json = Description(), (path / "dataset.json").exists()
    if has_json:
        about = read_description(path / "dataset.json")
    if about.training:
        return _from_list(path, about, allow_outside=allow_outside)
    pair = folder_pair(path)
    if pair is not None:
        return _from_folders(Place(path, pair.layout, pair.images, pair.labels), about)
    if is_bids(path):
        return bids_dataset(path, bids)
    folders = case_folders(path)
    if any(case.images and case.structures for case in folders.values()):
        return _from_case_folders(path, folders, about)
    if has_dicom(path):
        return dicom_dataset(path)
    raise DatasetError(f"{path}: {_instead(path, has_json=has_json)}", code="DATASET_LAYOUT")


def _instead(path: Path, *, has_json: bool) -> str:
    """Words about a folder that is no data set: what it is, and what to do."""
    reason = "no data set in this folder"
    if has_json:
        reason = "dataset.json has no training list and there is no imagesTr/"
    inner = [shown(root) for root in bids_below(path)]
    found = "" if has_json or inner else misplaced(path, "data set")
    tables = sorted(file.name for file in files_in(path) if file.suffix.lower() in _TABLES)
    hint = f"; if {tables[0]} lists the cases, give that file" if tables and not RunFolder(path).is_any else ""
    hint += f"; {listed(inner)} {'is' if len(inner) == 1 else 'are'} of BIDS: give the root" if inner else ""
    return f"{found or f'{reason}; {_EXPECTED}'}{hint}"


def require_bids(path: Path, bids: str | None) -> None:
    """Refuse a choice of BIDS files where there is no BIDS data set.

    Raises:
        SettingsError: There is none.
    """
    if bids is not None and not is_bids(path):
        raise SettingsError(
            f"bids: {shown(path)} is no BIDS data set; give the folder of sub-<label>/, or leave --bids out",
            field="bids",
        )


def bids_for(path: object, bids: str | None) -> str | None:
    """The choice of BIDS files, for a path that is a BIDS data set; None for another."""
    return bids if isinstance(path, str | os.PathLike) and is_bids(Path(path)) else None


def exists_as_folder(path: Path) -> bool:
    """True if a path is a folder, False if it is anything else.

    Raises:
        MissingFileError: There is nothing.
    """
    try:
        if path.exists() or path.is_symlink():
            return path.is_dir()
    except (OSError, ValueError) as error:
        raise MissingFileError(f"{path}: not a path that can be opened; check it") from error
    raise MissingFileError(f"{path}: no such file or folder; check the path")


def channels_in(
    folder: Path, *, labelled: frozenset[str] = frozenset()
) -> tuple[dict[str, dict[int, Path]], dict[str, list[RefusedFile]]]:
    """The images in a folder by case id and channel, and those that cannot be used by case id.

    `<case>_0000`, `<case>_0001` … are channels where there is a `_0000`, or where `<case>` has a label;
    unless a label has the whole name (`scan_2021` is then a case, not a channel).
    """
    listing = list_volumes(folder, dicom=True)
    cases: dict[str, dict[int, Path]] = {}
    refused: defaultdict[str, list[RefusedFile]] = defaultdict(list)
    for stem in sorted(listing.names):
        base, channel = case_id_of(f"{stem}.nii")
        is_channel = (
            channel is not None and stem not in labelled and (f"{base}_0000" in listing.names or base in labelled)
        )
        name, number = (base, channel or 0) if is_channel else (stem, 0)
        if stem in listing.refused:
            refused[name].append(listing.refused[stem])
            continue
        file = listing.volumes[stem]
        other = cases.setdefault(name, {}).setdefault(number, file)
        if other != file:
            found = f"both {shown(other)} and {shown(file)} are its image"
            refused[name].append(RefusedFile(file, DatasetError(f"{name}: {found}; rename one", code="ID_DUPLICATE")))
    return cases, dict(refused)


def _from_folders(place: Place, about: Description) -> Dataset:
    """`images/` with `labels/`, or nnU-Net's `imagesTr/` with `labelsTr/`."""
    root = place.root
    if not place.labels or not (root / place.labels).is_dir():
        beside = side_by_side(root / place.images)
        usual = "labelsTr/" if place.layout == "nnunet" else "labels/"
        raise MissingFileError(
            f"{root / place.images}: {beside}"
            if beside
            else f"{root}: has {place.images}/ but no {usual}; add the labels"
        )
    references, broken = masks_in(root / place.labels)
    channels, refused = channels_in(root / place.images, labelled=frozenset((*references, *broken)))
    names = sorted({*channels, *references, *refused, *broken})
    if not names:
        found = f"{place.images}/ contains no volumes (.nii.gz, .nii, ...)"
        raise DatasetError(f"{root}: {found}; add them", code="FOLDER_EMPTY")
    _require_common_names(place, sorted(channels), sorted(references))
    drafts = [
        Draft(
            name,
            channels.get(name, {}),
            references.get(name),
            refused=(
                *(("image", file) for file in refused.get(name, ())),
                *(("label", broken[name]) for _ in range(name in broken)),
            ),
        )
        for name in names
    ]
    dataset = _described(place, drafts, about)
    return replace(dataset, problems=(*dataset.problems, *_unread_folders(place, names)))


def _unread_folders(place: Place, names: Collection[str]) -> Iterator[Problem]:
    """A warning for each folder beside images and labels that has volumes of the same names."""
    read = (place.images, place.labels, "imagesTs", "labelsTs")
    for folder in files_in(place.root):
        found: Collection[str] = ()
        if folder.name not in read and is_folder(folder):
            with suppress(MedfcnError):
                found = list_volumes(folder).names & set(names)
        if found:
            yield Problem(
                "FILE_UNUSED", "warning", "", folder.name, "label",
                f"{shown(folder)}/ has volumes of the same names as {counted(len(found), 'case')}, and is not read: "
                f"the masks are those in {place.labels}/",
                "to train or score with it, list the cases in a CSV with the columns id,image,label",
            )  # fmt: skip


def _require_common_names(place: Place, images: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse images and labels of which no two have one name, where they are about as many.

    Raises:
        DatasetError: They are named in two ways.
    """
    few, many = sorted((len(images), len(labels)))
    if not few or few * 2 < many or {*map(twin_key, images)} & {*map(twin_key, labels)}:
        return
    example = (
        f"a line id,image,label, then case_1,{place.images}/{images[0]}.nii.gz,{place.labels}/{labels[0]}.nii.gz"
    )
    raise DatasetError(
        f"{place.root}: images are named like {images[0]!r} and labels like {labels[0]!r}, and no name is the same; "
        f"give both the case's id as file name, or list them in a CSV: {example} and so on",
        code="CASES_INCOMPLETE",
    )


def _from_case_folders(root: Path, folders: Mapping[str, CaseFolder], about: Description) -> Dataset:
    """A folder for each case: an image or several, and one file for each structure."""
    channels = sorted({name for case in folders.values() for name in case.images})
    drafts = [
        Draft(
            name,
            {channels.index(image): file for image, file in case.images.items()},
            case.structures,
            refused=tuple(("image", file) for file in case.refused),
        )
        for name, case in sorted(folders.items())
    ]
    place = Place(root, "case folders", channel=channels.__getitem__)
    dataset = _described(place, drafts, about)
    unused = [
        Problem(
            "FILE_UNUSED", "warning", name, dataset.relative(file), "image",
            "neither an image's name, such as ct.nii.gz, nor among the structures: it is not used",
            "rename it if it is an image",
        )
        for name, case in folders.items()
        for file in case.others
    ]  # fmt: skip
    return replace(dataset, channel_names=about.channels or tuple(channels), problems=(*dataset.problems, *unused))


def _described(
    place: Place, drafts: Sequence[Draft], about: Description, *, validation: Collection[str] = ()
) -> Dataset:
    """The data set with the channels, labels and splits that its `dataset.json` names, if it has one."""
    count = usual_channel_count(drafts, named=len(about.channels))
    numbered = ("image",) if count == 1 else tuple(f"{number:04d}" for number in range(count))
    channel_names = about.channels if len(about.channels) == count else numbered
    named = about.named_labels()
    structures = structures_of(draft.label for draft in drafts)
    if structures.are_structures:
        named = structures
    dataset = stacked_channels(assemble(place, drafts, channel_names, named), about.channels)
    splits = read_splits(place.root)
    if validation:
        training = tuple(draft.id for draft in drafts if draft.id not in validation)
        if splits or any(draft.fold for draft in drafts):
            found = "validation is listed beside folds of training, or of a splits_final.json"
            raise DatasetError(f"dataset.json: {found}; keep one", code="SPLITS_INVALID", field="validation")
        splits = Splits("dataset.json", ((training, tuple(validation)),))
    problems = [
        *about.contradictions(len(drafts) - len(validation), len(dataset.channel_names)),
        *splits_elsewhere(place.root),
    ]
    return replace(dataset, splits=splits, problems=(*problems, *dataset.problems))


def _from_list(root: Path, about: Description, *, allow_outside: bool) -> Dataset:
    """A `dataset.json` with `training: [{image, label}]`, and perhaps `validation`."""
    training = [
        _entry_draft(root, entry, f"training[{number}]", allow_outside=allow_outside)
        for number, entry in enumerate(about.training)
    ]
    validation = [
        _entry_draft(root, entry, f"validation[{number}]", allow_outside=allow_outside)
        for number, entry in enumerate(about.validation)
    ]
    _require_groups_and_folds(training, "dataset.json")
    place = Place(root, "decathlon", channel="image[{}]".format)
    return _described(place, [*training, *validation], about, validation=[draft.id for draft in validation])


def _entry_draft(root: Path, entry: Entry, field: str, *, allow_outside: bool) -> Draft:
    """The case of an entry of a list."""
    where = f"dataset.json: {field}"
    if not entry.images and not entry.label:
        raise DatasetError(f"{where} has no image and no label; give both", code="DATASET_JSON", field=field)
    files = [
        inside_root(root, text, where=where, field=field, allow_outside=allow_outside)
        for text in (*entry.images, *([entry.label] if entry.label else []))
    ]
    label = files.pop() if entry.label else None
    channels = dict(enumerate(_with_channels(files)))
    # A label of the same whole name says that `_0000` is part of the id.
    same = bool(channels) and label is not None and stem_of(label) == stem_of(channels[0])
    name = stem_of(channels[0]) if same else _name_of(channels, label)
    fold = None if entry.fold is None else str(entry.fold)
    mask = None if label is None else mask_at(label, name)
    images = {channel: volume_named(file) for channel, file in channels.items()}
    group = "" if entry.group is None else str(entry.group).strip()
    name = checked_id(name, where="dataset.json")
    return Draft(name, images, mask, group, fold, where, labelled=entry.drawn)


def _require_groups_and_folds(drafts: Sequence[Draft], source: str) -> None:
    """Refuse groups and folds that only some cases have: the others of a patient would be on the other side."""
    for name, code in (("group", "GROUP_INVALID"), ("fold", "FOLD_INVALID")):
        without = [draft.id for draft in drafts if not getattr(draft, name)]
        if without and len(without) < len(drafts):
            found = f"no {name} for {listed(without, limit=3)}"
            raise DatasetError(f"{source}: {found}; give every case one, or none", code=code, field=name)


def _name_of(channels: Mapping[int, Path], label: Path | None) -> str:
    """The id of an entry that gives none: that of its first image, or of its label where it has no image."""
    if not channels:
        return stem_of(label) if label else ""
    first = min(channels)
    base, channel = case_id_of(channels[first])
    return base if channel == first else stem_of(channels[first])


def _with_channels(images: Sequence[Path]) -> Sequence[Path]:
    """Older nnU-Net lists `case.nii.gz` where the files are `case_0000.nii.gz` and so on."""
    if len(images) != 1 or is_there(images[0]):
        return images
    stem, extension = stem_of(images[0]), extension_of(images[0])
    channels: list[Path] = []
    while is_there(candidate := images[0].with_name(f"{stem}_{len(channels):04d}{extension}")):
        channels.append(candidate)
    return channels or images


_COLUMNS = ("id", "image", "image_", "group", "fold", "labelled")
"""The columns that a table of cases may have beside `label`."""


def _from_table(path: Path, *, allow_outside: bool) -> Dataset:
    """A table with columns `image` (or `image_<channel>`), `label`, perhaps `id`, `group`, `fold` and `labelled`."""
    table, root = read_table(path, "label", known=_COLUMNS), path.parent
    columns = _image_columns(table)
    drafts: list[Draft] = []
    for line, row in table.rows:
        where = f"{table.name}: line {line}"
        files = {
            column: inside_root(root, row[column], where=where, field=column, allow_outside=allow_outside)
            for column in (*columns, "label")
            if row[column].strip()
        }
        if not files:
            raise DatasetError(f"{where} names no file; fill it in, or delete the line", code="TABLE_BROKEN")
        label = files.pop("label", None)
        images = {columns.index(column): file for column, file in files.items()}
        name = checked_id(row.get("id", "") or _name_of(images, label), where=where)
        fold = row.get("fold", "").strip() or None
        images = {channel: volume_named(file) for channel, file in images.items()}
        mask = None if label is None else mask_at(label, name)
        group, labelled = row.get("group", "").strip(), parse_labelled(row.get("labelled", ""))
        drafts.append(Draft(name, images, mask, group, fold, where, labelled=labelled))
    if not drafts:
        raise DatasetError(f"{table.name}: a header and no rows; add a line for each case", code="TABLE_EMPTY")
    _require_groups_and_folds(drafts, table.name)
    place = Place(root, "table", channel=columns.__getitem__, rename="add an id column that tells them apart")
    named = structures_of(draft.label for draft in drafts)
    names = tuple(column.partition("_")[2] or "image" for column in columns)
    texts = {
        column: {draft.id: row[column] for draft, (_, row) in zip(drafts, table.rows, strict=True)}
        for column in table.columns
    }
    found, unread = assemble(place, drafts, names, named), unread_split(texts, table.name)
    return replace(found, columns=texts, problems=(*found.problems, *([unread] if unread else [])))


def _image_columns(table: Table) -> tuple[str, ...]:
    """The columns that name images, in the order of the table."""
    several = tuple(column for column in table.columns if column.startswith("image_"))
    if ("image" in table.columns) == bool(several):
        expected = "image, or image_<channel> for each channel, and label"
        found = f"columns {listed(table.columns)}; expected {expected}"
        raise DatasetError(f"{table.name}: {found}", code="TABLE_COLUMNS", field="image")
    return several or ("image",)
