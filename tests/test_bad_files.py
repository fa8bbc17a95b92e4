"""One bad file never stops a folder: `check`, `train --skip-bad`, `predict` and `evaluate` name it, and go on."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import medfcn
from medfcn.datasets import find_dataset, find_inputs, find_masks
from medfcn.errors import MedfcnError
from medfcn.labels import read_mask
from medfcn.labels.sidecar import MaskRecord
from medfcn.progress import Silent
from medfcn.training.survey import survey
from medfcn.volumes.options import DEFAULT_OPTIONS
from tests.conftest import draw_ball
from tests.inference.models import saved, tiny_model
from tests.structures import save

LONG = "x" * 248


def _volume(role: str, number: int) -> np.ndarray:
    return draw_ball(number)[role != "images"]


def _link(folder: Path, role: str, name: str, target: str) -> None:
    (folder / name).symlink_to(target)


def _twins(folder: Path, role: str) -> None:
    save(folder / "bad.nii", _volume(role, 21))
    save(folder / "bad.nii.gz", _volume(role, 22))


def _latin(folder: Path, role: str) -> None:
    path = save(folder / "t.nii.gz", _volume(role, 23))
    path.rename(os.fsdecode(os.fsencode(folder) + b"/bad\xe9.nii.gz"))


def _two_inside(folder: Path, role: str) -> None:
    for name in ("a", "b"):
        save(folder / "bad.nii.gz" / f"{name}.nii", _volume(role, 24))


BAD: dict[str, tuple[Callable[[Path, str], object], str, str]] = {
    "annex": (
        lambda folder, role: _link(folder, role, "bad.nii.gz", "../.git/annex/objects/aa/s1.nii.gz"),
        "bad",
        "content was not fetched; run `datalad get` or `git annex get`",
    ),
    "dvc-link": (
        lambda folder, role: _link(folder, role, "bad.nii.gz", "/nowhere/.dvc/cache/files/md5/aa"),
        "bad",
        "content was not fetched; run `dvc pull`",
    ),
    "dangling": (lambda folder, role: _link(folder, role, "bad.nii", "gone.nii"), "bad", "content was not fetched"),
    "loop": (lambda folder, role: _link(folder, role, "bad.nii", "bad.nii"), "bad", "symbolic links"),
    "pipe": (lambda folder, role: os.mkfifo(folder / "bad.nii.gz"), "bad", "a pipe (FIFO), not a file"),
    "dvc": (
        lambda folder, role: (folder / "bad.nii.gz.dvc").write_text("outs:\n- path: bad.nii.gz\n"),
        "bad",
        "bad.nii.gz.dvc is there: its content was not fetched; run `dvc pull`",
    ),
    "lfs": (
        lambda folder, role: (folder / "bad.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "bad",
        "content was not fetched; run `git lfs pull`",
    ),
    "unlocked": (
        lambda folder, role: (folder / "bad.nii.gz").write_text("/annex/objects/SHA256E-s12--aa.nii.gz\n"),
        "bad",
        "content was not fetched; run `git annex get`",
    ),
    "long": (lambda folder, role: save(folder / f"{LONG}.nii.gz", _volume(role, 20)), LONG, "at most 200 bytes"),
    "not-utf8": (_latin, "bad\\xe9", "cannot name a file"),
    "twins": (_twins, "bad", "two cases have this id"),
    "empty-folder": (lambda folder, role: (folder / "bad.nii.gz").mkdir(), "bad", "a folder with no volume in it"),
    "full-folder": (_two_inside, "bad", "a folder with 2 volumes in it (a.nii, b.nii)"),
    "nested-folder": (
        lambda folder, role: save(folder / "bad.nii" / "in.nii" / "a.nii", _volume(role, 24)),
        "bad",
        "a folder with 1 volumes in it",
    ),
}
"""By kind: how a bad file comes to a folder of images or masks, the id of its case, and what is said of it."""


def lay_out(root: Path, kind: str, bad: str) -> str:
    """Four good cases in `images`, `labels` and `masks`, and a bad one in one of them; returns its id."""
    make, name, _ = BAD[kind]
    for role in ("images", "labels", "masks"):
        for number in range(4):
            save(root / role / f"good_{number}.nii.gz", _volume(role, number))
        if role != bad and len(name) < 200 and name.isascii() and "\\" not in name:
            save(root / role / f"{name}.nii.gz", _volume(role, 9))
    make(root / bad, bad)
    return name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_model(), tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("role", ["images", "labels"])
@pytest.mark.parametrize("kind", list(BAD))
def test_check_has_a_row_for_it(kind: str, role: str, tmp_path: Path) -> None:
    name = lay_out(tmp_path, kind, role)
    report = medfcn.check(tmp_path)
    assert {problem.case for problem in report.errors} == {name}
    assert any(BAD[kind][2] in problem.line.replace("\\\\", "\\") for problem in report.errors)
    assert [case.id for case in report.cases if case.id.startswith("good") and case.label] == [
        f"good_{number}" for number in range(4)
    ]
    json.dumps(report.to_json(), ensure_ascii=False).encode()
    assert report.to_text().encode()


@pytest.mark.parametrize("role", ["images", "labels"])
@pytest.mark.parametrize("kind", list(BAD))
def test_training_leaves_it_out_on_request(kind: str, role: str, tmp_path: Path) -> None:
    name = lay_out(tmp_path, kind, role)
    dataset = find_dataset(tmp_path)
    found = survey(dataset, None, DEFAULT_OPTIONS, skip_bad=True, progress=Silent())
    assert [case.id for case in found.cases] == [f"good_{number}" for number in range(4)]
    assert [case for case, _ in found.problems] == [name]
    with pytest.raises(MedfcnError, match=r"1 of 5 cases cannot be used.*skip_bad=True"):
        survey(dataset, None, DEFAULT_OPTIONS, skip_bad=False, progress=Silent())


@pytest.mark.parametrize("kind", list(BAD))
def test_predict_has_a_row_for_it(kind: str, run: Path, tmp_path: Path) -> None:
    name = lay_out(tmp_path, kind, "images")
    done = medfcn.predict(run, tmp_path / "images", tmp_path / "out")
    assert done.predicted == tuple(f"good_{number}" for number in range(4))
    assert [case for case, _ in done.failures] == [name]
    assert BAD[kind][2] in done.failures[0][1]
    assert name in (tmp_path / "out" / "failures.csv").read_text() or "\\" in name
    again = medfcn.predict(run, tmp_path / "images", tmp_path / "out", resume=True)
    assert (again.predicted, again.skipped) == ((), done.predicted)


@pytest.mark.parametrize("role", ["labels", "masks"])
@pytest.mark.parametrize("kind", list(BAD))
def test_evaluate_has_a_row_for_it(kind: str, role: str, tmp_path: Path) -> None:
    name = lay_out(tmp_path, kind, role)
    table = medfcn.evaluate(tmp_path / "masks", tmp_path / "labels")
    good = [row for row in table.rows if row.case.startswith("good")]
    assert [(row.case, row.dice) for row in good] == [(f"good_{number}", 1.0) for number in range(4)]
    said = " ".join((*(f"{case}: {line}" for case, line in table.failures), *table.notes))
    assert name in said
    assert BAD[kind][2] in said or name not in {case for case, _ in table.failures}


@pytest.mark.parametrize("role", ["images", "labels", "masks"])
def test_a_folder_with_one_volume_stands_for_it(role: str, run: Path, tmp_path: Path) -> None:
    for other in ("images", "labels", "masks"):
        save(tmp_path / other / "good.nii.gz", _volume(other, 1))
        where = tmp_path / other / "BraTS20_001.nii.gz"
        save(where / "any_name.nii" if other == role else where, _volume(other, 2))
    assert not medfcn.check(tmp_path).errors
    assert medfcn.predict(run, tmp_path / "images", tmp_path / "out").predicted == ("BraTS20_001", "good")
    table = medfcn.evaluate(tmp_path / "masks", tmp_path / "labels")
    assert [(row.case, row.dice) for row in table.rows] == [("BraTS20_001", 1.0), ("good", 1.0)]


def test_a_table_may_name_such_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "a_flair.nii" / "1.nii", _volume("images", 1))
    save(tmp_path / "a_seg.nii" / "2.nii", _volume("labels", 1))
    (tmp_path / "cases.csv").write_text("image,label\na_flair.nii,a_seg.nii\n")
    assert not medfcn.check(tmp_path / "cases.csv").errors


@pytest.mark.parametrize(
    "content",
    [
        '{"labels": {"background": 0, "liver": 1}}',
        '{"labels": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "[" * 100_000,
        '{"mask": 1, "labels": ["liver"]}',
        "\xff\xfe",
        "",
    ],
    ids=["labels", "deep", "cut-off", "list", "bytes", "empty"],
)
def test_the_json_of_another_tool_is_no_record(content: str, tmp_path: Path) -> None:
    mask = save(tmp_path / "masks" / "a.nii.gz", _volume("masks", 1))
    (tmp_path / "masks" / "a.json").write_bytes(content.encode("latin-1"))
    save(tmp_path / "labels" / "a.nii.gz", _volume("labels", 1))
    assert MaskRecord.beside(mask) is None
    assert [row.dice for row in medfcn.evaluate(tmp_path / "masks", tmp_path / "labels").rows] == [1.0]


def test_a_pipe_in_the_place_of_a_record_is_no_record(tmp_path: Path) -> None:
    mask = save(tmp_path / "a.nii.gz", _volume("masks", 1))
    os.mkfifo(tmp_path / "a.json")
    assert MaskRecord.beside(mask) is None


def test_a_broken_record_is_the_failure_of_its_case(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for role in ("labels", "masks"):
            save(tmp_path / role / f"{name}.nii.gz", _volume(role, 1))
    (tmp_path / "masks" / "a.json").write_text('{"mask_sha256": "0", "labels": {"entries": 3}}')
    table = medfcn.evaluate(tmp_path / "masks", tmp_path / "labels")
    assert {row.case: row.dice for row in table.rows if row.case == "b"} == {"b": 1.0}
    assert any("a.json: labels: entries" in line for line in (*table.notes, *(line for _, line in table.failures)))


def test_a_bad_case_spoils_no_good_one_with_the_same_image(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.nii.gz", _volume("images", 1))
        save(tmp_path / "labels" / f"{name}.nii.gz", _volume("labels", 1))
    assert medfcn.check(tmp_path).bad_cases == {"b"}
    (tmp_path / "labels" / "a.nii.gz").unlink()
    assert medfcn.check(tmp_path).bad_cases == {"a"}


def test_channels_0_and_2_of_three_are_a_row(tmp_path: Path) -> None:
    for name, channels in (("good", (0, 1, 2)), ("other", (0, 1, 2)), ("bad", (0, 2))):
        for channel in channels:
            save(tmp_path / "images" / f"{name}_{channel:04d}.nii.gz", _volume("images", channel))
        save(tmp_path / "labels" / f"{name}.nii.gz", _volume("labels", 1))
    dataset = find_dataset(tmp_path)
    assert [(problem.code, problem.case, problem.field) for problem in dataset.problems] == [
        ("CHANNEL_MISSING", "bad", "channel _0001")
    ]
    cases = {case.id: case.lacks for case in find_inputs(tmp_path / "images", channels=3)}
    assert (cases["good"], cases["other"]) == ("", "")
    assert "bad_0001.nii.gz is missing" in cases["bad"]


def test_masks_beside_the_dataset_json_of_a_prediction(tmp_path: Path) -> None:
    """nnU-Net leaves a dataset.json among its predictions, which may be the references of others."""
    about = {"labels": {"background": 0, "ball": 1}, "numTraining": 20, "file_ending": ".nii.gz"}
    for role in ("labels", "masks"):
        save(tmp_path / role / "a.nii.gz", _volume(role, 1))
        (tmp_path / role / "dataset.json").write_text(json.dumps(about))
    table = medfcn.evaluate(tmp_path / "masks", tmp_path / "labels")
    assert [(row.label, row.dice) for row in table.rows] == [("ball", 1.0)]
    # The list of a Decathlon's data set names files of another folder.
    listed = about | {"training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]}
    (tmp_path / "labels" / "dataset.json").write_text(json.dumps(listed))
    assert list(find_masks(tmp_path / "labels")) == ["a"]
    # One whose files lie beside it is a data set.
    save(tmp_path / "labels" / "a_image.nii.gz", _volume("images", 1))
    listed["training"] = [{"image": "a_image.nii.gz", "label": "a.nii.gz"}]
    (tmp_path / "labels" / "dataset.json").write_text(json.dumps(listed))
    assert find_masks(tmp_path / "labels") == {"a_image": tmp_path / "labels" / "a.nii.gz"}


def test_references_of_a_data_set_with_a_bad_case(tmp_path: Path) -> None:
    entries = []
    for name in ("a", "b", "c"):
        for role in ("images", "labels", "masks"):
            save(tmp_path / role / f"{name}.nii.gz", _volume(role, 1))
        entries.append({"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"})
    (tmp_path / "labels" / "b.nii.gz").unlink()
    (tmp_path / "images" / "c.nii.gz").unlink()
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    masks = find_masks(tmp_path)
    assert list(masks) == ["a", "b", "c"]
    assert read_mask(masks["c"]).shape == (26, 22, 12)
    table = medfcn.evaluate(tmp_path / "masks", tmp_path)
    assert [row.case for row in table.rows if row.dice == 1.0] == ["a", "c"]
    assert [case for case, _ in table.failures] == ["b"]
