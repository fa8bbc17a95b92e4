"""The labels of masks that a training left in its run folder: the run's card says them, no record does."""

import os
from pathlib import Path
from typing import Any

import msgspec

from medfcn.decoding import read_json
from medfcn.errors import LabelError, SettingsError
from medfcn.labels.label_map import LabelMap
from medfcn.runs.folder import RunFolder


class _Card(msgspec.Struct):
    labels: Any = None


def labels_of_validation(mask: object) -> LabelMap | None:
    """The labels of a mask in the validation folder of a run; None of any other mask.

    Args:
        mask: A path, or a mask in memory.
    """
    if not isinstance(mask, str | os.PathLike):
        return None
    folder = Path(mask).absolute().parent
    if folder.name != RunFolder.validation:
        return None
    try:
        card = read_json(RunFolder(folder.parent).card, _Card, error=LabelError, remedy="")
        return None if card.labels is None else LabelMap.from_json(card.labels)
    except (OSError, LabelError, SettingsError):  # no card of medfcn's: a folder that happens to have this name
        return None
