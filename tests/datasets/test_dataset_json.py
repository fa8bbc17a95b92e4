"""`dataset.json` of the Decathlon, nnU-Net and MONAI is read; an error names the file and the key."""

import json
import os
import re
from pathlib import Path

import pytest

from medfcn.datasets import find_dataset, find_masks, require_complete
from medfcn.datasets.dataset_json import Description, read_description
from medfcn.errors import DatasetError, MissingFileError
from tests.datasets.layouts import decathlon, lacking, lay, line_of


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
            for item in (1.5, None, True, -1, "x", {}, [], [1, "x"], [0, 1], 2**32)
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


def test_a_data_list_of_monai(tmp_path: Path) -> None:
    """Auto3DSeg adds folds and more to each entry; `validation` and `testing` are lists of their own."""
    lay(tmp_path, "i/a_t1.nii", "i/a_t2.nii", "l/a.nii", "i/b_t1.nii", "i/b_t2.nii", "l/b.nii")
    entries = [
        {"fold": number, "image": [f"i/{name}_t1.nii", f"i/{name}_t2.nii"], "label": f"l/{name}.nii", "class": {}}
        for number, name in enumerate("ab")
    ]
    dataset = find_dataset(decathlon(tmp_path, entries, testing=[{"image": "i/c.nii"}], validation=[]))
    assert [(case.id, len(case.images)) for case in dataset.cases] == [("a_t1", 2), ("b_t1", 2)]


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


def test_a_root_that_is_itself_a_link_is_no_way_out(tmp_path: Path) -> None:
    lay(tmp_path, "d/images/a.nii", "d/labels/a.nii")
    (tmp_path / "link").symlink_to(tmp_path / "d")
    decathlon(tmp_path / "d", [{"image": "images/a.nii", "label": "labels/a.nii"}])
    assert len(find_dataset(tmp_path / "link").cases) == 1


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


@pytest.mark.parametrize(
    ("about", "field", "found"),
    [
        ({"numTraining": 3}, "numTraining", "numTraining is 3, but there are 2 cases"),
        (
            {"channel_names": {"0": "T1", "1": "T2"}},
            "channel_names",
            "the channels T1, T2 are named, but a case has 1",
        ),
        ({"channel_names": {"1": "T1"}}, "channel_names", "the channels T1 are named, but a case has 1"),
        ({"channel_names": ["T1", "T2"]}, "channel_names", "the channels ['T1', 'T2'] are named, but a case has 1"),
        (
            {"modality": {"0": "CT"}, "channel_names": {"0": "MRI"}},
            "modality",
            "modality and channel_names name other",
        ),
        ({"labels": {"background": 3, "organ": 1}}, "labels", "the label background has the value 3"),
        ({"labels": {"1": "Background", "2": "organ"}}, "labels", "the label Background has the value 1"),
        ({"labels": {"liver": 0, "spleen": 1}}, "labels", "the label liver has the value 0, which is background"),
    ],
)
def test_what_contradicts_the_files_is_named(
    about: dict[str, object], field: str, found: str, tmp_path: Path
) -> None:
    lay(tmp_path, *(name for case in "ab" for name in (f"imagesTr/{case}_0000.nii", f"labelsTr/{case}.nii")))
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    (problem,) = find_dataset(tmp_path).problems
    assert (problem.code, problem.severity, problem.field) == ("DATASET_CONTRADICTED", "warning", field)
    assert found in problem.line


def test_what_agrees_with_the_files_is_not_named(tmp_path: Path) -> None:
    lay(tmp_path, *(name for case in "ab" for name in (f"imagesTr/{case}_0000.nii", f"labelsTr/{case}.nii")))
    for zero in ("background", "Background", "clear label", "unlabelled", "bg"):
        about = {"numTraining": 2, "modality": {"0": "MRI"}, "labels": {"0": zero, "1": "organ"}}
        (tmp_path / "dataset.json").write_text(json.dumps(about))
        assert not find_dataset(tmp_path).problems
