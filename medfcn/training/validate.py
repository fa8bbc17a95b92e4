"""Scores of a network on the validation cases: whole volumes, on their own grids, as a user would get them."""

import math
from collections.abc import Sequence

import numpy as np

from medfcn.evaluation.overlap import count_labels
from medfcn.inference.model import Model
from medfcn.training.prepare import read_case
from medfcn.volumes import Case, LabelMap


def mean_dice(model: Model, cases: Sequence[Case], labels: LabelMap) -> float:
    """Mean Dice over cases and labels, those empty in both masks left out; 0 if all are."""
    scores: list[float] = []
    for case in cases:
        read = read_case(case, labels)
        predicted = model.predict(list(read.images))
        # The prediction holds written values; the reference is encoded by position.
        positions = np.zeros(predicted.shape, dtype=np.uint8)
        for position, entry in enumerate(labels.entries, start=1):
            positions[predicted.array == entry.written] = position
        counts = count_labels(read.labels, positions, labels=len(labels.entries))
        scores += [count.dice for count in counts if not math.isnan(count.dice)]
    return float(np.mean(scores)) if scores else 0.0
