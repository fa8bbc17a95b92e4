"""Every command of the page on viewers runs, and what it writes has the names and colours that the page promises."""

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from medfcn.cli import main
from tests.documents import commands_of
from tests.inference.models import blobs, saved, tiny_model, write_image

COMMANDS = commands_of("docs/how-to/viewers.md")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and two volumes of one patient."""
    monkeypatch.chdir(tmp_path)
    saved(tiny_model(labels="ball=1"), tmp_path / "RUN")
    for name in ("p1_before", "p1_after"):
        write_image(tmp_path / "images" / f"{name}.nii.gz", blobs(seed=len(name)))
    (tmp_path / "pairs.csv").write_text("before,after\np1_before,p1_after\n")
    return tmp_path


def ran(line: str) -> None:
    result = CliRunner().invoke(main, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output


def test_a_segmentation_for_slicer_has_names_and_colours(place: Path) -> None:
    slicerio = pytest.importorskip("slicerio", reason="slicerio is not installed: pip install slicerio")
    ran(COMMANDS[0])
    found = slicerio.read_segmentation(str(place / "masks" / "seg_nrrd" / "p1_after.seg.nrrd"))
    assert [segment["name"] for segment in found["segments"]] == ["ball"]
    assert "ball" in (place / "masks" / "labels.ctbl").read_text()


def test_a_table_for_itk_snap_has_the_chosen_colour(place: Path) -> None:
    ran(COMMANDS[1])
    last = (place / "masks" / "labels.txt").read_text().splitlines()[-1].split()
    assert last == ["1", "0", "158", "115", "1", "1", "1", '"ball"']


def test_two_times_have_a_change(place: Path) -> None:
    ran(COMMANDS[0])
    ran(COMMANDS[2])
    lines = (place / "sizes" / "changes.csv").read_text().splitlines()
    assert lines[1].startswith("p1_before,p1_after,ball,")


def test_the_page_has_no_command_beyond_these() -> None:
    assert len(COMMANDS) == 3
