"""`volumes.csv`: one row for each case and label."""

import csv
from pathlib import Path

import msgspec

from medfcn.labels import LabelMap
from medfcn.labels.measures import Intensity, Measure
from medfcn.labels.sidecar import MaskRecord
from medfcn.labels.volume_table import VolumeRow, write_volumes

ONE = MaskRecord(
    input_sha256=("a" * 64,),
    model_sha256=("b" * 64, "c" * 64),
    medfcn="0.1.0",
    mask_sha256="d" * 64,
    expected_dice={"organ": 0.875, "lesion": None},
    review={"organ": True, "lesion": None},
    flags=("first", "second"),
).measured({"organ": Measure(1500, (Intensity(12.5, 2.0),)), "lesion": Measure(0, (Intensity(None, None),))}, 0.002)
TWO = MaskRecord(input_sha256=("1", "2")).measured(
    {"organ": Measure(1, (Intensity(1.0, 0.0), Intensity(-7.25, 0.0)))}, 1.0
)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_says_what_the_record_says(tmp_path: Path) -> None:
    write_volumes(tmp_path / "volumes.csv", {"=case": ONE, "other": None})
    organ, lesion = rows_of(tmp_path / "volumes.csv")
    assert list(organ) == list(VolumeRow._fields)
    assert organ == {
        "case": "'=case",
        "label": "organ",
        "volume_ml": "3",
        "voxels": "1500",
        "mean": "12.5",
        "spread": "2",
        "expected_dice": "0.875",
        "review": "True",
        "flags": "first; second",
        "input_sha256": "a" * 64,
        "model_sha256": f"{'b' * 64} {'c' * 64}",
        "mask_sha256": "d" * 64,
        "version": "0.1.0",
    }
    assert [lesion[name] for name in ("voxels", "mean", "spread", "expected_dice", "review")] == ["0", "", "", "", ""]


def test_further_channels_have_columns_of_their_own(tmp_path: Path) -> None:
    write_volumes(tmp_path / "volumes.csv", {"one": ONE, "two": TWO})
    rows = rows_of(tmp_path / "volumes.csv")
    assert [row["mean_2"] for row in rows] == ["", "", "-7.25"]
    assert list(rows[0])[3:9] == ["voxels", "mean", "spread", "mean_2", "spread_2", "expected_dice"]


def test_a_table_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    write_volumes(tmp_path / "volumes.csv", {"one": ONE})
    before = (tmp_path / "volumes.csv").stat().st_mtime_ns
    write_volumes(tmp_path / "volumes.csv", {"one": ONE})
    assert (tmp_path / "volumes.csv").stat().st_mtime_ns == before


def test_what_is_measured_is_read_again(tmp_path: Path) -> None:
    whole = msgspec.structs.replace(TWO, labels=LabelMap.parse("organ=1"))
    whole.write(tmp_path / "a.nii.gz")
    assert MaskRecord.beside(tmp_path / "a.nii.gz") == whole
