"""The header of one DICOM file: the fields that decide where its slices are and what their numbers mean.

Pixels are not read. Text about the patient stays in the file, but for a hash that tells two patients apart.
"""

import hashlib
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from medfcn.errors import GeometryError, VolumeError, naming
from medfcn.text import shown
from medfcn.volumes.formats.dicom.library import guarded, pydicom
from medfcn.volumes.formats.dicom.rescale import mapping_of, rescale_of

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of segmentations: of binary or fractional frames, and of label maps."""
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
"""The SOP class of an RTSTRUCT."""
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
"""The SOP class of a map of computed numbers, which has floats or a mapping to units in place of a rescale."""
DIRECTORY = "1.2.840.10008.1.3.10"
"""The SOP class of a DICOMDIR."""
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")

MARKS = (
    "EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "AcquisitionNumber", "DiffusionBValue",
    "DiffusionGradientOrientation", "TriggerTime", "InversionTime", "FlipAngle", "ImageType", "StackID",
    "AcquisitionTime", "ContentTime",
)  # fmt: skip
"""Fields in which the volumes of one series differ (echoes, time points, acquisitions), the most telling first."""

_MARKS_OF_FRAMES = {
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "FrameContentSequence": {
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "FrameAcquisitionDateTime": "AcquisitionTime",
        "StackID": "StackID",
    },
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "TriggerTime"},
    "MRDiffusionSequence": {"DiffusionBValue": "DiffusionBValue"},
    "MRImageFrameTypeSequence": {"FrameType": "ImageType"},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "PETFrameTypeSequence": {"FrameType": "ImageType"},
}
"""The same fields in the functional groups of a multi-frame file."""
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID",
    "Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "RescaleType", "Units",
    "ModalityLUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "InstanceNumber",
    *MARKS,
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """One slice: a file of its own, or a frame of a multi-frame file.

    Attributes:
        path: The file.
        index: The frame's number in the file, from 0.
        position: Of the centre of the first pixel, in LPS millimetres.
        orientation: Direction cosines of a row, then of a column.
        spacing: Distance between rows, and between columns.
        decimals: Digits after the point with which the position is stored.
        thickness: Distance of the next slice as far as a header of one slice says so; None where it does not.
        rescale: Slope and intercept; None where the file states none.
        marks: The fields of `MARKS` that the slice has.
    """

    path: Path
    index: int
    position: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    decimals: int
    thickness: float | None
    rescale: tuple[float, float] | None
    marks: Mapping[str, str]

    @property
    def name(self) -> str:
        """The file, and the frame where there are several, for a message."""
        return shown(self.path) if self.index < 0 else f"{shown(self.path)} frame {self.index + 1}"


@dataclass(frozen=True)
class Header:
    """The header of one file with an image.

    Attributes:
        path: The file.
        sop_class: UID of the kind of object.
        instance: UID of the file's object.
        series: UID of its series.
        frame_of_reference: UID of the coordinate system; empty where none is stated.
        patient: A hash of the patient's and the study's ids.
        shape: `(columns, rows)` of a slice.
        kind: Fields that all slices of a volume share, by name.
        dtype: numpy's name of the stored numbers' type.
        syntax: UID of the transfer syntax; empty where none is stated.
        frames: The slices.
    """

    path: Path
    sop_class: str
    instance: str
    series: str
    frame_of_reference: str
    patient: str
    shape: tuple[int, int]
    kind: Mapping[str, str]
    dtype: str
    syntax: str
    frames: tuple[Frame, ...]


def is_dicom_file(path: Path) -> bool:
    """True if a regular file begins as DICOM files do; one named `.dcm` may lack the preamble."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(132)
    except (OSError, ValueError):
        return False
    return head[128:132] == b"DICM" or (path.suffix.lower() == ".dcm" and _starts_with_a_tag(head))


def _starts_with_a_tag(head: bytes) -> bool:
    """True if a file without a preamble begins with an element of group 2 or 8, in either byte order."""
    return head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08") and len(head) == 132


@dataclass(frozen=True)
class Identity:
    """The few fields that say which object a file is.

    Attributes:
        path: The file.
        sop_class: UID of the kind of object.
        instance: UID of the object.
        series: UID of its series.
        patient: A hash of the patient's id; empty where none is stated.
    """

    path: Path
    sop_class: str
    instance: str
    series: str
    patient: str


def read_identity(path: Path) -> Identity:
    """The identity of a file.

    Raises:
        VolumeError: The file cannot be read as DICOM.
    """
    with naming(shown(path)), guarded("its header cannot be read as DICOM", "copy it again"):
        content = dataset_of(
            path, ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "PatientID", "StudyInstanceUID")
        )
        sop_class, instance, series = (
            str(content.get(name, "") or "") for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
        )
        if str(getattr(content, "file_meta", {}).get("MediaStorageSOPClassUID", "")) == DIRECTORY:
            sop_class = instance = series = DIRECTORY  # a DICOMDIR has none of its own
        if not (sop_class and instance and series):
            raise VolumeError("is DICOM without SOPClassUID, SOPInstanceUID or SeriesInstanceUID; export it again",
                              code="HEADER_DAMAGED")  # fmt: skip
        return Identity(path, sop_class, instance, series, _hash_of(str(content.get("PatientID", "") or "")))


def dataset_of(path: Path, names: tuple[str, ...] | None = None) -> Any:
    """The elements of a file before its pixels; only those of some names where these are given."""
    library = pydicom()
    tags = None if names is None else list(names)
    return library.dcmread(path, force=True, stop_before_pixels=True, specific_tags=tags)


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text.strip() else ""


def read_header(path: Path) -> Header:
    """The header of an image.

    Raises:
        VolumeError: It is damaged, or of a kind that is not a volume of single numbers.
        GeometryError: It does not say where its slices are.
    """
    with naming(shown(path)), guarded("its header cannot be read as DICOM", "copy it again"):
        content = dataset_of(path, _TAGS)
        _require_image(content)
        rows, columns = (_whole(content, name) for name in ("Rows", "Columns"))
        frames = _frames_of(content, path)
        syntax = str(getattr(content, "file_meta", {}).get("TransferSyntaxUID", "") or "")
        dtype = _voxel_type(content)
        if syntax in _NATIVE:
            _require_bytes(path, rows * columns * len(frames) * int(content.BitsAllocated) // 8)
        return Header(
            path=path,
            sop_class=str(content.get("SOPClassUID", "") or ""),
            instance=str(content.get("SOPInstanceUID", "") or ""),
            series=str(content.get("SeriesInstanceUID", "") or ""),
            frame_of_reference=str(content.get("FrameOfReferenceUID", "") or ""),
            patient=_hash_of(f"{content.get('PatientID', '') or ''} {content.get('StudyInstanceUID', '') or ''}"),
            shape=(columns, rows),
            kind=_kind_of(content, frames),
            dtype=dtype,
            syntax=syntax,
            frames=frames,
        )


_KINDS_OF_OBJECTS = {
    **dict.fromkeys(SEGMENTATIONS, "a DICOM segmentation, not an image; give it as a label"),
    STRUCTURE_SET: "an RTSTRUCT, not an image; give it as a label",
    "1.2.840.10008.5.1.4.1.1.481.2": "an RT dose, not an image; give a CT, MR or PET series",
    "1.2.840.10008.5.1.4.1.1.481.5": "an RT plan, not an image; give a CT, MR or PET series",
    "1.2.840.10008.1.3.10": "a DICOMDIR, not an image; give the folder beside it",
}


def _require_image(content: Any) -> None:
    """Refuse objects that are no slices of single integers."""
    kind = str(content.get("SOPClassUID", "") or "")
    if kind in _KINDS_OF_OBJECTS:
        raise VolumeError(f"is {_KINDS_OF_OBJECTS[kind]}", code="FILE_KIND", field="SOPClassUID")
    absent = [name for name in ("SeriesInstanceUID", "Rows", "Columns", "BitsAllocated") if content.get(name) is None]
    if absent:
        raise VolumeError(f"has no {absent[0]}; give a CT, MR or PET series", code="FILE_KIND", field=absent[0])
    samples = int(content.get("SamplesPerPixel", 1) or 1)
    colours = str(content.get("PhotometricInterpretation", "MONOCHROME2") or "MONOCHROME2")
    if samples != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        found = f"is {colours} with {samples} samples a pixel, not single numbers; give a CT, MR or PET series"
        raise VolumeError(found, code="VOXELS_TYPE", field="PhotometricInterpretation")
    if content.get("ModalityLUTSequence"):
        found = (
            "ModalityLUTSequence: numbers that stand for intensities by a table are not read; export with a rescale"
        )
        raise VolumeError(found, code="VOXELS_SCALING", field="ModalityLUTSequence")


def _is_map(content: Any) -> bool:
    return str(content.get("SOPClassUID", "") or "") == PARAMETRIC_MAP


def _whole(content: Any, name: str) -> int:
    number = int(content.get(name) or 0)
    if number < 1:
        raise VolumeError(f"{name} is {number}; export the series again", code="SHAPE", field=name)
    return number


def _voxel_type(content: Any) -> str:
    """The type of stored numbers: 8, 16 or 32 bits, signed or not; floats of 32 or 64 bits in a parametric map."""
    allocated, signed = int(content.BitsAllocated), int(content.get("PixelRepresentation", 0) or 0)
    if _is_map(content) and allocated in (32, 64):
        return f"f{allocated // 8}"
    if allocated not in (8, 16, 32):
        raise VolumeError(
            f"BitsAllocated is {allocated}; expected 8, 16 or 32", code="VOXELS_TYPE", field="BitsAllocated"
        )
    stored = int(content.get("BitsStored", allocated) or 0)
    if not 1 <= stored <= allocated:
        found = f"BitsStored is {stored} of {allocated} bits; export the series again"
        raise VolumeError(found, code="HEADER_DAMAGED", field="BitsStored")
    high = int(content.get("HighBit", stored - 1) or 0)
    if high != stored - 1:  # pydicom 3.0.2 does not move such bits down
        found = f"HighBit is {high} with {stored} bits stored; expected {stored - 1}, export the series again"
        raise VolumeError(found, code="VOXELS_TYPE", field="HighBit")
    if signed not in (0, 1):
        found = f"PixelRepresentation is {signed}; expected 0 or 1"
        raise VolumeError(found, code="HEADER_DAMAGED", field="PixelRepresentation")
    return f"{'i' if signed else 'u'}{allocated // 8}"


def _require_bytes(path: Path, expected: int) -> None:
    """Refuse an uncompressed file that is shorter than its pixels."""
    found = os.stat(path).st_size  # noqa: PTH116
    if found < expected:
        raise VolumeError(
            f"the header describes {expected} bytes of pixels and the file has {found}; the file is cut off, copy it "
            "again",
            code="FILE_CUT_OFF",
        )


def _kind_of(content: Any, frames: tuple[Frame, ...]) -> dict[str, str]:
    """The fields in which slices of one volume do not differ."""
    names = ("Modality", "RescaleType", "Units", "PixelRepresentation", "BitsAllocated", "PhotometricInterpretation")
    kind = {name: str(content.get(name, "") or "") for name in names}
    kind["Rows x Columns"] = f"{content.Rows} x {content.Columns}"
    return kind


def _frames_of(content: Any, path: Path) -> tuple[Frame, ...]:
    per_frame = content.get("PerFrameFunctionalGroupsSequence")
    count = int(content.get("NumberOfFrames", 1) or 1)
    if not per_frame:
        if count > 1:
            found = (
                f"has {count} frames and no position for each; give classic slices, or an enhanced multi-frame file"
            )
            raise GeometryError(found, code="GRID_UNKNOWN", field="PerFrameFunctionalGroupsSequence")
        marks = {name: _text(content.get(name)) for name in MARKS}
        return (_frame(path, -1, content, marks, rescale_of(content)),)
    if len(per_frame) != count:
        found = f"NumberOfFrames is {count}, and {len(per_frame)} frames are described; export the series again"
        raise VolumeError(found, code="HEADER_DAMAGED", field="NumberOfFrames")
    shared: Any = next(iter(content.get("SharedFunctionalGroupsSequence") or ()), {})
    plain = {name: _text(content.get(name)) for name in MARKS if name not in ("ImageType", "ContentTime")}
    frames = []
    for index, own in enumerate(per_frame):
        groups = _Groups(own, shared)
        with naming(f"frame {index + 1}"):
            rescale = mapping_of(groups.mappings()) if _is_map(content) else rescale_of(groups)
            frames.append(_frame(path, index, groups, plain | groups.marks(), rescale))
    return tuple(frames)


class _Groups:
    """The functional groups of a frame: its own first, then those that all frames share."""

    _PLACES: ClassVar = {
        "ImagePositionPatient": "PlanePositionSequence",
        "ImageOrientationPatient": "PlaneOrientationSequence",
        "PixelSpacing": "PixelMeasuresSequence",
        "SliceThickness": "PixelMeasuresSequence",
        "SpacingBetweenSlices": "PixelMeasuresSequence",
        "RescaleSlope": "PixelValueTransformationSequence",
        "RescaleIntercept": "PixelValueTransformationSequence",
    }

    def __init__(self, own: Any, shared: Any) -> None:
        self._own, self._shared = own, shared

    def _sequence(self, name: str) -> Any:
        return self._own.get(name) or self._shared.get(name) or ()

    def _item(self, name: str) -> Any:
        return next(iter(self._sequence(name)), {})

    def mappings(self) -> Any:
        """The mappings of stored numbers to units."""
        return self._sequence("RealWorldValueMappingSequence")

    def get(self, name: str, default: Any = None) -> Any:
        return self._item(self._PLACES[name]).get(name, default)

    def marks(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for sequence, names in _MARKS_OF_FRAMES.items():
            item = self._item(sequence)
            found |= {mark: _time_of_day(name, _text(item.get(name))) for name, mark in names.items()}
        direction: Any = next(
            iter(self._item("MRDiffusionSequence").get("DiffusionGradientDirectionSequence") or ()), {}
        )
        found["DiffusionGradientOrientation"] = _text(direction.get("DiffusionGradientOrientation"))
        return found


def _time_of_day(name: str, text: str) -> str:
    """A date and time without its date; other values as they are."""
    return text[8:] if name.endswith("DateTime") else text


def _text(value: Any) -> str:
    """A value of a field as text; those of several values joined."""
    if value is None:
        return ""
    if not isinstance(value, str | bytes) and hasattr(value, "__iter__"):
        return "\\".join(str(one) for one in value)
    return str(value).strip()


def _frame(
    path: Path, index: int, content: Any, marks: Mapping[str, str], rescale: tuple[float, float] | None
) -> Frame:
    numbers = {
        name: _numbers(content, name, count)
        for name, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    }
    row_mm, column_mm = numbers["PixelSpacing"]
    if min(row_mm, column_mm) <= 0:
        found = f"PixelSpacing is {row_mm:g} x {column_mm:g} mm; export the series again"
        raise GeometryError(found, code="GRID_BROKEN", field="PixelSpacing")
    x, y, z = numbers["ImagePositionPatient"]
    decimals = max(_decimals(value) for value in content.get("ImagePositionPatient"))
    gaps = (_positive(content.get("SpacingBetweenSlices")), _positive(content.get("SliceThickness")))
    thickness = next((gap for gap in gaps if gap is not None), None)
    given = {name: text for name, text in marks.items() if text}
    return Frame(
        path, index, (x, y, z), numbers["ImageOrientationPatient"], (row_mm, column_mm), decimals, thickness,
        rescale, given,
    )  # fmt: skip


def _numbers(content: Any, name: str, count: int) -> tuple[float, ...]:
    """A field of several finite numbers."""
    values = content.get(name)
    if values is None or isinstance(values, str) or not hasattr(values, "__len__") or len(values) != count:
        found = "is not stated" if values in (None, "") else f"does not have {count} values"
        raise GeometryError(
            f"{name} {found}: the place of the slice is not known; export the series again",
            code="GRID_UNKNOWN",
            field=name,
        )
    numbers = tuple(float(value) for value in values)
    if not all(math.isfinite(number) for number in numbers):
        raise GeometryError(f"{name} is not finite; export the series again", code="GRID_BROKEN", field=name)
    return numbers


def _positive(value: Any) -> float | None:
    number = float(value) if value not in (None, "") else 0.0
    return number if math.isfinite(number) and number > 0 else None


def _decimals(value: Any) -> int:
    """Digits after the point of a number as it is stored; 12 where the text is not known."""
    text = str(getattr(value, "original_string", value)).lower()
    mantissa, _, exponent = text.partition("e")
    return len(mantissa.partition(".")[2]) - (int(exponent) if exponent else 0)
