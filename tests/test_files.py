"""Files appear whole or not at all."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfcn import files
from medfcn.errors import WriteError
from medfcn.files import atomic_write, csv_field, write_csv, write_json


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    code = f"""
import time
from medfcn.files import atomic_write
with atomic_write({str(path)!r}) as file:
    file.write(b"new" * 100_000)
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from medfcn.files import atomic_write
try:
    with atomic_write({str(tmp_path / "mask.nii")!r}) as file:
        file.write(bytes(200_000))
except OSError as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "WriteError"
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_lacks_are_written_as_text_or_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"miss": math.inf, "none": math.nan, "both": (1, [math.inf])})
    assert json.loads((tmp_path / "a.json").read_text()) == {"miss": "inf", "none": None, "both": [1, ["inf"]]}


@given(st.text(max_size=30))
def test_no_text_in_a_table_is_a_formula_or_breaks_its_line(text: str) -> None:
    field = csv_field(text)
    assert not field.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert all(character.isprintable() for character in field)


def test_tables_are_whole_lines(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("case", "dice"), [("a,b", 0.5), ("c", math.nan), ("d", math.inf)])
    assert (tmp_path / "a.csv").read_text() == 'case,dice\n"a,b",0.5\nc,\nd,inf\n'


@pytest.mark.parametrize("moment", ["made", "locked", "open", "written", "moved"])
def test_an_interrupt_at_any_moment_of_a_write_leaves_nothing(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Ctrl-C comes while the system makes, locks, flushes or moves the file."""

    def interrupted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **choices: Any) -> Any:
            original(*arguments, **choices)
            raise KeyboardInterrupt

        return call

    place, name = {
        "made": (Path, "open"),
        "locked": (files, "lock"),
        "open": (files, "_Part"),
        "written": (os, "fsync"),
        "moved": (files, "sync_folder"),
    }[moment]
    monkeypatch.setattr(place, name, interrupted(getattr(place, name)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(KeyboardInterrupt):
            files.write_bytes(tmp_path / "a.txt", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == (["a.txt"] if moment == "moved" else [])


def test_names_of_several_files_are_made_to_last_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", asked.append)
    (tmp_path / "inner").mkdir()
    with files.named_together():
        for name in ("a.txt", "b.txt", "inner/c.txt"):
            files.write_bytes(tmp_path / name, b"whole")
        assert asked == []
    assert asked == [tmp_path, tmp_path / "inner"]
    with suppress(WriteError), files.named_together():
        files.write_bytes(tmp_path / "d.txt", b"whole")
        files.write_bytes(tmp_path / "nowhere" / "e.txt", b"whole")
    assert len(asked) == 2
    files.write_bytes(tmp_path / "e.txt", b"whole")
    assert asked == [tmp_path, tmp_path / "inner", tmp_path]
