"""Volumes that a model was trained on are named: scores on them say nothing of new ones."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import medfcn
from medfcn.cli import main
from medfcn.files import sha256_of, write_csv
from medfcn.labels.sidecar import TRAINING_CASE
from medfcn.runs.cases import TrainingImages
from medfcn.runs.models import ModelFiles
from medfcn.verbs import predict
from medfcn.volumes import Volume, read_volume
from medfcn.volumes.same_voxels import voxels_sha256
from tests.inference.models import blobs, saved, tiny_model, write_image

COLUMNS = ("case", "group", "use", "sha256_image", "sha256_label", "problem")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        write_image(tmp_path / "images" / f"{name}.nii.gz", blobs(seed=seed))
    return tmp_path / "images"


def run_of(folder: Path, images: Path, uses: Mapping[str, str], *, seed: int = 0) -> Path:
    """A run folder whose `cases.csv` gives each volume a use, under a name of another."""
    saved(tiny_model(seed=seed), folder)
    rows = [
        (f"was_{case}", f"was_{case}", use, sha256_of(images / f"{case}.nii.gz"), "", "")
        for case, use in uses.items()
    ]
    write_csv(folder / "cases.csv", COLUMNS, [*rows, ("bad", "bad", "left out", "", "", "cut off")])
    return folder


def with_training(run: Path, facts: Mapping[str, object]) -> Path:
    card = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(card | {"training": {**card["training"], **facts}}))
    return run


def notes_of(masks: Path) -> dict[str, bool]:
    return {
        path.stem: TRAINING_CASE in json.loads(path.read_text())["notes"] for path in sorted(masks.glob("*.json"))
    }


def call(*arguments: object) -> Result:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr
    return done


def test_they_are_named_by_predict_and_by_evaluate(tmp_path: Path, images: Path) -> None:
    run = run_of(tmp_path / "run", images, {"a": "training", "b": "training", "c": "validation"})
    with_training(run, {"validations": 1})  # which chose nothing
    masks = tmp_path / "masks"
    line = "2 of 3 volumes are training cases of this model; their scores say nothing of new ones: a, b"
    told = call("predict", run, images, "-o", masks, "--device", "cpu")
    assert told.stderr.splitlines()[-1] == line
    assert notes_of(masks) == {"a": True, "b": True, "c": False}
    again = call("predict", run, images, "-o", masks, "--device", "cpu", "--resume")
    assert "0 masks, 3 kept" in again.stdout
    assert again.stderr.splitlines()[-1] == line
    one = call("predict", run, images / "a.nii.gz", "-o", tmp_path / "a.nii.gz", "--device", "cpu")
    assert one.stderr.splitlines()[-1] == (
        "1 of 1 volume is a training case of this model; its scores say nothing of new ones: a"
    )

    references = tmp_path / "references"
    for name in "abc":
        write_image(references / f"{name}.nii.gz", (blobs(seed=7) > 0).astype(np.uint8))
    said = "2 of 3 predictions are of training cases of the model; their scores say nothing of new ones: a, b"
    assert said in medfcn.evaluate(masks, references).notes
    assert not any("training" in note for note in medfcn.evaluate(masks, references, cases=["c"]).notes)


def test_validation_cases_that_chose_something_are_named_too(tmp_path: Path, images: Path) -> None:
    run = run_of(tmp_path / "run", images, {"a": "training", "b": "validation", "c": "left out"})
    with_training(run, {"validations": 4})
    masks = tmp_path / "masks"
    line = (
        "1 of 3 volumes is a validation case of this model, on which its training chose; new ones may score lower: b"
    )
    assert call("predict", run, images, "-o", masks, "--device", "cpu").stderr.splitlines()[-1] == line
    again = call("predict", run, images, "-o", masks, "--device", "cpu", "--resume")
    assert again.stderr.splitlines()[-1] == line
    references = tmp_path / "references"
    for name in "abc":
        write_image(references / f"{name}.nii.gz", (blobs(seed=7) > 0).astype(np.uint8))
    said = (
        "1 of 3 predictions is of a validation case of the model, on which its training chose; new ones may score "
        "lower: b"
    )
    assert said in medfcn.evaluate(masks, references).notes
    one_file = tmp_path / "model.medfcn"
    medfcn.export(run, one_file)
    assert predict(one_file, images, tmp_path / "exported", device="cpu").chosen_cases == ("b",)


def test_voxels_are_hashed_once_where_both_kinds_of_cases_are_looked_for(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_training(saved(tiny_model(), tmp_path / "run"), {"validations": 4})
    saved_anew = voxels_sha256(read_volume(images / "b.nii.gz"))
    rows = [("one", "one", "training", "0" * 64, "1" * 64), ("two", "two", "validation", "2" * 64, saved_anew)]
    write_csv(run / "cases.csv", ("case", "group", "use", "sha256_image", "voxels_image"), rows)
    hashed: list[str] = []

    def counted(volume: Volume) -> str:
        hashed.append(volume.sha256)
        return voxels_sha256(volume)

    monkeypatch.setattr("medfcn.inference.case_work.voxels_sha256", counted)
    assert predict(run, images, tmp_path / "masks", device="cpu").chosen_cases == ("b",)
    assert hashed == [sha256_of(images / f"{case}.nii.gz") for case in "abc"]


def test_nothing_is_said_of_validation_cases_that_chose_nothing(tmp_path: Path, images: Path) -> None:
    """Nothing is chosen on the cases of a fold, nor with one validation; and a training case is named as one."""
    uses = {"a": "training", "b": "validation", "c": "validation"}
    fold = with_training(run_of(tmp_path / "fold", images, uses), {"validations": 4, "fold": "1/5"})
    assert predict(fold, images, tmp_path / "of_fold", device="cpu").chosen_cases == ()
    last = with_training(run_of(tmp_path / "last", images, uses), {"validations": 1})
    assert predict(last, images, tmp_path / "of_last", device="cpu").chosen_cases == ()
    both = tmp_path / "both"
    run_of(both / "fold_1", images, {"a": "training", "b": "validation", "c": "validation"})
    run_of(both / "fold_2", images, {"a": "validation", "b": "training", "c": "validation"}, seed=1)
    for name in ("fold_1", "fold_2"):
        with_training(both / name, {"validations": 4})
    found = predict(both, images, tmp_path / "of_both", device="cpu")
    assert (found.training_cases, found.chosen_cases) == (("a", "b"), ("c",))


def test_a_line_break_in_an_id_begins_no_line(tmp_path: Path, images: Path) -> None:
    odd = "c\n0 of 4 failed"
    shutil.copy(images / "c.nii.gz", images / f"{odd}.nii.gz")
    run = with_training(run_of(tmp_path / "run", images, {odd: "training"}), {"validations": 1})
    told = call("predict", run, images, "-o", tmp_path / "masks", "--device", "cpu").stderr.splitlines()
    assert told[-1] == (
        "2 of 4 volumes are training cases of this model; their scores say nothing of new ones: c, c\\n0 of 4 failed"
    )
    assert not any(line.startswith("0 of 4") for line in told)


def test_a_case_of_any_fold_counts(tmp_path: Path, images: Path) -> None:
    run = tmp_path / "run"
    run_of(run / "fold_1", images, {"a": "training", "b": "validation", "c": "validation"})
    run_of(run / "fold_2", images, {"a": "validation", "b": "training", "c": "validation"}, seed=1)
    assert predict(run, images, tmp_path / "all", device="cpu").training_cases == ("a", "b")
    assert notes_of(tmp_path / "all") == {"a": True, "b": True, "c": False}
    assert predict(run / "fold_2", images, tmp_path / "one", device="cpu").training_cases == ("b",)


def test_nothing_is_said_of_a_copied_model_and_nothing_else_changes(tmp_path: Path, images: Path) -> None:
    run = run_of(tmp_path / "run", images, {"a": "training"})
    noted = predict(run, images, tmp_path / "noted", device="cpu")
    copied = shutil.copytree(run, tmp_path / "copied")
    (copied / "cases.csv").unlink()
    told = call("predict", copied, images, "-o", tmp_path / "masks", "--device", "cpu")
    assert "training case" not in told.output
    assert notes_of(tmp_path / "masks") == dict.fromkeys("abc", False)
    for name in "abc":
        mask = f"{name}.nii.gz"
        assert (tmp_path / "masks" / mask).read_bytes() == (noted.output / mask).read_bytes()
    # A mask of before is kept, and named all the same.
    kept = predict(run, images, tmp_path / "masks", device="cpu", resume=True)
    assert (kept.skipped, kept.training_cases) == (("a", "b", "c"), ("a",))


def test_all_channels_are_those_of_one_case(tmp_path: Path) -> None:
    columns = ("case", "group", "use", "sha256_t1", "sha256_t2", "sha256_label", "problem")
    rows = [("a", "a", "training", "1", "2", "9", ""), ("b", "b", "training", "3", "2", "9", "")]
    write_csv(tmp_path / "cases.csv", columns, rows)
    images = TrainingImages([ModelFiles(tmp_path)])
    assert images.contain(["1", "2"])
    assert images.contain(["2", "1"])
    assert not any(images.contain(hashes) for hashes in (["1", "3"], ["1"], ["9"], [], ["1", "2", "9"]))


BROKEN = {
    "empty": b"",
    "of another tool": b"image,label\n",
    "no hashes": b"use\ntraining\n",
    "short row": b"use,sha256_image\ntraining\n",
    "no hash": b"use,sha256_image\ntraining,\n",
    "no text": b"\xff\x00\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_table_adds_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(content)
    images = TrainingImages([ModelFiles(tmp_path)], [2])
    assert not any(images.contain(hashes) for hashes in ([], [""], ["training"]))
    assert [line.split(": ", 1)[1].partition(";")[0] for line in images.doubts] == [
        "cases.csv names the images of 0 of 2 training cases"
    ]


def test_a_table_that_lacks_training_cases_is_said_once(tmp_path: Path, images: Path) -> None:
    run = run_of(tmp_path / "run", images, {"a": "training", "b": "training"})
    card = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(card | {"training": {"cases": 2}}))
    assert "names the images of" not in call("predict", run, images, "-o", tmp_path / "all", "--device", "cpu").stderr
    rows = (run / "cases.csv").read_text().splitlines()
    (run / "cases.csv").write_text("\n".join([*rows[:2], rows[2].replace("training", "Training"), *rows[3:]]))
    said = call("predict", run, images, "-o", tmp_path / "masks", "--device", "cpu").stderr
    assert said.count("run: cases.csv names the images of 1 of 2 training cases; whether") == 1
