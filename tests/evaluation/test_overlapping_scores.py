"""Labels that overlap are each scored as if they were the only one."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfcn.evaluation import Definitions, count_labels, count_voxels, evaluate, score_case
from medfcn.labels import LabelEntry, LabelMap
from medfcn.reporting.compose import predict_report, report
from medfcn.volumes import Volume
from tests.overlapping import NESTED, draw_nested, overlapping_maps
from tests.reporting.pages import Page

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])


def blocks(seed: int) -> NDArray[np.uint8]:
    """Blocks of values 0 to 14."""
    coarse = np.random.default_rng(seed).integers(0, 15, (3, 4, 3), dtype=np.uint8)
    return coarse.repeat(3, axis=0).repeat(2, axis=1).repeat(2, axis=2)


@given(overlapping_maps(), st.integers(0, 2**16))
@settings(deadline=None, max_examples=40)
def test_a_row_is_that_of_its_label_alone(labels: LabelMap, seed: int) -> None:
    drawn, found = blocks(seed), blocks(seed + 1)
    definitions = Definitions(lesions=True)
    written = labels.decode(LabelMap(labels.entries).encode(found, name="a"))
    rows = score_case(Volume(written, AFFINE), Volume(drawn, AFFINE), labels, case="a", definitions=definitions)
    missed = score_case(None, Volume(drawn, AFFINE), labels, case="a", definitions=definitions)
    for entry, row, miss in zip(labels.entries, rows, missed, strict=True):
        written_as = entry.values[0] if len(entry.values) == 1 else 1
        alone = LabelMap((LabelEntry(entry.name, entry.values, written_as),), ignored=labels.ignored)
        (expected,) = score_case(
            Volume(found, AFFINE),
            Volume(drawn, AFFINE),
            alone,
            case="a",
            definitions=definitions,
            prediction_codec=alone.reference_codec,
        )
        assert _comparable(row) == _comparable(expected)
        (expected,) = score_case(None, Volume(drawn, AFFINE), alone, case="a", definitions=definitions)
        assert _comparable(miss) == _comparable(expected)


def _comparable(row: object) -> dict[str, str]:
    """Fields as text, so that nan is nan."""
    return {key: repr(value) for key, value in vars(row).items()}


def test_voxels_of_unions_are_counted_from_one_matrix() -> None:
    random = np.random.default_rng(0)
    members = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=bool)
    drawn, found = random.integers(0, 5, (2, 6, 7, 8), dtype=np.uint8)
    counts = count_labels(drawn, found, labels=3, members=members)
    for label in range(3):
        assert counts[label] == count_voxels(members[drawn, label], members[found, label])


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Path, Path]:
    """Two cases with nested references, and predictions that are those of other cases."""
    for number in range(2):
        for kind, mask in (("references", draw_nested(number)[1]), ("predictions", draw_nested(number + 5)[1])):
            (tmp_path / kind).mkdir(exist_ok=True)
            Volume(mask, AFFINE).save(tmp_path / kind / f"case_{number}.nii.gz")
    return tmp_path / "predictions", tmp_path / "references"


def true_dices() -> dict[tuple[str, str], float]:
    dices = {}
    for number in range(2):
        drawn, found = draw_nested(number)[1], draw_nested(number + 5)[1]
        for label, name in enumerate(("whole", "core", "enhancing")):
            both = ((drawn > label) & (found > label)).sum()
            dices[f"case_{number}", name] = 2 * both / ((drawn > label).sum() + (found > label).sum())
    return dices


@pytest.mark.parametrize("how", ["labels", "sidecar", "regions"])
def test_evaluate_takes_unions_on_both_sides(cases: tuple[Path, Path], how: str) -> None:
    predictions, references = cases
    if how == "sidecar":
        for number in range(2):
            (predictions / f"case_{number}.json").write_text(json.dumps({"labels": LabelMap.parse(NESTED).to_json()}))
    if how == "regions":
        regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
        (references.parent / "dataset.json").write_text(json.dumps({"labels": regions}))
    table = evaluate(predictions, references, labels=NESTED if how == "labels" else None)
    assert {(row.case, row.label): row.dice for row in table.rows} == pytest.approx(true_dices())
    assert "labels overlap: 1 is whole; 2 is whole + core; 3 is whole + core + enhancing" in table.notes


def test_a_mask_of_parts_is_scored_for_one_label_alone(cases: tuple[Path, Path]) -> None:
    predictions, references = cases
    for number in range(2):
        (predictions / f"case_{number}.json").write_text(json.dumps({"labels": LabelMap.parse(NESTED).to_json()}))
    table = evaluate(predictions, references, labels="core=2+3")
    expected = {key: dice for key, dice in true_dices().items() if key[1] == "core"}
    assert {(row.case, row.label): row.dice for row in table.rows} == pytest.approx(expected)


def test_reports_draw_parts_and_list_labels(cases: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, references = cases
    labels = LabelMap.parse("whole=1+2+3,core=2+3,enhancing=3,odd=1+3")
    parts = ["whole + odd", "whole + core", "whole + core + enhancing + odd"]
    path = report(predictions, references, tmp_path / "report.html", labels=labels)
    assert _named(path) == (parts, ["whole", "core", "enhancing", "odd"])
    for number in range(2):
        (predictions / f"case_{number}.json").write_text(json.dumps({"labels": labels.to_json()}))
    path = predict_report(predictions, references, output=tmp_path / "predicted.html")
    assert _named(path) == (parts, ["whole", "core", "enhancing", "odd"])
    ml = np.count_nonzero(draw_nested(5)[1] > 1) * 3.0 / 1000
    assert f"core {ml:.3g} ml" in path.read_text("utf-8")


def _named(path: Path) -> tuple[list[str], list[str]]:
    """The labels of the viewer, and those that the table can be narrowed to."""
    text = path.read_text("utf-8")
    data = next(json.loads(inner) for tag, a, inner in Page(text).raw if a.get("id") == "page-data")
    options = [line for line in text.partition('id="which"')[2].splitlines() if "<option value=" in line]
    names = [part.split(">")[-1] for line in options for part in line.split("</option>") if 'value="' in part]
    return [label["name"] for label in data["labels"]], [name for name in names if "label" not in name]
