"""Rows 7 to 13 and 21: kills, full disks, bad cases, several processes on one folder, and memory taken away."""

import hashlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

import medfcn
from medfcn.errors import WriteError
from medfcn.runs.folder import CLAIMS_FOLDER
from scorecard.work import NotMeasuredError, Work
from tests.conftest import draw_ball, write_case
from tests.inference.models import blobs, saved, tiny_model, write_image

SHAPE = (20, 18, 5)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but that of times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "timing.csv")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def litter(folder: Path) -> list[str]:
    """Files and folders that should not be there once a command has ended."""
    return [str(path) for path in folder.rglob(".*") if path.name.endswith(".part") or path.name == CLAIMS_FOLDER]


def balls(folder: Path, count: int = 8) -> Path:
    """A data set of balls in noise."""
    for number in range(count):
        write_case(folder, f"ball_{number}", *draw_ball(number))
    return folder


def images(folder: Path, count: int, shape: tuple[int, int, int] = SHAPE) -> Path:
    """Volumes to put masks on."""
    for number in range(count):
        write_image(folder / f"case_{number:03d}.nii.gz", blobs(shape, seed=number))
    return folder


def forked(work: Callable[[], object]) -> int:
    """A process of its own, which says nothing; its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def kill_training(work: Work) -> str:
    """Row 7: trainings killed at any moment and gone on with; compared with those that were not."""
    from tests.training.nursery import nursery
    from tests.training.test_resume import assert_same_run, uninterrupted

    data = balls(work.place("balls"))
    with nursery() as forks:
        while work.done < work.least and not work.is_over:
            seed = int(work.facts.get("trainings", 0))
            at, dice = work.place(f"training_{seed}"), random.Random(seed)
            order: dict[str, Any] = {"dataset": str(data), "steps": dice.randint(10, 30), "seed": seed}
            longest = uninterrupted(forks, at / "whole", order)
            order |= {"output": str(at / "killed"), "checkpoint_seconds": 0}
            said: list[str] = []
            kills = 0
            while not said:
                child = forks.start(work="train", **order)
                if kills == 8 or work.done + kills >= work.least:
                    said = forks.until_end(child)
                    break
                time.sleep(random.uniform(0, longest))
                said = forks.kill(child)
                kills += not said
            try:
                if said != [f"done {order['steps']}"]:
                    raise AssertionError(f"{said}")
                assert_same_run(at / "killed", at / "whole")
            except (AssertionError, OSError) as error:
                work.fail(f"training {seed} after {kills} kills: {error}")
            work.done += kills
            work.add("trainings")
            work.save()
            shutil.rmtree(at)
    return f"{work.done} kills of {work.facts.get('trainings', 0)} trainings, {len(work.failures)} not bitwise equal"


def kill_saving(work: Work) -> str:
    """Row 8: a process that does nothing but save, killed within; the state that it announced last must be there."""
    from tests.training.nursery import nursery
    from tests.training.test_resume import saves_killed

    with nursery() as forks:
        while work.done < work.least and not work.is_over:
            kills = min(20, work.least - work.done)
            try:
                work.add("states", saves_killed(forks, work.folder / f"state_{work.done}", kills))
            except AssertionError as error:
                work.fail(error)
            work.done += kills
            work.save()
    return f"{len(work.failures)} of {work.done} unreadable or missing, {work.facts.get('states', 0)} states saved"


def full_disk(work: Work) -> str:
    """Row 9: every writer, and commands whose disk is full at 23 places, which go on afterwards."""
    from medfcn.runs.checkpoints import Checkpoints
    from tests.full_disk import room_for
    from tests.test_full_disk import WRITERS, _told
    from tests.training.states import state_at
    from tests.training.test_resume import assert_same_run, train

    torch.set_num_threads(1)
    run, data = saved(tiny_model(), work.place("run")), balls(work.place("balls"))
    volumes = images(work.place("images"), 3)

    def predict(folder: Path, *, resume: bool = False) -> None:
        medfcn.predict(run, volumes, folder, probabilities=True, resume=resume, device="cpu", jobs=1)

    def fit(folder: Path, *, resume: bool = False) -> None:
        train(data, folder, steps=3, report=False, resume=resume)

    commands = {"predict": predict, "train": fit}
    wholes: dict[str, tuple[Path, int]] = {}
    points = [*sorted(WRITERS), *[("predict", share / 13) for share in range(13)]]
    points += [("train", share / 10) for share in range(10)]
    work.least = min(work.least, len(points))
    order = random.Random(0).sample(points, len(points))
    for number in work.loop():
        point, at = order[number], work.place(f"point_{number}")
        try:
            if isinstance(point, str):
                Checkpoints(at, "key", every_seconds=0).write(1, state_at(1).save)
                (at / point).write_bytes(b"old")
                before = content(at)
                with room_for(5):
                    _refused_as_full(lambda point=point, at=at: WRITERS[point](at / point), at, _told, at / point)
                if content(at) != before:
                    work.fail(f"{point}: something was left")
                continue
            command, share = point
            if command not in wholes:
                with room_for(10**9) as room:
                    commands[command](work.folder / f"whole_{command}")
                wholes[command] = work.folder / f"whole_{command}", 10**9 - room[0]
            whole, needed = wholes[command]
            out = at / "out"
            with room_for(int(needed * share)):
                _refused_as_full(lambda command=command, out=out: commands[command](out), at)
            if litter(at):
                work.fail(f"{command} at {share:.2f}: {litter(at)}")
            commands[command](out, resume=out.exists())
            if command == "train":
                assert_same_run(out, whole)
            elif content(out) != content(whole):
                work.fail(f"{command} at {share:.2f}: not byte-equal afterwards")
        except Exception as error:
            work.fail(f"{point}: {type(error).__name__}: {error}")
        finally:
            shutil.rmtree(at)
    return f"{work.done} points, {len(work.failures)} without path and bytes, partial, or not byte-equal afterwards"


def _refused_as_full(
    call: Callable[[], object],
    at: Path,
    told: Callable[[WriteError, Path], None] | None = None,
    path: Path | None = None,
) -> None:
    try:
        call()
    except WriteError as error:
        if told is not None and path is not None:
            told(error, path)
        elif f"{at}/" not in str(error) or "bytes are free" not in str(error):
            raise AssertionError(f"without path or bytes: {error}") from error
    else:
        raise AssertionError("no error")


def bad_cases(work: Work) -> str:
    """Row 10: a folder of volumes of which every twentieth is bad."""
    from click.testing import CliRunner

    from medfcn.cli import main
    from tests.volumes.hostile import ACCEPT, corpus

    run, count = saved(tiny_model(), work.place("run")), work.least
    volumes, bad = images(work.place("images"), count), range(7, count, 20)
    clean = work.place("clean_images")
    hostile = [item for item in corpus() if item.expected != ACCEPT and item.opened.endswith(".nii.gz")]
    for number in range(count):
        file = volumes / f"case_{number:03d}.nii.gz"
        if number in bad:
            file.write_bytes(next(iter(hostile[number % len(hostile)].content.values())))
        else:
            shutil.copy(file, clean)
    words = ["predict", str(run), str(volumes), "-o", str(work.folder / "out"), "--device", "cpu", "--jobs", "1"]
    done = CliRunner().invoke(main, words)
    medfcn.predict(run, clean, work.folder / "clean", device="cpu", jobs=1)
    found, wanted = content(work.folder / "out"), content(work.folder / "clean")
    masks = [name for name in wanted if name.endswith((".nii.gz", ".json")) and found.get(name) == wanted[name]]
    rows = len(found.get("failures.csv", b"").decode().splitlines()) - 1
    if done.exit_code != 3 or rows != len(bad) or len(masks) != 2 * (count - len(bad)):
        work.fail(f"exit {done.exit_code}, {rows} rows, {len(masks)} files equal: {done.stderr[-200:]}")
    work.done = count
    return f"{len(masks) // 2} masks equal to a clean run's, {rows} rows, exit {done.exit_code}"


def kill_prediction(work: Work) -> str:
    """Row 11: predictions of a folder killed at any moment and gone on with."""
    run, volumes = saved(tiny_model(), work.place("run")), images(work.place("images"), 12)
    clean = work.folder / "clean"

    def predict(out: Path, *, resume: bool = False) -> None:
        medfcn.predict(run, volumes, out, device="cpu", jobs=1, probabilities=True, resume=resume)

    predict(work.folder / "warm")
    began = time.monotonic()
    predict(clean)
    longest = time.monotonic() - began
    wanted = content(clean)
    for number in work.loop():
        out = work.folder / f"out_{number}"
        child = forked(lambda out=out: predict(out))
        time.sleep(random.uniform(0, longest * 1.1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        work.add("killed before its end", os.WIFSIGNALED(status))
        work.add("parts left by the kill", len(litter(out)) if out.exists() else 0)
        predict(out, resume=out.exists())
        if content(out) != wanted or litter(out):
            odd = sorted(name for name, _ in content(out).items() ^ wanted.items())
            work.fail(f"kill {number}: {odd[:5]} {litter(out)[:3]}")
        shutil.rmtree(out)
    facts = work.facts
    return (
        f"{work.done} kills, {facts.get('killed before its end', 0)} before the end, with "
        f"{facts.get('parts left by the kill', 0)} files left: {len(work.failures)} not byte-equal or littered"
    )


def four_jobs(work: Work) -> str:
    """Row 12: four processes on one folder, and a reader of whatever is there."""
    run = saved(tiny_model(), work.place("run"))
    volumes = images(work.place("images"), 40, (40, 36, 16))
    while work.done < work.least and not work.is_over:
        out = work.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        children = [
            forked(partial(medfcn.predict, run, volumes, out, device="cpu", jobs=1, resume=True)) for _ in range(4)
        ]
        running = set(children)
        while running:
            for child in list(running):
                if os.waitpid(child, os.WNOHANG)[0]:
                    running.discard(child)
            masks = sorted(out.glob("*.nii.gz"))
            if masks:
                path = random.choice(masks)
                try:
                    np.asarray(nibabel.load(path).dataobj)
                except Exception as error:
                    work.fail(f"{path.name}: {type(error).__name__}: {error}")
                work.done += 1
            time.sleep(0.002)
        found = len(list(out.glob("*.nii.gz")))
        work.add("folders")
        if found != 40 or litter(out):
            work.fail(f"{found} of 40 masks, {litter(out)}")
        work.save()
    return f"{work.done} reads of {work.facts.get('folders', 0)} folders of 40, {len(work.failures)} unreadable"


def one_hash(work: Work) -> str:
    """Row 13: the same masks with any number of processes, and the same weights again."""
    from inspect import signature

    from medfcn.inference.request import PredictRequest

    if "jobs" not in signature(PredictRequest).parameters:
        raise NotMeasuredError("this build has no --jobs")
    run, volumes = saved(tiny_model(), work.place("run")), images(work.place("images"), 8)
    data = balls(work.place("balls"))
    ways = ["jobs 1", "jobs 1 again", "jobs 2", "jobs 4", "train", "train again"]
    work.least = min(work.least, len(ways))
    found: dict[str, set[str]] = {name: set(work.facts.get(name, ())) for name in ("masks", "weights")}
    for number in work.loop():
        way, out = ways[number], work.folder / f"way_{number}"
        if way.startswith("jobs"):
            medfcn.predict(run, volumes, out, device="cpu", jobs=int(way.split()[1]))
            digest = hashlib.sha256(b"".join(raw for _, raw in sorted(content(out).items()))).hexdigest()
            found["masks"].add(digest)
        else:
            medfcn.train(data, out, steps=5, device="cpu", threads=1, report=False)
            found["weights"].add(hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest())
        work.facts |= {name: sorted(hashes) for name, hashes in found.items()}
    for name, hashes in found.items():
        if len(hashes) > 1:
            work.fail(f"{name}: {len(hashes)} hashes")
    return (
        f"masks of 1, 1, 2 and 4 processes: {len(found['masks'])} hash; weights twice: {len(found['weights'])} hash"
    )


def memory_taken_away(work: Work) -> str:
    """Row 21: commands whose process may take no more than a few megabytes from a call of a moment on."""
    from tests.memory_faults import MOMENTS, Faults, command_of, what_is_wrong

    run, moments = work.place("model") / "run", list(MOMENTS)
    with Faults() as faults:
        faults.run(command_of("step", run, run))
        for number in work.loop():
            dice = random.Random(number)
            moment, out = moments[number % len(moments)], work.place(f"point_{number}") / "out"
            count, spare = dice.randint(1, 6), dice.choice((1, 1, 3, 10, 30, 100))
            ended = faults.run(command_of(moment, run, out), moment, count, spare)
            work.add({0: "done all the same"}.get(ended.returncode, "reported"), not (wrong := what_is_wrong(ended)))
            if wrong:
                work.fail(f"call {count} of {moment}, {spare} MB left: {wrong}")
            shutil.rmtree(out.parent)
    return f"{work.done} points, {len(work.failures)} ended by a signal, with a traceback or without megabytes"
