"""Channels in the fourth dimension of one file a case, as Task01 and Task05 of the Decathlon store them."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

import medfcn
from medfcn.datasets import find_dataset
from medfcn.datasets.check import check
from medfcn.errors import DatasetError, MedfcnError, ModelError
from medfcn.volumes import ReadOptions
from tests.conftest import draw_ball

AFFINE = np.diag([-1.0, -1.0, 1.5, 1.0])
NAMES = ("T2", "ADC")
SETTINGS = {"device": "cpu", "threads": 1, "steps": 6}


def lay(root: Path, number: int, *, stacked: bool) -> dict[str, object]:
    """A case whose two channels are in one file, or in one each; returns its entry in `dataset.json`."""
    image, mask = draw_ball(number, (16, 14, 9))
    channels = np.stack([image, 300 - image], axis=-1)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE), root / f"labelsTr/case_{number}.nii.gz")
    label = f"./labelsTr/case_{number}.nii.gz"
    if stacked:
        nibabel.save(nibabel.Nifti1Image(channels, AFFINE), root / f"imagesTr/case_{number}.nii.gz")
        return {"image": f"./imagesTr/case_{number}.nii.gz", "label": label}
    files = [f"./imagesTr/case_{number}_{channel:04d}.nii.gz" for channel in (0, 1)]
    for channel, file in enumerate(files):
        nibabel.save(nibabel.Nifti1Image(channels[..., channel], AFFINE), root / file)
    return {"image": files, "label": label}


def decathlon(root: Path, *, stacked: bool, modality: tuple[str, ...] = NAMES) -> Path:
    about = {
        "modality": {str(number): name for number, name in enumerate(modality)},
        "labels": {"0": "background", "1": "ball"},
        "tensorImageSize": "4D",
        "training": [lay(root, number, stacked=stacked) for number in range(5)],
    }
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def test_channels_are_named_by_the_modality(tmp_path: Path) -> None:
    root = decathlon(tmp_path, stacked=True)
    dataset = find_dataset(root)
    assert dataset.channel_names == NAMES
    assert {case.stacked for case in dataset.cases} == {2}
    report = check(root)
    assert [problem.found for problem in report.problems] == [
        "unit of length not stated: millimetres assumed (10 files)"
    ]
    assert [len(case.images) for case in report.cases] == [2] * 5
    assert report.channel_names == NAMES
    one = check(root, options=ReadOptions(volume_index=1))
    assert not one.errors
    assert (one.channel_names, [len(case.images) for case in one.cases]) == (("ADC",), [1] * 5)


def test_a_case_with_a_channel_too_few_is_named(tmp_path: Path) -> None:
    root = decathlon(tmp_path, stacked=True)
    image, _ = draw_ball(3, (16, 14, 9))
    for channels in (np.stack([image] * 3, axis=-1), image):
        nibabel.save(nibabel.Nifti1Image(channels, AFFINE), root / "imagesTr/case_3.nii.gz")
        problems = [problem for problem in check(root).errors if problem.code == "SHAPE_4D"]
        assert [problem.case for problem in problems] == ["case_3"]
        assert f"{channels.shape[3] if channels.ndim == 4 else 1} of 2 channels" in problems[0].found


def test_volumes_that_no_channel_is_named_for_are_refused(tmp_path: Path) -> None:
    root = decathlon(tmp_path, stacked=True, modality=("MRI",))
    assert find_dataset(root).channel_names == ("MRI",)
    assert {problem.code for problem in check(root).errors} == {"SHAPE_4D"}
    with pytest.raises(DatasetError, match=r"name 2 channels in a dataset.json \(modality\)"):
        medfcn.plan(root)


def test_one_file_a_case_trains_and_predicts_as_one_file_a_channel(tmp_path: Path) -> None:
    stacked, apart = (decathlon(tmp_path / name, stacked=name == "stacked") for name in ("stacked", "apart"))
    for root in (stacked, apart):
        medfcn.train(root, root / "run", **SETTINGS)
    weights = [(root / "run" / "model.safetensors").read_bytes() for root in (stacked, apart)]
    assert weights[0] == weights[1]
    model = medfcn.load(stacked / "run")
    assert model.card.channels == NAMES
    with (stacked / "run" / "cases.csv").open() as file:
        row = next(csv.DictReader(file))
    assert row["sha256_T2"] == row["sha256_ADC"] != ""
    for root in (stacked, apart):
        run = medfcn.predict(stacked / "run", root / "imagesTr", root / "masks")
        assert len(run.predicted) == 5
        page = medfcn.report(root / "masks", root, root / "report.html")
        assert "first of 2 channels is shown" in page.read_text()
    for mask in sorted((apart / "masks").glob("*.nii.gz")):
        assert mask.read_bytes() == (stacked / "masks" / mask.name).read_bytes()
    again = medfcn.predict(stacked / "run", stacked / "imagesTr", stacked / "masks", resume=True)
    assert len(again.skipped) == 5
    image = nibabel.load(stacked / "imagesTr/case_0.nii.gz")
    expected = np.asarray(nibabel.load(stacked / "masks" / "case_0.nii.gz").dataobj)
    for source in (image, (np.asarray(image.dataobj), image.affine), str(stacked / "imagesTr/case_0.nii.gz")):
        np.testing.assert_array_equal(model.predict(source).array, expected)
    with pytest.raises((ModelError, MedfcnError), match="3 of 2 channels in the fourth dimension"):
        model.predict((np.zeros((16, 14, 9, 3)), AFFINE))
