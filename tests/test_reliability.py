"""The scorecard keeps its counters, tells what went wrong, and never counts what it did not do."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("reliability")


def a_row(card: ModuleType, run: Any) -> Any:
    return card.Row(3, "things", "all right", 10, 2, run)


def test_a_row_goes_on_where_it_was(card: ModuleType, tmp_path: Path) -> None:
    seen: list[int] = []

    def run(work: Any) -> str:
        for number in work.loop():
            seen.append(number)
            work.add("things")
            if number in (3, 7):
                work.seconds = 0.0
        return f"{work.facts['things']} things"

    row = a_row(card, run)
    first = card.measure(row, tmp_path, minutes=None, quick=False)
    assert (first.done, first.figure, first.met) == (4, "4 things", "so far (4 of 10)")
    second = card.measure(row, tmp_path, minutes=None, quick=False)
    assert (second.done, second.met) == (8, "so far (8 of 10)")
    assert card.measure(row, tmp_path, minutes=None, quick=False).met == "yes"
    assert seen == list(range(10))
    assert card.measure(row, tmp_path, minutes=None, quick=False).figure == "10 things"
    assert seen == list(range(10))
    assert "| 3 | things | all right | 10 things | yes |" in card.table([row], tmp_path)


def test_what_went_wrong_is_kept_and_is_not_met(card: ModuleType, tmp_path: Path) -> None:
    def run(work: Any) -> str:
        for number in work.loop():
            if number == 1:
                raise OSError("of the row itself")
            work.fail("a\nbad   thing")
        return ""

    found = card.measure(a_row(card, run), tmp_path, minutes=None, quick=False)
    assert found.met == "no"
    assert found.failures == ("a bad thing", "the row itself ended with OSError: of the row itself")
    assert card.read_result(tmp_path / "row_03.json") == found


def test_what_cannot_be_measured_says_why(card: ModuleType, tmp_path: Path) -> None:
    def run(work: Any) -> str:
        raise card.NotMeasuredError("there are no wings")

    assert card.measure(a_row(card, run), tmp_path, minutes=None, quick=True).met == "not measured"
    assert "| there are no wings | not measured |" in card.table([a_row(card, run)], tmp_path)


def test_the_readers_of_headers_agree_on_usual_ones(card: ModuleType, tmp_path: Path) -> None:
    headers, readers = (importlib.import_module(f"scorecard.{name}") for name in ("headers", "readers"))
    seen = set()
    for seed in range(60):
        header, voxels, as_gzip = headers.generated(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = folder / ("a.nii.gz" if as_gzip else "a.nii")
        path.write_bytes(header.content(voxels, as_gzip=as_gzip))
        found = [read(path) for read in (readers.by_nibabel, readers.by_simpleitk, readers.by_medfcn)]
        if not header.odd:
            assert not any(one.refused for one in found)
            assert not any(readers.apart(found[a], found[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
        seen |= {bool(header.odd)}
    assert seen == {False, True}


def test_every_row_of_the_scorecard_is_there_once(card: ModuleType) -> None:
    assert [row.number for row in card.rows()] == list(range(1, 22))
