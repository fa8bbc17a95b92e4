"""Run folders of every format since commit b9f08bd are read, and give what they gave.

The masks are equal byte for byte where torch and the processor's kind are those on which they were made; elsewhere
sums are rounded in another order, and one voxel in a thousand may differ. A stopped training goes on; its weights are
those of today's steps.
"""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from medfcn.cli import main
from tests.two_labels import LABELS, SAMPLE_DATA, write_two_labels

FIXTURES = Path(__file__).resolve().parent / "fixtures" / "run_b9f08bd"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
TO_THE_BIT = (torch.__version__, torch.backends.cpu.get_cpu_capability()) == (EXPECTED["torch"], EXPECTED["cpu"])
RUNS = ("one_label", "two_labels", "folds")
LOCAL = {"threads", "medfcn"}
"""Keys of `<case>.json` that say where and by what a mask was made."""
MOVED_MOST = 0.03
"""The expected Dice follows from the unseen cases of the run by the rule of today, which moved it by up to 0.02."""


def medfcn(*arguments: object) -> str:
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    return result.stderr + result.stdout


def require_same_masks(found: Path, expected: Path) -> None:
    names = sorted(path.name for path in expected.glob("*.nii.gz"))
    assert names
    assert sorted(path.name for path in found.glob("*.nii.gz")) == names
    for name in names:
        if TO_THE_BIT:
            assert (found / name).read_bytes() == (expected / name).read_bytes(), name
            continue
        here, there = (np.asarray(nibabel.load(folder / name).dataobj) for folder in (found, expected))  # type: ignore[attr-defined]
        assert np.count_nonzero(here != there) <= here.size / 1000, name


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def require_same_rows(found: Path, expected: Path) -> None:
    """Rows with the same fields, whatever new columns there are."""
    new, old = rows_of(found), rows_of(expected)
    assert [{name: row[name] for name in old[0]} for row in new] == old


def require_same_confidence(found: Path, expected: Path) -> None:
    """The same cases, labels and volumes, and nearly the same expected Dice; the order follows from that."""
    new, old = ({(row["case"], row["label"]): row for row in rows_of(path)} for path in (found, expected))
    assert new.keys() == old.keys()
    for key, row in old.items():
        assert new[key]["volume_ml"] == row["volume_ml"]
        assert float(new[key]["expected_dice"]) == pytest.approx(float(row["expected_dice"]), abs=MOVED_MOST)


def require_contains(found: Any, expected: Any, name: str = "") -> None:
    """Old keys keep their values; new ones may have come."""
    if isinstance(expected, dict):
        for key in expected.keys() - LOCAL:
            require_contains(found[key], expected[key], f"{name}.{key}")
    elif name.startswith(".expected_dice."):
        assert found == pytest.approx(expected, abs=MOVED_MOST), name
    elif name == ".flags" or name.startswith(".review."):
        assert type(found) is type(expected)
    elif isinstance(expected, float):  # the last digits depend on how many slices go through the network at once
        assert found == pytest.approx(expected, rel=1e-6 if TO_THE_BIT else 0.01), name
    elif TO_THE_BIT or name != ".mask_sha256":
        assert found == expected, name


@pytest.fixture(scope="module")
def two_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_labels(tmp_path_factory.mktemp("two_labels") / "data")


@pytest.fixture(scope="module", params=RUNS)
def old(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def masks(old: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(old) / "masks"
    images = SAMPLE_DATA / "test" / "images"
    options = ("--device", "cpu", "--no-label-table", "--no-fold-norm")
    medfcn("predict", FIXTURES / old / "run", images, "--output", folder, *options)
    return folder


def test_an_old_run_gives_its_masks(old: str, masks: Path) -> None:
    require_same_masks(masks, FIXTURES / old / "masks")


def test_an_old_run_says_once_that_training_again_would_use_other_rules(old: str, tmp_path: Path) -> None:
    images = SAMPLE_DATA / "test" / "images"
    shown = medfcn("predict", FIXTURES / old / "run", images, "--output", tmp_path / "masks", "--device", "cpu")
    assert shown.count("Training again") == 1
    assert "background is what is exactly at the minimum" in shown
    assert ("of an organ's components the largest is kept" in shown) == (old != "two_labels")


def test_records_of_masks_keep_their_keys_and_values(old: str, masks: Path) -> None:
    records = sorted((FIXTURES / old / "masks").glob("*.json"))
    assert len(records) == 4
    for record in records:
        require_contains(json.loads((masks / record.name).read_text()), json.loads(record.read_text()))
    if TO_THE_BIT and (FIXTURES / old / "masks" / "confidence.csv").exists():
        require_same_confidence(masks / "confidence.csv", FIXTURES / old / "masks" / "confidence.csv")


def test_old_masks_are_known_as_made_by_the_run(old: str, tmp_path: Path) -> None:
    """`predict --resume` keeps every mask, so it reads the old records and knows the run by its card."""
    shutil.copytree(FIXTURES / old / "masks", tmp_path / "masks")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.nii.gz")}
    images = SAMPLE_DATA / "test" / "images"
    medfcn(
        *("predict", FIXTURES / old / "run", images, "--output", tmp_path / "masks", "--device", "cpu", "--resume")
    )
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.nii.gz")} == before
    measured = rows_of(tmp_path / "masks" / "volumes.csv")
    assert len({row["case"] for row in measured}) == len(before)
    assert all(row["voxels"] and row["mean"] for row in measured)


def test_the_scores_of_an_old_run_are_those_of_its_masks(old: str, two_labels: Path, tmp_path: Path) -> None:
    """Scores are computed in double precision from whole voxels, so they are equal on any machine."""
    runs = [FIXTURES / old / "run"] if old != "folds" else sorted((FIXTURES / old / "run").glob("fold_*"))
    references = (two_labels if old == "two_labels" else SAMPLE_DATA / "train") / "labels"
    for run in runs:
        validation, scored = run / "validation", tmp_path / run.name
        cases = tmp_path / "cases.txt"
        cases.write_text("\n".join(path.name.removesuffix(".nii.gz") for path in validation.glob("*.nii.gz")))
        labels = LABELS if old == "two_labels" else "label_1=1"
        medfcn(
            *("evaluate", validation, references, "--output", scored, "--cases", cases, "--labels", labels),
            "--no-report",
        )
        require_same_rows(scored / "scores.csv", validation / "scores.csv")


def arguments_of(old: str, two_labels: Path) -> list[object]:
    """The options of the training that made a run, without its settings file."""
    if old == "two_labels":
        return [two_labels, "--labels", LABELS, "--views", "all", "--steps", 300]
    return [SAMPLE_DATA / "train", "--steps", 300] if old == "one_label" else [SAMPLE_DATA / "train", "--folds", 2]


def settings_file(folder: Path, *, width: float, share: float, more: str = "") -> Path:
    path = folder / "settings.toml"
    path.write_text(f"[network]\nwidth = {width}\n[training]\nvalidation_share = {share}\n{more}")
    return path


def test_a_finished_old_run_is_known_as_finished(old: str, two_labels: Path, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / old / "run", tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    width, share = (0.125, 0.2) if old == "folds" else (0.25, 0.45)
    arguments = arguments_of(old, two_labels) + (["--steps", 200] if old == "folds" else [])
    config = settings_file(tmp_path, width=width, share=share)
    medfcn(
        *("train", *arguments, "--output", tmp_path / "run", "--config", config, "--resume"),
        *("--device", "cpu", "--threads", 1),
    )
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")} == before


def test_a_stopped_old_training_goes_on_and_ends_the_same_each_time(tmp_path: Path) -> None:
    """Not with the bits of its own version: since then noise is drawn, and slices are moved, in another way."""
    config = settings_file(tmp_path, width=0.0625, share=0.2, more="checkpoint_seconds = 0.0\n")
    weights = []
    for name in ("first", "second"):
        shutil.copytree(FIXTURES / "stopped", tmp_path / name)
        said = medfcn(
            *("train", SAMPLE_DATA / "train", "--output", tmp_path / name, "--steps", 12, "--config", config),
            *("--device", "cpu", "--threads", 1, "--resume"),
        )
        assert "step 3" in said
        card = json.loads((tmp_path / name / "model.json").read_text())
        assert card["training"]["steps"] == 12
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
