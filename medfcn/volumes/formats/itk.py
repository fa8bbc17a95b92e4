"""NRRD and MetaImage files, through SimpleITK.

SimpleITK 2.5.7 fills the missing part of a cut-off file with zeros, without an error. So the text header is read here
first: shape, type and grid must be stated, and the number of bytes that follow must be exactly right. Then SimpleITK
reads the voxels, and must return the same bytes on the same grid.
"""

import math
import os
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import VolumeError
from medfcn.files import sha256_of
from medfcn.memory_errors import raise_shortage
from medfcn.text import one_line, shown
from medfcn.volumes.formats.metaimage import parse_metaimage
from medfcn.volumes.formats.nrrd import parse_nrrd
from medfcn.volumes.formats.refusals import bad_field, broken_stream, require_allowed, wrong_size
from medfcn.volumes.formats.stored import StoredVolume
from medfcn.volumes.formats.streams import (
    CHUNK,
    LARGEST_RATIO,
    crc32,
    gzip_reader,
    joint_hash,
    opened,
    stream_errors,
)
from medfcn.volumes.formats.text_header import TextHeader
from medfcn.volumes.geometry import (
    ASSUMED_DIRECTIONS,
    Affine,
    checked_affine,
    corner_displacement_voxels,
    directions_text,
)
from medfcn.volumes.names import extension_of
from medfcn.volumes.options import ReadOptions

LARGEST_HEADER = 1 << 20
_STDERR_LOCK = threading.Lock()
_SAID_BYTES, _SAID_CHARACTERS = 4096, 250
"""As much of a library's lines is read, and is put into a message."""


def read_itk(path: str | os.PathLike[str], *, options: ReadOptions) -> StoredVolume:
    """Read a `.nrrd`, `.nhdr`, `.mha` or `.mhd` file, or refuse it in one line.

    Raises:
        MissingFileError: It, or the file with its voxels, is not there.
        VolumeError: It is cut off, too long, not a 3D image of numbers, or of a kind that is not read.
        GeometryError: Its grid is not stated or broken.
    """
    given = Path(path)
    with opened(given) as source:
        if source.is_gzip:
            found = f"named {extension_of(given)} but is gzip data; unpack it first"
            raise VolumeError(found, code="FILE_NAME")
        parse = parse_nrrd if extension_of(given).endswith((".nrrd", ".nhdr")) else parse_metaimage
        header = parse(given, source.read(LARGEST_HEADER))
        checksum = _checksum(header, options.max_bytes)
        if header.affine is None and not options.assume_grid:
            assumed = directions_text(ASSUMED_DIRECTIONS)
            remedy = f"re-export the file, or pass --assume-grid to assume that {assumed} where it does not say"
            found = "does not say how the grid is placed in the patient"
            raise bad_field("GRID_UNKNOWN", "the header", found, remedy)
        array, affine, said = _read_with_simpleitk(given)
        # Where CompressedDataSize is absent, SimpleITK 2.5.7 returns noise for a zlib stream, without an error.
        if array.shape != header.shape or _checksum_of(array, header.voxel_type) != checksum:
            raise VolumeError(
                f"SimpleITK reads other voxels ({_joined([f'{array.dtype} {array.shape}', *said])}) than the header "
                "describes; convert it to .nii.gz",
                code="VOXELS_CONTRADICTED",
            )
        _pass_on(said)
        if header.affine is not None:
            if not corner_displacement_voxels(header.affine, affine, header.shape) < 1e-3:
                found = "places the grid elsewhere than the header"
                raise bad_field("GRID_BROKEN", "SimpleITK", found, "convert it to .nii.gz")
            affine = header.affine
    digest = sha256_of(given)
    if header.voxel_path != given:
        digest = joint_hash(digest, sha256_of(header.voxel_path))
    notes = (f"grid not stated: assumed that {directions_text(affine)}",) if header.affine is None else ()
    return StoredVolume(array, affine, shown(given), digest, notes=notes)


@contextmanager
def caught_stderr() -> Iterator[list[str]]:
    """Catch the lines that a library of C++ writes to standard error past Python.

    In a command nothing else is caught: Python has a standard error of its own there. Elsewhere the lines may be
    another thread's, so they are passed on if the reading succeeds.

    Yields:
        A list that is filled at the end.
    """
    lines: list[str] = []
    with _STDERR_LOCK, ExitStack() as stack:
        caught = real = None
        with suppress(OSError):  # no standard error, or no room for a file: nothing is caught
            caught, real = stack.enter_context(tempfile.TemporaryFile()), os.dup(2)
            os.dup2(caught.fileno(), 2)
        try:
            yield lines
        finally:
            if caught is not None and real is not None:
                os.dup2(real, 2)
                os.close(real)
                caught.seek(0)
                text = caught.read(_SAID_BYTES).decode(errors="replace")
                lines += [line.strip() for line in text.splitlines() if line.strip()]


def _pass_on(lines: Sequence[str]) -> None:
    with suppress(OSError, ValueError, AttributeError):
        if sys.stderr.fileno() == 2:
            sys.stderr.writelines(f"{line}\n" for line in lines)


def _joined(lines: Sequence[str]) -> str:
    return one_line("; ".join(lines), limit=_SAID_CHARACTERS)


def _read_with_simpleitk(path: Path) -> tuple[NDArray[Any], Affine, list[str]]:
    """Voxels `(I, J, K)` and the affine to RAS+ that SimpleITK reads from a file, and its lines about it."""
    import SimpleITK

    library: Any = SimpleITK
    problem: RuntimeError | None = None
    with caught_stderr() as said:
        try:
            image = library.ReadImage(os.fspath(path))
        except RuntimeError as error:
            problem = error
    if problem is not None:
        raise_shortage(problem)
        last = str(problem).strip().splitlines()[-1:] or ["no reason given"]
        raise VolumeError(f"SimpleITK cannot read it ({_joined([*said, *last])}); convert it to .nii.gz") from problem
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeError("not a 3D image of single numbers; export it as one", code="SHAPE")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return library.GetArrayFromImage(image).T, checked_affine(ASSUMED_DIRECTIONS @ affine), said


def _checksum(header: TextHeader, max_bytes: int) -> int:
    """The CRC of the voxel bytes, of which there must be exactly as many as the header says."""
    expected = math.prod(header.shape) * header.voxel_type.itemsize
    require_allowed(expected, max_bytes)
    count, checksum = 0, 0
    with opened(header.voxel_path) as source:
        stored = max(source.file_size - header.voxel_offset, 0)
        possible = LARGEST_RATIO * stored + 1024 if header.compression else stored
        if possible < expected or (not header.compression and stored != expected):
            raise wrong_size(expected, stored)
        try:
            for part in _voxel_bytes(header):
                count += len(part)
                checksum = crc32(part, checksum)
                if count > expected:
                    break
        except stream_errors() as error:
            raise broken_stream(error, count) from error
        if count != expected:
            raise wrong_size(expected, count, at_least=count > expected)
    return checksum


def _voxel_bytes(header: TextHeader) -> Iterator[bytes]:
    """The voxel bytes, uncompressed, to the end of the file: bytes after a zlib stream are yielded too."""
    with header.voxel_path.open("rb") as file:
        file.seek(header.voxel_offset)
        if header.compression != "zlib":
            stream = gzip_reader(file) if header.compression == "gzip" else file
            while part := stream.read(CHUNK):
                yield part
            return
        unpacker = zlib.decompressobj()
        while not unpacker.eof:
            packed = unpacker.unconsumed_tail or file.read(CHUNK)
            if not packed:
                raise EOFError
            yield unpacker.decompress(packed, CHUNK)
        yield unpacker.unused_data or file.read(1)


def _checksum_of(array: NDArray[Any], voxel_type: np.dtype[Any]) -> int:
    """The CRC of voxels as they are stored in a file."""
    checksum = 0
    for k in range(array.shape[2]):
        checksum = crc32(array[:, :, k].astype(voxel_type).tobytes(order="F"), checksum)
    return checksum
