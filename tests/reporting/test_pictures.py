"""Pictures: the same for every orientation of a case, in the proportions of the patient, written whole."""

import itertools

import numpy as np
import pytest

from medfcn.errors import GeometryMismatchError
from medfcn.reporting import PictureCase, overlay_sheet
from medfcn.reporting.pictures import _panels
from medfcn.volumes import Volume

AFFINE = np.array([[1.0, 0, 0, -10], [0, 1.0, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])


def case_on(affine=AFFINE):
    random = np.random.default_rng(0)
    image = random.normal(size=(20, 24, 12)).astype(np.float32)
    reference, prediction = np.zeros((2, 20, 24, 12), dtype=np.uint8)
    reference[5:12, 6:18, 3:8] = 1
    prediction[6:13, 6:18, 4:9] = 1
    return [Volume(array, affine) for array in (image, reference, prediction)]


def reoriented(volume, axes, flips):
    """The same patient on another grid: axes re-ordered and turned round."""
    array, affine = volume.array.transpose(axes), volume.affine[:, [*axes, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
    return Volume(array, affine)


def test_a_case_looks_the_same_in_all_48_orientations():
    expected, window = _panels(PictureCase(*case_on()))
    assert len(expected) == 4
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            panels, same_window = _panels(PictureCase(*(reoriented(volume, axes, flips) for volume in case_on())))
            assert same_window == pytest.approx(window)
            for panel, same in zip(panels, expected, strict=True):
                np.testing.assert_array_equal(panel.picture, same.picture)
                np.testing.assert_array_equal(panel.reference, same.reference)
                np.testing.assert_array_equal(panel.prediction, same.prediction)
                assert panel.caption == same.caption
                assert (panel.width_mm, panel.height_mm) == pytest.approx((same.width_mm, same.height_mm))


def test_the_patients_right_is_on_the_left_and_superior_is_up():
    image, reference, _ = case_on()
    marked = np.zeros(image.shape, dtype=np.float32)
    marked[-1, -1, -1] = 1.0  # rightmost, most anterior, most superior
    nothing = reference.with_array(np.zeros_like(reference.array))
    panels, _ = _panels(PictureCase(image.with_array(np.repeat(marked[-1:], 20, 0)), nothing, None))
    assert panels[0].letters == ("R", "L", "A", "P")
    assert panels[2].letters == ("A", "P", "S", "I")
    sagittal = panels[2].picture
    assert sagittal[0, 0] == 1.0
    assert (panels[2].width_mm, panels[2].height_mm) == (24 * 1.0, 12 * 3.0)


def test_the_worst_slice_is_the_one_that_differs_most():
    image, reference, _ = case_on()
    wrong = reference.array.copy()
    wrong[:, :, 9] = 1
    (*_, worst), _ = _panels(PictureCase(image, reference, reference.with_array(wrong)))
    assert worst.caption == "worst slice: axial 10/12, 4.8 cm² differ"


def test_what_nobody_labelled_is_neither_organ_nor_error():
    image, reference, prediction = case_on()
    half = reference.array.copy()
    half[:, :, 6:] = 255
    (*panels, worst), _ = _panels(PictureCase(image, reference.with_array(half), prediction, ignored=(255,)))
    assert all([label for label, _ in panel.outlines(panel.reference)] == [1] for panel in panels)
    assert panels[1].prediction.max() == 1  # drawn, and no error
    assert worst.caption == "worst slice: sagittal 6/20, 1.08 cm² differ"  # a miss among the voxels that count
    found = np.where(half == 255, 1, half)
    right = PictureCase(image, reference.with_array(half), prediction.with_array(found), ignored=(255,))
    assert len(_panels(right)[0]) == 3


def test_pictures_are_written_with_and_without_masks(tmp_path):
    image, reference, prediction = case_on()
    for name, masks in {"both": (reference, prediction), "one": (reference, None), "none": (None, None)}.items():
        case = PictureCase(image, *masks, title="case $a$ 病例 \x1b[2J")
        path = overlay_sheet([case], tmp_path / f"{name}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.png", "none.png", "one.png"]
    empty = reference.with_array(np.zeros_like(reference.array))
    sheet = overlay_sheet(
        [PictureCase(image, reference, prediction, "a"), PictureCase(image, empty, empty, "b")], tmp_path / "s.png"
    )
    assert sheet.stat().st_size > 10_000


def test_a_constant_image_is_drawn(tmp_path):
    image, reference, prediction = case_on()
    flat = image.with_array(np.zeros(image.shape, dtype=np.int16))
    assert overlay_sheet([PictureCase(flat, reference, prediction)], tmp_path / "flat.png").exists()


def test_a_mask_on_another_grid_is_refused_and_nothing_is_written(tmp_path):
    image, reference, _ = case_on()
    moved = Volume(reference.array, np.diag([1.0, 1.0, 3.0, 1.0]))
    with pytest.raises(GeometryMismatchError):
        overlay_sheet([PictureCase(image, moved, None)], tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_values_of_any_size_and_type_are_outlined_each():
    image, reference, _ = case_on()
    values = reference.array.astype(np.int64) * 40_000
    values[5:8] += 20_000 * (values[5:8] > 0)
    panels, _ = _panels(PictureCase(image, reference.with_array(values), None))
    assert [label for label, _ in panels[0].outlines(panels[0].reference)] == [1, 2]


def test_an_outline_is_closed_and_as_large_as_the_voxels():
    panels, _ = _panels(PictureCase(*case_on()))
    ((label, (loop,)),) = panels[2].outlines(panels[2].reference)
    assert label == 1
    assert np.ptp(loop, axis=0).tolist() == [12 * 1.0, 5 * 3.0]
    assert len(loop) == 4
