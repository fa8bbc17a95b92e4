"""`medfcn look`: the unusual cases of a data set stand first, with the reason, in one page that loads nothing."""

import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.errors import DatasetError, OutputExistsError
from tests.conftest import write_case
from tests.slices.test_likeness import head


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten cases; of two more, one is turned and the other has a label of many times the volume."""
    folder = tmp_path_factory.mktemp("odd")
    for number in range(12):
        image, mask = head(number), np.zeros((30, 36, 20), np.uint8)
        mask[10 : 14 + number % 3, 10:15, 8:11] = 1
        if number == 7:
            image = np.ascontiguousarray(np.rot90(image, 2, (0, 1)))
        if number == 3:
            mask[2:28, 2:34, 2:18] = 1
        write_case(folder, f"case_{number:02}", image, mask)
    return folder


def rows_of(page: str) -> list[tuple[str, str]]:
    """The cases of the table in their order, with their flags."""
    return re.findall(r'<a href="#case-\d+" title="([^"]+)">.*?<td class="words" title="([^"]*)">', page, re.DOTALL)


def test_unusual_cases_stand_first_with_the_reason(odd: Path, tmp_path: Path) -> None:
    page = medfcn.look(odd, tmp_path / "look.html").read_text(encoding="utf-8")
    rows = rows_of(page)
    assert len(rows) == 12
    assert {case for case, _ in rows[:2]} == {"case_03", "case_07"}
    flags = dict(rows)
    assert flags["case_07"] == "looks turned by 180° in the axial plane, compared with the others"
    assert re.fullmatch(r"unusual label_1 [\d.]+ ml", flags["case_03"])
    assert {flag for _, flag in rows[2:]} == {"nothing unusual"}
    assert "2 cases of 12 look unlike the others: case_03 (" in page
    for words in ("voxel edge right-left", "median intensity", "label_1 (ml)", "unusual ones first"):
        assert words in page
    assert "Prediction" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_the_command_writes_one_page_and_replaces_none(odd: Path, tmp_path: Path) -> None:
    output = tmp_path / "look.html"
    result = CliRunner().invoke(main, ["look", str(odd), "-o", str(output), "--labels", "organ=1"])
    assert result.exit_code == 0, result.output
    finding, last = result.stdout.splitlines()
    assert finding.startswith("2 cases of 12 look unlike the others: case_03 (unusual organ ")
    assert last == f"look: {output}"
    assert [path.name for path in tmp_path.iterdir()] == ["look.html"]
    assert "organ (ml)" in output.read_text(encoding="utf-8")
    with pytest.raises(OutputExistsError):
        medfcn.look(odd, output)


def test_a_bad_case_is_named_and_the_others_are_shown(odd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(odd, folder)
    image = folder / "images" / "case_05.nii.gz"
    image.write_bytes(image.read_bytes()[:200])
    page = medfcn.look(folder, tmp_path / "look.html").read_text(encoding="utf-8")
    assert "case_05" not in {case for case, _ in rows_of(page)}
    assert len(rows_of(page)) == 11
    assert re.search(r"<li>case_05: error [A-Z_]+ images/case_05.nii.gz: ", page)


def test_a_data_set_without_a_usable_case_is_refused(odd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    shutil.copytree(odd, folder)
    for image in (folder / "images").iterdir():
        image.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"none: no case can be shown: error FILE_EMPTY"):
        medfcn.look(folder, tmp_path / "look.html")


def test_overlapping_labels_and_merged_values_have_their_volumes(odd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    shutil.copytree(odd, folder)
    for path in (folder / "labels").iterdir():
        image = nibabel.load(path)
        mask = np.asarray(image.dataobj).astype(np.uint8)
        mask[12:14][mask[12:14] > 0] = 2
        nibabel.save(nibabel.Nifti1Image(mask, image.affine), path)
    page = medfcn.look(folder, tmp_path / "look.html", labels="whole=1+2,part=2").read_text(encoding="utf-8")
    rows = re.findall(r'class="words">(whole|part)</td>.*?<td data-sort="([\d.e+-]+)">', page, re.DOTALL)
    sums = {label: sum(float(ml) for name, ml in rows if name == label) for label in ("whole", "part")}
    assert len(rows) == 24
    assert 0 < sums["part"] < sums["whole"]
