"""Broken series of DICOM files: each is refused in one line that names the series and the slice."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'medfcn[dicom]'")
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from medfcn.errors import MedfcnError
from medfcn.volumes import ReadOptions, read_volume
from tests.volumes.dicom_series import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    Made,
    classic,
    enhanced,
    new_uids,
    save,
)

Slices = list[Dataset]


def named(slices: Slices, folder: Path) -> Path:
    """Slices as `00.dcm`, `01.dcm` … in the order of the list."""
    for number, dataset in enumerate(slices):
        save(dataset, folder / f"{number:02d}.dcm")
    return folder


def without(slices: Slices, *numbers: int) -> Slices:
    return [dataset for number, dataset in enumerate(slices) if number not in numbers]


def moved(slices: Slices, number: int, *, by: tuple[float, float, float]) -> Slices:
    place = slices[number].ImagePositionPatient
    slices[number].ImagePositionPatient = [float(at) + shift for at, shift in zip(place, by, strict=True)]
    return slices


def changed(slices: Slices, number: int, **fields: Any) -> Slices:
    for name, value in fields.items():
        setattr(slices[number], name, value)
    return slices


def lacking(slices: Slices, number: int, *names: str) -> Slices:
    for name in names:
        delattr(slices[number], name)
    return slices


def twice(made: Made, **second: Any) -> Slices:
    """A series of two volumes on one place, which differ in some fields."""
    uids = new_uids()
    return classic(made, uids) + classic(replace(made, fields=made.fields | second), uids)


def cut(folder: Path, share: float) -> Path:
    file = folder / "04.dcm"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    return folder


def cut_stream(folder: Path) -> Path:
    """One slice whose JPEG 2000 stream ends early, inside a file that is whole."""
    slices = classic(Made(rows=32, columns=32))
    named(slices, folder)
    for dataset in slices[4:5]:
        dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
        save(dataset, folder / "04.dcm")
    return folder


def with_frames(dataset: Dataset, change: Callable[[Dataset], object], folder: Path) -> Path:
    change(dataset)
    return save(dataset, folder / "one.dcm").parent


def drop_frame(dataset: Dataset) -> None:
    """An enhanced file that lacks its fifth frame."""
    del dataset.PerFrameFunctionalGroupsSequence[4]
    size = dataset.Rows * dataset.Columns * 2
    dataset.PixelData = dataset.PixelData[: 4 * size] + dataset.PixelData[5 * size :]
    dataset.NumberOfFrames = 9


def two_patients() -> Slices:
    uids = new_uids()
    first, second = classic(Made(), uids), classic(replace(Made(), fields={"PatientID": "OTHER-SECRET"}), uids)
    return first[:5] + second[5:]


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a slice missing": (
        lambda folder: named(without(classic(Made()), 4), folder),
        r"1 slice is missing, between 03\.dcm at -97\.25 mm and 04\.dcm at -92\.25 mm: the others are 2\.50 mm apart",
    ),
    "three slices missing": (
        lambda folder: named(without(classic(Made()), 3, 6, 7), folder),
        r"3 slices are missing, between 02\.dcm",
    ),
    "nine of ten in 2 mm": (
        lambda folder: named(without(classic(Made(step=2.0)), 8), folder),
        r"1 slice is missing, between 07\.dcm .* 2\.00 mm apart",
    ),
    "a slice doubled": (
        lambda folder: named([*classic(made := Made(), uids := new_uids()), classic(made, uids)[3]], folder),
        r"2 slices at -97\.25 mm \(03\.dcm, 10\.dcm\), and no field tells them apart",
    ),
    "every slice doubled": (lambda folder: named(twice(Made()), folder), r"2 slices at .*, and 9 more positions"),
    "a slice doubled but for a hair": (
        lambda folder: named(moved(classic(Made()), 3, by=(0, 0, -2.49)), folder),
        r"two slices at -99\.75 mm: 02\.dcm, 03\.dcm",
    ),
    "a slice moved along": (
        lambda folder: named(moved(classic(Made()), 3, by=(0, 0, 0.3)), folder),
        r"unequally spaced, 2\.20 to 2\.80 mm: 2\.80 mm between 02\.dcm",
    ),
    "a slice moved aside": (
        lambda folder: named(moved(classic(Made()), 3, by=(0.4, 0, 0)), folder),
        r"03\.dcm at -97\.25 mm is 0\.\d+ mm beside the line of the others",
    ),
    "two spacings": (
        lambda folder: named(classic(Made(), ids := new_uids())[:5] + classic(Made(step=3.5), ids)[5:], folder),
        r"unequally spaced",
    ),
    "one orientation of two": (
        lambda folder: named(
            classic(Made(orientation=AXIAL), ids := new_uids())[:6]
            + classic(Made(orientation=SAGITTAL), ids)[:2]
            + classic(Made(orientation=CORONAL), ids)[:2],
            folder,
        ),
        r"several orientations: 6 axial \(00\.dcm\), 2 sagittal \(06\.dcm\), 2 coronal \(08\.dcm\)",
    ),
    "a gantry tilt": (
        lambda folder: named(classic(Made(shear=(0, 0.6, 0))), folder),
        r"leave the normal of the slices by 5\.40 mm over the stack \(gantry tilt of 13\.5°\)",
    ),
    "two frames of reference": (
        lambda folder: named(changed(classic(Made()), 5, FrameOfReferenceUID=uid.generate_uid()), folder),
        r"differ in frame of reference: 9 \(00\.dcm\), 1 \(05\.dcm\)",
    ),
    "two matrices": (
        lambda folder: named(classic(Made(), ids := new_uids())[:5] + classic(Made(rows=6), ids)[5:], folder),
        r"differ in Rows x Columns: 5 x 7 in 5 \(00\.dcm\), 6 x 7 in 5",
    ),
    "two pixel spacings": (
        lambda folder: named(changed(classic(Made()), 2, PixelSpacing=[0.9, 0.9]), folder),
        r"several pixel spacings",
    ),
    "two patients": (lambda folder: named(two_patients(), folder), r"differ in patient or study: 5 \(00\.dcm\)"),
    "two modalities": (
        lambda folder: named(changed(classic(Made()), 2, Modality="MR"), folder),
        r"differ in Modality: CT in 9 .*MR in 1 \(02\.dcm\)",
    ),
    "two units": (
        lambda folder: named(changed(classic(Made("PT", fields={"Units": "BQML"})), 2, Units="CNTS"), folder),
        r"differ in Units: BQML in 9",
    ),
    "rescale of some slices": (
        lambda folder: named(lacking(classic(Made()), 7, "RescaleSlope", "RescaleIntercept"), folder),
        r"RescaleSlope is stated for 9 of 10 slices, not for 07\.dcm",
    ),
    "a slope of 0": (
        lambda folder: named(changed(classic(Made()), 7, RescaleSlope=0), folder),
        r"07\.dcm: RescaleSlope 0 ",
    ),
    "two time points": (
        lambda folder: named(twice(Made("MR"), TemporalPositionIdentifier=2), folder),
        r"2 volumes of 10 slices in one series, .*differ in TemporalPositionIdentifier \(2, none\); .*volume_index=",
    ),
    "two echoes": (
        lambda folder: named(twice(Made("MR", fields={"EchoTime": 4.6}), EchoTime=9.2), folder),
        r"differ in EchoTime \(4\.6, 9\.2\)",
    ),
    "two acquisitions": (
        lambda folder: named(twice(Made(fields={"AcquisitionNumber": 1}), AcquisitionNumber=2), folder),
        r"differ in AcquisitionNumber \(1, 2\)",
    ),
    "two time points, one not whole": (
        lambda folder: named(without(twice(Made("MR"), TemporalPositionIdentifier=2), 13), folder),
        r"2 slices at .*, and no field tells them apart",
    ),
    "no position": (
        lambda folder: named(lacking(classic(Made()), 6, "ImagePositionPatient"), folder),
        r"06\.dcm: ImagePositionPatient is not stated",
    ),
    "no orientation": (
        lambda folder: named(lacking(classic(Made()), 6, "ImageOrientationPatient"), folder),
        r"06\.dcm: ImageOrientationPatient is not stated",
    ),
    "no pixel spacing": (
        lambda folder: named(lacking(classic(Made()), 6, "PixelSpacing"), folder),
        r"06\.dcm: PixelSpacing is not stated",
    ),
    "directions that are none": (
        lambda folder: named(classic(Made(orientation=(1.0, 0, 0, 1.0, 0, 0))), folder),
        r"directions of ImageOrientationPatient are not of length 1 and at right angles",
    ),
    "colours": (
        lambda folder: named(changed(classic(Made()), 2, PhotometricInterpretation="RGB", SamplesPerPixel=3), folder),
        r"02\.dcm: is RGB with 3 samples a pixel",
    ),
    "bits that are not at the bottom": (
        lambda folder: named(changed(classic(Made(bits=12)), 2, HighBit=15), folder),
        r"02\.dcm: HighBit is 15 with 12 bits stored",
    ),
    "a file cut off": (
        lambda folder: cut(named(classic(Made(rows=40)), folder), 0.9),
        r"04\.dcm: its pixels cannot be decoded: cut off",
    ),
    "a file cut off by half": (
        lambda folder: cut(named(classic(Made(rows=99)), folder), 0.5),
        r"04\.dcm: the header describes 1386 bytes of pixels and the file has \d+; the file is cut off",
    ),
    "a file of nothing but a preamble": (lambda folder: cut(named(classic(Made()), folder), 0.12), r"04\.dcm: "),
    "a stream cut off": (cut_stream, r"04\.dcm: its pixels cannot be decoded: cut off"),
    "two slices of one SOPInstanceUID": (
        lambda folder: named(changed(slices := classic(Made()), 3, SOPInstanceUID=slices[2].SOPInstanceUID), folder),
        r"02\.dcm and 03\.dcm have one SOPInstanceUID and are not the same slice",
    ),
    "one slice of no thickness": (
        lambda folder: named(lacking(classic(Made(count=1)), 0, "SliceThickness"), folder),
        r"one slice, and neither SpacingBetweenSlices nor SliceThickness is stated",
    ),
    "an enhanced file without a frame": (
        lambda folder: with_frames(enhanced(Made("MR")), drop_frame, folder),
        r"1 slice is missing, between one\.dcm frame 4 at",
    ),
    "an enhanced file with fewer frames than it says": (
        lambda folder: with_frames(enhanced(Made("MR")), lambda one: setattr(one, "NumberOfFrames", 12), folder),
        r"NumberOfFrames is 12, and 10 frames are described",
    ),
    "an enhanced file with a frame twice": (
        lambda folder: with_frames(enhanced(Made("MR"), [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]), lambda one: None, folder),
        r"2 slices at .* \(one\.dcm frame 9, one\.dcm frame 10\)",
    ),
    "frames without positions": (
        lambda folder: with_frames(
            enhanced(Made("MR")), lambda one: delattr(one, "PerFrameFunctionalGroupsSequence"), folder
        ),
        r"one\.dcm: has 10 frames and no position for each",
    ),
    "two series in a folder": (
        lambda folder: named([*classic(Made()), *classic(Made())], folder),
        r"2 series in this folder: [0-9a-f]{8} \(10 files\), [0-9a-f]{8} \(10 files\); choose one with .*series=",
    ),
    "no series in a folder": (
        lambda folder: named(changed(classic(Made(count=1)), 0, SOPClassUID=uid.RTDoseStorage), folder),
        r"no series of images in this folder",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_series_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    make, pattern = BROKEN[kind]
    folder = make(tmp_path / "case_17")
    with pytest.raises(MedfcnError, match=pattern) as caught:
        read_volume(folder)
    line = str(caught.value)
    assert line.startswith("case_17: ")
    assert "\n" not in line
    assert "SECRET" not in line
    assert caught.value.code in _codes()


def _codes() -> set[str]:
    import medfcn.errors

    words = (medfcn.errors.__doc__ or "").split()
    return {word for word in words if word.isupper()}


def test_one_of_several_time_points_or_series_can_be_chosen(tmp_path: Path) -> None:
    folder = named(twice(Made("MR", fields={"EchoTime": 4.6}), EchoTime=9.2), tmp_path / "echoes")
    assert read_volume(folder, options=ReadOptions(volume_index=1)).notes == ("volume 1 of 0 to 1: EchoTime 9.2",)
    with pytest.raises(MedfcnError, match="volume 2 was chosen of 2 volumes"):
        read_volume(folder, options=ReadOptions(volume_index=2))
    shutil.rmtree(folder)
    first, second = classic(Made()), classic(Made(count=4))
    named([*first, *second], folder)
    chosen = read_volume(folder, options=ReadOptions(series=str(second[0].SeriesInstanceUID)))
    assert chosen.shape == (7, 5, 4)
    assert read_volume(folder / "11.dcm").shape == (7, 5, 4)
    with pytest.raises(MedfcnError, match=r"no series 1\.2 in this folder"):
        read_volume(folder, options=ReadOptions(series="1.2"))
