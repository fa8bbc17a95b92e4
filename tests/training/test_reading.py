"""How often a training reads its files and runs its network."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.datasets import find_dataset
from medfcn.inference.model import Model
from medfcn.labels import LabelMap
from medfcn.progress import Silent
from medfcn.runs.folder import RunFolder
from medfcn.training.survey import survey
from medfcn.volumes import ReadOptions, reading
from tests.conftest import draw_ball, write_case

SAMPLES = Path(__file__).resolve().parents[2] / "sample_data" / "train"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the voxels of each file are read, by its place in its data set."""
    counts: Counter[str] = Counter()
    original = reading.read_nifti

    def counted(path: Any, **choices: Any) -> Any:
        counts["/".join(Path(path).parts[-2:])] += 1
        return original(path, **choices)

    monkeypatch.setattr(reading, "read_nifti", counted)
    return counts


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each case and view that goes through the network in evaluation."""
    calls: list[int] = []
    original = Model.view_probabilities

    def run(self: Model, *arguments: Any, **choices: Any) -> Any:
        calls.append(len(calls))
        return original(self, *arguments, **choices)

    monkeypatch.setattr(Model, "view_probabilities", run)
    return calls


@pytest.mark.parametrize("labels", [(), ("--labels", "organ=1")], ids=["labels of the masks", "named labels"])
def test_twelve_phantoms_are_read_twice_and_each_validation_runs_the_network_once(
    labels: tuple[str, ...],
    tmp_path: Path,
    reads: Counter[str],
    passes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("medfcn.training.schedule._STEPS_BETWEEN_VALIDATIONS", 2)
    # Where the processor has bfloat16, its test at the end sends the cases through the network once more.
    monkeypatch.setattr("medfcn.training.bfloat16.has_fast_bfloat16", lambda device: False)
    words = ["train", SAMPLES, "-o", tmp_path / "run", "--steps", 4, "--device", "cpu", "--threads", 1, *labels]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    run = RunFolder(tmp_path / "run")
    assert run.report.is_file()
    with run.cases.open() as file:
        validation = [line.split(",")[0] for line in file if ",validation," in line]
    files = {name: count for name, count in reads.items() if name.startswith(("images/", "labels/"))}
    assert len(files) == 24
    for name, count in files.items():
        is_validation = any(f"/{case}." in name for case in validation)
        assert 1 <= count <= (2 if is_validation else 1), (name, count)  # the second time by the report
    validations = sum(row.split(",")[4] != "" for row in run.log.read_text().splitlines()[1:])
    assert validations == 2
    assert len(passes) == validations * len(validation)


def test_cases_beyond_the_memory_are_read_again(
    tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write_case(tmp_path, f"ball_{number}", *draw_ball(number))
    cases = find_dataset(tmp_path)
    image, mask = draw_ball(0)
    monkeypatch.setattr("medfcn.training.survey._KEPT_BYTES", 2 * (image.nbytes + mask.nbytes))
    found = survey(cases, LabelMap.parse("ball=1"), ReadOptions(), skip_bad=False, progress=Silent())
    assert len(found.memory) == 2
    for number in range(3):
        read = found.read(f"ball_{number}")
        assert np.array_equal(read.images[0].array, draw_ball(number)[0])
        assert read.hashes == found.hashes[read.id]
    assert [reads[f"images/ball_{number}.nii.gz"] for number in range(3)] == [1, 1, 2]


def test_the_probabilities_that_do_not_fit_the_disk_are_computed_again_and_give_the_same_run(
    balls: Path, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import medfcn

    chosen: dict[str, Any] = {"device": "cpu", "threads": 1, "steps": 6, "views": "axial,coronal"}
    whole = medfcn.train(balls, tmp_path / "whole", **chosen)
    once = len(passes)
    monkeypatch.setattr("medfcn.training.validation._KEPT_BYTES", 0)
    again = medfcn.train(balls, tmp_path / "again", **chosen)
    assert len(passes) > 2 * once
    for name in (
        "model.safetensors",
        *(f"validation/{path.name}" for path in whole.folder.glob("validation/*.nii.gz")),
    ):
        assert (whole.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert repr(whole.validation.rows) == repr(again.validation.rows)
