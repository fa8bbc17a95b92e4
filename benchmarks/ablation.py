"""What the ablations share: designs that change one thing, trained at equal CPU time on two real sets.

Every design first takes a few steps in turn, round after round, so that a machine whose pace drifts is fair to all:
the CPU seconds of a step fix how many steps each gets. Then every design is trained with every seed and scored on the
validation people, whole volumes on their own grids, with its last weights: choosing them on those they are scored on
would flatter. The held-out hippocampus volumes of `hippocampus_test.txt` are not read. Finished runs are kept in
`OUTPUT/runs.jsonl`, so a stopped ablation goes on where it was; `OUTPUT/table.md` is made of them.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from medfcn.config import override
from medfcn.datasets import find_dataset
from medfcn.datasets.tables import read_ids
from medfcn.evaluation import evaluate
from medfcn.files import write_csv
from medfcn.labels import LabelMap
from medfcn.networks.design import planned_design
from medfcn.networks.fcn import build_network
from medfcn.networks.presets import with_preset
from medfcn.progress import Silent
from medfcn.settings import Settings
from medfcn.training.distributed import Machine
from medfcn.training.prepare import as_planned, plan_training, prepare
from medfcn.training.record import Log
from medfcn.training.schedule import Length
from medfcn.training.survey import Survey, survey
from medfcn.training.trainer import Trainer
from medfcn.volumes import ReadOptions

HERE = Path(__file__).resolve().parent
SETS = ("hippocampus", "sts_mr_t1")
ROUNDS, STEPS_A_ROUND = 3, 6


@dataclass(frozen=True)
class Design:
    """What differs from the defaults, and on which sets that is tried.

    Attributes:
        group: The row's first cell.
        name: Its second, and the key of its runs.
        changed: Values by key by table of the settings.
        sets: Where it is trained.
    """

    group: str
    name: str
    changed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sets: tuple[str, ...] = SETS

    def settings(self) -> Settings:
        chosen = override(Settings(), "training", validation_share=0.25)
        for table, values in self.changed.items():
            chosen = override(chosen, table, **values)
        return Settings(
            chosen.slices, with_preset(chosen.network), chosen.augment, chosen.training, chosen.prediction
        )


@dataclass(frozen=True)
class Ablation:
    """Designs, the first of which is what the others are compared with.

    Attributes:
        designs: To be trained.
        splits: Whether each seed keeps other people for validation; else all keep the same.
        compares: Whether the table says what each brings over the first, on the same people and seeds.
    """

    designs: tuple[Design, ...]
    splits: bool = True
    compares: bool = True

    def design(self, name: str) -> Design:
        return next(design for design in self.designs if design.name == name)


@dataclass(frozen=True)
class Job:
    """One training to be made."""

    design: str
    name: str
    seed: int
    steps: int


@cache
def surveyed(data: Path, name: str, output: Path) -> Survey:
    """The cases of one of the two sets, with their figures; each process reads a set once."""
    folder, options, labels, out, groups = data / name, ReadOptions(), LabelMap.parse("tumour=1"), (), None
    if name == "hippocampus":
        labels, out = LabelMap.parse("hippocampus=1+2"), read_ids(HERE / "hippocampus_test.txt")
        groups = output / f"hippocampus_groups_{os.getpid()}.csv"
        ids = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "images").glob("*.nii.gz"))
        # Two sides of one person stand next to each other in this set's numbers.
        write_csv(groups, ("id", "group"), [(one, f"person_{(int(one.split('_')[1]) + 1) // 2}") for one in ids])
    found = find_dataset(folder, groups=groups).without(out)
    return survey(found, labels, options, skip_bad=False, progress=Silent())


def trainer_of(design: Design, name: str, seed: int, *, split_seed: int, data: Path, output: Path) -> Trainer:
    """A trainer of a design on a set, before its first step."""
    found, settings = surveyed(data, name, output), design.settings()
    split, plan = plan_training(found, settings, seed=split_seed)
    settings = as_planned(settings, plan)
    store = output / "slices" / f"{name}_{os.getpid()}"
    store.mkdir(parents=True, exist_ok=True)
    prepared = prepare(found, split, plan, store, Silent())
    torch.manual_seed(seed)
    network = build_network(planned_design(settings.network, plan, found.labels))
    machine = Machine(device=torch.device("cpu"), seed=seed, started=time.monotonic())
    log = Log(Path(tempfile.gettempdir()) / f"medfcn_ablation_{os.getpid()}.csv", started=machine.started)
    return Trainer(prepared, settings, machine, network, log=log, progress=Silent())


def calibrate(ablation: Ablation, name: str, *, data: Path, output: Path) -> dict[str, float]:
    """Median CPU seconds of a step by design, measured in turn."""
    path = output / f"pace_{name}.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    due = [design for design in ablation.designs if name in design.sets and design.name not in known]
    if not due:
        return known
    torch.set_num_threads(1)
    pace: dict[str, list[float]] = {}
    # The first design is timed again, so that what it took before says how to compare.
    first = ablation.designs[0]
    trainers = {
        design.name: trainer_of(design, name, 0, split_seed=0, data=data, output=output)
        for design in [first, *(other for other in due if other.name != first.name)]
    }
    for turn in range(ROUNDS + 1):
        for key, trainer in trainers.items():
            for _ in range(STEPS_A_ROUND):
                began = time.process_time()
                trainer._step(10**6)
                if turn:  # the first round warms up
                    pace.setdefault(key, []).append(time.process_time() - began)
    medians = {key: median(seconds) for key, seconds in pace.items()}
    drift = known.get(first.name, medians[first.name]) / medians[first.name]
    known |= {key: seconds * drift for key, seconds in medians.items()}
    path.write_text(json.dumps(known, indent=1))
    return known


def one_run(ablation: Ablation, job: Job, *, data: Path, output: Path) -> dict[str, Any]:
    """Train a design on a set with a seed, and score it on the validation people."""
    torch.set_num_threads(1)
    began = time.process_time()
    split_seed = job.seed if ablation.splits else 0
    design = ablation.design(job.design)
    trainer = trainer_of(design, job.name, job.seed, split_seed=split_seed, data=data, output=output)
    prepared_at = time.process_time()
    later = count()
    trainer._validate = lambda cases: (float(next(later)), None)  # type: ignore[method-assign]
    outcome = trainer.run(Length(steps=job.steps))
    trained_at = time.process_time()
    prepared = trainer.prepared
    by_id = {case.id: case for case in prepared.survey.cases}
    cases = [by_id[case_id] for case_id in prepared.split.validation]
    masks = {case.id: outcome.model.predict([str(path) for path in case.images]) for case in cases}
    predicted_at = time.process_time()
    table = evaluate(masks, {case.id: case.label for case in cases if case.label}, labels=prepared.survey.labels)
    dices = [row.dice for row in table.rows]
    return {
        "design": job.design, "set": job.name, "seed": job.seed, "steps": job.steps, "dice": mean(dices),
        "median": median(dices), "worst": min(dices), "hd95_mm": median(row.hd95_mm for row in table.rows),
        "cpu_seconds": round(trained_at - prepared_at, 1), "preparing_cpu_seconds": round(prepared_at - began, 1),
        "predicting_cpu_seconds": round((predicted_at - trained_at) / len(cases), 3),
        "parameters": sum(part.numel() for part in outcome.model.network.parameters()),
    }  # fmt: skip


def runs_in(output: Path) -> list[dict[str, Any]]:
    path = output / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def jobs(
    ablation: Ablation, *, data: Path, output: Path, seconds: float, seeds: Sequence[int], only: Sequence[str]
) -> Iterator[Job]:
    """Every run that is not done yet, all designs with one seed before the next seed.

    A design has as many steps with every seed, whenever it is run: the first run fixes them.
    """
    runs = runs_in(output)
    done = {(run["design"], run["set"], run["seed"]) for run in runs}
    steps = {(run["design"], run["set"]): run["steps"] for run in runs}
    wanted = [design for design in ablation.designs if not only or design.name in only]
    for name in SETS:
        if any(name in design.sets and (design.name, name) not in steps for design in wanted):
            part = Ablation((ablation.designs[0], *(design for design in wanted if design != ablation.designs[0])))
            for design, taken in calibrate(part, name, data=data, output=output).items():
                steps.setdefault((design, name), max(1, round(seconds / taken)))
    for seed in seeds:
        for design in wanted:
            for name in design.sets:
                if (design.name, name, seed) not in done:
                    yield Job(design.name, name, seed, steps[design.name, name])


def table_of(ablation: Ablation, runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean ± standard deviation over seeds, of which there are as many as stand in brackets."""
    columns = ["steps", "Dice", *(["brings"] if ablation.compares else []), "worst", "HD95 mm"]
    heads = {"hippocampus": columns, "sts_mr_t1": columns[:-1]}
    titles = [f"{name}: {title}" if title == "steps" else title for name in SETS for title in heads[name]]
    lines = [f"| | design | parameters | {' | '.join(titles)} |", "|---" * (3 + len(titles)) + "|"]
    base = {(run["set"], run["seed"]): run["dice"] for run in runs if run["design"] == ablation.designs[0].name}
    for design in ablation.designs:
        parameters, cells = "", []
        for name in SETS:
            here = [run for run in runs if run["design"] == design.name and run["set"] == name]
            if not here:
                cells += [""] * len(heads[name])
                continue
            parameters = parameters or f"{here[0]['parameters']:,}"
            gains = [run["dice"] - base[name, run["seed"]] for run in here if (name, run["seed"]) in base]
            shown = {
                "steps": f"{here[0]['steps']:,}",
                "Dice": f"{spread([run['dice'] for run in here], '.3f')} ({len(here)})",
                "brings": "" if design == ablation.designs[0] else spread(gains, "+.3f"),
                "worst": f"{mean(run['worst'] for run in here):.3f}",
                "HD95 mm": f"{mean(run['hd95_mm'] for run in here):.2f}",
            }
            cells += [shown[title] for title in heads[name]]
        lines.append("| " + " | ".join([design.group, design.name, parameters, *cells]) + " |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation, where there are several."""
    if not values:
        return ""
    return f"{mean(values):{form}}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def main(ablation: Ablation, description: str) -> None:
    """Parse the arguments, make the runs that are due and print the table."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path, help="the folder that holds hippocampus/ and sts_mr_t1/")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds of training steps a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="names of designs")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    where = {"data": given.data, "output": given.output}
    due = list(jobs(ablation, **where, seconds=given.seconds, seeds=given.seeds, only=given.only))
    with ProcessPoolExecutor(given.processes) as pool, (given.output / "runs.jsonl").open("a") as file:
        waiting = [pool.submit(one_run, ablation, job, **where) for job in due]
        for number, future in enumerate(waiting, start=1):
            run = future.result()
            file.write(json.dumps(run) + "\n")
            file.flush()
            print(f"{number}/{len(due)}", json.dumps(run), flush=True)
    text = table_of(ablation, runs_in(given.output))
    (given.output / "table.md").write_text(text)
    print(text)
