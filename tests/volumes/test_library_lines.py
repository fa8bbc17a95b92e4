"""Lines that SimpleITK's libraries write past Python are part of medfcn's one line."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from medfcn.errors import VolumeError
from medfcn.volumes import read_volume
from medfcn.volumes.formats.itk import caught_stderr


def _packed(path: Path) -> bytes:
    """A sound compressed MetaImage file."""
    SimpleITK = pytest.importorskip("SimpleITK")  # noqa: N806
    image = SimpleITK.GetImageFromArray(np.random.default_rng(0).normal(size=(5, 18, 20)).astype(np.float32))
    SimpleITK.WriteImage(image, str(path), True)
    return path.read_bytes()


BROKEN = {
    "a wrong size": (rb"CompressedDataSize = \d+", b"CompressedDataSize = 999999", "data not read completely"),
    "no size": (rb"CompressedDataSize = \d+\n", b"", "Uncompress failed"),
    "a long line": (rb"ElementSpacing", b"Comment = " + b"x" * 70_000 + b"\nElementSpacing", "Error parsing file"),
}


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_the_lines_of_a_library_become_part_of_the_one_line(
    what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, (old, new, said) = tmp_path / "scan.mha", BROKEN[what]
    path.write_bytes(re.sub(old, new, _packed(path), count=1))
    with pytest.raises(VolumeError) as caught:
        read_volume(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_command_writes_one_line(tmp_path: Path) -> None:
    path = tmp_path / "images" / "scan.mha"
    path.parent.mkdir()
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", b"", _packed(path), count=1))
    code = f"""
import sys
from medfcn.cli import main
from medfcn.volumes import read_volume
import medfcn.datasets.check
def check(*_, **__):
    read_volume({str(path)!r})
medfcn.datasets.check.check = check
sys.argv = ["medfcn", "check", "x"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Uncompress failed" in done.stderr


def test_lines_of_a_reading_that_succeeds_are_passed_on_outside_of_commands(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be those of another thread."""
    path = tmp_path / "scan.mha"
    _packed(path)
    import SimpleITK

    original = SimpleITK.ReadImage

    def loud(name: str) -> object:
        subprocess.run(["sh", "-c", "echo hello >&2"], check=True)
        return original(name)

    monkeypatch.setattr(SimpleITK, "ReadImage", loud)
    with os.fdopen(os.dup(2), "w") as other, open(2, "w", closefd=False) as own:
        monkeypatch.setattr("sys.stderr", other)
        read_volume(path)
        assert capfd.readouterr().err == ""
        monkeypatch.setattr("sys.stderr", own)
        read_volume(path)
        own.flush()
    assert capfd.readouterr().err == "hello\n"


def test_catching_is_for_one_thread_at_a_time_and_ends(capfd: pytest.CaptureFixture[str]) -> None:
    found: list[str] = []

    def speak(number: int) -> None:
        with caught_stderr() as said:
            subprocess.run(["sh", "-c", f"echo {number} >&2"], check=True)
        found.extend(said)

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["0", "1", "2", "3"]
    subprocess.run(["sh", "-c", "echo after >&2"], check=True)
    assert capfd.readouterr().err == "after\n"
