"""Prepared slices are found again when nothing changed, and never when something did."""

from pathlib import Path

import numpy as np
import pytest

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
