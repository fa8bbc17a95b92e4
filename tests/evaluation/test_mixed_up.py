"""Masks beside the records of others: mixed up between cases, or edited since."""

import hashlib
import json

import numpy as np

from medfcn.evaluation import evaluate
from medfcn.evaluation.measure import measure
from medfcn.labels import LabelMap
from medfcn.labels.sidecar import TRAINING_CASE, MaskRecord
from medfcn.reporting.compose import report
from medfcn.volumes import Volume

LABELS = LabelMap.parse("organ=1")


def predicted(folder, case, shift):
    """A mask with its record, as `predict` writes them."""
    mask = np.zeros((8, 8, 8), dtype=np.uint8)
    mask[2 : 5 + shift, 2:6, 2:6] = 1
    path = folder / f"{case}.nii.gz"
    Volume(mask, np.eye(4)).save(path)
    MaskRecord(
        case=case,
        mask_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        labels=LABELS,
        volumes_ml={"organ": float(mask.sum() / 1000)},
        voxels={"organ": int(mask.sum())},
        expected_dice={"organ": 0.9},
        review={"organ": False},
        notes=(TRAINING_CASE,),
    ).write(path)
    return path


def test_masks_that_are_not_those_of_their_records_are_named_and_keep_nothing_of_them(tmp_path):
    masks, references = tmp_path / "masks", tmp_path / "references"
    masks.mkdir(), references.mkdir()
    for shift, case in enumerate("abc"):
        predicted(masks, case, shift)
        predicted(references, case, shift)
    for record in references.glob("*.json"):
        record.unlink()
    assert not any("json" in note for note in evaluate(masks, references).notes)
    first, second = masks / "a.nii.gz", masks / "b.nii.gz"
    first.rename(tmp_path / "x"), second.rename(first), (tmp_path / "x").rename(second)
    notes = evaluate(masks, references).notes
    assert (
        "2 of 3 predictions are not the masks that their .json files describe: they were edited since, or mixed up "
        "with other cases: a, b" in notes
    )
    assert any(note.startswith("3 of 3 predictions are of training cases") for note in notes)
    page = report(masks, references, tmp_path / "report.html").read_text()
    assert page.count("0.900") == 1  # the Dice to expect of c alone
    record = MaskRecord.of_file(first)
    assert record is not None
    assert (record.expected_dice, record.volumes_ml, record.labels) == (None, None, LABELS)


def test_masks_moved_with_their_records_to_another_case_are_named(tmp_path):
    masks, references = tmp_path / "masks", tmp_path / "references"
    masks.mkdir(), references.mkdir()
    for shift, case in enumerate("ab"):
        predicted(masks, case, shift)
        predicted(references, case, shift)
        (references / f"{case}.json").unlink()
    for ending in ("nii.gz", "json"):
        (masks / f"a.{ending}").rename(tmp_path / ending)
        (masks / f"b.{ending}").rename(masks / f"a.{ending}")
        (tmp_path / ending).rename(masks / f"b.{ending}")
    expected = "beside 2 of 2 predictions lies the .json of another case that is scored here: a (of b), b (of a); "
    assert f"{expected}were they mixed up?" in evaluate(masks, references).notes
    # A name of the user's own is no reason: nothing is scored under the old one.
    for folder, ending in ((masks, "nii.gz"), (masks, "json"), (references, "nii.gz")):
        (folder / f"a.{ending}").rename(folder / f"patient.{ending}")
    assert "b (of a)" not in " ".join(evaluate(masks, references).notes)


def test_masks_that_were_not_measured_are_named_where_the_sizes_are_printed(tmp_path):
    predicted(tmp_path, "a", 0)
    path = predicted(tmp_path, "b", 1)
    path.write_bytes(path.read_bytes()[:60])
    text = str(measure(tmp_path))
    assert "1 of 2 masks could not be measured: b" in text
    assert json.loads((tmp_path / "a.json").read_text())["voxels"] == {"organ": 48}
    assert "0.048" in text


def test_a_volume_under_two_names_is_said_to_count_twice(tmp_path):
    masks, references = tmp_path / "masks", tmp_path / "references"
    masks.mkdir(), references.mkdir()
    for shift, case in enumerate("abcd"):
        for folder in (masks, references):
            predicted(folder, case, shift % 3)  # the references of a and d are one mask
    for record in references.glob("*.json"):
        record.unlink()
    said = "one volume under several names counts several times; keep one of each: a = d (the same reference)"
    assert said in evaluate(masks, references).notes
    for case, hashes in (("a", ["1", "2"]), ("b", ["2", "1"]), ("d", ["3", "1"])):  # the image of a is that of b
        record = json.loads((masks / f"{case}.json").read_text())
        (masks / f"{case}.json").write_text(json.dumps(record | {"input_sha256": hashes}))
    (note,) = (note for note in evaluate(masks, references).notes if note.startswith("one volume"))
    assert note.endswith("each: a = b (the same image), a = d (the same reference)")
    (references / "d.nii.gz").unlink()
    assert any(note.endswith("each: a = b (the same image)") for note in evaluate(masks, references).notes)
