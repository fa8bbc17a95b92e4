"""Slices trained per CPU second, for two installs of medfcn in turn, and what each part of a step takes.

    python benchmarks/speed.py DATA OUTPUT --base SITE [--new SITE] [--only SET ...] [--rounds 5] [--parts]
    python benchmarks/speed.py DATA OUTPUT --base SITE --dice SET [--steps 400] [--seeds 0 1 2]

DATA is the folder that contains `hippocampus/` and `heart_cine/`; SITE a folder that contains the package
`medfcn`, made by `pip install --target SITE --no-deps .`, or a checkout. Without `--new` it is this checkout. The
phantoms and the bands are made in OUTPUT. Network, window and batch are pinned by a settings file to what the base
plans; one thread each; base, new, base, new. A training ends after its measured steps; the figure of a round is the
median step, that of an install the median round.

`--parts` adds a table of the CPU time of each part of a step, and one of the new install with one change taken back.
`--dice` trains to the end with both and prints the mean Dice on the validation patients, and its paired difference.
"""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import nibabel
import numpy as np
from measured import processor, run_measured

from medfcn.evaluation.estimates import mean_interval

# Runs `medfcn train`, with the CPU seconds of every step and of its parts noted, and ends it after some steps.
DRIVER = """
import json, sys, time
from statistics import median

result, steps, without, words = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
from medfcn.cli import main
from medfcn.networks.losses import SegmentationLoss
from medfcn.networks.objective import Objective
from medfcn.networks.supervision import SupervisedFCN
from medfcn.training.averaging import AveragedWeights
from medfcn.training.batches import Batches
from medfcn.training.trainer import Trainer
import torch

parts, taken, stack = {}, [], []

def timed(owner, name, part):
    original = getattr(owner, name)
    def call(*arguments, **choices):
        started = time.process_time()
        stack.append(0.0)
        try:
            return original(*arguments, **choices)
        finally:
            whole = time.process_time() - started
            inner = stack.pop()
            if stack:
                stack[-1] += whole
            parts[part] = parts.get(part, 0.0) + whole - inner
    setattr(owner, name, call)

timed(Batches, "of", "slices")
timed(SupervisedFCN, "forward", "network, forward")
timed(Objective, "forward", "loss, forward")
timed(torch.Tensor, "backward", "backward")
built = torch.optim.Optimizer.__init__

def build(self, *arguments, **choices):
    built(self, *arguments, **choices)
    timed(self, "step", "optimiser")  # of this one, whichever class's it is: a build has its own

torch.optim.Optimizer.__init__ = build
timed(AveragedWeights, "update", "averaging")
if without == "loss":
    SegmentationLoss._is_by_index = lambda self, logits: False
original = Trainer._step

def step(self, *arguments):
    parts.clear()
    started = time.process_time()
    value = original(self, *arguments)
    taken.append({"step": time.process_time() - started, **parts})
    if len(taken) == steps:
        warm = taken[max(1, steps // 5):]
        found = {name: median(each[name] for each in warm) for name in warm[0]}
        with open(result, "w") as file:
            json.dump(found, file)
        import os
        os._exit(0)
    return value

Trainer._step = step
main(words)
"""

PARTS = ("slices", "network, forward", "loss, forward", "backward", "optimiser", "averaging")
_CASES = 24
"""Cases that are prepared where only steps are timed."""


@dataclass(frozen=True)
class Set:
    """A data set, with what b9f08bd plans for it.

    Attributes:
        folder: Below DATA, or made in OUTPUT.
        labels: As `medfcn train --labels`; empty for those of the data set.
        window: Pixels.
        context: Slices seen at once.
        batch: Slices in a step.
        stem: Stride of the first convolution.
        widths: Channels of each level.
        steps: Steps that are timed in a round, the first fifth of which are left out.
    """

    folder: str
    labels: str
    window: tuple[int, int]
    context: int
    batch: int
    stem: int
    widths: tuple[int, ...]
    steps: int

    def settings(self, *, restoring: str = "") -> str:
        """The settings file that pins the plan."""
        more = f'restoring = "{restoring}"\n' if restoring else ""
        return (
            f"[slices]\nwindow = {list(self.window)}\ncontext = {self.context}\n"
            f"[network]\nwidths = {list(self.widths)}\nstem_stride = {self.stem}\n{more}"
            f"[training]\nbatch_size = {self.batch}\n"
        )


def merged(count: int) -> str:
    """The 104 labels of the phantom, merged to fewer."""
    parts = np.array_split(np.arange(1, 105), count)
    return ",".join(f"l{place}=" + "+".join(map(str, part)) for place, part in enumerate(parts, 1))


_SMALL, _LARGE = (16, 32, 64, 128), (16, 32, 64, 128, 256, 256)
SETS = {
    "hippocampus": Set("hippocampus", "", (40, 40), 3, 32, 1, _SMALL, 30),
    "hearts": Set("heart_cine", "", (224, 256), 1, 10, 2, _LARGE, 15),
    "20 bands": Set("bands", "", (40, 40), 3, 32, 1, _SMALL, 30),
    "1 label": Set("phantom", merged(1), (256, 256), 1, 9, 2, _LARGE, 10),
    "3 labels": Set("phantom", merged(3), (256, 256), 1, 9, 2, _LARGE, 10),
    "20 labels": Set("phantom", merged(20), (256, 256), 1, 9, 2, _LARGE, 10),
    "104 labels": Set("phantom", "", (256, 256), 1, 9, 2, _LARGE, 5),
    "20 labels, small": Set("phantom", merged(20), (128, 128), 1, 9, 2, _LARGE[:5], 10),
}


def make_phantom(folder: Path, *, cases: int = 20, slices: int = 8) -> None:
    """Volumes of 256×256 with 104 ellipses in 13 rows of 8, each of its own place and one of 13 intensities."""
    rows, columns = np.mgrid[:256, :256]
    for case in range(cases):
        random = np.random.default_rng(case)
        image = random.normal(0, 12, (256, 256, slices)).astype(np.float32) + 100
        mask = np.zeros((256, 256, slices), dtype=np.uint8)
        shift = random.normal(0, 3, 2)
        for label in range(1, 105):
            row, column = divmod(label - 1, 8)
            centre = np.array([20 + row * 18, 24 + column * 29]) + shift + random.normal(0, 1, 2)
            radii = np.array([7.0, 11.0]) * random.uniform(0.85, 1.15, 2)
            for number in range(slices):
                bulge = 1 - 0.4 * abs(2 * number / (slices - 1) - 1)
                inside = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < bulge
                mask[inside, number] = label
                image[inside, number] += 30 + 12 * (label % 13)
        _write(folder / "images" / f"phantom_{case:02}.nii.gz", np.round(image).astype(np.int16), (1.0, 1.0, 6.0))
        _write(folder / "labels" / f"phantom_{case:02}.nii.gz", mask, (1.0, 1.0, 6.0))


def make_bands(folder: Path, source: Path) -> None:
    """The hippocampi of a folder, each cut across its length into 20 labels of equal length."""
    for path in sorted((source / "labels").glob("*.nii.gz")):
        volume = nibabel.load(path)  # type: ignore[attr-defined]
        mask = np.asarray(volume.dataobj) > 0  # type: ignore[attr-defined]
        places = np.flatnonzero(mask.any(axis=(0, 2)))
        first, length = places[0], places[-1] - places[0] + 1
        bands = 1 + (np.arange(mask.shape[1]) - first) * 20 // length
        banded = np.where(mask, bands[None, :, None], 0).astype(np.uint8)
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(banded, volume.affine), folder / "labels" / path.name)  # type: ignore
    (folder / "images").symlink_to(source / "images")


def _write(path: Path, array: Any, spacing_mm: Sequence[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing_mm, 1.0])), path)  # type: ignore[attr-defined, no-untyped-call]


def data_of(name: str, data: Path, output: Path, *, few: bool) -> Path:
    """The folder of a set; with `few`, one of its first cases."""
    folder = SETS[name].folder
    source = data / folder
    if folder in ("phantom", "bands"):
        source = output / "data" / folder
        if not source.exists():
            making = source.with_name(f"{folder}.making")
            shutil.rmtree(making, ignore_errors=True)
            make_phantom(making) if folder == "phantom" else make_bands(making, data / "hippocampus")
            making.rename(source)
    if not few:
        return source
    small = output / "data" / f"few_{folder}"
    for kind in ("images", "labels") if not small.exists() else ():
        (small / kind).mkdir(parents=True)
        for path in sorted((source / kind).glob("*.nii.gz"))[:_CASES]:
            (small / kind / path.name).symlink_to(path.resolve())
    return small


def _patient(case: str) -> str:
    """Two hippocampi are of one person, and all frames of a heart."""
    name, _, number = case.rpartition("_")
    return f"{name}_{(int(number) + 1) // 2}" if name == "hippocampus" else name if "frame" in number else case


def words_of(name: str, folder: Path, run: Path, settings: Path) -> list[str]:
    labels = ["--labels", SETS[name].labels] if SETS[name].labels else []
    groups = settings.with_suffix(".csv")
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "images").glob("*.nii.gz"))
    groups.write_text("id,group\n" + "".join(f"{case},{_patient(case)}\n" for case in cases))
    return [
        *("train", str(folder), "-o", str(run), "--overwrite", *labels, "--groups", str(groups)),
        *("--config", str(settings), "--threads", "1", "--device", "cpu"),
    ]


def step_of(
    site: Path, name: str, arguments: argparse.Namespace, *, without: str = "", peak: list[float] | None = None
) -> dict[str, float]:
    """CPU seconds of a warm step and its parts, in one training that ends after the steps of the set."""
    output, chosen = arguments.output, SETS[name]
    output.mkdir(parents=True, exist_ok=True)
    folder = data_of(name, arguments.data, output, few=True)
    settings, result = output / "pinned.toml", output / "step.json"
    settings.write_text(chosen.settings(restoring="learned" if without == "restoring" else ""))
    words = [*words_of(name, folder, output / "run", settings), "--steps", str(chosen.steps + 1000)]
    words += ["--allocator", "system"] if without == "allocator" else []
    result.unlink(missing_ok=True)
    used = run_measured(
        [sys.executable, "-c", DRIVER, str(result), str(chosen.steps), without, *words],
        output / "log.txt",
        PYTHONPATH=str(site.resolve()),
        PYTHONSAFEPATH="1",
    )
    if peak is not None:
        peak.append(used.peak_mb)
    found: dict[str, float] = json.loads(result.read_text())
    return found


def compare(arguments: argparse.Namespace) -> None:
    """The table of slices per CPU second, and those of the parts."""
    print(f"{processor()}; the median step of {arguments.rounds} rounds, base and new in turn, one thread\n")
    print("| set | base, ms a step | new | base, slices / CPU s | new | ratio (range) | peak MB, base | new |")
    print("|---|---|---|---|---|---|---|---|")
    sites, steps = {"base": arguments.base, "new": arguments.new}, {}
    for name in arguments.only:
        rounds: dict[str, list[dict[str, float]]] = {"base": [], "new": []}
        peaks: dict[str, list[float]] = {"base": [], "new": []}
        for _ in range(arguments.rounds):
            for site, done in rounds.items():
                done.append(step_of(sites[site], name, arguments, peak=peaks[site]))
        each = {site: [found["step"] for found in done] for site, done in rounds.items()}
        base, new = (median(each[site]) for site in each)
        ratios = [before / after for before, after in zip(each["base"], each["new"], strict=True)]
        batch = SETS[name].batch
        print(
            f"| {name} | {1000 * base:.0f} | {1000 * new:.0f} | {batch / base:.1f} | {batch / new:.1f} | "
            f"{base / new:.2f} ({min(ratios):.2f}–{max(ratios):.2f}) | "
            f"{max(peaks['base']):.0f} | {max(peaks['new']):.0f} |",
            flush=True,
        )
        steps[name] = {
            site: {part: median(found[part] for found in done) for part in PARTS} for site, done in rounds.items()
        }
        with (arguments.output / "speed.jsonl").open("a") as file:
            file.write(json.dumps({"set": name, "processor": processor(), **rounds}) + "\n")
    if arguments.parts:
        print("\nms of a step, base → new:\n")
        print(f"| set | {' | '.join(PARTS)} |\n|---|{'---|' * len(PARTS)}")
        for name, of in steps.items():
            cells = (f"{1000 * of['base'][part]:.1f} → {1000 * of['new'][part]:.1f}" for part in PARTS)
            print(f"| {name} | {' | '.join(cells)} |")
        take_back(arguments)


def take_back(arguments: argparse.Namespace) -> None:
    """Each change's own part: the new install with it, beside the same without it."""
    print("\ntimes as long without one change, the others in place:\n")
    changes = ("allocator", "loss", "restoring")
    print(f"| set | {' | '.join(changes)} |\n|---|{'---|' * len(changes)}")
    for name in arguments.only:
        cells = []
        for change in changes:
            ratios = []
            for _ in range(max(1, arguments.rounds // 2)):
                whole = step_of(arguments.new, name, arguments)["step"]
                ratios.append(step_of(arguments.new, name, arguments, without=change)["step"] / whole)
            cells.append(f"{median(ratios):.2f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def compare_dice(arguments: argparse.Namespace) -> None:
    """Mean validation Dice of whole trainings with both installs."""
    name = arguments.dice
    folder = data_of(name, arguments.data, arguments.output, few=False)
    settings = arguments.output / "pinned_dice.toml"
    arguments.output.mkdir(parents=True, exist_ok=True)
    settings.write_text(SETS[name].settings())
    print(f"{name}, {arguments.steps} steps: validation Dice (CPU s of the command)")
    found: dict[str, list[float]] = {"base": [], "new": []}
    gains: list[float] = []
    patients: list[str] = []
    for seed in arguments.seeds:
        cases: dict[str, dict[str, float]] = {}
        for site, done in found.items():
            run = arguments.output / f"dice_{name.replace(' ', '_').replace(',', '')}_{site}"
            words = [*words_of(name, folder, run, settings), "--steps", str(arguments.steps), "--seed", str(seed)]
            used = run_measured(
                [sys.executable, "-m", "medfcn", *words],
                run.with_suffix(".log"),
                PYTHONPATH=str(getattr(arguments, site).resolve()),
                PYTHONSAFEPATH="1",
            )
            dices = dices_of(run / "validation" / "scores.csv")
            cases[site] = {case: mean(each) for case, each in dices.items()}
            done.append(mean(dice for each in dices.values() for dice in each))
            print(f"seed {seed}  {site:<5}{done[-1]:.4f}  ({used.cpu_seconds:.0f})", flush=True)
        both = sorted(cases["base"].keys() & cases["new"].keys())
        gains += [cases["new"][case] - cases["base"][case] for case in both]
        patients += [_patient(case) for case in both]
    base, new = (mean(done) for done in found.values())
    low, high = mean_interval(np.array(gains), patients)
    better = f"better in {sum(gain > 0 for gain in gains)} of {len(gains)}"
    print(f"mean   base {base:.4f}  new {new:.4f}  difference {new - base:+.4f}")
    print(f"by case {mean(gains):+.4f} (95 % over patients {low:+.4f} to {high:+.4f}), {better}")


def dices_of(scores: Path) -> dict[str, list[float]]:
    """The Dice of each label, by case; labels that a case lacks left out."""
    found: dict[str, list[float]] = {}
    with scores.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["dice"] not in ("", "nan"):
                found.setdefault(row["case"], []).append(float(row["dice"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--base", type=Path, required=True, help="a folder that contains the package of the base")
    parser.add_argument("--new", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS)[:-1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--dice", choices=SETS)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    (compare_dice if arguments.dice else compare)(arguments)


if __name__ == "__main__":
    main()
