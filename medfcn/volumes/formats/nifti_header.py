"""The strict gate: a NIfTI header is understood completely, or refused in one line naming the field.

The 348 or 540 bytes are read with numpy, field by field, before anything is allocated and before any library
is asked. What passes is a `NiftiHeader`: every number that is needed to read the voxels and place them.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import VolumeError
from medfcn.volumes.formats.nifti_transforms import RawTransforms, choose_affine
from medfcn.volumes.formats.sniff import describe_bytes
from medfcn.volumes.geometry import Affine, Shape
from medfcn.volumes.options import ReadOptions

ByteOrder = Literal["<", ">"]

_FIELDS_1: list[Any] = [
    *[
        ("sizeof_hdr", "i4"),
        ("data_type", "S10"),
        ("db_name", "S18"),
        ("extents", "i4"),
        ("session_error", "i2"),
    ],
    *[("regular", "S1"), ("dim_info", "u1"), ("dim", "i2", (8,)), ("intent_p", "f4", (3,))],
    *[("intent_code", "i2"), ("datatype", "i2"), ("bitpix", "i2"), ("slice_start", "i2")],
    *[("pixdim", "f4", (8,)), ("vox_offset", "f4"), ("scl_slope", "f4"), ("scl_inter", "f4")],
    *[("slice_end", "i2"), ("slice_code", "u1"), ("xyzt_units", "u1"), ("cal_max", "f4"), ("cal_min", "f4")],
    *[("slice_duration", "f4"), ("toffset", "f4"), ("glmax", "i4"), ("glmin", "i4"), ("descrip", "S80")],
    *[("aux_file", "S24"), ("qform_code", "i2"), ("sform_code", "i2"), ("quatern", "f4", (3,))],
    *[("qoffset", "f4", (3,)), ("srow", "f4", (3, 4)), ("intent_name", "S16"), ("magic", "V4")],
]
_FIELDS_2: list[Any] = [
    *[("sizeof_hdr", "i4"), ("magic", "V8"), ("datatype", "i2"), ("bitpix", "i2"), ("dim", "i8", (8,))],
    *[("intent_p", "f8", (3,)), ("pixdim", "f8", (8,)), ("vox_offset", "i8"), ("scl_slope", "f8")],
    *[("scl_inter", "f8"), ("cal_max", "f8"), ("cal_min", "f8"), ("slice_duration", "f8"), ("toffset", "f8")],
    *[("slice_start", "i8"), ("slice_end", "i8"), ("descrip", "S80"), ("aux_file", "S24")],
    *[("qform_code", "i4"), ("sform_code", "i4"), ("quatern", "f8", (3,)), ("qoffset", "f8", (3,))],
    *[("srow", "f8", (3, 4)), ("slice_code", "i4"), ("xyzt_units", "i4"), ("intent_code", "i4")],
    *[("intent_name", "S16"), ("dim_info", "u1"), ("unused_str", "S15")],
]
HEADER_FIELDS = {1: np.dtype(_FIELDS_1), 2: np.dtype(_FIELDS_2)}
"""The layout of the NIfTI-1 and NIfTI-2 headers. Source: nifti1.h and nifti2.h, nifti.nimh.nih.gov."""

HEADER_BYTES = {1: 348, 2: 540}
LARGEST_EXTENSION = 64 << 20
"""More than this between a header and its voxels is no extension."""
MAGIC = {1: (b"n+1\0", b"ni1\0"), 2: (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")}

VOXEL_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
"""Datatype codes that are read, and numpy's names for them."""
_REFUSED_TYPES = {
    0: "unknown",
    1: "1-bit binary",
    32: "complex64",
    128: "RGB24 colour",
    1536: "float128",
    1792: "complex128",
    2048: "complex256",
    2304: "RGBA32 colour",
}
_UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_GEOMETRY_FIELDS = ("dim", "pixdim", "qform_code", "sform_code", "quatern", "qoffset", "srow", "xyzt_units")


@dataclass(frozen=True)
class NiftiGeometry:
    """The header fields that place a volume, as the file held them, to be written back byte for byte.

    Nothing else of a header is kept: no text, no extension, no intent.
    """

    version: Literal[1, 2]
    byte_order: ByteOrder
    fields: tuple[tuple[str, bytes], ...]
    """The raw bytes of dim, pixdim, both codes, the quaternion and its offset, the rows and the units."""

    @property
    def record(self) -> NDArray[np.void]:
        """A header (a numpy record) that is zero but for these fields."""
        record = np.zeros((), dtype=HEADER_FIELDS[self.version].newbyteorder(self.byte_order))
        for name, raw in self.fields:
            field = record.dtype[name]
            record[name] = np.frombuffer(raw, dtype=field.base).reshape(field.shape)
        return record

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The shape as the file states it, trailing dimensions of length 1 included."""
        dim = self.record["dim"]
        return tuple(int(size) for size in dim[1 : int(dim[0]) + 1])

    @property
    def transforms(self) -> RawTransforms:
        """Both transforms and their codes."""
        return transforms_of(self.record)

    def describes(self, shape: Shape, affine: Affine) -> bool:
        """Whether one of the header's transforms is this grid's, to the bit."""
        full = self.full_shape
        if full[:3] != shape or any(size != 1 for size in full[3:]):
            return False
        millimetres = _UNITS_MM.get(int(self.record["xyzt_units"]) & 7, 1.0)
        for candidate in self.transforms.candidates():
            candidate[:3] *= millimetres
            if np.array_equal(candidate, affine):
                return True
        return False

    def as_three_dimensional(self) -> "NiftiGeometry":
        """The same for one volume taken out of a 4D file."""
        record = self.record
        record["dim"][0] = 3
        record["dim"][4:] = 1
        return replace(self, fields=_raw_fields(record))


@dataclass(frozen=True)
class NiftiHeader:
    """Everything needed to read a file's voxels and to place them."""

    geometry: NiftiGeometry
    affine: Affine
    """To RAS+ millimetres."""
    shape: Shape
    """Of the one volume that is read."""
    volumes: int
    """How many volumes the file holds."""
    volume_index: int
    voxel_type: np.dtype[Any]
    """As stored, with its byte order."""
    vox_offset: int
    """Where the voxels begin, in the `.nii` or the `.img` file."""
    is_pair: bool
    slope: float
    """1 when the voxels are stored as they are meant."""
    inter: float
    notes: tuple[str, ...]
    """What was assumed or chosen, in words a user can be shown once."""

    @property
    def voxel_bytes(self) -> int:
        """Bytes of all volumes of the file."""
        return math.prod(self.shape) * self.volumes * self.voxel_type.itemsize

    @property
    def end(self) -> int:
        """How long the file that holds the voxels must be."""
        return self.vox_offset + self.voxel_bytes


def header_length(start: bytes) -> int | None:
    """348 or 540, told from a file's first four bytes; None when they are no NIfTI header's."""
    for size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
        if size in HEADER_BYTES.values():
            return size
    return None


def parse_header(raw: bytes, *, name: str, options: ReadOptions, is_pair: bool = False) -> NiftiHeader:
    """Read a header, or say which of its fields cannot be trusted.

    Args:
        raw: The first bytes of the file: 540, or all there are.
        name: The file's name, for messages.
        options: What has been opted in to.
        is_pair: Whether the file is the `.hdr` of a pair.

    Raises:
        VolumeError: A field is absent, contradicts another or is not supported.
        GeometryError: The transforms are absent, broken or contradict each other.
    """
    record, version, order = header_record(raw, name)
    _check_magic(record, version, name=name, is_pair=is_pair)
    voxel_type = _voxel_type_of(record, name).newbyteorder(order)
    shape, volumes, index = _shape_of(record, name, options)
    slope, inter = _scaling_of(record, name)
    geometry = NiftiGeometry(version, order, _raw_fields(record))
    millimetres, notes = _millimetres_of(record, name)
    affine, more_notes = choose_affine(
        transforms_of(record), shape, name=name, options=options, millimetres=millimetres
    )
    return NiftiHeader(
        geometry=geometry if volumes == 1 else geometry.as_three_dimensional(),
        affine=affine,
        shape=shape,
        volumes=volumes,
        volume_index=index,
        voxel_type=voxel_type,
        vox_offset=_offset_of(record, version, name=name, is_pair=is_pair),
        is_pair=is_pair,
        slope=slope,
        inter=inter,
        notes=notes + more_notes,
    )


def header_record(raw: bytes, name: str) -> tuple[NDArray[np.void], Literal[1, 2], ByteOrder]:
    """The fields of a header, its version and its byte order.

    Raises:
        VolumeError: It is no NIfTI header, or is cut off.
    """
    length = header_length(raw)
    if length is None:
        raise VolumeError(f"{name}: {describe_bytes(raw)}")
    version: Literal[1, 2] = 1 if length == HEADER_BYTES[1] else 2
    if len(raw) < length:
        raise VolumeError(
            f"{name}: the header is cut off after {len(raw)} of {length} bytes; copy or download the file again"
        )
    order: ByteOrder = "<" if int.from_bytes(raw[:4], "little") == length else ">"
    dtype = HEADER_FIELDS[version].newbyteorder(order)
    return np.frombuffer(raw[:length], dtype=dtype)[0:1].reshape(()), version, order


def _check_magic(record: NDArray[np.void], version: Literal[1, 2], *, name: str, is_pair: bool) -> None:
    magic = bytes(record["magic"].tobytes())
    single, paired = MAGIC[version]
    if magic == (paired if is_pair else single):
        return
    if magic == (single if is_pair else paired):
        kind = "a single .nii file" if is_pair else "the .hdr of a .hdr/.img pair"
        raise VolumeError(f"{name}: magic says this is {kind}; rename it, or re-export it as .nii.gz")
    if version == 1 and magic[:1] in (b"\0", b"\x20"):
        raise VolumeError(
            f"{name}: an ANALYZE 7.5 header (magic is empty), which does not say left from right; "
            "convert it to NIfTI with the tool that wrote it"
        )
    raise VolumeError(f"{name}: magic is {magic!r}; expected {single!r}; the header is damaged, re-export the file")


def _voxel_type_of(record: NDArray[np.void], name: str) -> np.dtype[Any]:
    intent, code, bits = int(record["intent_code"]), int(record["datatype"]), int(record["bitpix"])
    if 3000 <= intent <= 3099:
        raise VolumeError(f"{name}: intent_code {intent}: a CIFTI file, not a volume; export a NIfTI volume")
    if code not in VOXEL_TYPES:
        kind = _REFUSED_TYPES.get(code, "no NIfTI type")
        raise VolumeError(f"{name}: datatype {code} ({kind}) is not a scalar image; export it as int16 or float32")
    voxel_type = np.dtype(VOXEL_TYPES[code])
    if bits != 8 * voxel_type.itemsize:
        raise VolumeError(
            f"{name}: bitpix {bits} contradicts datatype {code} ({voxel_type.name}); the header is damaged, "
            "re-export the file"
        )
    return voxel_type


def _shape_of(record: NDArray[np.void], name: str, options: ReadOptions) -> tuple[Shape, int, int]:
    """The shape of one volume, how many volumes there are, and which is wanted."""
    dim = [int(size) for size in record["dim"]]
    if not 1 <= dim[0] <= 7:
        raise VolumeError(f"{name}: dim[0] is {dim[0]}; expected 3; the header is damaged, re-export the file")
    sizes = dim[1 : dim[0] + 1]
    for axis, size in enumerate(sizes, start=1):
        if size <= 0:
            raise VolumeError(f"{name}: dim[{axis}] is {size}; expected at least 1; re-export the file")
    shown_shape = " x ".join(str(size) for size in sizes)
    if len(sizes) < 3:
        raise VolumeError(f"{name}: dim says {len(sizes)}D ({shown_shape}); a volume has three; export it as 3D")
    volumes = math.prod(sizes[3:])
    wanted = options.volume_index
    if math.prod(sizes[4:]) > 1:
        raise VolumeError(f"{name}: dim says {len(sizes)}D ({shown_shape}); a volume has three; export it as 3D")
    if volumes > 1 and wanted is None:
        raise VolumeError(
            f"{name}: dim says 4D ({shown_shape}): {volumes} volumes; choose one with --volume 0 to {volumes - 1}"
        )
    if wanted is not None and wanted >= volumes:
        raise VolumeError(f"{name}: has no volume {wanted}; it holds {volumes}, numbered from 0")
    return (sizes[0], sizes[1], sizes[2]), volumes, wanted or 0


def _scaling_of(record: NDArray[np.void], name: str) -> tuple[float, float]:
    """Slope and intercept; NIfTI's rule is that a slope of 0 means no scaling at all."""
    slope, inter = float(record["scl_slope"]), float(record["scl_inter"])
    for field, number in (("scl_slope", slope), ("scl_inter", inter)):
        if not math.isfinite(number):
            raise VolumeError(f"{name}: {field} is {number}; expected a number; re-export the file")
    return (slope, inter) if slope != 0.0 else (1.0, 0.0)


def _offset_of(record: NDArray[np.void], version: Literal[1, 2], *, name: str, is_pair: bool) -> int:
    offset = float(record["vox_offset"])
    least = 0 if is_pair else HEADER_BYTES[version] + 4
    if not (math.isfinite(offset) and offset == int(offset) and least <= offset <= LARGEST_EXTENSION):
        raise VolumeError(
            f"{name}: vox_offset is {offset:g}; expected a whole number from {least} to {LARGEST_EXTENSION}; "
            "re-export the file"
        )
    return int(record["vox_offset"])


def _millimetres_of(record: NDArray[np.void], name: str) -> tuple[float, tuple[str, ...]]:
    """Millimetres in the file's unit of length."""
    code = int(record["xyzt_units"]) & 7
    if code not in _UNITS_MM:
        raise VolumeError(f"{name}: xyzt_units names no unit of length ({code}); expected 2 (mm); re-export the file")
    if code == 0:
        return 1.0, ("unit of length not stated: millimetres assumed",)
    return _UNITS_MM[code], () if code == 2 else (f"lengths converted from {'metres' if code == 1 else 'microns'}",)


def transforms_of(record: NDArray[np.void]) -> RawTransforms:
    """Both transforms of a header."""

    def numbers(field: str) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # a signalling NaN is refused later, by name
            return np.asarray(record[field], dtype=np.float64)

    return RawTransforms(
        pixdim=numbers("pixdim"),
        qform_code=int(record["qform_code"]),
        sform_code=int(record["sform_code"]),
        quaternion=numbers("quatern"),
        offset=numbers("qoffset"),
        rows=numbers("srow"),
    )


def _raw_fields(record: NDArray[np.void]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, record[name].tobytes()) for name in _GEOMETRY_FIELDS)
