"""A full disk: every writer names its file and the bytes, leaves nothing half-written, and loses nothing old."""

import dataclasses
import errno
import math
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.errors import WriteError
from medfcn.evaluation import evaluate, write_scores
from medfcn.files import write_bytes, write_csv, write_json
from medfcn.inference.weights import write_weights
from medfcn.labels.sidecar import MaskRecord
from medfcn.networks.describe.drawing import draw_network
from medfcn.networks.describe.stages import summarise_network
from medfcn.reporting.pictures import PictureCase, overlay_sheet
from medfcn.runs.checkpoints import Checkpoints
from medfcn.runs.folder import ENGINE_FILE, TIMING_FILE
from medfcn.settings import Settings
from medfcn.slices.store import write_case
from medfcn.training.record import Log
from medfcn.training.validation import _on_disk
from medfcn.verbs import predict
from medfcn.volumes import Volume
from tests.full_disk import room_for
from tests.inference.models import blobs, saved, tiny_model, write_image
from tests.training.states import state_at
from tests.training.test_resume import assert_same_run, train

IMAGE = Volume(blobs((20, 18, 9)).astype(np.float32), np.diag([1.5, 1.5, 3.0, 1.0]))
MASK = IMAGE.with_array((IMAGE.array > np.median(IMAGE.array)).astype(np.uint8))
SLICES = np.ones((3, 1, 9, 9), dtype=np.float32), np.ones((3, 9, 9), dtype=np.uint8)
DESIGN = summarise_network(Settings().network, size=(64, 64), channels_in=1, label_count=1)


def _checkpoint(path: Path) -> None:
    """The second one; the first must stay."""
    Checkpoints(path.parent, "key", every_seconds=0).write(2, state_at(2).save)


def _log(path: Path) -> None:
    Log(path, started=0.0).add(step=1, epoch=1.0, loss=1.0, learning_rate=0.1, dices={})


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.json": lambda path: write_json(path, {"a": [1, 2, 3]}),
    "a.csv": lambda path: write_csv(path, ("a", "b"), [(1, 2)]),
    "a.toml": lambda path: write_bytes(path, b"[training]\n"),
    "log.csv": _log,
    "summary.json": lambda path: write_scores(evaluate({"a": MASK}, {"a": MASK}), path.parent, overwrite=True),
    "a.nii": lambda path: IMAGE.save(path, overwrite=True),
    "mask.nii.gz": lambda path: MASK.save(path, overwrite=True),
    "image.nii.gz": lambda path: IMAGE.save(path, overwrite=True),
    "mask.json": lambda path: MaskRecord(case="mask", mask_sha256="0").write(path.with_name("mask.nii.gz")),
    "key.images.npy": lambda path: write_case(path.parent, "key", *SLICES),
    "scratch.npy": lambda path: _on_disk(np.asfortranarray(np.ones((30, 20, 10))), path),
    "model.safetensors": lambda path: write_weights(path, tiny_model().network),
    "checkpoint_000002.pt": _checkpoint,
    "a.png": lambda path: draw_network(DESIGN, path, overwrite=True),
    "a.svg": lambda path: draw_network(DESIGN, path, overwrite=True),
    "a.pdf": lambda path: draw_network(DESIGN, path, overwrite=True),
    "overlay.png": lambda path: overlay_sheet([PictureCase(IMAGE, MASK, MASK)], path),
}  # fmt: skip


def _told(error: WriteError, path: Path) -> None:
    text = str(error)
    assert error.code == "DISK_FULL"
    assert text.startswith(f"{path}: ")
    assert re.search(r": [1-9]\d* bytes were to be written, and \d+ bytes are free there; ", text)
    assert "\n" not in text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", sorted(WRITERS))
def test_every_writer_names_its_file_and_the_bytes(name: str, number: int, tmp_path: Path) -> None:
    Checkpoints(tmp_path, "key", every_seconds=0).write(1, state_at(1).save)
    (tmp_path / name).write_bytes(b"old")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with room_for(5, number), pytest.raises(WriteError) as caught:
        WRITERS[name](tmp_path / name)
    _told(caught.value, tmp_path / name)
    assert caught.value.errno == number
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("room", [0, 1, 64, 100, 5_000, 100_000, 300_000, 321_000], ids=str)
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_it(room: int, tmp_path: Path) -> None:
    """Torch turns the error into one of its own, which differs with the place; the file behind it has its mark."""
    checkpoints = Checkpoints(tmp_path, "key", every_seconds=0)
    checkpoints.write(1, state_at(1).save)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with room_for(room), pytest.raises(WriteError) as caught:
        checkpoints.write(2, state_at(2).save)
    assert str(tmp_path / "checkpoint_000002.") in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    checkpoints.write(2, state_at(2).save)


def test_scores_appear_together_or_not_at_all(tmp_path: Path) -> None:
    table = dataclasses.replace(evaluate({"a": MASK}, {"a": MASK}), failures=(("b", "no"),))
    with room_for(10**9) as room:
        write_scores(table, tmp_path / "whole")
        needed = 10**9 - room[0]
    for count in (0, needed // 3, needed * 2 // 3, needed - 1):
        with room_for(count), pytest.raises(WriteError):
            write_scores(table, tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())
    write_scores(table, tmp_path / "whole", overwrite=True)
    assert (tmp_path / "whole" / "failures.csv").is_file()
    write_scores(dataclasses.replace(table, failures=()), tmp_path / "whole", overwrite=True)
    assert not (tmp_path / "whole" / "failures.csv").exists()


def _content(folder: Path) -> dict[str, bytes]:
    """Every file but the one that differs from run to run."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != TIMING_FILE]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_folder_goes_on_where_the_disk_was_full(tmp_path: Path) -> None:
    run = saved(tiny_model(), tmp_path / "run")
    for number in range(3):
        write_image(tmp_path / "images" / f"case_{number}.nii.gz", blobs((20, 18, 5 + number), seed=number))
    with room_for(10**9) as room:
        predict(run, tmp_path / "images", tmp_path / "whole", probabilities=True, device="cpu")
        needed = 10**9 - room[0]
    whole = _content(tmp_path / "whole")
    for share in range(8):
        out = tmp_path / f"out_{share}"
        with room_for(needed * share // 8), pytest.raises(WriteError, match=f"{out}.* bytes are free"):
            predict(run, tmp_path / "images", out, probabilities=True, device="cpu")
        found = _content(out)
        assert found.items() <= whole.items()
        of_cases = [name for name in found if not name.endswith((".csv", "labels.txt", "labels.ctbl", ENGINE_FILE))]
        assert len(of_cases) % 3 == 0  # a mask, its record and its probabilities
        predict(run, tmp_path / "images", out, probabilities=True, resume=True, device="cpu")
        assert _content(out) == whole


def test_a_training_goes_on_where_the_disk_was_full(balls: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    with room_for(10**9) as room:
        whole = train(balls, tmp_path / "whole", steps=3, report=False).folder
        needed = 10**9 - room[0]
    for share in (0.0, 0.2, 0.5, 0.8, 0.999):
        out = tmp_path / f"out_{share}"
        with room_for(math.floor(needed * share)), pytest.raises(WriteError, match=f"{out}.* bytes are free"):
            train(balls, out, steps=3, report=False)
        assert not list(out.rglob("*.part"))
        assert not (out / "model.json").exists()
        assert_same_run(train(balls, out, steps=3, report=False, resume=out.exists()).folder, whole)


def _limited(count: int, *arguments: object) -> tuple[int, str]:
    """A command whose files may have `count` bytes each: its exit status, and its messages."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.RLIM_INFINITY))
            done = CliRunner().invoke(main, [str(word) for word in arguments])
            bug = "" if isinstance(done.exception, SystemExit | None) else f"Traceback: {done.exception!r}"
            os.write(writer, f"{done.stderr[-2000:]}{bug}".encode())
            status = done.exit_code
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def test_the_limit_of_the_system_is_told_by_the_commands(balls: Path, tmp_path: Path) -> None:
    run = saved(tiny_model(), tmp_path / "run")
    out = tmp_path / "out"
    for count, command in (
        (20, ("predict", run, balls / "images" / "ball_0.nii.gz", "-o", out, "--device", "cpu")),
        (20, ("evaluate", balls / "labels", balls, "-o", out)),
        (5_000, ("evaluate", balls / "labels", balls, "-o", out, "--overwrite")),
        (20, ("train", balls, "-o", tmp_path / "new", "--steps", 2, "--device", "cpu")),
    ):
        status, said = _limited(count, *command)
        assert status == 1, said
        assert "Traceback" not in said
        assert re.fullmatch(
            rf"medfcn: {tmp_path}/\S+: the file would be larger than the system allows .* bytes are free there; .*",
            said.splitlines()[-1],
        )
        assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(find_spec("optuna") is None, reason="needs medfcn[tune]")
def test_a_study_that_cannot_grow_is_told_with_its_bytes(balls: Path, tmp_path: Path) -> None:
    status, said = _limited(60_000, "tune", balls, "-o", tmp_path / "out", "--trials", 1, "--steps", 1)
    assert status == 1
    assert re.search(r"study\.db: no room for it: .*4096 bytes were to be written, and \d+ bytes are", said)
    assert "Traceback" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["networks"], ["--help"]], ids=" ".join)
def test_text_that_no_disk_takes_is_an_error_in_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "medfcn", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert re.fullmatch(r"medfcn: the output of this command: the disk is full: .* bytes .*\n", done.stderr)


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"none/a\.json: cannot be written: No such file or directory") as caught:
        write_json(tmp_path / "none" / "a.json", {})
    assert caught.value.code == "WRITE_FAILED"
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, ["networks", "--picture", str(tmp_path / "file" / "a.png")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"medfcn: .*file: cannot be written: (Not a directory|File exists); .*\n", result.stderr)
