"""The course of a training for other programs: what they get, what they never get, and what a resumed one does."""

import math
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import medfcn
from medfcn.errors import MissingFileError, SettingsError, TrainingStoppedError
from medfcn.runs import tracking
from medfcn.runs.folder import RunFolder
from medfcn.runs.tracking import Tracking, kinds_of
from tests.training.test_resume import StopAfter, Told, train

COLUMNS = ("step", "loss", "validation_dice", "validation_dice_left/right")


def events_of(folder: Path) -> list[Any]:
    """The events in TensorBoard's files, read record by record; a length and a checksum stand around each."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            found.append(Event.FromString(content[place + 12 : place + 12 + length]))
            place += 12 + length + 4
    return found


def scalars_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for event in events_of(folder):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def images_in(folder: Path) -> list[int]:
    return [event.step for event in events_of(folder) for value in event.summary.value if value.HasField("image")]


@pytest.fixture(scope="module")
def run(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorboardX")
    folder = tmp_path_factory.mktemp("tracked") / "run"
    return train(balls, folder, steps=40, report=False, track="tensorboard").folder


def test_tensorboard_has_every_row_of_the_log(run: Path) -> None:
    from tests.training.test_curve import rows_of

    points, rows = scalars_of(run / "tensorboard"), rows_of(run)
    assert [step for step, _ in points["loss"]] == [int(row["step"]) for row in rows]
    assert [value for _, value in points["loss"]] == pytest.approx([float(row["loss"]) for row in rows], rel=1e-6)
    (last,) = points["validation_dice/label_1"]
    assert last == (40, pytest.approx(float(rows[-1]["validation_dice_label_1"]), rel=1e-6))
    assert points["curve_dice"][-1][0] == 40
    assert 0 <= points["final_dice_label_1"][0][1] <= 1


def test_a_training_that_goes_on_has_each_point_once(run: Path, balls: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError):
        train(balls, tmp_path / "run", steps=40, report=False, track="tensorboard", stop=StopAfter(24))
    again = medfcn.train(tmp_path / "run", resume=True).folder
    expected, found = scalars_of(run / "tensorboard"), scalars_of(again / "tensorboard")
    assert found.keys() == expected.keys()
    for name in expected.keys() - {"seconds", "cpu_seconds"}:
        assert found[name] == expected[name], name


def test_no_picture_no_case_and_no_path_goes_to_a_tracker_unasked(run: Path, balls: Path, tmp_path: Path) -> None:
    assert images_in(run / "tensorboard") == []
    asked = train(balls, tmp_path / "run", steps=40, report=False, track="tensorboard", track_images=True).folder
    assert images_in(asked / "tensorboard") == [40]
    for folder in (run, asked):
        content = b"".join(path.read_bytes() for path in (folder / "tensorboard").iterdir())
        assert b"learning_rate" in content
        assert b"ball_" not in content
        assert str(balls.parent).encode() not in content


def test_tracking_changes_no_weight(run: Path, balls: Path, tmp_path: Path) -> None:
    plain = train(balls, tmp_path / "run", steps=40, report=False).folder
    assert not any((plain / name).exists() for name in RunFolder.trackers)
    assert (plain / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


class Kept:
    """A tracker that keeps what it gets, and fails at one step."""

    def __init__(self, fails_at: int = -1) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[int] = []
        self.fails_at = fails_at
        self.ended: list[bool] = []

    def begin(self, facts: Mapping[str, str]) -> int:
        return -1

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise ConnectionError("the server\nis gone")
        self.rows.append((step, dict(numbers)))

    def add_picture(self, step: int, path: Path) -> None:
        self.pictures.append(step)

    def end(self, *, is_finished: bool) -> None:
        self.ended.append(is_finished)


def opened(kept: Kept, monkeypatch: pytest.MonkeyPatch, folder: Path, told: Told) -> Tracking:
    monkeypatch.setattr(tracking, "_tracker", lambda *_: kept)
    found = Tracking((("mlflow", ""),), folder, pictures=None, progress=told)
    found.begin({})
    return found


def test_only_finite_numbers_are_passed_on_with_their_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    found = opened(kept, monkeypatch, tmp_path, Told())
    rows = [(10, math.inf, None, 0.5), (20, 0.25, math.nan, -math.inf)]
    found.write(COLUMNS, rows, ["left/right"])
    found.write(COLUMNS, rows, ["left/right"])  # after a resume
    assert kept.rows == [(10, {"validation_dice/left_right": 0.5}), (20, {"loss": 0.25})]
    found.finish(20, {"final_dice_a": math.nan, "final_dice_b": 0.5})
    assert kept.rows[-1] == (20, {"final_dice_b": 0.5})
    assert kept.ended == [True]


def test_a_tracker_that_fails_does_not_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, told = Kept(fails_at=20), Told()
    found = opened(kept, monkeypatch, tmp_path, told)
    found.write(COLUMNS, [(10, 0.5, None, None), (20, 0.5, None, None), (30, 0.5, None, None)], [])
    assert [step for step, _ in kept.rows] == [10]
    assert told.lines == [
        "mlflow gets nothing more, because it failed (the server\\nis gone); the training goes on, and log.csv has "
        "everything"
    ]


def test_what_cannot_be_tracked_is_refused_before_any_work(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for track, said in (
        ("tensorbord", "track 'tensorbord' is not known; did you mean 'tensorboard'"),
        ("wandb=http://x", "only mlflow takes an address"),
    ):
        with pytest.raises(SettingsError, match=said):
            train(balls, tmp_path / "run", track=track)
    with pytest.raises(SettingsError, match="track_images: nothing is tracked"):
        train(balls, tmp_path / "run", track_images=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingFileError, match=r"mlflow, which is not installed; pip install 'medfcn\[mlflow\]'"):
        train(balls, tmp_path / "run", track="mlflow")
    assert not (tmp_path / "run").exists()
    assert kinds_of(None) == ()


SCRIPT = """
import sys
from pathlib import Path
import medfcn
from medfcn.runs.stop import Stop
from tests.training.test_resume import StopAfter, train
balls, folder, track = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
try:
    train(balls, folder, steps=40, report=False, track=track, track_images=True, stop=StopAfter(24))
except medfcn.MedfcnError as error:
    print(error)
print(medfcn.train(folder, resume=True).steps)
"""


def trained_apart(balls: Path, folder: Path, track: str) -> None:
    """A training that is stopped and goes on, in a process of its own: trackers keep state in theirs."""
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(balls), str(folder), track]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "40"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MLflow's own
def test_mlflow_has_each_point_once_in_a_database_in_the_run_folder(balls: Path, tmp_path: Path) -> None:
    """MLflow takes 824 MB, so it is not among the packages of the tests."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    from tests.training.test_curve import rows_of

    trained_apart(balls, tmp_path / "run", "mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow' / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "medfcn"]
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [metric.step for metric in history] == [int(row["step"]) for row in rows_of(tmp_path / "run")]
    assert all(math.isfinite(metric.value) for metric in history)
    assert found.info.status == "FINISHED"
    assert found.data.params["training.seed" if "training.seed" in found.data.params else "seed"] == "0"
    assert [item.path for item in client.list_artifacts(found.info.run_id, "pictures")] == [
        "pictures/step_0000040.png"
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("mlruns")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_works_offline_in_the_run_folder(balls: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    trained_apart(balls, tmp_path / "run", "wandb")
    offline = list((tmp_path / "run" / "wandb").rglob("*.wandb"))
    assert len(offline) == 1
    content = offline[0].read_bytes()
    assert b"learning_rate" in content
    assert b"ball_" not in content
    assert str(balls.parent).encode() not in content
