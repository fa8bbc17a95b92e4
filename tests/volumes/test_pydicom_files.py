"""The DICOM files that come with pydicom: each is read where its header says, or refused in one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'medfcn[dicom]'")
import pydicom
from pydicom.data.data_manager import DATA_ROOT

from medfcn.errors import MedfcnError
from medfcn.volumes import read_volume

FOLDER = Path(DATA_ROOT) / "test_files"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.dcm"))
READ = {
    "693_J2KI.dcm",
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "examples_overlay.dcm",
}
"""One slice each; the others are colours, doses, plans, reports, segmentations, without a place, or broken."""


@pytest.mark.filterwarnings("ignore")  # of pydicom, on files that are odd on purpose
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_pydicom_is_in_its_place_or_refused(name: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(FOLDER / name, tmp_path / Path(name).name))
    if name not in READ:
        with pytest.raises(MedfcnError) as caught:
            read_volume(path)
        assert str(caught.value).isprintable()
        assert Path(name).stem in str(caught.value)
        return
    volume, header = read_volume(path), pydicom.dcmread(path)
    row, column = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
    down, right = map(float, header.PixelSpacing)
    corners = [volume.affine[:3] @ (i, j, 0, 1) for i in (0, volume.shape[0] - 1) for j in (0, volume.shape[1] - 1)]
    for j, i in np.ndindex(2, 2):
        place = np.array(header.ImagePositionPatient, dtype=float)
        place = place + row * right * i * (header.Columns - 1) + column * down * j * (header.Rows - 1)
        assert min(np.abs(corner - place * (-1, -1, 1)).max() for corner in corners) < 1e-3
