"""The masks of a batch as DICOM objects beside them, `<case>.dcm`."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from medfcn.errors import MedfcnError, SettingsError, WriteError, naming
from medfcn.exporting.dicom_seg import Code, probabilities_of, segmentation_of
from medfcn.exporting.dicom_source import Source, save_dicom, uid_of
from medfcn.exporting.rtstruct import structure_set_of
from medfcn.labels import LabelMap, read_mask
from medfcn.labels.dicom import dicom_label
from medfcn.labels.sidecar import MaskRecord
from medfcn.labels.structures import structure_labels
from medfcn.memory_errors import one_memory_error
from medfcn.progress import Progress, warn
from medfcn.runs.folder import PROBABILITIES_FOLDER
from medfcn.text import failure, listed, shown
from medfcn.volumes import ReadOptions, Volume, read_volume
from medfcn.volumes.formats.dicom.header import read_identity
from medfcn.volumes.formats.dicom.series import is_dicom
from medfcn.volumes.names import extension_of, stem_of

MaskFormat = Literal["nifti", "bids", "dicom-seg", "rtstruct"]
ENDING = ".dcm"


def checked_format(name: str) -> MaskFormat:
    """The name of a format of masks.

    Raises:
        SettingsError: There is none of this name.
    """
    for known in get_args(MaskFormat):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise SettingsError(f"format {name!r}: not one of {listed(get_args(MaskFormat))}", field="format")


@dataclass(frozen=True, kw_only=True)
class MaskExport:
    """How masks are written once more as DICOM.

    Attributes:
        format: `dicom-seg` or `rtstruct`.
        options: How the series were read.
        codes: Concepts of labels by name; see `parse_codes`.
    """

    format: MaskFormat
    options: ReadOptions
    codes: Mapping[str, Code] = field(default_factory=dict)

    def write(self, mask: Path, image: Path, probabilities: Sequence[Path] = ()) -> Path:
        """Write the object of one mask beside it, read it back, and compare its voxels.

        Args:
            mask: The mask's file, with its record beside it.
            image: The series that it was made of.
            probabilities: The files of each label's probabilities; they become a fractional segmentation.

        Returns:
            The file.

        Raises:
            SettingsError: The image is no DICOM series, or nothing says what the mask's labels are.
            VolumeError: The series or the mask is refused.
            WriteError: The file cannot be written, or is read back as another mask.
        """
        record = MaskRecord.beside(mask)
        if record is None or record.labels is None:
            raise SettingsError(f"{mask.name}: has no record that names its labels; predict it again", field="labels")
        labels, source = record.labels, Source.of(image, self.options)
        volume, path = read_volume(mask), mask.with_name(f"{stem_of(mask)}{ENDING}")
        key = f"{source.grid.series.uid} {record.mask_sha256}"
        if self.format == "rtstruct":
            save_dicom(structure_set_of(volume, labels, source, key), path)
        else:
            save_dicom(segmentation_of(volume, labels, source, self.codes, key), path)
        self._verify(path, image, volume, labels)
        if probabilities and self.format == "dicom-seg":
            shares = [read_volume(file) for file in probabilities]
            beside = probabilities[0].with_name(f"{stem_of(mask)}{ENDING}")
            save_dicom(probabilities_of(shares, labels, source, self.codes, key), beside)
        return path

    def is_done(self, mask: Path, image: Path) -> bool:
        """True if the object beside a mask is the one of this mask and this series."""
        path, record = mask.with_name(f"{stem_of(mask)}{ENDING}"), MaskRecord.beside(mask)
        if record is None or not path.is_file():
            return False
        key = f"{Source.of(image, self.options).grid.series.uid} {record.mask_sha256}"
        kind = "structure set" if self.format == "rtstruct" else "BINARY"
        return read_identity(path).instance == uid_of(key, kind, "instance")

    def _verify(self, path: Path, image: Path, mask: Volume, labels: LabelMap) -> None:
        """Read the object back onto the grid of its series, and remove it if it is another mask."""
        label = dicom_label(path, stem_of(path)).on_grid_of(image)
        names = list(label.files)
        for place, name in enumerate(names, start=1):
            stored = read_mask(label, labels=structure_labels({name: (name,)}), options=self.options).array != 0
            values = [overlap.written for overlap in labels.overlaps if place in overlap.labels]
            if not np.array_equal(stored, np.isin(mask.array, values)):
                path.unlink(missing_ok=True)
                raise WriteError(f"{path.name}: was read back with another {name} than the mask has; it was removed")


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A predicted case, as far as its export needs it.

    Attributes:
        case: Its id.
        mask: The mask's file.
        image: The series.
        is_new: False for a mask that was kept: its object is kept too, if it is this mask's.
    """

    case: str
    mask: Path
    image: Path
    is_new: bool

    @property
    def probabilities(self) -> tuple[Path, ...]:
        """The files of each label's probabilities; none where they were not requested."""
        inner, stem = self.mask.parent / PROBABILITIES_FOLDER, stem_of(self.mask)
        one = inner / f"{stem}.nii.gz"
        return (one,) if one.is_file() else tuple(sorted(inner.glob(f"{glob.escape(stem)}_*.nii.gz"), key=_place))


def _place(path: Path) -> int:
    """The value of a label in the name of its file of probabilities."""
    number = stem_of(path).rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def require_series(images: Iterable[Path]) -> None:
    """Refuse to begin where an image is no DICOM series.

    Raises:
        SettingsError: One is not.
    """
    for image in images:
        if extension_of(image) or not is_dicom(image):
            raise SettingsError(
                f"{shown(image)}: is no DICOM series, and a DICOM output refers to one; leave --format out",
                field="format",
            )


def export_masks(export: MaskExport, cases: Iterable[Masked], progress: Progress) -> list[tuple[str, str]]:
    """Write the objects of some masks.

    Returns:
        Id and error, in one line, of each case without an object.

    Raises:
        WriteError: The disk is full, or a folder may not be written to.
    """
    failures = []
    for one in cases:
        try:
            with naming(one.case), one_memory_error(one.case):
                if one.is_new or not export.is_done(one.mask, one.image):
                    export.write(one.mask, one.image, one.probabilities)
        except WriteError:
            raise
        except MedfcnError as error:
            failures.append((one.case, str(error)))
            warn(progress, failure(one.case, str(error)))
    return failures
