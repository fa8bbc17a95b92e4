"""Model files that were damaged or made to harm: each is refused in one line, and nothing in them is run."""

import dataclasses
import hashlib
import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medfcn.errors import MedfcnError, ModelError
from medfcn.inference.foreign import fingerprint_of
from medfcn.inference.model import Model
from medfcn.slices.appearance import appearance_of
from medfcn.volumes import Volume
from tests.inference.models import blobs, saved, tiny_model

Json = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound run folder; never written to."""
    model = tiny_model(labels="left=1,right=2")
    looks = [appearance_of([Volume(blobs(seed=seed), np.diag([-1.0, -1.0, 2.0, 1.0]))]) for seed in range(3)]
    model.card = dataclasses.replace(model.card, fingerprint=fingerprint_of(looks))
    return saved(model, tmp_path_factory.mktemp("run"))


def _copy(
    run: Path, folder: Path, *, card: bytes | None = None, weights: bytes | None = None, sign: bool = True
) -> Path:
    """A copy with other files; `sign` puts the hash of the weights into the card, as one who means harm would."""
    folder.mkdir(exist_ok=True)
    content = (run / "model.safetensors").read_bytes() if weights is None else weights
    text = (run / "model.json").read_bytes() if card is None else card
    if sign and weights is not None:
        text = json.dumps(json.loads(text) | {"weights_sha256": hashlib.sha256(content).hexdigest()}).encode()
    (folder / "model.safetensors").write_bytes(content)
    (folder / "model.json").write_bytes(text)
    return folder


def _refused(folder: Path, match: str | None = None) -> None:
    with pytest.raises(MedfcnError, match=match) as caught:
        Model.load(folder, device="cpu")
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < 1000


def test_the_sound_folder_is_accepted(run: Path, tmp_path: Path) -> None:
    Model.load(_copy(run, tmp_path / "a"), device="cpu")
    Model.load(_copy(run, tmp_path / "b", weights=(run / "model.safetensors").read_bytes()), device="cpu")


def _at(*path: Any) -> Callable[[Json, Any], None]:
    def put(card: Json, value: Any) -> None:
        for key in path[:-1]:
            card = card[key]
        card[path[-1]] = value

    return put


HUGE = 10**40
CARDS: list[tuple[tuple[Any, ...], list[Any]]] = [
    (("format",), [0, 1, 3, "2", None, True, [], HUGE, "x" * 10_000, "\x1b[31m\n"]),
    (("labels",), [None, [], {}, {"entries": []}, {"entries": [{"name": "a", "values": [0], "written": 0}]}]),
    (("labels", "entries", 0, "values"), [[], [-1], [HUGE], ["1"], [1.5], None, [2]]),
    (("labels", "entries", 0, "written"), [2, -1, HUGE, "1", None, True]),
    (("labels", "entries", 0, "name"), ["", None, 5, "right"]),
    (("labels", "unnamed"), ["", None, 5]),
    (("channels",), [[], ["a", "b"], "a", None, 5, [5], {"a": 1}]),
    (("one_part",), [[3], [0], ["1"], None, [1.0], [True], 1]),
    (("plan",), [None, [], {}, "plan"]),
    (("plan", "views"), [["oblique"], None, 5, "axial", [], ["axial", "axial"], [["axial"]], ["coronal"], {}]),
    (("view_weights",), [None, 1, "1", ["1"], [0], [-1], [2], [True], [None], [0.5, 0.5], [float("nan")], [HUGE]]),
    (
        ("plan", "spacing_mm"),
        [[1, 1], [0, 1, None], [-1, 1, None], [1e-30, 1, None], [HUGE, 1, None], None, ["1", 1, 1]],
    ),
    (("plan", "spacing_mm"), [[None, None, None], [float("nan"), 1, None], [float("inf"), 1, None], [True, 1, None]]),
    (("plan", "window"), [[2**20, 2**20], [0, 8], [8], [8, 8, 8], [-8, 8], [8.5, 8], [HUGE, 8], None, "88"]),
    (("plan", "context"), [0, 2, -1, 1.0, HUGE, "1", None, True]),
    (("plan", "context"), [3, 99999]),
    (("plan", "widths"), [[], [0, 6], [-4, 6], [4.0, 6], [HUGE, 6], [4096, 4096], [4] * 99, "46", None, [4], [6, 4]]),
    (
        ("plan", "intensities"),
        [[], None, [5], [{}], [{"kind": "zscore"}, {"kind": "zscore"}], [{"kind": "zscore", "x": 1}]],
    ),
    (("plan", "intensities", 0, "kind"), ["exec", None, 5]),
    (("plan", "intensities", 0, "std"), [0, -1, float("nan"), float("inf"), HUGE, "1", None]),
    (("plan", "intensities", 0, "lower"), [float("nan"), 5, None, -HUGE]),
    (("plan", "batch_size"), [0, -1, HUGE, 1.5, None]),
    (("plan", "mirror_axes"), [[3], [-1], [1, 0], ["0"], None, [0, 0], [[0]], [HUGE]]),
    (("plan", "reasons"), [None, [], 5]),
    (("settings",), [None, [], 5, {"os": {"system": "true"}}, {"network": None}, {"bad\nname": {}}]),
    (("settings", "network", "score_channels"), [0, 6, 4096, HUGE, "5", None, 5.5, True]),
    (("settings", "network", "upsampling"), ["bilinear", "eval", 3]),
    (("settings", "network", "widths"), [[], [0], [HUGE], "46"]),
    (("settings", "prediction", "threshold"), [0, 1, -1, float("nan"), "0.5", None, HUGE]),
    (("settings", "prediction", "batch_size"), [0, -1, 1.5, None]),
    (("settings", "prediction", "tile_overlap"), [1, -0.5, 1.5]),
    (("settings", "prediction", "import os\n"), [1]),
    (("settings", "prediction", "threshold"), ["automatic", True]),
    (("settings", "prediction", "review_share"), [1, -0.1, float("nan"), "0.1", None]),
    (("settings", "prediction", "review_floor"), [1, -0.1, float("nan"), "0.1", None]),
    (("components",), ["", "smallest", None, 1, ["largest"]]),
    (
        ("shapes",),
        [None, {}, [{}] * 3, [{"far": 2}], [{"far": float("nan")}], [{"dips": [0.1]}], [{"more": 0.1}], [5]],
    ),
    (("threshold",), [0, 1, -0.5, 1.5, float("nan"), "0.5", True, [0.5], HUGE]),
    (("unseen",), [0, "unseen", [], {}, {"labels": []}, {"labels": [], "thresholds": [], "threshold_dices": []}]),
    (("fingerprint",), [0, "looks", [], {}, {"cases": 1}]),
    (("fingerprint", "cases"), [0, -1, 1.5, "3", None, True, HUGE]),
    (("fingerprint", "orientations"), [None, 5, ["RAX"], ["RAS\x1b[31m"], ["RA"], [5]]),
    (("fingerprint", "grid"), [None, [], {"spacing_R": 1}, {"import os\n": {}}]),
    (("fingerprint", "grid", "spacing_R"), [None, {}, {"least": 0, "lowest": 0, "highest": 0, "most": 0, "x": 1}]),
    (("fingerprint", "grid", "spacing_R", "least"), [9, "1", None, True, -HUGE, float("nan"), float("-inf")]),
    (("fingerprint", "grid", "spacing_R", "most"), [0, "1", None, True, HUGE, float("nan"), float("inf")]),
    (("fingerprint", "grid", "x" * 10_000), [{"least": 0, "lowest": 0, "highest": 0, "most": 0}]),
    (("fingerprint", "channels", 0, "near_R", "most"), [101, 1e37, HUGE]),
    (("fingerprint", "channels"), [None, [], [{}, {}], {}, [[]]]),
    (("fingerprint", "channels", 0, "near_\x1b[31m"), [{"least": 0, "lowest": 0, "highest": 0, "most": 0}]),
    (("weights_sha256",), ["", None, 5, "0" * 64]),
    (("versions",), [None, [], "1"]),
    (("versions", "torch"), [None, 5, []]),
    (("training",), [None, [], "1"]),
    (("training", "cases"), [None, "7", -1, 1.5, [], HUGE]),
    (("training", "steps"), ["7", -1, {}]),
    (("training", "seed"), ["x", [0]]),
    (("training", "fold"), [2, None, ["1 of 2"]]),
    (("training", "schedule"), [5, []]),
    (("training", "budget_seconds"), [-1, "10m"]),
    (("training", "partly_labelled"), ["half", {"training": 5}]),
    (("validation",), [None, [], "1"]),
    (("validation", "labels"), [None, 5, {"organ": None}, {"organ": {"scored": "7"}}, {"organ": {"shares": 5}}]),
    (("validation", "labels"), [{"organ": {"shares": {"dice": 0.5}}}, {"organ": {"shares": {"dice": {"mean": []}}}}]),
    (("validation", "labels"), [{"organ": {"distances": {"hd95_mm": [1]}}}, {"organ": {"partly_labelled": 5}}]),
    (("validation", "definitions"), [5, {"metrics": 5}, {"metrics": {"dice": None}}]),
    (("validation", "interval"), [5, []]),
    (("intended_use",), [None, [], 5]),
    (("unknown\nkey",), [1]),
]
EACH = [(path, value) for path, values in CARDS for value in values]


@pytest.mark.parametrize(
    ("path", "value"), EACH, ids=[f"{'.'.join(map(str, p))}-{i}" for i, (p, _) in enumerate(EACH)]
)
def test_a_card_with_a_value_that_cannot_be_is_refused(run: Path, tmp_path: Path, path: Any, value: Any) -> None:
    card = json.loads((run / "model.json").read_text())
    _at(*path)(card, value)
    _refused(_copy(run, tmp_path / "run", card=json.dumps(card).encode()), match="model")


def _keys(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict):
        return []
    return [found for key, item in value.items() for found in [(*path, key), *_keys(item, (*path, key))]]


def test_a_card_without_a_key_is_refused_or_means_the_same(run: Path, tmp_path: Path) -> None:
    sound = json.loads((run / "model.json").read_text())
    expected = Model.load(run, device="cpu").card
    for number, path in enumerate(_keys(sound)):
        card = json.loads(json.dumps(sound))
        holder = card
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        folder = _copy(run, tmp_path / str(number), card=json.dumps(card).encode())
        try:
            Model.load(folder, device="cpu")
        except ModelError:
            _refused(folder)
            continue
        # Settings left out are defaults; free tables of figures may hold less; LabelMap has a default; older cards
        # do not say what unseen cases did, nor how the training cases looked.
        free = ("settings", "training", "validation", "versions", "plan", "labels", "threshold", "unseen")
        assert path[0] in (*free, "fingerprint"), path
    assert expected.plan.widths == (4, 6)


BROKEN_TEXT = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe\x00",
    b"\x80\x04\x95",
    b"[" * 200_000,
    b'{"format": ' + b"9" * 10_000 + b"}",
    b'{"format": 1e999}',
    b'{"format": 1, "format": 2}',
    b'"' + b"a" * 100_000 + b'"',
]


@pytest.mark.parametrize("content", BROKEN_TEXT, ids=range(len(BROKEN_TEXT)))
def test_a_card_that_is_no_card_is_refused(run: Path, tmp_path: Path, content: bytes) -> None:
    _refused(_copy(run, tmp_path / "run", card=content), match="model.json")


def test_a_card_of_absurd_size_is_refused_before_it_is_read(run: Path, tmp_path: Path) -> None:
    folder = _copy(run, tmp_path / "run")
    with (folder / "model.json").open("r+b") as file:
        file.truncate(2**40)  # a hole: takes no space
    _refused(folder, match="expected at most")


def _header(content: bytes) -> tuple[Json, bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _with_header(header: Any, rest: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def _first(change: Callable[[Json], None]) -> Callable[[bytes], bytes]:
    """A change to what the header says of one tensor."""

    def changed(content: bytes) -> bytes:
        header, rest = _header(content)
        change(header["head.weight"])
        return _with_header(header, rest)

    return changed


def _filled(value: float) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        header, rest = _header(content)
        start, stop = header["head.weight"]["data_offsets"]
        values = np.frombuffer(rest[start:stop], dtype="<f4").copy()
        values[-1] = value
        return _with_header(header, rest[:start] + values.tobytes() + rest[stop:])

    return changed


def _renamed(name: str) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        header, rest = _header(content)
        return _with_header({name if key == "head.weight" else key: item for key, item in header.items()}, rest)

    return changed


class _Payload:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


WEIGHTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "seven bytes": lambda content: content[:7],
    "only a length": lambda content: content[:8],
    "length of zero": lambda content: bytes(8) + content[8:],
    "length beyond the file": lambda content: struct.pack("<Q", len(content) - 7) + content[8:],
    "length of 2^63": lambda content: struct.pack("<Q", 2**63) + content[8:],
    "length one short": lambda content: struct.pack("<Q", struct.unpack("<Q", content[:8])[0] - 1) + content[8:],
    "length one more": lambda content: struct.pack("<Q", struct.unpack("<Q", content[:8])[0] + 1) + content[8:],
    "one byte less": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "header is a list": lambda content: _with_header([], _header(content)[1]),
    "header is a number": lambda content: _with_header(5, _header(content)[1]),
    "header is no text": lambda content: _with_header(b"\xff" * 64, _header(content)[1]),
    "header without end": lambda content: _with_header(b"[" * 100_000, b""),
    "no tensors": lambda _: _with_header({}, b""),
    "another dtype": _first(lambda entry: entry.update(dtype="I32")),
    "unknown dtype": _first(lambda entry: entry.update(dtype="exec\n")),
    "dtype missing": _first(lambda entry: entry.pop("dtype")),
    "shape missing": _first(lambda entry: entry.pop("shape")),
    "shape transposed": _first(lambda entry: entry.update(shape=entry["shape"][::-1])),
    "shape infinite": _first(lambda entry: entry.update(shape=[float("inf"), 1, 1, 1])),
    "shape is huge": _first(lambda entry: entry.update(shape=[10**30, 10**30, 1, 1])),
    "shape is negative": _first(lambda entry: entry.update(shape=[-1, -5, 1, 1])),
    "shape is text": _first(lambda entry: entry.update(shape="abc")),
    "offsets overlap": _first(lambda entry: entry.update(data_offsets=[0, 4])),
    "offsets missing": _first(lambda entry: entry.pop("data_offsets")),
    "offsets beyond": _first(lambda entry: entry.update(data_offsets=[0, 2**62])),
    "offsets negative": _first(lambda entry: entry.update(data_offsets=[-4, 0])),
    "renamed": _renamed("other.weight"),
    "renamed to escape": _renamed("\x1b[31m\nhead"),
    "NaN": _filled(float("nan")),
    "infinity": _filled(float("-inf")),
}


@pytest.mark.parametrize("name", sorted(WEIGHTS))
@pytest.mark.parametrize("sign", [True, False], ids=["signed", "unsigned"])
def test_weights_that_do_not_fit_are_refused(run: Path, tmp_path: Path, name: str, sign: bool) -> None:
    content = WEIGHTS[name]((run / "model.safetensors").read_bytes())
    _refused(_copy(run, tmp_path / "run", weights=content, sign=sign), match="model.safetensors")


def test_weights_of_another_type_are_refused(run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load, save

    tensors = load((run / "model.safetensors").read_bytes())
    for kind in (torch.float64, torch.float16):
        content = save({key: item.to(kind) if item.is_floating_point() else item for key, item in tensors.items()})
        _refused(_copy(run, tmp_path / str(kind), weights=content), match="do not fit")


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "pickle as card"])
def test_nothing_in_a_file_is_run(run: Path, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "was_run"
    payload = pickle.dumps(_Payload(marker))
    pickle.loads(payload)  # it would work
    assert marker.exists()
    marker.unlink()
    if kind == "torch.save":
        buffer = io.BytesIO()
        torch.save({"head.weight": _Payload(marker)}, buffer)
        payload = buffer.getvalue()
    if kind == "pickle as card":
        _refused(_copy(run, tmp_path / "run", card=payload))
    else:
        _refused(_copy(run, tmp_path / "run", weights=payload), match="not a safetensors file")
        _refused(_copy(run, tmp_path / "run", weights=payload, sign=False), match="not a safetensors file")
    assert not marker.exists()


@given(st.integers(0, 10**9), st.integers(1, 255), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_refused_or_does_no_harm(
    run: Path, tmp_path: Path, place: int, change: int, card: bool
) -> None:
    """Any byte: of the card it may happen to mean something else that is sound; of the weights it never passes."""
    content = bytearray((run / ("model.json" if card else "model.safetensors")).read_bytes())
    content[place % len(content)] ^= change
    if not card:
        return _refused(_copy(run, tmp_path / "run", weights=bytes(content), sign=False), match="model.safetensors")
    folder = _copy(run, tmp_path / "run", card=bytes(content))
    try:
        Model.load(folder, device="cpu").predict((np.arange(60.0).reshape(5, 4, 3), np.eye(4)))
    except MedfcnError:
        _refused(folder)
    return None


@given(st.integers(8, 10**9), st.integers(1, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_of_signed_weights_does_no_harm(run: Path, tmp_path: Path, place: int, change: int) -> None:
    content = bytearray((run / "model.safetensors").read_bytes())
    length = struct.unpack("<Q", content[:8])[0]
    content[8 + place % length] ^= change  # in the header, where harm would lie
    folder = _copy(run, tmp_path / "run", weights=bytes(content))
    try:
        Model.load(folder, device="cpu")
    except MedfcnError:
        _refused(folder)


def test_a_card_from_before_the_slope_is_of_a_network_with_relu(run: Path, tmp_path: Path) -> None:
    card = json.loads((run / "model.json").read_text())
    del card["settings"]["network"]["negative_slope"]
    model = Model.load(_copy(run, tmp_path / "run", card=json.dumps(card).encode()), device="cpu")
    assert model.card.settings.network.negative_slope == 0
    assert not any(isinstance(part, torch.nn.LeakyReLU) for part in model.network.modules())
