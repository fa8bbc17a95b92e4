"""The examples of `docs/how-to/monai.md` run, word for word but for the number of steps."""

import re
import tomllib
from pathlib import Path

import matplotlib
import pytest

from medfcn.config import settings_from
from medfcn.monai.recorded import RECORDED
from medfcn.networks.monai_nets import TESTED

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "how-to" / "monai.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matplotlib.use("Agg")
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    monkeypatch.chdir(tmp_path)
    code = re.sub(r"steps=\d+", "steps=2", "\n".join(blocks("python")))
    exec(compile(code, "docs/how-to/monai.md", "exec"), {})
    shown = capsys.readouterr().out
    assert all(name in shown for name in RECORDED)
    assert (tmp_path / "runs" / "unet" / "model.safetensors").is_file()


def test_the_settings_are_settings() -> None:
    (toml,) = blocks("toml")
    assert settings_from(tomllib.loads(toml), source="docs/how-to/monai.md").network.monai == "BasicUNet"


def test_the_tested_networks_are_named() -> None:
    assert all(f"`{name}`" in TEXT for name in TESTED)
    assert (ROOT / "pipelines" / "monai_loop.py").is_file()
