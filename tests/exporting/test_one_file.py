"""A model in one file: masks, records and bytes are those of the run; no case is named in it."""

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.config import override
from medfcn.errors import MissingFileError, ModelError, OutputExistsError, SettingsError
from medfcn.exporting import one_file
from medfcn.exporting.model_card import model_card
from medfcn.files import sha256_of, write_csv
from medfcn.inference.card import read_card
from medfcn.inference.foreign import Fingerprint
from medfcn.inference.model import Model
from medfcn.runs.folder import TIMING_FILE
from medfcn.runs.models import models_of
from medfcn.training.start import find_start
from medfcn.verbs import predict
from tests.inference.models import blobs, saved, tiny_model, write_image

CASES = ("case", "group", "use", "sha256_image", "sha256_label", "problem")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(3):
        write_image(folder / f"patient_{seed}.nii.gz", blobs(seed=seed))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A run of two labels that was trained on the first image."""
    model = tiny_model(labels="left=1,right=2")
    score = {"mean": 0.9, "mean_low": 0.8, "mean_high": 0.95, "worst_case": "patient_0"}
    scores = {"left": {"label": "left", "scored": 5, "missed": 0, "shares": {"dice": score}}}
    validation = {"interval": "95% bootstrap", "labels": scores, "notes": ["patient_0 is odd"]}
    model.card = dataclasses.replace(model.card, training={"cases": 1}, validation=validation)
    folder = saved(model, tmp_path_factory.mktemp("run"))
    hashes = sha256_of(images / "patient_0.nii.gz")
    write_csv(folder / "cases.csv", CASES, [("patient_0", "patient_0", "training", hashes, "0" * 64, "")])
    return folder


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != TIMING_FILE}


def exported(run: Path, path: Path, **more: object) -> Path:
    return medfcn.export(run, path, **more)


def test_masks_and_records_are_those_of_the_run(run: Path, images: Path, tmp_path: Path) -> None:
    file = exported(run, tmp_path / "model.medfcn")
    first = predict(run, images, tmp_path / "first", device="cpu")
    second = predict(file, images, tmp_path / "second", device="cpu")
    assert folder_bytes(tmp_path / "first") == folder_bytes(tmp_path / "second")
    assert first.training_cases == second.training_cases == ("patient_0",)
    assert predict(file, images, tmp_path / "first", device="cpu", resume=True).skipped == first.predicted


def test_folds_stay_the_mean_of_all(run: Path, images: Path, tmp_path: Path) -> None:
    for number in (1, 2, 10):
        saved(tiny_model(labels="left=1,right=2", seed=number), tmp_path / "run" / f"fold_{number}")
    file = exported(tmp_path / "run", tmp_path / "model.medfcn")
    predict(tmp_path / "run", images, tmp_path / "first", device="cpu")
    predict(file, images, tmp_path / "second", device="cpu")
    assert folder_bytes(tmp_path / "first") == folder_bytes(tmp_path / "second")
    with pytest.raises(ModelError, match="contains 3 networks, where one is needed"):
        find_start(file, None)


def test_bytes_repeat_and_any_zip_reader_reads_them(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = (exported(run, folder / "model.medfcn") for folder in (tmp_path, tmp_path / "other"))
    again = exported(first, tmp_path / "again.medfcn")
    assert first.read_bytes() == second.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("model.safetensors") == (run / "model.safetensors").read_bytes()


def test_no_case_is_named(run: Path, tmp_path: Path) -> None:
    content = exported(run, tmp_path / "model.medfcn").read_bytes()
    assert b"patient_0" not in content
    with zipfile.ZipFile(tmp_path / "model.medfcn") as archive:
        card = json.loads(archive.read("model.json"))
    assert card["validation"]["labels"]["left"]["shares"]["dice"]["mean"] == 0.9


def test_the_model_card_has_scores_and_the_text_about_the_data(run: Path, tmp_path: Path) -> None:
    (tmp_path / "about.md").write_text("Two people; CC BY-SA 4.0.")
    exported(run, tmp_path / "model.medfcn", about=tmp_path / "about.md")
    shown = CliRunner().invoke(main, ["models", str(tmp_path / "model.medfcn")])
    assert shown.exit_code == 0, shown.stderr
    scores = "| left | 5 | 0 | 0.900 [0.800, 0.950] |"
    for words in ("CC BY-SA 4.0", scores, "not a medical device", "trained on 1 case"):
        assert words in shown.stdout


@pytest.mark.parametrize(
    ("validations", "threshold", "said"),
    [
        (2, None, "The weights were chosen on these cases"),
        (2, 0.4, "The weights and threshold were chosen on these cases"),
        (1, 0.4, "The threshold was chosen on these cases"),
        (1, None, ""),
    ],
)
def test_the_model_card_names_what_was_chosen_on_its_cases(
    run: Path, validations: int, threshold: float | None, said: str
) -> None:
    card = dataclasses.replace(
        read_card(models_of(run)[0].card),
        training={"validations": validations},
        threshold=threshold,
        one_part=(),
        together=False,
        view_weights=(),
    )
    text = model_card("a", [card], card.validation, None, chosen=card.chosen_on_validation)
    assert said in text
    assert ("chosen on these cases" in text) is bool(said)
    cut = dataclasses.replace(card, one_part=(1,))
    assert cut.chosen_on_validation == (*card.chosen_on_validation, "components to keep")
    always = dataclasses.replace(cut, settings=override(card.settings, "prediction", largest_part="always"))
    assert always.chosen_on_validation == card.chosen_on_validation  # the settings chose
    in_fold = dataclasses.replace(cut, training={"validations": validations, "fold": "1 of 5"})
    assert in_fold.chosen_on_validation == ()


def test_the_model_card_counts_one_case_and_several(run: Path) -> None:
    for count, said in ((1, "trained on 1 case, validated on 1 other, 1 step."), (3, "trained on 3 cases, ")):
        training = dict.fromkeys(("cases", "validation_cases", "steps"), count)
        card = dataclasses.replace(read_card(models_of(run)[0].card), training=training)
        assert said in model_card("a", [card], card.validation, None, chosen=())
    for count, said in ((1, "volumes like the one it was trained on:"), (5, "volumes like the 5 it was trained on:")):
        looks = Fingerprint(cases=count, orientations=("RAS",), grid={}, channels=())
        assert said in model_card(
            "a", [dataclasses.replace(card, fingerprint=looks)], card.validation, None, chosen=()
        )


def test_the_model_card_says_what_the_training_started_from(run: Path) -> None:
    first = read_card(models_of(run)[0].card)
    carried = dataclasses.replace(first, training={"steps": 1, "init": "0123456789abcdef", "init_steps": 80})
    text = model_card("a", [carried], first.validation, None, chosen=())
    said = "- 1 step; it starts from the weights of another run (SHA-256 0123456789ab…), trained for 80 steps."
    assert said in text.splitlines()
    assert "starts from" not in model_card("a", [first], first.validation, None, chosen=())


def test_weights_to_start_from(run: Path, tmp_path: Path) -> None:
    start = find_start(exported(run, tmp_path / "model.medfcn"), None)
    assert start.record == find_start(run, None).record


def test_a_file_that_predicts_something_else_gets_no_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_file, "_without_ids", lambda place: _other_card(run))
    with pytest.raises(ModelError, match="predicts something else than the run on a phantom of 12×12×5 voxels"):
        exported(run, tmp_path / "model.medfcn")
    assert list(tmp_path.iterdir()) == []


def _other_card(run: Path) -> bytes:
    card = json.loads((run / "model.json").read_text())
    card["labels"]["entries"][0]["name"] = "other"
    card["plan"]["intensities"][0]["kind"] = "none"
    return json.dumps(card).encode()


def test_an_output_is_not_replaced_and_needs_its_ending(run: Path, tmp_path: Path) -> None:
    file = exported(run, tmp_path / "model.medfcn")
    with pytest.raises(OutputExistsError):
        exported(run, file)
    exported(run, file, overwrite=True)
    with pytest.raises(SettingsError, match=r"does not end in \.medfcn"):
        exported(run, tmp_path / "model.zip")
    with pytest.raises(MissingFileError):
        exported(tmp_path / "nothing", tmp_path / "other.medfcn")


def test_a_model_on_the_shelf_has_a_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shelf = tmp_path / ".medfcn" / "models"
    shelf.mkdir(parents=True)
    exported(run, shelf / "mine.medfcn")
    shutil.copytree(run, shelf / "folder")
    listed = CliRunner().invoke(main, ["models"])
    assert [model.name for model in medfcn.models() if not model.is_ours] == ["folder", "mine"]
    assert ["mine", "in", "~/.medfcn/models"] in [line.split() for line in listed.stdout.splitlines()]
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "folder"):
        assert Model.load(name, device="cpu").card.labels.names == ("left", "right")
    with pytest.raises(MissingFileError, match="medfcn models"):
        Model.load("theirs", device="cpu")
