#!/usr/bin/env bash
# MONAI's MaskedDiceLoss counts the voxels that its mask leaves out as background, where it makes the one-hot target itself.
#
# Guess: "only the masked region contributes to the loss", as its documentation says: the loss is that of DiceLoss on the
# region alone, and 0 for a prediction that is right there.
# What happens (MONAI 1.6.1): with to_onehot_y=True the mask multiplies the label numbers, so that every voxel left out
# gets label 0, and is background in the target. A right prediction in a quarter of the slice has a loss of 0.27 in place of 0,
# whatever the labels elsewhere. A one-hot target that is given (to_onehot_y=False) is masked rightly, and so is
# include_background=False.
# Why it matters: partly labelled scans are trained so. The loss of the background cannot fall to 0, the gradient is 0.79 of the
# right one for a guess, and losses of cases with regions of other sizes cannot be compared.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 monai==1.6.1 numpy==2.4.6 2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import monai
import torch
from monai.losses import DiceLoss, MaskedDiceLoss
from torch.nn.functional import one_hot

print("Python", sys.version.split()[0], "MONAI", monai.__version__, "torch", torch.__version__)
torch.manual_seed(0)
labels = torch.randint(0, 3, (1, 1, 64, 64))
known = torch.zeros(1, 1, 64, 64)
known[..., :16] = 1
given = one_hot(labels[:, 0], 3).movedim(-1, 1).float()
right, guessed = given * 40, torch.randn(1, 3, 64, 64)


def losses(logits, **options):
    """By the mask with label numbers, by the mask with a one-hot target, and on the known region alone."""
    logits = logits.clone().requires_grad_()
    by_numbers = MaskedDiceLoss(softmax=True, to_onehot_y=True, **options)(logits, labels, known)
    (gradient,) = torch.autograd.grad(by_numbers, logits)
    by_one_hot = MaskedDiceLoss(softmax=True, **options)(logits, given, known)
    (gradient_one_hot,) = torch.autograd.grad(by_one_hot, logits)
    alone = DiceLoss(softmax=True, **options)(logits[..., :16], given[..., :16])
    share = (gradient.norm() / gradient_one_hot.norm()).item()
    return by_numbers.item(), by_one_hot.item(), alone.item(), share


found = {
    "a right prediction": losses(right),
    "a guess": losses(guessed),
    "a guess, include_background=False": losses(guessed, include_background=False),
}
for name, (by_numbers, by_one_hot, alone, share) in found.items():
    print(f"{name}: label numbers {by_numbers:.3f}, one-hot target {by_one_hot:.3f}, region alone {alone:.3f}", end="")
    print(f"; gradient {share:.2f} of that by one-hot target" if "guess" in name else "")
for name, (by_numbers, by_one_hot, alone, share) in found.items():
    assert abs(by_one_hot - alone) < 1e-4, f"changed: {name}, one-hot"
    if "background" in name:
        assert abs(by_numbers - alone) < 1e-4, f"changed: {name}"
        assert abs(share - 1) < 1e-3, f"changed: {name}, gradient"
assert found["a right prediction"][2] < 1e-4
assert abs(found["a right prediction"][0] - 0.271) < 0.01, "changed: a right prediction"
assert found["a guess"][0] > found["a guess"][2] + 0.03, "changed: a guess"
assert found["a guess"][3] < 0.95, "changed: gradient"
print("as described")
PYTHON
