"""Compressed bytes are decided by what is written, not by the Python that writes it."""

import gzip
import io
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from medfcn.volumes import Volume
from medfcn.volumes.formats.nifti_labels import TableLabel
from medfcn.volumes.formats.seg_nrrd import write_seg_nrrd
from medfcn.volumes.formats.streams import gzip_writer

PIECES = tuple(
    np.repeat(np.random.default_rng(seed).integers(0, 9, length // 50 + 1, dtype=np.uint8), 50)[:length].data
    for seed, length in enumerate((352, 5000, 0, 200_000, 70_000))
)


class _Joining(gzip.GzipFile):
    """Hands small writes on in one piece, as `GzipFile` does from Python 3.12 on."""

    def __init__(self, *given: object, **named: object) -> None:
        super().__init__(*given, **named)  # type: ignore[arg-type]
        self.waiting = bytearray()

    def write(self, data: object) -> int:
        self.waiting += memoryview(data).cast("B")  # type: ignore[arg-type]
        return len(memoryview(data).cast("B"))  # type: ignore[arg-type]

    def close(self) -> None:
        waiting, self.waiting = self.waiting, bytearray()
        if waiting:
            super().write(waiting)
        super().close()


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("compressor", ["isal", "zlib"])
def test_each_write_reaches_the_compressor_as_it_is(
    level: int, compressor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compressor == "isal":
        library = pytest.importorskip("isal.isal_zlib")
        own_level = level
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
        library, own_level = zlib, (1, 2, 4, 6)[level]
    file = io.BytesIO()
    with gzip_writer(file, level=level) as stream:
        for piece in PIECES:
            assert stream.write(piece) == len(piece)
    expected = library.compressobj(own_level, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join([*(expected.compress(piece) for piece in PIECES), expected.flush()])
    made = file.getvalue()
    assert made[10:-8] == body
    assert made[:10] == bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4 if level == 0 else 0, 255])
    assert gzip.decompress(made) == b"".join(PIECES)


def test_masks_have_the_same_bytes_where_gzip_joins_small_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    igzip = pytest.importorskip("isal.igzip")
    joining = type("Joining", (_Joining, igzip.GzipFile), {})
    places = np.indices((30, 30, 30))
    labels = [TableLabel(1, "organ", "#E69F00")]
    for radius in range(3, 16):
        ball = (radius**2 > ((places.T - 15) ** 2).sum(-1).T).astype(np.uint8)
        for folder in (tmp_path / "as they are", tmp_path / "joined"):
            folder.mkdir(exist_ok=True)
            with monkeypatch.context() as patches:
                if folder.name == "joined":
                    patches.setattr(igzip, "GzipFile", joining)
                Volume(ball, np.eye(4)).save(folder / f"{radius}.nii.gz")
                write_seg_nrrd(folder / f"{radius}.seg.nrrd", [ball], np.eye(4), labels)
    made = sorted((tmp_path / "joined").iterdir())
    assert len(made) == 26
    assert [
        path.name for path in made if path.read_bytes() != (tmp_path / "as they are" / path.name).read_bytes()
    ] == []


def test_a_stream_that_is_closed_twice_has_one_end() -> None:
    file = io.BytesIO()
    stream = gzip_writer(file, level=1)
    stream.write(b"slice")
    stream.close()
    stream.close()
    assert gzip.decompress(file.getvalue()) == b"slice"
    assert not file.closed
