"""Splits that a data set prescribes: nnU-Net's `splits_final.json`, and the validation list of a `dataset.json`."""

from pathlib import Path

import msgspec

from medfcn.datasets.cases import Dataset, Splits
from medfcn.datasets.problems import Problem
from medfcn.datasets.tables import read_text
from medfcn.decoding import decode_json
from medfcn.errors import DatasetError
from medfcn.text import listed

_NAME = "splits_final.json"
_CODE = "SPLITS_INVALID"


class _Stored(msgspec.Struct, frozen=True):
    """One split of the file."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def read_splits(root: Path) -> Splits | None:
    """The splits of nnU-Net's `splits_final.json` in a data set's folder; None without one.

    Raises:
        DatasetError: It is not such a file.
    """
    path = root / _NAME
    if not path.exists():
        return None
    stored = decode_json(
        read_text(path), tuple[_Stored, ...], source=_NAME, error=DatasetError, remedy="fix the file", code=_CODE
    )
    if not stored:
        raise DatasetError(f"{_NAME}: contains no split; fix the file, or remove it", code=_CODE)
    return Splits(_NAME, tuple((split.train, split.val) for split in stored))


def splits_elsewhere(root: Path) -> list[Problem]:
    """A warning for each file of splits that is not read: a pickle, and one in nnU-Net's folder of prepared data."""
    prepared = root.resolve().parent.parent / "nnUNet_preprocessed" / root.resolve().name / _NAME
    found = []
    if (root / "splits_final.pkl").exists():
        found.append(("splits_final.pkl", "a pickle is not read, because it can contain code", "write its splits as"))
    if not (root / _NAME).exists() and prepared.is_file():
        found.append((f"nnUNet_preprocessed/{prepared.parent.name}/{_NAME}", "is not read there", "copy it as"))
    return [
        Problem(
            "SPLITS_UNREAD", "warning", "", name, "splits", text, f"{remedy} {_NAME} beside dataset.json to use it"
        )
        for name, text, remedy in found
    ]


def check_splits(dataset: Dataset) -> None:
    """Refuse prescribed splits that cannot be used.

    Raises:
        DatasetError: A split names a case that does not exist, has a case or a patient on both sides, or has an empty
            side; or a case is in the validation part of two splits.
    """
    splits = dataset.splits
    if splits is None:
        return
    groups = {case.id: case.group for case in dataset.all_cases}
    scored: dict[str, int] = {}
    for number, (training, validation) in enumerate(splits.parts, start=1):
        unknown = [name for name in (*training, *validation) if name not in groups]
        sides = [{groups.get(name, "") for name in part} for part in (training, validation)]
        twice = sorted(sides[0] & sides[1] - {""})
        found = ""
        if not training or not validation:
            found = f"has no {'validation' if training else 'training'} case"
        elif unknown:
            found = f"names {listed(unknown, limit=3)}, which the data set does not contain"
        elif twice:
            kind = "case" if set(training) & set(validation) else "patient (group)"
            found = f"has the {kind} {listed(twice, limit=3)} in training and in validation"
        for name in validation:
            if scored.setdefault(name, number) != number:
                found = found or f"has {name} in validation, as split {scored[name]} has"
        if found:
            raise DatasetError(
                f"{splits.source}: split {number} {found}; correct it, or remove it to let medfcn split",
                code=_CODE,
                field="splits",
            )
