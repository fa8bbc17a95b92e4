"""Readers of headers, tables and `dataset.json` under random damage: the right answer, or a `MedfcnError`.

The seeds are fixed, so that a failure can be repeated. `pytest -m slow` runs a CPU minute of it; run as a script
with a number of seconds to go on longer:

    python tests/volumes/test_fuzz.py 3600
"""

import json
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import nibabel
import numpy as np
import pytest
import SimpleITK  # noqa: F401  # so that its 90 MB are not counted as those of a file

from medfcn.datasets import Dataset, check_cases, find_dataset, find_inputs, find_masks
from medfcn.errors import MedfcnError
from medfcn.labels import read_mask
from medfcn.volumes import ReadOptions, read_volume
from medfcn.volumes.formats.nifti_transforms import LONGEST_QUATERNION
from medfcn.volumes.privacy import personal_text_fields
from medfcn.volumes.reading import read_channels
from tests.limits import limits
from tests.volumes.hostile import GOOD, OFFSETS, OFFSETS_2, VOXELS, corpus, good, packed

SEEDS = [
    next(iter(hostile.content.values())) for hostile in corpus() if len(next(iter(hostile.content.values()))) < 5000
]
OPTIONS = [
    ReadOptions(max_bytes=1 << 20),
    ReadOptions(max_bytes=1 << 20, assume_grid=True, nonfinite=0.0, xform="qform"),
    ReadOptions(max_bytes=1 << 20, assume_grid=True, nonfinite=1.0, xform="sform", volume_index=0),
    ReadOptions(max_bytes=1 << 20, xform="sform", nonfinite=0.0),
]
FILES = ("images/a.nii", "images/b.nii", "images/b_0000.nii", "images/b_0002.nii", "labels/a.nii", "labels/b.nii")
NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF]
JSON_GOOD = {
    "training": [
        {"image": "images/a.nii", "label": "labels/a.nii"},
        {"image": ["images/b.nii"], "label": "labels/b.nii"},
    ],
    "labels": {"0": "background", "1": "organ", "ignore": 2},
    "modality": {"0": "MRI"},
}
CSV_GOOD = "id,image,label,group,fold\na,images/a.nii,labels/a.nii,P,1\nb,images/b.nii,labels/b.nii,Q,2\n"
TOKENS = [
    b"",
    b",",
    b"\n",
    b'"',
    b"\0",
    b"..",
    b"/",
    b"\\u0000",
    b"\xff",
    b"[",
    b"{",
    b"null",
    b"1e999",
    b"-1",
    b"~",
    b"\t",
]


def require_one_line(error: MedfcnError) -> None:
    assert str(error).isprintable(), repr(str(error))


def require_told(dataset: Dataset) -> None:
    """A case is complete, or a problem on one line says what it lacks."""
    assert dataset.cases
    lacking = [problem for problem in dataset.problems if problem.severity == "error"]
    assert {case.id for case in dataset.incomplete} == {problem.case for problem in lacking}
    assert not {case.id for case in dataset.cases} & {case.id for case in dataset.incomplete}
    report = check_cases(dataset)
    assert set(lacking) <= set(report.errors)
    assert set(dataset.problems) <= set(report.problems)
    for problem in report.problems:
        assert problem.line.isprintable(), repr(problem.line)


def damaged(random_: random.Random, raw: bytes) -> bytes:
    """A few bytes changed, taken out, put in, or a header field overwritten."""
    data = bytearray(raw)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        place = random_.randrange(min(len(data), 600))
        action = random_.randrange(6)
        if action == 0:
            data[place] ^= 1 << random_.randrange(8)
        elif action == 1:
            data[place] = random_.choice(NUMBERS)
        elif action == 2:
            del data[place : place + random_.choice((1, 4, 100))]
        elif action == 3:
            data[place:place] = random_.randbytes(random_.choice((1, 4, 100)))
        elif action == 4:
            offset, _ = random_.choice(list((OFFSETS if random_.random() < 0.7 else OFFSETS_2).values()))
            value = random_.choice(
                (bytes(8), b"\xff" * 8, b"\0\0\x80\x7f" * 2, b"\0\0\xc0\x7f" * 2, random_.randbytes(8))
            )
            data[offset : offset + 8] = value
        else:
            source = random_.choice(SEEDS)
            data[place : place + 40] = source[place : place + 40]
    return bytes(data)


def fuzz_volume(random_: random.Random, folder: Path) -> None:
    raw = random_.choice((GOOD, good(order=">"), good(version=2), random_.choice(SEEDS)))
    name = random_.choice(("a.nii", "a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.hdr", "a.img"))
    raw = damaged(random_, raw)
    if name.endswith(".gz"):
        raw = packed(raw)
        if random_.random() < 0.3:
            raw = damaged(random_, raw)
    path = folder / name
    path.write_bytes(raw)
    personal_text_fields(path)
    for read in (read_volume, read_mask, partial(read_channels, count=2)):
        with limits(name):
            try:
                read(path, options=random_.choice(OPTIONS))
            except MedfcnError as error:
                require_one_line(error)
    if name in ("a.hdr", "a.img") and random_.random() < 0.3:
        path.unlink()


def _shuffled(random_: random.Random, value: object) -> object:
    """A value of JSON with a part replaced by something else."""
    odd = (None, True, -1, 10**30, 0.5, "", "..", "x" * 300, [], {}, [[]], "\ud800", "a\0b", "/etc/passwd", {"a": []})
    if random_.random() < 0.15:
        return random_.choice(odd)
    if isinstance(value, dict):
        return {key if random_.random() > 0.05 else "x": _shuffled(random_, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shuffled(random_, item) for item in value] * random_.choice((1, 1, 1, 0, 2))
    return value


def _text_damaged(random_: random.Random, raw: bytes) -> bytes:
    data = bytearray(raw)
    for _ in range(random_.choice((0, 1, 1, 2, 5))):
        place = random_.randrange(len(data) + 1)
        data[place : place + random_.choice((0, 1, 3, 10))] = random_.choice(TOKENS) * random_.choice((1, 1, 1, 2000))
    return bytes(data)


def fuzz_dataset(random_: random.Random, folder: Path) -> None:
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        if random_.random() < (0.2 if "_" in name else 0.9):
            (folder / name).write_bytes(GOOD)
        else:
            (folder / name).unlink(missing_ok=True)
    text = json.dumps(_shuffled(random_, JSON_GOOD)).encode()
    (folder / "dataset.json").write_bytes(_text_damaged(random_, text))
    if random_.random() < 0.2:
        (folder / "dataset.json").unlink()
    (folder / "t.csv").write_bytes(_text_damaged(random_, CSV_GOOD.encode()))
    (folder / "g.csv").write_bytes(_text_damaged(random_, b"id,group\na,P\nb,Q\n"))
    calls: list[Callable[[], object]] = [
        lambda: require_told(find_dataset(folder)),
        lambda: require_told(find_dataset(folder / "t.csv", groups=folder / "g.csv")),
        lambda: find_dataset(folder / "t.csv", allow_outside=True),
        lambda: find_inputs(folder),
        lambda: find_masks(folder),
    ]
    for call in calls:
        with limits("data set"):
            try:
                call()
            except MedfcnError as error:
                require_one_line(error)


def fuzz(seconds: float, seed: int, folder: Path, *, count: int = 0) -> int:
    """Go on for some CPU seconds, or for so many files where `count` is given; returns how many were tried."""
    random_ = random.Random(seed)
    (folder / "volumes").mkdir(parents=True, exist_ok=True)
    (folder / "dataset").mkdir(exist_ok=True)
    end, tried = time.process_time() + seconds, 0
    while tried < count or (not count and time.process_time() < end):
        state = random_.getrandbits(64)
        one = random.Random(state)
        try:
            if one.random() < 0.8:
                fuzz_volume(one, folder / "volumes")
            else:
                fuzz_dataset(one, folder / "dataset")
        except Exception as error:
            raise AssertionError(f"seed {state} gave {type(error).__name__}: {error}") from error
        tried += 1
    return tried


def test_only_medfcn_errors_for_some_files(tmp_path: Path) -> None:
    assert fuzz(0.0, 0, tmp_path, count=400) == 400


@pytest.mark.slow
def test_only_medfcn_errors_for_a_cpu_minute(tmp_path: Path) -> None:
    assert fuzz(60.0, 1, tmp_path) > 3000


def as_nibabel_reads(path: Path) -> nibabel.Nifti1Image:
    """nibabel takes a quaternion up to 4e-7 too long; medfcn and nifti1_io normalise what rounding made longer."""
    try:
        return nibabel.load(path)
    except ValueError as error:
        if "w2 should be positive" not in str(error):
            raise
    with (
        patch.object(nibabel.Nifti1Header, "quaternion_threshold", LONGEST_QUATERNION - 1.0),
        patch.object(nibabel.Nifti2Header, "quaternion_threshold", LONGEST_QUATERNION - 1.0),
    ):
        return nibabel.load(path)


def agree(seed: int, folder: Path, *, count: int) -> int:
    """Read so many damaged volumes; those accepted must be what nibabel reads, units apart.

    Returns:
        How many were accepted.
    """
    random_ = random.Random(seed)
    path = folder / "a.nii"
    accepted = 0
    floats = good(code=16, voxels=VOXELS.astype(np.float32))
    for _ in range(count):
        raw = damaged(random_, random_.choice((GOOD, good(order=">"), good(version=2), floats)))
        path.write_bytes(raw)
        try:
            volume = read_volume(path)
        except MedfcnError:
            continue
        accepted += 1
        assert volume.header is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = as_nibabel_reads(path)
            voxels = np.asanyarray(image.dataobj).reshape(volume.shape, order="F")
        affine = image.affine.copy()
        affine[:3] *= {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}[int(volume.header.record["xyzt_units"]) & 7]
        np.testing.assert_allclose(volume.affine, affine, rtol=1e-4, atol=1e-4, err_msg=raw.hex())
        np.testing.assert_allclose(
            volume.array.astype(float), voxels.astype(float), rtol=1e-5, atol=1e-5, err_msg=raw.hex()
        )
    return accepted


def test_damaged_volumes_that_are_accepted_are_read_as_nibabel_reads_them(tmp_path: Path) -> None:
    assert agree(3, tmp_path, count=1000) > 200


@pytest.mark.slow
def test_many_damaged_volumes_agree(tmp_path: Path) -> None:
    assert agree(4, tmp_path, count=20_000) > 4000


if __name__ == "__main__":
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as scratch:
        print(fuzz(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2, Path(scratch)), "files")
