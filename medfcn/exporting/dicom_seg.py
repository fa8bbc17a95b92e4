"""A mask or its probabilities as a DICOM segmentation that refers to the slices of its series.

Every frame is written, the empty ones too: SimpleITK 2.5.7 reads a binary segmentation without them as a cropped
stack in reverse order. highdicom writes the object; this is the one door to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError, SettingsError
from medfcn.exporting.dicom_source import Source, name_in_object, same_patient, software, uid_of
from medfcn.labels import LabelMap
from medfcn.volumes import Volume
from medfcn.volumes.formats.dicom.library import guarded

_NEEDED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
"""Fields that highdicom 0.28.2 wants in every slice."""
_ABNORMAL = ("tumor", "tumour", "lesion", "neoplasm", "mass", "metastasis", "cyst", "gtv", "edema", "nodule")
_SIDES = ("left", "right", "anterior", "posterior", "upper", "lower", "superior", "inferior", "middle")
Code = tuple[str, str, str]
"""Scheme, value and meaning of a coded concept."""
_LEAST_SHARE = 1 / 510
"""highdicom 0.28.2 raises IndexError for a map of probabilities that are all below this."""


def parse_codes(text: str) -> dict[str, Code]:
    """Coded concepts of labels from `NAME=SCHEME:VALUE:MEANING`, several with `;`.

    Raises:
        SettingsError: It is not written so.

    Example:
        >>> parse_codes("gtv=SCT:86049000:Malignant neoplasm, primary")
        {'gtv': ('SCT', '86049000', 'Malignant neoplasm, primary')}
    """
    codes: dict[str, Code] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, _, code = part.partition("=")
        parts = [piece.strip() for piece in code.split(":", 2)]
        if len(parts) != 3 or not all((name.strip(), *parts)):
            found = f"{part!r} is not NAME=SCHEME:VALUE:MEANING, such as liver=SCT:10200004:Liver"
            raise SettingsError(found, field="codes")
        codes[name.strip()] = (parts[0], parts[1], parts[2])
    return codes


def segmentation_of(mask: Volume, labels: LabelMap, source: Source, codes: Mapping[str, Code], key: str) -> Any:
    """A binary segmentation with a segment for each label, in the order of the labels.

    Args:
        mask: With the labels' written values, on the grid of the series.
        labels: Its labels.
        source: The series.
        codes: Concepts of labels by name; those of other labels are looked up by their names.
        key: Decides the UIDs, so that the same mask of the same series is the same object again.

    Raises:
        GeometryMismatchError: The mask is on another grid.
    """
    stored = source.slices_of(mask)
    if labels.overlapping or len(labels.entries) > 255:
        layers = [
            np.isin(stored, [overlap.written for overlap in labels.overlaps if place in overlap.labels])
            for place in range(1, len(labels.entries) + 1)
        ]
        pixels = np.stack(layers, axis=-1).astype(np.uint8)
    else:
        pixels = np.zeros(stored.shape, dtype=np.uint8)
        for overlap in labels.overlaps:
            pixels[stored == overlap.written] = overlap.labels[0]
    return _segmentation("BINARY", pixels, labels.names, source, codes, key)


def probabilities_of(
    shares: Sequence[Volume], labels: LabelMap, source: Source, codes: Mapping[str, Code], key: str
) -> Any:
    """A fractional segmentation with the probabilities of each label, in 255 steps.

    Args:
        shares: Probabilities of each label, on the grid of the series.
        labels: As in `segmentation_of`, like the rest.
        source: The series.
        codes: Concepts of labels by name.
        key: Decides the UIDs.
    """
    stacked = np.stack([source.slices_of(share) for share in shares], axis=-1).astype(np.float32)
    pixels = np.clip(stacked, 0.0, 1.0)
    if float(pixels.max()) < _LEAST_SHARE:  # all are stored as 0
        pixels = np.zeros(pixels.shape, dtype=np.uint8)
    return _segmentation("FRACTIONAL", pixels, labels.names, source, codes, key)


def _segmentation(
    kind: str, pixels: NDArray[Any], names: Sequence[str], source: Source, codes: Mapping[str, Code], key: str
) -> Any:
    with guarded("the segmentation cannot be made", "report this", "FAILED"):
        import highdicom
        from highdicom.seg import Segmentation

        images = [_complete(image) for image in source.datasets]
        maker, number = software()
        content: Any = Segmentation(
            source_images=images,
            pixel_array=_in_stored_order(pixels, source),
            segmentation_type=kind,
            segment_descriptions=[_description(place, name, codes) for place, name in enumerate(names, start=1)],
            series_instance_uid=uid_of(key, kind, "series"),
            series_number=_series_number(images[0]),
            sop_instance_uid=uid_of(key, kind, "instance"),
            instance_number=1,
            manufacturer=maker,
            manufacturer_model_name=maker,
            software_versions=number,
            device_serial_number="0",
            omit_empty_frames=False,
            content_description="segmentation" if kind == "BINARY" else "probabilities",
            content_label=kind,
            fractional_type="PROBABILITY",
            plane_positions=[
                highdicom.PlanePositionSequence("PATIENT", _position(frame.position))
                for frame in _stored_frames(source)
            ],
        )
        content.SeriesDescription = f"{maker} {number} {content.ContentDescription}"
        same_patient(content, source.datasets[0])
        return content


def _position(position: tuple[float, float, float]) -> list[float]:
    return [float(f"{number:.10g}") for number in position]


def _stored_frames(source: Source) -> list[Any]:
    """The slices in the order in which highdicom takes the images: frames as their file has them."""
    frames = list(source.grid.stack.frames)
    return sorted(frames, key=lambda frame: frame.index) if source.is_multi_frame else frames


def _in_stored_order(pixels: NDArray[Any], source: Source) -> NDArray[Any]:
    if not source.is_multi_frame:
        return pixels
    frames = source.grid.stack.frames
    count = sum(len(header.frames) for header in source.grid.headers.values())
    if len(source.datasets) != 1 or count != len(frames):
        raise GeometryMismatchError(
            "a series of several volumes in multi-frame files has no DICOM output; leave --format out"
        )
    order = [source.grid.stack.frames.index(frame) for frame in _stored_frames(source)]
    return pixels[order]


def _series_number(image: Any) -> int:
    """A series number that says which series it belongs to, as scanners number derived series."""
    with suppress(TypeError, ValueError):
        return int(image.get("SeriesNumber")) * 100 + 1
    return 1


def _complete(image: Any) -> Any:
    """A slice's header with the fields that highdicom wants, empty where it has none."""
    from pydicom import Dataset

    complete: Any = Dataset()  # a copy of pydicom shares its elements with the original
    complete.update(image)
    for name in _NEEDED:
        if name not in complete:
            setattr(complete, name, "")
    if not complete.get("FrameOfReferenceUID"):
        complete.FrameOfReferenceUID = uid_of(str(complete.get("SeriesInstanceUID", "")), "frame of reference")
    return complete


def _description(place: int, name: str, codes: Mapping[str, Code]) -> Any:
    """A segment with its name and its concept."""
    import highdicom
    from highdicom.seg import SegmentDescription

    category, kind = _concepts(name, codes)
    maker, number = software()
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=maker, family=highdicom.sr.CodedConcept("123109", "DCM", "Artificial Intelligence"), version=number
    )
    return SegmentDescription(
        segment_number=place,
        segment_label=name_in_object(name),
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )


def _concepts(name: str, codes: Mapping[str, Code]) -> tuple[Any, Any]:
    """The category and the type of a label, from SNOMED's names in pydicom; tissue where none is known."""
    import highdicom

    concept = highdicom.sr.CodedConcept
    words = [word for word in name.lower().replace("-", " ").replace("_", " ").split() if word]
    abnormal = any(word in _ABNORMAL for word in words)
    category = (
        concept("49755003", "SCT", "Morphologically Abnormal Structure")
        if abnormal
        else concept("123037004", "SCT", "Anatomical Structure")
    )
    if name in codes:
        scheme, value, meaning = codes[name]
        return category, concept(value, scheme, meaning[:64])
    for wanted in (words, [word for word in words if word not in _SIDES]):
        found = _known(wanted) or _known([word.removesuffix("s") for word in wanted])
        if found is not None:
            return category, concept(found.value, found.scheme_designator, found.meaning[:64])
    if abnormal:
        return category, concept("52988006", "SCT", "Lesion")
    return concept("85756007", "SCT", "Tissue"), concept("85756007", "SCT", "Tissue")


def _known(words: Sequence[str]) -> Any:
    """The SNOMED concept of this name in pydicom's dictionary; None without."""
    from pydicom.sr.codedict import codes

    keyword = "".join(word.capitalize() for word in words)
    if not keyword.isalpha():
        return None
    with suppress(AttributeError, RuntimeError):
        return getattr(codes.SCT, keyword)
    return None
