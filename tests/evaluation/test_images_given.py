"""Images in the place of masks are refused in one line, and never scored."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from medfcn.errors import DatasetError
from medfcn.evaluation import evaluate
from medfcn.evaluation.measure import measure
from medfcn.labels.image_like import is_image
from medfcn.volumes import VolumeLike

EYE = np.eye(4)
MASK = np.zeros((8, 9, 10), dtype=np.uint8)
MASK[2:5, 2:6, 3:8] = 1


def _image(seed: int, kind: str) -> np.ndarray:
    voxels = np.random.default_rng(seed).normal(120.0, 40.0, MASK.shape).clip(0, 240)
    if kind == "probability":
        return voxels / 240
    return voxels.astype(np.float32 if kind == "floats" else np.uint8) + (15 if kind == "to 255" else 0)


def _images(kind: str) -> dict[str, VolumeLike]:
    return {f"case_{number}": (_image(number, kind), EYE) for number in range(3)}


@pytest.mark.parametrize("kind", ["floats", "whole", "to 255", "probability"])
@pytest.mark.parametrize("labels", [None, "organ=1"])
def test_images_are_not_scored(kind: str, labels: str | None) -> None:
    masks: Mapping[str, VolumeLike] = dict.fromkeys(_images(kind), (MASK, EYE))
    with pytest.raises(DatasetError, match=r"predictions: none is a mask .*those that a reader drew") as caught:
        evaluate(_images(kind), masks, labels=labels)
    assert caught.value.field == "predictions"
    with pytest.raises(DatasetError, match="references: none is a mask"):
        evaluate(masks, _images(kind), labels=labels)


def test_one_image_among_masks_costs_its_case_alone() -> None:
    masks: dict[str, VolumeLike] = {f"case_{number}": (MASK, EYE) for number in range(3)}
    table = evaluate({**masks, "case_1": _images("floats")["case_1"]}, masks, labels="organ=1")
    assert {row.case: row.dice for row in table.rows} == {"case_0": 1.0, "case_1": 0.0, "case_2": 1.0}
    assert [case for case, _ in table.missed] == ["case_1"]


def test_images_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"masks: none is a mask .*MASKS are named first, then IMAGES"):
        measure(_images("floats"), None, tmp_path / "sizes")


def test_an_atlas_of_many_small_structures_is_a_mask() -> None:
    atlas = np.repeat(np.repeat(np.repeat(np.arange(216).reshape(6, 6, 6), 3, 0), 3, 1), 3, 2).astype(np.uint16)
    assert not is_image(atlas, 216)
    assert is_image(_image(0, "whole"), 200)
    table = evaluate({"case": (atlas, EYE)}, {"case": (atlas, EYE)})
    assert len(table.rows) == 215
    assert {row.dice for row in table.rows} == {1.0}
