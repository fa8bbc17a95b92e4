"""A network as a program of torch.export: the script beside it makes the masks of the run in a process of its own."""

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

import medfcn
from medfcn.cli import main
from medfcn.errors import ModelError, OutputExistsError
from medfcn.exporting.one_view import script_of
from medfcn.exporting.phantom import dice_of
from tests.inference.models import blobs, saved, tiny_model, write_image


def test_masks_of_the_script_are_those_of_the_run(tmp_path: Path) -> None:
    run = saved(tiny_model(labels="left=1,right=7", one_part=(1, 2), context=3), tmp_path / "run")
    exported = medfcn.export(run, tmp_path / "model.pt2", format="pt2")
    turned = np.array([[0, 0, 1.7, 3], [-1.1, 0, 0, 5], [0, 2.3, 0, -9], [0, 0, 0, 1]])
    image, mask = write_image(tmp_path / "a.nii.gz", blobs((9, 22, 18), seed=1), turned), tmp_path / "mask.nii.gz"
    code = "import runpy, sys; runpy.run_path(sys.argv[0], run_name='__main__'); assert 'medfcn' not in sys.modules"
    code = f"import sys; sys.argv = sys.argv[1:]; {code}"
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        code,
        str(script_of(exported)),
        str(exported),
        str(image),
        str(mask),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env={})
    assert done.returncode == 0, done.stderr
    ours, theirs = medfcn.load(run, device="cpu").predict(image), nibabel.load(mask)
    assert set(np.unique(ours.array)) == {0, 1, 7}
    assert dice_of(ours.array, np.asarray(theirs.dataobj)) >= 0.9999
    assert np.array_equal(theirs.header.get_sform(), nibabel.load(image).header.get_sform())
    exported.rename(tmp_path / "elsewhere.pt2")
    with pytest.raises(OutputExistsError, match=r"model_pt2\.py"):
        medfcn.export(run, tmp_path / "model.pt2", format="pt2")


def test_a_script_looks_once_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(crop=(8, 8), turns=(20.0, -20.0))
    run = saved(model, tmp_path / "run")
    for name, form, says_so in (("model.pt2", "pt2", True), ("model.medfcn", "medfcn", False)):
        with pytest.raises(SystemExit) as ended:
            main(["export", str(run), "-o", str(tmp_path / name), "--format", form])
        assert ended.value.code == 0
        assert ("looks once (slices.turns)" in capsys.readouterr().err) == says_so
    image = write_image(tmp_path / "a.nii.gz", blobs((18, 22, 9), seed=1), np.diag([1.5, 1.5, 3, 1]))
    masks = [medfcn.load(each, device="cpu").predict(image).array for each in (run, tmp_path / "model.medfcn")]
    assert np.array_equal(*masks)


def test_a_run_that_needs_more_is_refused_by_name(tmp_path: Path) -> None:
    run = saved(tiny_model(labels="whole=1+2,core=2"), tmp_path / "run")
    with pytest.raises(ModelError, match=r"labels that overlap, which the script beside a \.pt2 file does not know"):
        medfcn.export(run, tmp_path / "model.pt2", format="pt2")
