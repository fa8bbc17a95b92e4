"""Shards of one folder: the masks and tables of one command, without a lock, whoever ends last or is killed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import pytest
from click.testing import CliRunner

from medfcn import files
from medfcn.cli import main
from medfcn.errors import DatasetError, OutputExistsError, SettingsError
from medfcn.inference import batch_run
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.timing import read_timings
from medfcn.runs.claims import Claims
from medfcn.runs.folder import PARTS_FOLDER, SHARDS_FILE, TIMING_FILE
from medfcn.runs.shards import Parts, Shard
from medfcn.verbs import predict
from tests.inference import batches
from tests.inference.batches import Batch, a_batch

CASES = 14
COUNT = 4
BAD = "case_05"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return a_batch(tmp_path_factory.mktemp("shards"), CASES, [BAD])


def content(folder: Path) -> dict[str, bytes]:
    """Every file but those that shards leave for each other."""
    return batches.content(folder, without=PARTS_FOLDER)


def apart(work: Callable[[], Any], *, seconds: float = 0.0, stays_at: int = 0) -> int:
    """A process of its own, which needs at least so long for a case, and stays at one of them until it is killed."""
    child = os.fork()
    if child == 0:
        original, calls = Ensemble.predict_case, []

        def slow(self: Ensemble, *arguments: Any, **choices: Any) -> Any:
            calls.append(1)
            time.sleep(seconds if len(calls) != stays_at else 600)
            return original(self, *arguments, **choices)

        Ensemble.predict_case = slow  # type: ignore[method-assign]
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_shard_is_the_same_on_every_machine() -> None:
    assert [Shard.parse("1/4").has(f"case_{number:02d}") for number in range(8)] == [
        False, False, False, True, False, False, True, False,
    ]  # fmt: skip
    for name in ("a", "é", "case 1\n", "\udcff"):
        assert [Shard(number, 5).has(name) for number in range(1, 6)].count(True) == 1
    for text in ("0/4", "5/4", "1", "1/0", "a/b", "1/4x", "-1/4", "1 / 4", "1/٤", "1/10001", "1/999999999"):
        with pytest.raises(SettingsError, match="expected i/N"):
            Shard.parse(text)


def test_shards_leave_the_folder_of_one_command(
    folders: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images, clean = folders
    monkeypatch.setattr(Claims, "_open", lambda *_: pytest.fail("a shard claimed a case"))
    done: list[str] = []
    for number in (3, 1, 4, 2):
        result = predict(run, images, tmp_path / "out", device="cpu", shard=f"{number}/{COUNT}")
        done += [*result.predicted, *(case for case, _ in result.failures)]
        is_last = number == 2
        assert (tmp_path / "out" / "failures.csv").is_file() == is_last
    assert sorted(done) == [f"case_{number:02d}" for number in range(CASES)]
    assert content(tmp_path / "out") == clean
    timings = read_timings(tmp_path / "out" / TIMING_FILE)
    assert [row.case for row in timings] == sorted(set(done) - {BAD})
    assert {row.shard for row in timings} == {f"{number}/{COUNT}" for number in range(1, COUNT + 1)}
    # Again, and finished once more: nothing changes.
    predict(run, images, tmp_path / "out", device="cpu", shard=f"1/{COUNT}", resume=True)
    result = predict(run, images, tmp_path / "out", device="cpu", finish=True)
    assert [case for case, _ in result.failures] == [BAD]
    assert content(tmp_path / "out") == clean
    assert read_timings(tmp_path / "out" / TIMING_FILE) == timings


def test_four_shards_at_once_with_locks_that_lie_and_one_killed(
    folders: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every lock seems free, as on a file system whose locks do not reach other machines."""
    run, images, clean = folders
    monkeypatch.setattr(files, "lock", lambda _: True)
    out = tmp_path / "out"

    def shard(number: int) -> Callable[[], Any]:
        return lambda: predict(run, images, out, device="cpu", shard=f"{number}/{COUNT}", resume=True)

    children = [
        apart(shard(number), seconds=0.05, stays_at=2 if number == 1 else 0) for number in range(1, COUNT + 1)
    ]
    while not (out / PARTS_FOLDER / SHARDS_FILE).is_file() or len(list(out.glob("*.json"))) < 2:
        time.sleep(0.002)
    os.kill(children[0], signal.SIGKILL)
    reads = 0
    while reads < 1000:
        for path in [*out.glob("*.nii.gz"), *out.glob("*.csv"), *out.glob("*.json")]:
            if path.name.endswith(".nii.gz"):
                assert nibabel.load(path).get_fdata().shape == (20, 18, 5)
            else:
                assert path.read_bytes() == clean[path.name] or path.name == TIMING_FILE
            reads += 1
    assert [status_of(child) for child in children] == [-signal.SIGKILL, 0, 0, 0]
    assert not (out / "failures.csv").exists()
    assert Parts(out).missing() == [Shard(1, COUNT)]
    with pytest.raises(DatasetError, match="1 shard not finished: 1/4; run each again"):
        predict(run, images, out, device="cpu", finish=True)
    assert status_of(apart(shard(1))) == 0
    assert content(out) == clean


def test_a_command_that_is_killed_before_it_merges_leaves_that_to_finish(
    folders: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images, clean = folders
    out = tmp_path / "out"

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(batch_run, "merge_parts", die)
        predict(run, images, out, device="cpu", shard="1/2")
        with pytest.raises(KeyboardInterrupt):
            predict(run, images, out, device="cpu", shard="2/2")
    assert not (out / "failures.csv").exists()
    command = ["predict", str(run), str(images), "-o", str(out), "--device", "cpu", "--finish"]
    finished = CliRunner().invoke(main, command)
    assert finished.exit_code == 3
    assert f"{CASES - 1} masks" in finished.stdout
    assert content(out) == clean


def test_another_number_of_shards_is_refused(folders: Batch, tmp_path: Path) -> None:
    run, images, clean = folders
    out = tmp_path / "out"
    Parts(out).enter(Shard(1, 3))  # begun, and nothing has ended
    for shard in ("1/4", "3/4"):
        with pytest.raises(OutputExistsError, match="is shared by 3 shards, not 4; give shard=") as caught:
            predict(run, images, out, device="cpu", shard=shard)
        assert caught.value.code == "SHARDS_DIFFER"
    predict(run, images, out, device="cpu", shard="2/3")
    with pytest.raises(OutputExistsError, match=r"already exists, of a command before; go on .*resume=True"):
        predict(run, images, out, device="cpu", shard="2/3")
    with pytest.raises(OutputExistsError, match="already exists"):
        predict(run, images, out, device="cpu")
    # Of two that begin at once, one is refused: the first file stays.
    with pytest.raises(OutputExistsError):
        Parts(out).enter(Shard(1, 2))
    predict(run, images, out, device="cpu", shard="2/3", overwrite=True)
    for number in (1, 3):
        predict(run, images, out, device="cpu", shard=f"{number}/3")
    assert content(out) == clean
    assert not [path.name for path in out.rglob("*.part")]


def test_cases_that_came_later_are_named(folders: Batch, tmp_path: Path) -> None:
    run, images, _ = folders
    own = tmp_path / "images"
    own.mkdir()
    for path in sorted(images.iterdir())[:4]:
        (own / path.name).symlink_to(path)
    predict(run, own, tmp_path / "out", device="cpu", shard="1/1")
    (own / "late.nii.gz").symlink_to(images / "case_00.nii.gz")
    with pytest.raises(DatasetError, match="1 case came after the shards had begun, first late"):
        predict(run, own, tmp_path / "out", device="cpu", finish=True)
    predict(run, own, tmp_path / "out", device="cpu", shard="1/1", resume=True)
    assert len(predict(run, own, tmp_path / "out", device="cpu", finish=True).inputs) == 5
    (tmp_path / "out" / PARTS_FOLDER / "1-of-1.csv").write_text("broken")
    with pytest.raises(DatasetError, match=r"1-of-1\.csv: is no table of a shard"):
        predict(run, own, tmp_path / "out", device="cpu", finish=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "1/2", "finish": True}, "shard and finish are given together"),
        ({"shard": "1/2", "report": True}, "shard and report are given together"),
        ({"shard": "3/2"}, "shard 3/2: expected i/N"),
    ],
    ids=["finish", "report", "no shard"],
)
def test_options_that_contradict_shards_are_refused(
    options: dict[str, Any], message: str, folders: Batch, tmp_path: Path
) -> None:
    run, images, _ = folders
    with pytest.raises(SettingsError, match=message):
        predict(run, images, tmp_path / "out", **options)
    with pytest.raises(SettingsError, match="shards fill a folder"):
        predict(run, images / "case_00.nii.gz", tmp_path / "mask.nii.gz", shard="1/2")
    with pytest.raises(DatasetError, match="no shard has worked here"):
        predict(run, images, tmp_path / "out", finish=True, device="cpu")
