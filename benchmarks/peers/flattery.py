"""Fifteen ways in which other tools flatter a mask, or fail in silence, on valid input.

    python3 -m venv peers && peers/bin/pip install -c constraints.txt torch monai==1.6.1 torchmetrics==1.9.0 \
        miseval==1.3.0 seg-metrics==1.2.8 MedPy==0.5.2 panoptica==2.1.7 SimpleITK==2.5.7 nibabel==5.4.2 tifffile
    peers/bin/python benchmarks/peers/flattery.py

Each line is a situation, the tool with its version, its answer, and the right answer. The table is in
`docs/explanation/other_tools.md`. medfcn does not run here: its answers to the same masks are in
`tests/evaluation/test_mistakes_of_peers.py`.
Exit status 1: a tool answers otherwise than the table says.
"""

import gzip
import io
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

warnings.simplefilter("ignore")


def square(shape: tuple[int, int], top: int, left: int, edge: int = 10) -> Any:
    mask = np.zeros(shape, np.uint8)
    mask[top : top + edge, left : left + edge] = 1
    return mask


def cube(size: int, start: int, end: int, shift: int = 0) -> Any:
    mask = np.zeros((size,) * 3, np.uint8)
    mask[start:end, start:end, start + shift : end + shift] = 1
    return mask


def one_hot(mask: Any) -> torch.Tensor:
    tensor = torch.as_tensor(np.asarray(mask, dtype=np.int64))
    return torch.stack([1 - tensor, tensor])[None]


def miseval_rows() -> float:
    import miseval

    return float(miseval.evaluate(square((64, 64), 2, 20), square((64, 64), 50, 20), metric="HD"))


def miseval_miss() -> float:
    import miseval

    return float(miseval.evaluate(square((64, 64), 2, 20), np.zeros((64, 64), np.uint8), metric="HD"))


def torchmetrics_shape() -> float:
    from torchmetrics.segmentation import HausdorffDistance

    metric = HausdorffDistance(num_classes=2, include_background=False)
    return float(metric(one_hot(square((64, 80), 20, 23)), one_hot(square((64, 80), 20, 20))))


def torchmetrics_company() -> str:
    """One case that has an invented label, scored alone, first and last of three."""
    from torchmetrics.functional.segmentation import generalized_dice_score

    def stacked(*masks: Any) -> torch.Tensor:
        return torch.as_tensor(np.stack([1 - np.clip(sum(masks), 0, 1), *masks]).astype(np.int64))

    shape = (32, 32)
    cases = [
        stacked(square(shape, 4, 4, 8), np.zeros(shape, np.uint8)),
        stacked(square(shape, 4, 4, 20), square(shape, 26, 26, 4)),
        stacked(square(shape, 2, 2, 2), square(shape, 20, 20, 6)),
    ]
    predictions = [case.clone() for case in cases]
    predictions[0][2, 30:, 30:] = 1

    def score(order: list[int]) -> float:
        chosen = [torch.stack([side[place] for place in order]) for side in (predictions, cases)]
        return round(float(generalized_dice_score(*chosen, 3, include_background=False)[order.index(0)]), 3)

    return " / ".join(str(score(order)) for order in ([0], [0, 1, 2], [2, 1, 0]))


def seg_metrics_miss() -> float:
    from seg_metrics import seg_metrics

    reference = np.pad(np.ones((4, 4, 4), np.uint8), 4)
    found = seg_metrics.write_metrics(
        labels=[1], gdth_img=reference, pred_img=np.zeros_like(reference), csv_file=None, metrics=["hd95"]
    )
    return float(found[0]["hd95"][0])


def medpy_false_lesions() -> float:
    from medpy.metric import binary

    reference = np.zeros((60, 60), np.uint8)
    reference[5:10, 5:10] = reference[5:10, 20:25] = 1
    prediction = reference.copy()
    for number in range(8):
        row, column = 30 + number // 4 * 12, 5 + number % 4 * 12
        prediction[row : row + 4, column : column + 4] = 1
    return float(binary.obj_fpr(prediction, reference))


def medpy_two_empty() -> float:
    from medpy.metric import binary

    return float(binary.dc(np.zeros((4, 4), bool), np.zeros((4, 4), bool)))


def sitk_average() -> float:
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(sitk.GetImageFromArray(cube(24, 4, 20)), sitk.GetImageFromArray(cube(24, 3, 21)))
    return round(measure.GetAverageHausdorffDistance(), 3)


def panoptica_spacing() -> float:
    from panoptica import (
        ConnectedComponentsInstanceApproximator,
        InputType,
        NaiveThresholdMatching,
        Panoptica_Evaluator,
    )
    from panoptica.metrics import Metric

    evaluator = Panoptica_Evaluator(
        expected_input=InputType.SEMANTIC,
        instance_approximator=ConnectedComponentsInstanceApproximator(),
        instance_matcher=NaiveThresholdMatching(),
        global_metrics=[Metric.HD],
    )
    found = evaluator.evaluate(cube(20, 5, 12, shift=2), cube(20, 5, 12), voxelspacing=(1.0, 1.0, 3.0))
    found = next(iter(found.values())) if isinstance(found, dict) else found
    return float((found[0] if isinstance(found, tuple) else found).to_dict()["global_bin_hd"])


def monai_miss() -> float:
    from monai.metrics import HausdorffDistanceMetric

    metric = HausdorffDistanceMetric(include_background=False, percentile=95)
    organ, nothing = one_hot(cube(16, 4, 8)).float(), one_hot(np.zeros((16, 16, 16))).float()
    metric(organ, organ)
    metric(nothing, organ)
    return float(metric.aggregate())


def monai_false_organ() -> float:
    from monai.metrics import DiceMetric

    metric = DiceMetric(include_background=False)
    organ, nothing = one_hot(cube(16, 4, 8)).float(), one_hot(np.zeros((16, 16, 16))).float()
    metric(organ, organ)
    metric(organ, nothing)
    return float(metric.aggregate())


def scipy_without_background() -> float:
    from scipy import ndimage

    return round(float(ndimage.distance_transform_edt(np.ones((5, 5, 5))).max()), 2)


def tifffile_inverted() -> int:
    import tifffile
    from PIL import Image

    mask, file = square((8, 8), 2, 2, 2).astype(bool), io.BytesIO()
    tifffile.imwrite(file, mask)
    return int(np.asarray(Image.open(file)).sum())


def sitk_cut_off() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cut.nii"
        nibabel.save(nibabel.Nifti1Image(np.ones((16, 16, 16), np.uint8), np.eye(4)), path)
        path.write_bytes(path.read_bytes()[: 352 + 2048])
        return f"{int(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).sum())} of 4096 voxels"


def monai_apart() -> str:
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

    with tempfile.TemporaryDirectory() as folder:
        moved = np.diag([-1.0, 1.0, 1.0, 1.0])
        moved[:3, 3] = 50
        for name, affine in (("image", np.eye(4)), ("label", moved)):
            array = np.random.default_rng(0).integers(0, 2, (8, 8, 8)).astype(np.uint8)
            Path(folder, f"{name}.nii.gz").write_bytes(gzip.compress(nibabel.Nifti1Image(array, affine).to_bytes()))
        keys = ["image", "label"]
        load = Compose([LoadImaged(keys), EnsureChannelFirstd(keys)])
        load({name: str(Path(folder, f"{name}.nii.gz")) for name in keys})
        return "loaded without a word"


ROWS: tuple[tuple[str, str, Callable[[], object], object, str], ...] = (
    ("a square 48 rows away: Hausdorff distance", "miseval", miseval_rows, 0.0, "48"),
    ("a missed organ: Hausdorff distance", "miseval", miseval_miss, 3.1622776601683795, "inf"),
    ("3 pixels apart in 64×80: Hausdorff distance", "torchmetrics", torchmetrics_shape, 32.0, "3"),
    (
        "a case with an invented label, scored alone / first / last of three: generalised Dice",
        *("torchmetrics", torchmetrics_company, "1.0 / 0.111 / 0.667", "one value, below 1"),
    ),
    ("a missed organ: HD95", "seg-metrics", seg_metrics_miss, 0.0, "inf"),
    ("eight of ten predicted lesions are false: share of false ones", "MedPy", medpy_false_lesions, 0.0, "0.8"),
    ("two empty masks: Dice", "MedPy", medpy_two_empty, 1.0, "left out of the mean"),
    ("a shell of one voxel too many: average distance", "SimpleITK", sitk_average, 0.156, "1.028 (ASSD)"),
    ("2 voxels of 3 mm apart: Hausdorff distance", "panoptica", panoptica_spacing, 2.0, "6 mm"),
    ("one organ right, one missed: mean HD95", "monai", monai_miss, 0.0, "inf"),
    ("one organ right, one invented: mean Dice", "monai", monai_false_organ, 1.0, "0.5"),
    ("a mask without background: distance to it", "scipy", scipy_without_background, 7.55, "inf"),
    ("4 pixels, saved and read by Pillow: pixels", "tifffile", tifffile_inverted, 60, "4"),
    ("half of a file is missing: voxels of 1", "SimpleITK", sitk_cut_off, "2048 of 4096 voxels", "refused"),
    ("image and label flipped and 50 mm apart", "monai", monai_apart, "loaded without a word", "refused"),
)


def main() -> None:
    differing = 0
    for situation, tool, ask, expected, right in ROWS:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            try:
                answer = ask()
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
        is_same = answer == expected
        differing += not is_same
        note = "" if is_same else f" (expected {expected})"
        print(f"{situation}: {tool} {version(tool)} says {answer}{note}; right: {right}")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
