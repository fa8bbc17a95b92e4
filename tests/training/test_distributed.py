"""Two processes train what one would: the same gradients, losses and weights; and they end together, in one line."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from medfcn.cli import main
from medfcn.errors import ProcessError, SettingsError, TrainingError, TrainingStoppedError
from medfcn.files import sha256_of
from medfcn.networks.design import Design
from medfcn.networks.fcn import build_network
from medfcn.networks.objective import Objective
from medfcn.networks.presets import PRESETS, with_preset
from medfcn.networks.supervision import SupervisedFCN
from medfcn.settings import NetworkSettings, Settings, TrainingSettings
from medfcn.training.distributed import World, _said
from tests.training.test_gradients import batch, gradients_of
from tests.training.together import STEPS, gradient_cases, gradient_of, key_of, train

ROOT = Path(__file__).resolve().parents[2]


def torchrun(*words: object) -> "subprocess.Popen[str]":
    """Two processes on this machine, which meet at a free port."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    )


@pytest.fixture(scope="module")
def together(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left that did all of `together.py`."""
    folder = tmp_path_factory.mktemp("together")
    with torchrun("tests.training.together", balls, folder) as process:
        _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert "Warning" not in said
    return folder


@pytest.fixture(scope="module")
def alone(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    torch.set_num_threads(1)
    return train(balls, tmp_path_factory.mktemp("alone") / "run").folder


def told(folder: Path, rank: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"told.{rank}.json").read_text())
    return content


def losses(run: Path) -> list[float]:
    with (run / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("case", gradient_cases(), ids=key_of)
def test_the_gradient_is_that_of_the_whole_batch(case: dict[str, Any], together: Path) -> None:
    expected = gradient_of(**case)
    for rank in range(2):
        found = load_file(together / f"{key_of(case)}.{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(
                value, expected[name], rtol=1e-5, atol=1e-7, msg=lambda text, at=name: at + text
            )


def test_losses_and_weights_are_those_of_one_process(together: Path, alone: Path) -> None:
    assert len(losses(alone)) == 3  # every three steps, and at the end
    assert losses(together / "whole") == pytest.approx(losses(alone), rel=1e-5)
    expected, found = (load_file(run / "model.safetensors") for run in (alone, together / "whole"))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        # Adam divides by the gradient's size, so that the rounding of a small one shows: up to 1e-5 was seen.
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4, msg=lambda text, at=name: at + text)
    card = json.loads((together / "whole" / "model.json").read_text())["training"]
    assert card["processes"] == 2
    assert "micro_batch" not in card
    assert (together / "whole" / "validation" / "scores.csv").is_file()
    assert not (together / "whole" / "state").exists()


def test_every_process_returns_the_run(together: Path) -> None:
    assert told(together, 0)["whole"] == told(together, 1)["whole"] == [STEPS, 1]
    assert told(together, 0)["again"] == told(together, 1)["again"] == STEPS  # a finished one


def test_a_stop_asked_of_one_process_stops_both_and_is_resumed_bit_for_bit(together: Path) -> None:
    for rank in range(2):
        message, number = told(together, rank)["stopped"]
        assert message.startswith(f"stopped after step 5 of {STEPS}")
        assert number == signal.SIGTERM
    stopped, whole = together / "stopped", together / "whole"
    assert sha256_of(stopped / "model.safetensors") == sha256_of(whole / "model.safetensors")
    assert losses(stopped) == losses(whole)


def test_folds_are_trained_together(together: Path) -> None:
    assert (together / "folds" / "fold_1" / "model.json").is_file()
    assert (together / "folds" / "validation" / "scores.csv").is_file()


def test_folds_that_share_a_budget_are_trained_in_laps_together(together: Path) -> None:
    assert told(together, 0)["laps"] == told(together, 1)["laps"] >= 30
    cards = [json.loads((together / "laps" / f"fold_{number}" / "model.json").read_text()) for number in (1, 2)]
    assert len({card["training"]["steps"] for card in cards}) == 1


def test_a_budget_is_fixed_by_the_first_process(together: Path) -> None:
    assert told(together, 0)["budget"] == told(together, 1)["budget"] >= 30


def test_an_error_in_one_process_is_told_once_and_ends_both(together: Path) -> None:
    assert told(together, 1)["failed"][0].startswith("process 1 of 0 to 1, on ")
    assert told(together, 1)["failed"][0].endswith(": the disk of this process is full")
    assert told(together, 0)["failed"] == ["another of the 2 processes ended the training, and reports why", True]
    assert not (together / "failed").exists()


def test_fewer_slices_than_processes_are_refused(together: Path) -> None:
    kind, message = told(together, 0)["few"]
    assert kind == "SettingsError"
    assert message.startswith("setting training.batch_size: 1 slices cannot be shared by 2 processes; take 2 or more")
    assert told(together, 1)["few"][0] == "ProcessError"
    with pytest.raises(SettingsError, match="by 3 processes"):
        World(0, 3).share(2)


@pytest.mark.parametrize(("slices", "size"), [(7, 2), (32, 3), (5, 5)])
def test_shares_make_up_the_batch(slices: int, size: int) -> None:
    shares = [World(rank, size).share(slices) for rank in range(size)]
    assert [index for share in shares for index in share] == list(range(slices))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_another_number_of_processes_does_not_resume(balls: Path, together: Path, tmp_path: Path) -> None:
    """Its last digits would be others'; the refusal says so."""
    from medfcn.runs.stop import Stop
    from tests.training.test_resume import StopAfter

    stop: Stop = StopAfter(3)
    with pytest.raises(TrainingStoppedError):
        train(balls, tmp_path / "run", stop=stop)
    path = tmp_path / "run" / "state" / "training.json"
    identity = json.loads(path.read_text())
    assert identity["device"] == "cpu"
    path.write_text(json.dumps(identity | {"device": "2 × cpu"}, ensure_ascii=False))
    with pytest.raises(TrainingError, match="device is cpu, was 2 × cpu"):
        train(balls, tmp_path / "run", resume=True)


def until(process: "subprocess.Popen[str]", holds: Callable[[], Any]) -> Any:
    """What comes of asking until it is true, while the processes are there."""
    began = time.monotonic()
    while not (found := holds()):
        if process.poll() is not None or time.monotonic() - began > 600:
            process.kill()
            pytest.fail(process.communicate()[1])
        time.sleep(0.1)
    return found


def child_of(launcher: int, rank: int) -> int | None:
    """The process number of one of torchrun's processes."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == launcher and f"RANK={rank}".encode() in (path / "environ").read_bytes().split(b"\0"):
                return int(path.name)
        except OSError:
            continue
    return None


def ended(process: "subprocess.Popen[str]") -> list[str]:
    """What medfcn says last, once all processes have ended; torchrun adds a report of its own."""
    _, said = process.communicate(timeout=600)
    assert process.returncode != 0
    assert not re.search(r'File "[^"]*/medfcn/[a-z_/]+\.py"', said), said  # torchrun has a traceback of its own
    return [line for line in said.splitlines() if line.startswith("medfcn:")]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_a_signal_to_one_process_and_a_kill_end_both_in_one_line(balls: Path, tmp_path: Path) -> None:
    config, run = tmp_path / "run.toml", tmp_path / "run"
    config.write_text(
        "[training]\nepoch_steps = 3\nbatch_size = 4\ncheckpoint_seconds = 0.0\n[network]\nwidths = [4, 8]"
    )
    command = ["medfcn", "train", balls, "-o", run, "--steps", 100000, "--device", "cpu", "--config", config]
    with torchrun(*command) as process:
        until(process, (run / "log.csv").is_file)
        os.kill(until(process, lambda: child_of(process.pid, 1)), signal.SIGTERM)
        (line,) = ended(process)
    step = re.fullmatch(
        r"medfcn: stopped after step (\d+) of 100000, which is saved; go on with the same command and --resume", line
    )
    assert step is not None
    newest = max((run / "state").glob("checkpoint_*.json"))
    assert json.loads(newest.read_text())["step"] == int(step[1])
    with torchrun(*command, "--resume") as process:
        until(process, lambda: max((run / "state").glob("checkpoint_*.json")) > newest)
        os.kill(until(process, lambda: child_of(process.pid, 1)), signal.SIGKILL)
        lines = ended(process)
    assert len(lines) == 1
    assert lines[0].startswith(
        ("medfcn: another of the 2 processes ended without a message", "medfcn: stopped after step")
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_other_commands_are_refused_by_the_first_process(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2"), ("RANK", str(rank))):
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(main, ["networks"])
    assert result.exit_code == 2
    assert ("networks runs in one process; start it without torchrun" in result.stderr) == (rank == 0)


class Counter:
    """As much of a store as is asked."""

    def __init__(self, count: int) -> None:
        self.count = count

    def add(self, key: str, amount: int) -> int:
        self.count += amount
        return self.count


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_speaks(rank: int) -> None:
    store: Any = Counter(0)
    lost = RuntimeError("[pair.cc:553] Connection closed by peer")
    alone = _said(lost, store, rank, 2)
    assert isinstance(alone, ProcessError)
    assert not alone.is_told
    assert "ended without a message" in str(alone)
    second = _said(lost, store, rank, 2)
    assert isinstance(second, ProcessError)
    assert second.is_told
    bug = ValueError("a mistake of ours")
    assert _said(bug, Counter(0), rank, 2) is bug  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_weight_of_every_preset_gets_a_gradient(preset: str) -> None:
    """The processes wait for the gradient of each; one that never came would be an error of torch's."""
    settings = NetworkSettings(preset=preset, width=1 / 32)
    widths = with_preset(settings).widths or (16, 32)
    network = build_network(Design.of(settings, widths=widths, channels_in=1, label_count=2))
    supervised = SupervisedFCN(network, label_count=2, deep=True, presence=True, distances=True).train()
    training = TrainingSettings(presence_weight=1.0, distance_weight=1.0, deep_supervision=True)
    objective = Objective.of(Settings(network=settings, training=training), 2)
    objective(supervised(torch.randn(2, 1, 64, 64)), torch.randint(0, 3, (2, 64, 64))).backward()
    assert [name for name, weight in supervised.named_parameters() if weight.grad is None] == []


def test_dropout_differs_between_processes_and_not_between_repetitions() -> None:
    """Else all processes would drop the same places of different slices."""
    found = []
    for rank in (0, 1, 0):
        gradients = gradients_of("none", micro_batch=4, training=TrainingSettings())
        gradients.world = World(rank)
        gradients.supervised.network.encoder.dropout.p = 0.5
        found.append(float(gradients.set_gradients(*batch(4), seed=7)))
    assert found[0] == found[2] != found[1]
