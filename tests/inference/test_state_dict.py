"""Weights files made elsewhere: tensors come back as they were saved, anything else is refused and never run."""

import collections
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from medfcn.errors import MedfcnError, MissingFileError, ModelError
from medfcn.inference.state_dict import read_state_dict

STATE = {
    "features.0.weight": torch.arange(54.0).reshape(2, 3, 3, 3),
    "features.0.bias": torch.tensor([1.0, -2.0]),
    "features.1.num_batches_tracked": torch.tensor(7),
}
KINDS = ("safetensors", "zip", "legacy")


def saved(folder: Path, kind: str, content: Any = None, *, name: str = "weights.pth") -> Path:
    path = folder / name
    content = STATE if content is None else content
    if kind == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def refused(path: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        read_state_dict(path)
    text = str(caught.value)
    assert text.startswith(f"{path.name}: ")
    assert text.isprintable()
    assert len(text) < 400
    assert str(path.parent) not in text


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights"])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_come_back_whatever_the_file_is_called(tmp_path: Path, kind: str, name: str) -> None:
    read = read_state_dict(saved(tmp_path, kind, name=name))
    assert read.keys() == STATE.keys()
    for key, tensor in STATE.items():
        assert torch.equal(read[key], tensor)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_an_ordered_dictionary_of_parameters_is_one_too(tmp_path: Path, kind: str) -> None:
    module = torch.nn.Conv2d(1, 2, 3)
    read = read_state_dict(saved(tmp_path, kind, collections.OrderedDict(module.named_parameters())))
    assert torch.equal(read["weight"], module.weight)
    assert read_state_dict(saved(tmp_path, kind, module.state_dict())).keys() == {"weight", "bias"}


@pytest.mark.parametrize("length", [640, 640 + 2**15])
def test_a_safetensors_header_that_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    """A length of 640 begins with the bytes 80 02, as a pickle does."""
    empty = len(b'{"__metadata__":{"note":""}}')
    header = b'{"__metadata__":{"note":"' + b"x" * (length - empty) + b'"}}'
    path = tmp_path / "weights"
    path.write_bytes(struct.pack("<Q", length) + header)
    assert path.read_bytes()[:1] == b"\x80"
    assert read_state_dict(path) == {}


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("forced", [False, True])
def test_a_pickle_with_code_in_it_is_told_and_not_run(
    tmp_path: Path, kind: str, name: str, forced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forced:  # not even where the environment asks torch for it
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "was_run"
    content = STATE | {"features.2.weight": Payload(marker)}
    pickle.loads(pickle.dumps(content))  # it would work
    assert marker.exists()
    marker.unlink()
    if kind == "pickle":
        path = tmp_path / name
        path.write_bytes(pickle.dumps(content))
        refused(path, "save its state dict as safetensors")
    else:
        refused(saved(tmp_path, kind, content, name=name), "contains code or objects besides tensors.*as safetensors")
    assert not marker.exists()


def test_a_whole_module_is_told_to_be_saved_as_its_state_dict(tmp_path: Path) -> None:
    refused(saved(tmp_path, "zip", torch.nn.Conv2d(1, 1, 1)), "contains code or objects besides tensors")


def test_a_scripted_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:  # as torch.jit.save lays it out
        archive.writestr("weights/constants.pkl", pickle.dumps(()))
        archive.writestr("weights/data.pkl", pickle.dumps({}))
        archive.writestr("weights/version", "3")
    with warnings.catch_warnings(record=True) as seen:  # torch warns of these; one line is enough
        warnings.simplefilter("always")
        refused(path, "save its state dict as safetensors")
    assert not seen


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([torch.zeros(1)], "contains a list, not a state dict"),
        (torch.zeros(2), "contains a Tensor, not a state dict"),
        ({"state_dict": STATE, "epoch": 3}, "contains state_dict, which is no tensor; save the state dict alone"),
        ({"a\x1b[31m\n": 5}, r"contains a\\x1b\[31m\\n, which is no tensor"),
        ({5: torch.zeros(1)}, "contains 5, which is no tensor"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "a is no dense tensor"),
        ({"a": torch.zeros(2, device="meta")}, "a is no dense tensor"),
    ],
    ids=range(7),
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, match: str) -> None:
    refused(saved(tmp_path, "zip", content), match)


BROKEN = {
    "empty": b"",
    "text": b"<html>404 Not Found</html>",
    "zeros": bytes(4096),
    "a nested list": b"[" * 4096,
    "pickle cut short": pickle.dumps({"a": 1})[:-3],
    "a zip that spans disks": b"PK\x06\x07" + b"\x01" * 16 + b"PK\x05\x06" + bytes(18),
    "an end of a zip alone": b"PK\x05\x06" + bytes(18),
    "safetensors of nothing": struct.pack("<Q", 2) + b"{x",
    "safetensors that declares what is not there": struct.pack("<Q", 63)
    + b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'[:63].ljust(63),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_broken_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(BROKEN[name])
    refused(path, "safetensors|get the file again")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = saved(tmp_path, kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "safetensors|get the file again")


def test_a_file_of_absurd_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, "zip")
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole: takes no space
    refused(path, "larger than 2 GB")


def test_an_archive_that_would_unpack_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "zip", {"a": torch.zeros(1_000_000)})
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert packed.stat().st_size < 100_000
    refused(packed, "a compressed archive")


def test_a_pickle_that_declares_more_than_memory_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "legacy", {"a": torch.zeros(3)})
    three, huge = b"K\x03Nt", b"\x8a\x07" + (2**50).to_bytes(7, "little") + b"Nt"
    content = path.read_bytes()
    assert content.count(three) == 1
    path.write_bytes(content.replace(three, huge))
    refused(path, "save its state dict as safetensors")


def test_a_file_that_is_not_there_is_told_with_the_option(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(MissingFileError, match="check the path given to encoder_weights="):
            read_state_dict(path)


@given(st.sampled_from(KINDS), st.integers(0, 10**9), st.integers(1, 255))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_refused_or_does_no_harm(tmp_path: Path, kind: str, place: int, change: int) -> None:
    path = saved(tmp_path, kind)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(bytes(content))
    try:
        read = read_state_dict(path)
    except MedfcnError:
        refused(path, "; ")
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in read.values())
