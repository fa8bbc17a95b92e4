"""`train --overwrite` keeps the old run until the new one is complete, wherever it fails or is killed."""

from contextlib import suppress
from pathlib import Path

import pytest

from medfcn.errors import OutputExistsError
from medfcn.progress import Silent
from medfcn.runs.folder import RunFolder
from medfcn.runs.replaced import drop, put_back, set_aside, set_folds_aside, settle

NAMES = ("model.safetensors", "cases.csv", "log.csv", "report.html", "validation/scores.csv", "model.json")


def lay(folder: Path, text: str = "old") -> Path:
    """A finished run."""
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


class KilledError(BaseException):
    pass


def test_an_old_run_comes_back_where_the_new_one_left_nothing(tmp_path: Path) -> None:
    run = lay(tmp_path / "run")
    before = content(run)
    set_aside(run)
    assert not any((run / name).exists() for name in NAMES)
    put_back(run)
    assert content(run) == before
    assert not RunFolder(run).replaced.exists()


def test_an_old_run_goes_once_the_new_one_is_complete(tmp_path: Path) -> None:
    run = lay(tmp_path / "run")
    set_aside(run)
    lay(run, "new")
    drop(run)
    assert set(content(run).values()) == {"new"}


def test_the_run_of_a_killed_attempt_is_not_kept_in_place_of_the_whole_one(tmp_path: Path) -> None:
    run = lay(tmp_path / "run")
    before = content(run)
    set_aside(run)
    (run / "cases.csv").write_text("half a run")
    set_aside(run)
    put_back(run)
    assert content(run) == before


@pytest.mark.parametrize("moves", range(len(NAMES) + 1))
@pytest.mark.parametrize("way", ["aside", "back"])
def test_a_kill_between_two_moves_loses_nothing(
    way: str, moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lay(tmp_path / "run")
    before, original, made = content(run), Path.rename, 0
    if way == "back":
        set_aside(run)

    def rename(path: Path, target: Path) -> Path:
        nonlocal made
        made += 1
        if made > moves:
            raise KilledError
        return original(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with suppress(KilledError):
        (set_aside if way == "aside" else put_back)(run)
    monkeypatch.setattr(Path, "rename", original)
    settle(run)
    if not RunFolder(run).is_finished:
        put_back(run)
    assert content(run) == before


def test_folds_that_the_new_run_has_not_are_kept_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for number in (1, 2, 3):
        lay(run / f"fold_{number}", f"fold {number}")
    before = content(run)
    set_folds_aside(run, Silent(), held=[run / "fold_1"])
    assert set(RunFolder(run).folds()) == {"1"}
    assert not RunFolder(run / "fold_1").is_finished
    put_back(run / "fold_1")
    put_back(run)
    assert content(run) == before


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    run, other = lay(tmp_path / "run"), tmp_path / "other"
    other.mkdir()
    RunFolder(run).replaced.symlink_to(other)
    with pytest.raises(OutputExistsError):
        set_aside(run)
    assert not list(other.iterdir())
