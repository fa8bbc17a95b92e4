"""`volumes.csv`: one row for each case and label, from the records beside the masks."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from medfcn.files import csv_bytes, write_bytes
from medfcn.labels.measures import Intensity
from medfcn.labels.sidecar import MaskRecord


class VolumeRow(NamedTuple):
    """One label of one case; the intensity of further channels is in columns `mean_2`, `spread_2` and so on.

    Attributes:
        case: The case's id.
        label: The label's name.
        volume_ml: Its volume in millilitres.
        voxels: The number of its voxels.
        mean: Mean of the image inside it, in the image's units.
        spread: Standard deviation of the image inside it.
        expected_dice: The Dice to expect without a reference.
        review: True if a reader should look at the mask for this label.
        flags: Lines about the case that a reader should know, with `; ` between them.
        input_sha256: Hashes of the image files, a space between them.
        model_sha256: Hashes of the weights of each model.
        mask_sha256: Hash of the mask's file.
        version: The version of medfcn that made the mask.
    """

    case: str
    label: str
    volume_ml: float | None
    voxels: int | None
    mean: float | None
    spread: float | None
    expected_dice: float | None
    review: bool | None
    flags: str
    input_sha256: str
    model_sha256: str
    mask_sha256: str
    version: str | None


_FURTHER = VolumeRow._fields.index("spread") + 1
"""The place of the columns of further channels."""
Row = tuple[object, ...]


def volume_rows(case: str, record: MaskRecord) -> list[tuple[VolumeRow, tuple[Intensity, ...]]]:
    """The rows of a case, a label each, with the intensity of further channels.

    Args:
        case: The case's id.
        record: The record beside its mask; one without labels gives no row.
    """
    volumes = record.volumes_ml or {}
    rows = []
    for name in volumes:
        first, *further = (record.intensity or {}).get(name) or (Intensity(None, None),)
        row = VolumeRow(
            case,
            name,
            volumes[name],
            (record.voxels or {}).get(name),
            first.mean,
            first.spread,
            (record.expected_dice or {}).get(name),
            (record.review or {}).get(name),
            "; ".join(record.flags),
            " ".join(record.input_sha256),
            " ".join(record.model_sha256),
            record.mask_sha256,
            record.medfcn,
        )
        rows.append((row, tuple(further)))
    return rows


def volume_table(records: Mapping[str, MaskRecord | None]) -> tuple[tuple[str, ...], Iterable[Row]]:
    """The columns and rows of `volumes.csv`.

    Args:
        records: The record of each mask by case id, in the order of the rows; None has no row.
    """
    rows = [row for case, record in records.items() if record is not None for row in volume_rows(case, record)]
    most = max((len(further) for _, further in rows), default=0)
    names = [f"{name}_{number}" for number in range(2, most + 2) for name in Intensity._fields]
    columns = (*VolumeRow._fields[:_FURTHER], *names, *VolumeRow._fields[_FURTHER:])

    def whole(row: VolumeRow, further: tuple[Intensity, ...]) -> Row:
        padded = (*further, *itertools.repeat(Intensity(None, None), most - len(further)))
        return (*row[:_FURTHER], *itertools.chain.from_iterable(padded), *row[_FURTHER:])

    return columns, [whole(*row) for row in rows]


def write_volumes(path: Path, records: Mapping[str, MaskRecord | None]) -> None:
    """Write `volumes.csv`, whole or not at all, unless it is there already; see `volume_table`."""
    content = csv_bytes(*volume_table(records))
    try:
        is_there = path.read_bytes() == content
    except OSError:
        is_there = False
    if not is_there:
        write_bytes(path, content)
