"""`volumes.csv` and `timing.csv` in a folder of predictions."""

import csv
from pathlib import Path

import numpy as np
import pytest

from medfcn.evaluation import evaluate
from medfcn.files import sha256_of
from medfcn.inference.timing import Timing, Timings, read_timings
from medfcn.labels import read_mask
from medfcn.progress import Silent
from medfcn.runs.folder import TIMING_FILE, VOLUMES_FILE
from medfcn.verbs import predict
from medfcn.volumes import read_volume
from tests.inference.models import blobs, saved, tiny_model, write_image


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_model(labels="one=1,two=2"), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        write_image(folder / f"case_{number}.nii.gz", blobs((15, 13, 6), seed=number))
    return folder


def test_a_folder_gets_a_row_for_each_case_and_label(run: Path, images: Path, tmp_path: Path) -> None:
    predict(run, images, tmp_path / "masks", device="cpu")
    rows = rows_of(tmp_path / "masks" / VOLUMES_FILE)
    assert [(row["case"], row["label"]) for row in rows] == [
        (f"case_{number}", label) for number in range(3) for label in ("one", "two")
    ]
    for row in rows:
        path = tmp_path / "masks" / f"{row['case']}.nii.gz"
        mask, image = read_mask(path), read_volume(images / f"{row['case']}.nii.gz")
        inside = mask.array == {"one": 1, "two": 2}[row["label"]]
        assert int(row["voxels"]) == np.count_nonzero(inside) > 0
        assert float(row["volume_ml"]) == pytest.approx(inside.sum() * 0.002)
        assert float(row["mean"]) == pytest.approx(image.array[inside].mean(), rel=1e-8)
        assert float(row["spread"]) == pytest.approx(image.array[inside].std(), rel=1e-8)
        assert (row["input_sha256"], row["mask_sha256"]) == (image.sha256, sha256_of(path))
    assert [row["case"] for row in rows_of(tmp_path / "masks" / TIMING_FILE)] == ["case_0", "case_1", "case_2"]


def test_resuming_keeps_rows_and_times(run: Path, images: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    predict(run, images, masks, device="cpu")
    table, times = (masks / VOLUMES_FILE).read_bytes(), read_timings(masks / TIMING_FILE)
    (masks / "case_1.nii.gz").unlink()
    (masks / VOLUMES_FILE).unlink()
    assert predict(run, images, masks, resume=True, device="cpu").predicted == ("case_1",)
    assert (masks / VOLUMES_FILE).read_bytes() == table
    again = read_timings(masks / TIMING_FILE)
    assert (again[0], again[2]) == (times[0], times[2])
    assert again[1].case == "case_1"


def test_times_are_written_though_the_work_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Timings(tmp_path / TIMING_FILE, "2/4") as timings:  # noqa: PT012
        timings.add("-case", 1.25)
        raise RuntimeError
    (found,) = read_timings(tmp_path / TIMING_FILE)
    assert (found.case, found.seconds, found.shard) == ("-case", 1.25, "2/4")
    with Timings(tmp_path / TIMING_FILE) as timings:
        timings.add("another", 2.0)
    assert [row.case for row in read_timings(tmp_path / TIMING_FILE)] == ["-case", "another"]


@pytest.mark.parametrize("content", ["", "case,seconds\n", "case,seconds,host,shard\na,b,c,d\n"])
def test_a_table_that_is_none_of_these_is_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / TIMING_FILE).write_text(content)
    assert read_timings(tmp_path / TIMING_FILE) == []
    with Timings(tmp_path / TIMING_FILE) as timings:
        timings.add("a", 1.0)
    assert [row.case for row in read_timings(tmp_path / TIMING_FILE)] == ["a"]
    assert Timing._fields == ("case", "seconds", "host", "shard", "memory_mb")


def test_times_of_an_earlier_medfcn_stay(tmp_path: Path) -> None:
    (tmp_path / TIMING_FILE).write_text("case,seconds,host,shard\na,1.5,here,\n")
    with Timings(tmp_path / TIMING_FILE) as timings:
        timings.add("b", 1.0)
    first, second = read_timings(tmp_path / TIMING_FILE)
    assert (first, second.case) == (Timing("a", 1.5, "here"), "b")


def test_masks_of_cases_that_are_not_in_the_input_are_named_and_in_no_table(
    run: Path, images: Path, tmp_path: Path
) -> None:
    masks, other = tmp_path / "masks", saved(tiny_model(labels="one=1,two=2", seed=1), tmp_path / "other")
    predict(run, images, masks, device="cpu")
    old = (masks / "case_2.nii.gz").read_bytes()
    fewer, told = tmp_path / "fewer", Told()
    fewer.mkdir()
    for number in (0, 1):
        (fewer / f"case_{number}.nii.gz").symlink_to(images / f"case_{number}.nii.gz")
    predict(other, fewer, masks, overwrite=True, device="cpu", progress=told)
    line = f"{masks} holds 1 mask more, of cases that are not in the input: case_2; an earlier command made them"
    assert [said.partition(", and they stay")[0] for said in told.lines if "holds" in said] == [line]
    assert (masks / "case_2.nii.gz").read_bytes() == old
    assert {row["case"] for row in rows_of(masks / VOLUMES_FILE)} == {"case_0", "case_1"}
    (note,) = (note for note in evaluate(masks, masks).notes if "models" in note)
    assert note.startswith("the predictions were made by 2 models, and are scored together: 2 by ")
    assert "(case_0, case_1), 1 by " in note
    assert note.endswith("(case_2)")
    predict(other, images, masks, overwrite=True, device="cpu", progress=(again := Told()))
    assert not any("holds" in said for said in again.lines)
    assert not any("models" in note for note in evaluate(masks, masks).notes)
