"""Hostile volumes: each a documented change of named bytes of a good file.

Nothing here uses medfcn: the good file is packed field by field from the NIfTI standard's offsets, so that the
corpus and the reader cannot share a mistake. Run as a script to write the corpus to a folder:

    python tests/volumes/hostile.py FOLDER
"""

import gzip
import io
import math
import os
import struct
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

OFFSETS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "h"),
    "intent_code": (68, "h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "descrip": (148, "80s"),
    "aux_file": (228, "24s"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "f"),
    "qoffset": (268, "f"),
    "srow": (280, "f"),
    "intent_name": (328, "16s"),
    "magic": (344, "4s"),
}
"""Where the fields of a NIfTI-1 header lie, and the struct code of one element. Source: nifti1.h."""

OFFSETS_2 = {
    "sizeof_hdr": (0, "i"),
    "magic": (4, "8s"),
    "datatype": (12, "h"),
    "bitpix": (14, "h"),
    "dim": (16, "q"),
    "pixdim": (104, "d"),
    "vox_offset": (168, "q"),
    "scl_slope": (176, "d"),
    "scl_inter": (184, "d"),
    "qform_code": (344, "i"),
    "sform_code": (348, "i"),
    "quatern": (352, "d"),
    "qoffset": (376, "d"),
    "srow": (400, "d"),
    "xyzt_units": (500, "i"),
    "intent_code": (504, "i"),
}

TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
SHAPE = (6, 5, 4)
SPACING = (1.5, 2.0, 3.0)
# A turn of 2 atan(1/2) about z: sine 4/5 and cosine 3/5, so that both transforms are exact in float32.
QUATERNION = (0.0, 0.0, math.sin(math.atan(0.5)))
AFFINE = np.array(
    [[0.6 * 1.5, -0.8 * 2.0, 0.0, -11.0], [0.8 * 1.5, 0.6 * 2.0, 0.0, 7.0], [0.0, 0.0, 3.0, 23.0], [0, 0, 0, 1]]
)
VOXELS = (np.arange(math.prod(SHAPE)).reshape(SHAPE, order="F") * 7 % 5).astype(np.int16)
"""Numbers from 0 to 4: an image, and a label too."""

ACCEPT = "accept"


@dataclass(frozen=True)
class Hostile:
    """One hostile file, and what must become of it."""

    name: str
    what: str
    """Which bytes of the good file were changed."""
    content: dict[str, bytes]
    """By file name; the first is the one that is opened."""
    expected: str
    """A problem's code, or `accept`."""
    as_label: str = ""
    """The same where the file is given as a label, if it differs."""
    voxels: NDArray[np.generic] = field(default_factory=lambda: VOXELS)
    affine: NDArray[np.float64] = field(default_factory=lambda: AFFINE)
    others_differ: str = ""
    """Why nibabel or SimpleITK may read an accepted file differently."""
    note: str = ""
    """Words of the note on an accepted file."""

    @property
    def opened(self) -> str:
        return next(iter(self.content))


def put(raw: bytes, name: str, *values: float | bytes, at: int = 0, order: str = "<", version: int = 1) -> bytes:
    """`raw` with the elements of one header field replaced, from element `at` on."""
    offset, code = (OFFSETS if version == 1 else OFFSETS_2)[name]
    packed = struct.pack(f"{order}{len(values)}{code}" if code[-1] != "s" else code, *values)
    start = offset + at * (struct.calcsize(code) if code[-1] != "s" else 1)
    return raw[:start] + packed + raw[start + len(packed) :]


def good(
    *, order: str = "<", version: int = 1, code: int = 4, voxels: NDArray[np.generic] = VOXELS, extension: bytes = b""
) -> bytes:
    """A good single-file volume."""
    length = 348 if version == 1 else 540
    fields: dict[str, tuple[float | bytes, ...]] = {
        "sizeof_hdr": (length,),
        "dim": (voxels.ndim, *voxels.shape, *([1] * (7 - voxels.ndim))),
        "datatype": (code,),
        "bitpix": (8 * np.dtype(TYPES[code]).itemsize,),
        "pixdim": (1.0, *SPACING, 0.0, 0.0, 0.0, 0.0),
        "vox_offset": (length + 4 + len(extension),),
        "scl_slope": (1.0,),
        "xyzt_units": (10,),
        "qform_code": (1,),
        "sform_code": (1,),
        "quatern": QUATERNION,
        "qoffset": tuple(AFFINE[:3, 3]),
        "srow": tuple(AFFINE[:3].ravel()),
        "magic": (b"n+1\0" if version == 1 else b"n+2\0\r\n\x1a\n",),
    }
    raw = bytes(length)
    for name, values in fields.items():
        raw = put(raw, name, *values, order=order, version=version)
    flag = bytes([1 if extension else 0, 0, 0, 0])
    return raw + flag + extension + voxels.astype(order + TYPES[code]).tobytes(order="F")


GOOD = good()
HEAD, BODY = GOOD[:352], GOOD[352:]


def packed(raw: bytes) -> bytes:
    """`raw` as gzip, with no time in it."""
    return gzip.compress(raw, 6, mtime=0)


def _nii(name: str, what: str, raw: bytes, expected: str, **more: object) -> Hostile:
    return Hostile(name, what, {f"{name}.nii": raw}, expected, **more)  # type: ignore[arg-type]


def _gz(name: str, what: str, raw: bytes, expected: str, **more: object) -> Hostile:
    return Hostile(name, what, {f"{name}.nii.gz": raw}, expected, **more)  # type: ignore[arg-type]


def _field(name: str, expected: str, *values: float | bytes, at: int = 0, **more: object) -> Hostile:
    """One field changed, everything else as it was."""
    place = f"{name}[{at}]" if at else name
    shown = " ".join(str(value) for value in values)
    label = "".join(letter for letter in f"{place}_{shown}" if letter.isalnum() or letter in "_-.+[]")
    return _nii(label, f"{place} = {shown}", put(GOOD, name, *values, at=at), expected, **more)


def dimensions() -> list[Hostile]:
    """`dim`."""
    files = [_field("dim", "SHAPE", value) for value in (0, -1, 1, 2, 8, 9, 100, 32767)]
    files += [_field("dim", "SHAPE", value, at=axis) for axis in (1, 2, 3) for value in (0, -1, -32768)]
    files += [_field("dim", "FILE_CUT_OFF", value, at=axis) for axis in (1, 2, 3) for value in (7, 32767)]
    files += [_field("dim", "FILE_SIZE", 3, at=axis) for axis in (1, 2, 3)]
    files += [_field("dim", ACCEPT, ndim, *SHAPE, 1, 1, 1, 1) for ndim in (4, 5, 6, 7)]
    files.append(_nii("dim_0_beyond_ndim", "dim[4..7] = 0", put(GOOD, "dim", 0, 0, 0, 0, at=4), ACCEPT))
    files.append(_nii("dim_junk_beyond_ndim", "dim[5] = 77", put(GOOD, "dim", 77, at=5), ACCEPT))
    files.append(_nii("dim_4_is_0", "dim = 4 6 5 4 0", put(GOOD, "dim", 4, *SHAPE, 0), "SHAPE"))
    two = put(GOOD, "dim", 4, *SHAPE, 2) + BODY
    files.append(_nii("four_dimensions", "dim = 4 6 5 4 2, voxels twice", two, "SHAPE_4D"))
    five = put(GOOD, "dim", 5, *SHAPE, 1, 2) + BODY
    files.append(_nii("five_dimensions", "dim = 5 6 5 4 1 2, voxels twice", five, "SHAPE"))
    files.append(_nii("two_dimensions", "dim = 2 30 4", put(GOOD, "dim", 2, 30, 4, 1), "SHAPE"))
    slice_ = VOXELS[:, :, :1]
    files.append(_nii("one_slice", "a volume of one slice", good(voxels=slice_), ACCEPT, voxels=slice_))
    row = VOXELS[:1]
    files.append(_nii("one_sagittal_slice", "a volume of one sagittal slice", good(voxels=row), ACCEPT, voxels=row))
    one = VOXELS[1:2, 1:2, 1:2]
    files.append(_nii("one_voxel", "a volume of one voxel", good(voxels=one), ACCEPT, voxels=one))
    return files


def voxel_types() -> list[Hostile]:
    """`datatype`, `bitpix`."""
    codes = (0, 1, 3, 32, 128, 255, 1536, 1792, 2048, 2304, -1, -9510, 2826)
    files = [_field("datatype", "VOXELS_TYPE", code) for code in codes]
    files += [_field("bitpix", "VOXELS_TYPE", bits) for bits in (0, 8, 15, 32, -16)]
    files.append(_field("datatype", "VOXELS_TYPE", 16))  # float32 over 16-bit voxels
    for code, name in TYPES.items():
        for order, word in (("<", "little"), (">", "big")):
            raw = good(order=order, code=code)
            voxels = VOXELS.astype(name)
            files.append(_nii(f"type_{name}_{word}", f"datatype {code}, {word}-endian", raw, ACCEPT, voxels=voxels))
    signed = VOXELS - np.int16(2)
    files.append(
        _nii("negative_values", "voxels from -2", good(voxels=signed), ACCEPT, as_label="LABEL_VALUES", voxels=signed)
    )
    large = VOXELS.astype(np.uint64) + np.uint64(2**63)
    files.append(
        _nii(
            "uint64_large",
            "voxels from 2^63",
            good(code=1280, voxels=large),
            ACCEPT,
            as_label="LABEL_VALUES",
            voxels=large,
        )
    )
    return files


def spacings() -> list[Hostile]:
    """`pixdim`, `xyzt_units`."""
    nan, inf = float("nan"), float("inf")
    files = [
        _field("pixdim", "GRID_PIXDIM", value, at=axis)
        for axis in (1, 2, 3)
        for value in (inf, SPACING[axis - 1] * 1.02, SPACING[axis - 1] * 0.98, 1e-30, 1e30)
    ]
    why = "SimpleITK takes spacing from pixdim, or 1 for what is none; medfcn takes the sform's and says so"
    none = (0.0, -0.0, -2.5, nan)
    files += [
        _field("pixdim", ACCEPT, value, at=axis, note="taken from the sform", others_differ=why)
        for axis in (1, 2, 3)
        for value in none
    ]
    alone = put(GOOD, "sform_code", 0)
    for value in none[1:]:
        raw = put(alone, "pixdim", value, at=2)
        files.append(_nii(f"pixdim_{value}_qform_only", f"pixdim[2] = {value}, sform_code = 0", raw, "GRID_PIXDIM"))
    files.append(_field("pixdim", ACCEPT, nan, note="pixdim[0] is nan: 1 taken from the sform"))
    why = "SimpleITK takes spacing from pixdim; medfcn, as nibabel, from the sform, where they differ by 1 % or less"
    note = "voxels are 1.5 long: sform taken"
    files.append(_field("pixdim", ACCEPT, SPACING[0] * 1.005, at=1, others_differ=why, note=note))
    files.append(_field("pixdim", ACCEPT, SPACING[1] * 1.005, at=2, others_differ=why))
    files += [_field("pixdim", "GRID_PIXDIM", value) for value in (2.0, 0.5, inf)]
    files.append(_field("pixdim", ACCEPT, 0.0))
    files.append(_field("pixdim", "GRID_QFORM_SFORM", -1.0))
    files.append(_nii("pixdim_time_nan", "pixdim[4] = nan", put(GOOD, "pixdim", nan, at=4), ACCEPT))
    for code, factor in ((1, 1000.0), (3, 0.001)):
        affine = AFFINE.copy()
        affine[:3] *= factor
        files.append(_field("xyzt_units", ACCEPT, code, affine=affine, others_differ="nibabel ignores units"))
    files += [_field("xyzt_units", ACCEPT, code) for code in (0, 2, 8, 10, 18, 26, 34, 50)]
    files += [_field("xyzt_units", "GRID_UNITS", code) for code in (4, 5, 6, 7, 15)]
    return files


def transforms() -> list[Hostile]:
    """`qform_code`, `sform_code`, the quaternion and the rows."""
    nan, inf = float("nan"), float("inf")
    files = [
        _field(name, "GRID_BROKEN", code) for name in ("qform_code", "sform_code") for code in (6, 77, -1, -32768)
    ]
    files += [_field(name, ACCEPT, code) for name in ("qform_code", "sform_code") for code in (0, 2, 3, 4, 5)]
    neither = put(put(GOOD, "qform_code", 0), "sform_code", 0)
    files.append(_nii("no_codes", "qform_code = sform_code = 0", neither, "GRID_UNKNOWN"))
    files += [_field("srow", "GRID_BROKEN", value, at=at) for at in (0, 3, 11) for value in (nan, inf, -inf)]
    files.append(_nii("srow_zero", "srow = 0", put(GOOD, "srow", *([0.0] * 12)), "GRID_BROKEN"))
    files.append(_nii("srow_x_zero", "srow_x = 0", put(GOOD, "srow", 0.0, 0.0, 0.0, 0.0), "GRID_BROKEN"))
    flat = AFFINE.copy()
    flat[:3, 1] = flat[:3, 0]
    files.append(
        _nii("srow_singular", "two equal columns in srow", put(GOOD, "srow", *flat[:3].ravel()), "GRID_BROKEN")
    )
    for millimetres, expected in ((0.05, ACCEPT), (0.3, "GRID_QFORM_SFORM"), (15.0, "GRID_QFORM_SFORM")):
        moved = AFFINE.copy()
        moved[0, 3] += millimetres
        raw = put(GOOD, "srow", *moved[:3].ravel())
        note = "qform and sform differ by 0.05 mm: sform taken" if expected == ACCEPT else ""
        what = f"srow_x[3] + {millimetres}"
        files.append(_nii(f"srow_moved_{millimetres}", what, raw, expected, affine=moved, note=note))
    flipped = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    both = put(GOOD, "srow", *flipped[:3].ravel())
    files.append(_nii("srow_flipped", "first column of srow negated", both, "GRID_QFORM_SFORM"))
    alone = put(both, "qform_code", 0)
    files.append(_nii("srow_flipped_alone", "the same, qform_code = 0", alone, ACCEPT, affine=flipped))
    sheared = AFFINE.copy()
    sheared[:3, 1] += 0.5 * sheared[:3, 0]
    sheared[:3, 1] *= 2.0 / np.linalg.norm(sheared[:3, 1])
    raw = put(GOOD, "srow", *sheared[:3].ravel())
    files.append(_nii("srow_sheared", "second column of srow leans", raw, "GRID_QFORM_SFORM"))
    why = "SimpleITK takes the axes of a sheared sform apart"
    alone = put(raw, "qform_code", 0)
    files.append(
        _nii("srow_sheared_alone", "the same, qform_code = 0", alone, ACCEPT, affine=sheared, others_differ=why)
    )
    tilted = AFFINE.copy()
    tilted[:3, 2] += AFFINE[:3, 1] / 2.0 * 3.0 * math.tan(math.radians(20.0))
    raw = put(GOOD, "srow", *tilted[:3].ravel())
    what = "the third column of srow leans by 20 degrees, pixdim[3] is the distance of slices"
    files.append(_nii("gantry_tilt", what, raw, "GRID_PIXDIM", affine=tilted))
    alone = put(raw, "qform_code", 0)
    files.append(_nii("gantry_tilt_alone", f"{what}, qform_code = 0", alone, "GRID_PIXDIM", affine=tilted))
    files += [_field("quatern", "GRID_BROKEN", value, at=at) for at in (0, 2) for value in (nan, inf, 1.5, -2.0)]
    files += [_field("qoffset", "GRID_BROKEN", value, at=at) for at in (0, 2) for value in (nan, inf)]
    only = put(GOOD, "sform_code", 0)
    files.append(
        _nii("quatern_long_alone", "quatern_b = 1, sform_code = 0", put(only, "quatern", 1.0), "GRID_BROKEN")
    )
    why = "nibabel refuses a quaternion that is too long"
    for too_long, expected in ((2.5e-7, ACCEPT), (1e-6, ACCEPT), (5e-6, ACCEPT), (1e-3, "GRID_BROKEN")):
        half_turn = tuple(part * (1.0 + too_long) for part in (0.0, 0.6, 0.8))
        raw = put(put(only, "quatern", *half_turn), "qoffset", 5.0, 6.0, 7.0)
        affine = np.array([[-1.5, 0, 0, 5], [0, -0.28 * 2, 0.96 * 3, 6], [0, 0.96 * 2, 0.28 * 3, 7], [0, 0, 0, 1]])
        note = "the quaternion's squared length is 1.0000" if expected == ACCEPT and too_long > 2.5e-7 else ""
        what = f"a half turn whose quaternion is {too_long} too long"
        files.append(_nii(f"quatern_{too_long}", what, raw, expected, affine=affine, note=note, others_differ=why))
    mirror = put(only, "pixdim", -1.0)
    affine = AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
    files.append(_nii("qfac_minus", "pixdim[0] = -1, sform_code = 0", mirror, ACCEPT, affine=affine))
    return files


def scalings() -> list[Hostile]:
    """`scl_slope`, `scl_inter`, `vox_offset`."""
    nan, inf = float("nan"), float("inf")
    files = [_field(name, "VOXELS_SCALING", value) for name in ("scl_slope", "scl_inter") for value in (inf, -inf)]
    files.append(_field("scl_inter", "VOXELS_SCALING", nan))
    files.append(_field("scl_slope", ACCEPT, nan, note="scl_slope is NaN: voxels taken as they are stored"))
    raw = put(put(GOOD, "scl_slope", nan), "scl_inter", nan)
    files.append(_nii("slope_nan_inter_nan", "scl_slope = scl_inter = NaN", raw, ACCEPT, note="scl_slope is NaN"))
    files.append(_field("scl_slope", ACCEPT, 0.0))
    raw = put(put(GOOD, "scl_slope", 0.0), "scl_inter", 5.0)
    why = "SimpleITK adds scl_inter though a slope of 0 means no scaling (nifti1.h)"
    what = "scl_slope = 0, scl_inter = 5: no scaling"
    note = "without scl_inter 5"
    files.append(_nii("slope_0_inter_5", what, raw, ACCEPT, others_differ=why, note=note))
    raw = put(GOOD, "scl_slope", 1e-18)
    tiny = (VOXELS * float(np.float32(1e-18))).astype(np.float32)
    why = "SimpleITK takes a slope below 2.2e-16 for none"
    more = {"as_label": "LABEL_VALUES", "voxels": tiny, "others_differ": why, "note": "not every reader does"}
    files.append(_nii("slope_1e-18", "scl_slope = 1e-18, as of tesla in int16", raw, ACCEPT, **more))
    for slope, inter in ((2.0, 0.0), (1.0, 10.0), (-1.0, 4.0), (0.5, -1024.0)):
        raw = put(put(GOOD, "scl_slope", slope), "scl_inter", inter)
        voxels = (VOXELS * slope + inter).astype(np.float32)
        what = f"scl_slope = {slope}, scl_inter = {inter}"
        files.append(_nii(f"scaled_{slope}_{inter}", what, raw, ACCEPT, as_label="LABEL_VALUES", voxels=voxels))
    overflow = put(good(code=16, voxels=VOXELS.astype("f4") * np.float32(8e37)), "scl_slope", 1e38)
    files.append(
        _nii("scaled_to_infinity", "float32 near the limit, scl_slope = 1e38", overflow, "VOXELS_NOT_FINITE")
    )
    offsets = (0.0, 347.0, 351.0, 352.5, -352.0, nan, inf, 1e9, 1e15)
    files += [_field("vox_offset", "HEADER_OFFSET", value) for value in offsets]
    files += [_field("vox_offset", "FILE_CUT_OFF", value) for value in (353.0, 368.0, 1e7)]
    for size in (16, 4096):
        extension = struct.pack("<ii", size, 6) + b"x" * (size - 8)
        raw = good(extension=extension)
        files.append(_nii(f"extension_{size}", f"an extension of {size} bytes", raw, ACCEPT))
    lies = good(extension=struct.pack("<ii", 2**31 - 16, 6) + bytes(8))
    why = "nibabel refuses an extension longer than the file"
    files.append(_nii("extension_lies", "esize = 2^31 - 16", lies, ACCEPT, others_differ=why))
    return files


def kinds() -> list[Hostile]:
    """`sizeof_hdr`, `magic`, `intent_code`, and files that are something else."""
    files = [_field("sizeof_hdr", "FILE_KIND", value) for value in (0, 347, 349, -1)]
    files.append(_field("sizeof_hdr", "HEADER_DAMAGED", 540))
    files.append(_field("magic", "FILE_KIND", b"\0\0\0\0"))
    files.append(_field("magic", "FILE_NAME", b"ni1\0"))
    files += [_field("magic", "HEADER_DAMAGED", value) for value in (b"n+1x", b"n+2\0", b"xxxx", b"N+1\0")]
    files += [_field("intent_code", "FILE_KIND", value) for value in (3001, 3006)]
    files += [_field("intent_code", ACCEPT, value) for value in (0, 5, 1002)]
    vectors = {
        "voxels": VOXELS.astype(np.float32),
        "note": "one number a voxel",
        "others_differ": "SimpleITK changes signs",
    }
    raw = put(good(code=16, voxels=VOXELS), "intent_code", 1006)
    files.append(_nii("intent_1006", "displacement vectors of one component", raw, ACCEPT, **vectors))
    contents = {
        "html": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>",
        "xml": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n",
        "annex": b"/annex/objects/MD5E-s1--x.nii.gz\n",
        "zip": b"PK\x03\x04" + bytes(400),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(400),
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(400),
        "pdf": b"%PDF-1.7" + bytes(400),
        "json": b'{"error": "not found"}',
        "text": b"see the other folder\n" * 30,
        "numpy": b"\x93NUMPY" + bytes(400),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(400),
        "nrrd": b"NRRD0004\ntype: short\n" + bytes(400),
        "metaimage": b"ObjectType = Image\nNDims = 3\n" + bytes(400),
        "dicom": bytes(128) + b"DICM" + bytes(400),
        "zero_bytes": bytes(2000),
        "noise": np.random.default_rng(0).bytes(2000),
        "xz": b"\xfd7zXZ\x00" + bytes(400),
        "zstd": b"\x28\xb5\x2f\xfd" + bytes(400),
        "bzip2": b"BZh9" + bytes(400),
        "pickle": b"\x80\x04\x95" + bytes(400),
        "one_byte": b"\x5c",
    }
    for name, content in contents.items():
        files.append(_nii(f"really_{name}", f"the whole file is {name}", content, "FILE_KIND"))
        files.append(_gz(f"really_{name}_gz", f"a gzip file that holds {name}", packed(content), "FILE_KIND"))
    files.append(_nii("empty", "no bytes", b"", "FILE_EMPTY"))
    files.append(_gz("empty_gz", "no bytes", b"", "FILE_EMPTY"))
    files.append(_gz("empty_inside", "a gzip file of nothing", packed(b""), "FILE_EMPTY"))
    files.append(_nii("gzip_named_nii", "gzip data under a plain name", packed(GOOD), "FILE_NAME"))
    files.append(_gz("plain_named_gz", "plain data under a gzip name", GOOD, "FILE_NAME"))
    files.append(_gz("html_named_gz", "HTML under a gzip name", contents["html"], "FILE_NAME"))
    files.append(_gz("gzip_twice", "gzip of gzip", packed(packed(GOOD)), "FILE_KIND"))
    for name in ("good.txt", "good", "good.nii.bak", "good.gz", "good.dcm"):
        files.append(Hostile(f"name_{name}", "a good file under another name", {name: GOOD}, "FILE_NAME"))
    files.append(Hostile("name_upper", "the extension in capitals", {"GOOD.NII.GZ": packed(GOOD)}, ACCEPT))
    odd = "new\nline \x1b[31m.nii"
    files.append(Hostile("name_control", "control characters in the name", {odd: GOOD[:-1]}, "FILE_CUT_OFF"))
    files.append(Hostile("name_spaces", "blanks and a dash in the name", {"-a b ü.nii": GOOD}, ACCEPT))
    return files


def lengths() -> list[Hostile]:
    """Bytes missing, bytes too many, and gzip streams."""
    files = [
        _nii(f"cut_{length}", f"the first {length} bytes", GOOD[:length], code)
        for length, code in (
            *((2, "FILE_CUT_OFF"), (4, "FILE_CUT_OFF"), (100, "FILE_CUT_OFF"), (347, "FILE_CUT_OFF")),
            *((348, "FILE_CUT_OFF"), (352, "FILE_CUT_OFF"), (353, "FILE_CUT_OFF"), (len(GOOD) - 1, "FILE_CUT_OFF")),
        )
    ]
    files.append(_nii("one_byte_more", "one byte after the voxels", GOOD + b"\0", "FILE_SIZE"))
    files.append(_nii("a_kilobyte_more", "1 kB after the voxels", GOOD + bytes(1024), "FILE_SIZE"))
    stream = packed(GOOD)
    for length in (3, 9, 10, 18, 50, len(stream) // 2, len(stream) - 9, len(stream) - 8, len(stream) - 1):
        files.append(
            _gz(f"gz_cut_{length}", f"the first {length} bytes of the stream", stream[:length], "FILE_CUT_OFF")
        )
    wrong_crc = stream[:-8] + bytes([stream[-8] ^ 1]) + stream[-7:]
    files.append(_gz("gz_crc", "one bit of the CRC", wrong_crc, "FILE_DAMAGED"))
    wrong_length = stream[:-4] + struct.pack("<I", len(GOOD) + 1)
    files.append(_gz("gz_length", "the length + 1", wrong_length, "FILE_DAMAGED"))
    files.append(_gz("gz_more", "one byte more inside", packed(GOOD + b"\0"), "FILE_SIZE"))
    files.append(_gz("gz_less", "one byte less inside", packed(GOOD[:-1]), "FILE_CUT_OFF"))
    files.append(
        _gz("gz_members", "two members, cut within the header", packed(GOOD[:100]) + packed(GOOD[100:]), ACCEPT)
    )
    files.append(_gz("gz_empty_member", "an empty member after it", stream + packed(b""), ACCEPT))
    files.append(_gz("gz_padded", "512 zero bytes after the stream", stream + bytes(512), ACCEPT))
    files.append(_gz("gz_garbage", "text after the stream", stream + b"garbage after the end", "FILE_DAMAGED"))
    buffer = io.BytesIO()
    with gzip.GzipFile("patient_name.nii", "wb", fileobj=buffer, mtime=1e9) as file:
        file.write(GOOD)
    files.append(_gz("gz_named", "a name and a time in the gzip header", buffer.getvalue(), ACCEPT))
    stored = gzip.compress(GOOD, 0, mtime=0)
    files.append(_gz("gz_stored", "a gzip stream without compression", stored, ACCEPT))
    files.append(_gz("gz_method", "compression method 7", stream[:2] + b"\x07" + stream[3:], "FILE_DAMAGED"))
    files.append(_gz("zlib_not_gzip", "a zlib stream", zlib.compress(GOOD), "FILE_NAME"))
    for name, shape in (("2000", (2000, 2000, 2000)), ("32767", (32767, 32767, 32767)), ("700", (700, 700, 700))):
        lie = put(GOOD, "dim", 3, *shape)
        code = "FILE_CUT_OFF" if name == "700" else "FILE_SIZE"
        files.append(_nii(f"size_lie_{name}", f"dim = {shape}", lie, code))
        files.append(_gz(f"size_lie_{name}_gz", f"dim = {shape}", packed(lie), code))
    bomb = packed(GOOD) + packed(bytes(10 << 20)) * 20
    files.append(_gz("bomb", "200 MB of zeros after the voxels", bomb, "FILE_SIZE"))
    return files


def values() -> list[Hostile]:
    """Voxels."""
    files = []
    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus_inf", -np.inf)):
        for place in ((0, 0, 0), (5, 4, 3)):
            voxels = VOXELS.astype(np.float32)
            voxels[place] = value
            raw = good(code=16, voxels=voxels)
            files.append(_nii(f"{name}_at_{place[0]}", f"voxel {place} is {value}", raw, "VOXELS_NOT_FINITE"))
    for name, shift, as_label in (
        ("near", 5e-4, ACCEPT),
        ("off", 2e-3, "LABEL_VALUES"),
        ("half", 0.5, "LABEL_VALUES"),
    ):
        voxels = VOXELS + np.float32(shift)
        raw = good(code=16, voxels=voxels)
        files.append(_nii(f"labels_{name}", f"every voxel + {shift}", raw, ACCEPT, as_label=as_label, voxels=voxels))
    binary = ((VOXELS > 2) * 255).astype(np.uint8)
    files.append(
        _nii(
            "labels_255",
            "a mask drawn with 255",
            good(code=2, voxels=binary),
            ACCEPT,
            as_label="LABEL_VALUES",
            voxels=binary,
        )
    )
    some = np.where(VOXELS == 4, 255, VOXELS).astype(np.uint8)
    files.append(
        _nii(
            "labels_some_255",
            "labels, and 255",
            good(code=2, voxels=some),
            ACCEPT,
            as_label="LABEL_VALUES",
            voxels=some,
        )
    )
    raw = put(good(code=2, voxels=binary), "scl_slope", 1 / 255)
    scaled = (binary * float(np.float32(1 / 255))).astype(np.float32)
    what = "255 with scl_slope = 1/255"
    files.append(_nii("labels_slope_255", what, raw, ACCEPT, as_label="LABEL_VALUES", voxels=scaled))
    raw = put(good(code=2, voxels=(binary > 0).astype(np.uint8)), "scl_slope", 1 / 255)
    scaled = ((binary > 0) * float(np.float32(1 / 255))).astype(np.float32)
    files.append(
        _nii("labels_slope_1_255", "1 with scl_slope = 1/255", raw, ACCEPT, as_label="LABEL_VALUES", voxels=scaled)
    )
    huge = VOXELS.astype(np.int32) * 100_000
    files.append(
        _nii(
            "labels_huge",
            "labels above 65535",
            good(code=8, voxels=huge),
            ACCEPT,
            voxels=huge,
        )
    )
    largest = VOXELS.astype(np.int64) << 31
    raw = good(code=1024, voxels=largest)
    files.append(_nii("labels_2_33", "labels up to 2^33", raw, ACCEPT, as_label="LABEL_VALUES", voxels=largest))
    raw = put(GOOD, "scl_slope", 0.99999994)
    almost = (VOXELS * float(np.float32(0.99999994))).astype(np.float32)
    files.append(_nii("labels_slope_almost_1", "scl_slope = 0.99999994", raw, ACCEPT, voxels=almost))
    floats = np.array([-128, -127, -2, -1, 127], dtype=np.int8)[VOXELS]  # of 254 labels: 0, 1, 126, 127, 254
    raw = put(put(good(code=256, voxels=floats), "scl_slope", 254 / 255), "scl_inter", 127.5)
    scaled = (floats * float(np.float32(254 / 255)) + 127.5).astype(np.float32)
    what = "labels up to 254 as floats under an int8 header"
    files.append(_nii("labels_float_int8", what, raw, ACCEPT, voxels=scaled))
    constant = np.zeros(SHAPE, dtype=np.int16)
    files.append(_nii("constant", "every voxel is 0", good(voxels=constant), ACCEPT, voxels=constant))
    return files


def versions() -> list[Hostile]:
    """NIfTI-2, big-endian files, pairs."""
    files = []
    for order, word in (("<", "little"), (">", "big")):
        raw = good(order=order, version=2)
        files.append(_nii(f"nifti2_{word}", f"NIfTI-2, {word}-endian", raw, ACCEPT))
        files.append(_gz(f"nifti2_{word}_gz", f"NIfTI-2, {word}-endian, gzip", packed(raw), ACCEPT))
        files.append(_gz(f"nifti1_{word}_gz", f"NIfTI-1, {word}-endian, gzip", packed(good(order=order)), ACCEPT))
    second = good(version=2)
    for name, values_, code in (
        *(("dim", (3, 2**40, 5, 4), "FILE_SIZE"), ("dim", (3, -6, 5, 4), "SHAPE"), ("dim", (2**40,), "SHAPE")),
        *(("vox_offset", (540,), "HEADER_OFFSET"), ("vox_offset", (-1,), "HEADER_OFFSET")),
        *(("vox_offset", (2**62,), "HEADER_OFFSET"), ("intent_code", (3001,), "FILE_KIND")),
        *(("magic", (b"n+2\0\n\x1a\n\0",), "HEADER_DAMAGED"), ("magic", (b"ni2\0\r\n\x1a\n",), "FILE_NAME")),
    ):
        raw = put(second, name, *values_, version=2)
        label = f"nifti2_{name}_{len(files)}"
        files.append(_nii(label, f"NIfTI-2, {name} = {values_}", raw, code))
    swapped = put(GOOD, "sizeof_hdr", 348, order=">")
    files.append(_nii("endian_mixed", "sizeof_hdr big-endian, the rest little", swapped, "VOXELS_TYPE"))
    head = put(put(GOOD, "magic", b"ni1\0"), "vox_offset", 0.0)[:348]
    pairs: dict[str, tuple[dict[str, bytes], str]] = {
        "pair": ({"a.hdr": head, "a.img": BODY}, ACCEPT),
        "pair_by_img": ({"a.img": BODY, "a.hdr": head}, ACCEPT),
        "pair_gz": ({"a.hdr.gz": packed(head), "a.img.gz": packed(BODY)}, ACCEPT),
        "pair_half_gz": ({"a.hdr": head, "a.img.gz": packed(BODY)}, ACCEPT),
        "pair_offset": ({"a.hdr": put(head, "vox_offset", 16.0), "a.img": bytes(16) + BODY}, ACCEPT),
        "pair_no_img": ({"a.hdr": head}, "FILE_MISSING"),
        "pair_no_hdr": ({"a.img": BODY}, "FILE_MISSING"),
        "pair_short": ({"a.hdr": head, "a.img": BODY[:-1]}, "FILE_CUT_OFF"),
        "pair_long": ({"a.hdr": head, "a.img": BODY + b"\0"}, "FILE_SIZE"),
        "pair_empty_img": ({"a.hdr": head, "a.img": b""}, "FILE_EMPTY"),
        "pair_single_magic": ({"a.hdr": GOOD[:348], "a.img": BODY}, "FILE_NAME"),
        "pair_gz_named_plain": ({"a.hdr": head, "a.img": packed(BODY)}, "FILE_NAME"),
        "pair_analyze": ({"a.hdr": put(head, "magic", bytes(4)), "a.img": BODY}, "FILE_KIND"),
        "pair_cut_hdr": ({"a.hdr": head[:200], "a.img": BODY}, "FILE_CUT_OFF"),
    }
    for name, (content, expected) in pairs.items():
        files.append(Hostile(name, "a .hdr/.img pair", content, expected))
    return files


def text_headers() -> list[Hostile]:
    """NRRD and MetaImage."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    columns = " ".join("({:.9g},{:.9g},{:.9g})".format(*lps[:3, axis]) for axis in range(3))
    origin = "({:.9g},{:.9g},{:.9g})".format(*lps[:3, 3])
    nrrd = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
        f"space directions: {columns}\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        f"space origin: {origin}\n\n"
    )
    directions = " ".join(f"{lps[row, axis] / SPACING[axis]:.9g}" for axis in range(3) for row in range(3))
    meta = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData "
        "= False\n"
        f"TransformMatrix = {directions}\nOffset = {' '.join(f'{x:.9g}' for x in lps[:3, 3])}\n"
        "ElementSpacing = 1.5 2 3\nDimSize = 6 5 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    changes = [
        ("good", "", "", ACCEPT, ACCEPT),
        ("type", "short", "block", "VOXELS_TYPE", ""),
        ("complex", "MET_SHORT", "MET_SHORT_ARRAY", "", "VOXELS_TYPE"),
        ("dimension", "dimension: 3", "dimension: 4", "SHAPE", ""),
        ("ndims", "NDims = 3", "NDims = 2", "", "SHAPE"),
        ("sizes", "6 5 4", "6 5 0", "SHAPE", "SHAPE"),
        ("sizes_more", "6 5 4", "6 5 5", "FILE_CUT_OFF", "FILE_CUT_OFF"),
        ("sizes_less", "6 5 4", "6 5 3", "FILE_SIZE", "FILE_SIZE"),
        ("sizes_lie", "6 5 4", "60000 50000 40000", "FILE_SIZE", "FILE_SIZE"),
        ("no_space", "space: left-posterior-superior\n", "", "GRID_UNKNOWN", ""),
        ("no_matrix", "TransformMatrix", "Something", "", "GRID_UNKNOWN"),
        ("space", "left-posterior-superior", "scanner-xyz", "GRID_BROKEN", ""),
        ("nan", "ElementSpacing = 1.5", "ElementSpacing = nan", "", "GRID_BROKEN"),
        ("encoding", "encoding: raw", "encoding: bzip2", "HEADER_DAMAGED", ""),
        ("outside", "LOCAL", "../../etc/passwd", "", "HEADER_DAMAGED"),
        ("outside_nrrd", "\n\n", "\ndata file: /etc/passwd\n\n", "HEADER_DAMAGED", ""),
        ("list", "LOCAL", "LIST", "", "HEADER_DAMAGED"),
        ("local", "LOCAL", "Local", "", ACCEPT),
        ("local_lower", "LOCAL", "local", "", ACCEPT),
        ("slicer", "encoding: raw", "encoding: raw\nSegment0_LabelValue:=1\nSegment0_Name:=liver", ACCEPT, ""),
        ("vector", "kinds: domain domain domain", "kinds: vector domain domain", "VOXELS_TYPE", ""),
        ("skip", "encoding: raw", "byte skip: 2\nencoding: raw", "HEADER_OFFSET", ""),
        ("twice", "sizes: 6 5 4", "sizes: 6 5 4\nsizes: 4 5 6", "HEADER_DAMAGED", ""),
        ("twice_meta", "NDims = 3", "NDims = 3\nNDims = 4", "", "HEADER_DAMAGED"),
        ("mm", "encoding: raw", 'space units: "mm" "mm" "mm"\nencoding: raw', ACCEPT, ""),
        ("cm", "encoding: raw", 'space units: "cm" "cm" "cm"\nencoding: raw', "GRID_UNITS", ""),
        ("bare_um", "encoding: raw", "space units: um um um\nencoding: raw", "GRID_UNITS", ""),
        ("axis_um", "encoding: raw", 'units: "um" "um" "um"\nencoding: raw', "GRID_UNITS", ""),
        ("mm_meta", "NDims = 3", "NDims = 3\nDistanceUnits = mm", "", ACCEPT),
        ("um_meta", "NDims = 3", "NDims = 3\nDistanceUnits = um", "", "GRID_UNITS"),
        ("unscaled", "NDims = 3", "NDims = 3\nElementToIntensityFunctionSlope = 1.0", "", ACCEPT),
        ("scaled", "NDims = 3", "NDims = 3\nElementToIntensityFunctionSlope = 2", "", "VOXELS_SCALING"),
        ("shifted", "NDims = 3", "NDims = 3\nElementToIntensityFunctionOffset = -1024", "", "VOXELS_SCALING"),
        ("negative", "ElementSpacing = 1.5", "ElementSpacing = -1.5", "", "GRID_BROKEN"),
    ]
    files = []
    for name, old, new, in_nrrd, in_meta in changes:
        if in_nrrd:
            raw = nrrd.replace(old, new).encode() + BODY if old else nrrd.encode() + BODY
            files.append(Hostile(f"nrrd_{name}", f"{old!r} -> {new!r}", {f"nrrd_{name}.nrrd": raw}, in_nrrd))
        if in_meta:
            raw = meta.replace(old, new).encode() + BODY if old else meta.encode() + BODY
            files.append(Hostile(f"mha_{name}", f"{old!r} -> {new!r}", {f"mha_{name}.mha": raw}, in_meta))
    for name, content in (("nrrd", nrrd), ("mha", meta)):
        cut = content.encode() + BODY[:-1]
        files.append(Hostile(f"{name}_cut", "the last byte missing", {f"{name}_cut.{name}": cut}, "FILE_CUT_OFF"))
        files.append(Hostile(f"{name}_html", "HTML", {f"{name}_html.{name}": b"<html>"}, "FILE_NAME"))
        files.append(Hostile(f"{name}_empty", "no bytes", {f"{name}_empty.{name}": b""}, "FILE_EMPTY"))
    seg = {"nrrd_seg.seg.nrrd": nrrd.encode() + BODY}
    files.append(Hostile("nrrd_seg", "a good NRRD file, named as 3D Slicer names segmentations", seg, ACCEPT))
    words = {"i8": ("long long", "signed long long int", "int64_t"), "u8": ("ulonglong", "unsigned long long int")}
    for kind, names in words.items():
        for name in names:
            raw = nrrd.replace("type: short", f"type: {name}").encode() + VOXELS.astype(kind).tobytes(order="F")
            file = f"nrrd_{name.replace(' ', '_')}"
            files.append(Hostile(file, f"type: {name}", {f"{file}.nrrd": raw}, ACCEPT, voxels=VOXELS.astype(kind)))
    packed_nrrd = nrrd.replace("raw", "gzip").encode() + packed(BODY)
    files.append(Hostile("nrrd_gzip", "encoding: gzip", {"nrrd_gzip.nrrd": packed_nrrd}, ACCEPT))
    files.append(Hostile("nrrd_gzip_cut", "the same, cut", {"nrrd_gzip_cut.nrrd": packed_nrrd[:-9]}, "FILE_CUT_OFF"))
    packed_meta = meta.replace("CompressedData = False", "CompressedData = True").encode() + zlib.compress(BODY)
    # Without CompressedDataSize SimpleITK gives noise and no error.
    files.append(Hostile("mha_zlib", "CompressedData = True", {"mha_zlib.mha": packed_meta}, "VOXELS_CONTRADICTED"))
    sized = packed_meta.replace(
        b"ElementDataFile", b"CompressedDataSize = %d\nElementDataFile" % len(zlib.compress(BODY))
    )
    files.append(Hostile("mha_zlib_sized", "the same with its size", {"mha_zlib_sized.mha": sized}, ACCEPT))
    files.append(Hostile("mha_zlib_cut", "the same, cut", {"mha_zlib_cut.mha": packed_meta[:-9]}, "FILE_CUT_OFF"))
    return files


def corpus() -> list[Hostile]:
    """Every hostile file."""
    made = [
        *dimensions(),
        *voxel_types(),
        *spacings(),
        *transforms(),
        *scalings(),
        *kinds(),
        *lengths(),
        *values(),
        *versions(),
        *text_headers(),
    ]
    seen: dict[str, int] = {}
    for hostile in made:
        seen[hostile.name] = seen.get(hostile.name, 0) + 1
    doubled = [name for name, count in seen.items() if count > 1]
    if doubled:
        raise ValueError(f"hostile files with one name: {doubled}")
    return made


def write(hostile: Hostile, folder: Path) -> Path:
    """Put a hostile file's content into a folder of its own; returns what is to be opened."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in hostile.content.items():
        (folder / name).write_bytes(content)
    return folder / hostile.opened


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for number, item in enumerate(corpus()):
        target = write(item, root / f"{number:03d}")
        print(f"{os.fspath(target)!r}: {item.what} -> {item.expected}")
