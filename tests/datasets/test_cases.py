"""Files that belong together are found as they lie; what cannot be told is named before any work."""

import json
import os
import re
import unicodedata
from pathlib import Path

import pytest

from medfcn.datasets import Dataset, find_dataset, find_inputs, find_masks, require_complete
from medfcn.datasets.dataset_json import Description, read_description
from medfcn.datasets.tables import read_ids
from medfcn.errors import DatasetError, MedfcnError, MissingFileError
from tests.volumes.hostile import GOOD

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def lay(root: Path, *names: str) -> Path:
    """Put good files under these names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(GOOD)
    return root


def line_of(caught: pytest.ExceptionInfo[MedfcnError]) -> str:
    text = str(caught.value)
    assert text.isprintable()
    assert ";" in text
    return text


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


def lacking(dataset: Dataset) -> list[tuple[str, str, str, str]]:
    """Code, case, file and field of every problem; each is one printable line that says what to do."""
    for problem in dataset.problems:
        assert problem.line.isprintable()
        assert problem.severity == "error"
        assert problem.found
        assert problem.remedy
    assert {problem.case for problem in dataset.problems} == {case.id for case in dataset.incomplete}
    return [(problem.code, problem.case, problem.file, problem.field) for problem in dataset.problems]


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
    with pytest.raises(DatasetError, match=r"1 of 2 cases are not complete: b: no label"):
        find_masks(tmp_path)
    kept = dataset.keep({"a"})
    assert require_complete(kept) is kept
    assert kept.problems == ()


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.nii", "images/a.nii.gz", "labels/a.nii")
    with pytest.raises(DatasetError, match=r"a: two cases have this id \(images/a\.nii and images/a\.nii\.gz\)"):
        find_dataset(tmp_path)
    with pytest.raises(DatasetError):
        find_inputs(tmp_path)
    with pytest.raises(DatasetError):
        find_masks(tmp_path / "images")


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


def decathlon(root: Path, training: object, **more: object) -> Path:
    (root / "dataset.json").write_text(json.dumps({"training": training, **more}))
    return root


def test_decathlon(tmp_path: Path) -> None:
    lay(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    root = decathlon(tmp_path, [entry], labels={"0": "background", "1": "Anterior"}, modality={"0": "MRI"})
    for given in (root, root / "dataset.json"):
        dataset = find_dataset(given)
        assert dataset.layout == "decathlon"
        assert dataset.cases[0].id == "a"
        assert dataset.named.names == {1: "Anterior"}
        assert dataset.channel_names == ("MRI",)
    assert find_masks(root)["a"].name == "a.nii.gz"


def test_an_entry_that_lacks_something_is_a_problem_of_its_case(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{kind}/{name}.nii" for kind in ("i", "j", "l") for name in "abcde"))
    pairs = {name: {"image": [f"i/{name}.nii", f"j/{name}.nii"], "label": f"l/{name}.nii"} for name in "abcde"}
    del pairs["b"]["label"]
    pairs["c"]["image"] = []
    pairs["d"]["image"].pop()
    pairs["e"]["label"] = "l/absent.nii"
    dataset = find_dataset(decathlon(tmp_path, list(pairs.values())))
    assert [case.id for case in dataset.cases] == ["a"]
    assert lacking(dataset) == [
        ("LABEL_MISSING", "b", "i/b.nii", "label"),
        ("IMAGE_MISSING", "c", "l/c.nii", "image"),
        ("CHANNEL_MISSING", "d", "i/d.nii", "image[1]"),
        ("FILE_MISSING", "e", "l/absent.nii", "label"),
    ]
    assert dataset.problems[0].found == "no label is named in dataset.json: training[1]"


def test_a_list_of_channels_that_4d_images_hold_asks_for_no_more_files(tmp_path: Path) -> None:
    lay(tmp_path, "i/a.nii", "l/a.nii")
    root = decathlon(tmp_path, [{"image": "i/a.nii", "label": "l/a.nii"}], modality={"0": "T1", "1": "T2"})
    assert require_complete(find_dataset(root)).channel_names == ("image",)


def test_older_nnunet_lists_images_without_their_channel(tmp_path: Path) -> None:
    lay(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    decathlon(tmp_path, [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}])
    case = find_dataset(tmp_path).cases[0]
    assert case.id == "a"
    assert len(case.images) == 2


def test_nnunet(tmp_path: Path) -> None:
    lay(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "tumour": 1}})
    )
    dataset = find_dataset(tmp_path)
    assert dataset.layout == "nnunet"
    assert dataset.cases[0].id == "a"
    assert dataset.channel_names == ("CT", "PET")
    assert dataset.named.names == {1: "tumour"}


def test_the_label_that_nnunet_ignores_is_no_label(tmp_path: Path) -> None:
    lay(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    for labels, names, ignored in (
        ({"background": 0, "tumour": 1, "ignore": 2}, {1: "tumour"}, (2,)),
        ({"0": "background", "1": "tumour", "255": "ignore"}, {1: "tumour"}, (255,)),
        ({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, {}, (3,)),
        ({"background": 0, "tumour": 1}, {1: "tumour"}, ()),
    ):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        dataset = find_dataset(tmp_path)
        assert (dataset.named.names, dataset.ignored) == (names, ignored)


def test_label_names_of_every_kind(tmp_path: Path) -> None:
    for labels, names in (
        ({"0": "background", "2": "b", "1": "a"}, {1: "a", 2: "b"}),
        ({"background": 0, "whole": [1, 2], "core": 2}, {}),
        ({"1": 1, "2": 2}, {1: "1", 2: "2"}),
        ({"organ": "3"}, {3: "organ"}),
        ({}, {}),
    ):
        assert Description(labels=labels).named_labels().names == names


@pytest.mark.parametrize(
    ("about", "key"),
    [
        *(
            ({"labels": {"a": 1, "b": item}}, "labels.b")
            for item in (1.5, None, True, -1, "x", {}, [], [1, "x"], [0, 1], 65536)
        ),
        ({"labels": {"1": {}}}, "labels.1"),
        ({"labels": {"a": 1, "b": 1}}, "labels"),
        ({"labels": {"a": 1, "ignore": 1}}, "labels"),
        ({"labels": []}, "labels"),
        ({"training": []}, "training"),
        ({"training": [{"image": "i/a.nii", "label": ["l/a.nii"]}]}, "training[0].label"),
        ({"training": [{"image": ["i/a.nii", 3], "label": "l/a.nii"}]}, "training[0].image[1]"),
        ({"training": [{"image": "i/a.nii", "label": "l/a.nii"}, {}]}, "training[1]"),
        ({"training": [{"image": "../a.nii", "label": "l/a.nii"}]}, "training[0]"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_error_in_dataset_json_names_file_and_key(about: object, key: str, tmp_path: Path) -> None:
    lay(tmp_path, "i/a.nii", "l/a.nii", "imagesTr/a.nii", "labelsTr/a.nii")
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(DatasetError, match=f"^dataset.json: {re.escape(key)}[: ]") as caught:
        find_dataset(tmp_path)
    line_of(caught)
    assert caught.value.field == key
    assert caught.value.code == ("PATH_OUTSIDE" if ".." in str(about) else "DATASET_JSON")


def test_keys_that_medfcn_does_not_use_may_hold_anything(tmp_path: Path) -> None:
    about = {
        "name": 3,
        "modality": "MRI",
        "channel_names": None,
        "test": [[]],
        "regions_class_order": {},
        "labels": {},
    }
    (tmp_path / "dataset.json").write_text("\ufeff" + json.dumps(about))
    assert read_description(tmp_path / "dataset.json").channels == ()


@pytest.mark.parametrize(
    "training",
    [
        *([], {}, None, 3, "a", [3], [[]], [{}], [{"image": "a.nii"}], [{"image": 3, "label": "a.nii"}]),
        [{"image": "", "label": "labelsTr/a.nii.gz"}],
        [{"image": [], "label": "labelsTr/a.nii.gz"}],
        [{"image": "imagesTr/a.nii.gz\0", "label": "labelsTr/a.nii.gz"}],
        [{"image": "imagesTr/\ud800.nii.gz", "label": "labelsTr/a.nii.gz"}],
        [{"image": "x" * 5000, "label": "labelsTr/a.nii.gz"}],
        [{"image": "imagesTr/b.nii.gz", "label": "labelsTr/a.nii.gz"}],
        [{"image": "imagesTr/a.nii.gz", "label": "imagesTr/a.nii.gz"}],
        [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}] * 2,
    ],
    ids=lambda training: repr(training)[:60],
)
def test_a_training_list_that_cannot_be_read_is_refused(training: object, tmp_path: Path) -> None:
    lay(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises((DatasetError, MissingFileError)) as caught:
        find_dataset(decathlon(tmp_path, training))
    line_of(caught)


OUTSIDE = ["../secret.nii", "/etc/passwd", "images/../../secret.nii", "link/secret.nii"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_that_leave_the_root_are_refused(path: str, tmp_path: Path) -> None:
    lay(tmp_path, "secret.nii", "d/images/a.nii", "d/labels/a.nii")
    root = tmp_path / "d"
    (root / "link").symlink_to(tmp_path)
    decathlon(root, [{"image": path, "label": "labels/a.nii"}])
    with pytest.raises(DatasetError, match="--allow-outside") as caught:
        find_dataset(root)
    line_of(caught)
    (root / "t.csv").write_text(f"image,label\nimages/a.nii,{path}\n")
    with pytest.raises(DatasetError, match=r"t\.csv: line 2.*--allow-outside"):
        find_dataset(root / "t.csv")
    if path != "/etc/passwd":
        assert len(find_dataset(root, allow_outside=True).cases) == 1


def test_a_root_that_is_itself_a_link_is_no_way_out(tmp_path: Path) -> None:
    lay(tmp_path, "d/images/a.nii", "d/labels/a.nii")
    (tmp_path / "link").symlink_to(tmp_path / "d")
    decathlon(tmp_path / "d", [{"image": "images/a.nii", "label": "labels/a.nii"}])
    assert len(find_dataset(tmp_path / "link").cases) == 1


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_tables(name: str, tmp_path: Path) -> None:
    lay(tmp_path, "p1/scan.nii", "p1/seg.nii", "p2/scan.nii", "p2/seg.nii")
    rows = [["id", "image_ct", "label", "group", "fold"], ["x", "p1/scan.nii", "p1/seg.nii", "P1", "1"]]
    rows.append(["y", "p2/scan.nii", "p2/seg.nii", "P2", "2"])
    separator = "\t" if name.endswith("tsv") else ","
    (tmp_path / name).write_text("\ufeff" + "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n")
    dataset = find_dataset(tmp_path / name)
    assert dataset.layout == "table"
    assert [(case.id, case.group, case.fold) for case in dataset.cases] == [("x", "P1", "1"), ("y", "P2", "2")]
    assert dataset.channel_names == ("ct",)
    assert list(find_masks(tmp_path / name)) == ["x", "y"]


def test_a_row_that_lacks_something_is_a_problem_of_its_case(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{kind}/{name}.nii" for kind in ("ct", "pet", "seg") for name in "abc"))
    (tmp_path / "t.csv").write_text(
        "image_ct,image_pet,label,group\n"
        "ct/a.nii,pet/a.nii,seg/a.nii,P\nct/b.nii,,seg/b.nii,Q\nct/c.nii,pet/c.nii,,R\n"
        "ct/d.nii,pet/d.nii,seg/d.nii,S\n,,seg/e.nii,T\n"
    )
    dataset = find_dataset(tmp_path / "t.csv")
    assert [case.id for case in dataset.cases] == ["a"]
    assert lacking(dataset) == [
        ("CHANNEL_MISSING", "b", "ct/b.nii", "image_pet"),
        ("LABEL_MISSING", "c", "ct/c.nii", "label"),
        ("FILE_MISSING", "d", "ct/d.nii", "image"),
        ("FILE_MISSING", "d", "pet/d.nii", "image"),
        ("FILE_MISSING", "d", "seg/d.nii", "label"),
        ("IMAGE_MISSING", "e", "seg/e.nii", "image"),
        ("FILE_MISSING", "e", "seg/e.nii", "label"),
    ]
    assert dataset.problems[2].found == "named in t.csv: line 5 but does not exist"
    assert [case.group for case in dataset.incomplete] == ["Q", "R", "S", "T"]


def test_one_name_in_two_folders_asks_for_an_id(tmp_path: Path) -> None:
    lay(tmp_path, "p1/scan.nii", "p1/seg.nii", "p2/scan.nii", "p2/seg.nii")
    (tmp_path / "t.csv").write_text("image,label\np1/scan.nii,p1/seg.nii\np2/scan.nii,p2/seg.nii\n")
    with pytest.raises(DatasetError, match=r"scan: two cases.*p1/scan\.nii and p2/scan\.nii.*id column"):
        find_dataset(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "\n",
            "a,b\n",
            "image\nimages/a.nii\n",
            "label\nlabels/a.nii\n",
            "image,image_1,label\n",
            "image,label\n",
        ),
        "image,label\nimages/a.nii\n",
        "image,label\nimages/a.nii,labels/a.nii,extra\n",
        "image,image,label\nimages/a.nii,images/a.nii,labels/a.nii\n",
        "image,label\nimages/a.nii,\n",
        "image,label\nimages/b.nii,labels/a.nii\n",
        'image,label\n"images/a.nii,labels/a.nii\n',
        "image,label\n\0,labels/a.nii\n",
        "id,image,label\n../x,images/a.nii,labels/a.nii\n",
        "id,image,label\n.x,images/a.nii,labels/a.nii\n",
        "id,image,label\n" + "x" * 300 + ",images/a.nii,labels/a.nii\n",
        "id,image,label\na,images/a.nii,labels/a.nii\na,images/c.nii,labels/c.nii\n",
        "id,image,label,fold\na,images/a.nii,labels/a.nii,1\nc,images/c.nii,labels/c.nii,\n",
        "id,image,label,group,fold\na,images/a.nii,labels/a.nii,P,1\nc,images/c.nii,labels/c.nii,P,2\n",
        "image,label\n" + "x" * 200_000 + ",labels/a.nii\n",
        "Image,Label\nimages/a.nii,labels/a.nii\n",
    ],
    ids=lambda text: repr(text)[:50],
)
def test_a_table_that_cannot_be_read_is_refused(text: str, tmp_path: Path) -> None:
    lay(tmp_path, "images/a.nii", "labels/a.nii", "images/c.nii", "labels/c.nii")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises((DatasetError, MissingFileError)) as caught:
        find_dataset(tmp_path / "t.csv")
    line_of(caught)


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("\n", "TABLE_EMPTY", ""),
        ("image,label\n", "TABLE_EMPTY", ""),
        ("id,image\na,images/a.nii\n", "TABLE_COLUMNS", "label"),
        ("id,label\na,labels/a.nii\n", "TABLE_COLUMNS", "image"),
        ("image,image,label\na,b,c\n", "TABLE_COLUMNS", "image"),
        ("image,label\nimages/a.nii\n", "TABLE_BROKEN", ""),
        ("image,label\n../a.nii,labels/a.nii\n", "PATH_OUTSIDE", "image"),
        ("image,label\nimages/a.nii,\0\n", "PATH_INVALID", "label"),
        ("id,image,label\n../x,images/a.nii,labels/a.nii\n", "ID_INVALID", "id"),
        ("id,image,label\na,images/a.nii,labels/a.nii\na,images/c.nii,labels/c.nii\n", "ID_DUPLICATE", "id"),
        ("image,label\nimages/a.nii,images/a.nii\n", "FILE_NAMED_TWICE", ""),
        ("image,label,fold\nimages/a.nii,labels/a.nii,1\nimages/c.nii,labels/c.nii,\n", "FOLD_INVALID", "fold"),
        ("image,label\nimages/b.nii,labels/a.nii\n", "CASES_INCOMPLETE", ""),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_refused_table_has_a_code_and_a_field_whatever_its_name(
    text: str, code: str, field: str, tmp_path: Path
) -> None:
    lay(tmp_path, "images/a.nii", "labels/a.nii", "images/c.nii", "labels/c.nii")
    for name in ("t.csv", "column_label_id_outside.csv"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DatasetError) as caught:
            find_dataset(tmp_path / name)
        assert (caught.value.code, caught.value.field) == (code, field)


def test_a_table_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"image,label\nM\xfcller.nii,a.nii\n")
    with pytest.raises(DatasetError, match="not UTF-8"):
        find_dataset(tmp_path / "t.csv")


def test_groups_come_from_a_file(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{folder}/{name}.nii" for folder in ("images", "labels") for name in ("a", "b", "c")))
    groups = tmp_path / "groups.csv"
    groups.write_text("id,group\na,P1\nb,P1\nc,P2\nnot here,P3\n")
    assert [case.group for case in find_dataset(tmp_path, groups=groups).cases] == ["P1", "P1", "P2"]
    lay(tmp_path, "images/without_label.nii")
    assert find_dataset(tmp_path, groups=groups).incomplete[0].group == "without_label"
    for text, words in (
        ("id,group\na,P1\nb,P1\n", "no group for c"),
        ("id,group\na,P1\na,P2\nb,P\nc,P\n", "no group or two"),
        ("id,patient\na,P1\n", "expected id, group"),
        ("id,group\na,\nb,P\nc,P\n", "no group or two"),
    ):
        groups.write_text(text)
        with pytest.raises(DatasetError, match=words):
            find_dataset(tmp_path, groups=groups)
    with pytest.raises(MissingFileError):
        find_dataset(tmp_path, groups=tmp_path / "absent.csv")


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


NO_JSON = ["", "[]", "3", "{", '{"a": NaN', "nul", "[" * 100_000, '{"training": ' + "9" * 5000 + "}", "\ufeff{"]


@pytest.mark.parametrize("text", NO_JSON, ids=lambda text: repr(text)[:20])
def test_json_that_cannot_be_read_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError) as caught:
        find_dataset(tmp_path)
    line_of(caught)


def test_special_files_in_place_of_tables_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dataset.json")
    with pytest.raises(DatasetError, match="not a file"):
        find_dataset(tmp_path)


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


def test_a_message_of_the_csv_reader_stays_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"a"x\t,b\tc\n"a"\t')
    (tmp_path / "t.tsv").write_text('"a"x\tb\n')
    for name in ("t.csv", "t.tsv"):
        with pytest.raises(DatasetError) as caught:
            find_dataset(tmp_path / name)
        line_of(caught)


def test_ids_are_read_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text("case_1\n\n case 2 \n")
    assert read_ids(path) == ("case_1", "case 2")
    path.write_text("\n")
    with pytest.raises(DatasetError, match="contains no case id"):
        read_ids(path)
    with pytest.raises(MissingFileError):
        read_ids(tmp_path / "none.txt")
    with pytest.raises(DatasetError, match="not a file"):
        read_ids(tmp_path)
