"""DICOM parametric maps: their numbers are those that the map is of, not those that are stored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'medfcn[dicom]'")

from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, ParametricMapStorage

from medfcn.errors import MedfcnError
from medfcn.volumes import read_volume
from tests.volumes.dicom_series import Made, enhanced, save

BACKWARDS = [9, 2, 7, 0, 5, 4, 3, 6, 1, 8]


def mapping(**fields: Any) -> Dataset:
    item = Dataset()
    for name, value in {"RealWorldValueSlope": 0.001, "RealWorldValueIntercept": -0.25, **fields}.items():
        if value is not None:
            setattr(item, name, value)
    return item


def whole_map(*mappings: Dataset, dtype: str = "uint16") -> Dataset:
    """A map of whole numbers: each frame has the identity as its rescale, as the standard asks."""
    dataset = enhanced(Made("MR", dtype=dtype, bits=8 * np.dtype(dtype).itemsize, rescale=lambda k: None), BACKWARDS)
    dataset.SOPClassUID = ParametricMapStorage
    dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = list(mappings)
    return dataset


def float_map(dtype: str) -> Dataset:
    """A map of floats: they have a field of their own, and no fields on bits."""
    dataset = whole_map(mapping(RealWorldValueSlope=2.0, RealWorldValueIntercept=0.0))
    numbers = np.stack([Made("MR", dtype="uint16").pixels(k) for k in BACKWARDS]).astype(dtype) / 1000
    del dataset.PixelData, dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit
    dataset.BitsAllocated = 8 * numbers.itemsize
    setattr(dataset, "FloatPixelData" if dtype == "float32" else "DoubleFloatPixelData", numbers.tobytes())
    return dataset


def stored() -> np.ndarray[Any, Any]:
    """`(columns, rows, 10)` stored numbers, slices in the order of their positions."""
    return np.stack([Made("MR", dtype="uint16").pixels(k).T for k in range(10)], axis=2).astype(float)


def test_whole_numbers_of_a_map_are_in_its_units(tmp_path: Path) -> None:
    volume = read_volume(save(whole_map(mapping()), tmp_path / "map" / "one.dcm").parent)
    np.testing.assert_allclose(volume.array, stored() * 0.001 - 0.25, atol=1e-6)


def test_a_frame_of_a_map_has_its_own_mapping(tmp_path: Path) -> None:
    dataset = whole_map()
    for k, frame in zip(BACKWARDS, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        frame.RealWorldValueMappingSequence = [mapping(RealWorldValueSlope=0.001 * (k + 1))]
    volume = read_volume(save(dataset, tmp_path / "map" / "one.dcm").parent)
    np.testing.assert_allclose(volume.array, stored() * 0.001 * np.arange(1, 11) - 0.25, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_of_a_map_are_read_as_floats(dtype: str, tmp_path: Path) -> None:
    volume = read_volume(save(float_map(dtype), tmp_path / "map" / "one.dcm").parent)
    np.testing.assert_allclose(volume.array, stored() / 500, rtol=1e-6)


REFUSED = {
    "no mapping": (lambda: whole_map(), r"RealWorldValueMappingSequence states 0 mappings"),
    "two mappings": (lambda: whole_map(mapping(), mapping(RealWorldValueSlope=1.0)), r"states 2 mappings"),
    "a table": (
        lambda: whole_map(mapping(RealWorldValueSlope=None, RealWorldValueIntercept=None)),
        r"frame 1: RealWorldValueMappingSequence is a table; expected one slope",
    ),
    "a slope of 0": (lambda: whole_map(mapping(RealWorldValueSlope=0.0)), r"RealWorldValueSlope 0 and"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_map_without_one_slope_is_refused(kind: str, tmp_path: Path) -> None:
    make, pattern = REFUSED[kind]
    with pytest.raises(MedfcnError, match=pattern) as caught:
        read_volume(save(make(), tmp_path / "map" / "one.dcm").parent)
    assert caught.value.code == "VOXELS_SCALING"


def test_floats_in_an_image_that_is_no_map_are_refused_and_not_cut_to_integers(tmp_path: Path) -> None:
    dataset = float_map("float32")
    dataset.SOPClassUID = MRImageStorage
    with pytest.raises(MedfcnError, match="pixels are floats, which only a parametric map has"):
        read_volume(save(dataset, tmp_path / "map" / "one.dcm").parent)
