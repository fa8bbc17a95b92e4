"""Where three readers put the same DICOM series: medfcn, SimpleITK and dcm2niix against the headers of the slices.

    pip install -c constraints.txt -e '.[test]' dcm2niix
    python benchmarks/dicom_readers.py

For every kind of made series, the corners of each slice are computed from its own ImagePositionPatient,
ImageOrientationPatient and PixelSpacing with pydicom alone. The table says how far the nearest voxel of each reader's
volume is from these corners at most, in mm, and how many of them have another intensity.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from medfcn.errors import MedfcnError
from medfcn.volumes import ReadOptions, read_volume
from tests.volumes.dicom_series import expected_voxels
from tests.volumes.test_dicom import MADE
from tests.volumes.test_dicom_refusals import BROKEN

Read = tuple[NDArray[np.float64], NDArray[np.float64]]
COMPARED = (
    "a slice missing", "nine of ten in 2 mm", "a slice moved along", "a gantry tilt", "two echoes",
    "an enhanced file without a frame",
)  # fmt: skip


def by_medfcn(folder: Path) -> Read | str:
    try:
        volume = read_volume(folder, options=ReadOptions())
    except MedfcnError as error:
        return f"refused ({error.code})"
    return volume.array.astype(float), volume.affine


def by_simpleitk(folder: Path) -> Read | str:
    reader = SimpleITK.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder))
    try:
        image = SimpleITK.ReadImage(names if len(names) > 1 else names[0])
    except RuntimeError:
        return "refused"
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T.astype(float), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def by_dcm2niix(folder: Path) -> Read | str:
    with tempfile.TemporaryDirectory() as out:
        command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "volume", "-o", out, str(folder)]
        subprocess.run(command, capture_output=True, check=False, timeout=60)
        files = sorted(Path(out).glob("*.nii"))
        if len(files) != 1:
            return f"{len(files)} files"
        image = nibabel.load(files[0])
        return np.asarray(image.dataobj).astype(float), np.asarray(image.affine)


def difference(read: Read | str, folder: Path) -> str:
    """The largest distance of a corner from its voxel in mm, and how many corners have another intensity."""
    if isinstance(read, str):
        return read
    array, affine = read
    expected = expected_voxels(folder)
    to_voxels, farthest, other = np.linalg.inv(affine), 0.0, 0
    for world, intensity in expected:
        place = np.clip(np.rint(to_voxels @ [*world, 1.0])[:3], 0, np.array(array.shape[:3]) - 1).astype(int)
        farthest = max(farthest, float(np.linalg.norm((affine @ [*place, 1.0])[:3] - world)))
        values = np.atleast_1d(array[tuple(place)])
        other += not np.isclose(values, intensity, rtol=1e-5, atol=1e-3).any()
    return f"{farthest:.3f} mm, {other} of {len(expected)}"


def main() -> None:
    readers = {"medfcn": by_medfcn, "SimpleITK": by_simpleitk, "dcm2niix": by_dcm2niix}
    print(f"| series | {' | '.join(readers)} |\n|---|{'---|' * len(readers)}")
    makers = MADE | {name: BROKEN[name][0] for name in COMPARED}
    for kind, make in makers.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = make(Path(scratch) / "series")
            cells = [difference(read(folder), folder) for read in readers.values()]
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
