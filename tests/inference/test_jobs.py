"""Several processes on one batch: the masks of one, each case once, whoever is killed, and nobody left behind."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.commands.predict import _sure_workers
from medfcn.datasets import Case
from medfcn.errors import SettingsError, WriteError
from medfcn.inference import case_work, jobs, processes
from medfcn.inference.batch import Batch, ModelSource, Outcome, Recipe
from medfcn.inference.case_queue import CaseQueue
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.jobs import Jobs
from medfcn.inference.worker import Order, serve
from medfcn.memory import memory_limit
from medfcn.progress import Lines
from medfcn.runs import workers
from medfcn.runs.passing import shareable
from medfcn.runs.workers import workers_begun
from medfcn.systems import PASSES_SOCKETS
from medfcn.verbs import predict
from tests.inference.batches import Batch as Folders
from tests.inference.batches import a_batch, content

COUNT = 12
BAD = "case_05"
GOOD = tuple(f"case_{number:02d}" for number in range(COUNT) if f"case_{number:02d}" != BAD)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return a_batch(tmp_path_factory.mktemp("jobs"), COUNT, [BAD])


class Forked:
    """A worker that was forked, which is at work at once; it has what is needed of a `Popen`."""

    started: list["Forked"]

    def __init__(self, descriptor: int, before: Callable[[], None] = lambda: None) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            try:
                before()
                serve(descriptor)
            finally:
                os._exit(9)
        Forked.started.append(self)
        self.status: int | None = None
        self._asking = threading.Lock()

    def wait(self, timeout: float | None = None) -> int:
        """As `Popen.wait`: several threads may wait, and only one of them is given the status by the system."""
        until = time.monotonic() + (timeout or 600)
        while True:
            with self._asking:
                if self.status is None:
                    found, status = os.waitpid(self.pid, os.WNOHANG)
                    self.status = os.waitstatus_to_exitcode(status) if found else None
            if self.status is not None:
                return self.status
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("worker", timeout or 600)
            time.sleep(0.002)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> type[Forked]:
    """Workers are forked: starting Python anew would take most of the time of these tests."""
    Forked.started = []
    monkeypatch.setattr(processes, "_start", Forked)
    monkeypatch.setattr(workers, "start_worker", Forked)
    return Forked


def slowly(monkeypatch: pytest.MonkeyPatch, folder: Path, workers: int) -> None:
    """Let this process wait until so many workers are at a case, and then need so long that they get most of them."""
    original, own, begun = Ensemble.predict_case, os.getpid(), folder / "begun"
    begun.mkdir()

    def slow(self: Ensemble, *arguments: Any, **choices: Any) -> Any:
        if os.getpid() == own:
            until = time.monotonic() + 300
            while len(list(begun.iterdir())) < workers and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(0.1)
        else:
            (begun / str(os.getpid())).touch()
            time.sleep(0.01)
        return original(self, *arguments, **choices)

    monkeypatch.setattr(Ensemble, "predict_case", slow)


def test_masks_are_those_of_one_process(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With two workers that were begun in advance, as in use, of which one is wanted."""
    run, images, clean = folders
    later: list[int] = []
    monkeypatch.setattr(processes, "_start", lambda descriptor: later.append(descriptor))
    with workers_begun(2):
        begun = [worker.process.pid for worker in workers._waiting]
        result = predict(run, images, tmp_path / "out", device="cpu", jobs=2, progress=Lines())
        assert (len(begun), later, workers._waiting) == (2, [], [])
        assert not any(map(is_alive, begun))
    assert (result.predicted, result.others, result.skipped) == (GOOD, (), ())
    assert [case for case, _ in result.failures] == [BAD]
    assert content(tmp_path / "out") == clean
    assert "predicts in 2 processes of 1 thread: as requested" in capfd.readouterr().err


def test_each_process_takes_its_share_and_each_case_once(
    folders: Folders,
    tmp_path: Path,
    forked: type[Forked],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, images, clean = folders
    slowly(monkeypatch, tmp_path, 2)
    given: list[tuple[int, str]] = []
    original = CaseQueue.give

    def give(self: CaseQueue, holder: int, outcome: Outcome) -> None:
        given.append((holder, outcome.case))
        original(self, holder, outcome)

    monkeypatch.setattr(CaseQueue, "give", give)
    result = predict(run, images, tmp_path / "out", device="cpu", jobs=3)
    assert result.predicted == GOOD
    assert sorted(case for _, case in given) == sorted([*GOOD, BAD])
    assert {holder for holder, _ in given} == {0, 1, 2}
    assert [worker.status for worker in forked.started] == [0, 0]
    assert content(tmp_path / "out") == clean


@pytest.mark.parametrize("moment", ["case taken", "mask written", "record written"])
def test_the_case_of_a_killed_worker_is_taken_again(
    moment: str,
    folders: Folders,
    tmp_path: Path,
    forked: type[Forked],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, images, clean = folders
    slowly(monkeypatch, tmp_path, 1)
    mark, own = tmp_path / "killed", os.getpid()

    def dying(original: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **choices: Any) -> Any:
            found = original(*arguments, **choices) if after else None
            if os.getpid() != own and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return found if after else original(*arguments, **choices)

        return call

    place, name = {
        "case taken": (Ensemble, "predict_case"),
        "mask written": (Batch, "record"),
        "record written": (case_work, "_write_case"),
    }[moment]
    monkeypatch.setattr(place, name, dying(getattr(place, name), after=moment == "record written"))
    result = predict(run, images, tmp_path / "out", device="cpu", jobs=2)
    assert mark.exists()
    assert (result.predicted, result.others) == (GOOD, ())
    assert len(forked.started) > 1  # another took its place
    assert content(tmp_path / "out") == clean


def test_a_case_that_kills_every_process_is_a_failure(
    folders: Folders,
    tmp_path: Path,
    forked: type[Forked],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, images, clean = folders
    own, original = os.getpid(), case_work._predict_case

    def killing(case: Case, *arguments: Any) -> Any:
        if case.id == "case_02" and os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(case, *arguments)

    monkeypatch.setattr(case_work, "_predict_case", killing)
    take = CaseQueue.take

    def only_workers_get_it(self: CaseQueue, holder: int, **how: Any) -> Case | None:
        if holder:
            return take(self, holder, **how)
        while True:
            with self._changed:
                if not (self._waiting and self._waiting[0].id == "case_02"):
                    case = take(self, holder, **{**how, "wait": False})
                    others = any(cases for number, cases in self._held.items() if number != holder)
                    if case is not None or not how.get("wait") or not (others or self._waiting):
                        return case
            time.sleep(0.005)

    monkeypatch.setattr(CaseQueue, "take", only_workers_get_it)
    result = predict(run, images, tmp_path / "out", device="cpu", jobs=2)
    assert [case for case, _ in result.failures] == ["case_02", BAD]
    assert "killed 3 times" in dict(result.failures)["case_02"]
    masks = {name: data for name, data in clean.items() if name.startswith("case") and "case_02" not in name}
    assert {name: data for name, data in content(tmp_path / "out").items() if name.startswith("case")} == masks


def test_a_full_disk_in_a_worker_stops_the_batch(
    folders: Folders,
    tmp_path: Path,
    forked: type[Forked],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, images, _ = folders
    slowly(monkeypatch, tmp_path, 1)
    own, original = os.getpid(), case_work._write_case

    def full(*arguments: Any) -> None:
        if os.getpid() != own:
            raise WriteError("mask.nii.gz: the disk is full: 3 bytes are free there", code="DISK_FULL")
        original(*arguments)

    monkeypatch.setattr(case_work, "_write_case", full)
    with pytest.raises(WriteError, match="the disk is full") as caught:
        predict(run, images, tmp_path / "out", device="cpu", jobs=2)
    assert caught.value.code == "DISK_FULL"
    assert all(worker.status is not None for worker in forked.started)


def test_an_interrupt_ends_the_workers_and_leaves_no_litter(
    folders: Folders,
    tmp_path: Path,
    forked: type[Forked],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, images, clean = folders
    slowly(monkeypatch, tmp_path, 2)
    out, own, original = tmp_path / "out", os.getpid(), case_work._write_case

    def interrupted(*arguments: Any) -> None:
        original(*arguments)
        if os.getpid() == own:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(case_work, "_write_case", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict(run, images, out, device="cpu", jobs=3)
    assert [worker.status is not None for worker in forked.started] == [True, True]
    assert {name for name in content(out) if "claim" not in name} <= clean.keys()
    predict(run, images, out, device="cpu", resume=True, jobs=2)
    assert content(out) == clean


def test_workers_that_nobody_takes_end(forked: type[Forked]) -> None:
    with workers_begun(1):
        assert is_alive(forked.started[0].pid)
    assert not is_alive(forked.started[0].pid)
    own, its = socket.socketpair()
    with its:
        worker = Forked(its.fileno(), own.close)
    own.close()  # as if the command were gone
    assert worker.wait() == 0


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 2),
        ({"jobs": 2}, 1),
        ({"jobs": None}, 0),
        ({"cluster": "tcp://a:1"}, 0),
        ({"finish": True}, 0),
        ({"again": ("a.json",)}, 0),
        ({"source": "a.nii.gz"}, 0),
        ({"source": "images/one"}, 0),
        ({"source": "images/two"}, 1),
        ({"resume": True}, 1),
    ],
    ids=[
        *("cores", "jobs", "automatic", "cluster", "tables", "records", "one file"),
        *("one volume", "two volumes", "two volumes left"),
    ],
)
def test_workers_are_begun_in_advance_where_they_are_wanted(
    changed: dict[str, object], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medfcn.commands.predict.usable_cores", lambda: 3)
    monkeypatch.chdir(tmp_path)
    for name in ("one/a", "one/.hidden", "two/a", "two/b"):
        file = Path("images", f"{name}.nii.gz")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    Path("masks").mkdir()
    Path("masks", "a.json").touch()
    choices = {"jobs": 8, "cluster": None, "finish": False, "again": (), "resume": False}
    choices |= {"source": "images", "output": "masks"}
    assert _sure_workers(choices | changed) == (expected if PASSES_SOCKETS else 0)


def children_of(process: int) -> list[int]:
    lists = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]  # one of each thread
    return [int(number) for text in lists for number in text.split()]


def is_alive(process: int) -> bool:
    path = Path(f"/proc/{process}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc (Linux)")
@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=["SIGKILL", "SIGTERM"],
)
def test_workers_end_with_the_command(number: int, folders: Folders, tmp_path: Path) -> None:
    run, images, clean = folders
    for case in range(COUNT):
        for copy in range(40):
            (tmp_path / f"case_{case:02d}_{copy:02d}.nii.gz").symlink_to(images / f"case_{case:02d}.nii.gz")
    out = tmp_path / "out"
    words = [sys.executable, "-m", "medfcn", "predict", run, tmp_path, "-o", out, "--device", "cpu", "--jobs", "2"]
    command = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while not (workers := children_of(command.pid)) or len(list(out.glob("*.json"))) < 20:
        assert command.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    command.send_signal(number)
    said = command.communicate(timeout=300)[1]
    assert command.returncode == (-number if number == signal.SIGKILL else 128 + number)
    until = time.monotonic() + 300
    while any(map(is_alive, workers)):
        assert time.monotonic() < until
        time.sleep(0.01)
    for path in out.glob("*.nii.gz"):
        assert path.read_bytes() == clean[f"{path.name[:7]}.nii.gz"]
    assert "Traceback" not in said
    if number == signal.SIGTERM:
        assert not [path.name for path in out.rglob("*.part")]


def case(name: str, folder: Path, size: int = 100) -> Case:
    path = folder / f"{name}.nii.gz"
    path.write_bytes(bytes(size))
    return Case(name, (path,), None, name)


def test_the_last_cases_are_kept_for_who_needs_one(tmp_path: Path) -> None:
    cases = [case(name, tmp_path) for name in "abcd"]
    ended: list[Outcome] = []
    queue = CaseQueue(cases, ended.append)
    queue.join(0)
    queue.join(1)
    assert [queue.take(0, is_needed=True), queue.take(0, is_needed=False), queue.take(1, is_needed=True)] == cases[:3]
    assert queue.take(1, is_needed=False) is None
    assert queue.take(0, is_needed=False) is None
    queue.lose(1)
    assert queue.take(0, is_needed=True) == cases[2]  # first what was taken before
    assert queue.take(0, is_needed=True) == cases[3]
    for each in cases:
        queue.give(0, Outcome(each.id, "predicted"))
    assert queue.take(0, is_needed=True, wait=True) is None
    assert [outcome.case for outcome in ended] == ["a", "b", "c", "d"]
    queue.fail(WriteError("full"))
    with pytest.raises(WriteError, match="full"):
        queue.take(0, is_needed=True)


@pytest.mark.parametrize(
    ("seconds", "count", "cores", "free", "expected"),
    [
        ((1.0, 0.01), 300, 4, 1 << 40, 1),
        ((1.0, 0.1), 300, 4, 1 << 40, 4),
        ((2.0, 2.0), 20, 16, 1 << 40, 7),
        ((20.0,), 4, 2, 1 << 40, 2),
        ((1.0, 0.1), 300, 4, 1 << 20, 1),
        ((1.0, 0.1), 300, 1, 1 << 40, 1),
        ((20.0,), 2, 8, 1 << 40, 2),
    ],
    ids=["little work", "enough work", "work for seven", "long cases", "no memory", "one core", "two cases"],
)
def test_others_join_where_that_pays(
    seconds: Sequence[float],
    count: int,
    cores: int,
    free: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "usable_cores", lambda: cores)
    monkeypatch.setattr(jobs, "free_bytes", lambda: free)
    cases = [case(f"case_{number}", tmp_path) for number in range(count + 1)]
    how_many = Jobs(cases, None, threads=1, device=torch.device("cpu"))
    assert how_many.wanted() == 1
    found = [
        how_many.after(Outcome(each.id, "predicted", seconds=taken))
        for each, taken in zip(cases, seconds, strict=False)
    ]
    assert found[:-1] == [1] * (len(seconds) - 1)
    assert found[-1] == expected
    assert bool(how_many.line) == (expected > 1)
    assert how_many.after(Outcome(cases[-1].id, "predicted", seconds=1000)) == 1  # said once


def test_one_volume_is_predicted_in_this_process(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images, _ = folders
    monkeypatch.setattr(processes, "_start", lambda _: pytest.fail("a worker was started"))
    predict(run, images / "case_00.nii.gz", tmp_path / "mask.nii.gz", device="cpu", jobs=8)
    predict(run, images, tmp_path / "masks", device="cpu")


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_no_more_processes_begin_than_there_are_volumes_without_masks(done: int, tmp_path: Path) -> None:
    cases = [case(f"case_{number}", tmp_path) for number in range(3)]
    there = [each.id for each in cases[:done]]
    how_many = Jobs(cases, 8, threads=1, device=torch.device("cpu"), done=there, waiting=lambda: 2)
    expected = max(1, 3 - done) if PASSES_SOCKETS else 1
    assert how_many.wanted() == expected
    assert how_many.after(Outcome("case_0", "kept")) == 1
    assert bool(how_many.line) == (expected > 1 or not PASSES_SOCKETS)


def test_others_join_where_masks_that_are_there_are_made_anew(tmp_path: Path) -> None:
    cases = [case(f"case_{number}", tmp_path) for number in range(4)]
    there = [each.id for each in cases]
    how_many = Jobs(cases, 2, threads=1, device=torch.device("cpu"), done=there, waiting=lambda: 1)
    assert how_many.wanted() == 1
    assert how_many.after(Outcome("case_0", "predicted")) == (2 if PASSES_SOCKETS else 1)
    assert how_many.after(Outcome("case_1", "predicted")) == 1  # said once


def test_cases_that_this_process_holds_are_no_work_for_others(tmp_path: Path) -> None:
    cases = [case(f"case_{number}", tmp_path) for number in range(3)]
    how_many = Jobs(cases, None, threads=1, device=torch.device("cpu"), waiting=lambda: 0)
    assert how_many.after(Outcome("case_0", "predicted", seconds=1000)) == 1
    assert not how_many.line


def test_a_process_begun_for_nothing_ends_at_once(
    folders: Folders, forked: type[Forked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images, _ = folders
    monkeypatch.setattr(workers, "start_worker", forked)
    with workers_begun(1):
        predict(run, images / "case_00.nii.gz", tmp_path / "mask.nii.gz", device="cpu", jobs=2)
        (begun,) = forked.started
        assert begun.status is not None
    assert (tmp_path / "mask.nii.gz").is_file()


def test_transforms_that_no_other_process_can_get_are_refused(folders: Folders, tmp_path: Path) -> None:
    run, images, _ = folders
    recipe = Recipe(ModelSource(runs=run, transforms=lambda case: case), (), {})
    with pytest.raises(SettingsError, match="transforms cannot be passed to other processes") as caught:
        shareable(Order(recipe), "the transforms")
    assert caught.value.field == "jobs"
    with pytest.raises(SettingsError, match="jobs 0: at least 1"):
        predict(run, images, tmp_path / "out", jobs=0)


def test_processes_share_the_chosen_memory(
    folders: Folders, tmp_path: Path, forked: type[Forked], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images, clean = folders
    orders: list[Order] = []
    monkeypatch.setattr(processes, "shareable", lambda order, name: (orders.append(order), shareable(order, name))[1])
    words = ["predict", str(run), str(images), "-o", str(tmp_path / "out"), "--device", "cpu", "--jobs", "2"]
    done = CliRunner().invoke(main, [*words, "--memory", "6g"])
    assert "memory: 6,144 MB at most, 3,072 MB for each of 2 processes" in done.output
    assert (done.exit_code, [order.memory for order in orders], memory_limit()) == (3, [3 << 30], None)
    assert content(tmp_path / "out") == clean
    header, first = (tmp_path / "out" / "timing.csv").read_text().splitlines()[:2]
    assert (header.split(",")[-1], first.split(",")[-1]) == ("memory_mb", "3072")


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--memory", "500m", "--jobs", "2"], "250 MB for each process, and the start needs 280 MB"),
        (["--memory", "much"], "expected a number with a unit"),
        (["--memory", "4g", "--cluster", "tcp://127.0.0.1:1"], "the workers of a cluster have limits of their own"),
    ],
    ids=["too little", "no amount", "cluster"],
)
def test_a_memory_that_cannot_be_is_refused(words: list[str], refused: str, folders: Folders, tmp_path: Path) -> None:
    run, images, _ = folders
    done = CliRunner().invoke(main, ["predict", str(run), str(images), "-o", str(tmp_path / "out"), *words])
    assert (done.exit_code, memory_limit()) == (2, None)
    assert refused in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()
