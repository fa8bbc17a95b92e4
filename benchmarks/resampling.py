"""To a 1.5 mm grid and back: medfcn against SimpleITK, torch's grid_sample and MONAI's Spacing.

    python benchmarks/resampling.py [--rounds 5]

A 384×384×100 volume of 0.8×0.8×2.5 mm, float32, one thread. Every tool runs in a process of its own, in turn
(A B C D A B C D …); CPU seconds are those of the two resamplings alone, after one that is not counted. The volume
is a smooth function of world coordinates, so each tool's result can be held against that function at the places
where the tool says its voxels lie: the error is the largest difference, an eighth of each edge left out, in
shares of the function's range. Linear interpolation itself costs 0.1 % here.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPE = (384, 384, 100)
SPACING_MM = (0.8, 0.8, 2.5)
TARGET_MM = 1.5
AFFINE = np.diag([*SPACING_MM, 1.0])
Array = NDArray[np.float32]


def smooth(affine: NDArray[np.float64], shape: tuple[int, ...]) -> Array:
    """A function of world coordinates with wavelengths from 60 mm, at a grid's voxels; its range is about 3."""
    axes = [affine[axis, axis] * np.arange(shape[axis]) + affine[axis, 3] for axis in range(3)]
    waves = [np.sin(2 * np.pi * axis / length) for axis, length in zip(axes, (60, 75, 90), strict=True)]
    total = waves[0][:, None, None] + waves[1][None, :, None] + waves[2][None, None, :]
    return np.asarray(total, dtype=np.float32)


def interior(array: Array) -> Array:
    return array[tuple(slice(size // 8, size - size // 8) for size in array.shape)]


# A tool takes the volume and returns: the 1.5 mm volume, its affine, and the volume brought back.
Result = tuple[Array, NDArray[np.float64], Array]


def by_medfcn(volume: Array) -> Result:
    from medfcn.slices.grid import map_to_network, to_native_grid, to_network_grid

    grid = map_to_network(SHAPE, "RAS", SPACING_MM, (TARGET_MM,) * 3)
    there = to_network_grid(volume, grid)
    return there, AFFINE @ grid.native_voxel, to_native_grid(there, grid)


def by_simpleitk(volume: Array) -> Result:
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = sitk.GetImageFromArray(volume.T)
    image.SetSpacing(SPACING_MM)
    size = [round(count * edge / TARGET_MM) for count, edge in zip(SHAPE, SPACING_MM, strict=True)]
    start = [(count * edge - new * TARGET_MM) / 2 + TARGET_MM / 2 - edge / 2
             for count, edge, new in zip(SHAPE, SPACING_MM, size, strict=True)]  # fmt: skip
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing((TARGET_MM,) * 3)
    grid.SetOrigin(start)
    there = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0)
    back = sitk.Resample(there, image, sitk.Transform(), sitk.sitkLinear, 0.0)
    affine = np.diag([TARGET_MM] * 3 + [1.0])
    affine[:3, 3] = start
    return sitk.GetArrayFromImage(there).T, affine, sitk.GetArrayFromImage(back).T


def by_grid_sample(volume: Array) -> Result:
    import torch

    def sample(source: torch.Tensor, size: list[int], ratios: list[float]) -> torch.Tensor:
        axes = [
            ((torch.arange(new) + 0.5 - new / 2) * ratio) * 2 / old
            for new, ratio, old in zip(size, ratios, source.shape, strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)[None]
        return torch.nn.functional.grid_sample(
            source[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False
        )[0, 0]

    size = [round(count * edge / TARGET_MM) for count, edge in zip(SHAPE, SPACING_MM, strict=True)]
    there = sample(torch.from_numpy(volume), size, [TARGET_MM / edge for edge in SPACING_MM])
    back = sample(there, list(SHAPE), [edge / TARGET_MM for edge in SPACING_MM])
    affine = np.diag([TARGET_MM] * 3 + [1.0])
    affine[:3, 3] = [
        (count * edge - new * TARGET_MM) / 2 + TARGET_MM / 2 - edge / 2
        for count, edge, new in zip(SHAPE, SPACING_MM, size, strict=True)
    ]
    return there.numpy(), affine, back.numpy()


def by_monai(volume: Array) -> Result:
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    image = MetaTensor(torch.from_numpy(volume)[None], affine=torch.from_numpy(AFFINE))
    there = Spacing((TARGET_MM,) * 3, mode="bilinear")(image)
    back = Spacing(SPACING_MM, mode="bilinear")(there, output_spatial_shape=SHAPE)
    return there[0].numpy(), there.affine.numpy(), back[0].numpy()


TOOLS: dict[str, Callable[[Array], Result]] = {
    "medfcn": by_medfcn,
    "SimpleITK": by_simpleitk,
    "grid_sample": by_grid_sample,
    "MONAI Spacing": by_monai,
}


def measure(name: str) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    volume = smooth(AFFINE, SHAPE)
    TOOLS[name](volume)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    there, affine, back = TOOLS[name](volume)
    seconds = time.process_time() - started
    spread = float(volume.max() - volume.min())
    return {
        "seconds": seconds,
        "peak_mb": before / 1024,
        "error": float(np.abs(interior(there) - interior(smooth(affine, there.shape))).max()) / spread,
        "round_trip": float(np.abs(interior(back) - interior(volume)).max()) / spread,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tool", choices=list(TOOLS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tool:
        print(json.dumps(measure(arguments.tool)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in TOOLS}
    for _ in range(arguments.rounds):
        for name in TOOLS:
            done = subprocess.run(
                [sys.executable, __file__, "--tool", name], capture_output=True, text=True, check=True
            )
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    ours = [result["seconds"] for result in results["medfcn"]]
    print(f"{'':14} CPU s   times medfcn (median, range)   peak MB   error there   error there and back")
    for name, rows in results.items():
        ratios = [row["seconds"] / own for row, own in zip(rows, ours, strict=True)]
        middle = statistics.median(row["seconds"] for row in rows)
        print(
            f"{name:14} {middle:5.3f}   {statistics.median(ratios):5.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            f"{'':14} {rows[0]['peak_mb']:7.0f}   {rows[0]['error']:10.4%}   {rows[0]['round_trip']:10.4%}"
        )


if __name__ == "__main__":
    main()
