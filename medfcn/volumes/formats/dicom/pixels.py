"""The numbers of slices, read one after the other into the final array."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import MedfcnError, VolumeError, naming
from medfcn.memory import require_memory
from medfcn.text import shown
from medfcn.volumes.formats.dicom.header import Frame, Header
from medfcn.volumes.formats.dicom.library import guarded, pydicom
from medfcn.volumes.formats.refusals import require_allowed

_IMPLICIT = "1.2.840.10008.1.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"


def read_pixels(
    frames: Sequence[Frame], headers: Mapping[Path, Header], *, max_bytes: int
) -> tuple[NDArray[Any], float, float]:
    """The voxels of a stack.

    Numbers stay as they are stored where all slices share one slope and intercept, which are returned. Otherwise each
    slice is rescaled in float64, and all are stored in one type: float32 for 8- and 16-bit numbers, else float64.

    Args:
        frames: The slices, in order.
        headers: The header of each file.
        max_bytes: Refuse a volume that takes more.

    Returns:
        `(I, J, K)` in Fortran order, the slope and the intercept.

    Raises:
        VolumeError: Pixels cannot be decoded, or have another shape than the header says.
    """
    columns, rows = headers[frames[0].path].shape
    types = {headers[frame.path].dtype for frame in frames}
    rescales = {frame.rescale for frame in frames}
    as_stored = len(types) == 1 and len(rescales) == 1
    if as_stored:
        dtype = np.dtype(next(iter(types)))
    else:
        dtype = np.dtype(np.float32 if all(np.dtype(name).itemsize <= 2 for name in types) else np.float64)
    count = columns * rows * len(frames) * dtype.itemsize
    require_allowed(count, max_bytes)
    require_memory(count, f"{columns}×{rows}×{len(frames)} voxels")
    array = np.empty((columns, rows, len(frames)), dtype=dtype, order="F")
    places = {(frame.path, frame.index): k for k, frame in enumerate(frames)}
    for path, indices in _by_file(frames).items():
        with (
            naming(shown(path)),
            guarded("its pixels cannot be decoded: cut off or damaged", "copy it again", "FILE_DAMAGED"),
        ):
            for index, plane in zip(indices, decoded(path, headers[path], indices), strict=True):
                if plane.shape != (rows, columns):
                    found = f"pixels are {plane.shape}, and the header says {(rows, columns)}; export it again"
                    raise VolumeError(found, code="SHAPE", field="Rows")
                if plane.dtype.kind == "f" and dtype.kind != "f":
                    found = "pixels are floats, which only a parametric map has; export it again"
                    raise VolumeError(found, code="VOXELS_TYPE", field="SOPClassUID")
                k = places[path, index]
                rescale = frames[k].rescale
                if not as_stored and rescale is not None:
                    plane = plane.astype(np.float64) * rescale[0] + rescale[1]
                array[:, :, k] = plane.T
    slope, inter = next(iter(rescales)) or (1.0, 0.0) if as_stored else (1.0, 0.0)
    return array, slope, inter


def _by_file(frames: Sequence[Frame]) -> dict[Path, list[int]]:
    """The frames that are needed of each file, in the order in which they are stored."""
    files: dict[Path, list[int]] = {}
    for frame in frames:
        files.setdefault(frame.path, []).append(frame.index)
    return {path: sorted(indices) for path, indices in files.items()}


def decoded(path: Path, header: Header, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Frames of a file as `(rows, columns)` stored numbers, by their numbers in `Frame`."""
    yield from iter_frames(path, [max(index, 0) for index in indices], header.syntax)


def iter_frames(path: Path, wanted: Sequence[int], syntax: str | None = None) -> Iterator[NDArray[Any]]:
    """Frames of a file as `(rows, columns)` stored numbers.

    Args:
        path: The file.
        wanted: Numbers of the frames, from 0, in rising order.
        syntax: UID of the transfer syntax; empty where the file states none, None where nobody has looked.

    Raises:
        VolumeError: There are fewer frames.
    """
    if not wanted:
        return
    library = pydicom()
    from pydicom.pixels.utils import iter_pixels

    source: Any = path
    if syntax is None:
        syntax = str(
            getattr(library.dcmread(path, force=True, specific_tags=[]), "file_meta", {}).get("TransferSyntaxUID", "")
        )
    if syntax in ("", _DEFLATED):  # pydicom 3.0.2 finds no pixels in a deflated file that it opens itself
        source = library.dcmread(path, force=True)
    if not syntax:  # a file without the part of the header that says how the rest is stored
        source.file_meta.TransferSyntaxUID = _syntax_of(source)
    count = 0
    for plane in iter_pixels(source, indices=wanted, raw=True):
        count += 1
        yield plane
    if count != len(wanted):
        raise VolumeError(f"{count} of {len(wanted)} frames have pixels; copy the file again", code="FILE_CUT_OFF")


def iter_bits(path: Path, wanted: Sequence[int], shape: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Frames of one bit a pixel as `(rows, columns)` zeros and ones.

    Frames follow each other without a gap, so that one may begin within a byte: DICOM PS3.5, 8.1.1. pydicom 3.0.2
    cannot give them one by one then.

    Args:
        path: The file.
        wanted: Numbers of the frames, from 0.
        shape: `(columns, rows)`.

    Raises:
        VolumeError: There are fewer frames.
    """
    columns, rows = shape
    content = pydicom().dcmread(path, force=True)
    if content.file_meta.TransferSyntaxUID.is_encapsulated:
        frames = content.pixel_array.reshape(-1, rows, columns)
        yield from (frames[index] for index in wanted)
        return
    packed, count = np.frombuffer(content.PixelData, dtype=np.uint8), rows * columns
    for index in wanted:
        first, end = index * count, (index + 1) * count
        if end > 8 * len(packed):
            raise VolumeError(f"frame {index + 1} has no pixels; copy the file again", code="FILE_CUT_OFF")
        bits = np.unpackbits(packed[first // 8 : (end + 7) // 8], bitorder="little")
        yield bits[first % 8 : first % 8 + count].reshape(rows, columns)


def _syntax_of(content: Any) -> str:
    little = content.original_encoding[1] is not False
    if content.original_encoding[0]:
        return _IMPLICIT
    return "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


def same_pixels(first: Path, second: Path) -> bool:
    """True if two files of one slice have equal pixels; False where one of them cannot be decoded."""
    from medfcn.volumes.formats.dicom.header import read_header

    try:
        planes = []
        for path in (first, second):
            header = read_header(path)
            with guarded("its pixels cannot be decoded"):
                planes.append(np.stack(list(decoded(path, header, [frame.index for frame in header.frames]))))
    except MedfcnError:
        return False
    return bool(np.array_equal(planes[0], planes[1]))
