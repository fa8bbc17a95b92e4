"""What each part of the network brings: one change at a time from `auto`, at equal CPU time, on two real sets.

    python benchmarks/network_ablation.py DATA OUTPUT [--seconds 60] [--seeds 3] [--processes 2] [--only NAME ...]

DATA is the folder that holds `hippocampus/` and `sts_mr_t1/`. Every design first takes a few steps in turn, round
after round, so that a machine whose pace drifts is fair to all: the CPU seconds of a step fix how many steps each
gets. Then every design is trained with every seed and scored on the validation people, whole volumes on their own
grids. The held-out hippocampus volumes of `hippocampus_test.txt` are not read. Finished runs are kept in
`OUTPUT/runs.jsonl`, so a stopped ablation goes on where it was (`network_ablation.jsonl` beside this file holds those
of the table in README.md); `OUTPUT/table.md` is made of them.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from medfcn.config import Settings, override
from medfcn.evaluation import evaluate
from medfcn.files import read_ids, write_csv
from medfcn.networks.fcn import build_network
from medfcn.networks.presets import PRESETS, with_preset
from medfcn.progress import Silent
from medfcn.training.prepare import leave_out, plan_training, prepare, survey
from medfcn.training.record import Log
from medfcn.training.schedule import Length
from medfcn.training.trainer import Machine, Trainer
from medfcn.volumes import LabelMap, ReadOptions, find_dataset

HERE = Path(__file__).resolve().parent
ROUNDS, STEPS_A_ROUND = 3, 6


@dataclass(frozen=True)
class Change:
    """One design: what differs from `auto`, by table of the settings."""

    group: str
    name: str
    network: dict[str, Any]
    training: dict[str, Any]

    def settings(self) -> Settings:
        chosen = override(Settings(), "training", validation_share=0.25, **self.training)
        # What `auto` does with large slices follows from this table; here it fuses down to full size everywhere.
        chosen = override(chosen, "network", **({"stem_stride": 1} | self.network))
        return override_network(chosen)


def override_network(settings: Settings) -> Settings:
    """Settings with every part of the network set, as `medfcn train` resolves them."""
    network = with_preset(settings.network)
    return Settings(settings.slices, network, settings.augment, settings.training, settings.prediction)


def changes() -> list[Change]:
    """Every design that is compared; the first is what the others are compared with."""
    found = [Change("preset", "auto", {}, {})]
    for preset in PRESETS:
        if preset != "auto":
            width = 1 / 8 if str(PRESETS[preset].encoder).startswith("vgg16") else 1.0
            width = 1 / 4 if preset.startswith("resnet") else width
            shown = preset if width == 1 else f"{preset}, width {'1/8' if width == 1 / 8 else '1/4'}"
            found.append(Change("preset", shown, {"preset": preset, "width": width}, {}))
    found.append(Change("fusion", "concat", {"fusion": "concat"}, {}))
    found += [
        Change("upsampling", method, {"upsampling": method}, {}) for method in ("bilinear", "nearest_conv", "dilated")
    ]
    found += [Change("normalisation", kind, {"normalisation": kind}, {}) for kind in ("instance", "group", "none")]
    found.append(Change("supervision", "deep", {}, {"deep_supervision": True}))
    found.append(Change("auxiliary", "presence, 0.1", {}, {"presence_weight": 0.1}))
    found.append(Change("auxiliary", "distance, 0.5", {}, {"distance_weight": 0.5}))
    found += [Change("width", f"{width:g}", {"width": width}, {}) for width in (0.5, 2.0)]
    thin, wide = (16, 32, 64, 128, 256), (32, 64, 128, 256, 256)
    for stem, widths in ((2, thin), (2, wide), (4, thin[1:]), (4, wide[1:])):
        shown = f"stride {stem}, {'-'.join(map(str, widths))}"
        found.append(Change("stem", shown, {"stem_stride": stem, "widths": widths}, {}))
    return found


def prepared_set(data: Path, name: str, settings: Settings, store: Path) -> Any:
    """Cases, plan and slices of one of the two sets; slices are made once for all designs."""
    folder = data / name
    options, labels, out = ReadOptions(), LabelMap.parse("tumour=1"), ()
    groups = None
    if name == "hippocampus":
        labels, out = LabelMap.parse("hippocampus=1+2"), read_ids(HERE / "hippocampus_test.txt")
        groups = store.parent / "hippocampus_groups.csv"
        if not groups.is_file():
            ids = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "images").glob("*.nii.gz"))
            # Two sides of one person stand next to each other in this set's numbers.
            write_csv(groups, ("id", "group"), [(one, f"person_{(int(one.split('_')[1]) + 1) // 2}") for one in ids])
    found = survey(
        leave_out(find_dataset(folder, groups=groups), out), labels, options, skip_bad=False, progress=Silent()
    )
    split, plan = plan_training(found, settings, seed=0)
    return prepare(found, split, plan, store, Silent())


_SURVEYS: dict[str, Any] = {}


def trainer_of(change: Change, name: str, seed: int, data: Path, output: Path) -> Trainer:
    """A trainer for a design on a set; each process reads a set once."""
    settings = change.settings()
    store = output / "slices" / name
    store.mkdir(parents=True, exist_ok=True)
    if name not in _SURVEYS:
        _SURVEYS[name] = prepared_set(data, name, settings, store)
    found = _SURVEYS[name].survey
    split, plan = plan_training(found, settings, seed=0)
    prepared = prepare(found, split, plan, store, Silent())
    torch.manual_seed(seed)
    network = build_network(settings.network, widths=plan.widths, channels_in=plan.channels_in, label_count=1)
    machine = Machine(device=torch.device("cpu"), seed=seed, started=time.monotonic())
    log = Log(Path(tempfile.gettempdir()) / f"medfcn_ablation_{os.getpid()}.csv", started=machine.started)
    return Trainer(prepared, settings, machine, network, log=log, progress=Silent())


def calibrate(data: Path, output: Path, name: str) -> dict[str, float]:
    """Median CPU seconds of a step by design, measured in turn."""
    path = output / f"pace_{name}.json"
    if path.is_file():
        return dict(json.loads(path.read_text()))
    torch.set_num_threads(1)
    pace: dict[str, list[float]] = {}
    trainers = {change.name: trainer_of(change, name, 0, data, output) for change in changes()}
    for turn in range(ROUNDS + 1):
        for key, trainer in trainers.items():
            for _ in range(STEPS_A_ROUND):
                began = time.process_time()
                trainer._step(10**6)
                if turn:  # the first round warms up
                    pace.setdefault(key, []).append(time.process_time() - began)
    medians = {key: median(seconds) for key, seconds in pace.items()}
    path.write_text(json.dumps(medians, indent=1))
    return medians


def one_run(job: tuple[str, int, str, int, str, str]) -> dict[str, Any]:
    """Train a design on a set with a seed, and score it on the validation people."""
    key, steps, name, seed, data, output = job
    torch.set_num_threads(1)
    change = next(change for change in changes() if change.name == key)
    began = time.process_time()
    trainer = trainer_of(change, name, seed, Path(data), Path(output))
    prepared_at = time.process_time()
    # Every design keeps its last weights: choosing them on the people it is scored on would flatter it.
    later = count()
    trainer._validate = lambda ids: float(next(later))  # type: ignore[method-assign]
    outcome = trainer.run(Length(steps=steps))
    seconds = time.process_time() - prepared_at
    prepared = trainer.prepared
    cases = prepared.cases(prepared.split.validation)
    masks = {case.id: outcome.model.predict([str(path) for path in case.images]) for case in cases}
    table = evaluate(masks, {case.id: case.label for case in cases if case.label}, labels=prepared.survey.labels)
    dices = [row.dice for row in table.rows]
    distances = [row.hd95_mm for row in table.rows]
    return {
        "design": key, "set": name, "seed": seed, "steps": steps, "dice": mean(dices), "median": median(dices),
        "worst": min(dices), "hd95_mm": median(distances), "cpu_seconds": round(seconds, 1),
        "preparing_cpu_seconds": round(prepared_at - began, 1),
        "parameters": sum(part.numel() for part in outcome.model.network.parameters()),
    }  # fmt: skip


def jobs(
    data: Path, output: Path, seconds: float, seeds: int, only: list[str]
) -> Iterator[tuple[str, int, str, int, str, str]]:
    """Every run that is not done yet, all designs with one seed before the next seed.

    A design has as many steps with every seed, whenever it is run: the first run fixes them.
    """
    runs = runs_in(output)
    done = {(run["design"], run["set"], run["seed"]) for run in runs}
    steps = {(run["design"], run["set"]): run["steps"] for run in runs}
    for name in ("hippocampus", "sts_mr_t1"):
        if any((change.name, name) not in steps for change in changes()):
            for design, taken in calibrate(data, output, name).items():
                steps.setdefault((design, name), max(1, round(seconds / taken)))
    for seed in range(seeds):
        for change in changes():
            for name in ("hippocampus", "sts_mr_t1"):
                if (change.name, name, seed) not in done and (not only or change.name in only):
                    yield change.name, steps[change.name, name], name, seed, str(data), str(output)


def runs_in(output: Path) -> list[dict[str, Any]]:
    path = output / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def table_of(runs: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over seeds, for each design and set; how many seeds where they are not three."""
    lines = [
        "| | design | parameters | hippocampus: steps | Dice | worst | sts_mr_t1: steps | Dice | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for change in changes():
        parameters, cells = "", []
        for name in ("hippocampus", "sts_mr_t1"):
            here = [run for run in runs if run["design"] == change.name and run["set"] == name]
            if not here:
                cells += ["", "", ""]
                continue
            parameters = parameters or f"{here[0]['parameters']:,}"
            dices = [run["dice"] for run in here]
            spread = f" ± {stdev(dices):.3f}" if len(dices) > 1 else ""
            seeds = "" if len(here) == 3 else f" ({len(here)})"
            worst = mean(run["worst"] for run in here)
            cells += [f"{here[0]['steps']:,}", f"{mean(dices):.3f}{spread}{seeds}", f"{worst:.3f}"]
        lines.append("| " + " | ".join([change.group, change.name, parameters, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    due = list(jobs(given.data, given.output, given.seconds, given.seeds, given.only))
    with ProcessPoolExecutor(given.processes) as pool, (given.output / "runs.jsonl").open("a") as file:
        for number, run in enumerate(pool.map(one_run, due), start=1):
            file.write(json.dumps(run) + "\n")
            file.flush()
            print(f"{number}/{len(due)}", json.dumps(run), flush=True)
    table = table_of(runs_in(given.output))
    (given.output / "table.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
