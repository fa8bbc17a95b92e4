"""A Dask cluster (a real scheduler and two worker processes) makes the folder of one command, whoever is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import medfcn
from medfcn.errors import MedfcnError, MissingFileError, OutputExistsError, SettingsError, TrainingError
from medfcn.inference.batch import Recipe
from medfcn.runs.cluster import Cluster, _under, connected
from medfcn.runs.folder import RunFolder
from medfcn.text import for_command
from medfcn.verbs import predict
from tests.inference.batches import Batch, a_batch, content
from tests.inference.test_jobs import children_of, is_alive
from tests.scripts import module_at

COUNT = 40
BAD = ("case_05", "case_31")

needs_dask = pytest.mark.skipif(
    find_spec("distributed") is None, reason="Dask is not installed (pip install 'medfcn[cluster]')"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return a_batch(tmp_path_factory.mktemp("cluster"), COUNT, BAD)


def started(folder: Path, name: str, *words: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.{name}", *words]
    variables = os.environ | {"DASK_DISTRIBUTED__WORKER__DAEMON": "True", "OMP_NUM_THREADS": "1"}
    with (folder / "dask.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=variables)


def wait_for(is_so: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def scheduler_file(tmp_path: Path) -> Iterator[Path]:
    """The file of a scheduler with two workers, each a process of its own under a nanny; all end with the test."""
    file = tmp_path / "scheduler.json"
    ports = ("--port", "0", "--dashboard-address", "127.0.0.1:0")
    scheduler = started(tmp_path, "dask_scheduler", *ports, "--scheduler-file", file)
    wait_for(file.is_file)
    nannies = started(
        tmp_path, "dask_worker", "--scheduler-file", file, "--nworkers", "2", "--nthreads", "1", "--no-dashboard",
        "--local-directory", tmp_path / "scratch",
    )  # fmt: skip
    try:
        yield file
    finally:
        family = [scheduler.pid, nannies.pid, *children_of(nannies.pid)]
        for process in (nannies, scheduler):
            process.terminate()
            process.wait(300)
        wait_for(lambda: not any(map(is_alive, family)))


@contextmanager
def one_killed(scheduler_file: Path, is_time: Callable[[], bool]) -> Iterator[list[int]]:
    """Have a worker that is at work killed meanwhile, once it is time; its number is there afterwards."""
    killed: list[int] = []

    def kill_one() -> None:
        with connected(str(scheduler_file)) as cluster:
            wait_for(lambda: len(cluster.places()) == 2)
            workers = cluster._client.run(os.getpid)
            wait_for(is_time)
            wait_for(lambda: any(cluster._client.processing().values()))
            at_work = [worker for worker, keys in cluster._client.processing().items() if keys]
        killed.append(workers[min(at_work or workers)])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    try:
        yield killed
    finally:
        thread.join()


@needs_dask
def test_a_cluster_makes_the_folder_of_one_process_though_a_worker_is_killed(
    folders: Batch, tmp_path: Path, scheduler_file: Path
) -> None:
    run, images, clean = folders
    out = tmp_path / "out"
    with one_killed(scheduler_file, lambda: len(list(out.glob("*.json"))) > 3) as killed:
        result = predict(run, images, out, device="cpu", cluster=str(scheduler_file))
    assert len(result.predicted) == COUNT - len(BAD)
    assert [case for case, _ in result.failures] == list(BAD)
    assert content(out) == clean
    wait_for(lambda: not is_alive(killed[0]))
    kept = predict(run, images, out, device="cpu", cluster=str(scheduler_file), resume=True)
    assert len(kept.skipped) == COUNT - len(BAD)
    assert content(out) == clean
    with pytest.raises(MedfcnError, match="a run folder has changed"):
        _with_another_model(run, images, tmp_path / "other", str(scheduler_file))


def _with_another_model(run: Path, images: Path, out: Path, cluster: str) -> None:
    original = Recipe.of
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Recipe, "of", lambda *given: replace(original(*given), hashes=("other",)))
        predict(run, images, out, device="cpu", cluster=cluster)


@needs_dask
@pytest.mark.slow
def test_folds_on_a_cluster_are_those_of_one_machine(balls: Path, tmp_path: Path, scheduler_file: Path) -> None:
    asked: dict[str, Any] = {"labels": "ball=1", "folds": 2, "steps": 6, "device": "cpu", "threads": 1}
    here = medfcn.train(balls, tmp_path / "here", **asked)
    there = medfcn.train(balls, tmp_path / "there", cluster=str(scheduler_file), **asked)
    assert there.validation.to_text() == here.validation.to_text()
    for number in (1, 2):
        weights = [tmp_path / name / f"fold_{number}" / "model.safetensors" for name in ("here", "there")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert (tmp_path / "there" / "report.html").is_file()
    with pytest.raises(OutputExistsError):
        medfcn.train(balls, tmp_path / "there", cluster=str(scheduler_file), **asked)
    with pytest.raises(TrainingError, match=r"fold 1 of 2: on .* has images/ but no labels/"):
        _without_cases(tmp_path, str(scheduler_file), asked)


@needs_dask
@pytest.mark.slow
def test_folds_are_those_of_one_machine_though_a_worker_is_killed(
    balls: Path, tmp_path: Path, scheduler_file: Path
) -> None:
    asked: dict[str, Any] = {"labels": "ball=1", "folds": 2, "steps": 60, "device": "cpu", "threads": 1}
    here, there = tmp_path / "here", tmp_path / "there"
    expected = medfcn.train(balls, here, **asked)
    both = [RunFolder(there).fold(number) for number in (1, 2)]
    with one_killed(scheduler_file, lambda: any(fold.lock.is_file() for fold in both)) as killed:
        found = medfcn.train(balls, there, cluster=str(scheduler_file), **asked)
    assert found.validation.to_text() == expected.validation.to_text()
    for fold in both:
        assert fold.weights.read_bytes() == RunFolder(here).fold(int(fold.path.name[-1])).weights.read_bytes()
    wait_for(lambda: not is_alive(killed[0]))
    assert not list(there.rglob("*.part"))


@needs_dask
@pytest.mark.slow
def test_a_search_scores_every_trial_though_a_worker_is_killed(
    balls: Path, tmp_path: Path, scheduler_file: Path
) -> None:
    asked: dict[str, Any] = {"labels": "ball=1", "trials": 3, "steps": 60, "device": "cpu", "threads": 1}
    asked["only"] = ["learning_rate"]
    there = tmp_path / "there"
    with one_killed(scheduler_file, lambda: bool(list(there.rglob(RunFolder(there).lock.name)))) as killed:
        found = medfcn.tune(balls, there, cluster=str(scheduler_file), **asked)
    assert [trial.state for trial in found.trials] == ["done"] * 3
    assert (there / "best.toml").is_file()
    assert not (there / "search").exists()
    wait_for(lambda: not is_alive(killed[0]))


def _without_cases(folder: Path, cluster: str, asked: dict[str, Any]) -> None:
    (folder / "nothing" / "images").mkdir(parents=True)
    medfcn.train(folder / "nothing", folder / "none", cluster=cluster, **asked)


@needs_dask
def test_a_workstation_says_what_it_would_do(folders: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, images, _ = folders
    script = module_at(Path(__file__).resolve().parents[2] / "pipelines" / "workstation.py")
    words = [str(run), str(images), "-o", str(tmp_path / "out"), "--workers", "3", "--dry-run"]
    done = CliRunner().invoke(script.main, [*words, "--device", "cpu"])
    said = done.output.splitlines()
    assert (done.exit_code, said[1]) == (0, f"{COUNT} cases, from case_00 to case_39; masks go to {tmp_path / 'out'}")
    assert said[2] == "3 workers: worker 1 on the CPU; worker 2 on the CPU; worker 3 on the CPU"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    on_gpus = CliRunner().invoke(script.main, words).output.splitlines()[2]
    assert on_gpus == "3 workers: worker 1 on GPU 0; worker 2 on GPU 1; worker 3 on GPU 0"
    assert not (tmp_path / "out").exists()


@needs_dask
@pytest.mark.slow
def test_the_workstation_brings_its_own_cluster(folders: Batch, tmp_path: Path) -> None:
    run, images, clean = folders
    script = Path(__file__).resolve().parents[2] / "pipelines" / "workstation.py"
    words = [sys.executable, script, run, images, "-o", tmp_path / "out", "--workers", "2", "--device", "cpu"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    assert done.stdout.startswith(f"{COUNT - len(BAD)} masks, {len(BAD)} failed"), done.stderr
    assert content(tmp_path / "out") == clean


def test_a_training_without_folds_is_not_for_a_cluster(balls: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give folds=N"):
        medfcn.train(balls, tmp_path / "run", labels="ball=1", steps=6, cluster="tcp://127.0.0.1:9")
    assert not (tmp_path / "run").exists()


@needs_dask
def test_no_scheduler_is_one_line(folders: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, images, _ = folders
    monkeypatch.setattr("medfcn.runs.cluster._CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:9", "nowhere"):
        with pytest.raises(SettingsError, match="no scheduler answers there"):
            predict(run, images, tmp_path / "out", device="cpu", cluster=address)


def test_options_that_contradict_a_cluster_are_refused(
    folders: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images, _ = folders
    for options in ({"jobs": 2}, {"shard": "1/2"}):
        with pytest.raises(SettingsError, match="cluster are given together"):
            predict(run, images, tmp_path / "out", cluster="tcp://127.0.0.1:9", **options)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingFileError, match=r"pip install 'medfcn\[cluster\]'"):
        predict(run, images, tmp_path / "out", device="cpu", cluster="tcp://127.0.0.1:9")


class Scheduler:
    """As much of a client as the places of workers need."""

    def scheduler_info(self, **_: Any) -> dict[str, Any]:
        workers = {"tcp://a:3": {"host": "a", "nanny": "tcp://a:9"}, "tcp://a:2": {"host": "a", "nanny": "tcp://a:8"}}
        return {"workers": workers | {"tcp://b:1": {"host": "b", "nanny": None}}}


def test_workers_are_numbered_on_each_machine() -> None:
    cluster = Cluster(Scheduler(), "tcp://s:1")
    assert cluster.places() == {"tcp://a:8": 0, "tcp://a:9": 1, "tcp://b:1": 0}
    assert str(cluster) == "cluster tcp://s:1: 3 workers"


@needs_dask
@pytest.mark.slow
def test_a_search_on_a_cluster_scores_its_trials_as_one_machine_does(
    balls: Path, tmp_path: Path, scheduler_file: Path
) -> None:
    asked: dict[str, Any] = {"labels": "ball=1", "trials": 3, "steps": 6, "device": "cpu", "threads": 1}
    asked["only"] = ["learning_rate"]
    here = medfcn.tune(balls, tmp_path / "here", **asked)
    there = medfcn.tune(balls, tmp_path / "there", cluster=str(scheduler_file), **asked)
    assert [trial.state for trial in there.trials] == ["done"] * 3
    first, second = (tuned.trials[0].score for tuned in (here, there))
    assert first is not None
    assert second is not None
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    assert (tmp_path / "there" / "best.toml").is_file()
    assert not (tmp_path / "there" / "search").exists()


def test_a_worker_speaks_as_the_command_or_call_that_sent_it() -> None:
    error = MedfcnError("masks: replace it (--overwrite, overwrite=True)")
    assert for_command(_under("predict", str, error)) == "masks: replace it (--overwrite)"
    assert _under("", str, error) == "masks: replace it (overwrite=True)"
