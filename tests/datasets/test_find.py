"""Files that belong together are found; what cannot be read as a data set is named before any work."""

import unicodedata
from pathlib import Path

import pytest

from medfcn.datasets import find_dataset, find_inputs, find_masks, require_complete
from medfcn.errors import DatasetError, MedfcnError, MissingFileError
from medfcn.labels import read_mask
from tests.datasets.layouts import lacking, lay, line_of

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def test_folders_of_images_and_labels(tmp_path: Path) -> None:
    lay(tmp_path, "images/b.nii.gz", "images/a.nii", "labels/a.nii.gz", "labels/b.nii")
    lay(tmp_path, "images/.hidden.nii.gz", "images/._a.nii", "labels/.DS_Store")
    (tmp_path / "images" / "README.txt").write_text("notes")
    dataset = find_dataset(tmp_path)
    assert dataset.layout == "folders"
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[0].images == (tmp_path / "images/a.nii",)
    assert dataset.cases[0].label == tmp_path / "labels/a.nii.gz"
    assert [case.group for case in dataset.cases] == ["a", "b"]
    assert dataset.channel_names == ("image",)
    assert dataset.relative(tmp_path / "images/a.nii") == "images/a.nii"
    assert dataset.relative(Path("/elsewhere/x.nii")) == "x.nii"


@pytest.mark.parametrize("extension", [".seg.nrrd", ".seg.nhdr", ".SEG.NRRD", ".nrrd", ".mha"])
def test_a_segmentation_of_another_format_belongs_to_its_image(extension: str, tmp_path: Path) -> None:
    """3D Slicer names segmentations `.seg.nrrd`."""
    lay(tmp_path, "images/a.nii.gz", "images/b.v2.nii.gz", f"labels/a{extension}", f"labels/b.v2{extension}")
    dataset = require_complete(find_dataset(tmp_path))
    assert [case.id for case in dataset.cases] == ["a", "b.v2"]
    assert set(find_masks(tmp_path / "labels")) == {"a", "b.v2"}
    assert set(find_masks(tmp_path / "labels" / f"a{extension}")) == {"a"}


def test_channels_are_one_case(tmp_path: Path) -> None:
    lay(tmp_path, *(f"images/{case}_{channel:04d}.nii.gz" for case in ("a", "b") for channel in (0, 1)))
    lay(tmp_path, "labels/a.nii.gz", "labels/b.nii.gz")
    dataset = find_dataset(tmp_path)
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert [path.name for path in dataset.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert dataset.channel_names == ("0000", "0001")
    assert [case.id for case in find_inputs(tmp_path)] == ["a", "b"]
    assert len(find_inputs(tmp_path / "images")[0].images) == 2


def test_a_year_at_the_end_of_a_name_is_no_channel(tmp_path: Path) -> None:
    lay(tmp_path, "images/scan_2021.nii", "images/scan_2022.nii", "labels/scan_2021.nii", "labels/scan_2022.nii")
    assert [case.id for case in find_dataset(tmp_path).cases] == ["scan_2021", "scan_2022"]
    assert [case.id for case in find_inputs(tmp_path)] == ["scan_2021", "scan_2022"]


def test_a_missing_channel_is_a_problem_of_its_case(tmp_path: Path) -> None:
    lay(tmp_path, "images/a_0001.nii", "labels/a.nii")
    with pytest.raises(DatasetError, match="1 of 1 cases are not complete: a: channel _0000 is missing") as caught:
        find_dataset(tmp_path)
    line_of(caught)
    lay(tmp_path, "images/a_0000.nii", "images/b_0000.nii", "labels/b.nii")
    dataset = find_dataset(tmp_path)
    assert [case.id for case in dataset.cases] == ["a"]
    assert dataset.channel_names == ("0000", "0001")
    assert lacking(dataset) == [("CHANNEL_MISSING", "b", "images/b_0000.nii", "channel _0001")]


def test_what_most_cases_have_is_what_a_case_should_have(tmp_path: Path) -> None:
    names = ("a_0000", "a_0001", "b_0000", "b_0001", "c_0000", "c_0001", "c_0002", "d_0001")
    lay(tmp_path, *(f"images/{name}.nii" for name in names), *(f"labels/{case}.nii" for case in "abcd"))
    dataset = find_dataset(tmp_path)
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert dataset.channel_names == ("0000", "0001")
    assert lacking(dataset) == [
        ("CHANNEL_UNEXPECTED", "c", "images/c_0002.nii", "channel _0002"),
        ("CHANNEL_MISSING", "d", "images/d_0001.nii", "channel _0000"),
    ]
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T1", "1": "T2", "2": "PET"}}')
    dataset = find_dataset(tmp_path)
    assert [case.id for case in dataset.cases] == ["c"]
    assert dataset.channel_names == ("T1", "T2", "PET")
    assert [case.id for case in dataset.all_cases] == ["a", "b", "c", "d"]


def test_pairs_are_one_case_and_lonely_files_stay_for_the_reader(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.hdr", "images/a.img", "labels/a.nii", "images/b.img", "labels/b.nii")
    assert [case.images[0].name for case in find_dataset(tmp_path).cases] == ["a.hdr", "b.img"]


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("imagesTr", "labelsTr")])
def test_what_does_not_pair_up_is_a_problem_of_its_case(images: str, labels: str, tmp_path: Path) -> None:
    lay(tmp_path, *(f"{images}/case_{number}.nii" for number in range(2)), f"{labels}/case_0.nii")
    lay(tmp_path, f"{labels}/case_2.nii")
    dataset = find_dataset(tmp_path)
    assert [case.id for case in dataset.cases] == ["case_0"]
    assert lacking(dataset) == [
        ("LABEL_MISSING", "case_1", f"{images}/case_1.nii", "label"),
        ("IMAGE_MISSING", "case_2", f"{labels}/case_2.nii", "image"),
    ]
    assert f"add {labels}/case_1.nii.gz" in dataset.problems[0].remedy
    # What is there is kept, so that it can be read and checked too.
    assert [(len(case.images), case.label) for case in dataset.incomplete] == [
        (1, None),
        (0, tmp_path / labels / "case_2.nii"),
    ]


def test_a_dataset_without_a_complete_case_is_refused_in_one_line(tmp_path: Path) -> None:
    lay(tmp_path, *(f"images/case_{number}.nii" for number in range(6)), "labels/other.nii")
    with pytest.raises(DatasetError, match="7 of 7 cases are not complete: case_0: no label of that name") as caught:
        find_dataset(tmp_path)
    assert " and 4 more; " in line_of(caught)


def test_who_needs_every_case_stops_on_an_incomplete_one(tmp_path: Path) -> None:
    lay(tmp_path, "imagesTr/a_0000.nii", "imagesTr/b_0000.nii", "labelsTr/a.nii")
    (tmp_path / "dataset.json").write_text("{}")
    dataset = find_dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"1 of 2 cases are not complete: b: no label of that name in labelsTr/"):
        require_complete(dataset)
    assert find_masks(tmp_path)["a"] == tmp_path / "labelsTr" / "a.nii"
    with pytest.raises(DatasetError, match=r"^b: no label of that name in labelsTr/"):
        read_mask(find_masks(tmp_path)["b"])
    kept = dataset.keep({"a"})
    assert require_complete(kept) is kept
    assert kept.problems == ()


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.nii", "images/a.nii.gz", "labels/a.nii")
    with pytest.raises(DatasetError, match=r"a: two cases have this id \(images/a\.nii and images/a\.nii\.gz\)"):
        find_dataset(tmp_path)
    assert [case.lacks for case in find_inputs(tmp_path)] == [
        "two cases have this id (images/a.nii and images/a.nii.gz); rename one"
    ]
    with pytest.raises(DatasetError, match=r"a: two cases have this id"):
        read_mask(find_masks(tmp_path / "images")["a"])


def test_unicode_twins_are_named(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")]
    lay(tmp_path, *(f"images/{name}.nii" for name in names), *(f"labels/{name}.nii" for name in names))
    with pytest.raises(DatasetError, match="look alike"):
        find_dataset(tmp_path)
    lay(tmp_path / "apart", f"images/{names[0]}.nii", f"labels/{names[1]}.nii")
    with pytest.raises(DatasetError, match=r"look alike.*labels/.* and images/"):
        find_dataset(tmp_path / "apart")
    (tmp_path / "t.csv").write_text(
        f"id,image,label\n{names[0]},images/{names[0]}.nii,labels/{names[0]}.nii\n"
        f"{names[1]},images/{names[1]}.nii,labels/{names[1]}.nii\n"
    )
    with pytest.raises(DatasetError, match="look alike"):
        find_dataset(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "name", ["a b", "-rf", "Müller ✓", "new\nline", "quote'\"", "100%", "=1+1", "<b>", "\x1b[31m"]
)
def test_odd_ids_work(name: str, tmp_path: Path) -> None:
    lay(tmp_path, f"images/{name}.nii", f"labels/{name}.nii")
    assert [case.id for case in find_dataset(tmp_path).cases] == [name]
    assert list(find_masks(tmp_path)) == [name]


def test_what_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file or folder"):
        find_dataset(tmp_path / "absent")
    with pytest.raises(DatasetError, match="no data set in this folder"):
        find_dataset(tmp_path)
    (tmp_path / "cases.csv").write_text("image,label\n")
    with pytest.raises(DatasetError, match=r"if cases\.csv lists the cases, give that file"):
        find_dataset(tmp_path)
    lay(tmp_path, "images/a.nii")
    with pytest.raises(MissingFileError, match="no labels/"):
        find_dataset(tmp_path)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DatasetError, match="a: no label"):
        find_dataset(tmp_path)
    (tmp_path / "images" / "a.nii").unlink()
    with pytest.raises(DatasetError, match="contains no volumes"):
        find_dataset(tmp_path)
    for path in (tmp_path / "images", "x\0y", "y" * 5000):
        with pytest.raises(MedfcnError):
            find_dataset(path)
        with pytest.raises(MedfcnError):
            find_inputs(path)
        with pytest.raises(MedfcnError):
            find_masks(path)


def test_inputs_to_predict(tmp_path: Path) -> None:
    lay(tmp_path, "a.nii.gz", "b_0000.nii", "b_0001.nii", ".c.nii")
    assert [(case.id, len(case.images)) for case in find_inputs(tmp_path)] == [("a", 1), ("b", 2)]
    assert find_inputs(tmp_path / "a.nii.gz")[0].id == "a"
    assert find_inputs(tmp_path / "b_0000.nii")[0].id == "b"
    assert find_inputs(tmp_path / "a.nii.gz")[0].label is None
    with pytest.raises(MissingFileError):
        find_inputs(tmp_path / "absent.nii")
    (tmp_path / "b_0001.nii").rename(tmp_path / "b_0002.nii")
    with pytest.raises(DatasetError, match="b: channel _0001 is missing"):
        find_inputs(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no volumes"):
        find_inputs(tmp_path / "empty")


def test_masks_by_case(tmp_path: Path) -> None:
    lay(tmp_path, "labels/a.nii.gz", "labels/b.nii", "images/a.nii", "images/b.nii")
    assert {name: path.name for name, path in find_masks(tmp_path).items()} == {"a": "a.nii.gz", "b": "b.nii"}
    assert list(find_masks(tmp_path / "labels")) == ["a", "b"]
    assert list(find_masks(tmp_path / "labels" / "b.nii")) == ["b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no masks"):
        find_masks(tmp_path / "empty")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_datasets_as_they_lie() -> None:
    assert len(find_dataset(SHARED / "hippocampus").cases) == 200
    assert {len(case.images) for case in find_dataset(SHARED / "sts_petct").cases} == {2}
    assert len(find_inputs(SHARED / "sts_mr_t1")) == len(find_masks(SHARED / "sts_mr_t1")) == 24
