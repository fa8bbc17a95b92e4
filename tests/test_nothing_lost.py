"""What can be refused is refused before anything is removed; no link is followed out; no litter stays."""

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner, Result

from medfcn import files
from medfcn.cli import main
from medfcn.files import atomic_write, remove_half_written, write_json
from tests.inference.models import blobs, saved, tiny_model, write_image

NAMES: Callable[[object], str] = lambda value: value if isinstance(value, str) else ""  # noqa: E731
PART = ".case_0.nii.gz.0123456789ab.part"


def run_command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def content(folder: Path) -> dict[str, object]:
    """Every file and link, without following links."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        write_image(folder / f"case_{number}.nii.gz", blobs((20, 18, 5), seed=number))
    return folder


def link(path: Path) -> None:
    """A folder of someone else's, with a link to it here."""
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.txt").write_text("mine")
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)


def link_to_file(path: Path) -> None:
    (path.parent.parent / "precious.txt").write_text("mine")
    path.unlink(missing_ok=True)
    path.symlink_to(path.parent.parent / "precious.txt")


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "precious.txt").write_text("mine")


def file(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.write_text("mine")


RUN_TRAPS: list[tuple[str, Callable[[Path], None]]] = [
    ("validation", link),
    ("validation", file),
    ("validation/scores.csv", folder),
    ("state", link),
    ("state", file),
    (".medfcn.lock", link_to_file),
    (".medfcn.lock", folder),
    ("fold_1", link),
    *((name, folder) for name in ("model.json", "model.safetensors", "report.html", "log.csv", "cases.csv")),
]


@pytest.mark.parametrize(("name", "trap"), RUN_TRAPS, ids=[f"{name}-{trap.__name__}" for name, trap in RUN_TRAPS])
def test_a_run_that_cannot_be_replaced_whole_is_left_whole(
    name: str, trap: Callable[[Path], None], balls: Path, ball_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(ball_run, tmp_path / "run")
    trap(run / name)
    before = content(tmp_path)
    done = run_command("train", balls, "-o", run, "--overwrite", "--steps", 1, "--device", "cpu")
    assert done.exit_code == 1, done.output
    assert f"{run / name}: " in done.stderr.splitlines()[-1]
    assert content(tmp_path) == before


def test_folds_are_not_trained_through_a_link(balls: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    link(tmp_path / "run" / "fold_2")
    before = content(tmp_path)
    for more in ((), ("--overwrite",), ("--resume",)):
        done = run_command(
            "train", balls, "-o", tmp_path / "run", "--folds", 2, "--steps", 1, "--device", "cpu", *more
        )
        assert done.exit_code == 1
        assert content(tmp_path) == before


PREDICT_TRAPS: list[tuple[str, Callable[[Path], None]]] = [
    ("probabilities", link),
    ("probabilities", file),
    ("probabilities/case_1.nii.gz", folder),
    ("case_1.nii.gz", folder),
    ("case_1.json", folder),
    ("case_1.json", lambda path: path.write_text('{"EchoTime": 0.1}') and None),
    ("failures.csv", folder),
    ("confidence.csv", folder),
    ("report.html", folder),
]


@pytest.mark.parametrize("how", ["--overwrite", "--resume"])
@pytest.mark.parametrize(
    ("name", "trap"), PREDICT_TRAPS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(PREDICT_TRAPS)]
)
def test_masks_that_cannot_all_be_written_are_all_left(
    name: str, trap: Callable[[Path], None], how: str, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("predict", saved(tiny_model(), tmp_path / "run"), images, "-o", out, "--probabilities", "--report")
    assert run_command(*command, "--device", "cpu").exit_code == 0
    (out / "case_0.json").unlink()  # there is something to do
    trap(out / name)
    before = content(tmp_path)
    done = run_command(*command, "--device", "cpu", how)
    assert done.exit_code in (1, 2), done.output
    assert f"{out / name}: " in done.stderr
    assert content(tmp_path) == before


def test_a_link_in_the_place_of_a_mask_is_replaced_and_not_followed(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    link_to_file(out / "case_0.nii.gz")
    command = ("predict", saved(tiny_model(), tmp_path / "run"), images, "-o", out, "--device", "cpu", "--resume")
    assert run_command(*command).exit_code == 0
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert not (out / "case_0.nii.gz").is_symlink()


@pytest.mark.parametrize("name", ["scores.csv", "summary.json", "failures.csv", "comparison.json", "report.html"])
def test_scores_that_cannot_all_be_written_are_all_left(name: str, balls: Path, tmp_path: Path) -> None:
    command = ("evaluate", balls / "labels", balls, "-o", tmp_path / "out")
    assert run_command(*command).exit_code == 0
    folder(tmp_path / "out" / name)
    before = content(tmp_path)
    done = run_command(*command, "--overwrite")
    assert done.exit_code == 1
    assert f"{tmp_path / 'out' / name}: is a folder" in done.stderr
    assert content(tmp_path) == before


def test_scores_are_left_where_their_comparison_or_report_is_refused(balls: Path, tmp_path: Path) -> None:
    command = ("evaluate", balls / "labels", balls / "labels", "-o", tmp_path / "out")
    assert run_command(*command).exit_code == 0
    before = content(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scores.csv").write_text("case,label,status\nnobody,label_1,ok\n")
    before |= content(tmp_path)
    for more in (
        ("--images", tmp_path / "none"),
        ("--compare", tmp_path / "none"),
        ("--compare", tmp_path / "other"),
    ):
        done = run_command(*command, "--overwrite", *more)
        assert done.exit_code == 1, done.output
        assert content(tmp_path) == before


@pytest.mark.skipif(find_spec("optuna") is None, reason="needs medfcn[tune]")
@pytest.mark.parametrize(("name", "trap"), [("search", link), ("search", file), ("best.toml", folder)], ids=NAMES)
def test_a_search_that_cannot_be_replaced_whole_is_left_whole(
    name: str, trap: Callable[[Path], None], balls: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for old in ("study.db", "trials.csv", "best.toml"):
        write_json(out / old, {}) if out.is_dir() else (out.mkdir(), write_json(out / old, {}))
    trap(out / name)
    before = content(tmp_path)
    done = run_command("tune", balls, "-o", out, "--overwrite", "--trials", 1, "--steps", 1, "--device", "cpu")
    assert done.exit_code == 1
    assert f"{out / name}: " in done.stderr
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "trap"),
    [("run", link), ("masks", link), ("scores", file), ("overlay.png", folder)],
    ids=["run", "masks", "scores", "overlay"],
)
def test_a_demo_that_cannot_be_replaced_whole_is_left_whole(
    name: str, trap: Callable[[Path], None], ball_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(ball_run, tmp_path / "out" / "run")
    shutil.copytree(ball_run, tmp_path / "out" / "fold_1")
    trap(tmp_path / "out" / name)
    before = content(tmp_path)
    done = run_command("demo", "-o", tmp_path / "out", "--overwrite", "--steps", 1, "--device", "cpu")
    assert done.exit_code == 1
    assert f"{tmp_path / 'out' / name}: " in done.stderr
    assert content(tmp_path) == before


def killed_while_writing(path: Path, where: int = signal.SIGKILL) -> None:
    """A process that is killed in the middle of a file."""
    child = os.fork()
    if child == 0:
        with atomic_write(path) as part:
            part.write(b"half")
            part.flush()
            os.kill(os.getpid(), where)
            time.sleep(60)
    os.waitpid(child, 0)


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*.part"))


def test_what_killed_processes_left_goes_and_what_is_written_stays(tmp_path: Path) -> None:
    for name in ("case_0.nii.gz", "case_1.json"):
        killed_while_writing(tmp_path / name)
    others = [".mine.part", ".a.b.0123456789.part", "case_0.nii.gz.0123456789ab.part", ".x.0123456789AB.part"]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".folder.0123456789ab.part").mkdir()
    (tmp_path / ".link.0123456789ab.part").symlink_to(tmp_path / ".mine.part")
    os.mkfifo(tmp_path / ".pipe.0123456789ab.part")
    with atomic_write(tmp_path / "case_2.nii.gz") as alive:
        alive.write(b"whole")
        remove_half_written(tmp_path, "case_1.json")
        assert len([name for name in parts(tmp_path) if name.startswith(".case_")]) == 2
        remove_half_written(tmp_path)
        assert [name for name in parts(tmp_path) if name.startswith(".case_")] == [Path(alive.name).name]
    assert (tmp_path / "case_2.nii.gz").read_bytes() == b"whole"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*others, "case_2.nii.gz", *(f".{kind}.0123456789ab.part" for kind in ("folder", "link", "pipe"))}


@pytest.mark.parametrize("behind", [0, 400, -400])
def test_without_locks_only_what_nobody_wrote_to_for_a_day_goes(
    behind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without locks may have a clock that is days behind or ahead, by which it dates what is written."""
    now, opened = time.time() - behind * 24 * 3600, files._open_part

    def dated(path: Path) -> BinaryIO:
        file = opened(path)
        os.utime(file.fileno(), (now, now))
        return file

    def refused(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(files, "_open_part", dated)
    for name, age in (("new", 0), ("old", 2 * 24 * 3600)):
        path = tmp_path / f".{name}.0123456789ab.part"
        path.touch()
        os.utime(path, (now - age, now - age))
    remove_half_written(tmp_path)
    assert parts(tmp_path) == [".new.0123456789ab.part"]
    write_json(tmp_path / "a.json", {})


def test_names_of_any_length_and_letters_can_be_written(tmp_path: Path) -> None:
    for name in ("é" * 127, "名" * 85, "a" * 255, os.fsdecode(b"\xff" * 250)):
        with atomic_write(tmp_path / name) as new:
            new.write(b"whole")
        killed_while_writing(tmp_path / name)
        assert len(parts(tmp_path)) == 1
        remove_half_written(tmp_path, name)
        assert parts(tmp_path) == []
        assert (tmp_path / name).read_bytes() == b"whole"


def test_a_folder_with_nothing_but_litter_is_free(images: Path, balls: Path, tmp_path: Path) -> None:
    """A kill in the first file must not put the output in the way of the same command."""
    run = saved(tiny_model(), tmp_path / "run")
    for words in (
        ("predict", run, images, "--device", "cpu"),
        ("predict", run, images, "--device", "cpu", "--probabilities", "--resume"),
        ("evaluate", balls / "labels", balls),
        ("train", balls, "--steps", 1, "--device", "cpu"),
        ("train", balls, "--steps", 1, "--device", "cpu", "--overwrite"),
    ):
        out = tmp_path / "out"
        (out / "probabilities").mkdir(parents=True)
        killed_while_writing(out / "case_0.nii.gz")
        killed_while_writing(out / "probabilities" / "case_0.nii.gz")
        if "--resume" not in words:
            shutil.rmtree(out / "probabilities")
        done = run_command(*words, "-o", out)
        assert done.exit_code == 0, done.stderr
        assert parts(out) == []
        shutil.rmtree(out)


def test_litter_beside_one_file_goes_where_it_has_that_files_name(images: Path, tmp_path: Path) -> None:
    run = saved(tiny_model(), tmp_path / "run")
    for name in ("mask.nii.gz", "mask.json", "other.json", "a.png"):
        killed_while_writing(tmp_path / name)
    command = ("predict", run, images / "case_0.nii.gz", "-o", tmp_path / "mask.nii.gz", "--device", "cpu")
    assert run_command(*command).exit_code == 0
    assert [name.partition(".json")[0] for name in parts(tmp_path)[1:]] == [".other"]
    assert run_command("networks", "--preset", "compact", "--picture", tmp_path / "a.png").exit_code == 0
    assert len(parts(tmp_path)) == 1


def test_a_finished_run_keeps_no_litter(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(ball_run, tmp_path / "run")
    (run / "report.html").unlink()
    killed_while_writing(run / "report.html")
    killed_while_writing(run / "validation" / "scores.csv")
    ids = tmp_path / "ids.txt"
    ids.write_text("ball_6\nball_7\n")
    done = run_command("train", balls, "-o", run, "--labels", "ball=1", "--leave-out", ids, "--resume")
    assert done.exit_code == 0, done.stderr
    assert (run / "report.html").is_file()
    assert parts(run) == []


def test_nothing_beside_the_part_of_a_name_is_needed(tmp_path: Path) -> None:
    (tmp_path / PART).write_bytes(b"half")  # as earlier versions left it
    remove_half_written(tmp_path, "case_0.nii.gz")
    assert parts(tmp_path) == []
