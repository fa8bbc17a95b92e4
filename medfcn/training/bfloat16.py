"""The test, at the end of a training, of whether masks in bfloat16 are as good as in float32."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medfcn.inference.card import Card
from medfcn.inference.devices import has_fast_bfloat16
from medfcn.inference.model import Model
from medfcn.runs.arithmetic import Arithmetic
from medfcn.training.validation import Outputs, ScoredCase, decide_case, dices_of

LARGEST_CHANGE = 0.0005
"""The most by which the mean Dice of a label may change."""
_MOST_CASES, _MOST_VOXELS = 16, 1 << 24
"""Validation cases that are predicted again, spread over all, at least one."""


def bfloat16_test(
    model: Model, card: Card, cases: Sequence[ScoredCase], outputs: Outputs, folder: Path
) -> Mapping[str, Any] | None:
    """Predict validation cases in bfloat16, and compare their masks with those in float32.

    Args:
        model: The trained network.
        card: With everything that the validation cases chose.
        cases: The validation cases.
        outputs: Of the network in float32.
        folder: For the probabilities in bfloat16; it is removed again.

    Returns:
        `cases`, the number of cases; `largest_change` of the mean Dice of a label; `lost`, the number of masks of a
        label that are empty in bfloat16 alone; `passed`. None where the processor has no fast bfloat16, or nothing
        can be compared.
    """
    chosen = _chosen(cases)
    if not chosen or not has_fast_bfloat16(model.device):
        return None
    plain = model.with_card(card)
    half = plain.run_by(Arithmetic("torch", "bfloat16"))
    again = Outputs(half, folder, chosen)
    labels, lost = card.labels, 0
    dices: tuple[list[list[float]], list[list[float]]] = ([], [])
    for case in chosen:
        masks = [decide_case(one, kept, case).indices for one, kept in ((plain, outputs), (half, again))]
        lost += len({*np.unique(masks[0]).tolist()} - {*np.unique(masks[1]).tolist()})
        for found, mask in zip(dices, masks, strict=True):
            found.append(dices_of(case.reference(labels), mask, labels))
    again.remove()
    ours, theirs = (np.array(found) for found in dices)
    both = ~np.isnan(ours) & ~np.isnan(theirs)
    if not both.any():
        return None
    difference = np.where(both, ours - theirs, 0.0).sum(axis=0) / np.maximum(both.sum(axis=0), 1)
    largest = float(np.abs(difference).max())
    return {
        "cases": len(chosen),
        "largest_change": round(largest, 6),
        "lost": lost,
        "passed": largest <= LARGEST_CHANGE and not lost,
    }


def _chosen(cases: Sequence[ScoredCase]) -> list[ScoredCase]:
    """Some of the cases, spread over all of them: the same for every training of them."""
    step = -(-len(cases) // _MOST_CASES) if cases else 1
    chosen: list[ScoredCase] = []
    voxels = 0
    for case in cases[::step]:
        voxels += case.mask.array.size
        if chosen and voxels > _MOST_VOXELS:
            break
        chosen.append(case)
    return chosen
