"""Labels keep every foreground voxel, and what cannot be told is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from medfcn.errors import LabelError, SettingsError, VolumeError
from medfcn.labels import IGNORED, LabelEntry, LabelMap, read_mask
from medfcn.labels.whole_numbers import label_counts, whole_numbers
from medfcn.volumes import Volume
from tests.volumes.hostile import VOXELS, good, put


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
        *("", "organ", "organ=", "=1", "organ=x", "organ=1.5", "organ=-1", "organ=0", "organ=65536", "organ=1,,b=2"),
        *("a=1,a=2", "a=1,b=1", "a=1+1", "a=1+", "a=+1", "a=1;b=2", "a=1,", "a=²", "a=٣", "a=" + "9" * 5000, "a==1"),
        *("a=1+2,b=2+1", "a=2,b=3+4", "a=1 2", "ignore=255", "a=1,ignore=1", "a=1,ignore=0", "a=1,ignore=2+2"),
        *("a=1,ignore=65536", ",".join(f"l{value}={value}" for value in range(1, 256))),
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
    with pytest.raises(LabelError, match=r"case_9: unexpected label values 3; expected 1, 2; .*--labels"):
        named.encode(mask, name="case_9")
    assert named.encode(mask[..., :3], name="case").tolist() == [[[0, 1, 2]]]


@given(
    arrays(np.float32, (2, 3, 4), elements=st.integers(0, 300).map(float)),
    st.integers(-9, 9).map(lambda steps: steps * 1e-4),
)
def test_nearly_whole_numbers_are_rounded(mask: NDArray[np.float32], shift: float) -> None:
    near = mask + np.float32(shift)
    whole, off = whole_numbers(near, name="case")
    np.testing.assert_array_equal(whole, mask)
    assert whole.dtype.kind == "u"
    assert (off > 0) == bool((near != mask).any())


@given(st.floats(0.002, 0.998), st.integers(0, 23))
def test_one_voxel_that_is_no_label_is_found(value: float, place: int) -> None:
    mask = np.ones((2, 3, 4))
    mask.ravel()[place] = value
    with pytest.raises(LabelError, match="values that are no labels"):
        whole_numbers(mask, name="case")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, 65536.0, 1e30, -0.002])
def test_values_no_label_can_have_are_refused(value: float) -> None:
    mask = np.zeros((2, 2, 2))
    mask[1, 1, 1] = value
    with pytest.raises(LabelError), np.errstate(invalid="ignore"):
        whole_numbers(mask, name="case")


@given(arrays(np.uint16, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 9)))
def test_counts_are_those_of_unique(mask: NDArray[np.uint16]) -> None:
    values, counts = np.unique(mask, return_counts=True)
    assert label_counts(mask) == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert label_counts(np.asfortranarray(mask)) == label_counts(mask)


def test_large_masks_are_encoded_piece_by_piece() -> None:
    mask = np.asfortranarray(np.random.default_rng(0).integers(0, 4, (130, 120, 110), dtype=np.uint8))
    for array in (mask, np.ascontiguousarray(mask), mask[::-1, :, ::2]):
        encoded = LabelMap.parse("a=2+3").encode(array, name="case")
        np.testing.assert_array_equal(encoded, (array >= 2).astype(np.uint8))


def test_a_rounded_mask_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(good(code=16, voxels=VOXELS * np.float32(0.9999)))
    mask = read_mask(tmp_path / "a.nii")
    np.testing.assert_array_equal(mask.array, VOXELS)
    assert [note for note in mask.notes if "rounded" in note] == ["voxels rounded to whole labels (by up to 0.0004)"]
    (tmp_path / "b.nii").write_bytes(good())
    assert read_mask(tmp_path / "b.nii").notes == ()


BINARY = ((VOXELS > 2) * 255).astype(np.uint8)


def test_255_is_a_label_only_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(good(code=2, voxels=BINARY))
    with pytest.raises(LabelError, match=r"label values 0, 255; .*--labels organ=255"):
        read_mask(path)
    with pytest.raises(LabelError):
        read_mask(path, labels=LabelMap.parse("organ=1"))
    mask = read_mask(path, labels=LabelMap.parse("organ=255"))
    assert LabelMap.parse("organ=255").encode(mask.array, name="a").sum() == (BINARY > 0).sum()
    ignored = LabelMap.parse("organ=1,ignore=255")
    assert set(np.unique(ignored.encode(read_mask(path, labels=ignored).array, name="a"))) == {0, IGNORED}
    path.write_bytes(good(code=2, voxels=np.where(BINARY, 255, VOXELS % 2).astype(np.uint8)))
    with pytest.raises(LabelError, match="0, 1, 255"):
        read_mask(path)
    assert set(np.unique(read_mask(path, labels=LabelMap.parse("organ=1")).array)) == {0, 1, 255}


def test_255_scaled_to_1_needs_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(put(good(code=2, voxels=BINARY), "scl_slope", 1 / 255))
    with pytest.raises(LabelError, match=r"stores the values 0, 255 and scl_slope 0\.00392157 makes them 0, 1"):
        read_mask(path)
    stored = read_mask(path, labels=LabelMap.parse("organ=255"))
    np.testing.assert_array_equal(stored.array, BINARY)
    assert any("scl_slope" in note for note in stored.notes)
    scaled = read_mask(path, labels=LabelMap.parse("organ=1"))
    np.testing.assert_array_equal(scaled.array, BINARY > 0)


def test_a_mask_that_nibabel_scaled_is_read(tmp_path: Path) -> None:
    """Floats saved under an int16 header: stored as -32768 ... 32767, so only one reading is a mask."""
    import nibabel

    image = nibabel.Nifti1Image((VOXELS > 2).astype(np.float64), np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    mask = read_mask(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(mask.array, VOXELS > 2)


def test_masks_come_from_whatever_stands_for_a_volume(tmp_path: Path) -> None:
    volume = Volume((VOXELS > 2).astype(float), np.eye(4), name="a")
    assert read_mask(volume).array.dtype == np.uint8
    assert read_mask((VOXELS > 2, np.eye(4))).array.sum() == (VOXELS > 2).sum()
    with pytest.raises(VolumeError):
        read_mask(3)
