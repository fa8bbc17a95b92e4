"""Scores where references, predictions or both are one file for each structure."""

import json
from pathlib import Path

import numpy as np
import pytest

from medfcn.errors import DatasetError
from medfcn.evaluation import evaluate
from medfcn.labels.label_map import LabelMap
from medfcn.labels.sidecar import MaskRecord
from tests.structures import lay_out, organs, save

DICE = {"kidney": 1.0, "liver": 1 - 1 / 11, "spleen": 1.0}
"""Predictions that lack the lowest of the liver's six slices."""


def predicted(case: int, **more: int) -> dict[str, np.ndarray]:
    masks = organs(case, **more)
    masks["liver"][:, :, 1] = 0
    return masks


def as_one(masks: dict[str, np.ndarray]) -> np.ndarray:
    """One mask: kidney 1, liver 2, spleen 3."""
    return sum((np.uint8(nth) * masks[name] for nth, name in enumerate(sorted(masks), start=1)), start=np.uint8(0))


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "references", "segmentations", {f"s{case}": organs(case) for case in range(2)})


def write_structures(root: Path, **more: int) -> Path:
    for case in range(2):
        for name, mask in predicted(case, **more).items():
            save(root / f"s{case}" / f"{name}.nii.gz", mask)
    return root


def dices(*arguments: object, **options: object) -> dict[str, float]:
    table = evaluate(*arguments, **options)  # type: ignore[arg-type]
    assert not table.failures
    return {row.label: row.dice for row in table.rows if row.case == "s1"}


def test_structures_against_structures(references: Path, tmp_path: Path) -> None:
    assert dices(write_structures(tmp_path / "out"), references) == pytest.approx(DICE)
    assert dices(tmp_path / "out", references, labels="liver,organs=kidney+spleen") == pytest.approx(
        {"liver": DICE["liver"], "organs": 1.0}
    )


def test_structures_against_one_file_with_names(references: Path, tmp_path: Path) -> None:
    for case in range(2):
        save(tmp_path / "masks" / f"s{case}.nii.gz", as_one(organs(case)))
    out = write_structures(tmp_path / "out")
    with pytest.raises(DatasetError, match="name them with labels="):
        evaluate(out, tmp_path / "masks")
    assert dices(out, tmp_path / "masks", labels="kidney=1,liver=2,spleen=3") == pytest.approx(DICE)
    names = {"labels": {"background": 0, "spleen": 3, "liver": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(names))
    assert dices(out, tmp_path / "masks") == pytest.approx({"liver": DICE["liver"], "spleen": 1.0})


@pytest.mark.parametrize("named_by", ["record", "dataset.json"])
def test_one_file_against_structures(references: Path, tmp_path: Path, named_by: str) -> None:
    out = tmp_path / "out"
    for case in range(2):
        path = save(out / f"s{case}.nii.gz", as_one(predicted(case)))
        if named_by == "record":
            labels = LabelMap.parse("kidney=1,liver=2,spleen=3")
            MaskRecord(labels=labels, mask_sha256="0").write(path)
    if named_by == "dataset.json":
        (out / "dataset.json").write_text(json.dumps({"labels": {"liver": 2, "spleen": 3, "kidney": 1}}))
    assert dices(out, references) == pytest.approx(DICE)
    assert dices(out, references, labels="spleen,liver") == pytest.approx({"liver": DICE["liver"], "spleen": 1.0})


def test_numbers_that_nothing_names_are_refused(references: Path, tmp_path: Path) -> None:
    for case in range(2):
        save(tmp_path / "out" / f"s{case}.nii.gz", as_one(predicted(case)))
    with pytest.raises(DatasetError, match=r"put a dataset\.json"):
        evaluate(tmp_path / "out", references)


def test_one_value_against_one_structure(references: Path, tmp_path: Path) -> None:
    for case in range(2):
        save(tmp_path / "out" / f"s{case}.nii.gz", predicted(case)["liver"] * np.uint8(7))
    assert dices(tmp_path / "out", references, labels="liver") == pytest.approx({"liver": DICE["liver"]})


@pytest.mark.parametrize("sides", [(0, 2), (2, 0), (2, 2), (1, 2)], ids=str)
def test_overlapping_structures_are_scored_whole(tmp_path: Path, sides: tuple[int, int]) -> None:
    of_reference, of_prediction = sides
    cases = {f"s{case}": organs(case, overlap=of_reference) for case in range(2)}
    references = lay_out(tmp_path / "references", "segmentations", cases)
    found = dices(write_structures(tmp_path / "out", overlap=of_prediction), references)
    shared = 5 + min(sides)
    expected = {"spleen": 2 * shared / (10 + sum(sides))}
    assert found == pytest.approx({**DICE, **expected})
    # Against one file, in which no value stands for both:
    if of_reference == 0:
        for case in range(2):
            save(tmp_path / "masks" / f"s{case}.nii.gz", as_one(organs(case)))
        one = dices(tmp_path / "out", tmp_path / "masks", labels="kidney=1,liver=2,spleen=3")
        assert one == pytest.approx({**DICE, **expected})


def test_a_structure_without_a_prediction_is_missed_and_named(references: Path, tmp_path: Path) -> None:
    out = write_structures(tmp_path / "out")
    (out / "s1" / "spleen.nii.gz").unlink()
    table = evaluate(out, references)
    row = next(row for row in table.rows if (row.case, row.label) == ("s1", "spleen"))
    assert (row.status, row.dice) == ("prediction_empty", 0.0)
    assert any(note.startswith("no file of spleen in 1 prediction") for note in table.notes)


def test_a_reference_without_a_structure_is_a_failure(references: Path, tmp_path: Path) -> None:
    out = write_structures(tmp_path / "out")
    (references / "s1" / "segmentations" / "spleen.nii.gz").unlink()
    table = evaluate(out, references)
    assert [case for case, _ in table.failures] == ["s1"]
    assert "no file of spleen" in table.failures[0][1]
    assert {row.case for row in table.rows} == {"s0"}


def test_a_structure_of_few_references_is_named_and_not_scored(tmp_path: Path) -> None:
    references = lay_out(tmp_path / "references", "segmentations", {f"s{case}": organs(case) for case in range(3)})
    save(references / "s0" / "segmentations" / "cyst.nii.gz", organs()["kidney"])
    out = write_structures(tmp_path / "out")
    table = evaluate(out, references)
    assert not table.failures
    assert {row.label for row in table.rows} == {"kidney", "liver", "spleen"}
    assert any("less than half of the references have a file of cyst" in note for note in table.notes)
    assert [case for case, _ in evaluate(out, references, labels="cyst").failures] == ["s1", "s2"]
