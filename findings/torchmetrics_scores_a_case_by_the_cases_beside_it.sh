#!/usr/bin/env bash
# torchmetrics gives a case another Generalized Dice for other cases in its batch, and for another place in it.
#
# Guess: GeneralizedDiceScore scores each case by its own voxels, and the mean over cases does not depend on how they are
# batched.
# What happens (torchmetrics 1.9.0): a class that is absent from a case has the weight 1 / 0. It is replaced by the largest
# weight within the batch, and by that of another class or case, since the table is turned before it is looked up. Alone,
# the weight becomes 0: a false lesion costs nothing. One and the same case has 0.994 alone, 0.944 before a case with a
# small lesion, and 0.0003 behind it. Nothing warns. The functional form does the same. weight_type="linear" is right, and
# so is MONAI's score.
# Why it matters: most slices and many cases lack some class. The score of a model changes with the batch size and with the
# order of the cases, by more than models differ, and with a batch of 1 it does not see what is found where nothing is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
import torchmetrics
from torchmetrics.functional.segmentation import generalized_dice_score
from torchmetrics.segmentation import GeneralizedDiceScore

print("Python", sys.version.split()[0], "torch", torch.__version__, "torchmetrics", torchmetrics.__version__)


def case(drawn, found):
    """An organ that is found as it is drawn, and a square lesion of some edge lengths; 0 is none."""
    target = torch.zeros(64, 64, dtype=torch.long)
    target[8:40, 8:40] = 1
    prediction = target.clone()
    target[50 : 50 + drawn, 50 : 50 + drawn] = 2
    prediction[50 : 50 + found, 50 : 50 + found] = 2
    return prediction, target


def scores(cases, **options):
    predictions, targets = (torch.stack(items) for items in zip(*cases, strict=True))
    found = generalized_dice_score(predictions, targets, num_classes=3, input_format="index", **options)
    return [round(value, 4) for value in found.tolist()]


wrong, right = case(0, 12), case(2, 2)  # a false lesion of 144 pixels, and a right one of 4
batches = {"alone": [wrong], "first of two": [wrong, right], "second of two": [right, wrong], "twice": [wrong, wrong]}
EXPECTED = {"alone": [0.9941], "first of two": [0.944, 1.0], "second of two": [1.0, 0.0003], "twice": [0.944, 0.9941]}
for name, batch in batches.items():
    print(f"{name:14}", scores(batch), "without background", scores(batch, include_background=False))
    assert scores(batch) == EXPECTED[name], f"changed: {name}"
    linear = scores(batch, weight_type="linear")
    assert {value for value in linear if value < 1} == {0.9648}, f"changed: linear, {name}"
assert scores([wrong], include_background=False) == [1.0], "changed: a false lesion alone"
means = {}
for size in (1, 2, 4):
    metric = GeneralizedDiceScore(num_classes=3, input_format="index")
    cases = [right, wrong] * 4
    for start in range(0, len(cases), size):
        predictions, targets = (torch.stack(items) for items in zip(*cases[start : start + size], strict=True))
        metric.update(predictions, targets)
    means[size] = round(metric.compute().item(), 3)
    print(f"the same 8 cases in batches of {size}: {means[size]}")
assert means[1] > 0.99 and means[2] < 0.51 and means[4] != means[2], "changed: batches"
print("as described")
PYTHON
