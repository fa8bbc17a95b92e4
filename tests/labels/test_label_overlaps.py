"""Where labels overlap, a mask holds parts, from which every label can be told again."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from medfcn.datasets import check_cases, find_dataset
from medfcn.datasets.dataset_json import Description
from medfcn.errors import DatasetError, LabelError, SettingsError
from medfcn.labels import IGNORED, LabelMap
from tests.overlapping import CROSSED, NESTED, draw_nested, overlapping_maps, write_nested

masks = arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 14))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (NESTED, [("whole", (1,), 1), ("whole + core", (2,), 2), ("whole + core + enhancing", (3,), 3)]),
        (CROSSED, [("right", (2,), 2), ("left", (4,), 4), ("left + right", (7,), 7), ("right + rest", (9,), 9)]),
        ("whole=1+2+4,core=1+4", [("whole + core", (1, 4), 1), ("whole", (2,), 2)]),
        ("a=1+2,b=1", [("a + b", (1,), 1), ("a", (2,), 2)]),
        ("a=1+2+300,b=300,ignore=9", [("a", (1, 2), 1), ("a + b", (300,), 300)]),
    ],
)
def test_parts_are_the_combinations_that_occur(text: str, parts: list[tuple[str, tuple[int, ...], int]]) -> None:
    labels = LabelMap.parse(text)
    assert labels.overlapping
    assert [(part.name, part.values, part.written) for part in labels.overlaps] == parts
    assert [entry.written for entry in labels.entries] == list(range(1, len(labels.entries) + 1))


@given(overlapping_maps(), masks)
def test_every_label_can_be_told_from_the_mask_that_is_written(labels: LabelMap, mask: NDArray[np.uint8]) -> None:
    encoded = labels.encode(mask, name="case")
    assert labels.members is not None
    assert not labels.members[0].any()
    known = encoded != IGNORED
    np.testing.assert_array_equal(~known, np.isin(mask, labels.ignored))
    drawn = np.where(known, encoded, 0)
    written = labels.decode(drawn)
    for place, entry in enumerate(labels.entries):
        truth = np.isin(mask, entry.values)
        np.testing.assert_array_equal(labels.members[drawn, place], truth)
        np.testing.assert_array_equal(np.isin(written, entry.values), truth)
    np.testing.assert_array_equal(labels.encode(written, name="case"), drawn)
    assert (written <= mask)[known].all()


@given(overlapping_maps())
def test_overlapping_labels_survive_json(labels: LabelMap) -> None:
    assert LabelMap.from_json(json.loads(json.dumps(labels.to_json()))) == labels


def test_labels_that_do_not_overlap_are_their_own_parts() -> None:
    labels = LabelMap.parse("hippocampus=1+2,other=3")
    assert labels.members is None
    assert not labels.overlapping
    assert [(part.name, part.values, part.written) for part in labels.overlaps] == [
        (entry.name, entry.values, entry.written) for entry in labels.entries
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=1+2,b=2+1", "a and b have the same values; name one"),
        ("a=1+1,b=1+2", "a has a value twice"),
        ("a=1+2,b=2,ignore=2", "the value 2 belongs to b and to ignore"),
        ("a=1+2,b=2,a=3", "given twice"),
    ],
)
def test_labels_that_overlap_and_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        LabelMap.parse(text)


def test_more_parts_than_a_mask_can_tell_apart_are_refused() -> None:
    """Eight labels, one for each bit of a value, hold in 255 combinations."""
    bits = [[value for value in range(1, 256) if value >> bit & 1] for bit in range(8)]
    regions = {f"bit_{bit}": values for bit, values in enumerate(bits)}
    with pytest.raises(SettingsError, match="255 combinations, of which a mask can store 254"):
        LabelMap.from_regions(regions)
    fewer = {name: [value for value in values if value < 255] for name, values in regions.items()}
    assert len(LabelMap.from_regions(fewer).overlaps) == 254


def test_json_of_overlapping_labels_written_otherwise_is_refused() -> None:
    value = LabelMap.parse(NESTED).to_json()
    value["entries"][1]["written"] = 3
    with pytest.raises(SettingsError, match="core cannot be written as 3"):
        LabelMap.from_json(value)


REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def test_regions_of_nnunet_are_labels_that_overlap(tmp_path: Path) -> None:
    write_nested(tmp_path, range(2))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": REGIONS, "regions_class_order": [1, 2, 3]}))
    dataset = find_dataset(tmp_path)
    labels = dataset.labels
    assert labels is not None
    assert labels.entries == LabelMap.parse(NESTED).entries
    assert check_cases(dataset).label_names == ("whole", "core", "enhancing")
    with pytest.raises(LabelError, match="unexpected label values 4"):
        labels.encode(draw_nested(0)[1] + 1, name="case")


def test_regions_of_every_kind() -> None:
    named = Description(labels={**REGIONS, "background": [0], "ignore": 4}).named_labels()
    assert named.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert named.ignored == (4,)
    for labels in ({"background": 0, "organ": 1}, {"1": "organ"}):
        assert Description(labels=labels).named_labels().regions == {}
    for item in ([], [1.5], ["x"], [[1]], [0, 1], [True], [-1]):
        with pytest.raises(DatasetError, match=r"labels\.a: .*; fix the entry"):
            Description(labels={"a": item}).named_labels()
