"""PNG files from pixels, without a library for pictures."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_GREY, _COLOUR = 0, 2


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """An 8-bit PNG; the same pixels give the same bytes.

    Args:
        pixels: `(rows, columns)` grey, or `(rows, columns, 3)` red, green and blue.

    Source:
        PNG specification, W3C, 2003, sections 5 and 9.

    Example:
        >>> png_bytes(np.zeros((1, 2), dtype=np.uint8))[:4]
        b'\\x89PNG'
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    rows, columns = pixels.shape[:2]
    # Each row begins with its filter: none.
    lines = np.hstack([np.zeros((rows, 1), dtype=np.uint8), pixels.reshape(rows, -1)]).tobytes()
    header = struct.pack(">IIBBBBB", columns, rows, 8, _GREY if pixels.ndim == 2 else _COLOUR, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    )
