"""Other volumes of training patients are named: scores on them say nothing of new patients."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.datasets import Case
from medfcn.files import write_csv
from medfcn.inference.training_patients import of_training_patients
from medfcn.labels.sidecar import TRAINING_PATIENT
from medfcn.runs.models import ModelFiles
from medfcn.verbs import predict
from tests.inference.models import blobs, saved, tiny_model, write_image

COLUMNS = ("case", "group", "use", "sha256_image", "sha256_label", "problem")


def listed(folder: Path, *rows: tuple[str, str, str]) -> ModelFiles:
    """A run whose `cases.csv` lists cases with their patients and uses."""
    folder.mkdir(exist_ok=True)
    write_csv(folder / "cases.csv", COLUMNS, [(*row, "", "", "") for row in rows])
    return ModelFiles(folder)


def cases(*ids: str, groups: Mapping[str, str] | None = None) -> list[Case]:
    return [Case(name, (Path(name),), None, (groups or {}).get(name, name)) for name in ids]


@pytest.mark.parametrize(
    ("trained", "new", "named"),
    [
        ([("p1_frame01", "p1"), ("p2_frame01", "p2")], ["p1_frame12", "p3_frame01"], ["p1_frame12"]),
        ([("p1_left", "p1_left"), ("p2_left", "p2_left")], ["p1_right", "p12_right"], ["p1_right"]),
        ([("sub-01_ses-1", "sub-01")], ["sub-01_ses-2_T1w", "sub-011_ses-1_T1w"], ["sub-01_ses-2_T1w"]),
        ([("p1", "p1"), ("p2", "p2")], ["p1", "p10"], ["p1"]),
        ([("scan_1", "anna"), ("scan_2", "ben")], ["scan_1", "scan_3"], ["scan_1"]),
        ([("p1_left", "p1_left"), ("p1_right", "p1_right")], ["p1_pre"], []),  # --group-by none
        ([("hippocampus_001", "1"), ("hippocampus_003", "2")], ["hippocampus_004", "hippocampus_2"], []),
    ],
)
def test_a_patient_is_known_by_the_ids(
    tmp_path: Path, trained: Sequence[tuple[str, str]], new: Sequence[str], named: Sequence[str]
) -> None:
    run = listed(tmp_path, *((case, group, "training") for case, group in trained))
    assert of_training_patients([run], cases(*new)) == set(named)


def test_cases_that_were_not_trained_on_are_of_their_listed_patients(tmp_path: Path) -> None:
    """One that was left out because it was damaged is of a training patient; a validation case is not."""
    rows = [
        ("a", "anna", "training"),
        ("b", "anna", "left out"),
        ("c", "ben", "validation"),
        ("d", "eva", "left out"),
    ]
    assert of_training_patients([listed(tmp_path, *rows)], cases("b", "c", "d")) == {"b"}


def test_a_data_set_states_further_volumes_of_a_patient(tmp_path: Path) -> None:
    run = listed(tmp_path, ("ct_1", "ct_1", "training"), ("x1", "anna", "training"))
    groups = {"ct_1": "ct_1", "mr_7": "ct_1", "y5": "anna", "z": "ben"}
    assert of_training_patients([run], cases(*groups, groups=groups)) == {"ct_1", "mr_7", "y5"}


def test_nothing_is_known_of_runs_without_a_list(tmp_path: Path) -> None:
    assert of_training_patients([ModelFiles(tmp_path)], cases("p1")) == frozenset()
    write_csv(tmp_path / "cases.csv", ["use", "sha256_image"], [["training", "ab"]])  # as in a .medfcn file
    assert of_training_patients([ModelFiles(tmp_path)], cases("p1", "")) == frozenset()


def test_they_are_said_by_predict_and_by_evaluate(tmp_path: Path) -> None:
    saved(tiny_model(), tmp_path / "run")
    listed(tmp_path / "run", ("p1_frame01", "p1", "training"), ("p2_frame01", "p2", "validation"))
    images, masks, references = tmp_path / "images", tmp_path / "masks", tmp_path / "references"
    for seed, name in enumerate(["p1_frame12", "p2_frame12", "p3_frame01"]):
        write_image(images / f"{name}.nii.gz", blobs(seed=seed))
        write_image(references / f"{name}.nii.gz", (blobs(seed=7) > 0).astype(np.uint8))
    line = (
        "1 of 3 {} has the id of a patient whom {} model was trained on; if so, its scores say nothing of new "
        "patients: p1_frame12"
    )
    command = ["predict", str(tmp_path / "run"), str(images), "-o", str(masks), "--device", "cpu"]
    for more in ([], ["--resume"]):
        assert CliRunner().invoke(main, [*command, *more]).stderr.splitlines()[-1] == line.format("volumes", "this")
    notes = {path.stem: json.loads(path.read_text())["notes"] for path in masks.glob("*_frame*.json")}
    assert {name for name, said in notes.items() if TRAINING_PATIENT in said} == {"p1_frame12"}
    assert line.format("predictions", "the") in medfcn.evaluate(masks, references).notes
    again = predict(tmp_path / "run", images, tmp_path / "again", again=masks, device="cpu")
    assert again.training_patients == ("p1_frame12",)
