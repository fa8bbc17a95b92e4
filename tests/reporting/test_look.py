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
from medfcn.labels import LabelMap
from medfcn.labels.sidecar import MaskRecord
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


@pytest.mark.parametrize(
    ("cases", "line"),
    [
        (1, "1 case is too few to say which look unlike the others: that takes 8"),
        (8, "0 cases of 8 look unlike the others"),
    ],
)
def test_nothing_unusual_is_said_too(cases: int, line: str, tmp_path: Path) -> None:
    voxels = np.zeros((8, 9, 10), dtype=np.uint8)
    voxels[2:6, 3:6, 2:7] = 1
    for number in range(cases):
        write_case(tmp_path / "data", f"case_{number}", voxels * 100.0, voxels)
    result = CliRunner().invoke(main, ["look", str(tmp_path / "data"), "-o", str(tmp_path / "look.html")])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == line


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
    result = CliRunner().invoke(main, ["look", str(folder), "-o", str(tmp_path / "again.html"), "--progress", "none"])
    assert "case_05" not in result.stdout
    (line,) = result.stderr.splitlines()
    assert re.match(r"error [A-Z_]+ images/case_05.nii.gz: ", line)


def test_a_refused_case_that_can_be_seen_is_no_odd_one(odd: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(odd, tmp_path / "doubled")
    shutil.copy(folder / "images" / "case_05.nii.gz", folder / "images" / "case_06.nii.gz")
    codes = {problem.code for problem in medfcn.check(folder).errors}
    assert codes
    page = medfcn.look(folder, tmp_path / "look.html").read_text(encoding="utf-8")
    assert {case for case, flag in rows_of(page) if flag != "nothing unusual"} == {"case_03", "case_07"}
    assert re.search(r"<li>case_0[56]: error", page)


def test_an_option_is_not_the_value_of_the_option_in_front_of_it(odd: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["look", str(odd), "--png", "--ground", "light", "-o", str(tmp_path / "l.html")]
    )
    assert result.exit_code == 2
    assert "Option '--png' requires a value, and '--ground' follows." in result.stderr


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


def test_masks_are_looked_at_with_images_and_without(odd: Path, tmp_path: Path) -> None:
    alone = medfcn.look(odd / "labels", tmp_path / "alone.html").read_text(encoding="utf-8")
    assert len(rows_of(alone)) == 12
    assert "intensity" not in re.sub(r"<(script|style)>.*?</\1>", "", alone, flags=re.DOTALL)
    assert dict(rows_of(alone))["case_03"].startswith("unusual label_1")
    shown = medfcn.look(odd / "labels", tmp_path / "both.html", images=odd / "images").read_text(encoding="utf-8")
    whole = medfcn.look(odd, tmp_path / "whole.html").read_text(encoding="utf-8")
    assert rows_of(shown) == rows_of(whole)
    (one,) = rows_of(
        medfcn.look(
            odd / "labels" / "case_01.nii.gz", tmp_path / "one.html", images=odd / "images" / "case_02.nii.gz"
        ).read_text(encoding="utf-8")
    )
    assert one == ("case_01", "nothing unusual")


def test_masks_and_images_that_do_not_belong_together_are_refused_or_named(odd: Path, tmp_path: Path) -> None:
    shutil.copytree(odd / "images", tmp_path / "some")
    (tmp_path / "some" / "case_04.nii.gz").unlink()
    page = medfcn.look(odd / "labels", tmp_path / "look.html", images=tmp_path / "some").read_text(encoding="utf-8")
    assert dict(rows_of(page))["case_04"] == "no image has the name of this mask"
    for path in (tmp_path / "some").iterdir():
        path.rename(path.with_name(f"other_{path.name}"))
    with pytest.raises(DatasetError, match=r"no mask has the name of an image"):
        medfcn.look(odd / "labels", tmp_path / "none.html", images=tmp_path / "some")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no data set in this folder"):
        medfcn.look(tmp_path / "empty", tmp_path / "none.html")


def test_names_of_predicted_labels_are_those_of_their_records(odd: Path, tmp_path: Path) -> None:
    labels = LabelMap.parse("liver=7")
    for path in (odd / "labels").iterdir():
        shutil.copy(path, tmp_path)
        image = nibabel.load(tmp_path / path.name)
        nibabel.save(nibabel.Nifti1Image(7 * np.asarray(image.dataobj), image.affine), tmp_path / path.name)
        MaskRecord(labels=labels).write(tmp_path / path.name)
    page = medfcn.look(tmp_path, tmp_path / "look.html").read_text(encoding="utf-8")
    assert "liver (ml)" in page
    assert dict(rows_of(page))["case_03"].startswith("unusual liver")


def test_histograms_of_intensities_and_orientations(odd: Path, tmp_path: Path) -> None:
    page = medfcn.look(odd, tmp_path / "look.html").read_text(encoding="utf-8")
    chart = re.search(r'<svg[^>]*aria-label="intensity".*?</svg>', page, re.DOTALL).group()
    bars = [[float(part) for part in line.split(",")] for line in re.findall(r'<rect [^>]*data-csv="([^"]+)"', chart)]
    assert len(bars) == 40
    assert sum(percent for _, _, percent in bars) == pytest.approx(100, abs=0.01)
    orders = re.search(r'<svg[^>]*aria-label="stored as".*?</svg>', page, re.DOTALL).group()
    assert re.findall(r'<rect [^>]*data-csv="([^"]+)"', orders) == ["LPS,12"]


def test_pictures_of_chosen_cases_and_none_is_replaced(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("case_02\ncase_05\n", encoding="utf-8")
    folder = tmp_path / "png"
    arguments = ["look", str(odd), "-o", str(tmp_path / "look.html"), "--png", str(folder)]
    arguments += ["--cases", str(tmp_path / "ids.txt"), "--ground", "light"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"pictures: {folder}"
    assert sorted(path.name for path in folder.iterdir()) == ["case_02.png", "case_05.png"]
    (tmp_path / "look.html").unlink()
    assert CliRunner().invoke(main, arguments).exit_code == 1
    assert not (tmp_path / "look.html").exists()
    result = CliRunner().invoke(main, [*arguments, "--overwrite", "--slices", "axial=99"])
    assert result.exit_code == 3
    assert "case_02: no picture: case_02: has 20 axial slices and no number 99" in result.stderr
    result = CliRunner().invoke(main, [*arguments, "--overwrite", "--slices", "axail=9"])
    assert result.exit_code == 2


def test_other_cases_of_a_patient_are_no_witnesses(odd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    shutil.copytree(odd, folder)
    for visit in range(6):
        for part in ("images", "labels"):
            source = nibabel.load(folder / part / "case_07.nii.gz")
            array = np.asarray(source.dataobj) + (visit + 1 if part == "images" else 0)
            kept = nibabel.Nifti1Image(array.astype(source.get_data_dtype()), source.affine)
            nibabel.save(kept, folder / part / f"case_07_visit{visit}.nii.gz")
    page = medfcn.look(folder, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "looks turned" not in page
    page = medfcn.look(folder, tmp_path / "b.html", group_by=r"case_\d+").read_text(encoding="utf-8")
    assert sum(flag.startswith("looks turned by 180°") for _, flag in rows_of(page)) == 7


def test_one_broken_record_stops_no_other_mask(odd: Path, tmp_path: Path) -> None:
    for path in sorted((odd / "labels").iterdir())[:4]:
        shutil.copy(path, tmp_path)
        MaskRecord(labels=LabelMap.parse("liver=1")).write(tmp_path / path.name)
    (tmp_path / "case_00.json").write_text('{"labels": {"entries": 5}, "mask_sha256": ""}')
    rows = dict(rows_of(medfcn.look(tmp_path, tmp_path / "look.html").read_text(encoding="utf-8")))
    assert len(rows) == 4
    assert rows["case_00"].startswith("case_00.json: labels: entries: expected array, found int")
