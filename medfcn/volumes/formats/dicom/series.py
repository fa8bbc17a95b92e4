"""Files of a folder → series → one volume each, or a refusal in one line.

A path stands for a series in one of two ways: a folder for the one series of images in it, and a file for the series
that it belongs to, of which the other slices are beside it.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfcn.errors import GeometryError, MedfcnError, MissingFileError, VolumeError, naming
from medfcn.files import sha256_of
from medfcn.text import counted, listed, shown
from medfcn.volumes.formats.dicom.header import (
    DIRECTORY,
    SEGMENTATIONS,
    STRUCTURE_SET,
    Header,
    Identity,
    is_dicom_file,
    read_header,
    read_identity,
)
from medfcn.volumes.formats.dicom.parts import Parts, parts_of
from medfcn.volumes.formats.dicom.pixels import read_pixels, same_pixels
from medfcn.volumes.formats.dicom.stack import Stack, require_one_orientation, stack_of
from medfcn.volumes.formats.stored import StoredVolume
from medfcn.volumes.geometry import Affine, Shape
from medfcn.volumes.options import ReadOptions

_NO_IMAGES = (
    *SEGMENTATIONS, STRUCTURE_SET,
    "1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.481.5", "1.2.840.10008.5.1.4.1.1.481.8",
    DIRECTORY,
    "1.2.840.10008.5.1.4.1.1.66", "1.2.840.10008.5.1.4.1.1.66.1", "1.2.840.10008.5.1.4.1.1.66.2",
    "1.2.840.10008.5.1.4.1.1.66.3", "1.2.840.10008.5.1.4.1.1.66.5",
)  # fmt: skip
_NO_IMAGE_ROOTS = ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.11.", "1.2.840.10008.5.1.4.1.1.104.")
"""Objects that lie beside images and are none: labels, plans, doses, registrations, reports, presentations."""


@dataclass(frozen=True)
class Series:
    """The files of one series in one folder.

    Attributes:
        folder: Where they are.
        uid: SeriesInstanceUID.
        files: In the order of their names.
        patient: A hash of the patient's id; empty where none is stated.
        instances: UIDs of the objects.
        is_label: True for segmentations and structure sets.
    """

    folder: Path
    uid: str
    files: tuple[Path, ...]
    patient: str
    instances: frozenset[str]
    is_label: bool

    @property
    def short_hash(self) -> str:
        """A name for the series that tells nothing of the patient."""
        return hashlib.sha256(self.uid.encode()).hexdigest()[:8]

    def is_named(self, text: str) -> bool:
        """True if a user names this series: by its UID or its short hash."""
        return text in (self.uid, self.short_hash)


def is_image(identity: Identity) -> bool:
    """True if an object may be slices of a volume."""
    return identity.sop_class not in _NO_IMAGES and not identity.sop_class.startswith(_NO_IMAGE_ROOTS)


def is_label(identity: Identity) -> bool:
    """True if an object is a segmentation or a structure set."""
    return identity.sop_class in (*SEGMENTATIONS, STRUCTURE_SET)


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files of a folder, in the order of their names."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    return [path for path in (folder / name for name in names) if is_dicom_file(path)]


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """True if a path is a DICOM file, or a folder that has one directly in it."""
    given = Path(path)
    try:
        if not given.is_dir():
            return is_dicom_file(given)
        with os.scandir(given) as entries:
            return any(not entry.name.startswith(".") and is_dicom_file(Path(entry.path)) for entry in entries)
    except (OSError, ValueError):
        return False


def series_in(folder: Path) -> tuple[list[Series], list[tuple[Path, MedfcnError]]]:
    """The series of images and of labels in a folder, and the files that cannot be read.

    Each segmentation and structure set is a series of its own file: they share a series without being one volume.
    """
    groups: dict[str, list[Identity]] = {}
    broken: list[tuple[Path, MedfcnError]] = []
    for path in dicom_files(folder):
        try:
            identity = read_identity(path)
        except VolumeError as error:
            broken.append((path, error))
            continue
        if is_label(identity):
            groups[f"{identity.series} {path.name}"] = [identity]
        elif is_image(identity):
            groups.setdefault(identity.series, []).append(identity)
    found = [
        Series(
            folder,
            those[0].series,
            tuple(one.path for one in those),
            those[0].patient,
            frozenset(one.instance for one in those),
            is_label(those[0]),
        )
        for those in groups.values()
    ]
    return found, broken


def series_at(path: Path, *, wanted: str | None = None) -> Series:
    """The series of images that a path stands for.

    Args:
        path: A folder, or one file of the series.
        wanted: The UID or the short hash of a series, where a folder has several.

    Raises:
        MissingFileError: There is nothing at `path`.
        VolumeError: The folder has no series of images, or several and none is chosen.
    """
    if not path.exists():
        raise MissingFileError(f"{shown(path)}: no such file or folder; check the path")
    if not path.is_dir():
        identity = read_identity(path)
        if not is_image(identity):
            read_header(path)  # says what it is
        found, _ = series_in(path.parent)
        return next(one for one in found if one.uid == identity.series and not one.is_label)
    found, broken = series_in(path)
    images = [one for one in found if not one.is_label]
    if wanted is not None:
        images = [one for one in images if one.is_named(wanted)]
    for file, error in broken:
        raise type(error)(f"{shown(path)}: {shown(file)}: {error}", code=error.code, field=error.field)
    if len(images) == 1:
        return images[0]
    if not images:
        of_wanted = f" {wanted}" if wanted else " of images"
        raise VolumeError(
            f"{shown(path)}: no series{of_wanted} in this folder; give the folder of a CT, MR or PET series",
            code="SERIES_UNKNOWN" if wanted else "FILE_KIND",
            field="series",
        )
    names = listed(f"{one.short_hash} ({counted(len(one.files), 'file')})" for one in images)
    raise VolumeError(
        f"{shown(path)}: {len(images)} series in this folder: {names}; choose one with --series",
        code="SERIES_SEVERAL",
        field="series",
    )


def series_name(path: Path) -> str:
    """The name of the series that a path stands for: its folder's, or its only file's, which a short hash follows
    where its folder has several.

    Raises:
        VolumeError: As in `series_at`.
    """
    return _name_of(path, series_at(path))


def _name_of(path: Path, series: Series) -> str:
    if path.is_dir():
        return path.name if path.name not in ("", "..") else path.resolve().name
    if len(series.files) == 1:
        return series.files[0].stem
    folder = series.folder.resolve().name
    several = len([one for one in series_in(series.folder)[0] if not one.is_label]) > 1
    return f"{folder}_{series.short_hash}" if several else folder


@dataclass(frozen=True, eq=False)
class SeriesGrid:
    """A series of which only the headers are read.

    Attributes:
        name: Its folder's name, or that with a short hash.
        series: Its files.
        headers: By file, without copies.
        stack: The slices of the chosen volume and their affine.
        notes: Choices and assumptions.
    """

    name: str
    series: Series
    headers: Mapping[Path, Header]
    stack: Stack
    notes: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """`(I, J, K)`."""
        columns, rows = self.headers[self.stack.frames[0].path].shape
        return columns, rows, len(self.stack.frames)

    @property
    def affine(self) -> Affine:
        """To RAS+ millimetres."""
        return self.stack.affine


def series_grid(path: str | os.PathLike[str], *, options: ReadOptions) -> SeriesGrid:
    """The headers and the grid of a series; errors as in `read_series`, but for those of pixels."""
    given = Path(path)
    series = series_at(given, wanted=options.series)
    name = _name_of(given, series)
    with naming(name):
        headers, notes = _headers_of(series)
        volumes = _volumes_of(headers)
        part = volumes.chosen(options.volume_index)
        if volumes.field:
            numbers = f"volume {options.volume_index} of 0 to {len(volumes.parts) - 1}"
            notes = (*notes, f"{numbers}: {volumes.field} {part.value}")
        stack = stack_of(part.frames, shape=headers[0].shape, keep_shear=options.xform == "sform")
    return SeriesGrid(name, series, {header.path: header for header in headers}, stack, (*notes, *stack.notes))


def read_series(path: str | os.PathLike[str], *, options: ReadOptions) -> StoredVolume:
    """Read the volume of a series, or refuse it in one line.

    Raises:
        MissingFileError: There is nothing at `path`.
        VolumeError: It is no series of images, contains several volumes, or its pixels cannot be decoded.
        GeometryError: Its slices are not one even stack.
    """
    grid = series_grid(path, options=options)
    with naming(grid.name):
        array, slope, inter = read_pixels(grid.stack.frames, grid.headers, max_bytes=options.max_bytes)
    digest = series_sha256(grid.series.files)
    return StoredVolume(array, grid.affine, grid.name, digest, slope=slope, inter=inter, notes=grid.notes)


def series_sha256(files: Iterable[Path]) -> str:
    """One hash for the files of a series, whatever their names and their order."""
    return hashlib.sha256("".join(sorted(map(sha256_of, files))).encode()).hexdigest()


def count_volumes(path: str | os.PathLike[str], *, wanted: str | None = None) -> int:
    """Number of volumes in a series; 1 for one that is refused."""
    try:
        headers, _ = _headers_of(series_at(Path(path), wanted=wanted))
        return len(_volumes_of(headers).parts)
    except MedfcnError:
        return 1


def _headers_of(series: Series) -> tuple[tuple[Header, ...], tuple[str, ...]]:
    """The header of each file, one for each object, and a note of copies that were dropped.

    Raises:
        VolumeError: Two files of one object differ.
    """
    kept: dict[str, Header] = {}
    copies = 0
    for path in series.files:
        header = read_header(path)
        other = kept.setdefault(header.instance, header)
        if other is header:
            continue
        places = [tuple(frame.position for frame in one.frames) for one in (other, header)]
        if places[0] != places[1] or not same_pixels(other.path, header.path):
            found = f"{shown(other.path)} and {shown(header.path)} have one SOPInstanceUID and are not the same slice"
            raise VolumeError(f"{found}; keep one", code="SLICE_DOUBLED", field="SOPInstanceUID")
        copies += 1
    notes = (f"{counted(copies, 'file')} dropped: copies of others, with the same SOPInstanceUID",) if copies else ()
    return tuple(kept.values()), notes


def _volumes_of(headers: Sequence[Header]) -> Parts:
    """The volumes of a series whose files agree in all that a volume shares.

    Raises:
        GeometryError: They do not.
    """
    _require_one([header.patient for header in headers], headers, "PatientID", "patient or study")
    _require_one(
        [header.frame_of_reference for header in headers], headers, "FrameOfReferenceUID", "frame of reference"
    )
    for field in headers[0].kind:
        _require_one([header.kind[field] for header in headers], headers, field, field, show=True)
    frames = [frame for header in headers for frame in header.frames]
    scaled = [frame for frame in frames if frame.rescale is not None]
    if 0 < len(scaled) < len(frames):
        bare = next(frame for frame in frames if frame.rescale is None)
        raise VolumeError(
            f"RescaleSlope is stated for {len(scaled)} of {len(frames)} slices, not for {bare.name}; export the"
            " series again",
            code="VOXELS_SCALING",
            field="RescaleSlope",
        )
    require_one_orientation(frames, headers[0].shape)
    return parts_of(frames)


def _require_one(
    values: Sequence[str], headers: Sequence[Header], field: str, name: str, *, show: bool = False
) -> None:
    """Refuse files that differ in a field that all slices of a volume share."""
    found: dict[str, list[Header]] = {}
    for value, header in zip(values, headers, strict=True):
        found.setdefault(value, []).append(header)
    if len(found) == 1:
        return
    texts = (
        f"{value or 'none'} in {len(those)} ({shown(those[0].path)})"
        if show
        else f"{len(those)} ({shown(those[0].path)})"
        for value, those in found.items()
    )
    raise GeometryError(
        f"files of one series differ in {name}: {listed(texts, limit=4)}; give one volume",
        code="SLICES_MIXED",
        field=field,
    )
