"""The benchmark of training steps: each part of a step is timed, by whichever class of this build does it."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("speed")


def test_every_part_of_a_step_is_timed(speed: ModuleType, balls: Path, tmp_path: Path) -> None:
    result = tmp_path / "step.json"
    words = ["train", balls, "-o", tmp_path / "run", "--labels", "ball=1", "--steps", "50"]
    subprocess.run(
        [sys.executable, "-c", speed.DRIVER, result, "4", "", *words, "--threads", "1", "--device", "cpu"], check=True
    )
    found = json.loads(result.read_text())
    assert found.keys() == {"step", *speed.PARTS}
    assert min(found.values()) > 0


def test_dice_of_a_case_leaves_out_labels_that_it_lacks(speed: ModuleType, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("case,label,dice\nfirst,one,0.5\nfirst,two,nan\nsecond,one,0.25\nsecond,two,0.75\nthird,one,\n")
    assert speed.dices_of(scores) == {"first": [0.5], "second": [0.25, 0.75]}
