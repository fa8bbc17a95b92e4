"""The record beside a mask: written as ever, read whatever stands there."""

import ast
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from medfcn.errors import SettingsError
from medfcn.evaluation import evaluate
from medfcn.labels import LabelMap
from medfcn.labels.sidecar import MaskRecord, record_path
from medfcn.volumes import Volume

PACKAGE = Path(__file__).resolve().parents[2] / "medfcn"
RECORD = MaskRecord(
    input_sha256=("1" * 64,),
    model_sha256=("2" * 64, "3" * 64),
    card_sha256=("4" * 64, "5" * 64),
    medfcn="0.1.0",
    threads=1,
    reading={"xform": "auto", "assume_grid": False, "nonfinite": None, "volume_index": None, "max_bytes": 2 << 30},
    threshold=0.45,
    tta=False,
    case="läsion_1",
    mask_sha256="6" * 64,
    labels=LabelMap.parse("whole=1+2,core=2,ignore=9"),
    volumes_ml={"whole": 1.5, "core": 0.0},
    expected_dice={"whole": 0.875, "core": float("nan")},
    review={"whole": False, "core": None},
    flags=("core not found",),
    intended_use="Research use only; not a medical device.",
)
# As b9f08bd wrote it, but for the lengths of the hashes.
OLD = """{
  "input_sha256": [
    "1111111111111111111111111111111111111111111111111111111111111111"
  ],
  "model_sha256": [
    "2222222222222222222222222222222222222222222222222222222222222222",
    "3333333333333333333333333333333333333333333333333333333333333333"
  ],
  "card_sha256": [
    "4444444444444444444444444444444444444444444444444444444444444444",
    "5555555555555555555555555555555555555555555555555555555555555555"
  ],
  "medfcn": "0.1.0",
  "threads": 1,
  "reading": {
    "xform": "auto",
    "assume_grid": false,
    "nonfinite": null,
    "volume_index": null,
    "max_bytes": 2147483648
  },
  "threshold": 0.45,
  "tta": false,
  "case": "läsion_1",
  "mask_sha256": "6666666666666666666666666666666666666666666666666666666666666666",
  "labels": {
    "entries": [
      {
        "name": "whole",
        "values": [
          1,
          2
        ],
        "written": 1
      },
      {
        "name": "core",
        "values": [
          2
        ],
        "written": 2
      }
    ],
    "unnamed": "background",
    "ignored": [
      9
    ]
  },
  "volumes_ml": {
    "whole": 1.5,
    "core": 0.0
  },
  "expected_dice": {
    "whole": 0.875,
    "core": null
  },
  "review": {
    "whole": false,
    "core": null
  },
  "flags": [
    "core not found"
  ],
  "notes": [],
  "intended_use": "Research use only; not a medical device."
}
"""


def beside(folder: Path, content: str) -> MaskRecord | None:
    (folder / "a.json").write_text(content, encoding="utf-8")
    return MaskRecord.beside(folder / "a.nii.gz")


def changed(**values: Any) -> str:
    return json.dumps(json.loads(OLD) | values)


def test_the_file_is_written_as_ever(tmp_path: Path) -> None:
    RECORD.write(tmp_path / "a.nii.gz")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == OLD
    with_probabilities = msgspec.structs.replace(RECORD, probabilities_sha256=("7" * 64,))
    with_probabilities.write(tmp_path / "a.nii")
    keys = list(json.loads((tmp_path / "a.json").read_text(encoding="utf-8")))
    assert keys[keys.index("mask_sha256") + 1] == "probabilities_sha256"
    assert MaskRecord.beside(tmp_path / "a.nii.gz").origin == RECORD.origin  # type: ignore[union-attr]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = beside(tmp_path, OLD)
    assert found == msgspec.structs.replace(RECORD, expected_dice={"whole": 0.875, "core": None})
    assert found.by_label == (("whole", 1.5, 0.875, False), ("core", 0.0, None, None))
    assert list(found.maker) == ["model_sha256", "card_sha256", "medfcn", "threshold", "tta"]


def test_a_newer_version_may_say_more(tmp_path: Path) -> None:
    assert beside(tmp_path, changed(shard={"of": 3}, dicom=[1])) == beside(tmp_path, OLD)


@pytest.mark.parametrize("name", json.loads(OLD))
def test_a_mask_made_otherwise_has_another_origin(tmp_path: Path, name: str) -> None:
    """All keys but those that follow from the mask, its labels and its case decide it."""
    decides = name in (
        "input_sha256",
        "model_sha256",
        "card_sha256",
        "medfcn",
        "threads",
        "reading",
        "threshold",
        "tta",
    )
    value = json.loads(OLD)[name]
    other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else type(value)()
    if name == "labels":
        other = LabelMap.parse("organ=1").to_json()
    found = beside(tmp_path, changed(**{name: other}))
    assert found is not None
    assert (found.origin != RECORD.origin) == decides


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "3", "null", "{", '{"labels": NaN}', "[" * 100_000, '{"a": ' * 100_000, '"\\ud800"'),
        *('{"labels": {"background": 0}}', '{"labels": ["a"]}', '{"labels": 3}', '{"case": "a", "volumes_ml": {}}'),
        '{"Modality": "MR", "EchoTime": 0.03}',
    ],
)
def test_the_json_of_another_tool_is_no_record(tmp_path: Path, content: str) -> None:
    assert beside(tmp_path, content) is None
    assert not MaskRecord.is_in(tmp_path / "a.json")
    mask = Volume(np.ones((2, 2, 2), dtype=np.uint8), np.eye(4))
    mask.save(tmp_path / "a.nii.gz")
    (tmp_path / "references").mkdir()
    mask.save(tmp_path / "references" / "a.nii.gz")
    assert [row.dice for row in evaluate(tmp_path / "a.nii.gz", tmp_path / "references" / "a.nii.gz").rows] == [1.0]


def test_a_mask_without_a_file_beside_it_has_no_record(tmp_path: Path) -> None:
    assert MaskRecord.beside(tmp_path / "a.nii.gz") is None
    (tmp_path / "a.json").mkdir()
    assert MaskRecord.beside(str(tmp_path / "a.nii.gz")) is None
    assert MaskRecord.beside((np.ones((2, 2, 2)), np.eye(4))) is None


SPOILT = [None, 3, "x", True, [], {}, [[]], {"a": []}, {"whole": "high"}, 10**400, 1.5, "\x1b[31m\n"]


@pytest.mark.parametrize("value", [*SPOILT, float("nan"), float("inf")], ids=repr)
@pytest.mark.parametrize("name", [name for name in json.loads(OLD) if name not in ("labels", "mask_sha256")])
def test_a_spoilt_field_is_as_one_that_is_not_there(tmp_path: Path, name: str, value: Any) -> None:
    found = beside(tmp_path, changed(**{name: value}))
    if value != value or value == float("inf"):  # no JSON
        assert found is None
        return
    assert found is not None
    assert found.labels == RECORD.labels
    assert getattr(found, name) in (getattr(MaskRecord(), name), tuple(value) if value == [] else value)
    if name in ("expected_dice", "review", "volumes_ml") and value not in ({}, {"a": []}):
        assert found.by_label is None


@pytest.mark.parametrize("value", [value for value in SPOILT if value is not None], ids=repr)
def test_labels_that_cannot_be_are_refused_in_one_line(tmp_path: Path, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        beside(tmp_path, changed(labels=value))
    assert str(caught.value).startswith("a.json: labels: ")
    assert str(caught.value).isprintable()
    assert MaskRecord.is_in(tmp_path / "a.json")


def test_no_other_module_spells_the_keys_of_a_record() -> None:
    keys = {"input_sha256", "model_sha256", "card_sha256", "mask_sha256", "probabilities_sha256", "volumes_ml"}
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in keys
    }
    assert users == {"labels/sidecar.py"}


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "A.B.NII.GZ", "a.mha", ".nii.gz"])
def test_a_record_has_the_name_of_its_mask(name: str) -> None:
    expected = {"A.B.NII.GZ": "A.B.json", ".nii.gz": ".nii.gz.json"}.get(name, "a.json")
    assert record_path(Path("folder") / name) == Path("folder") / expected
