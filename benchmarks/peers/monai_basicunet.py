"""A plain MONAI loop for `accuracy_for_cost.py`: BasicUNet on axial slices, as MONAI's tutorials write such a loop.

    python benchmarks/peers/monai_basicunet.py train DATA IDS MODEL --seconds 540 --seed 0
    python benchmarks/peers/monai_basicunet.py predict DATA IDS MODEL --masks FOLDER

Transforms are MONAI's, and those without chance are applied once; the loss is `DiceCELoss`, the optimiser Adam. The
clock counts CPU seconds: the training ends with its budget, and the learning rate falls along a cosine until then.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    ResizeWithPadOrCropd,
)
from monai.utils import set_determinism

SLICE = (48, 64)
"""Holds every axial slice of this set, and can be halved four times."""

BATCH, LARGEST_RATE = 32, 1e-3
CPU_SECONDS_TO_END = 3.0
"""For the last step, saving, and the end of the process."""


def network() -> BasicUNet:
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=1)


def slices_of(data: Path, ids: list[str]) -> list[dict[str, torch.Tensor]]:
    """Every axial slice with its mask, normalised volume by volume and padded."""
    keys = ("image", "label")
    load = Compose(
        [
            LoadImaged(keys, image_only=True),
            EnsureChannelFirstd(keys),
            NormalizeIntensityd("image"),
            AsDiscreted("label", threshold=0.5),
            ResizeWithPadOrCropd(keys, (*SLICE, -1)),
        ]
    )
    found = []
    for one in ids:
        volume = load({key: data / f"{key}s" / f"{one}.nii.gz" for key in keys})
        image, label = (volume[key].as_tensor().float() for key in keys)
        found += [{"image": image[..., k].clone(), "label": label[..., k].clone()} for k in range(image.shape[-1])]
    return found


def augmentation() -> Compose:
    keys = ("image", "label")
    turn, scale = math.radians(15), 0.15
    return Compose(
        [
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            RandFlipd(keys, prob=0.5, spatial_axis=1),
            RandAffined(
                keys, prob=0.5, rotate_range=turn, scale_range=(scale, scale), translate_range=(3, 3),
                mode=("bilinear", "nearest"), padding_mode="border",
            ),
            RandScaleIntensityd("image", factors=0.1, prob=0.5),
            RandShiftIntensityd("image", offsets=0.1, prob=0.5),
            RandGaussianNoised("image", prob=0.2, std=0.1),
        ]
    )  # fmt: skip


def without_end(loader: DataLoader) -> Iterator[dict[str, torch.Tensor]]:
    while True:
        yield from loader


def train(data: Path, ids: list[str], model: Path, seconds: float, seed: int) -> None:
    set_determinism(seed)
    transform = augmentation().set_random_state(seed)
    loader = DataLoader(Dataset(slices_of(data, ids), transform), batch_size=BATCH, shuffle=True, drop_last=True)
    net, loss_of = network().train(), DiceCELoss(sigmoid=True)
    optimiser = torch.optim.Adam(net.parameters(), LARGEST_RATE)
    steps = 0
    for batch in without_end(loader):
        used = time.process_time()
        if used >= seconds - CPU_SECONDS_TO_END:
            break
        optimiser.param_groups[0]["lr"] = LARGEST_RATE * 0.5 * (1 + math.cos(math.pi * used / seconds))
        optimiser.zero_grad()
        loss = loss_of(net(batch["image"]), batch["label"])
        loss.backward()
        optimiser.step()
        steps += 1
        if steps % 50 == 0:
            print(f"step {steps}, {used:.0f} of {seconds:g} CPU s, loss {loss.item():.3f}", flush=True)
    torch.save(net.state_dict(), model)
    model.with_suffix(".json").write_text(json.dumps({"steps": steps}))


def predict(data: Path, ids: list[str], model: Path, masks: Path) -> None:
    """A mask for each volume on its own grid."""
    net = network().eval()
    net.load_state_dict(torch.load(model, weights_only=True))
    load = Compose(
        [
            LoadImaged("image", image_only=True),
            EnsureChannelFirstd("image"),
            NormalizeIntensityd("image"),
            ResizeWithPadOrCropd("image", (*SLICE, -1)),
        ]
    )
    masks.mkdir(parents=True, exist_ok=True)
    for one in ids:
        path = data / "images" / f"{one}.nii.gz"
        volume = load({"image": path})
        with torch.inference_mode():
            logits = net(volume["image"].as_tensor().permute(3, 0, 1, 2)).permute(1, 2, 3, 0)
        volume["image"].set_array(logits.float())
        # The inverse of the padding brings the scores back to the volume's own grid.
        scores = load.transforms[-1].inverse(volume)["image"][0].numpy()
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image((scores > 0).astype(np.uint8), image.affine), masks / f"{one}.nii.gz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "predict"])
    parser.add_argument("data", type=Path)
    parser.add_argument("ids", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--masks", type=Path, default=Path("masks"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    ids = given.ids.read_text().split()
    if given.what == "train":
        train(given.data, ids, given.model, given.seconds, given.seed)
    else:
        predict(given.data, ids, given.model, given.masks)


if __name__ == "__main__":
    main()
