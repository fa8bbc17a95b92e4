"""A network as a program of torch.export: the script beside it makes the masks of the run in a process of its own."""

import runpy
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

import medfcn
from medfcn.errors import ModelError, OutputExistsError
from medfcn.exporting.one_view import script_of
from medfcn.exporting.phantom import dice_of
from tests.inference.models import blobs, looking_model, saved, tiny_model, write_image


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


def test_a_script_looks_as_often_as_predict(tmp_path: Path) -> None:
    model = looking_model()
    exported = medfcn.export(saved(model, tmp_path / "run"), tmp_path / "model.pt2", format="pt2")
    image = write_image(tmp_path / "a.nii.gz", blobs((20, 17, 6), seed=1))
    script = runpy.run_path(str(script_of(exported)))
    theirs = np.asarray(script["predicted"](exported, [str(image)]).dataobj)
    ours, once = (each.predict(image).array for each in (model, model.looking_once))
    assert dice_of(ours, theirs) >= 0.9999
    assert dice_of(ours, once) < 0.99


def test_a_run_that_needs_more_is_refused_by_name(tmp_path: Path) -> None:
    run = saved(tiny_model(labels="whole=1+2,core=2"), tmp_path / "run")
    with pytest.raises(ModelError, match=r"labels that overlap, which the script beside a \.pt2 file does not know"):
        medfcn.export(run, tmp_path / "model.pt2", format="pt2")
