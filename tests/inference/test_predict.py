"""A folder in, a folder out: one bad case never stops it, and nothing broken ever stands under a final name."""

import csv
import dataclasses
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medfcn.errors import DatasetError, MissingFileError, ModelError, OutputExistsError
from medfcn.inference import predict as predict_module
from medfcn.inference.ensemble import load
from medfcn.inference.model import Model
from medfcn.labels import read_mask
from medfcn.progress import Silent
from medfcn.runs.folder import TIMING_FILE
from medfcn.verbs import predict
from medfcn.volumes import ReadOptions, read_volume
from tests.inference.models import blobs, saved, tiny_model, write_image


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder; never written to."""
    return saved(tiny_model(), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six volumes; never written to."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        write_image(folder / f"case_{number}.nii.gz", blobs((30, 26, 8 + number), seed=number))
    return folder


def _content(folder: Path) -> dict[str, bytes]:
    """Every file but the hidden ones that a killed writer leaves behind, and the one that differs from run to run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != TIMING_FILE
    }


def _masks(folder: Path) -> dict[str, bytes]:
    """The masks and the records beside them."""
    tables = (".csv", "labels.txt", "labels.ctbl")
    return {name: content for name, content in _content(folder).items() if not name.endswith(tables)}


def _copied(folder: Path, other: Path) -> Path:
    other.mkdir()
    for name, content in _content(folder).items():
        (other / name).write_bytes(content)
    return other


def test_a_folder_gets_a_mask_and_a_sidecar_for_each_case(run: Path, images: Path, tmp_path: Path) -> None:
    done = predict(run, images, tmp_path / "masks", device="cpu")
    names = [f"case_{number}" for number in range(6)]
    assert list(done.predicted) == names
    assert done.output == tmp_path / "masks"
    assert (done.skipped, done.failures, done.flags) == ((), (), ())
    assert sorted(_masks(done.output)) == sorted(f"{name}{end}" for name in names for end in (".nii.gz", ".json"))
    model = Model.load(run, device="cpu")
    for name in names:
        mask, image = read_mask(done.output / f"{name}.nii.gz"), read_volume(images / f"{name}.nii.gz")
        assert np.array_equal(mask.array, model.predict(image).array)
        assert np.array_equal(mask.affine, image.affine)
        told = json.loads((done.output / f"{name}.json").read_text())
        assert told["case"] == name
        assert told["input_sha256"] == [image.sha256]
        assert told["model_sha256"] == [model.card.weights_sha256]
        assert told["volumes_ml"]["organ"] == pytest.approx(np.count_nonzero(mask.array) * mask.voxel_ml)
        assert "not a medical device" in told["intended_use"]
        assert str(images) not in json.dumps(told)


def test_masks_depend_on_nothing_but_the_input(run: Path, images: Path, tmp_path: Path) -> None:
    predict(run, images, tmp_path / "all", device="cpu")
    predict(run, images, tmp_path / "some", cases=["case_4", "case_1"], device="cpu")
    some = _masks(tmp_path / "some")
    assert sorted(some) == ["case_1.json", "case_1.nii.gz", "case_4.json", "case_4.nii.gz"]
    assert some.items() <= _content(tmp_path / "all").items()


def _spoil(folder: Path) -> None:
    """One file cut off, one that is no volume, one of two dimensions."""
    whole = (folder / "case_1.nii.gz").read_bytes()
    (folder / "case_1.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "case_3.nii.gz").write_bytes(b"<html>404</html>\n")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4), dtype=np.int16), np.eye(4)), folder / "flat.nii.gz")


def test_bad_cases_are_named_and_the_others_predicted(run: Path, images: Path, tmp_path: Path) -> None:
    predict(run, images, tmp_path / "clean", device="cpu")
    mixed = _copied(images, tmp_path / "mixed")
    _spoil(mixed)
    done = predict(run, mixed, tmp_path / "masks", device="cpu")
    assert done.predicted == ("case_0", "case_2", "case_4", "case_5")
    assert [name for name, _ in done.failures] == ["case_1", "case_3", "flat"]
    with (tmp_path / "masks" / "failures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["error"]) for row in rows] == list(done.failures)
    assert all("\n" not in error and error for _, error in done.failures)
    found = _masks(tmp_path / "masks")
    assert found.items() <= _content(tmp_path / "clean").items()
    assert len(found) == 8
    # Mended and resumed: the folder of a clean run, and no failures left.
    for name in ("case_1", "case_3"):
        (mixed / f"{name}.nii.gz").write_bytes((images / f"{name}.nii.gz").read_bytes())
    (mixed / "flat.nii.gz").unlink()
    again = predict(run, mixed, tmp_path / "masks", resume=True, device="cpu")
    assert again.predicted == ("case_1", "case_3")
    assert again.skipped == ("case_0", "case_2", "case_4", "case_5")
    assert _content(tmp_path / "masks") == _content(tmp_path / "clean")


def test_a_constant_case_is_flagged_and_not_failed(run: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "blank.nii.gz", np.zeros((9, 8, 4), dtype=np.int16))
    done = predict(run, tmp_path / "images", tmp_path / "masks", device="cpu")
    assert done.predicted == ("blank",)
    assert done.flags == (("blank", "channel channel_0 is constant: the mask is empty"),)
    assert not read_mask(tmp_path / "masks" / "blank.nii.gz").array.any()


def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("work was begun")

    for name in ("load_models", "find_inputs", "predict_cases"):
        monkeypatch.setattr(predict_module, name, refuse)


@pytest.mark.parametrize("output", ["masks", "mask.nii.gz"])
def test_an_existing_output_is_refused_before_any_work(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    target = tmp_path / output
    if output == "masks":
        target.mkdir()
        (target / "notes.txt").write_text("mine")
    else:
        target.write_bytes(b"mine")
    before = _content(tmp_path)
    _no_work(monkeypatch)
    with pytest.raises(OutputExistsError, match=output):
        predict(run, images / "case_0.nii.gz", target, device="cpu")
    assert _content(tmp_path) == before


def test_an_empty_folder_is_no_output_in_the_way(run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    assert len(predict(run, images, tmp_path / "masks", device="cpu").predicted) == 6


def test_overwriting_replaces_every_mask(run: Path, images: Path, tmp_path: Path) -> None:
    other = saved(tiny_model(seed=5), tmp_path / "other")
    predict(other, images, tmp_path / "masks", device="cpu")
    predict(run, images, tmp_path / "clean", device="cpu")
    done = predict(run, images, tmp_path / "masks", overwrite=True, device="cpu")
    assert len(done.predicted) == 6
    assert _content(tmp_path / "masks") == _content(tmp_path / "clean")


@pytest.mark.parametrize("how", ["overwrite", "resume"])
def test_an_input_is_never_replaced_by_its_mask(run: Path, images: Path, tmp_path: Path, how: str) -> None:
    own = _copied(images, tmp_path / "images")
    (own / "old.json").write_text('{"mask_sha256": ""}')  # a mask was written here once
    before = _content(own)
    with pytest.raises(OutputExistsError, match="is an input"):
        predict(run, own, own, device="cpu", **{how: True})  # type: ignore[arg-type]
    with pytest.raises(OutputExistsError, match="is an input"):
        predict(run, own / "case_0.nii.gz", own / "case_0.nii.gz", device="cpu", **{how: True})  # type: ignore[arg-type]
    assert _content(own) == before


def _flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _edit(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def _nothing(_: Path) -> None:
    pass


TAMPERED: dict[str, Callable[[Path], None]] = {
    "a byte of the mask": lambda masks: _flip_byte(masks / "case_2.nii.gz"),
    "the mask is gone": lambda masks: (masks / "case_2.nii.gz").unlink(),
    "the sidecar is gone": lambda masks: (masks / "case_2.json").unlink(),
    "the sidecar is empty": lambda masks: (masks / "case_2.json").write_bytes(b""),
    "the sidecar is a list": lambda masks: (masks / "case_2.json").write_bytes(b"[]") and None,
    "another input": lambda masks: _edit(masks / "case_2.json", input_sha256=["0" * 64]),
    "another model": lambda masks: _edit(masks / "case_2.json", model_sha256=["0" * 64]),
    "another version": lambda masks: _edit(masks / "case_2.json", medfcn="0.0.0"),
    "a mask of another case": lambda masks: (
        (masks / "case_2.nii.gz").write_bytes((masks / "case_1.nii.gz").read_bytes()) and None
    ),
}


@pytest.mark.parametrize("what", sorted(TAMPERED))
def test_resuming_keeps_only_masks_whose_hashes_match(run: Path, images: Path, tmp_path: Path, what: str) -> None:
    masks = tmp_path / "masks"
    predict(run, images, masks, device="cpu")
    clean = _content(masks)
    TAMPERED[what](masks)
    done = predict(run, images, masks, resume=True, device="cpu")
    assert done.predicted == ("case_2",)
    assert len(done.skipped) == 5
    assert _content(masks) == clean


def test_resuming_with_nothing_left_to_do_touches_nothing(run: Path, images: Path, tmp_path: Path) -> None:
    predict(run, images, tmp_path / "masks", device="cpu")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").iterdir()}
    done = predict(run, images, tmp_path / "masks", resume=True, device="cpu")
    assert (done.predicted, len(done.skipped)) == ((), 6)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [
        "weights",
        "threshold",
        "one_part",
        "together",
        "plan",
        "views",
        "view_weights",
        "input",
        "tta",
        "reading",
        "a second model",
    ],
)
def test_resuming_after_any_change_makes_every_mask_anew(images: Path, tmp_path: Path, change: str) -> None:
    plan = {"views": ("axial", "coronal"), "spacing_mm": (1.5, 1.5, 1.5)} if change.startswith("view") else {}
    own, masks = _copied(images, tmp_path / "images"), tmp_path / "masks"
    run = saved(tiny_model(**plan), tmp_path / "run")
    predict(run, own, masks, device="cpu")
    runs: list[Path] = [run]
    options: dict[str, Any] = {}
    if change == "weights":
        saved(tiny_model(seed=9), run)
    elif change == "threshold":
        saved(tiny_model(prediction={"threshold": 0.6}), run)
    elif change == "one_part":
        saved(tiny_model(one_part=(1,)), run)
    elif change == "together":
        saved(tiny_model(together=True), run)
    elif change == "plan":  # the same weights, other spacing
        model = Model.load(run, device="cpu")
        model.card = dataclasses.replace(
            model.card, plan=dataclasses.replace(model.card.plan, spacing_mm=(1.2, 1.2, None))
        )
        model.save(run)
    elif change == "views":
        options["views"] = "coronal"
    elif change == "view_weights":
        saved(tiny_model(view_weights=(0.9, 0.1), **plan), run)
    elif change == "input":
        for number in range(6):
            write_image(own / f"case_{number}.nii.gz", blobs((30, 26, 8 + number), seed=100 + number))
    elif change == "tta":
        options["tta"] = True
    elif change == "reading":
        options["options"] = ReadOptions(xform="sform")
    else:
        runs.append(saved(tiny_model(seed=9), tmp_path / "second"))
    done = predict(runs, own, masks, resume=True, device="cpu", **options)
    assert len(done.predicted) == 6
    predict(runs, own, tmp_path / "clean", device="cpu", **options)
    assert _content(masks) == _content(tmp_path / "clean")


def test_resuming_makes_probabilities_that_are_missing_or_changed(run: Path, images: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    predict(run, images, masks, device="cpu")
    assert len(predict(run, images, masks, probabilities=True, resume=True, device="cpu").predicted) == 6
    clean = _content(masks)
    assert len(_masks(masks)) == 18
    assert not predict(run, images, masks, probabilities=True, resume=True, device="cpu").predicted
    _flip_byte(masks / "probabilities" / "case_1.nii.gz")
    (masks / "probabilities" / "case_3.nii.gz").unlink()
    done = predict(run, images, masks, probabilities=True, resume=True, device="cpu")
    assert done.predicted == ("case_1", "case_3")
    assert _content(masks) == clean


def _kill_and_resume(run: Path, images: Path, tmp_path: Path, *, kills: int) -> None:
    clock = time.monotonic()
    predict(run, images, tmp_path / "clean", probabilities=True, device="cpu")
    whole_seconds = time.monotonic() - clock
    expected, masks = _content(tmp_path / "clean"), tmp_path / "masks"
    delays = random.Random(0)
    killed = finished = 0
    while killed < kills:
        if finished:  # start over
            for path in sorted(masks.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            finished = 0
        child = os.fork()
        if child == 0:
            try:
                predict(run, images, masks, probabilities=True, resume=True, device="cpu")
            finally:
                os._exit(0)
        time.sleep(delays.uniform(0.05, 0.7) * whole_seconds)
        finished = os.waitpid(child, os.WNOHANG)[0]
        if not finished:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
        # Whatever has its final name is whole; what has a sidecar is right.
        for name, content in (_content(masks) if masks.is_dir() else {}).items():
            if name.endswith(".nii.gz"):
                assert content == expected[name]
            assert len(content) == len(expected[name])
    predict(run, images, masks, probabilities=True, resume=True, device="cpu")
    assert _content(masks) == expected


def test_a_killed_run_resumes_to_the_folder_of_one_that_was_not(run: Path, images: Path, tmp_path: Path) -> None:
    _kill_and_resume(run, images, tmp_path, kills=4)


@pytest.mark.slow
def test_a_run_killed_twenty_times_resumes_to_the_folder_of_one_that_was_not(
    run: Path, images: Path, tmp_path: Path
) -> None:
    _kill_and_resume(run, images, tmp_path, kills=20)


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii", "new/folder/mask.nii.gz"])
def test_one_volume_may_have_its_mask_in_a_file(run: Path, images: Path, tmp_path: Path, name: str) -> None:
    done = predict(run, images / "case_3.nii.gz", tmp_path / name, device="cpu")
    assert done.predicted == ("case_3",)
    assert done.output == tmp_path / name
    expected = Model.load(run, device="cpu").predict(images / "case_3.nii.gz")
    assert np.array_equal(read_mask(tmp_path / name).array, expected.array)
    assert sorted(path.name for path in (tmp_path / name).parent.iterdir()) == sorted([Path(name).name, "mask.json"])


def test_a_mask_file_leaves_what_lies_beside_it_alone(run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "failures.csv").write_text("mine")
    predict(run, images / "case_0.nii.gz", tmp_path / "first.nii.gz", device="cpu")
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no volume")
    assert len(predict(run, bad, tmp_path / "second.nii.gz", device="cpu").failures) == 1
    assert (tmp_path / "failures.csv").read_text() == "mine"
    (tmp_path / "third.json").write_text("{}")
    with pytest.raises(OutputExistsError, match=r"third\.json"):
        predict(run, images / "case_0.nii.gz", tmp_path / "third.nii.gz", device="cpu")
    assert (tmp_path / "third.json").read_text() == "{}"


def test_one_mask_file_cannot_hold_a_folder(run: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="one mask file cannot hold 6 cases"):
        predict(run, images, tmp_path / "mask.nii.gz", device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("labels", ["organ=1", "left=2,right=5"])
def test_probabilities_lie_on_the_native_grid_and_give_the_mask(images: Path, tmp_path: Path, labels: str) -> None:
    run = saved(tiny_model(labels=labels), tmp_path / "run")
    predict(run, images, tmp_path / "masks", probabilities=True, device="cpu")
    values = [int(part.split("=")[1]) for part in labels.split(",")]
    for number in range(6):
        mask = read_mask(tmp_path / "masks" / f"case_{number}.nii.gz")
        endings = [""] if len(values) == 1 else [f"_{value}" for value in values]
        read = [read_volume(tmp_path / "masks/probabilities" / f"case_{number}{ending}.nii.gz") for ending in endings]
        shares = np.stack([volume.array for volume in read])
        assert all(np.array_equal(volume.affine, mask.affine) for volume in read)
        assert shares.dtype == np.float32
        assert 0 <= shares.min() <= shares.max() <= 1
        if len(values) == 1:
            expected = (shares[0] >= 0.5).astype(int)
        else:
            rest = 1 - shares.sum(axis=0, keepdims=True)
            expected = np.array([0, *values])[np.concatenate([rest, shares]).argmax(axis=0)]
        assert np.array_equal(mask.array, expected)
    assert len(list((tmp_path / "masks/probabilities").iterdir())) == 6 * len(values)


def test_folds_and_lists_of_runs_are_ensembles(images: Path, tmp_path: Path) -> None:
    folds = [saved(tiny_model(seed=seed), tmp_path / "run" / f"fold_{seed + 1}") for seed in range(2)]
    as_folder = predict(tmp_path / "run", images, tmp_path / "a", device="cpu")
    as_list = predict([str(fold) for fold in folds], images, tmp_path / "b", device="cpu")
    assert len(as_folder.predicted) == len(as_list.predicted) == 6
    assert _content(tmp_path / "a") == _content(tmp_path / "b")
    assert len(load(tmp_path / "run", device="cpu").models) == 2
    shutil.copytree(folds[0], tmp_path / "run" / "fold_1 (copy)")
    for twice in (tmp_path / "run", [folds[1], folds[1]]):
        with pytest.raises(ModelError, match=r"has the weights of .*fold_\d.* would count twice in the mean"):
            load(twice, device="cpu")
    alone = load(folds[0], device="cpu").predict(images / "case_0.nii.gz")
    assert not np.array_equal(alone.array, read_mask(tmp_path / "a" / "case_0.nii.gz").array)


def test_some_of_the_views_are_asked_on_request(images: Path, tmp_path: Path) -> None:
    model = tiny_model(views=("axial", "coronal"), spacing_mm=(1.5, 1.5, 1.5))
    run = saved(model, tmp_path / "run")
    predict(run, images, tmp_path / "coronal", views="coronal", cases=["case_0"], device="cpu")
    expected = model.with_views(["coronal"]).predict(images / "case_0.nii.gz").array
    assert np.array_equal(read_mask(tmp_path / "coronal" / "case_0.nii.gz").array, expected)
    assert not np.array_equal(model.predict(images / "case_0.nii.gz").array, expected)
    for views in ("all", "coronal,axial", ["axial", "coronal"], None):
        assert load(run, device="cpu", views=views).card == model.card
    with pytest.raises(ModelError, match="knows axial, coronal slices, not sagittal"):
        predict(run, images, tmp_path / "sagittal", views="sagittal", device="cpu")
    assert not (tmp_path / "sagittal").exists()


def test_a_case_of_other_channels_says_what_fits(run: Path, tmp_path: Path) -> None:
    pair = [tmp_path / f"p_{channel:04d}.nii.gz" for channel in (0, 1)]
    for path in pair:
        write_image(path, blobs())
    files = r"takes 1 channel \(.*\), the case has 2 \(p_0000.nii.gz, p_0001.nii.gz\); give the file of that channel"
    with pytest.raises(ModelError, match=files):
        Model.load(run, device="cpu").predict(list(pair))


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_in_which_all_failed_is_free_for_the_corrected_command(
    resume: bool, run: Path, tmp_path: Path
) -> None:
    image = tmp_path / "in" / "p.nii.gz"
    write_image(image, blobs())
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    assert predict(run, image.parent, tmp_path / "masks", device="cpu").failures
    image.write_bytes(whole)
    assert predict(run, image.parent, tmp_path / "masks", device="cpu", resume=resume).predicted == ("p",)
    assert not (tmp_path / "masks" / "failures.csv").exists()
    with pytest.raises(OutputExistsError, match=r"already exists; make what is missing in it \(resume"):
        predict(run, image.parent, tmp_path / "masks", device="cpu")  # there is a mask in it now


def test_several_channels_are_several_files(tmp_path: Path) -> None:
    from medfcn.slices.plan import Intensity

    model = tiny_model(intensities=(Intensity("zscore"), Intensity("zscore")))
    run = saved(model, tmp_path / "run")
    for name, channels in (("whole", 2), ("half", 1)):
        for channel in range(channels):
            write_image(tmp_path / "images" / f"{name}_{channel:04d}.nii.gz", blobs(seed=channel))
    done = predict(run, tmp_path / "images", tmp_path / "masks", device="cpu")
    assert done.predicted == ("whole",)
    assert done.failures[0][0] == "half"
    assert "half_0001.nii.gz is missing: the model takes 2 channels" in done.failures[0][1]
    write_image(tmp_path / "alone" / "whole.nii.gz", blobs())
    with pytest.raises(
        ModelError, match=r"has 1 \(whole.nii.gz\); .* one grid: files <case>_0000, .*DICOM series are"
    ):
        model.predict(tmp_path / "alone" / "whole.nii.gz")
    pair = [tmp_path / "images" / f"whole_{channel:04d}.nii.gz" for channel in (0, 1)]
    assert np.array_equal(read_mask(tmp_path / "masks" / "whole.nii.gz").array, model.predict(list(pair)).array)
    assert np.array_equal(model.predict(pair[0]).array, model.predict(list(pair)).array)
    one = predict(run, pair[0], tmp_path / "one", device="cpu")
    assert one.predicted == ("whole",)
    assert (tmp_path / "one" / "whole.nii.gz").read_bytes() == (tmp_path / "masks" / "whole.nii.gz").read_bytes()
    with pytest.raises(ModelError, match=r"half: half_0001\.nii\.gz is missing"):
        model.predict(tmp_path / "images" / "half_0000.nii.gz")


def test_numbered_volumes_are_cases_of_a_model_with_one_channel(run: Path, tmp_path: Path) -> None:
    for number in (0, 1):
        for folder in ("images", "labels"):
            write_image(tmp_path / "data" / folder / f"v_{number:04d}.nii.gz", blobs(seed=number))
    done = predict(run, tmp_path / "data", tmp_path / "masks", device="cpu", report=True)
    assert done.predicted == ("v_0000", "v_0001")
    assert done.report is not None
    assert done.report.read_text().count("is not shown") == 0


class _Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("options", "plan", "said", "mirrors"),
    [
        ({"tta": True}, {"mirror_axes": ()}, "tta changes nothing", []),
        ({"tta": True}, {"mirror_axes": (2,)}, "tta changes nothing", []),
        ({"tta": True}, {"mirror_axes": (0, 1)}, "", ["R", "A"]),
        ({"tta": False}, {"mirror_axes": (0, 1)}, "", None),
        ({}, {"mirror_axes": (0, 1)}, "", None),
        ({"views": "axial"}, {}, "views change nothing: axial slices are all", None),
        ({"views": "all"}, {}, "", None),
        ({"resume": True}, {}, "resume kept no mask", None),
    ],
    ids=["no mirrors", "none in the slice", "mirrors", "not wanted", "not said", "its view", "all views", "no masks"],
)
def test_an_option_that_changes_nothing_says_so(
    options: Any, plan: Any, said: str, mirrors: list[str] | None, tmp_path: Path
) -> None:
    run = saved(tiny_model(**plan), tmp_path / "run")
    write_image(tmp_path / "images" / "a.nii.gz", blobs())
    heard = _Said()
    predict(run, tmp_path / "images", tmp_path / "masks", device="cpu", progress=heard, **options)
    lines = [line for line in heard.lines if not line.startswith(("nothing is known", "the model keeps"))]
    assert len(lines) == bool(said)
    assert all(said in line for line in lines)
    record = json.loads((tmp_path / "masks" / "a.json").read_text())
    assert (record["tta"], record.get("mirrors")) == (bool(mirrors), mirrors)
    plain = tiny_model(**plan).predict(tmp_path / "images" / "a.nii.gz", tta=False).array
    assert np.array_equal(read_mask(tmp_path / "masks" / "a.nii.gz").array, plain) == (not mirrors)


def test_fewer_views_are_no_idle_option(tmp_path: Path) -> None:
    run = saved(tiny_model(views=("axial", "coronal"), spacing_mm=(1.5, 1.5, 1.5)), tmp_path / "run")
    write_image(tmp_path / "images" / "a.nii.gz", blobs())
    heard = _Said()
    predict(run, tmp_path / "images", tmp_path / "masks", device="cpu", progress=heard, views="axial")
    assert not any("views" in line for line in heard.lines)


def test_what_is_not_there_is_named_and_nothing_is_made(run: Path, images: Path, tmp_path: Path) -> None:
    target = tmp_path / "masks"
    with pytest.raises(MissingFileError, match="nowhere"):
        predict(run, tmp_path / "nowhere", target, device="cpu")
    with pytest.raises(MissingFileError, match=r"absent: no model\.json"):
        predict(tmp_path / "absent", images, target, device="cpu")
    with pytest.raises(MissingFileError, match="no run folder"):
        predict([], images, target, device="cpu")
    with pytest.raises(
        DatasetError,
        match=r"1 requested case has no volume, and is no patient: case_9 \(nearest is case_\d\); correct",
    ):
        predict(run, images, target, cases=["case_1", "case_9"], device="cpu")
    with pytest.raises(
        DatasetError, match=r"1 requested case has no volume, and is no patient: case \(nearest is case_\d\); correct"
    ):
        predict(run, images, target, cases=["case_1", "case"], device="cpu")
    assert not target.exists()


def test_a_full_disk_stops_the_run(run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medfcn.labels.sidecar.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        predict(run, images, tmp_path / "masks", device="cpu")
    monkeypatch.undo()
    done = predict(run, images, tmp_path / "masks", resume=True, device="cpu")
    assert len(done.predicted) == 6, "a mask without its sidecar is not trusted"


def test_the_only_mask_is_made_again_by_the_same_command(tmp_path: Path) -> None:
    run = saved(tiny_model(), tmp_path / "run")
    image, mask = write_image(tmp_path / "image.nii.gz", blobs()), tmp_path / "mask.nii.gz"
    for overwrite in (False, True):
        result = predict(run, image, mask, overwrite=overwrite)
        assert (len(result.predicted), result.others) == (1, ())
