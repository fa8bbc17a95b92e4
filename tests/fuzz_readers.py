"""Every reader of medfcn but those of volumes, under random damage: the right answer, or a `MedfcnError`.

Settings in TOML, cards and weights of models, records of masks, prepared slices, checkpoints, identities, scores,
tables, lists of ids, splits and labels as text. Hashes are put right again where a file has one, as somebody who
means harm would. Each call may take two seconds of CPU time and 64 MB.

    python tests/fuzz_readers.py SECONDS [SEED]
"""

import dataclasses
import hashlib
import io
import json
import random
import shutil
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medfcn.config import read_settings
from medfcn.datasets.cases import Case, Dataset
from medfcn.datasets.patients import groups_from_ids, groups_from_table
from medfcn.datasets.prescribed_splits import check_splits, read_splits
from medfcn.datasets.tables import read_ids
from medfcn.errors import MedfcnError
from medfcn.evaluation import evaluate, read_scores, write_scores
from medfcn.evaluation.cohort import find_cohort
from medfcn.inference.model import Model
from medfcn.labels import LabelMap
from medfcn.labels.sidecar import MaskRecord
from medfcn.progress import Silent
from medfcn.runs.cases import TrainingImages
from medfcn.runs.checkpoints import Checkpoints
from medfcn.runs.models import models_of
from medfcn.runs.one_file import archive_bytes
from medfcn.slices.store import open_case, write_case
from medfcn.training.identity import read_identity
from medfcn.training.state import State
from medfcn.volumes import Volume
from tests.inference.models import saved, tiny_model
from tests.limits import limits
from tests.training.states import state_at

KEY = "0" * 32
IDS = ("a", "b", "c")

Files = dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """A reader, and files that it reads rightly.

    Attributes:
        name: What it reads.
        files: The good files.
        read: Reads those of a folder.
        sign: Puts hashes right after damage.
    """

    name: str
    files: Files
    read: Callable[[Path], object]
    sign: Callable[[Path], None] | None = None


TOML = b"""[training]
learning_rate = 1e-3
[network]
widths = [8, 16]
upsampling = "bilinear"
[slices]
views = ["axial"]
[augment]
still_share = 0.5
"""
CSV = b"id,image,label,group,fold,site\na,a.nii,a.nii,P,1,X\nb,b.nii,b.nii,Q,2,Y\nc,c.nii,c.nii,Q,2,Y\n"
SPLITS = json.dumps([{"train": ["a"], "val": ["b", "c"]}, {"train": ["b", "c"], "val": ["a"]}]).encode()
LABELS = [
    *("organ=1", "a=1,b=2", "lesion=1-42", "lesion=1-3+7", "lesion=any,ignore=255", "whole=1+2+3,core=2+3", "a=0"),
    *("a=1-99999999999", "a=18446744073709551615", "a=1-18446744073709551615", "=1", "a=", "a=1,a=2", "a=-1", "1,2"),
]
PLACES = (
    *(None, True, False, -1, 0, 0.5, 1e308, -1e308, 10**30, -(10**30), 2**31, 2**63, 2**64),
    *("", "..", "x" * 3000),
    *("\ud800", "a\0b", "\x1b[31m", "/etc/passwd", [], {}, [[]], {"a": []}, "nan", "1", [None], {"": 0}),
)
TOKENS = (
    *(
        b"",
        b",",
        b"\n",
        b'"',
        b"'",
        b"\0",
        b"..",
        b"[",
        b"]",
        b"{",
        b"}",
        b"=",
        b"null",
        b"1e999",
        b"-1",
        b"~",
        b"\t",
    ),
    *(
        b"\xff",
        b"\\u0000",
        b"\r",
        b";",
        b"0x",
        b"inf",
        b"nan",
        b"[[",
        b"''' ",
        b"9" * 400,
        b"#",
        b":",
        b"\xef\xbb\xbf",
    ),
)


def shuffled(random_: random.Random, value: object) -> Any:
    """A value of JSON in which a few parts are something else."""
    if random_.random() < 0.04:
        return random_.choice(PLACES)
    if isinstance(value, dict):
        return {
            key if random_.random() > 0.01 else random_.choice(("x", "", "a\n", key.upper())): shuffled(random_, item)
            for key, item in value.items()
            if random_.random() > 0.01
        }
    if isinstance(value, list):
        return [shuffled(random_, item) for item in value] * random_.choice((1, 1, 1, 1, 0, 2))
    return value


def damaged_text(random_: random.Random, raw: bytes) -> bytes:
    """A few words put in or taken out; rarely thousands."""
    data = bytearray(raw)
    for _ in range(random_.choice((1, 1, 2, 5))):
        place = random_.randrange(len(data) + 1)
        token = random_.choice(TOKENS) * random_.choice((1, 1, 1, 1, 500, 5000))
        data[place : place + random_.choice((0, 1, 3, 10))] = token
    return bytes(data)


def damaged_bytes(random_: random.Random, raw: bytes) -> bytes:
    """A few bytes changed, taken out or put in, more often near the beginning and the end."""
    data = bytearray(raw)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        near = random_.choice((40, 400, len(data)))
        place = random_.randrange(min(near, len(data)))
        if random_.random() < 0.4:
            place = len(data) - 1 - place
        action = random_.randrange(5)
        if action == 0:
            data[place] ^= 1 << random_.randrange(8)
        elif action == 1:
            data[place] = random_.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif action == 2:
            del data[place : place + random_.choice((1, 4, 100))]
        elif action == 3:
            data[place:place] = random_.randbytes(random_.choice((1, 4, 100)))
        else:
            odd = (-1, 0, 2**31 - 1, 2**32 - 1, 2**63 - 1)
            data[place : place + 8] = struct.pack("<q", random_.choice(odd))
    return bytes(data)


def damaged(random_: random.Random, name: str, raw: bytes) -> bytes:
    """Damage of the kind that a file of this name is likely to meet."""
    if name.endswith(".json") and random_.random() < 0.7:
        return json.dumps(shuffled(random_, json.loads(raw))).encode("utf-8", "surrogatepass")
    if name.endswith(".pt") and random_.random() < 0.5:
        value = torch.load(io.BytesIO(raw), weights_only=True)
        buffer = io.BytesIO()
        torch.save(_other_state(random_, value), buffer)
        return buffer.getvalue()
    if name.endswith((".json", ".toml", ".csv", ".txt")):
        return damaged_text(random_, raw)
    return damaged_bytes(random_, raw)


def _other_state(random_: random.Random, value: Any) -> Any:
    """A checkpoint with a part that is something else."""
    if random_.random() < 0.1:
        return random_.choice((*PLACES, torch.zeros(2), torch.tensor(float("nan")), torch.zeros(0)))
    if isinstance(value, dict) and value:
        key = random_.choice(list(value))
        return {**value, key: _other_state(random_, value[key])}
    if isinstance(value, list | tuple) and value:
        items = list(value)
        place = random_.randrange(len(items))
        items[place] = _other_state(random_, items[place])
        return type(value)(items)
    return random_.choice((*PLACES, torch.full((200, 200), float("inf")), torch.zeros(3, dtype=torch.int64)))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _sign_model(folder: Path) -> None:
    if isinstance(card := _loaded(folder / "model.json"), dict):
        _write(folder / "model.json", card | {"weights_sha256": _sha256(folder / "model.safetensors")})


def _sign_slices(folder: Path) -> None:
    if isinstance(mark := _loaded(folder / f"{KEY}.json"), dict):
        hashes = {name: _sha256(folder / f"{KEY}.{name}.npy") for name in ("images", "labels")}
        _write(folder / f"{KEY}.json", mark | {"sha256": hashes})


def _sign_checkpoint(folder: Path) -> None:
    if isinstance(mark := _loaded(folder / "checkpoint_000001.json"), dict):
        _write(folder / "checkpoint_000001.json", mark | {"sha256": _sha256(folder / "checkpoint_000001.pt")})


def _use_model(folder: Path) -> None:
    Model.load(folder, device="cpu").predict((np.arange(60.0).reshape(5, 4, 3), np.eye(4)))


def _pack_model(folder: Path) -> None:
    _sign_model(folder)
    files = {name: (folder / name).read_bytes() for name in ("model.json", "model.safetensors")}
    (folder / "a.medfcn").write_bytes(archive_bytes(files, medfcn="0"))


def _use_archive(folder: Path) -> None:
    if not (folder / "a.medfcn").exists():  # the good files, not packed yet
        _pack_model(folder)
    Model.load(folder / "a.medfcn", device="cpu")


def _use_slices(folder: Path) -> None:
    case = open_case(folder, KEY, "a", "axial")
    if case is not None:
        np.array(case.images[:1]), np.array(case.labels[:1])


def _use_splits(folder: Path) -> None:
    cases = tuple(Case(name, (Path(f"{name}.nii"),), Path(f"{name}.nii"), name) for name in IDS)
    check_splits(Dataset(folder, "nnunet", cases, ("channel_0",), splits=read_splits(folder)))


def _use_scores(folder: Path) -> None:
    table = read_scores(folder)
    table.to_text()
    table.worst_first()


def _use_table(folder: Path) -> None:
    find_cohort({}, IDS, groups=folder / "t.csv", by=("site",), table=folder / "t.csv")


def _use_groups(folder: Path) -> None:
    groups_from_table(folder / "t.csv", IDS)


def _use_ids(folder: Path) -> None:
    groups_from_ids(read_ids(folder / "ids.txt"), "stem")


def _use_labels(folder: Path) -> None:
    text = (folder / "labels.txt").read_bytes().decode("utf-8", "replace")
    labels = LabelMap.parse(text)
    mask = np.arange(24, dtype=np.uint16).reshape(2, 3, 4) % 3
    labels.encode(mask, name="mask")
    LabelMap.from_json(labels.to_json())


def _content(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@cache
def readers() -> tuple[Reader, ...]:
    """Every reader, with good files made here."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = _content(saved(tiny_model(labels="left=1,right=2"), root / "model"))
        (root / "slices").mkdir()
        write_case(root / "slices", KEY, np.ones((3, 1, 9, 9), np.float32), np.ones((3, 9, 9), np.uint8))
        small = {"weight": torch.ones(4, 4)}
        state = dataclasses.replace(
            state_at(5),
            supervised=small,
            averaged=small,
            optimiser={
                "state": {0: {"exp_avg": torch.ones(4, 4)}},
                "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}],
            },
        )
        (root / "checkpoint").mkdir()
        Checkpoints(root / "checkpoint", "key", every_seconds=0).write(5, state.save)
        mask = Volume(np.ones((4, 4, 3), np.uint8), np.eye(4))
        write_scores(evaluate({"a": mask, "b": mask}, {"a": mask, "b": mask}), root / "scores")
        record = MaskRecord(case="m", mask_sha256="0" * 64, labels=LabelMap.parse("left=1,right=2"), flags=("far",))
        record.write(root / "m.nii.gz")
        identity = {
            "length": {"steps": 5, "changes": [[0, 5]]},
            "threads": 1,
            "versions": {"torch": "2"},
            "plan": {"intensities": [{"kind": "zscore"}]},
            "transforms": [{"name": "Flipd", "arguments": {"keys": ["a"]}, "sha256": "0"}],
            "seed": 0,
        }
        return (
            Reader("settings", {"a.toml": TOML}, lambda folder: read_settings(folder / "a.toml")),
            Reader("model", model, _use_model, _sign_model),
            Reader("model", model, _use_model),
            Reader("one file", {"a.medfcn": archive_bytes(model, medfcn="0")}, _use_archive),
            Reader("forged file", model, _use_archive, _pack_model),
            Reader("slices", _content(root / "slices"), _use_slices, _sign_slices),
            Reader("slices", _content(root / "slices"), _use_slices),
            Reader(
                "checkpoint",
                _content(root / "checkpoint"),
                lambda folder: Checkpoints(folder, "key", every_seconds=0).latest(State.load, Silent()),
                _sign_checkpoint,
            ),
            Reader("scores", _content(root / "scores"), _use_scores),
            Reader(
                "record",
                {"m.json": (root / "m.json").read_bytes()},
                lambda folder: MaskRecord.beside(folder / "m.nii"),
            ),
            Reader("cohort", {"t.csv": CSV}, _use_table),
            Reader("groups", {"t.csv": CSV}, _use_groups),
            Reader("training cases", model | {"cases.csv": CSV}, lambda folder: TrainingImages(models_of(folder))),
            Reader("ids", {"ids.txt": b"P1_left\nP1_right\nP2_left\n"}, _use_ids),
            Reader("splits", {"splits_final.json": SPLITS}, _use_splits),
            Reader("labels", {"labels.txt": b"organ=1"}, _use_labels),
            Reader("identity", {"training.json": json.dumps(identity).encode()}, _use_identity),
        )


def _use_identity(folder: Path) -> None:
    (folder / "state").mkdir(exist_ok=True)
    (folder / "training.json").replace(folder / "state" / "training.json")
    read_identity(folder)


def lay_out(random_: random.Random, reader: Reader, folder: Path) -> str:
    """Write a reader's files with one of them damaged; returns its name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = dict(reader.files)
    chosen = random_.choice(list(files))
    if reader.name == "labels":
        files[chosen] = random_.choice(LABELS).encode()
    files[chosen] = damaged(random_, chosen, files[chosen])
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if reader.sign is not None and random_.random() < 0.8:
        reader.sign(folder)
    return chosen


def try_one(random_: random.Random, folder: Path, chosen: Sequence[Reader] = ()) -> tuple[str, bool]:
    """Damage a file and read it; the reader's name, and whether it was refused.

    Raises:
        AssertionError: Something other than a `MedfcnError` came of it, or it took too much.
    """
    reader = random_.choice(chosen or readers())
    name = lay_out(random_, reader, folder)
    with limits(f"{reader.name}, {name}"):
        try:
            reader.read(folder)
        except MedfcnError as error:
            said = str(error)
        else:
            return reader.name, False
    assert said.isprintable(), repr(said)[:500]
    assert len(said) < 2000, said[:500]
    return reader.name, True


def fuzz(seconds: float, seed: int, folder: Path, *, count: int = 0) -> dict[str, list[int]]:
    """Go on for some CPU seconds, or `count` times; for each reader, how many were read and how many refused."""
    random_ = random.Random(seed)
    readers()
    warm = random.Random(0)
    for _ in range(60):  # so that no import counts
        reader = warm.choice(readers())
        place = folder / "warm"
        place.mkdir(parents=True, exist_ok=True)
        for name, content in reader.files.items():
            (place / name).write_bytes(content)
        reader.read(place)
    end, tried = time.process_time() + seconds, 0
    found: dict[str, list[int]] = {}
    while time.process_time() < end and not (count and tried >= count):
        state = random_.getrandbits(64)
        try:
            name, refused = try_one(random.Random(state), folder / "files")
        except Exception as error:
            raise AssertionError(f"seed {state} gave {type(error).__name__}: {error}"[:1000]) from error
        found.setdefault(name, [0, 0])[refused] += 1
        tried += 1
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        print(fuzz(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2, Path(scratch)))
