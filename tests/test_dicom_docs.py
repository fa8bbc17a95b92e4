"""Every command of the page on DICOM runs, on series made for it."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'medfcn[dicom]'")

from medfcn.cli import main
from medfcn.datasets import find_inputs
from tests.inference.models import saved, tiny_model
from tests.volumes.dicom_labels import segmentation
from tests.volumes.dicom_series import Made, classic, new_uids, save, save_all

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "how-to" / "dicom.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
LARGE: dict[str, Any] = {"rows": 26, "columns": 30, "spacing": (1.5, 1.5)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The series that the page names."""
    root = tmp_path_factory.mktemp("page")
    saved(tiny_model(labels="liver=1"), root / "RUN")
    save_all(classic(Made(**LARGE)), root / "series")
    save_all(classic(Made(**LARGE, shear=(0.0, 0.6, 0.0))), root / "tilted")
    uids = new_uids()
    for number in range(2):
        made = Made("MR", **LARGE, fields={"TemporalPositionIdentifier": number + 1})
        for k, dataset in enumerate(classic(made, uids)):
            save(dataset, root / "times" / f"{number}_{k}.dcm")
    for number in range(6):
        made = Made(**LARGE, origin=(0.0, float(number), 0.0), fields={"PatientID": f"P{number}"})
        slices = classic(made)
        for dataset in slices:
            dataset.RescaleIntercept = number - 1024
        save_all(slices, root / "tree" / f"p{number}" / "ct")
        liver = np.zeros((10, 26, 30), dtype=bool)
        liver[2:8, 6:18, 5:20] = True
        segmentation(slices, {"liver": liver}, root / "tree" / f"p{number}" / "seg" / "seg.dcm")
    return root


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_runs(line: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in place.iterdir():
        if path.name != "RUN" or " train " not in line:
            (tmp_path / path.name).symlink_to(path)
    if " evaluate " in line:
        assert CliRunner().invoke(main, ["predict", "RUN", "tree", "-o", "masks"]).exit_code == 0
    words = shlex.split(line)[1:]
    if "HASH" in words:
        words[words.index("HASH")] = find_hash(tmp_path / "tree")
    if words[0] == "train":
        words += ["--steps", "2", "--preset", "compact"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output


def find_hash(tree: Path) -> str:
    from medfcn.volumes.formats.dicom.series import series_at

    return series_at(find_inputs(tree)[0].images[0]).short_hash
