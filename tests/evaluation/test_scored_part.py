"""Scores of a part of two masks are those of the whole, bit for bit; and large masks of one value cost nothing."""

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medfcn.evaluation import scored_part
from medfcn.evaluation.classes import confusion_of_case
from medfcn.evaluation.definitions import Definitions
from medfcn.evaluation.scores import LabelScores, score_case
from medfcn.labels import LabelMap
from medfcn.volumes import Volume
from medfcn.volumes.formats.stored import of_one_value

AFFINE = np.diag([-1.0, 0.5, 2.0, 1.0])
LABELS = {
    "one": "a=1",
    "two": "a=1,b=2+3",
    "overlapping": "whole=1+2,core=2",
    "ignored": "a=1+2,ignore=3",
}
DEFINITIONS = {
    "as they are": Definitions(),
    "without ends": Definitions(boundary_at_edges=False, lesions=True),
    "elements": Definitions(boundary="elements", nsd_boundary="voxels", lesions=True),
}


def blocks(seed: int, shape: tuple[int, int, int], dtype: str = "uint8") -> NDArray[np.uint8]:
    """A few blocks of values in the background, some at an end of the volume."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=dtype, order="CF"[seed % 2])
    for value in (1, 2, 3):
        start = [int(random.integers(0, size)) for size in shape]
        mask[tuple(slice(first, first + int(random.integers(1, 4))) for first in start)] = value
    return mask


def pairs() -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """A reference and a prediction by what they are like."""
    found = {f"blocks {seed}": (blocks(seed, (9, 8, 7)), blocks(seed + 3, (9, 8, 7), "uint16")) for seed in range(4)}
    found |= {"flat": (blocks(8, (9, 1, 7)), blocks(9, (9, 1, 7))), "line": (blocks(6, (1, 1, 9)),) * 2}
    for first, second in ((0, 0), (1, 1), (0, 1), (1, 0), (1, 2), (3, 1), (3, 3)):
        found[f"all {first}, all {second}"] = tuple(of_one_value(np.uint8(one), (5, 4, 6)) for one in (first, second))  # type: ignore[assignment]
    found["blocks, none"] = (blocks(1, (9, 8, 7)), of_one_value(np.uint8(0), (9, 8, 7)))
    found["all, blocks"] = (of_one_value(np.uint8(1), (9, 8, 7)), blocks(2, (9, 8, 7)))
    found["zeros, zeros"] = (np.zeros((4, 5, 6), np.uint8),) * 2
    return found


def scored(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], labels: LabelMap, definitions: Definitions, missing: bool
) -> tuple[LabelScores, ...]:
    reference, prediction = (Volume(mask, AFFINE, "case") for mask in pair)
    # Whatever a label is called in a file, medfcn writes the same values here.
    return score_case(
        None if missing else prediction,
        reference,
        labels,
        definitions=definitions,
        prediction_codec=labels.reference_codec,
    )


@pytest.mark.parametrize("missing", [False, True], ids=["predicted", "missing"])
@pytest.mark.parametrize("definitions", DEFINITIONS)
@pytest.mark.parametrize("labels", LABELS)
def test_scores_of_the_part_are_those_of_the_whole(
    labels: str, definitions: str, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(LabelMap.parse(LABELS[labels]), unnamed="background")
    for name, pair in pairs().items():
        found = []
        for least in (1 << 60, 0):
            monkeypatch.setattr(scored_part, "LARGE_BYTES", least)
            found.append(repr(scored(pair, known, DEFINITIONS[definitions], missing)))
        assert found[0] == found[1], name


def test_the_confusion_matrix_of_the_part_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    known = replace(LabelMap.parse("a=1,b=2"), unnamed="background")
    for name, pair in pairs().items():
        reference, prediction = (Volume(mask, AFFINE, "case") for mask in pair)
        found = []
        for least in (1 << 60, 0):
            monkeypatch.setattr(scored_part, "LARGE_BYTES", least)
            found.append(dict(confusion_of_case(prediction, reference, known, case=name)))
        assert found[0] == found[1], name
        assert sum(found[0].values()) == pair[0].size


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux")
@pytest.mark.parametrize("values", [(0, 0), (1, 1), (1, 0)], ids=["empty", "full", "missed"])
def test_large_masks_of_one_value_are_scored_without_a_copy(values: tuple[int, int]) -> None:
    """Two masks of 8 GB each, with less than 2 GB of memory."""
    code = f"""
import numpy as np
from medfcn.evaluation.scores import score_case
from medfcn.labels import LabelMap
from medfcn.volumes import Volume
from medfcn.volumes.formats.stored import of_one_value
masks = [Volume(of_one_value(np.uint8(value), (2048, 2048, 2000)), np.eye(4), "case") for value in {values}]
(row,) = score_case(masks[1], masks[0], LabelMap.parse("a=1"))
print(row.status, row.true_positives, row.false_negatives)
"""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))

    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limited, timeout=300, check=False
    )
    voxels = 2048 * 2048 * 2000
    expected = {(0, 0): "both_empty 0 0", (1, 1): f"ok {voxels} 0", (1, 0): f"prediction_empty 0 {voxels}"}
    assert ended.stdout.strip() == expected[values], ended.stderr
