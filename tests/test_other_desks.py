"""Windows, and Apple's GPU: what can be tried of them on another machine."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medfcn.errors import SettingsError
from medfcn.inference.devices import choose_device, has_bfloat16, has_fast_bfloat16

ROOT = Path(__file__).resolve().parents[1]


def on_windows(step: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.other_desk", step, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems are imitated on Linux")
def test_without_what_windows_lacks_a_training_is_killed_resumed_and_predicts(tmp_path: Path, balls: Path) -> None:
    shutil.copytree(balls, tmp_path / "data")
    first = on_windows("train", tmp_path)
    until = time.monotonic() + 900
    while not list((tmp_path / "run" / "state").glob("checkpoint_*.json")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    first.kill()
    assert int(first.communicate()[0].split()[0]) > 200  # every module of medfcn was imported
    assert not (tmp_path / "run" / "model.json").exists()
    second = on_windows("resume", tmp_path)
    out, err = second.communicate(timeout=900)
    assert second.returncode == 0, err
    assert out == "locks\n8 masks\n"
    assert "going on after step" in err
    assert (tmp_path / "run" / "model.json").is_file()


def test_apples_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="no such GPU of Apple's here; use auto or cpu"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")
    with pytest.raises(SettingsError, match="no such GPU"):
        choose_device("mps:1")


@pytest.mark.parametrize("is_new", [False, True])
def test_apples_gpu_computes_in_float32_unless_bfloat16_is_wanted_and_there(
    monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: is_new)
    assert not has_fast_bfloat16(torch.device("mps"))
    assert has_bfloat16(torch.device("mps")) is is_new
    assert has_bfloat16(torch.device("cpu"))
