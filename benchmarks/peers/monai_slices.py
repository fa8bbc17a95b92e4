"""A plain MONAI script that predicts slice by slice, for `predicting_with_peers.py`.

    python benchmarks/peers/monai_slices.py BUNDLE IMAGES MASKS --window 256 256 --axis 2 --spacing 1.5 1.5 -1

The network, its weights and its labels are those of BUNDLE, which `medfcn export --format bundle` made; medfcn itself
does not run here. All else is what MONAI's tutorials write: reading, one orientation, the network's spacing,
z-scores, `SliceInferer`, the way back to the volume's own grid (`Invertd`), the largest component, `SaveImaged`.
"""

import argparse
import importlib.util
from pathlib import Path

import torch
from monai.inferers import SliceInferer
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    KeepLargestConnectedComponentd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    SaveImaged,
    Spacingd,
)


def network_of(bundle: Path) -> torch.nn.Module:
    """The bundle's network with its weights."""
    spec = importlib.util.spec_from_file_location("network", bundle / "scripts" / "network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.Network()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--window", type=int, nargs=2, required=True)
    parser.add_argument("--axis", type=int, required=True, help="along which slices are cut, of RAS")
    parser.add_argument("--spacing", type=float, nargs=3, required=True, help="mm along RAS; -1: each volume's own")
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = network_of(given.bundle)
    before = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", given.spacing, mode="bilinear"),
            NormalizeIntensityd("image"),
        ]
    )
    channels = network(torch.zeros(1, 1, *given.window)).shape[1]
    is_sigmoid = channels == 1
    after = Compose(
        [
            Invertd("mask", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("mask", threshold=0.0) if is_sigmoid else AsDiscreted("mask", argmax=True),
            KeepLargestConnectedComponentd("mask", independent=True),
            SaveImaged(
                "mask", output_dir=given.masks, output_postfix="", separate_folder=False, output_dtype="uint8",
                print_log=False,
            ),
        ]
    )  # fmt: skip
    inferer = SliceInferer(roi_size=given.window, sw_batch_size=8, spatial_dim=given.axis, overlap=0.25)
    for path in sorted(given.images.glob("*.nii.gz")):
        case = before({"image": path})
        with torch.inference_mode():
            case["mask"] = inferer(case["image"][None], network)[0]
        after(case)


if __name__ == "__main__":
    main()
