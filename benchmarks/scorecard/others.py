"""Rows 6 and 14 to 20: seeded faults, memory, files that mean harm, what leaks, scores, fuzzing, records."""

import base64
import csv
import gzip
import io
import math
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

import medfcn
from medfcn.errors import MedfcnError
from scorecard.work import NotMeasuredError, Work
from tests.inference.models import blobs, saved, tiny_model, write_image

ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}


def _run(*words: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=ROOT, env=_ENVIRONMENT, check=False
    )
    return done.returncode, done.stdout + done.stderr


def seeded_faults(work: Work) -> str:
    """Row 6: the faults of `tests/mutants.py`, file by file."""
    sys.path.insert(0, str(ROOT / "tests"))
    from mutants import MUTANTS

    files = list(dict.fromkeys(mutant.file for mutant in MUTANTS))
    work.least = min(work.least, len(files))
    for number in work.loop():
        _, said = _run("tests/mutants.py", "--only", files[number])
        found = re.search(r"(\d+) of (\d+) faults caught", said)
        if found is None:
            work.fail(f"{files[number]}: {said[-200:]}")
            continue
        work.add("caught", int(found[1]))
        work.add("tried", int(found[2]))
        for line in said.splitlines():
            if "SURVIVED" in line:
                work.fail(line)
    return f"{work.facts.get('caught', 0)} of {work.facts.get('tried', 0)} caught, {work.done} of {len(files)} files"


_LARGE = """
import resource, sys
from pathlib import Path
import medfcn, torch
from medfcn.inference.model import Model
torch.set_num_threads(1)
def peak():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
run, image, small, out = map(Path, sys.argv[1:])
medfcn.predict(run, small, out / "small.nii.gz", device="cpu")
Path("/proc/self/clear_refs").write_text("5")
before = peak()
medfcn.predict(run, image, out / "large.nii.gz", device="cpu")
print("PEAK", peak() - before)
"""


def large_volume(work: Work) -> str:
    """Row 14: peak memory of `predict` on a 512 × 512 × 1000 volume, above that after a small one."""
    shape = (512, 512, 1000)
    at = work.place("large")
    if not (at / "large.nii").exists():
        slab = (1000 * np.random.default_rng(0).random(shape[:2])).astype(np.int16)
        header = nibabel.Nifti1Header()
        header.set_data_shape(shape)
        header.set_data_dtype(np.int16)
        for place in (header.set_sform, header.set_qform):
            place(np.diag([-1.5, -1.5, 1.5, 1.0]), 1)
        header["xyzt_units"], header["vox_offset"] = 2, 352
        with (at / "large.nii").open("wb") as file:
            header.write_to(file)
            file.write(bytes(352 - file.tell()))
            for number in range(shape[2]):
                file.write(np.roll(slab, number, axis=0).tobytes(order="F"))
    saved(tiny_model(window=(256, 256), spacing_mm=(1.5, 1.5, None)), at / "run")
    write_image(at / "small.nii.gz", blobs((64, 64, 8)), np.diag([-1.5, -1.5, 1.5, 1.0]))
    (at / "masks").mkdir(exist_ok=True)
    for _ in work.loop():
        code, said = _run("-c", _LARGE, at / "run", at / "large.nii", at / "small.nii.gz", at / "masks")
        if code:
            work.fail(said[-300:])
            return "not done"
        work.facts["MB"] = round(float(said.split("PEAK")[1].split()[0]))
    if "MB" not in work.facts:
        return "not begun"
    share = work.facts["MB"] / (4 * math.prod(shape) / 2**20)
    if share > 0.75:
        work.fail(f"{share:.2f} × the float32 volume; aimed at 0.75")
    return f"{work.facts['MB']} MB, {share:.2f} × the float32 volume (one label)"


def _tests(work: Work, *files: str) -> str:
    """Tests that are a row of their own; how many passed."""
    for number in work.loop():
        code, said = _run("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", files[number])
        passed = re.search(r"(\d+) passed", said)
        work.add("passed", int(passed[1]) if passed else 0)
        if code:
            work.fail(f"{files[number]}: {said[-300:]}")
    return f"{work.facts.get('passed', 0)} tests of files that mean harm passed"


def harmful_files(work: Work) -> str:
    """Row 15: model and settings files that mean harm."""
    files = ("tests/test_malicious.py", "tests/inference/test_tampering.py", "tests/inference/test_state_dict.py")
    work.least = min(work.least, len(files))
    return _tests(work, *files)


class _Page(HTMLParser):
    """Elements of a page that can act, but not their text."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs if name.startswith("on")]
        outside = [str(value) for name, value in attrs if name in ("src", "href") and "example.org" in str(value)]
        if tag in ("script", "iframe", "object", "base", "form", "link", "meta") or names or outside:
            kept = sorted(name for name, _ in attrs if name != "content")
            self.active.append(f"{tag} {kept} {names} {outside}")


def injection(work: Work) -> str:
    """Row 16: payloads as labels and notes, in the page, in CSV and in a terminal."""
    from medfcn.evaluation import read_scores
    from tests.reporting.pages import PAYLOADS

    mask = medfcn.Volume(np.ones((6, 6, 4), np.uint8), np.eye(4))
    work.least = min(work.least, len(PAYLOADS))
    harmless = _active(work, mask, "organ", "case")
    for number in work.loop():
        payload = PAYLOADS[number]
        found = _active(work, mask, payload.replace("=", "").replace(",", "").replace("+", "") or "x", payload)
        if found != harmless:
            work.fail(f"payload {number}: the page has {sorted(set(found) - set(harmless))[:3]}")
        table = read_scores(work.folder / "scores")
        work.add("outputs", 3)
        if not all(line.isprintable() for line in table.to_text().splitlines()):
            work.fail(f"payload {number}: a terminal would obey it")
        text = (work.folder / "scores" / "scores.csv").read_text()
        for row in csv.reader(io.StringIO(text)):
            if any(field[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(field) for field in row):
                work.fail(f"payload {number}: a live formula in {row[:2]}")
    return f"{work.facts.get('outputs', 0)} outputs of {work.done} payloads, {len(work.failures)} active"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _active(work: Work, mask: "medfcn.Volume", label: str, case: str) -> list[str]:
    """Write scores and a page with a label and a case of these names; the page's active elements."""
    from medfcn.evaluation import evaluate, write_scores
    from medfcn.labels import LabelMap

    labels = LabelMap.from_names({1: label})
    table = evaluate({case: mask}, {case: mask}, labels=labels)
    write_scores(table, work.folder / "scores", overwrite=True)
    (work.folder / "page.html").unlink(missing_ok=True)
    medfcn.report({case: mask}, {case: mask}, work.folder / "page.html", labels=labels)
    page = _Page()
    page.feed((work.folder / "page.html").read_text())
    return page.active


CANARIES = {
    "descrip": b"CANARY^DESCRIP",
    "aux_file": b"canary_aux_file",
    "intent_name": b"CANARY1974",
    "db_name": b"CANARYBASE7",
    "data_type": b"MRN123456",
}


def canaries(work: Work) -> str:
    """Row 17: names in header fields and extensions, looked for in everything that commands write."""
    from tests.conftest import draw_ball

    for number in work.loop():
        at = work.place(f"data_{number}")
        for case in range(6):
            image, mask = draw_ball(10 * number + case)
            for kind, array in (("images", image), ("labels", mask)):
                volume = nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 1.5, 1.0]))
                for name, canary in CANARIES.items():
                    volume.header[name] = canary
                volume.header["xyzt_units"] = 2
                volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"PATIENT CANARY"))
                (at / kind).mkdir(exist_ok=True)
                nibabel.save(volume, at / kind / f"ball_{case}.nii.gz")
        out = work.place(f"out_{number}")
        medfcn.train(at, out / "run", steps=4, device="cpu", threads=1)
        medfcn.predict(
            out / "run", at / "images", out / "masks", device="cpu", probabilities=True, report=True, jobs=1
        )
        (out / "check.txt").write_text(medfcn.check(at).to_text())
        for path in out.rglob("*"):
            if path.is_file():
                work.add("files")
                words = (*CANARIES.values(), b"PATIENT CANARY")
                leaks = [word for word in words if any(word in raw for raw in _layers(path))]
                if leaks:
                    work.fail(f"{path.name}: {leaks}")
    return (
        f"{work.facts.get('files', 0)} files of train, predict, check and reports, {len(work.failures)} with a canary"
    )


def _layers(path: Path) -> Iterator[bytes]:
    """The bytes of a file, those within its compression, and those within its base64."""
    raw = path.read_bytes()
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    if path.suffix == ".html":
        for text in re.findall(rb"[A-Za-z0-9+/]{200,}={0,2}", raw):
            inside = base64.b64decode(text[: len(text) // 4 * 4])
            yield inside
            if inside[:2] == b"\x1f\x8b":
                yield gzip.decompress(inside)


def brute_force(work: Work) -> str:
    """Row 18: every metric against its definition, and the law that a miss improves no summary."""
    from tests.evaluation import test_brute_force
    from tests.evaluation.masks_at_random import random_pair

    for number in work.loop():
        random = np.random.default_rng(10_000 + number)
        reference, prediction, spacing = random_pair(random)
        try:
            test_brute_force.compare(reference, prediction, spacing, float(random.uniform(0, 4)))
        except AssertionError as error:
            work.fail(f"pair {number}: {error}")
        if number % 20 == 0:
            _miss_improves_nothing(work, number)
    summaries = work.facts.get("summaries", 0)
    return f"{work.done} pairs to 1e-9, {summaries} summaries with a miss added, {len(work.failures)} wrong"


def _miss_improves_nothing(work: Work, seed: int) -> None:
    random = np.random.default_rng(seed)
    references, predictions = {}, {}
    for case in "abc":
        reference = random.random((5, 5, 4)) < 0.4
        predictions[case] = medfcn.Volume((reference ^ (random.random((5, 5, 4)) < 0.2)).astype(np.uint8), np.eye(4))
        references[case] = medfcn.Volume(reference.astype(np.uint8), np.eye(4))
    before = medfcn.evaluate(predictions, references, labels="a=1").summary().labels[0]
    references["d"], predictions["d"] = references["a"], medfcn.Volume(np.zeros((5, 5, 4), np.uint8), np.eye(4))
    after = medfcn.evaluate(predictions, references, labels="a=1").summary().labels[0]
    work.add("summaries")
    for name in ("dice", "iou", "recall", "nsd"):
        if not _mean(after, name) <= _mean(before, name) + 1e-12:
            work.fail(f"summary {seed}: a miss improves {name}: {_mean(before, name)} to {_mean(after, name)}")
    for name in ("hd95_mm", "hd_mm", "assd_mm"):
        if not _mean(after, name) >= _mean(before, name) - 1e-12:
            work.fail(f"summary {seed}: a miss improves {name}: {_mean(before, name)} to {_mean(after, name)}")


def _mean(label: object, metric: str) -> float:
    return float(label[metric].mean)  # type: ignore[index]


_FUZZ_SECONDS = 10.0


def fuzzing(work: Work) -> str:
    """Row 19: all readers under random damage; each call within 2 s and 64 MB. A round is 10 CPU seconds."""
    from tests import fuzz_readers
    from tests.volumes import test_fuzz

    warnings.simplefilter("ignore")
    for number in work.loop():
        began = time.process_time()
        try:
            if number % 2:
                work.add("files", test_fuzz.fuzz(_FUZZ_SECONDS, 70_000 + number, work.place("volumes")))
            else:
                found = fuzz_readers.fuzz(_FUZZ_SECONDS, 70_000 + number, work.place("readers"))
                work.add("files", sum(map(sum, found.values())))
        except AssertionError as error:
            work.fail(error)
        work.facts["CPU s"] = round(work.facts.get("CPU s", 0.0) + time.process_time() - began, 1)
    seconds = work.facts.get("CPU s", 0.0)
    files = work.facts.get("files", 0)
    return f"{files:,} files in {seconds / 60:.1f} CPU min, {len(work.failures)} other than a MedfcnError"


def made_again(work: Work) -> str:
    """Row 20: masks made again from their records, with the models and volumes under other names and places."""
    from inspect import signature

    from medfcn.inference.request import PredictRequest

    if "again" not in signature(PredictRequest).parameters:
        raise NotMeasuredError("this build has no predict --again")
    ways: tuple[dict[str, Any], ...] = ({}, {"tta": True}, {"probabilities": True}, {"threads": 2})
    for number in work.loop():
        at, names = work.place(f"mask_{number}"), ("organ=1", "left=1,right=2", "whole=1+2,core=2")
        models = [saved(tiny_model(seed=seed, labels=names[number % 3]), at / f"run_{seed}") for seed in (0, number)]
        image = write_image(at / "images" / "case.nii.gz", blobs((18, 15, 4 + number % 5), seed=number))
        # One network, or the mean of two.
        medfcn.predict(models[: 1 + number % 2], image, at / "masks", device="cpu", **ways[number % 4])
        (at / "archive" / "deep").mkdir(parents=True)
        for place, model in enumerate(set(models)):
            model.rename(at / "archive" / "deep" / f"model_{place}")
        image.rename(at / "archive" / "scan.nii.gz")
        (at / "records").mkdir()
        (at / "masks" / "case.json").rename(at / "records" / "case.json")
        try:
            medfcn.predict(at / "archive", at / "archive", at / "again", again=at / "records", device="cpu")
        except MedfcnError as error:
            work.fail(f"mask {number}: {error}")
            continue
        if (at / "again" / "case.nii.gz").read_bytes() != (at / "masks" / "case.nii.gz").read_bytes():
            work.fail(f"mask {number}: other bytes")
    return f"{work.done - len(work.failures)} of {work.done} byte-equal"
