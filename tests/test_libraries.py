"""Libraries that are not installed are told before anything else is loaded or read."""

import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.errors import MissingFileError
from medfcn.libraries import _EXTRAS, _NEEDED, require_installed


@pytest.mark.parametrize(
    ("words", "module", "said"),
    [
        ("export nowhere -o a.onnx --format onnx", "onnxscript", "ONNX needs onnxscript|onnx"),
        ("export nowhere -o a --format bundle", "ignite", "a MONAI Bundle needs pytorch-ignite|bundle"),
        ("predict nowhere none -o a --engine onnx", "onnxruntime", "the engine onnx needs onnxruntime|onnx"),
        ("predict nowhere none -o a --engine openvino", "openvino", "the engine openvino needs openvino|openvino"),
        ("predict nowhere none -o a --format dicom-seg", "highdicom", "a DICOM segmentation needs highdicom|dicom"),
        ("predict nowhere none -o a --cluster tcp://x:1", "distributed", "a cluster needs Dask|cluster"),
        ("train nowhere -o a --cluster tcp://x:1", "distributed", "a cluster needs Dask|cluster"),
        ("train nowhere -o a --track mlflow=http://x", "mlflow", "tracking with mlflow needs mlflow|mlflow"),
        ("tune nowhere -o a", "optuna", "a search needs optuna|tune"),
    ],
)
def test_a_missing_extra_is_told_before_a_run_or_a_data_set_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, words: str, module: str, said: str
) -> None:
    for installed in {name for _, modules in _NEEDED.values() for name in modules} - {module}:
        monkeypatch.setitem(sys.modules, installed, sys)  # whether it is there or not
    monkeypatch.setitem(sys.modules, module, None)
    result = CliRunner().invoke(main, words.split())
    needs, extra = said.split("|")
    assert result.exit_code == 1
    assert result.stderr == f"medfcn: {needs}, which is not installed; pip install 'medfcn[{extra}]'\n"


def test_each_purpose_names_an_extra_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert {_EXTRAS.get(purpose, purpose) for purpose in _NEEDED} <= project["optional-dependencies"].keys()


def test_what_needs_no_library_is_let_through_and_a_call_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    require_installed("engine torch")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingFileError, match="ONNX needs onnx, which is not installed"):
        medfcn.export("nowhere", "a.onnx", format="onnx")
