"""Masks as a data set that can be looked at: with images, or on an empty ground."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from medfcn.datasets import Dataset, find_masks
from medfcn.datasets.cases import Case, MaskFile, NamedLabels
from medfcn.datasets.problems import Problem
from medfcn.errors import DatasetError, SettingsError
from medfcn.labels.colours import label_table
from medfcn.labels.sidecar import MaskRecord
from medfcn.reporting.shown_cases import Images, images_at

LAYOUT = "masks"


def masks_as_dataset(masks: str | os.PathLike[str], images: Images | None = None) -> Dataset:
    """A data set of masks, each with the image of its name.

    The names of the labels are those of the records beside the masks.

    Args:
        masks: As `find_masks` takes them.
        images: A folder of images, a data set, or one file.

    Raises:
        MissingFileError: The masks or the images are not there.
        DatasetError: They contain no masks or images, or no mask has the name of an image.
    """
    found = dict(sorted(find_masks(masks).items()))
    channels = {} if images is None else images_at(images)
    if len(found) == len(channels) == 1 and Path(masks).is_file():
        channels = dict(zip(found, channels.values(), strict=True))
    if channels and not found.keys() & channels.keys():
        raise DatasetError(
            f"{masks}: no mask has the name of an image in {images} (such as {next(iter(found))} and "
            f"{next(iter(channels))}); rename one of the two",
            code="CASES_UNMATCHED",
        )
    root = Path(masks) if Path(masks).is_dir() else Path(masks).parent
    cases = tuple(
        # A mask that cannot be used says why when it is read.
        Case(case, tuple(cast(Sequence[Path], channels.get(case, ()))), cast(MaskFile, label), case)
        for case, label in found.items()
    )
    lacking = [case.id for case in cases if channels and not case.images]
    problems = tuple(
        Problem("IMAGE_MISSING", "warning", case, "", "image", "no image has the name of this mask", "add the image")
        for case in lacking
    )
    count = max((len(case.images) for case in cases), default=0)
    names = tuple(f"channel {number}" for number in range(count))
    named, broken = _named(found)
    return Dataset(root, LAYOUT, cases, names, problems=(*problems, *broken), named=named)


def _named(masks: Mapping[str, object]) -> tuple[NamedLabels, list[Problem]]:
    """The names in the first record beside a mask that has any, and a warning for each record that is broken."""
    named, broken = NamedLabels(), []
    for case, mask in masks.items():
        try:
            record = MaskRecord.beside(mask) if isinstance(mask, Path) else None
        except SettingsError as error:
            found, _, remedy = str(error).partition("; ")
            broken.append(Problem(error.code, "warning", case, "", error.field, found, remedy))
            continue
        if record is not None and record.labels and not named.names:
            named = NamedLabels(names={entry.value: entry.name for entry in label_table(record.labels)})
    return named, broken
