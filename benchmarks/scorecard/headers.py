"""NIfTI headers at random, each of which follows the standard.

Most fields are as files have them. One to three are as few files have them: codes, quaternions, pixdim, scalings,
units, intents, types, big endian, dimensions of size 1, offsets. Every file follows from its seed.
"""

import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.volumes.hostile import TYPES, packed, put

Affine = NDArray[np.float64]


@dataclass
class Header:
    """The fields of one header; whatever is not here is zero."""

    version: int = 1
    order: str = "<"
    code: int = 4
    shape: tuple[int, ...] = (5, 4, 3)
    beyond: int = 1
    """What `dim` has after the last dimension."""
    pixdim: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    codes: tuple[int, int] = (1, 1)
    quaternion: tuple[float, float, float] = (0.0, 0.0, 0.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rows: Affine = field(default_factory=lambda: np.eye(4))
    units: int = 2
    slope: float = 1.0
    inter: float = 0.0
    intent: int = 0
    gap: int = 0
    """Bytes between the header and the voxels."""
    extension: tuple[int, int] | None = None
    """The size and code of an extension."""
    more: dict[str, tuple[float, ...]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    """In words, what is unlike most files."""

    def content(self, voxels: NDArray[np.generic], *, as_gzip: bool) -> bytes:
        """The file."""
        length = 348 if self.version == 1 else 540
        raw, extension = bytes(length), b""
        if self.extension:
            extension = struct.pack(f"{self.order}ii", *self.extension) + b"<x/>" + bytes(self.extension[0] - 12)
        size = length + 4 + len(extension) + self.gap
        fields: dict[str, tuple[float | bytes, ...]] = {
            "sizeof_hdr": (length,),
            "dim": (len(self.shape), *self.shape, *[self.beyond] * (7 - len(self.shape))),
            "datatype": (self.code,),
            "bitpix": (8 * np.dtype(TYPES[self.code]).itemsize,),
            "pixdim": tuple(self.pixdim),
            "vox_offset": (size,),
            "scl_slope": (self.slope,),
            "scl_inter": (self.inter,),
            "xyzt_units": (self.units,),
            "intent_code": (self.intent,),
            "qform_code": self.codes[:1],
            "sform_code": self.codes[1:],
            "quatern": self.quaternion,
            "qoffset": self.offset,
            "srow": tuple(self.rows[:3].ravel()),
            "magic": (b"n+1\0" if self.version == 1 else b"n+2\0\r\n\x1a\n",),
        }
        for name, values in fields.items():
            raw = put(raw, name, *values, order=self.order, version=self.version)
        if self.version == 1:
            for name, (offset, kind) in MINOR_FIELDS.items():
                if name in self.more:
                    packed_values = struct.pack(f"{self.order}{len(self.more[name])}{kind}", *self.more[name])
                    raw = raw[:offset] + packed_values + raw[offset + len(packed_values) :]
        flag = bytes([1 if extension else 0, 0, 0, 0])
        body = voxels.astype(self.order + TYPES[self.code]).tobytes(order="F")
        whole = raw + flag + extension + bytes(self.gap) + body
        return packed(whole) if as_gzip else whole


MINOR_FIELDS = {
    "extents": (32, "i"),
    "session_error": (36, "h"),
    "regular": (38, "B"),
    "dim_info": (39, "B"),
    "intent_p": (56, "f"),
    "slice_start": (74, "h"),
    "slice_end": (120, "h"),
    "slice_code": (122, "B"),
    "cal": (124, "f"),
    "slice_duration": (132, "f"),
    "toffset": (136, "f"),
    "gl": (140, "i"),
}
"""Fields that neither place nor scale voxels, and where they lie. Source: nifti1.h."""


def rotation(quaternion: tuple[float, float, float]) -> Affine:
    """The rotation of the b, c, d of a unit quaternion. Source: nifti1.h, METHOD 2."""
    b, c, d = quaternion
    a = math.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )


def _as_float32(value: float) -> float:
    return float(np.float32(value))


def usual(random_: random.Random) -> Header:
    """A header as most files have one: both transforms say the same."""
    header = Header(shape=tuple(random_.choice((1, 2, 3, 4, 5, 7)) for _ in range(3)))
    header.code = random_.choice((4, 4, 4, 2, 16, 512, 8, 64, 256, 768, 1024, 1280))
    spacing = [
        _as_float32(random_.choice((1.0, 0.5, 2.0, 0.9765625, 3.3, random_.uniform(0.2, 9)))) for _ in range(3)
    ]
    kind = random_.random()
    parts = [0.0, 0.0, 0.0, 0.0]
    if kind < 0.4:  # axes along the axes of the world
        parts[random_.randrange(4)] = 1.0
    elif kind < 0.6:  # an LPS scan with a little tilt, half a turn about z
        parts = [random_.gauss(0, 0.02), random_.gauss(0, 0.02), random_.gauss(0, 0.02), 1.0]
    else:
        parts = [random_.gauss(0, 1) for _ in range(4)]
    length = math.sqrt(sum(part * part for part in parts))
    sign = -1.0 if parts[0] < 0 else 1.0
    b, c, d = (_as_float32(sign * part / length) for part in parts[1:])
    header.quaternion = (b, c, d)
    qfac = random_.choice((1.0, 1.0, -1.0))
    header.pixdim = [qfac, *spacing, 0.0, 0.0, 0.0, 0.0]
    header.offset = tuple(_as_float32(random_.uniform(-200, 200)) for _ in range(3))  # type: ignore[assignment]
    header.rows = np.eye(4)
    header.rows[:3, :3] = rotation(header.quaternion) * [spacing[0], spacing[1], qfac * spacing[2]]
    header.rows[:3, 3] = header.offset
    header.codes = random_.choice(((1, 1), (1, 1), (2, 2), (1, 4), (2, 1), (1, 0), (0, 1), (0, 2), (4, 4), (0, 4)))
    header.units = random_.choice((2, 10, 10, 0))
    header.slope = random_.choice((1.0, 1.0, 0.0, math.nan))
    header.inter = header.slope if math.isnan(header.slope) else 0.0
    return header


def _codes(random_: random.Random, header: Header) -> None:
    header.codes = (random_.randrange(6), random_.randrange(6))
    header.odd.append(f"codes {header.codes[0]} and {header.codes[1]}")


def _moved(random_: random.Random, header: Header) -> None:
    voxels = random_.choice((0.01, 0.04, 0.08, 0.3, 2.0, 50.0))
    axis = random_.randrange(3)
    header.rows = header.rows.copy()
    header.rows[:3, 3] += header.rows[:3, axis] * voxels
    header.odd.append(f"sform moved by {voxels} voxels")


def _turned(random_: random.Random, header: Header) -> None:
    degrees = random_.choice((0.01, 0.1, 1.0, 15.0, 90.0, 180.0))
    angle = math.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    header.rows = turn @ header.rows
    header.odd.append(f"sform turned by {degrees} degrees")


def _flipped(random_: random.Random, header: Header) -> None:
    axis = random_.randrange(3)
    header.rows = header.rows.copy()
    header.rows[:3, axis] *= -1.0
    header.odd.append(f"axis {axis} of the sform reversed")


def _sheared(random_: random.Random, header: Header) -> None:
    lean = random_.choice((1e-5, 1e-4, 1e-3, 5e-3, 0.02, 0.1, 0.36))
    header.rows = header.rows.copy()
    first, second = header.rows[:3, 0], header.rows[:3, 1]
    length = np.linalg.norm(second)
    leaning = second / length + lean * first / np.linalg.norm(first)
    header.rows[:3, 1] = leaning / np.linalg.norm(leaning) * length
    header.odd.append(f"sform sheared by {lean}")


def _spaced(random_: random.Random, header: Header) -> None:
    axis = random_.choice((1, 2, 3))
    by = random_.choice((1.0001, 1.001, 1.005, 0.995, 1.009, 1.02, 2.0))
    header.pixdim[axis] *= by
    header.odd.append(f"pixdim[{axis}] times {by}")


def _no_spacing(random_: random.Random, header: Header) -> None:
    axis = random_.choice((1, 2, 3))
    value = random_.choice((0.0, -1.0, math.nan))
    header.pixdim[axis] = value if value != -1.0 else -header.pixdim[axis]
    header.odd.append(f"pixdim[{axis}] is {'negative' if value == -1.0 else value}")


def _qfac(random_: random.Random, header: Header) -> None:
    header.pixdim[0] = random_.choice((0.0, -1.0, 1.0, math.nan))
    header.odd.append(f"qfac {header.pixdim[0]}")


def _long_quaternion(random_: random.Random, header: Header) -> None:
    by = 1.0 + random_.choice((1e-7, 5e-7, 2e-6, 8e-6))
    length = math.sqrt(sum(part * part for part in header.quaternion)) or 1.0
    header.quaternion = tuple(part / length * by for part in header.quaternion)  # type: ignore[assignment]
    if any(header.quaternion):
        header.rows = header.rows.copy()
        spacing = np.array(header.pixdim[1:4]) * [1, 1, -1 if header.pixdim[0] < 0 else 1]
        header.rows[:3, :3] = rotation(tuple(part / by for part in header.quaternion)) * spacing  # type: ignore[arg-type]
    header.odd.append(f"quaternion {by - 1:.0e} too long")


def _units(random_: random.Random, header: Header) -> None:
    header.units = random_.choice((0, 1, 3, 8, 9, 11, 16, 18, 26, 34, 42, 50))
    header.odd.append(f"units {header.units}")


def _scaling(random_: random.Random, header: Header) -> None:
    header.slope, header.inter = random_.choice(
        (
            *((0.0, 5.0), (1.0, -1024.0), (2.0, 0.0), (0.01, 0.0), (-1.0, 100.0), (1e-3, 1e3), (1.0, 0.5)),
            *((math.nan, 0.0), (math.nan, 5.0), (1e-30, 0.0), (1e4, 0.0), (0.99999994, 0.0), (1 / 255, 0.0)),
            *((0.0, math.nan), (1.0, 1e-8), (1e-9, 0.0), (1.0000001, 0.0)),
        )
    )
    header.odd.append(f"slope {header.slope:g}, inter {header.inter:g}")


def _intent(random_: random.Random, header: Header) -> None:
    header.intent = random_.choice((2, 3, 24, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011))
    if random_.random() < 0.4:
        header.intent = random_.choice((2001, 2002, 2003, 2004, 2005, 2006, 2016, 2018))
    header.more["intent_p"] = tuple(random_.choice((0.0, 1.0, 3.0)) for _ in range(3))
    header.odd.append(f"intent {header.intent}")


def _big_endian(random_: random.Random, header: Header) -> None:
    header.order = ">"
    header.odd.append("big-endian")


def _version(random_: random.Random, header: Header) -> None:
    header.version = 2
    header.odd.append("NIfTI-2")


def _singletons(random_: random.Random, header: Header) -> None:
    header.shape = (*header.shape[:3], *[1] * random_.choice((1, 2, 3, 4)))
    for axis in range(4, 8):
        header.pixdim[axis] = random_.choice((0.0, 1.0, 2.5, -1.0))
    header.odd.append(f"{len(header.shape)} dimensions")


def _flat(random_: random.Random, header: Header) -> None:
    axis = random_.randrange(3)
    header.shape = tuple(1 if number == axis else size for number, size in enumerate(header.shape))
    header.odd.append(f"axis {axis} of one voxel")


def _beyond(random_: random.Random, header: Header) -> None:
    header.beyond = random_.choice((0, 2, -1, 32767))
    for axis in range(4, 8):
        header.pixdim[axis] = random_.choice((0.0, 1.0, -3.0, 1e30, math.nan))
    header.odd.append(f"dim[4..] = {header.beyond}")


def _gap(random_: random.Random, header: Header) -> None:
    header.gap = random_.choice((1, 4, 16, 1000, 4096))
    header.odd.append(f"{header.gap} bytes before the voxels")


def _extension(random_: random.Random, header: Header) -> None:
    header.extension = (random_.choice((16, 32, 1600)), random_.choice((0, 2, 4, 6, 18, 44)))
    header.odd.append(f"an extension of code {header.extension[1]}")


def _minor(random_: random.Random, header: Header) -> None:
    header.more |= {
        "regular": (random_.choice((0, 114)),),
        "extents": (random_.choice((0, 16384)),),
        "dim_info": (random_.randrange(64),),
        "slice_start": (random_.choice((0, 1)),),
        "slice_end": (random_.choice((0, 2)),),
        "slice_code": (random_.randrange(7),),
        "cal": (random_.choice((0.0, 100.0)), random_.choice((0.0, 3.0))),
        "slice_duration": (random_.choice((0.0, 0.1)),),
        "toffset": (random_.choice((0.0, 5.0)),),
        "gl": (random_.choice((0, 255)), random_.choice((0, 10))),
    }
    header.odd.append("minor fields set")


ODDITIES: list[Callable[[random.Random, Header], None]] = [
    *(_codes, _codes, _moved, _turned, _flipped, _sheared, _sheared, _spaced, _spaced, _no_spacing, _qfac),
    *(_long_quaternion, _units, _scaling, _scaling, _scaling, _intent, _big_endian, _version, _singletons),
    *(_flat, _beyond, _gap, _extension, _minor),
]


def generated(seed: int) -> tuple[Header, NDArray[np.generic], bool]:
    """A header, its stored voxels, and whether the file is compressed."""
    random_ = random.Random(seed)
    header = usual(random_)
    for change in random_.sample(ODDITIES, random_.choice((0, 1, 1, 1, 2, 2, 3))):
        change(random_, header)
    kind = np.dtype(TYPES[header.code])
    if kind.kind == "f":
        voxels = np.random.default_rng(seed).normal(0, 100, header.shape).astype(kind)
    else:
        info = np.iinfo(kind)
        low, high = random_.choice(
            ((0, 4), (0, 100), (max(info.min, -3000), min(info.max, 3000)), (info.min, info.max))
        )
        voxels = np.random.default_rng(seed).integers(
            max(low, info.min), min(high, info.max), header.shape, dtype=kind, endpoint=True
        )
    return header, voxels, random_.random() < 0.5
