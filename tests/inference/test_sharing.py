"""Several processes on one folder share its cases: each is predicted once, also where one of them is killed."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medfcn.errors import OutputExistsError
from medfcn.inference import predict as predict_module
from medfcn.inference.ensemble import Ensemble
from medfcn.runs.claims import Claims, at_work, tasks_at_work
from medfcn.runs.folder import CLAIMS_FOLDER
from medfcn.verbs import predict
from tests.inference.batches import Batch, a_batch, content

CASES = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return a_batch(tmp_path_factory.mktemp("shared"), CASES, ["case_05"])


def wait_for(is_so: Callable[[], Any]) -> None:
    until = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


def start(work: Callable[[], Any], before: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """A process of its own; its number, and where its result can be read.

    Args:
        work: Its prediction.
        before: Called in front of each of its cases.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            original = Ensemble.predict_case

            def slow(self: Ensemble, *arguments: Any, **choices: Any) -> Any:
                before()
                time.sleep(0.05)
                return original(self, *arguments, **choices)

            Ensemble.predict_case = slow  # type: ignore[method-assign]
            result = work()
            os.write(
                writer, json.dumps([result.predicted, result.others, [case for case, _ in result.failures]]).encode()
            )
        finally:
            os._exit(0)
    os.close(writer)
    return child, reader


def end(child: int, reader: int) -> list[list[str]]:
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(child, 0)
    found: list[list[str]] = json.loads(said)
    return found


def test_four_processes_predict_every_case_once(folders: Batch, tmp_path: Path) -> None:
    run, images, clean = folders
    out = tmp_path / "out"
    out.mkdir()
    (begun := tmp_path / "begun").mkdir()

    def with_another() -> None:
        """None makes all cases before the others are there."""
        (begun / str(os.getpid())).touch()
        wait_for(lambda: len(list(begun.iterdir())) > 1)

    children = [start(lambda: predict(run, images, out, device="cpu", resume=True), with_another) for _ in range(4)]
    results = [end(*child) for child in children]
    names = [f"case_{number:02d}" for number in range(CASES) if number != 5]
    assert sorted(case for predicted, _, _ in results for case in predicted) == names
    for predicted, others, failures in results:
        # A process that starts late finds masks that are done, and counts them as kept.
        assert set(others) <= set(names) - set(predicted)
        assert failures == ["case_05"]
    assert sum(bool(predicted) for predicted, _, _ in results) > 1
    assert content(out) == clean
    assert not (out / CLAIMS_FOLDER).exists()


def test_the_case_of_a_killed_process_is_taken_over(folders: Batch, tmp_path: Path) -> None:
    run, images, clean = folders
    out = tmp_path / "out"
    out.mkdir()
    children = [start(lambda: predict(run, images, out, device="cpu", resume=True)) for _ in range(3)]
    wait_for(lambda: len(list(out.glob("*.json"))) >= 2)
    os.kill(children[0][0], signal.SIGKILL)
    os.waitpid(children[0][0], 0)
    os.close(children[0][1])
    for child in children[1:]:
        predicted, others, _ = end(*child)
        assert len(predicted) + len(others) <= CASES - 1
    assert content(out) == clean
    assert not (out / CLAIMS_FOLDER).exists()


def test_a_claim_is_one_process_s_until_it_ends(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("a/b\n")
    assert first.take("a/b\n")
    assert not second.take("a/b\n")
    assert second.take("other")
    first.release("a/b\n")
    assert second.take("a/b\n")
    first.close()
    assert (tmp_path / CLAIMS_FOLDER).is_dir()
    second.close()
    assert not (tmp_path / CLAIMS_FOLDER).exists()
    (tmp_path / CLAIMS_FOLDER).symlink_to(tmp_path)
    with pytest.raises(OSError, match="is a link"):
        Claims(tmp_path)


def test_a_mask_that_another_process_makes_meanwhile_is_not_made_again(
    folders: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --resume too: the folder was empty when both began, or is to be overwritten by both."""
    run, images, clean = folders
    original = predict_module.load_models

    def late(*arguments: Any, **choices: Any) -> Any:
        monkeypatch.undo()
        assert len(predict(run, images, tmp_path / "out", device="cpu", resume=True).predicted) == CASES - 1
        return original(*arguments, **choices)

    monkeypatch.setattr(predict_module, "load_models", late)
    result = predict(run, images, tmp_path / "out", device="cpu")
    assert (result.predicted, len(result.others)) == ((), CASES - 1)
    assert content(tmp_path / "out") == clean
    again = predict(run, images, tmp_path / "out", device="cpu", overwrite=True)
    assert (len(again.predicted), again.others) == (CASES - 1, ())


def test_a_second_command_joins_the_one_that_is_at_work_in_its_folder(
    folders: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images, clean = folders
    out = tmp_path / "out"
    go_on = tmp_path / "go on"
    # After its first case the first command waits until the second has one.
    first = start(
        lambda: predict(run, images, out, device="cpu"),
        lambda: wait_for(lambda: go_on.exists() or not list(out.glob("*.json"))),
    )
    wait_for(lambda: list(out.glob("*.json")))
    for other in ({"tta": True}, {"probabilities": True}, {"cases": ["case_01"]}):
        for over in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(OutputExistsError, match="another command is at work in it, with other models"):
                predict(run, images, out, device="cpu", **other, **over)  # type: ignore[arg-type]
    with pytest.raises(OutputExistsError, match="another command is at work in it; leave overwrite=True out"):
        predict(run, images, out, device="cpu", overwrite=True)
    original = Ensemble.predict_case

    def joining(self: Ensemble, *arguments: Any, **choices: Any) -> Any:
        go_on.touch()
        return original(self, *arguments, **choices)

    monkeypatch.setattr(Ensemble, "predict_case", joining)
    joined = predict(run, images, out, device="cpu")
    predicted, others, _ = end(*first)
    names = {f"case_{number:02d}" for number in range(CASES) if number != 5}
    assert set(predicted) | set(joined.predicted) == names
    assert not set(predicted) & set(joined.predicted)
    assert set(joined.skipped) | set(joined.others) == set(predicted)
    assert set(others) == set(joined.predicted)
    assert content(out) == clean
    assert not (out / CLAIMS_FOLDER).exists()
    with pytest.raises(OutputExistsError, match="already exists; make what is missing"):
        predict(run, images, out, device="cpu")


def test_a_killed_command_is_at_work_no_more(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with at_work(tmp_path, "a task"):
            time.sleep(600)
        os._exit(0)
    wait_for(lambda: tasks_at_work(tmp_path) == {"a task"})
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert tasks_at_work(tmp_path) == set()
    with at_work(tmp_path, "another"):
        assert tasks_at_work(tmp_path) == {"another"}
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_cannot_be_removed_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder in which nothing may be deleted: that is no reason to lose a prediction."""

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    ours, theirs = Claims(tmp_path), Claims(tmp_path)
    with monkeypatch.context() as kept:
        kept.setattr(Path, "unlink", refused)
        with at_work(tmp_path, "masks"):
            assert tasks_at_work(tmp_path) == {"masks"}
            assert ours.take("case")
            assert not theirs.take("case")
            ours.release("case")
            assert theirs.take("case")
            assert not ours.take("case")
            theirs.close()
        assert not tasks_at_work(tmp_path)
    ours.close()
    assert not list((tmp_path / CLAIMS_FOLDER).glob(".*.claim"))
