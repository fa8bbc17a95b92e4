"""A network as ONNX: the script beside it makes the masks of the run without torch, on the same grid."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

import medfcn
from medfcn.errors import ModelError, OutputExistsError
from medfcn.exporting.one_view import script_of
from medfcn.exporting.phantom import dice_of
from medfcn.inference import slice_inferer
from medfcn.slices.plan import Intensity
from tests.exporting.grids import GRID
from tests.inference.models import blobs, looking_model, saved, tiny_model, write_image

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scaled = (Intensity("zscore", background="robust"),)
    model = tiny_model(labels="left=1,right=7", one_part=(1, 2), together=True, context=3, intensities=scaled)
    return saved(model, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return medfcn.export(run, tmp_path_factory.mktemp("onnx") / "model.onnx", format="onnx")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Volumes in three orders, sizes and spacings; one with padding."""
    folder = tmp_path_factory.mktemp("images")
    turned = np.array([[0, 0, 1.7, 3], [-1.1, 0, 0, 5], [0, 2.3, 0, -9], [0, 0, 0, 1]])
    padded = blobs((40, 31, 9), seed=2)
    padded[:9] = padded.min() - 1000
    return [
        write_image(folder / "a.nii.gz", blobs((20, 17, 6))),
        write_image(folder / "b.nii.gz", blobs((9, 22, 18), seed=1), turned),
        write_image(folder / "c.nii.gz", padded, np.diag([1.5, 1.5, 4.0, 1.0])),
    ]


def predict_by_script(exported: Path, image: Path, mask: Path, *, python: str = sys.executable) -> None:
    command = [python, str(script_of(exported)), str(exported), str(image), str(mask)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert (done.returncode, done.stderr) == (0, "")


def test_masks_of_the_script_are_those_of_the_run(
    run: Path, exported: Path, images: list[Path], tmp_path: Path
) -> None:
    model = medfcn.load(run, device="cpu")
    for image in images:
        ours, theirs = tmp_path / "ours.nii.gz", tmp_path / "theirs.nii.gz"
        model.predict(image).save(ours, overwrite=True)
        predict_by_script(exported, image, theirs)
        first, second = nibabel.load(ours), nibabel.load(theirs)
        assert set(np.unique(first.dataobj)) == {0, 1, 7}
        assert dice_of(np.asarray(first.dataobj), np.asarray(second.dataobj)) >= 0.9999
        for name in GRID:
            assert first.header[name].tobytes() == second.header[name].tobytes(), name


def test_the_script_is_short_and_the_file_says_how_it_is_used(exported: Path) -> None:
    text = script_of(exported).read_text()
    assert len(text.splitlines()) <= 150
    assert "torch" not in text
    session = onnxruntime.InferenceSession(exported)
    about = json.loads(session.get_modelmeta().custom_metadata_map["medfcn"])
    assert (about["labels"], about["written"], about["stride"], about["context"]) == (["left", "right"], [1, 7], 2, 3)
    assert onnx.load(exported).opset_import[0].version == 26
    assert str(ROOT).encode() not in exported.read_bytes()


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"views": ("axial", "coronal"), "spacing_mm": (1.5, 1.5, 1.5)}, "the views axial, coronal"),
        ({"prediction": {"tta": True}}, "mirror images"),
        ({"own_statistics": 0.5}, "a volume's own statistics"),
        ({"labels": "whole=1+2,core=2"}, "labels that overlap"),
    ],
    ids=["views", "mirrors", "own statistics", "overlap"],
)
def test_a_run_that_needs_more_is_refused_by_name(changed: dict[str, object], name: str, tmp_path: Path) -> None:
    run = saved(tiny_model(**changed), tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=f"the run uses {name}.*, which the script"):
        medfcn.export(run, tmp_path / "model.onnx", format="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_script_says_how_it_is_used(exported: Path) -> None:
    command = [sys.executable, str(script_of(exported))]
    asked, alone = (
        subprocess.run([*command, *words], capture_output=True, text=True, check=False) for words in (["--help"], [])
    )
    assert (asked.returncode, asked.stderr, alone.returncode) == (0, "", 1)
    assert "NAME_onnx.py NAME.onnx IMAGE.nii.gz" in asked.stdout
    assert asked.stdout == alone.stderr


def test_a_script_of_someone_is_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model_onnx.py").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"model_onnx\.py"):
        medfcn.export(run, tmp_path / "model.onnx", format="onnx")
    assert (tmp_path / "model_onnx.py").read_text() == "mine"


def test_a_network_that_looks_again_is_run_alike_by_every_engine(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its groups of slices are those of `predict`, which are small here, and each tile is looked at by itself."""
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(slice_inferer, "_SLAB_BYTES", 1)
    model = looking_model()
    exported = medfcn.export(saved(model, tmp_path / "run"), tmp_path / "model.onnx", format="onnx")
    script = runpy.run_path(str(script_of(exported)))
    session = onnxruntime.InferenceSession(exported)
    about = json.loads(session.get_modelmeta().custom_metadata_map["medfcn"])
    compiled = openvino.Core().compile_model(exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def by_openvino(*given: NDArray[Any]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = compiled(list(given))[0].copy()
        return logits

    for image in images:
        ours, once = (each.predict(image).array for each in (model, model.looking_once))
        assert dice_of(ours, once) < 0.99
        for mask in (
            script["predicted"](session, [str(image)]),
            script["mask_image"](by_openvino, about, [str(image)]),
        ):
            assert dice_of(ours, np.asarray(mask.dataobj)) >= 0.9999


@pytest.mark.slow
def test_the_script_runs_where_there_is_no_torch(
    run: Path, exported: Path, images: list[Path], tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, "numpy", "nibabel", "onnxruntime"], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode
    predict_by_script(exported, images[0], tmp_path / "mask.nii.gz", python=python)
    ours = medfcn.load(run, device="cpu").predict(images[0])
    assert dice_of(ours.array, np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj)) >= 0.9999
