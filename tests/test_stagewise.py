"""The pipeline that trains FCN-32s, 16s and 8s one from the other."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from medfcn.files import sha256_of

SCRIPT = Path(__file__).resolve().parents[1] / "pipelines" / "stagewise.py"
WIDTH = 1 / 32


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_each_stage_starts_from_the_former_and_says_its_dice(balls: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("7\n")  # a patient
    (tmp_path / "run.toml").write_text("[training]\nbatch_size = 8\nwarmup_steps = 5\n")
    done = run(
        *(balls, "-o", tmp_path / "out", "--labels", "ball=1", "--width", WIDTH, "--steps", 5),
        *("--config", tmp_path / "run.toml", "--device", "cpu", "--threads", 1),
        *("--group-by", "_(.)$", "--leave-out", tmp_path / "test.txt"),
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "fcn8s" / "cases.csv").open() as file:
        assert {row["case"] for row in csv.DictReader(file) if row["use"] == "left out"} == {"ball_7"}
    stages = ("fcn32s", "fcn16s", "fcn8s")
    lines = done.stdout.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == list(stages)
    cards = [json.loads((tmp_path / "out" / stage / "model.json").read_text()) for stage in stages]
    hashes = [sha256_of(tmp_path / "out" / stage / "model.safetensors") for stage in stages]
    assert [card["training"].get("init") for card in cards] == [None, *hashes[:2]]
    assert [card["settings"]["network"]["finest_stride"] for card in cards] == [32, 16, 8]
    assert {card["settings"]["network"]["width"] for card in cards} == {WIDTH}
    assert {card["settings"]["training"]["batch_size"] for card in cards} == {8}
    assert done.stderr.count("the new skips' scores start at zero") == 2
    with (tmp_path / "out" / "stages.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == list(stages)
    for row, card, line in zip(rows, cards, lines, strict=True):
        assert float(row["validation_dice"]) == round(card["validation"]["macro"]["dice"], 4)
        assert row["validation_dice"] in line


def test_an_existing_folder_is_refused(balls: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    done = run(balls, "-o", tmp_path, "--steps", 1)
    assert done.returncode == 1
    assert "already exists" in done.stderr
    assert "Traceback" not in done.stderr
