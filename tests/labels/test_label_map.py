"""Labels keep every foreground voxel, and what cannot be told is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from medfcn.errors import LabelError, SettingsError
from medfcn.labels import IGNORED, LabelEntry, LabelMap


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("organ=1", [("organ", (1,), 1)]),
        ("anterior=1,posterior=2", [("anterior", (1,), 1), ("posterior", (2,), 2)]),
        ("hippocampus=1+2", [("hippocampus", (1, 2), 1)]),
        ("hippocampus=1+2,other=3", [("hippocampus", (1, 2), 1), ("other", (3,), 3)]),
        ("organ=255", [("organ", (255,), 255)]),
        (" a = 3 + 4 , b = 7 ", [("a", (3, 4), 1), ("b", (7,), 7)]),
        ("Läsion links=65535", [("Läsion links", (65535,), 65535)]),
        ("a=9,b=1+2", [("a", (9,), 9), ("b", (1, 2), 2)]),
    ],
)
def test_labels_option_is_read(text: str, entries: list[tuple[str, tuple[int, ...], int]]) -> None:
    assert LabelMap.parse(text).entries == tuple(LabelEntry(*entry) for entry in entries)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "organ",
            "organ=",
            "=1",
            "organ=x",
            "organ=1.5",
            "organ=-1",
            "organ=0",
            f"organ={2**32}",
            "organ=1,,b=2",
        ),
        *("a=1,a=2", "a=1,b=1", "a=1+1", "a=1+", "a=+1", "a=1;b=2", "a=1,", "a=²", "a=٣", "a=" + "9" * 5000, "a==1"),
        *("a=1+2,b=2+1", "a=2,b=3+4", "a=1 2", "ignore=255", "a=1,ignore=1", "a=1,ignore=0", "a=1,ignore=2+2"),
        *(f"a=1,ignore={2**32}", ",".join(f"l{value}={value}" for value in range(1, 256))),
    ],
)
def test_labels_option_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        LabelMap.parse(text)
    assert str(caught.value).startswith("labels: ")
    assert str(caught.value).isprintable()


def test_two_labels_written_alike_say_how_to_reorder() -> None:
    """`lesion` is merged and second, so it would be written as 2, as `organ` is."""
    with pytest.raises(SettingsError, match=r"lesion.*organ.*written as 2.*put lesion at a place"):
        LabelMap.parse("organ=2,lesion=3+4")
    assert [entry.written for entry in LabelMap.parse("lesion=3+4,organ=2").entries] == [1, 2]


@st.composite
def maps(draw: st.DrawFn) -> LabelMap:
    """Any map of a few labels, merged or not, that is not refused."""
    values = draw(st.lists(st.integers(1, 400), min_size=1, max_size=9, unique=True))
    entries: list[LabelEntry] = []
    while values:
        count = draw(st.integers(1, min(3, len(values))))
        mine, values = tuple(values[:count]), values[count:]
        written = mine[0] if count == 1 else len(entries) + 1
        if written in [entry.written for entry in entries]:
            continue
        entries.append(LabelEntry(f"label {len(entries)}", mine, written))
    named = {value for entry in entries for value in entry.values}
    ignored = draw(st.lists(st.integers(1, 400).filter(lambda value: value not in named), max_size=2, unique=True))
    return LabelMap(tuple(entries), ignored=tuple(ignored))


masks = arrays(np.uint16, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 400))


@given(maps(), masks)
def test_foreground_is_conserved_exactly(labels: LabelMap, mask: NDArray[np.uint16]) -> None:
    encoded = labels.encode(mask, name="case")
    assert encoded.dtype == np.uint8
    assert encoded.shape == mask.shape
    for place, entry in enumerate(labels.entries, start=1):
        np.testing.assert_array_equal(encoded == place, np.isin(mask, entry.values))
    np.testing.assert_array_equal(encoded == IGNORED, np.isin(mask, labels.ignored))
    named = [value for entry in labels.entries for value in entry.values]
    np.testing.assert_array_equal(encoded == 0, ~np.isin(mask, [*named, *labels.ignored]))


@given(maps(), masks)
def test_what_is_written_is_read_as_the_same_label(labels: LabelMap, mask: NDArray[np.uint16]) -> None:
    encoded = labels.encode(mask, name="case")
    encoded[encoded == IGNORED] = 0  # no network finds it
    written = labels.decode(encoded)
    for place, entry in enumerate(labels.entries, start=1):
        np.testing.assert_array_equal(written == entry.written, encoded == place)
    as_written = LabelMap(tuple(LabelEntry(entry.name, (entry.written,), entry.written) for entry in labels.entries))
    np.testing.assert_array_equal(as_written.encode(written, name="case"), encoded)


@given(maps())
def test_labels_survive_json(labels: LabelMap) -> None:
    assert LabelMap.from_json(labels.to_json()) == labels


@pytest.mark.parametrize(
    "value",
    [
        *(None, 3, [], {}, {"entries": 3}, {"entries": [3]}, {"entries": []}, {"entries": [{"name": "a"}]}),
        {"entries": [{"name": "a", "values": [1], "written": 2}]},
        {"entries": [{"name": "a", "values": [True], "written": 1}]},
        {"entries": [{"name": "a", "values": 1, "written": 1}]},
        {"entries": [{"name": 5, "values": [1], "written": 1}]},
        {"entries": [{"name": "a", "values": [1], "written": 1}], "unnamed": "keep"},
        {"entries": [{"name": "a", "values": [1], "written": 1}], "ignored": 255},
        {"entries": [{"name": "a", "values": [1], "written": 1}], "ignored": [True]},
        {"entries": [{"name": "a", "values": [1], "written": 1}], "ignored": [1]},
    ],
)
def test_json_that_is_no_label_map_is_refused(value: object) -> None:
    with pytest.raises(SettingsError):
        LabelMap.from_json(value)


def test_ignore_is_a_name_for_what_nobody_labelled() -> None:
    labels = LabelMap.parse("a=1+2,ignore=9+255,b=7+8")
    assert labels.names == ("a", "b")
    assert [entry.written for entry in labels.entries] == [1, 2]
    assert labels.ignored == (9, 255)
    mask = np.array([[[0, 1, 2, 7, 9, 255, 5]]], dtype=np.uint8)
    assert labels.encode(mask, name="case").tolist() == [[[0, 1, 1, 2, IGNORED, IGNORED, 0]]]
    named = LabelMap.from_names({1: "a", 2: "ignore"}, ignored=[3])
    assert (named.names, named.ignored) == (("a",), (2, 3))
    assert named.encode(np.array([[[0, 1, 2, 3]]]), name="case").tolist() == [[[0, 1, IGNORED, IGNORED]]]
    with pytest.raises(LabelError, match="unexpected label values 4; expected 1, 2, 3;"):
        named.encode(np.array([[[4]]]), name="case")


def test_a_card_from_before_values_were_ignored_ignores_none() -> None:
    value = LabelMap.parse("a=1").to_json()
    del value["ignored"]
    assert LabelMap.from_json(value) == LabelMap.parse("a=1")


def test_what_a_dataset_ignores_is_added_unless_the_labels_say_otherwise() -> None:
    assert LabelMap.parse("a=1").ignoring([255, 2]).ignored == (2, 255)
    assert LabelMap.parse("a=1,rest=2").ignoring([2]).ignored == ()
    assert LabelMap.parse("a=1,ignore=3").ignoring([2]).ignored == (3,)


def test_254_labels_leave_room_for_what_is_ignored() -> None:
    labels = LabelMap.parse(",".join(f"l{value}={value}" for value in range(1, 255)))
    assert labels.encode(np.array([[[254, 255]]]), name="case").tolist() == [[[254, 0]]]


def test_values_that_nobody_named() -> None:
    """Background where the user said which labels matter; refused where the dataset claims to know them all."""
    mask = np.array([[[0, 1, 2, 3]]], dtype=np.uint8)
    assert LabelMap.parse("a=1").encode(mask, name="case").tolist() == [[[0, 1, 0, 0]]]
    named = LabelMap.from_names({0: "background", 1: "a", 2: "b"})
    with pytest.raises(LabelError, match=r"case_9: unexpected label values 3; expected 1, 2; .*labels="):
        named.encode(mask, name="case_9")
    assert named.encode(mask[..., :3], name="case").tolist() == [[[0, 1, 2]]]
