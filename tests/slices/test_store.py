"""Prepared slices are found again when nothing changed, and never when something did."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medfcn.errors import DatasetError, MemoryShortError
from medfcn.files import sha256_of
from medfcn.labels import IGNORED
from medfcn.slices.store import open_case, store_key, write_case

SETTINGS = {"plan": {"view": "axial", "window": (8, 8), "spacing_mm": [1.0, None]}, "labels": ["organ"]}


def test_equal_content_and_settings_have_one_key() -> None:
    again = {"labels": ["organ"], "plan": {"spacing_mm": [1.0, None], "window": [8, 8], "view": "axial"}}
    assert store_key(["a", "b"], SETTINGS) == store_key(iter(["a", "b"]), again)


@pytest.mark.parametrize(
    ("hashes", "changed"),
    [
        (["a", "c"], SETTINGS),
        (["b", "a"], SETTINGS),
        (["a"], SETTINGS),
        (["ab"], SETTINGS),
        (["a", "b"], SETTINGS | {"labels": ["organs"]}),
        (["a", "b"], SETTINGS | {"plan": {"view": "axial", "window": (8, 8), "spacing_mm": [1.0, 1.0]}}),
        (["a", "b"], {}),
    ],
)
def test_anything_else_has_another_key(hashes: list[str], changed: dict[str, object]) -> None:
    assert store_key(hashes, changed) != store_key(["a", "b"], SETTINGS)


def test_a_case_is_found_as_it_was_written(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(4, 2, 5, 6)).astype(np.float32)
    labels = np.zeros((4, 5, 6), dtype=np.uint8)
    labels[1, 2, 2] = labels[3, 0, 0] = 1
    labels[3, 4, 4] = 3
    labels[2] = IGNORED
    write_case(tmp_path, "key", images, labels)
    found = open_case(tmp_path, "key", "case", "coronal")
    assert found is not None
    assert (found.id, found.view) == ("case", "coronal")
    assert np.array_equal(found.images, images)
    assert np.array_equal(found.labels, labels)
    assert [slices.tolist() for slices in found.label_slices] == [[1, 3], [3]]
    assert isinstance(found.images, np.memmap)
    assert open_case(tmp_path, "other", "case", "coronal") is None
    (tmp_path / "key.labels.npy").unlink()
    assert open_case(tmp_path, "key", "case", "coronal") is None


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _reshape(path: Path) -> None:
    with path.open("rb") as file:
        array = np.load(file)
    np.save(path, array[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _retype(path: Path) -> None:
    with path.open("rb") as file:
        array = np.load(file)
    np.save(path, array.astype(np.float64))


DAMAGES = [_cut, _flip, _reshape, _empty, _retype]


@pytest.mark.parametrize("name", ["key.images.npy", "key.labels.npy", "key.json"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_slices_that_are_not_those_that_were_written_are_refused(
    damage: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    if name == "key.json" and damage in (_reshape, _retype):
        damage = _empty
    write_case(tmp_path, "key", np.ones((4, 1, 5, 6), dtype=np.float32), np.ones((4, 5, 6), dtype=np.uint8))
    assert open_case(tmp_path, "key", "case", "axial") is not None
    damage(tmp_path / name)
    with pytest.raises(DatasetError, match="case: its prepared slices are damaged: ") as caught:
        open_case(tmp_path, "key", "case", "axial")
    assert caught.value.code == "SLICES_DAMAGED"


@pytest.mark.parametrize("damage", [_reshape, _retype], ids=lambda damage: damage.__name__)
def test_other_arrays_with_a_hash_of_their_own_are_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    write_case(tmp_path, "key", np.ones((4, 1, 5, 6), dtype=np.float32), np.ones((4, 5, 6), dtype=np.uint8))
    damage(tmp_path / "key.images.npy")
    mark = json.loads((tmp_path / "key.json").read_text())
    mark["sha256"]["images"] = sha256_of(tmp_path / "key.images.npy")
    (tmp_path / "key.json").write_text(json.dumps(mark))
    with pytest.raises(DatasetError, match="their shapes are"):
        open_case(tmp_path, "key", "case", "axial")


def test_slices_of_another_case_under_this_name_are_refused(tmp_path: Path) -> None:
    write_case(tmp_path, "key", np.ones((4, 1, 5, 6), dtype=np.float32), np.ones((4, 5, 6), dtype=np.uint8))
    for name in ("json", "images.npy", "labels.npy"):
        (tmp_path / f"key.{name}").rename(tmp_path / f"other.{name}")
    with pytest.raises(DatasetError, match="they are those of another case or view"):
        open_case(tmp_path, "other", "case", "axial")
    mark = json.loads((tmp_path / "other.json").read_text())
    del mark["key"]  # as earlier medfcn wrote it
    (tmp_path / "other.json").write_text(json.dumps(mark))
    assert open_case(tmp_path, "other", "case", "axial") is not None


def test_slices_for_which_there_is_no_memory_are_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_case(tmp_path, "key", np.zeros((1, 1, 2, 2), dtype=np.float32), np.zeros((1, 2, 2), dtype=np.uint8))

    def full(*arguments: object, **choices: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(np, "load", full)
    with pytest.raises(MemoryShortError, match=r"^case: out of memory: .* MB are free; "):
        open_case(tmp_path, "key", "case", "axial")
