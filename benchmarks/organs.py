"""The bench of organs: is a default good, or tuned on one set? Variants of settings on all sets, paired by case.

    python benchmarks/organs.py DATA OUTPUT --seconds 600
    python benchmarks/organs.py DATA OUTPUT --seconds 600 --settings strong=strong.toml --base SITE
    python benchmarks/organs.py DATA OUTPUT --steps 350 --sets hypertrophic dilated --settings wide=wide.toml
    python benchmarks/organs.py DATA OUTPUT --table

DATA is the folder that holds `hippocampus/`, `sts_mr_t1/`, `sts_ct/` and `heart_cine/`. A set is trained on some
patients and scored on the others, label by label, on the volumes' own grids:

- `dilated`, `hypertrophic`, `infarcted`, `healthy`: hearts in cine MR, without the patients of that *diagnosis*;
- `hippocampus`, `hippocampus merged`: two labels and one, without the volumes of `hippocampus_test.txt`;
- `tumours mr`, `tumours ct`: without every third patient;
- `vessels`: made here, a chamber with branches and a thin wall in near-isotropic voxels, among other vessels.
- `drawn whole`, `drawn halves`, `halves as whole`: hippocampus of which half of the training patients have the
  anterior part alone drawn, the others the posterior one: said so (`labelled`), and taken as drawn throughout.

The first variant is the defaults, or with `--base` those of another install, a folder that contains its package; the
others are settings files. Every variant of a set has as many CPU seconds (one thread): a run of a few steps says how
many steps these are. `--steps` gives all as many steps instead. A training, its masks and its scores are a line of
`OUTPUT/runs.jsonl`, and what stands there is not run again; a training that was stopped goes on where it was.
"""

import argparse
import csv
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import nibabel
import numpy as np
from measured import processor, run_measured
from scipy import ndimage

from medfcn.datasets.tables import read_ids
from medfcn.evaluation import evaluate
from medfcn.evaluation.estimates import mean_interval
from medfcn.files import write_csv

HERE = Path(__file__).resolve().parent
DIAGNOSES = {"dilated": 0, "hypertrophic": 20, "infarcted": 40, "healthy": 60}
"""Hearts by the number before the first of their ten patients."""
CALIBRATION_STEPS = 40
DICE, DISTANCE = "dice", "hd95_mm"


@dataclass(frozen=True)
class Organ:
    """A set, and how it is split.

    Attributes:
        folder: Below DATA; empty for one that is made.
        labels: As `medfcn train --labels`.
        in_mm: False if its spacing is nominal, as that of the hearts, so that distances only compare variants.
    """

    folder: str
    labels: str
    in_mm: bool = True


_HEARTS = Organ("heart_cine", "right=1,wall=2,left=3", in_mm=False)
_HALVES = Organ("hippocampus", "anterior=1,posterior=2")
SETS = {
    **dict.fromkeys(DIAGNOSES, _HEARTS),
    "hippocampus": _HALVES,
    "hippocampus merged": Organ("hippocampus", "hippocampus=1+2"),
    "tumours mr": Organ("sts_mr_t1", "tumour=1"),
    "tumours ct": Organ("sts_ct", "tumour=1"),
    "vessels": Organ("", "chamber=1,wall=2"),
    "drawn whole": _HALVES,
    "drawn halves": _HALVES,
    "halves as whole": _HALVES,
}
DRAWN = ("drawn whole", "drawn halves", "halves as whole")


def patient_of(name: str, case: str) -> str:
    """Two hippocampi next to each other are of one person, and all frames of a heart."""
    stem, _, number = case.rpartition("_")
    if SETS[name].folder == "hippocampus":
        return f"person_{(int(number) + 1) // 2:03}"
    return stem if "frame" in number else case


def is_held_out(name: str, case: str, place: int) -> bool:
    """True for the cases that are scored; `place` is that of the case in its set."""
    if name in DIAGNOSES:
        return DIAGNOSES[name] < int(case.removeprefix("patient")[:3]) <= DIAGNOSES[name] + 10
    if SETS[name].folder == "hippocampus":
        return case in read_ids(HERE / "hippocampus_test.txt")
    return place % 3 == 2


def make_vessels(folder: Path, *, cases: int = 24, edge: int = 72) -> None:
    """Chambers with a thin wall and four branches, in voxels of 0.7 × 0.7 × 0.9 mm, and bright vessels elsewhere."""
    grid = np.stack(np.meshgrid(*(np.arange(edge),) * 2, np.arange(edge - 16), indexing="ij"), -1).astype(np.float32)
    for case in range(cases):
        random = np.random.default_rng(case)
        centre = np.array(grid.shape[:3]) / 2 + random.normal(0, 4, 3)
        radii = random.uniform(10, 16, 3)
        bumps = ndimage.gaussian_filter(random.normal(0, 1, grid.shape[:3]), 5)
        inside = (((grid - centre) / radii) ** 2).sum(-1) < 1 + 8 * bumps

        def tube(start: Any, towards: Any, radius: float) -> Any:
            along = towards / np.linalg.norm(towards)
            offset = grid - start
            length = offset @ along
            return (np.linalg.norm(offset - length[..., None] * along, axis=-1) < radius) & (length > 0)

        for side in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            towards = np.array([*side, random.normal(0, 0.4)]) + random.normal(0, 0.2, 3)
            inside |= tube(centre, towards, random.uniform(2.0, 3.5)) & (
                np.linalg.norm(grid - centre, axis=-1) < random.uniform(22, 28)
            )
        wall = ndimage.binary_dilation(inside, iterations=2) & ~inside
        others = np.zeros_like(inside)
        for _ in range(3):
            others |= tube(random.uniform(0, edge, 3), random.normal(0, 1, 3), random.uniform(3, 5))
        others &= ~ndimage.binary_dilation(inside, iterations=4)
        image = 100 + 60 * inside + 25 * wall + 55 * others + 20 * bumps / bumps.std()
        image = ndimage.gaussian_filter(image, 0.7) + random.normal(0, 12, image.shape)
        for kind, array in (("images", image.astype(np.int16)), ("labels", (inside + 2 * wall).astype(np.uint8))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            volume = nibabel.Nifti1Image(array, np.diag([0.7, 0.7, 0.9, 1.0]))  # type: ignore[attr-defined, no-untyped-call]
            nibabel.save(volume, folder / kind / f"vessels_{case:02}.nii.gz")  # type: ignore[attr-defined]


class Bench:
    """The data, where results go, and the runs there so far."""

    def __init__(self, data: Path, output: Path) -> None:
        self.data, self.output = data, output
        output.mkdir(parents=True, exist_ok=True)

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.output / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def add(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.output / name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def folder_of(self, name: str) -> Path:
        """The images and labels of a set."""
        if SETS[name].folder:
            return (self.data / SETS[name].folder).resolve()
        made = self.output / "data" / name
        if not made.exists():
            making = made.with_name(f"{name}.making")
            shutil.rmtree(making, ignore_errors=True)
            make_vessels(making)
            making.rename(made)
        return made.resolve()

    def cases_of(self, name: str) -> dict[str, bool]:
        """True for the cases that are held out, by case."""
        files = sorted((self.folder_of(name) / "labels").glob("*.nii.gz"))
        ids = [path.name.removesuffix(".nii.gz") for path in files]
        return {case: is_held_out(name, case, place) for place, case in enumerate(ids)}

    def tables_of(self, name: str) -> tuple[Path, Path]:
        """A table of the cases to train on, and the file of the ids to score; labels that are half drawn are made."""
        place, source, cases = (
            self.output / "data" / name.replace(" ", "_"),
            self.folder_of(name),
            self.cases_of(name),
        )
        place.mkdir(parents=True, exist_ok=True)
        rows = []
        for case, held_out in cases.items():
            image, label = (source / kind / f"{case}.nii.gz" for kind in ("images", "labels"))
            drawn = 1 + int(patient_of(name, case)[-3:]) % 2 if name in DRAWN[1:] else 0
            if drawn and not held_out:
                volume = nibabel.load(label)  # type: ignore[attr-defined]
                mask = np.asarray(volume.dataobj)  # type: ignore[attr-defined]
                label = place / "labels" / f"{case}.nii.gz"
                label.parent.mkdir(exist_ok=True)
                half = np.where(mask == drawn, mask, 0).astype(np.uint8)
                nibabel.save(nibabel.Nifti1Image(half, volume.affine), label)  # type: ignore
            said = ("", "anterior", "posterior")[drawn] if name == "drawn halves" else ""
            if not held_out:
                rows.append((case, str(image), str(label), patient_of(name, case), said))
        columns = ("id", "image", "label", "group", "labelled")[: 5 if name in DRAWN else 4]
        write_csv(place / "cases.csv", columns, [row[: len(columns)] for row in rows])
        (place / "held_out.txt").write_text("\n".join(case for case, held_out in cases.items() if held_out) + "\n")
        return place / "cases.csv", place / "held_out.txt"


@dataclass(frozen=True)
class Variant:
    """What is compared.

    Attributes:
        name: In the table.
        settings: A settings file; None for the defaults.
        site: The folder that contains the package.
    """

    name: str
    settings: Path | None
    site: Path

    def command(self, *words: str) -> tuple[list[str], dict[str, str]]:
        """A command of its install, and the environment that it needs."""
        here = {"PYTHONPATH": str(self.site.resolve()), "PYTHONSAFEPATH": "1"}
        return [sys.executable, "-m", "medfcn", *words], here


def train(bench: Bench, name: str, variant: Variant, run: Path, *, steps: int, seed: int) -> float:
    """Train, or go on with it; the CPU seconds of all its parts."""
    table, _ = bench.tables_of(name)
    words = ["train", str(table), "-o", str(run), "--labels", SETS[name].labels, "--steps", str(steps)]
    words += ["--threads", "1", "--device", "cpu", "--seed", str(seed), "--allow-outside"]
    words += ["--config", str(variant.settings)] if variant.settings else []
    words += ["--resume"] if run.is_dir() else []
    command, environment = variant.command(*words)
    run_measured(command, run.with_suffix(".log"), **environment)
    with (run / "log.csv").open(newline="") as file:
        return float(list(csv.DictReader(file))[-1]["cpu_seconds"])


def steps_for(bench: Bench, name: str, variant: Variant, seconds: float) -> int:
    """The steps that fit some CPU seconds, from a run of a few: at its pace, beside what it took for all else."""
    known = [line for line in bench.lines("paces.jsonl") if (line["set"], line["variant"]) == (name, variant.name)]
    if not known:
        run = bench.output / "paces" / f"{name}_{variant.name}".replace(" ", "_")
        shutil.rmtree(run, ignore_errors=True)
        run.parent.mkdir(parents=True, exist_ok=True)
        paced = Variant(variant.name, run.with_suffix(".toml"), variant.site)
        text = variant.settings.read_text() if variant.settings else ""
        head = "[training]\n"
        paced_text = (
            text.replace(head, f"{head}epoch_steps = 10\n") if head in text else f"{text}\n{head}epoch_steps = 10\n"
        )
        run.with_suffix(".toml").write_text(paced_text)
        train(bench, name, paced, run, steps=CALIBRATION_STEPS, seed=0)
        with (run / "log.csv").open(newline="") as file:
            rows = [(float(row["step"]), float(row["cpu_seconds"])) for row in csv.DictReader(file)]
        (first, began), (last, ended) = rows[0], rows[-2]  # the last row has a validation in it
        pace = (ended - began) / (last - first)
        known = [
            {"set": name, "variant": variant.name, "pace": pace, "other": rows[-1][1] - CALIBRATION_STEPS * pace}
        ]
        bench.add("paces.jsonl", known[0])
    return max(1, round((seconds - known[0]["other"]) / known[0]["pace"]))


def one_run(bench: Bench, name: str, variant: Variant, *, steps: int, seconds: float | None, seed: int) -> None:
    """Train, predict the held-out cases as a user would, and score them."""
    key = {"set": name, "variant": variant.name, "seconds": seconds, "seed": seed}
    if seconds is None:
        key["steps"] = steps
    if any(key.items() <= line.items() for line in bench.lines("runs.jsonl")):
        return
    folder = bench.output / "runs" / "_".join(map(str, (name, variant.name, steps, seed))).replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    taken = train(bench, name, variant, folder / "run", steps=steps, seed=seed)
    _, held_out = bench.tables_of(name)
    images = str(bench.folder_of(name) / "images")
    words = ["predict", str(folder / "run"), images, "-o", str(folder / "masks"), "--cases", str(held_out)]
    command, environment = variant.command(*words, "--overwrite", "--threads", "1", "--device", "cpu")
    used = run_measured(command, folder / "predict.log", **environment)
    ids = read_ids(held_out)
    masks = {case: str(folder / "masks" / f"{case}.nii.gz") for case in ids}
    references = {case: str(bench.folder_of(name) / "labels" / f"{case}.nii.gz") for case in ids}
    table = evaluate(masks, references, labels=SETS[name].labels, threads=1, group_by="none")
    scores = {f"{row.case} {row.label}": [row.dice, row.hd95_mm] for row in table.rows}
    line = key | {"steps": steps, "cpu_seconds": round(taken, 1), "processor": processor()}
    line |= {"predict_cpu_seconds": round(used.cpu_seconds / len(ids), 3), "scores": scores}
    bench.add("runs.jsonl", line)
    print(f"{name}, {variant.name}, seed {seed}: {steps} steps, {taken:.0f} CPU s, Dice {summary(line)}", flush=True)


def by_label(line: Mapping[str, Any], place: int) -> dict[str, list[float]]:
    """Dice (place 0) or HD95 (1) of each label, in the order of the cases."""
    found: dict[str, list[float]] = defaultdict(list)
    for key, values in line["scores"].items():
        found[key.rpartition(" ")[2]].append(values[place])
    return found


def by_case(line: Mapping[str, Any]) -> dict[str, float]:
    """Mean Dice over the labels that are in a case's masks."""
    found: dict[str, list[float]] = defaultdict(list)
    for key, (dice, _) in line["scores"].items():
        if dice == dice:
            found[key.rpartition(" ")[0]].append(dice)
    return {case: mean(dices) for case, dices in found.items()}


def summary(line: Mapping[str, Any]) -> str:
    """The mean of the labels' means, then each label's mean and worst."""
    labels = {name: np.array(values) for name, values in by_label(line, 0).items()}
    means = {name: float(np.nanmean(values)) for name, values in labels.items()}
    each = ", ".join(f"{name} {means[name]:.3f} ({np.nanmin(values):.2f})" for name, values in labels.items())
    return f"{mean(means.values()):.4f}: {each}"


def table_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """One row for each set and variant, paired with the first variant; then the mean rank of each variant."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["set"], line["seconds"], line["seconds"] is None and line["steps"]].append(line)
    rows = [
        "| set | variant | seeds | steps | CPU s | Dice: each label (worst) | HD95 mm | beside the first (95 %) |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    ranks: dict[str, list[int]] = defaultdict(list)
    for (name, *_), group in groups.items():
        variants = list(dict.fromkeys(line["variant"] for line in group))
        means: dict[str, float] = {}
        first: dict[tuple[int, str], float] = {}
        for variant in variants:
            runs = [line for line in group if line["variant"] == variant]
            values = {(line["seed"], case): dice for line in runs for case, dice in by_case(line).items()}
            first = first or values
            paired = [key for key in first if key in values]
            gains = np.array([values[key] - first[key] for key in paired])
            low, high = mean_interval(gains, [patient_of(name, case) for _, case in paired])
            distances = [value for line in runs for each in by_label(line, 1).values() for value in each]
            finite = [value for value in distances if np.isfinite(value)]
            lost = sum(value == np.inf for value in distances)
            far = f"{mean(finite):.2f}{'' if SETS[name].in_mm else ' nominal'}" if finite else "–"
            means[variant] = mean(values.values())
            gain = "" if variant == variants[0] else f"{gains.mean():+.4f} ({low:+.4f} to {high:+.4f})"
            rows.append(
                f"| {name} | {variant} | {len(runs)} | {mean(line['steps'] for line in runs):.0f} | "
                f"{mean(line['cpu_seconds'] for line in runs):.0f} | {summary(_together(runs))} | "
                f"{far}{f', {lost} lost' if lost else ''} | {gain} |"
            )
        for rank, variant in enumerate(sorted(means, key=means.__getitem__, reverse=True), start=1):
            ranks[variant].append(rank)
    places = ", ".join(f"{variant} {mean(found):.2f} ({len(found)} sets)" for variant, found in ranks.items())
    return "\n".join([*rows, "", *_of_diagnoses(lines), f"Mean rank: {places}"])


def _of_diagnoses(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each variant that has all diagnoses in equal seconds, paired with the first, over all patients."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        if line["set"] in DIAGNOSES:
            groups[line["seconds"], line["variant"]].append(line)
    found: list[str] = []
    firsts: dict[Any, dict[tuple[Any, ...], float]] = {}
    for (seconds, variant), runs in groups.items():
        if len({run["set"] for run in runs}) < len(DIAGNOSES):
            continue
        dices = {(run["set"], run["seed"], case): dice for run in runs for case, dice in by_case(run).items()}
        first = firsts.setdefault(seconds, dices)
        paired = [key for key in first if key in dices]
        gains = np.array([dices[key] - first[key] for key in paired])
        low, high = mean_interval(gains, [patient_of(name, case) for name, _, case in paired])
        scores = np.array([values for run in runs for values in run["scores"].values()])
        error, cpu = 1 - mean(dices.values()), mean(run["cpu_seconds"] for run in runs)
        low, high, mean_gain = -high, -low, float(gains.mean())
        less = f"{-100 * mean_gain / (error + mean_gain):+.0f} %, {-mean_gain:+.4f} ({low:+.4f} to {high:+.4f})"
        found.append(
            f"- Each diagnosis left out, {variant}, {cpu:.0f} CPU s: mean error {error:.4f}"
            f"{'' if dices is first else f' ({less})'}, worst label {np.nanmin(scores[:, 0]):.2f}, "
            f"{np.isinf(scores[:, 1]).sum()} lost, HD95 {scores[np.isfinite(scores[:, 1]), 1].mean():.1f} mm nominal"
        )
    return [*found, ""] if found else []


def _together(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of all seeds as of one run."""
    return {"scores": {f"{line['seed']} {key}": values for line in runs for key, values in line["scores"].items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[name for name in SETS if name not in DRAWN])
    parser.add_argument("--settings", nargs="*", default=[], metavar="NAME=FILE", help="a variant: a settings file")
    parser.add_argument("--base", type=Path, help="a folder that contains another install: the first variant")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="run these alone, of those that there are")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=600.0, help="CPU seconds of a training")
    length.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--table", action="store_true", help="print the table of the runs so far")
    given = parser.parse_args()
    bench, here = Bench(given.data, given.output), HERE.parent
    variants = [Variant("base", None, given.base)] if given.base else []
    variants.append(Variant("defaults", None, here))
    variants += [
        Variant(name, Path(file), here) for name, _, file in (text.partition("=") for text in given.settings)
    ]
    if given.variants:
        variants = [variant for variant in variants if variant.name in given.variants]
    seconds = None if given.steps else given.seconds
    for seed in () if given.table else given.seeds:
        for name in given.sets:
            for variant in variants:
                steps = given.steps or steps_for(bench, name, variant, given.seconds)
                one_run(bench, name, variant, steps=steps, seconds=seconds, seed=seed)
    lines = bench.lines("runs.jsonl")
    text = f"{processor()}; one thread\n\n{table_of(lines)}\n"
    (given.output / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
