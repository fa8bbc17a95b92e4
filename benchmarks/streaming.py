"""Peak memory and CPU seconds of `medfcn predict` on large volumes, above those of a small one.

    python benchmarks/streaming.py OUTPUT [--labels 1 5 104] [--slices 134 400 1000] [--cubes 128] [--before FOLDER]
        [--rounds 1] [--how plain views probabilities uncertainty]

Networks are made by hand, with random weights, on axial slices of 512×512 (of a cube's size for `--cubes`) without
resampling; volumes are phantoms of a CT, int16. `--how` also measures networks of three views (axial, coronal,
sagittal, on the volume's own grid), and the options `--probabilities` and `--uncertainty`. `--before` is a folder
with another install of `medfcn` (a checkout, or the result of `pip install --target FOLDER --no-deps .`); the two
then take turns. Each line has the peak above that of the same command on 40×40×40, in parts of the volume as
float32; those of cubes count from 0.
"""

import argparse
import os
import sys
from pathlib import Path

import nibabel
import numpy as np
import torch
from measured import processor, run_measured

from medfcn.inference.card import Card
from medfcn.inference.model import Model
from medfcn.labels import LabelMap
from medfcn.networks.design import Design
from medfcn.networks.fcn import build_network
from medfcn.settings import Settings
from medfcn.slices.plan import Intensity, Plan

EDGE = 512
SMALL = 40
ALL_VIEWS = ("axial", "coronal", "sagittal")
OPTIONS = {"probabilities": ["--probabilities"], "uncertainty": ["--uncertainty"]}


def made_model(
    labels: int,
    folder: Path,
    views: tuple[str, ...] = ("axial",),
    edge: int = EDGE,
    widths: tuple[int, ...] = (16, 32, 64, 128, 160, 160),
    spacing: float = 0.8,
) -> Path:
    """A run folder of a network whose masks contain a good part of every label; of each one component is kept."""
    names = LabelMap.parse(",".join(f"label_{index}={index}" for index in range(1, labels + 1)))
    plan = Plan(
        views=views,
        spacing_mm=(spacing, spacing, None if len(views) == 1 else 2.0),
        window=(edge, edge),
        context=1,
        widths=widths,
        intensities=(Intensity("zscore", background="robust"),),
        batch_size=8,
        mirror_axes=(),
        reasons={},
        stem_stride=2,
    )
    torch.manual_seed(1)
    design = Design.of(
        Settings().network, widths=plan.widths, channels_in=1, label_count=labels, overlapping=False, stem_stride=2
    )
    network = build_network(design).eval()
    network.head.weight.data.mul_(8)
    with torch.inference_mode():
        seen = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
        logits = network(torch.nn.functional.interpolate(seen, scale_factor=8, mode="bilinear"))
        network.head.bias.data.sub_(logits.movedim(1, 0).flatten(1).median(dim=1).values)
    card = Card(
        labels=names,
        channels=("ct",),
        plan=plan,
        settings=Settings(),
        one_part=tuple(range(1, labels + 1)),
        components="largest and most certain",
        weights_sha256="",
        versions={"medfcn": "made"},
    )
    folder.mkdir(parents=True, exist_ok=True)
    Model(network, card, device=torch.device("cpu")).save(folder)
    return folder


def made_volume(edge: int, slices: int, path: Path, *, reference: Path | None = None) -> Path:
    """A body in air with round organs, and noise; the reference, if one is wanted, is the brightest organ."""
    if path.is_file() and (reference is None or reference.is_file()):
        return path
    noise = np.random.default_rng(0).normal(0, 12, (edge, edge)).astype(np.float32)
    second, first = np.mgrid[0:edge, 0:edge].astype(np.float32) / edge * 2 - 1
    voxels = np.empty((edge, edge, slices), np.int16, order="F")
    brightest = np.zeros(voxels.shape if reference else (edge, edge, 0), np.uint8, order="F")
    for k in range(slices):
        height = k / slices
        body = (first / 0.8) ** 2 + (second / (0.6 + 0.1 * np.sin(6 * height))) ** 2 < 1
        plane = np.where(body, np.float32(40), np.float32(-1000))
        for organ in range(8):
            middle = 0.5 * np.cos(organ + 3 * height), 0.35 * np.sin(2 * organ + 2 * height)
            inside = (first - middle[0]) ** 2 + (second - middle[1]) ** 2 < (0.05 + 0.02 * organ) ** 2
            plane += (30 * organ - 60) * (inside & body)
        if reference:
            brightest[:, :, k] = inside & body
        voxels[:, :, k] = np.clip(plane + np.roll(noise, 7 * k % edge, axis=k % 2), -1024, 3000)
    for made, where in ((voxels, path), (brightest, reference)):
        if where is not None:
            where.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(made, np.diag([-0.8, -0.8, 2.0, 1.0])), where)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[1, 5, 104])
    parser.add_argument("--slices", type=int, nargs="*", default=[134, 400, 1000])
    parser.add_argument("--cubes", type=int, nargs="+", default=[])
    parser.add_argument("--how", nargs="+", default=["plain"], choices=["plain", "views", *OPTIONS])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    installs = {"before": arguments.before} if arguments.before else {}
    installs["after"] = Path(__file__).resolve().parents[1]
    print(processor())
    shapes = [(SMALL, SMALL), *((EDGE, count) for count in arguments.slices)]
    for how in arguments.how:
        for labels in arguments.labels:
            views = ALL_VIEWS if how == "views" else ALL_VIEWS[:1]
            for edge in (EDGE, *arguments.cubes):
                run = made_model(labels, arguments.output / f"model_{labels}_{len(views)}_{edge}", views, edge)
                shown = shapes if edge == EDGE else [(edge, edge)]
                measure(run, f"{labels} labels, {how}", shown, installs, OPTIONS.get(how, []), arguments)


def measure(
    run: Path,
    name: str,
    shapes: list[tuple[int, int]],
    installs: dict[str, Path],
    options: list[str],
    arguments: argparse.Namespace,
) -> None:
    """Print a line for each volume and install; the first shape is the small one."""
    peaks = dict.fromkeys(installs, 0.0)
    for number, (edge, slices) in enumerate(shapes):
        volume = made_volume(edge, slices, arguments.output / f"{edge}x{edge}x{slices}.nii.gz")
        for install, package in [*installs.items()] * arguments.rounds:
            variables = {"PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
            words = ["predict", str(run), str(volume), "-o", str(arguments.output / f"mask_{install}.nii.gz")]
            command = [sys.executable, "-m", "medfcn", *words, *options, "--overwrite"]
            used = run_measured(command, arguments.output / "log.txt", **variables)
            if not number and edge == SMALL:
                peaks[install] = used.peak_mb
            above = (used.peak_mb - peaks[install]) * 2**20 / (4 * edge * edge * slices)
            print(
                f"{name}, {edge}×{edge}×{slices}, {install}: {used.cpu_seconds:.1f} CPU s, {used.peak_mb:.0f} MB, "
                f"{above:.2f} × float32 above the small one",
                flush=True,
            )
            os.sync()


if __name__ == "__main__":
    main()
