"""The size of each label, and the intensity inside it, against numpy on the whole mask."""

import numpy as np
import pytest

from medfcn.labels import LabelMap
from medfcn.labels.measures import LabelMeter, measure_labels


@pytest.mark.parametrize("offset", [0.0, 1e6], ids=["small numbers", "a large offset"])
@pytest.mark.parametrize("text", ["a=1,b=2,c=7", "whole=1+2,core=2"])
def test_measures_are_those_of_numpy_over_all_voxels(text: str, offset: float) -> None:
    labels, random = LabelMap.parse(text), np.random.default_rng(3)
    indices = random.integers(0, len(labels.membership), (9, 8, 7)).astype(np.uint8)
    image = (random.normal(size=indices.shape) + offset).astype(np.float64)
    counts = random.integers(-1000, 3000, indices.shape).astype(np.int16)
    found = measure_labels(indices, labels, [image, counts])
    for index, name in enumerate(labels.names, start=1):
        inside = labels.mask_of(indices, index)
        assert found[name].voxels == np.count_nonzero(inside)
        for channel, intensity in zip((image, counts), found[name].intensity, strict=True):
            assert intensity.mean == pytest.approx(channel[inside].mean(), rel=1e-12)
            assert intensity.spread == pytest.approx(channel[inside].std(), rel=1e-6)


def test_measures_do_not_depend_on_the_slabs_nor_on_the_order_in_memory() -> None:
    labels, random = LabelMap.parse("a=1,b=2"), np.random.default_rng(4)
    indices = random.integers(0, 3, (6, 5, 12)).astype(np.uint8)
    image = random.normal(size=indices.shape).astype(np.float32)
    whole = measure_labels(indices, labels, [image])
    for step in (1, 5, 12):
        meter = LabelMeter(labels, channels=1)
        for k in range(0, 12, step):
            meter.add(indices[..., k : k + step], [image[..., k : k + step]])
        assert meter.measures() == whole
    assert measure_labels(np.asfortranarray(indices), labels, [np.asfortranarray(image)]) == whole


def test_a_mask_without_an_image_has_voxels_only() -> None:
    found = measure_labels(np.ones((2, 2, 2), dtype=np.uint8), LabelMap.parse("a=1"))
    assert found == {"a": (8, ())}
