"""Masks made again from the records beside them: byte for byte, or refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.errors import MissingFileError, ModelError, OutputExistsError, SettingsError
from medfcn.inference import engines
from medfcn.inference.model import Model
from medfcn.runs.folder import TIMING_FILE
from medfcn.verbs import predict
from medfcn.volumes import ReadOptions
from tests.inference.models import blobs, saved, tiny_model, write_image

BOTH_VIEWS = {"views": ("axial", "coronal"), "spacing_mm": (1.5, 1.5, 1.5)}


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != TIMING_FILE]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and images, deep in folders and under other names than they had; never written to."""
    folder = tmp_path_factory.mktemp("place")
    for number in range(4):
        write_image(folder / "images" / f"case_{number}.nii.gz", blobs((17, 15, 5), seed=number))
    saved(tiny_model(**BOTH_VIEWS), folder / "runs" / "first")
    saved(tiny_model(seed=5, **BOTH_VIEWS), folder / "runs" / "deep" / "second")
    (folder / "runs" / "broken").mkdir()
    (folder / "runs" / "broken" / "model.json").write_text("{}")
    for number in range(4):
        moved = folder / "archive" / f"{number}" / f"scan_{9 - number}.nii.gz"
        moved.parent.mkdir(parents=True)
        shutil.copyfile(folder / "images" / f"case_{number}.nii.gz", moved)
    return folder


@pytest.fixture(scope="module")
def masks(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The masks of the first run; never written to."""
    return predict(place / "runs" / "first", place / "images", tmp_path_factory.mktemp("a") / "masks").output


def copied(masks: Path, tmp_path: Path) -> Path:
    shutil.copytree(masks, tmp_path / "masks")
    return tmp_path / "masks"


@pytest.mark.parametrize(
    "choices",
    [{}, {"tta": True}, {"views": "coronal"}, {"probabilities": True, "options": ReadOptions(xform="sform")}],
    ids=["as it comes", "mirrors", "a view", "probabilities"],
)
def test_masks_of_moved_files_come_out_byte_for_byte(choices: dict[str, Any], place: Path, tmp_path: Path) -> None:
    predict(place / "runs" / "first", place / "images", tmp_path / "masks", device="cpu", **choices)
    again = predict(place, place / "archive", tmp_path / "again", again=tmp_path / "masks", device="cpu")
    assert len(again.predicted) == 4
    assert content(tmp_path / "again") == content(tmp_path / "masks")


def test_records_of_several_origins_are_made_together(place: Path, tmp_path: Path) -> None:
    runs = [place / "runs" / "deep" / "second", place / "runs" / "first"]
    predict(runs, place / "images", tmp_path / "a", cases=["case_3", "case_1"], device="cpu", threads=2)
    predict(runs[0], place / "images", tmp_path / "b", cases=["case_0"], device="cpu")
    records = [tmp_path / "a", tmp_path / "b" / "case_0.json"]
    again = predict(place / "runs", place / "archive", tmp_path / "again", again=records, device="cpu")
    assert again.predicted == ("case_0", "case_1", "case_3")
    made, before = content(tmp_path / "again"), content(tmp_path / "a") | content(tmp_path / "b")
    assert {name for name in made if name.endswith(".nii.gz")} == {f"case_{n}.nii.gz" for n in (0, 1, 3)}
    assert all(made[name] == before[name] for name in made if not name.endswith(".csv"))
    assert [line.split(b",")[0] for line in made["volumes.csv"].splitlines()] == [
        b"case",
        b"case_0",
        b"case_1",
        b"case_3",
    ]


def test_the_shell_may_spread_the_records(place: Path, masks: Path, tmp_path: Path) -> None:
    records = [str(path) for path in sorted(masks.glob("*.json"))]
    words = ["predict", str(place / "runs"), str(place / "images"), "--again", *records]
    done = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "again"), "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    assert content(tmp_path / "again") == content(masks)
    alone = ["predict", str(place / "runs"), "--again", *records, "-o", str(tmp_path / "alone")]
    done = CliRunner().invoke(main, alone)
    assert done.exit_code == 2
    assert "a RUN and an INPUT are needed" in done.stderr


def test_a_mask_that_comes_out_otherwise_is_a_failure(place: Path, masks: Path, tmp_path: Path) -> None:
    edit(copied(masks, tmp_path) / "case_2.json", mask_sha256="0" * 64)
    again = predict(place / "runs", place / "images", tmp_path / "again", again=tmp_path / "masks", device="cpu")
    assert [case for case, _ in again.failures] == ["case_2"]
    assert "other bytes than its record says" in again.failures[0][1]
    assert not (tmp_path / "again" / "case_2.nii.gz").exists()
    assert len(again.predicted) == 3


def test_a_volume_that_is_missing_is_one_failure(place: Path, masks: Path, tmp_path: Path) -> None:
    images = shutil.copytree(place / "images", tmp_path / "images")
    (images / "case_1.nii.gz").unlink()
    choices: dict[str, bool]
    for choices in ({}, {"resume": True}):
        again = predict(place / "runs", images, tmp_path / "again", again=masks, device="cpu", **choices)
        ((case, why),) = again.failures
        assert case == "case_1"
        assert why.startswith("no volume has the hash ")
        made = {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.nii.gz")}
        assert made == {
            f"case_{number}.nii.gz": (masks / f"case_{number}.nii.gz").read_bytes() for number in (0, 2, 3)
        }
        assert "case_1" in (tmp_path / "again" / "failures.csv").read_text()


def edit(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    ("changed", "choices", "error", "said"),
    [
        ({"engine": "abacus"}, {}, SettingsError, "'abacus'; use the medfcn that wrote it"),
        ({}, {"engine": "onnx"}, OutputExistsError, "is of torch in float32 .*, and engine onnx is requested"),
        ({}, {"precision": "bfloat16"}, OutputExistsError, "and precision bfloat16 is requested"),
        ({"precision": "bfloat16"}, {}, SettingsError, "machine's CPU has no bfloat16"),
        ({"threads": 2}, {"threads": 4}, SettingsError, "made with 2 threads, and 4 are given"),
        ({"threads": 100000}, {}, ModelError, "threads is 100000; expected 1 to 1024"),
        ({"threads": -1}, {}, ModelError, "threads is -1; expected 1 to 1024"),
        ({}, {"tta": True}, SettingsError, "tta given too"),
        ({}, {"options": ReadOptions(xform="sform")}, SettingsError, "options given too"),
        ({"model_sha256": ["1" * 64]}, {}, MissingFileError, "no model has the weights 111111111111"),
        ({"card_sha256": ["1" * 64]}, {}, ModelError, "has another model.json than its record"),
        ({"input_sha256": ["1" * 64]}, {}, MissingFileError, "no volume has the hash 111111111111"),
        ({"case": "../../case"}, {}, SettingsError, "cannot be the name of a file"),
        ({"mask_sha256": ""}, {}, SettingsError, "is no record of a mask"),
        ({"reading": {"xform": "guess"}}, {}, SettingsError, "xform"),
    ],
)
def test_what_cannot_be_made_again_is_refused(
    changed: dict[str, Any],
    choices: dict[str, Any],
    error: type[Exception],
    said: str,
    place: Path,
    masks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "has_fast_bfloat16", lambda device: False)
    record = copied(masks, tmp_path) / "case_0.json"
    edit(record, **changed)
    with pytest.raises(error, match=said):
        predict(place / "runs", place / "images", tmp_path / "again", again=record, device="cpu", **choices)
    assert not (tmp_path / "again").exists()


def test_files_that_are_no_records_are_named(place: Path, tmp_path: Path) -> None:
    for given, said in ((tmp_path / "none.json", "no such file"), (place / "images", "contains no <case>.json")):
        with pytest.raises(MissingFileError, match=said):
            predict(place / "runs", place / "images", tmp_path / "again", again=given, device="cpu")


def test_another_version_is_told(place: Path, masks: Path, tmp_path: Path) -> None:
    record = copied(masks, tmp_path) / "case_0.json"
    edit(record, medfcn="0.0.1", device="cuda")
    words = ["predict", str(place / "runs"), str(place / "images"), "--again", str(record)]
    done = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "again"), "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    assert "here and was 0.0.1" in done.stderr
    assert "the device is cpu here and was cuda" in done.stderr


def test_a_model_in_one_file_is_found(place: Path, tmp_path: Path) -> None:
    from medfcn import export

    (tmp_path / "models").mkdir()
    export(place / "runs" / "first", tmp_path / "models" / "first.medfcn")
    masks = predict(tmp_path / "models" / "first.medfcn", place / "images", tmp_path / "masks", device="cpu").output
    assert Model.load(tmp_path / "models" / "first.medfcn").card
    predict(tmp_path / "models", place / "images", tmp_path / "again", again=masks, device="cpu")
    assert content(tmp_path / "again") == content(masks)


def test_volumes_of_other_formats_are_found_and_resumed(place: Path, tmp_path: Path) -> None:
    """The hash of a volume in two files is that of both."""
    import nibabel

    (tmp_path / "images").mkdir()
    image = nibabel.load(place / "images" / "case_0.nii.gz")  # type: ignore[attr-defined]
    nibabel.save(nibabel.Nifti1Pair(image.dataobj, image.affine), tmp_path / "images" / "pair.img")  # type: ignore[attr-defined]
    run, masks = place / "runs" / "first", tmp_path / "masks"
    predict(run, tmp_path / "images", masks, device="cpu")
    assert predict(run, tmp_path / "images", masks, device="cpu", resume=True).skipped == ("pair",)
    predict(run, tmp_path / "images", tmp_path / "again", again=masks, device="cpu")
    assert content(tmp_path / "again") == content(masks)


@pytest.mark.parametrize(
    ("edited", "refused"),
    [
        ({"threshold": 0.25}, r"threshold is 0\.25, and the model of that mask has 0\.5"),
        ({"tta": True}, "tta is True, and the model of that mask has False"),
        ({"mirrors": ["A"], "tta": True}, "mirrors is .*'A'.*, and the model of that mask has .*'R'"),
    ],
    ids=["threshold", "tta", "mirrors"],
)
def test_a_record_that_was_edited_is_refused_with_both_values(
    edited: dict[str, Any], refused: str, place: Path, masks: Path, tmp_path: Path
) -> None:
    record = copied(masks, tmp_path) / "case_1.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | edited))
    with pytest.raises(SettingsError, match=refused):
        predict(place, place / "archive", tmp_path / "again", again=record, device="cpu")
    assert not (tmp_path / "again").exists()
