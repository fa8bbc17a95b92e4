"""Commands that write one file make the folder for it; and Ctrl-C while medfcn loads, and full temporary disks."""

import errno
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from medfcn.__main__ import run as run_command
from medfcn.cli import main
from medfcn.files import write_error
from tests.conftest import draw_ball, write_case
from tests.inference.models import saved, tiny_model, write_image


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["look", "data", "-o"], "look.html"),
        (["networks", "--preset", "fcn8s", "--picture"], "fcn8s.png"),
        (["evaluate", "masks", "masks", "--no-report", "-o", "scores", "--table"], "paper.tex"),
        (["export", "run", "-o"], "model.medfcn"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_folder_of_one_file_is_made(
    words: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_case(tmp_path / "data", "ball_0", *draw_ball(0))
    write_image(tmp_path / "masks" / "a.nii.gz", np.eye(6, dtype=np.uint8)[..., None].repeat(3, axis=2))
    saved(tiny_model(), tmp_path / "run")
    done = CliRunner().invoke(main, [*words, f"new/deeper/{name}"])
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "new" / "deeper").iterdir()] == [name]


def test_ctrl_c_while_the_command_line_is_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "medfcn.cli", Interrupted())  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as ended:
        run_command()
    assert (ended.value.code, capsys.readouterr().err) == (130, "medfcn: stopped\n")


def test_a_full_disk_of_temporary_files_names_their_setting() -> None:
    full = OSError(errno.ENOSPC, "full")
    temporary = str(write_error(full, Path(tempfile.gettempdir()) / "tmp1" / "phantom.nii.gz", 10))
    assert temporary.endswith("make room, or choose an output (or TMPDIR, for temporary files) on another disk")
    assert str(write_error(full, "/no/masks/a.nii.gz")).endswith("make room, or choose an output on another disk")
