"""MONAI transforms as name and arguments: built again as they were, hashed alike in any process, and nothing else."""

import functools
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    AdjustContrastd,
    Affined,
    BorderPadd,
    CenterScaleCropd,
    CenterSpatialCropd,
    ClipIntensityPercentilesd,
    CropForegroundd,
    DivisiblePadd,
    FillHolesd,
    Flipd,
    GaussianSharpend,
    GaussianSmoothd,
    HistogramNormalized,
    Identityd,
    KeepLargestConnectedComponentd,
    LabelFilterd,
    Lambdad,
    LoadImaged,
    MapLabelValued,
    MedianSmoothd,
    NormalizeIntensityd,
    Orientationd,
    RemoveSmallObjectsd,
    Resized,
    ResizeWithPadOrCropd,
    Rotate90d,
    Rotated,
    SaveImaged,
    SavitzkyGolaySmoothd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
    ShiftIntensityd,
    SignalFillEmptyd,
    Spacingd,
    SpatialCropd,
    SpatialPadd,
    StdShiftIntensityd,
    ThresholdIntensityd,
    Transposed,
    Zoomd,
)

from medfcn.errors import ModelError
from medfcn.monai.recorded import RECORDED, TransformRecord

KEYS = ["image", "label"]
MODES = ("bilinear", "nearest")
LABELS = (("L", "R"), ("P", "A"), ("I", "S"))
EXAMPLES = [
    lambda: Orientationd(KEYS, axcodes="RAS", labels=LABELS),
    lambda: Spacingd(KEYS, pixdim=(1, 1, 2), mode=MODES),
    lambda: Spacingd("image", pixdim=1.5, min_pixdim=1.0, max_pixdim=2.0),
    lambda: Flipd(KEYS, spatial_axis=0),
    lambda: Rotate90d(KEYS, k=3, spatial_axes=(0, 2)),
    lambda: Rotated(KEYS, angle=(0.1, 0, 0.2), mode=MODES, keep_size=False),
    lambda: Zoomd(KEYS, zoom=(1.2, 1, 1), mode=("area", "nearest"), keep_size=False),
    lambda: Affined(KEYS, rotate_params=(0.1, 0, 0), mode=MODES),
    lambda: Resized(KEYS, spatial_size=(10, 12, 14), mode=("trilinear", "nearest")),
    lambda: Transposed(KEYS, indices=(0, 2, 1, 3)),
    lambda: ResizeWithPadOrCropd(KEYS, spatial_size=(20, 20, 20)),
    lambda: SpatialPadd(KEYS, spatial_size=(30, 30, 30), method="end"),
    lambda: BorderPadd(KEYS, spatial_border=(2, 3, 4)),
    lambda: DivisiblePadd(KEYS, k=8),
    lambda: CenterSpatialCropd(KEYS, roi_size=(5, 5, 5)),
    lambda: CenterScaleCropd(KEYS, roi_scale=0.8),
    lambda: SpatialCropd(KEYS, roi_start=(1, 1, 1), roi_end=(5, 6, 7)),
    lambda: CropForegroundd(KEYS, source_key="image", margin=2),
    lambda: ScaleIntensityd("image", minv=-1.0, maxv=1.0),
    lambda: ScaleIntensityRanged("image", a_min=-100, a_max=300, b_min=0.0, b_max=1.0, clip=True),
    lambda: ScaleIntensityRangePercentilesd("image", 1, 99, 0, 1),
    lambda: ClipIntensityPercentilesd("image", 1, 99),
    lambda: NormalizeIntensityd("image", nonzero=True, channel_wise=True),
    lambda: ShiftIntensityd("image", offset=3.5),
    lambda: StdShiftIntensityd("image", factor=1.5),
    lambda: ThresholdIntensityd("image", threshold=3.0, above=False, cval=3.0),
    lambda: AdjustContrastd("image", gamma=1.5),
    lambda: HistogramNormalized("image", num_bins=64),
    lambda: SignalFillEmptyd("image", replacement=1.0),
    lambda: Identityd("image"),
    lambda: GaussianSmoothd("image", sigma=(1.5, 1.5, 0.5)),
    lambda: GaussianSharpend("image", sigma1=2.0),
    lambda: MedianSmoothd("image", radius=1),
    lambda: SavitzkyGolaySmoothd("image", 5, 2),
    lambda: MapLabelValued("label", orig_labels=[1, 2], target_labels=[1, 1]),
    lambda: LabelFilterd("label", applied_labels=[1, 3]),
    lambda: FillHolesd("label", applied_labels=[2]),
    lambda: KeepLargestConnectedComponentd("label", applied_labels=[1]),
    lambda: RemoveSmallObjectsd("label", min_size=5),
]


def test_the_list_is_all_tried() -> None:
    assert {type(make()).__name__ for make in EXAMPLES} == set(RECORDED)


@pytest.mark.filterwarnings("ignore:Parameter `min_size`:FutureWarning")  # MONAI 1.6 with scikit-image 0.26
@pytest.mark.parametrize("make", EXAMPLES)
def test_a_transform_is_built_again_from_its_name_and_arguments(make: Any) -> None:
    record = TransformRecord.of(make())
    assert record.arguments is not None
    assert record == TransformRecord.of(make())  # another object, the same transform
    returned = TransformRecord(**json.loads(json.dumps(record.to_json())))
    built = returned.build()
    assert TransformRecord.of(built) == record
    random = np.random.default_rng(0)
    sample = {
        "image": MetaTensor(torch.from_numpy(random.normal(size=(1, 9, 8, 7)).astype(np.float32))),
        "label": MetaTensor(torch.from_numpy(random.integers(0, 4, (1, 9, 8, 7)).astype(np.float32))),
    }
    for key, value in make()(sample).items():
        # torch sums an array in another order where it lies otherwise in memory.
        assert np.allclose(np.asarray(built(sample)[key]), np.asarray(value), rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: Spacingd(KEYS, pixdim=(1, 1, 2)), lambda: Spacingd(KEYS, pixdim=(1, 1, 2.5))),
        (lambda: Spacingd(KEYS, pixdim=1.0, mode="nearest"), lambda: Spacingd(KEYS, pixdim=1.0)),
        (lambda: Flipd("image", 0), lambda: Flipd("label", 0)),
        (lambda: Spacingd("image", 1.0, dtype=np.float32), lambda: Spacingd("image", 1.0, dtype=np.float64)),
        (lambda: Lambdad("image", lambda x: 2 * x), lambda: Lambdad("image", lambda x: 3 * x)),
        (lambda: functools.partial(pow, 2), lambda: functools.partial(pow, 3)),
        (lambda: _Scale(2.0), lambda: _Scale(3.0)),
        (lambda: _Scale(np.arange(3)), lambda: _Scale(np.arange(4))),
        (lambda: _scaled_by(2), lambda: _scaled_by(3)),
    ],
)
def test_another_argument_has_another_hash(one: Any, other: Any) -> None:
    assert TransformRecord.of(one()).sha256 == TransformRecord.of(one()).sha256
    assert TransformRecord.of(one()).sha256 != TransformRecord.of(other()).sha256


class _Scale:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "image": sample["image"] * self.factor}


def _scaled_by(factor: float) -> Any:
    def scaled(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "image": sample["image"] * factor}

    return scaled


def test_two_processes_have_one_hash_for_one_chain() -> None:
    code = """
from monai.transforms import Compose, Lambdad, ScaleIntensityRanged, Spacingd
from medfcn.monai.case_transforms import CaseTransforms
chain = Compose([
    Spacingd(["image", "label"], pixdim=(1, 1, 2), mode=("bilinear", "nearest")),
    ScaleIntensityRanged("image", a_min=-100, a_max=300, b_min=0, b_max=1, clip=True),
    Lambdad("image", lambda image: image ** PAR),
])
print(CaseTransforms(chain).sha256)
"""

    def hash_of(code: str, seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        return done.stdout

    first, second = (hash_of(code.replace("PAR", "2"), seed) for seed in ("1", "2"))
    assert first == second
    assert first != hash_of(code.replace("PAR", "3"), "1")


@pytest.mark.parametrize(
    "transform",
    [
        Lambdad("image", lambda image: image),
        LoadImaged("image"),
        SaveImaged("image", print_log=False),
        Spacingd("image", pixdim=1.0, dtype=np.float32),
        _Scale(2.0),
        type("Spacingd", (Spacingd,), {})("image", pixdim=1.0),
    ],
)
def test_anything_else_is_named_and_never_built(transform: Any) -> None:
    record = TransformRecord.of(transform)
    assert record.arguments is None
    assert "." in record.name
    with pytest.raises(ModelError, match="cannot be built from a card"):
        record.build()


@pytest.mark.parametrize("name", ["LoadImaged", "SaveImaged", "Lambdad", "TorchVisiond", "os.system", "__doc__", ""])
def test_a_card_names_nothing_outside_the_list(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be built from a card"):
        TransformRecord(name, {"keys": "image"}, "").build()


@pytest.mark.parametrize("arguments", [{}, {"keys": ["image"], "pixdim": "wide"}, {"keys": ["image"], "pixel": 1.0}])
def test_arguments_that_monai_refuses_are_one_line(arguments: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="Spacingd cannot be built") as caught:
        TransformRecord("Spacingd", arguments, "").build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Resized", {"keys": ["image"], "spatial_size": [10**5, 10**5, 10**5]}),
        ("Resized", {"keys": ["image"], "spatial_size": 10**4}),
        ("SpatialPadd", {"keys": ["image"], "spatial_size": [2**20, 2**20, 1]}),
        ("ResizeWithPadOrCropd", {"keys": ["image"], "spatial_size": [float("nan"), 5, 5]}),
        ("BorderPadd", {"keys": ["image"], "spatial_border": [10**6]}),
        ("DivisiblePadd", {"keys": ["image"], "k": [10**7, 1, 1]}),
        ("Zoomd", {"keys": ["image"], "zoom": [1000.0, 1000.0, 1000.0]}),
        ("MedianSmoothd", {"keys": ["image"], "radius": [10**4, 1, 1]}),
        ("HistogramNormalized", {"keys": ["image"], "num_bins": 10**12}),
        ("GaussianSmoothd", {"keys": ["image"], "sigma": 1e9}),
    ],
    ids=str,
)
def test_sizes_that_no_memory_holds_are_refused_before_anything_is_built(
    name: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match=f"transforms: {name} has .* too large") as caught:
        TransformRecord(name, arguments, "").build()
    assert "\n" not in str(caught.value)
