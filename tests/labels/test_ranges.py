"""Labels with ranges of values, and with every value: one meaning wherever labels are taken."""

import json
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medfcn.datasets.check import check
from medfcn.datasets.dataset_json import Description
from medfcn.errors import DatasetError, LabelError, SettingsError
from medfcn.evaluation import evaluate
from medfcn.labels import IGNORED, LabelMap, read_mask
from medfcn.labels.values import Span, ValueSet, parse_values
from medfcn.labels.whole_numbers import LARGEST_LABEL


def saved(path: Path, voxels: np.ndarray, slope: float = 1.0) -> Path:
    """A NIfTI file of voxels on a grid of 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.header.set_slope_inter(slope, 0.0)
    nib.save(image, path)
    return path


def numbered(*values: int, dtype: type = np.uint16) -> np.ndarray:
    """A mask with 10 voxels of each value."""
    mask = np.zeros((10, 10, 10), dtype=dtype)
    for place, value in enumerate(values):
        mask[1 + place % 8, 2:7, 3:5] = value
    return mask


@pytest.mark.parametrize(
    ("text", "values", "written", "others"),
    [
        ("lesion=1-42", (1, 7, 42), 1, (0, 43, 255, 70000)),
        ("lesion=3-5+7", (3, 5, 7), 3, (1, 6, 8)),
        ("lesion=7+3-5", (3, 5, 7), 3, (1, 6, 8)),
        ("lesion=any", (1, 255, 70000, LARGEST_LABEL), 1, (0,)),
        ("lesion=1000-4294967295", (1000, 70000, LARGEST_LABEL), 1000, (1, 999)),
        ("lesion=1-65535", (1, 65535), 1, (0, 65536)),
        (" lesion = 1 - 3 + 7 ", (1, 3, 7), 1, (4, 6)),
        ("lesion=9-9", (9,), 9, (8, 10)),
    ],
    ids=str,
)
def test_a_range_is_all_of_its_values(
    text: str, values: tuple[int, ...], written: int, others: tuple[int, ...]
) -> None:
    labels = LabelMap.parse(text)
    array = np.array([[[*values, *others]]], dtype=np.uint32)
    expected = [1] * len(values) + [0] * len(others)
    assert labels.encode(array, name="case")[0, 0].tolist() == expected
    assert labels.entries[0].written == written
    assert labels.decode(labels.encode(array, name="case"))[0, 0].tolist() == [written * one for one in expected]
    assert LabelMap.from_json(json.loads(json.dumps(labels.to_json()))) == labels


def test_any_leaves_out_what_is_ignored() -> None:
    labels = LabelMap.parse("lesion=any,ignore=1+200-255")
    assert labels.encode(np.array([0, 1, 2, 199, 200, 255, 256]), name="case").tolist() == [
        *(0, IGNORED, 1, 1, IGNORED, IGNORED, 1)
    ]
    assert labels.entries[0].written == 2
    of_dataset = LabelMap.parse("lesion=any").ignoring([1, 3])
    assert (of_dataset.ignored, of_dataset.entries[0].written) == ((1, 3), 2)
    assert of_dataset.encode(np.array([1, 2, 3, 4]), name="case").tolist() == [IGNORED, 1, IGNORED, 1]
    assert LabelMap.from_json(json.loads(json.dumps(of_dataset.to_json()))) == of_dataset


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lesion=5-1", "lesion=5-1 runs down; write 1-5"),
        ("lesion=0-5", "lesion=0-5; values are 1 to 4294967295, 0 is the background"),
        ("lesion=1-4294967296", "values are 1 to 4294967295"),
        (f"lesion=1-{'9' * 5000}", "values are 1 to 4294967295"),
        ("lesion=any,liver=3", "lesion=any is every value"),
        ("lesion=any,liver=any", "lesion=any is every value"),
        ("lesion=any+3", "is not NAME=V"),
        ("lesion=1-", "is not NAME=V"),
        ("lesion=-1", "is not NAME=V"),
        ("lesion=1-2-3", "is not NAME=V"),
        ("lesion=1-3+2", "has a value twice"),
        ("ignore=any,lesion=1", "ignore=any leaves nothing"),
        ("lesion=any,ignore=1-4294967295", "every value is ignored"),
        ("lesion=1-5,ignore=5", "the value 5 belongs to lesion and to ignore"),
        ("lesion=1-5,ignore=4-9", "the value 4-5 belongs to lesion and to ignore"),
        ("a=1-10,b=5-20", "a=1-10 and b=5-20 both contain 5-10"),
        ("a=1-10,b=10-20", "both contain 10;"),
        ("a=1-3,b=1+2+3", "a and b have the same values"),
        ("label=1,2", "'2' is not NAME=V"),
    ],
    ids=lambda text: str(text)[:40],
)
def test_a_range_that_cannot_be_meant_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        LabelMap.parse(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "entries",
    [
        [{"name": "a", "values": [[5, 1]], "written": 5}],
        [{"name": "a", "values": [[0, 5]], "written": 0}],
        [{"name": "a", "values": [[1, 2, 3]], "written": 1}],
        [{"name": "a", "values": [[1, 5]], "written": 2}],
        [{"name": "a", "values": "all", "written": 1}],
        [{"name": "a", "values": "any", "written": 7}],
        [{"name": "a", "values": "any", "written": 1}, {"name": "b", "values": [2], "written": 2}],
    ],
    ids=str,
)
def test_a_card_with_broken_ranges_is_refused(entries: list[object]) -> None:
    with pytest.raises(SettingsError):
        LabelMap.from_json({"entries": entries, "unnamed": "background", "ignored": []})


def test_a_part_may_be_a_range_within_the_whole() -> None:
    labels = LabelMap.parse("whole=1-9,core=4-6+9")
    found = [(overlap.name, overlap.values, overlap.written) for overlap in labels.overlaps]
    assert found == [
        ("whole", (Span(1, 3), Span(7, 8)), 1),
        ("whole + core", (Span(4, 6), 9), 4),
    ]
    assert labels.overlap_text == "labels overlap: 1-3+7-8 is whole; 4-6+9 is whole + core"
    assert labels.encode(np.array([0, 3, 4, 8, 9, 10]), name="case").tolist() == [0, 1, 2, 1, 2, 0]


def test_ranges_agree_with_lists_of_their_values() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        values = sorted(random.choice(np.arange(1, 30), size=8, replace=False).tolist())
        cuts = [values[0:3], values[3:5], values[5:8]]
        text = ",".join(f"l{place}={cut[0]}-{cut[-1]}" for place, cut in enumerate(cuts))
        listed = {f"l{place}": list(range(cut[0], cut[-1] + 1)) for place, cut in enumerate(cuts)}
        array = random.integers(0, 40, size=(3, 4, 5))
        assert np.array_equal(
            LabelMap.parse(text).encode(array, name="case"), LabelMap.of(listed).encode(array, name="case")
        )


def test_a_wide_range_costs_neither_memory_nor_words() -> None:
    tracemalloc.start()
    labels = LabelMap.parse("lesion=2-4294967295,organ=1")
    labels.encode(np.array([1, 70000], dtype=np.uint32), name="case")
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert len(json.dumps(labels.to_json())) < 300


@pytest.mark.parametrize(
    "given",
    [{"lesion": "1-42"}, {"lesion": ["1-42"]}, {"lesion": range(1, 43)}, {"lesion": (1, "2-42")}, "lesion=1-42"],
    ids=str,
)
def test_the_library_takes_the_same_labels(given: object) -> None:
    labels = LabelMap.of(given)  # type: ignore[arg-type]
    assert labels.named_values.spans == (Span(1, 42),)
    assert labels.entries[0].written == 1


@pytest.mark.parametrize(
    "given", [{"a": 1.5}, {"a": None}, {"a": True}, {1: "a"}, {"a": [1, "any"]}, 7, ["a=1"]], ids=str
)
def test_the_library_refuses_other_labels(given: object) -> None:
    with pytest.raises(SettingsError):
        LabelMap.of(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "spans"),
    [
        ({"background": 0, "lesion": "1-42"}, {"lesion": (Span(1, 42),)}),
        ({"0": "background", "1-42": "lesion"}, {"lesion": (Span(1, 42),)}),
        ({"lesion": "any", "ignore": 9}, {"lesion": (Span(1, 8), Span(10, LARGEST_LABEL))}),
        ({"whole": "1-3", "core": [2, "3"]}, {"whole": (Span(1, 3),), "core": (Span(2, 3),)}),
    ],
    ids=str,
)
def test_dataset_json_takes_ranges(labels: dict[str, object], spans: dict[str, object]) -> None:
    found = Description(labels=labels).named_labels().label_map
    assert found is not None
    assert {
        name: ValueSet(tuple(value for one in found.overlaps if place in one.labels for value in one.values)).spans
        for place, name in enumerate(found.names, start=1)
    } == spans


@pytest.mark.parametrize(
    "labels",
    [{"a": "5-1"}, {"a": "0-4"}, {"a": "1-4294967296"}, {"1": "a", "2-3": "a"}, {"ignore": "any"}, {"a": ["any"]}],
    ids=str,
)
def test_dataset_json_refuses_broken_ranges(labels: dict[str, object]) -> None:
    with pytest.raises(DatasetError, match=r"^dataset\.json: labels"):
        Description(labels=labels).named_labels()


@pytest.fixture
def numbered_set(tmp_path: Path) -> Path:
    """Two cases with lesions numbered one by one: 1, 2, 40 and 3, 300."""
    image = np.random.default_rng(0).integers(0, 99, size=(10, 10, 10)).astype(np.int16)
    for name, values in (("a", (1, 2, 40)), ("b", (3, 300))):
        saved(tmp_path / "images" / f"{name}.nii.gz", image + len(values))
        saved(tmp_path / "labels" / f"{name}.nii.gz", numbered(*values))
    return tmp_path


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        ("lesion=1-42", []),
        ("lesion=any", []),
        ("lesion=1-42+300", []),
        ("lesion=1-42+50-60", ["LABEL_VALUE_ABSENT"]),
        ("lesion=1-42,cyst=50-60", ["LABEL_ABSENT"]),
        ("lesion=50-60", ["LABELS_EMPTY", "LABEL_EMPTY", "LABEL_EMPTY", "LABEL_ABSENT"]),
        ({"lesion": "any", "ignore": "1-300"}, ["LABELS_EMPTY", "LABEL_EMPTY", "LABEL_EMPTY", "LABEL_ABSENT"]),
    ],
    ids=str,
)
def test_check_misses_a_range_that_no_mask_contains(numbered_set: Path, labels: object, codes: list[str]) -> None:
    report = check(numbered_set, labels=labels)  # type: ignore[arg-type]
    assert [problem.code for problem in report.problems if problem.code != "READ_NOTE"] == codes


def test_evaluate_scores_a_range_as_one_label(numbered_set: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        mask = read_mask(numbered_set / "labels" / f"{name}.nii.gz")
        saved(tmp_path / "out" / f"{name}.nii.gz", (np.asarray(mask.array) > 0).astype(np.uint8))
    table = evaluate(tmp_path / "out", numbered_set / "labels", labels={"lesion": "any"})
    assert [(row.label, row.dice) for row in table.rows] == [("lesion", 1.0), ("lesion", 1.0)]
    table = evaluate(tmp_path / "out", numbered_set / "labels", labels="lesion=1-42")
    assert [row.dice for row in table.rows] == [1.0, pytest.approx(2 / 3)]


@pytest.mark.parametrize(
    ("voxels", "slope", "labels", "counts"),
    [
        (numbered(1, 2).astype(np.float32), 1.0, "lesion=any", 20),
        (numbered(255, dtype=np.uint8), 1.0, "lesion=any", 10),
        (numbered(255, dtype=np.uint8), 1.0, "lesion=200-255", 10),
        (numbered(255, dtype=np.uint8), 1 / 255, "lesion=any", 10),
        (numbered(70000, dtype=np.int32), 1.0, "lesion=any", 10),
    ],
    ids=["float", "255", "255-range", "255-scaled", "above-65535"],
)
def test_masks_read_with_any(tmp_path: Path, voxels: np.ndarray, slope: float, labels: str, counts: int) -> None:
    chosen = LabelMap.parse(labels)
    mask = read_mask(saved(tmp_path / "m.nii.gz", voxels, slope), labels=chosen)
    assert chosen.voxel_counts(chosen.encode(mask.array, name="m")) == {"lesion": counts}


@pytest.mark.parametrize(
    "voxels",
    [numbered(3).astype(np.int16) - 1, numbered(1).astype(np.float32) * 0.5],
    ids=["negative", "not-whole"],
)
def test_any_is_any_label_not_any_number(tmp_path: Path, voxels: np.ndarray) -> None:
    with pytest.raises(LabelError):
        read_mask(saved(tmp_path / "m.nii.gz", voxels), labels=LabelMap.parse("lesion=any"))


def test_parsing_values() -> None:
    assert [parse_values(text) for text in ("", "+", "1+", "1--2", "a", "1.5", "１")] == [None] * 7
