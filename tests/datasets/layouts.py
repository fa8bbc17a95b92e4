"""Data sets of small files in every layout, and what their problems and errors must be like."""

import json
from pathlib import Path

import pytest

from medfcn.datasets import Dataset
from medfcn.errors import MedfcnError
from tests.volumes.hostile import GOOD


def lay(root: Path, *names: str) -> Path:
    """Put good files under these names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(GOOD)
    return root


def line_of(caught: pytest.ExceptionInfo[MedfcnError]) -> str:
    text = str(caught.value)
    assert text.isprintable()
    assert ";" in text
    return text


def lacking(dataset: Dataset) -> list[tuple[str, str, str, str]]:
    """Code, case, file and field of every problem; each is one printable line that says what to do."""
    for problem in dataset.problems:
        assert problem.line.isprintable()
        assert problem.severity == "error"
        assert problem.found
        assert problem.remedy
    assert {problem.case for problem in dataset.problems} == {case.id for case in dataset.incomplete}
    return [(problem.code, problem.case, problem.file, problem.field) for problem in dataset.problems]


def decathlon(root: Path, training: object, **more: object) -> Path:
    (root / "dataset.json").write_text(json.dumps({"training": training, **more}))
    return root
