"""A plain MONAI training loop with medfcn's transforms, network, inferer and scores: a template to change.

Run: `python pipelines/monai_loop.py DATASET --labels hippocampus=1+2 --leave-out test.txt -o runs/monai`
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from monai.data import CacheDataset
from monai.losses import DiceCELoss
from monai.transforms import Compose, Invertd, RandAffined, RandGaussianNoised

import medfcn
from medfcn.datasets import find_dataset
from medfcn.datasets.tables import read_ids
from medfcn.evaluation import write_scores
from medfcn.inference.decide import decide
from medfcn.labels import LabelMap
from medfcn.monai import EncodeLabelsd, LoadVolumed, SliceVolumed, SlidingVolumeInferer, network_transforms
from medfcn.networks.design import planned_design
from medfcn.networks.fcn import build_network
from medfcn.runs.outputs import refuse_existing
from medfcn.settings import NetworkSettings
from medfcn.slices.plan import Plan
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.training.train import plan as make_plan

KEYS = ("image", "label")
LOAD = LoadVolumed(KEYS, dtype=(np.float32, None), allow_missing_keys=True)


def for_training(plan: Plan, labels: LabelMap) -> Compose:
    """Files to slices: read, brought to the network grid, changed at random, and cut with their neighbours."""
    view, window = plan.views[0], list(plan.window)
    size = [-1 if axis == VIEW_AXIS[view] else window.pop(0) for axis in range(3)]
    return Compose([
        LOAD,
        EncodeLabelsd("label", labels),
        *network_transforms(plan, KEYS).transforms,
        RandAffined(KEYS, size, 0.7, 0.3, scale_range=0.15, mode=("bilinear", "nearest"), padding_mode="zeros"),
        RandGaussianNoised("image", prob=0.3, std=0.15),
        SliceVolumed(KEYS, view, context=(plan.context, 1)),
    ])  # fmt: skip


@click.command()
@click.argument("dataset")
@click.option("--labels", metavar="NAME=V", type=LabelMap.parse, required=True, help="Such as hippocampus=1+2.")
@click.option("--leave-out", "ids", metavar="FILE", type=read_ids, required=True, help="Cases or patients to test.")
@click.option("--group-by", "by", metavar="stem|none|REGEX", help="Patients from the ids, as in `medfcn train`.")
@click.option("-o", "--output", type=Path, default="runs/monai", show_default=True, help="The folder to make.")
@click.option("--steps", default=700, show_default=True, help="Optimiser steps; each sees the slices of one volume.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--seed", default=0, show_default=True, help="Random seed.")
def main(dataset: str, labels: Any, ids: Any, by: Any, output: Path, steps: int, threads: int, seed: int) -> None:
    """Train on DATASET, segment the cases that were left out, and score their masks."""
    refuse_existing(output, overwrite=False)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    plan = make_plan(dataset, labels=labels, leave_out=ids, group_by=by, seed=seed).plan
    design = planned_design(NetworkSettings(), plan, labels)
    network, is_softmax = build_network(design), design.head == "softmax"
    kept = find_dataset(dataset, group_by=by).without(ids)  # a patient with all their cases
    files = [{"image": list(case.images), "label": case.label} for case in kept.cases]
    seen = CacheDataset(files, for_training(plan, labels).set_random_state(seed), progress=False)
    loss_of = DiceCELoss(sigmoid=not is_softmax, softmax=is_softmax, to_onehot_y=is_softmax, batch=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    for step in range(1, steps + 1):
        sample = seen[int(torch.randint(len(seen), ()))]
        loss = loss_of(network(sample["image"].as_tensor()), sample["label"].as_tensor())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            click.echo(f"step {step}: loss {loss.item():.3f}")
    (output / "masks").mkdir(parents=True)
    inferer = SlidingVolumeInferer(plan.views[0], window=plan.window, context=plan.context)
    to_network = network_transforms(plan)
    back = Invertd("pred", to_network, orig_keys="image", nearest_interp=False)  # probabilities, to the file's grid
    for case in kept.left_out:
        sample = to_network(LOAD({"image": list(case.images)}))
        logits = inferer(sample["image"][None], network.eval())[0]
        sample["pred"] = logits.softmax(0)[1:] if is_softmax else logits.sigmoid()
        mask = labels.decode(decide(back(sample)["pred"].numpy(), 0.5, design.head))
        medfcn.read_volume(case.images[0]).with_array(mask).save(output / "masks" / f"{case.id}.nii.gz")
    references, patients = ({case.id: getattr(case, part) for case in kept.left_out} for part in ("label", "group"))
    table = medfcn.evaluate(output / "masks", references, labels=labels, groups=patients)
    write_scores(table, output / "scores")
    torch.save(network.state_dict(), output / "network.pt")
    click.echo(table.to_text())


if __name__ == "__main__":
    main()
