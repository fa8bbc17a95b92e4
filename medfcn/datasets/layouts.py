"""The layouts in which datasets lie, each read into a `Dataset`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medfcn.datasets.assemble import Draft, Place, is_there, pair, usual_channel_count
from medfcn.datasets.cases import Dataset, check_unique
from medfcn.datasets.tables import Table, checked_id, first_few, inside_root, read_json, read_table
from medfcn.errors import DatasetError, MissingFileError
from medfcn.labels.label_map import IGNORE_NAME
from medfcn.labels.whole_numbers import LARGEST_LABEL
from medfcn.text import shown
from medfcn.volumes.names import case_id_of, extension_of, is_hidden, stem_of

_EXPECTED = "expected images/ and labels/, a dataset.json, imagesTr/ and labelsTr/, or a CSV or TSV file"
_RENAME = "rename one"
_ADD_ID = "add an id column that tells them apart"


def dataset_at(path: Path, *, allow_outside: bool) -> Dataset:
    """Tell the layout of what lies at `path`, and read it."""
    typed = str(path)
    try:
        exists, is_file = path.exists(), path.is_file()
    except (OSError, ValueError) as error:
        raise MissingFileError(f"{typed}: not a path that can be opened; check it") from error
    if not exists:
        raise MissingFileError(f"{typed}: no such dataset; check the path")
    if is_file and path.name == "dataset.json":
        return dataset_at(path.parent, allow_outside=allow_outside)
    if is_file and path.suffix.lower() in (".csv", ".tsv"):
        return _from_table(path, allow_outside=allow_outside)
    if not path.is_dir():
        raise DatasetError(f"{typed}: not a dataset; {_EXPECTED}")
    description = read_json(path / "dataset.json") if (path / "dataset.json").exists() else {}
    if "training" in description:
        return _from_decathlon(path, description, allow_outside=allow_outside)
    for images, labels, layout in (("images", "labels", "folders"), ("imagesTr", "labelsTr", "nnunet")):
        if (path / images).is_dir():
            return _from_folders(path, images, labels, layout, description)
    if description:
        raise DatasetError(f"{typed}: dataset.json has no training list and there is no imagesTr/; {_EXPECTED}")
    tables = sorted(file.name for file in _files_in(path) if file.suffix.lower() in (".csv", ".tsv"))
    hint = f"; if {tables[0]} lists the cases, give that file" if tables else ""
    raise DatasetError(f"{typed}: no dataset in this folder; {_EXPECTED}{hint}")


def _files_in(folder: Path) -> list[Path]:
    """What lies in a folder, hidden files left out, in the order of the names."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if not is_hidden(name))  # noqa: PTH208
    except OSError as error:
        raise DatasetError(f"{shown(folder)}: cannot be listed ({error.strerror}); check its permissions") from error


def _volume_files(folder: Path) -> list[Path]:
    """The volumes in a folder; of a `.hdr`/`.img` pair the header stands for both."""
    files = [file for file in _files_in(folder) if extension_of(file) and not file.is_dir()]
    headers = {stem_of(file) for file in files if extension_of(file).startswith(".hdr")}
    raw = {stem_of(file) for file in files if extension_of(file) in (".mhd", ".nhdr")}
    return [
        file
        for file in files
        if not (extension_of(file).startswith(".img") and stem_of(file) in headers)
        and not (file.suffix == ".raw" and stem_of(file) in raw)
    ]


def volumes_in(folder: Path) -> dict[str, Path]:
    """The volumes in a folder by their file names without extension.

    Raises:
        DatasetError: Two share a name.
    """
    found = [(stem_of(file), file) for file in _volume_files(folder)]
    check_unique(found, remedy=_RENAME)
    for name, _ in found:
        checked_id(name, where=shown(folder))
    return dict(found)


def channels_in(folder: Path, *, labelled: frozenset[str] = frozenset()) -> dict[str, dict[int, Path]]:
    """The images in a folder by case id and channel.

    `<case>_0000`, `<case>_0001` … are channels where there is a `_0000`, or where `<case>` has a label;
    unless a label has the whole name (`scan_2021` is then a case, not a channel).

    Raises:
        DatasetError: Two files share an id.
    """
    volumes = volumes_in(folder)
    cases: dict[str, dict[int, Path]] = {}
    for stem, file in volumes.items():
        base, channel = case_id_of(file)
        is_channel = channel is not None and stem not in labelled and (f"{base}_0000" in volumes or base in labelled)
        name, number = (base, channel or 0) if is_channel else (stem, 0)
        other = cases.setdefault(name, {}).setdefault(number, file)
        if other != file:
            raise DatasetError(f"{name}: both {shown(other)} and {shown(file)} are its image; {_RENAME}")
    return cases


def inputs_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The images in a folder by case id, in the order of the channels.

    Raises:
        DatasetError: A channel is missing between others, or two files share an id.
    """
    cases = channels_in(folder)
    for name, channels in cases.items():
        absent = sorted(set(range(max(channels) + 1)) - set(channels))
        if absent:
            raise DatasetError(f"{name}: channel _{absent[0]:04d} is missing; add the file")
    check_unique([(name, channels[0]) for name, channels in cases.items()], remedy=_RENAME)
    return {name: tuple(file for _, file in sorted(channels.items())) for name, channels in cases.items()}


def _from_folders(root: Path, images: str, labels: str, layout: str, description: Mapping[str, Any]) -> Dataset:
    """`images/` with `labels/`, or nnU-Net's `imagesTr/` with `labelsTr/`."""
    if not (root / labels).is_dir():
        raise MissingFileError(f"{root}: has {images}/ but no {labels}/; add the labels")
    references = volumes_in(root / labels)
    channels = channels_in(root / images, labelled=frozenset(references))
    if not channels and not references:
        raise DatasetError(f"{root}: {images}/ holds no volumes (.nii.gz, .nii, ...); add them")
    names = sorted(channels.keys() | references.keys())
    drafts = [Draft(name, channels.get(name, {}), references.get(name), name) for name in names]
    return _dataset(Place(root, images, labels), layout, drafts, description)


def _dataset(place: Place, layout: str, drafts: Sequence[Draft], description: Mapping[str, Any]) -> Dataset:
    """The dataset that `dataset.json`, if there is one, describes."""
    check_unique([(draft.id, draft.files[0]) for draft in drafts], remedy=_RENAME)
    named = description.get("channel_names", description.get("modality"))
    count = usual_channel_count(drafts, named=len(named) if isinstance(named, dict) else 0)
    found = pair(place, drafts, channel_count=count)
    return Dataset(
        place.root,
        layout,
        found.cases,
        _channel_names(named, count),
        label_names(description),
        found.incomplete,
        found.problems,
        ignored=ignored_values(description),
        label_regions=label_regions(description),
    )


def _from_decathlon(root: Path, description: Mapping[str, Any], *, allow_outside: bool) -> Dataset:
    """A `dataset.json` with `training: [{image, label}]`."""
    entries = description["training"]
    if not isinstance(entries, list) or not entries:
        raise DatasetError("dataset.json: training is empty or no list; expected [{image, label}, ...]")
    drafts = []
    for number, entry in enumerate(entries):
        where = f"dataset.json: training[{number}]"
        if not isinstance(entry, dict) or not (entry.get("image") or entry.get("label")):
            raise DatasetError(f"{where} has no image and no label; expected both")
        listed = entry.get("image") or []
        texts = listed if isinstance(listed, list) else [listed]
        images = tuple(inside_root(root, text, where=where, allow_outside=allow_outside) for text in texts)
        label = None
        if entry.get("label"):
            label = inside_root(root, entry["label"], where=where, allow_outside=allow_outside)
        channels = dict(enumerate(_with_channels(images)))
        # A label of the same whole name says that `_0000` is part of the id.
        same = bool(channels) and label is not None and stem_of(label) == stem_of(channels[0])
        name = stem_of(channels[0]) if same else _name_of(channels, label)
        checked_id(name, where="dataset.json")
        drafts.append(Draft(name, channels, label, name, where=where))
    return _dataset(Place(root, channel="image[{}]"), "decathlon", drafts, description)


def _name_of(channels: Mapping[int, Path], label: Path | None) -> str:
    """The id of an entry that gives none: that of its first image, or of its label where it has no image."""
    if not channels:
        return stem_of(label) if label else ""
    first = min(channels)
    base, channel = case_id_of(channels[first])
    return base if channel == first else stem_of(channels[first])


def _with_channels(images: tuple[Path, ...]) -> tuple[Path, ...]:
    """Older nnU-Net lists `case.nii.gz` where the files are `case_0000.nii.gz` and so on."""
    if len(images) != 1 or is_there(images[0]):
        return images
    stem, extension = stem_of(images[0]), extension_of(images[0])
    channels: list[Path] = []
    while is_there(candidate := images[0].with_name(f"{stem}_{len(channels):04d}{extension}")):
        channels.append(candidate)
    return tuple(channels) or images


def _from_table(path: Path, *, allow_outside: bool) -> Dataset:
    """A CSV or TSV with columns `image` (or `image_<channel>`), `label`, perhaps `id`, `group`, `fold`."""
    table, root = read_table(path), path.parent
    columns = _image_columns(table)
    drafts: list[Draft] = []
    for line, row in table.rows:
        where = f"{table.name}: line {line}"
        images = {
            number: inside_root(root, row[column], where=where, allow_outside=allow_outside)
            for number, column in enumerate(columns)
            if row[column].strip()
        }
        label = None
        if row["label"].strip():
            label = inside_root(root, row["label"], where=where, allow_outside=allow_outside)
        if not images and label is None:
            raise DatasetError(f"{where} names no image and no label; fill them in, or delete the line")
        name = row.get("id", "") or _name_of(images, label)
        checked_id(name, where=where)
        fold = row.get("fold", "").strip() or None
        drafts.append(Draft(name, images, label, row.get("group", "").strip() or name, fold, where))
    if not drafts:
        raise DatasetError(f"{table.name}: a header and no rows; add a line for each case")
    unfolded = [draft.id for draft in drafts if draft.fold is None]
    if unfolded and len(unfolded) < len(drafts):
        raise DatasetError(f"{table.name}: no fold for {first_few(unfolded)}; give every case one, or none")
    check_unique([(draft.id, draft.files[0]) for draft in drafts], remedy=_ADD_ID)
    found = pair(Place(root, columns=columns), drafts, channel_count=len(columns))
    channels = tuple(column.partition("_")[2] or "image" for column in columns)
    return Dataset(root, "table", found.cases, channels, {}, found.incomplete, found.problems)


def _image_columns(table: Table) -> tuple[str, ...]:
    """The columns that name images, in the order of the table."""
    several = tuple(column for column in table.columns if column.startswith("image_"))
    single = "image" in table.columns
    if "label" not in table.columns or single == bool(several):
        raise DatasetError(
            f"{table.name}: columns {first_few(table.columns, limit=6)}; expected image (or "
            "image_<channel> for each "
            "channel, not both) and label"
        )
    return ("image",) if single else several


def _channel_names(named: object, count: int) -> tuple[str, ...]:
    """Names of the channels, where `dataset.json` gives one for each."""
    if isinstance(named, dict) and sorted(named) == sorted(str(number) for number in range(count)):
        return tuple(str(named[str(number)]) for number in range(count))
    return ("image",) if count == 1 else tuple(f"{number:04d}" for number in range(count))


def label_names(description: Mapping[str, Any]) -> dict[int, str]:
    """Names of label values: `{"1": "organ"}` as the Decathlon writes them, `{"organ": 1}` as nnU-Net does.

    Names of several values (nnU-Net's regions) cannot be told apart by value; such a dataset has none here, and
    `label_regions` instead. The name `ignore` is no label; see `ignored_values`.

    Raises:
        DatasetError: A value is not a whole number, or has two names.
    """
    labels = description.get("labels", {})
    if not isinstance(labels, dict):
        raise DatasetError("dataset.json: labels is no object; expected names and values")
    names: dict[int, str] = {}
    for key, item in labels.items():
        if isinstance(item, list):
            return {}
        value, name = (key, item) if isinstance(item, str) and _is_whole(key) else (item, key)
        if not _is_whole(value):
            raise DatasetError(f"dataset.json: label {key!r} has no whole number; mend the entry")
        number = int(value)
        if number in names:
            raise DatasetError(f"dataset.json: label value {number} has two names; mend the entry")
        names[number] = str(name)
    return {value: name for value, name in sorted(names.items()) if value != 0 and name != IGNORE_NAME}


def label_regions(description: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The values of each label, where nnU-Net's `dataset.json` gives one of them several (regions); else none.

    Its `regions_class_order` is not used: it says how nnU-Net writes regions into one mask.

    Raises:
        DatasetError: A value is not a whole number from 0, or a label mixes 0 with others.

    Example:
        >>> label_regions({"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}})
        {'whole': (1, 2), 'core': (2,)}
        >>> label_regions({"labels": {"background": 0, "organ": 1}})
        {}
    """
    labels = description.get("labels", {})
    if not isinstance(labels, dict) or not any(isinstance(item, list) for item in labels.values()):
        return {}
    regions: dict[str, tuple[int, ...]] = {}
    for name, item in labels.items():
        values = item if isinstance(item, list) else [item]
        if not values or not all(_is_whole(value) for value in values):
            raise DatasetError(f"dataset.json: label {name!r} has no whole numbers; mend the entry")
        numbers = tuple(int(value) for value in values)
        if numbers == (0,) or name == IGNORE_NAME:
            continue
        if 0 in numbers:
            raise DatasetError(f"dataset.json: label {name!r} has the background's 0; mend the entry")
        regions[str(name)] = numbers
    return regions


def ignored_values(description: Mapping[str, Any]) -> tuple[int, ...]:
    """The value of voxels that nobody labelled, which nnU-Net's `dataset.json` names `ignore`, if there is one.

    Example:
        >>> ignored_values({"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}})
        (3,)
    """
    labels = description.get("labels", {})
    found = [labels.get(IGNORE_NAME), *(key for key, name in labels.items() if name == IGNORE_NAME)]
    return tuple(int(value) for value in found if _is_whole(value) and 1 <= int(value) <= LARGEST_LABEL)


def _is_whole(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) <= 9
    return type(value) is int and 0 <= value < 10**9
