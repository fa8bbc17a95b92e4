"""A signal that ends a command is reported in one line, with the status of its number, and leaves no litter."""

import importlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.inference.ensemble import Ensemble
from medfcn.runs.folder import ENGINE_FILE
from tests.inference.models import blobs, saved, tiny_model, write_image


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_prediction_that_is_ended_says_how_to_go_on(
    number: int, status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for case in range(3):
        write_image(tmp_path / "images" / f"case_{case}.nii.gz", blobs((20, 18, 5), seed=case))
    out = tmp_path / "out"
    command = ["predict", str(saved(tiny_model(), tmp_path / "run")), str(tmp_path / "images"), "-o", str(out)]
    original, calls = Ensemble.predict_case, []

    def ended(self: Ensemble, *arguments: Any, **choices: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
            time.sleep(5)
        return original(self, *arguments, **choices)

    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patched:
        patched.setattr(Ensemble, "predict_case", ended)
        done = CliRunner().invoke(main, command)
    assert done.exit_code == status
    last = f"medfcn: {said}; no partial files were left behind; go on with the same command and --resume"
    assert done.stderr.splitlines()[-1] == last
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    names = [ENGINE_FILE, "case_0.json", "case_0.nii.gz", "timing.csv"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert CliRunner().invoke(main, [*command, "--resume"]).exit_code == 0
    assert len(list(out.glob("case_*"))) == 6


@pytest.mark.parametrize(
    ("command", "works_in"),
    [
        ("evaluate", "medfcn.evaluation.evaluate:_score_one"),
        ("evaluate", "os:fsync"),
        ("evaluate", "medfcn.reporting.html:_pictures"),
        ("check", "medfcn.datasets.check:check"),
        ("plan", "medfcn.training.train:survey"),
    ],
)
def test_every_command_reports_a_sigterm(
    command: str, works_in: str, balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)

    module, _, name = works_in.partition(":")
    monkeypatch.setattr(importlib.import_module(module), name, ended)
    words = {"evaluate": ["evaluate", balls / "labels", balls, "-o", tmp_path / "out"]}.get(command, [command, balls])
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 143, done.output
    assert done.stderr.splitlines()[-1] == "medfcn: ended by SIGTERM; no partial files were left behind"
    assert not list(tmp_path.rglob(".*.part"))
