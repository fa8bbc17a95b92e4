"""`check --json` gives the same damage the same code and field, whatever the file is called."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.datasets.problems import problem_of
from medfcn.errors import GeometryMismatchError, VolumeError
from medfcn.volumes.names import extension_of
from tests.volumes.hostile import ACCEPT, GOOD, Hostile, corpus

# Words that messages and codes are made of, and marks that part a message.
NAMES = (
    *("plain", "hip_socket_02", "pipe_01", "truncated", "NaN", "dim", "magic", "qform", "sform", "pixdim"),
    *("the file is cut off", "an empty file", "ANALYZE 7.5", "not NIfTI", "datatype bitpix", "srow affine space"),
    *("header describes", "SHAPE_4D", "given twice; copy it", "a.nii: dim[1] is 0; re-export the file"),
)
CORPUS = [hostile for hostile in corpus() if extension_of(hostile.opened) and hostile.expected != ACCEPT]


def write_as(hostile: Hostile, name: str, folder: Path) -> str:
    """Write a hostile file under a name that keeps its extension; returns the name of the file to open."""
    folder.mkdir()
    for old, content in hostile.content.items():
        (folder / f"{name}{old[len(old) - len(extension_of(old)) :]}").write_bytes(content)
    return f"{name}{hostile.opened[len(hostile.opened) - len(extension_of(hostile.opened)) :]}"


def checked(name: str, folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Code and field of each hostile image's errors, from the JSON of the command."""
    rows = ["id,image,label"]
    for number, hostile in enumerate(CORPUS):
        opened = write_as(hostile, name, folder / f"{number:03d}")
        (folder / f"{number:03d}" / "reference.nii").write_bytes(GOOD)
        rows.append(f'{number:03d},"{number:03d}/{opened}",{number:03d}/reference.nii')
    (folder / "cases.csv").write_text("\n".join(rows))
    done = CliRunner().invoke(main, ["check", str(folder / "cases.csv"), "--json"])
    found: dict[str, list[tuple[str, str]]] = {f"{number:03d}": [] for number in range(len(CORPUS))}
    for problem in json.loads(done.stdout)["problems"]:
        if problem["severity"] == "error":
            found[problem["case"]].append((problem["code"], problem["field"]))
    return found


@pytest.fixture(scope="module")
def under_a_plain_name(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str]]]:
    return checked(NAMES[0], tmp_path_factory.mktemp("plain"))


def test_every_damage_has_the_expected_code(under_a_plain_name: dict[str, list[tuple[str, str]]]) -> None:
    for number, hostile in enumerate(CORPUS):
        codes = {code for code, _ in under_a_plain_name[f"{number:03d}"]}
        assert codes == {hostile.expected}, hostile.name


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_code_does_not_depend_on_the_files_name(
    name: str, under_a_plain_name: dict[str, list[tuple[str, str]]], tmp_path: Path
) -> None:
    assert checked(name, tmp_path) == under_a_plain_name


def test_twenty_names_are_tried() -> None:
    assert len(set(NAMES)) == 20
    assert len(CORPUS) > 200


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_says_what_was_found_without_the_files_name(name: str) -> None:
    error = VolumeError(f"{name}.nii: dim[1] is 0; expected 1; re-export it", code="SHAPE", field="dim[1]")
    problem = problem_of(error, case="c", file=f"images/{name}.nii", role="image")
    assert (problem.found, problem.remedy, problem.field) == ("dim[1] is 0; expected 1", "re-export it", "dim[1]")


@pytest.mark.parametrize("names", ["big.nii: ", "big: ", "big: big.nii: ", "big.nii: big.nii: "])
def test_a_problem_names_its_file_once(names: str) -> None:
    error = VolumeError(f"{names}out of memory: 900 MB needed; close other programs")
    problem = problem_of(error, case="big", file="images/big.nii", role="image")
    assert (problem.found, problem.remedy) == ("out of memory: 900 MB needed", "close other programs")


def test_two_grids_that_differ_are_told_apart_by_role() -> None:
    for code, role, expected in (
        ("", "label", "LABEL_GRID_DIFFERS"),
        ("SHAPE_DIFFERS", "channel", "CHANNEL_SHAPE_DIFFERS"),
    ):
        error = GeometryMismatchError("a: label is 5 mm away from the image; resample it", code=code)
        assert problem_of(error, case="a", file="b.nii", role=role).code == expected
