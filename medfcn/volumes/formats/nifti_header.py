"""NIfTI headers: understood completely, or refused in one line that names the field.

The 348 or 540 bytes are read with numpy, field by field, before anything is allocated and before any other library
is used. The result is a `NiftiHeader`: every number that is needed to read the voxels and place them.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medfcn.volumes.formats.nifti_transforms import RawTransforms, choose_affine
from medfcn.volumes.formats.refusals import bad_field, other_kind
from medfcn.volumes.geometry import Affine, Shape
from medfcn.volumes.options import ReadOptions

ByteOrder = Literal["<", ">"]


def _layout(fields: str) -> np.dtype[Any]:
    """A record type from alternating names and numpy formats, in the order of their bytes."""
    words = fields.split()
    return np.dtype(list(zip(words[::2], words[1::2], strict=True)))


HEADER_FIELDS = {
    348: _layout(
        """
        sizeof_hdr i4  data_type S10  db_name S18  extents i4  session_error i2  regular S1  dim_info u1  dim 8i2
        intent_p 3f4  intent_code i2  datatype i2  bitpix i2  slice_start i2  pixdim 8f4  vox_offset f4
        scl_slope f4  scl_inter f4  slice_end i2  slice_code u1  xyzt_units u1  cal_max f4  cal_min f4
        slice_duration f4  toffset f4  glmax i4  glmin i4  descrip S80  aux_file S24  qform_code i2  sform_code i2
        quatern 3f4  qoffset 3f4  srow (3,4)f4  intent_name S16  magic V4
        """
    ),
    540: _layout(
        """
        sizeof_hdr i4  magic V8  datatype i2  bitpix i2  dim 8i8  intent_p 3f8  pixdim 8f8  vox_offset i8
        scl_slope f8  scl_inter f8  cal_max f8  cal_min f8  slice_duration f8  toffset f8  slice_start i8
        slice_end i8  descrip S80  aux_file S24  qform_code i4  sform_code i4  quatern 3f8  qoffset 3f8
        srow (3,4)f8  slice_code i4  xyzt_units i4  intent_code i4  intent_name S16  dim_info u1  unused_str S15
        """
    ),
}
"""The layout of the NIfTI-1 and NIfTI-2 headers, by their length. Source: nifti1.h, nifti2.h, nifti.nimh.nih.gov."""
MAGIC = {348: (b"n+1\0", b"ni1\0"), 540: (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")}
"""The magic of a single file and of a pair, by the length of the header."""
LARGEST_EXTENSION = 64 << 20
"""More bytes than this between a header and its voxels are not an extension."""

VOXEL_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
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
_VECTORS = range(1004, 1011)
"""Intents of voxels that are matrices, vectors or points: nifti1.h."""
_LEAST_SLOPE = 2.3e-16
"""Some readers take a smaller slope for none."""
_UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_GEOMETRY_FIELDS = ("dim", "pixdim", "qform_code", "sform_code", "quatern", "qoffset", "srow", "xyzt_units")


@dataclass(frozen=True)
class NiftiGeometry:
    """The header fields that place a volume, as they were in the file, to be written back byte for byte.

    Nothing else of a header is kept: no text, no extension, no intent.
    """

    raw: bytes
    """A header that is zero but for its length, dim, pixdim, both codes, quaternion, offset, rows and units."""

    @classmethod
    def of(cls, record: NDArray[np.void]) -> "NiftiGeometry":
        """The geometry of a whole header."""
        kept = np.zeros((), dtype=record.dtype)
        for name in ("sizeof_hdr", *_GEOMETRY_FIELDS):
            kept[name] = record[name]
        return cls(kept.tobytes())

    @property
    def record(self) -> NDArray[np.void]:
        """The fields, as a numpy record of a whole header."""
        return header_record(self.raw)[0].copy()

    def describes(self, shape: tuple[int, ...], affine: Affine) -> bool:
        """True if one of the header's transforms is this grid's, to the bit."""
        record = self.record
        full = record["dim"][1 : int(record["dim"][0]) + 1].tolist()
        if tuple(full[:3]) != shape or any(size != 1 for size in full[3:]):
            return False
        millimetres = _UNITS_MM.get(int(record["xyzt_units"]) & 7, 1.0)
        scale = np.array([[millimetres], [millimetres], [millimetres], [1.0]])
        return any(np.array_equal(scale * candidate, affine) for candidate in transforms_of(record).candidates())

    def as_three_dimensional(self) -> "NiftiGeometry":
        """The same for one volume taken out of a 4D file."""
        record = self.record
        record["dim"][0] = 3
        record["dim"][4:] = 1
        return NiftiGeometry(record.tobytes())


@dataclass(frozen=True)
class NiftiHeader:
    """Everything needed to read a file's voxels and to place them."""

    geometry: NiftiGeometry
    affine: Affine
    """To RAS+ millimetres."""
    shape: Shape
    """`(I, J, K)` of one volume."""
    volumes: int
    """Number of volumes in the file."""
    volume_index: int
    """The one that is read."""
    voxel_type: np.dtype[Any]
    """As stored, with its byte order."""
    vox_offset: int
    """Where the voxels begin, in the `.nii` or the `.img` file."""
    slope: float
    """1 if the stored numbers are the intensities."""
    inter: float
    notes: tuple[str, ...]
    """Choices and assumptions, in words to show a user once."""

    @property
    def volume_bytes(self) -> int:
        """Bytes of one volume."""
        return math.prod(self.shape) * self.voxel_type.itemsize

    @property
    def end(self) -> int:
        """The length that the file with the voxels must have."""
        return self.vox_offset + self.volumes * self.volume_bytes


def header_length(start: bytes) -> int | None:
    """348 or 540, read from a file's first four bytes; None if they are not those of a NIfTI header."""
    for size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
        if size in HEADER_FIELDS:
            return size
    return None


def parse_header(raw: bytes, *, options: ReadOptions, is_pair: bool = False) -> NiftiHeader:
    """Read a header, or say which of its fields cannot be trusted.

    Args:
        raw: The first bytes of the file: 540, or all there are.
        options: The files to accept that are refused otherwise.
        is_pair: Whether the file is the `.hdr` of a pair.

    Raises:
        VolumeError: A field is absent, contradicts another or is not supported.
        GeometryError: The transforms are absent, broken or contradict each other.
    """
    record, order = header_record(raw)
    _check_magic(record, is_pair)
    voxel_type = _voxel_type_of(record).newbyteorder(order)
    shape, volumes, index = _shape_of(record, options)
    slope, inter, scaling_notes = _scaling_of(record)
    geometry = NiftiGeometry.of(record)
    millimetres, notes = _millimetres_of(record)
    affine, more_notes = choose_affine(transforms_of(record), shape, options=options, millimetres=millimetres)
    return NiftiHeader(
        geometry=geometry if volumes == 1 else geometry.as_three_dimensional(),
        affine=affine,
        shape=shape,
        volumes=volumes,
        volume_index=index,
        voxel_type=voxel_type,
        vox_offset=_offset_of(record, 0 if is_pair else record.dtype.itemsize + 4),
        slope=slope,
        inter=inter,
        notes=scaling_notes + _notes_on_intent(record) + notes + more_notes,
    )


def header_record(raw: bytes) -> tuple[NDArray[np.void], ByteOrder]:
    """The fields of a header, and its byte order.

    Raises:
        VolumeError: It is no NIfTI header, or is cut off.
    """
    length = header_length(raw)
    if length is None:
        raise other_kind(raw)
    if len(raw) < length:
        found = f"is cut off after {len(raw)} of {length} bytes"
        raise bad_field("FILE_CUT_OFF", "the header", found, "copy or download the file again")
    order: ByteOrder = "<" if int.from_bytes(raw[:4], "little") == length else ">"
    return np.frombuffer(raw[:length], dtype=HEADER_FIELDS[length].newbyteorder(order))[0:1].reshape(()), order


def _check_magic(record: NDArray[np.void], is_pair: bool) -> None:
    magic = bytes(record["magic"].tobytes())
    single, paired = MAGIC[record.dtype.itemsize]
    if magic == (paired if is_pair else single):
        return
    if magic == (single if is_pair else paired):
        kind = "a single .nii file" if is_pair else "the .hdr of a .hdr/.img pair"
        raise bad_field("FILE_NAME", "magic", f"says this is {kind}", "rename it, or re-export it as .nii.gz")
    if len(magic) == 4 and magic[:1] in (b"\0", b"\x20"):
        found = "is empty: an ANALYZE 7.5 header, which does not say left from right"
        raise bad_field("FILE_KIND", "magic", found, "convert it to NIfTI with the tool that wrote it")
    raise bad_field("HEADER_DAMAGED", "magic", f"is {magic!r}; expected {single!r}; the header is damaged")


def _voxel_type_of(record: NDArray[np.void]) -> np.dtype[Any]:
    intent, code, bits = int(record["intent_code"]), int(record["datatype"]), int(record["bitpix"])
    if 3000 <= intent <= 3099:
        found = f"is {intent}: a CIFTI file, not a volume"
        raise bad_field("FILE_KIND", "intent_code", found, "export a NIfTI volume")
    if code not in VOXEL_TYPES:
        found = f"is {code} ({_REFUSED_TYPES.get(code, 'no NIfTI type')}), not a scalar image"
        raise bad_field("VOXELS_TYPE", "datatype", found, "export it as int16 or float32")
    voxel_type = np.dtype(VOXEL_TYPES[code])
    if bits != 8 * voxel_type.itemsize:
        found = f"is {bits}, which contradicts datatype {code} ({voxel_type.name}); the header is damaged"
        raise bad_field("VOXELS_TYPE", "bitpix", found)
    return voxel_type


def _shape_of(record: NDArray[np.void], options: ReadOptions) -> tuple[Shape, int, int]:
    """The shape of one volume, how many volumes there are, and which is wanted."""
    dim = [int(size) for size in record["dim"]]
    if not 1 <= dim[0] <= 7:
        raise bad_field("SHAPE", "dim[0]", f"is {dim[0]}; expected 3; the header is damaged")
    sizes = dim[1 : dim[0] + 1]
    for axis, size in enumerate(sizes, start=1):
        if size <= 0:
            raise bad_field("SHAPE", f"dim[{axis}]", f"is {size}; expected at least 1")
    says = f"says {len(sizes)}D ({' x '.join(map(str, sizes))})"
    volumes, wanted = math.prod(sizes[3:]), options.volume_index
    if len(sizes) < 3 or math.prod(sizes[4:]) > 1:
        raise bad_field("SHAPE", "dim", f"{says}; a volume has three dimensions", "export it as 3D")
    if volumes > 1 and wanted is None:
        found = f"says 4D ({' x '.join(map(str, sizes))}): {volumes} volumes"
        remedy = (
            f"choose one of 0 to {volumes - 1} with --volume, or name {volumes} channels in a dataset.json (modality)"
        )
        raise bad_field("SHAPE_4D", "dim", found, remedy)
    if wanted is not None and wanted >= volumes:
        found = f"says that the file contains {volumes}, numbered from 0; there is no volume {wanted}"
        raise bad_field("SHAPE_4D", "dim", found, "choose another with --volume")
    return (sizes[0], sizes[1], sizes[2]), volumes, wanted or 0


def _scaling_of(record: NDArray[np.void]) -> tuple[float, float, tuple[str, ...]]:
    """Slope, intercept, and a note where there is no slope.

    NIfTI's rule is that a slope of 0 means no scaling at all. nibabel writes NaN for it; readers take it so. ITK adds
    the intercept all the same, and takes a slope below 2.2e-16 for none: where that matters, a note says what was
    done.
    """
    slope, inter = float(record["scl_slope"]), float(record["scl_inter"])
    if math.isnan(slope):
        return 1.0, 0.0, ("scl_slope is NaN: voxels taken as they are stored",)
    for field, number in (("scl_slope", slope), ("scl_inter", inter)):
        if not math.isfinite(number):
            raise bad_field("VOXELS_SCALING", field, f"is {number}; expected a number")
    if slope == 0.0:
        left_out = f"scl_slope is 0: voxels taken as they are stored, without scl_inter {inter:g}"
        return 1.0, 0.0, () if inter == 0.0 else (left_out,)
    if abs(slope) < _LEAST_SLOPE:
        return slope, inter, (f"scl_slope is {slope:g}: voxels are scaled by it, which not every reader does",)
    return slope, inter, ()


def _notes_on_intent(record: NDArray[np.void]) -> tuple[str, ...]:
    """A note where the header speaks of vectors: ITK changes the signs of such voxels."""
    intent = int(record["intent_code"])
    if intent not in _VECTORS:
        return ()
    return (f"intent_code is {intent}, of matrices, vectors or points: one number a voxel taken as it is stored",)


def _offset_of(record: NDArray[np.void], least: int) -> int:
    offset = float(record["vox_offset"])
    if not (math.isfinite(offset) and offset == int(offset) and least <= offset <= LARGEST_EXTENSION):
        found = f"is {offset:g}; expected a whole number from {least} to {LARGEST_EXTENSION}"
        raise bad_field("HEADER_OFFSET", "vox_offset", found)
    return int(record["vox_offset"])


def _millimetres_of(record: NDArray[np.void]) -> tuple[float, tuple[str, ...]]:
    """Millimetres in the file's unit of length, and a note if that is not stated or not 1."""
    code = int(record["xyzt_units"]) & 7
    if code not in _UNITS_MM:
        raise bad_field("GRID_UNITS", "xyzt_units", f"names no unit of length ({code}); expected 2 (mm)")
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
