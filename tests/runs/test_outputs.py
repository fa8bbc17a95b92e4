"""Output folders: recognised as medfcn's, and never overwritten by mistake."""

from pathlib import Path

import pytest

from medfcn.errors import OutputExistsError
from medfcn.runs.outputs import refuse_existing


def test_an_output_in_the_way_is_refused_unless_asked_for(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new", overwrite=False)
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty", overwrite=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "scan.nii").touch()
    refuse_existing(tmp_path / "full" / "scan.nii", overwrite=True)
    with pytest.raises(OutputExistsError, match=r"choose another output, or replace it \(overwrite=True\)"):
        refuse_existing(tmp_path / "full", overwrite=False)


def test_the_tables_of_a_prediction_that_failed_are_in_nobodys_way(tmp_path: Path) -> None:
    sizes = tmp_path / "volumes.csv"
    sizes.write_text("case,label,volume_ml\n")
    for name in ("failures.csv", "labels.txt", "labels.ctbl"):
        (tmp_path / name).touch()
    refuse_existing(tmp_path, overwrite=False, can_resume=True)
    with pytest.raises(OutputExistsError):  # of another command than predict
        refuse_existing(tmp_path, overwrite=False)
    for name, content in (("volumes.csv", "case,label,volume_ml\na,organ,1.0\n"), ("notes.txt", "mine\n")):
        before = sizes.read_text()
        (tmp_path / name).write_text(content)
        with pytest.raises(OutputExistsError):
            refuse_existing(tmp_path, overwrite=False, can_resume=True)
        sizes.write_text(before)


SIDECAR = '{"mask_sha256": "0"}'


@pytest.mark.parametrize(
    ("files", "is_ours"),
    [
        (["notes.txt"], False),
        (["images/a.nii.gz", "labels/a.nii.gz", "cases.csv", "dataset.json"], False),
        (["sub-01_T1w.nii.gz", "sub-01_T1w.json"], False),
        (["model.json"], False),
        (["state/notes.txt"], False),
        (["run"], False),
        (["model.json", "model.safetensors", "notes.txt"], True),
        (["scores.csv", "summary.json"], True),
        (["state/1f.labels.npy"], True),
        (["a.nii.gz", "a.json=" + SIDECAR], True),
        (["fold_1/model.json", "fold_1/model.safetensors"], True),
        (["run/model.json", "run/model.safetensors"], True),
        (["masks/a.json=" + SIDECAR], True),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_only_outputs_of_medfcn_are_overwritten(files: list[str], is_ours: bool, tmp_path: Path) -> None:
    for text in files:
        name, _, content = text.partition("=")
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(content or "{}")
    if is_ours:
        refuse_existing(tmp_path / "out", overwrite=True)
    else:
        with pytest.raises(OutputExistsError, match="contains files, none of them written by medfcn"):
            refuse_existing(tmp_path / "out", overwrite=True)
