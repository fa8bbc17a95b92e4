"""Every command of the page on DICOM runs, on series made for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'medfcn[dicom]'")

from medfcn.datasets import find_inputs
from tests.documents import commands_of, run_with_links
from tests.inference.models import saved, tiny_model
from tests.volumes.dicom_labels import segmentation
from tests.volumes.dicom_series import Made, classic, new_uids, save, save_all

COMMANDS = commands_of("docs/how-to/dicom.md")
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
    before = ["medfcn predict RUN tree -o masks"] if " evaluate " in line else []
    named = line.replace("HASH", find_hash(place / "tree")) if "HASH" in line else line
    result = run_with_links(named, place, before=before)
    assert result.exit_code == 0, result.output


def find_hash(tree: Path) -> str:
    from medfcn.volumes.formats.dicom.series import series_at

    return series_at(find_inputs(tree)[0].images[0]).short_hash
