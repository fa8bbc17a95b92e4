"""The names in a run folder."""

from pathlib import Path

from medfcn.runs.folder import Entry, RunFolder


def test_a_name_is_a_path_within_the_run() -> None:
    run = RunFolder(Path("run"))
    entries = [name for name, entry in vars(RunFolder).items() if isinstance(entry, Entry)]
    assert {str(getattr(run, name)) for name in entries} == {f"run/{getattr(RunFolder, name)}" for name in entries}
    assert run.fold(2).scores == Path("run/fold_2/validation/scores.csv")


def test_models_are_those_of_the_folds_unless_the_run_has_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.models() == (run,)
    for number in (1, 2):
        run.fold(number).path.mkdir()
    (tmp_path / "fold_notes.txt").touch()
    assert list(run.folds()) == ["1", "2"]
    assert run.models() == (run.fold(1), run.fold(2))
    run.card.touch()
    assert run.models() == (run,)
