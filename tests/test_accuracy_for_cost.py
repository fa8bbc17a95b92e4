"""The benchmark against nnU-Net and MONAI: what it counts, lays out, scores and shows; the peers are not run here."""

import copy
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medfcn.datasets import find_dataset

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("accuracy_for_cost")


def a_run(**changed: Any) -> dict[str, Any]:
    """A line of `runs.jsonl`."""
    line = {
        "method": "nnunet", "seconds": 300.0, "schedule_seconds": 300.0, "seed": 0, "tta": True, "is_default": True,
        "cpu_seconds": 299.0, "peak_mb": 900, "dice": 0.8, "median": 0.81, "worst": 0.7, "hd95_mm": 2.0,
        "predict_cpu_seconds": 2.3, "predict_peak_mb": 600,
    }  # fmt: skip
    return line | changed


def test_what_a_command_took_holds_what_its_children_took(tmp_path: Path) -> None:
    burn = "import time\nheld = bytearray(b'1') * (600 << 20)\nwhile time.process_time() < 0.6: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}], check=True)"
    # From a small process, as the benchmark is: memory counts from the fork on, and this one may hold much.
    measure = (
        "import sys; from pathlib import Path; from measured import run_measured; "
        f"used = run_measured([sys.executable, '-c', {parent!r}], Path('log.txt')); "
        "print(used.cpu_seconds, used.peak_mb)"
    )
    said = subprocess.run(
        [sys.executable, "-c", measure], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(BENCHMARKS)},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    cpu_seconds, peak_mb = map(float, said.split())
    assert 0.6 <= cpu_seconds < 10.0
    assert 600 <= peak_mb < 900


def test_a_command_that_fails_is_named_with_its_log(benchmark: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with pytest.raises(SystemExit, match=r"status 3; what it said is in .*log\.txt"):
        benchmark.run_measured([sys.executable, "-c", "print('why'); raise SystemExit(3)"], log)
    assert log.read_text() == "why\n"


@pytest.mark.parametrize("seconds", [20.0, 60.0, 600.0])
def test_steps_are_those_that_take_the_seconds_where_cost_is_linear(benchmark: ModuleType, seconds: float) -> None:
    runs = [(steps, 12.0 + 0.05 * steps) for steps in (60, 260, 5000)]
    steps = benchmark.next_steps(seconds, runs)
    assert 12.0 + 0.05 * steps == pytest.approx(seconds, abs=0.05)


def test_a_run_that_took_too_long_shortens_the_next(benchmark: ModuleType) -> None:
    # The pace of long runs is one tenth slower than calibration said.
    runs = [(60, 15.0), (260, 25.0)]
    first = benchmark.next_steps(600.0, runs)
    took = 12.0 + 0.055 * first
    assert took > 600
    second = benchmark.next_steps(600.0, [*runs, (first, took)])
    assert 0.97 * 600 <= 12.0 + 0.055 * second <= 600


def test_nnunet_gets_the_volumes_as_they_are_with_one_label(
    benchmark: ModuleType, balls: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(balls, data)
    path = data / "labels" / "ball_0.nii.gz"
    label = nibabel.load(path)
    two = np.asarray(label.dataobj).copy()
    two[: two.shape[0] // 2] *= 2
    assert set(np.unique(two)) == {0, 1, 2}
    nibabel.save(nibabel.Nifti1Image(two, label.affine), path)
    found = {case.id: case for case in find_dataset(data).cases}
    nnunet = benchmark.NNUNet(
        "python", tmp_path / "nnunet",
        {one: (found[one].images[0], found[one].label) for one in ("ball_0", "ball_1")},
        {"ball_2": found["ball_2"].images[0]},
        labels=("ball",), encode=lambda mask: (mask > 0).astype(np.uint8), batch=2,
    )  # fmt: skip
    nnunet.lay_out()
    raw = nnunet.raw
    written = nibabel.load(raw / "labelsTr" / "ball_0.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), two > 0)
    assert np.array_equal(written.affine, label.affine)
    assert [case.id for case in find_dataset(raw).cases] == ["ball_0", "ball_1"]
    images = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*_0000.nii.gz"))
    assert images == ["imagesTr/ball_0_0000.nii.gz", "imagesTr/ball_1_0000.nii.gz", "imagesTs/ball_2_0000.nii.gz"]
    assert (raw / images[2]).read_bytes() == (data / "images" / "ball_2.nii.gz").read_bytes()


def test_people_are_not_parted_and_a_mask_that_is_not_there_is_a_miss(
    benchmark: ModuleType, shared_data: Path, tmp_path: Path
) -> None:
    bench = benchmark.Bench(shared_data / "hippocampus", tmp_path / "out", "python")
    persons = [{(int(one.split("_")[1]) + 1) // 2 for one in ids} for ids in (bench.training, bench.test)]
    assert (len(bench.training), len(bench.test)) == (160, 40)
    assert not persons[0] & persons[1]
    masks = tmp_path / "masks"
    masks.mkdir()
    for one in bench.test[1:]:
        shutil.copyfile(bench.data / "labels" / f"{one}.nii.gz", masks / f"{one}.nii.gz")
    scores = bench.score(masks)
    assert (scores["cases"], scores["median"], scores["worst"]) == (40, 1.0, 0.0)
    assert scores["dice"] == pytest.approx(39 / 40)
    assert scores["hd95_mm"] == float("inf")


def test_the_table_averages_seeds_and_says_what_was_to_go_on(benchmark: ModuleType) -> None:
    runs = [a_run(), a_run(seed=1, dice=0.9), a_run(schedule_seconds=2500.0, dice=0.5), a_run(tta=False, dice=0.3)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in benchmark.table_of(runs).splitlines()]
    assert [row[1:5] for row in rows[2:]] == [
        ["no", "299", "1", "0.300"],
        ["yes", "299", "2", "0.850 ± 0.071"],
        ["yes", "299 of 2,500", "1", "0.500"],
    ]


def test_the_picture_is_900_pixels_wide_and_needs_runs(benchmark: ModuleType, tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "curve.png"
    runs = [a_run(), a_run(seconds=150.0, cpu_seconds=150.0, dice=0.6), a_run(method="monai", tta=False, dice=0.7)]
    benchmark.draw_picture(runs, picture)
    assert int.from_bytes(picture.read_bytes()[16:20], "big") == 900
    with pytest.raises(SystemExit, match="no runs"):
        benchmark.draw_picture([], picture)


@pytest.fixture
def monai_loop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    return importlib.import_module("monai_basicunet")


def test_the_monai_loop_ends_with_its_cpu_seconds_and_keeps_its_weights(
    monai_loop: ModuleType, balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(monai_loop.time, "process_time", lambda: float(next(clock)))
    fresh = monai_loop.network()
    monkeypatch.setattr(monai_loop, "network", lambda: copy.deepcopy(fresh))
    model = tmp_path / "model.pt"
    monai_loop.train(balls, ["ball_0", "ball_1", "ball_2"], model, monai_loop.CPU_SECONDS_TO_END + 2, 0)
    assert json.loads(model.with_suffix(".json").read_text()) == {"steps": 2}
    weights, before = torch.load(model, weights_only=True), fresh.state_dict()
    assert weights.keys() == before.keys()
    assert not any(torch.equal(weights[key], before[key]) for key in before if key.endswith("conv.weight"))


def test_masks_of_the_monai_loop_lie_on_the_volumes_own_grid(
    monai_loop: ModuleType, balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A network that finds whatever is brighter than the volume's mean.
    monkeypatch.setattr(monai_loop, "network", torch.nn.Identity)
    model, masks = tmp_path / "model.pt", tmp_path / "masks"
    torch.save({}, model)
    monai_loop.predict(balls, ["ball_3"], model, masks)
    image, mask = nibabel.load(balls / "images" / "ball_3.nii.gz"), nibabel.load(masks / "ball_3.nii.gz")
    values = np.asarray(image.dataobj)
    assert np.array_equal(np.asarray(mask.dataobj), values > values.mean())
    assert np.array_equal(mask.affine, image.affine)
