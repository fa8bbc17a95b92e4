"""What neighbouring slices and several views bring, at equal CPU time, on two real sets.

    python benchmarks/views_and_context.py DATA OUTPUT [--seconds 60] [--seeds 2]

DATA is the folder that holds `hippocampus/` (1 mm voxels) and `sts_mr_t1/` (3.27 mm slices of 0.98 mm pixels). Every
design first takes a few steps in turn, round after round, so that a machine whose pace drifts is fair to all: the CPU
seconds of a step fix how many steps each gets. Each is then trained with every seed and scored on the validation
people, whole volumes on their own grids, with even weights of the views and with the weights that
`training/fuse.py` learns (on the same volumes, so these flatter). The held-out hippocampus volumes of
`hippocampus_test.txt` are not read. Finished runs are kept in `OUTPUT/runs.jsonl`, so a stopped benchmark goes on
where it was; `OUTPUT/table.md` is made of them.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from network_ablation import override_network, prepared_set

from medfcn.config import Settings, override
from medfcn.evaluation import evaluate
from medfcn.inference.model import Model
from medfcn.networks.fcn import build_network
from medfcn.progress import Silent
from medfcn.slices.views import parse_views
from medfcn.training.fuse import choose_view_weights
from medfcn.training.prepare import Prepared, as_planned, plan_training, prepare
from medfcn.training.record import Log
from medfcn.training.schedule import Length
from medfcn.training.trainer import Machine, Trainer

SETS = ("hippocampus", "sts_mr_t1")
ROUNDS, STEPS_A_ROUND = 4, 6
MEANT = ("dice", "worst", "hd95_mm", "seconds_a_volume")


@dataclass(frozen=True)
class Design:
    """Which slices a network sees."""

    views: str
    context: int

    @property
    def name(self) -> str:
        return f"{'one view' if self.views == 'auto' else 'three views'}, context {self.context}"

    def settings(self) -> Settings:
        chosen = override(Settings(), "training", validation_share=0.25)
        chosen = override(chosen, "slices", views=parse_views(self.views), context=self.context)
        return override_network(chosen)


DESIGNS = (*(Design("auto", context) for context in (1, 3, 5)), *(Design("all", context) for context in (1, 3)))


class Sets:
    """The two sets; each is read once, and its slices are made once for each design that needs others."""

    def __init__(self, data: Path, output: Path) -> None:
        self.data, self.output = data, output
        self.prepared: dict[str, Prepared] = {}

    def trainer(self, design: Design, name: str, seed: int) -> Trainer:
        """A trainer of a design, before its first step."""
        settings, store = design.settings(), self.output / "slices" / name
        store.mkdir(parents=True, exist_ok=True)
        if name not in self.prepared:
            self.prepared[name] = prepared_set(self.data, name, settings, store)
        found = self.prepared[name].survey
        split, plan = plan_training(found, settings, seed=0)
        settings = as_planned(settings, plan)
        torch.manual_seed(seed)
        network = build_network(settings.network, widths=plan.widths, channels_in=plan.channels_in, label_count=1)
        machine = Machine(device=torch.device("cpu"), seed=seed, started=time.monotonic())
        log = Log(Path(tempfile.gettempdir()) / f"medfcn_views_{os.getpid()}.csv", started=machine.started)
        prepared = prepare(found, split, plan, store, Silent())
        return Trainer(prepared, settings, machine, network, log=log, progress=Silent())


def calibrate(sets: Sets, name: str) -> dict[str, dict[str, float]]:
    """For each design the median CPU seconds of a step, and of these what sampling and augmenting take."""
    path = sets.output / f"pace_{name}.json"
    if path.is_file():
        return dict(json.loads(path.read_text()))
    trainers = {design.name: sets.trainer(design, name, 0) for design in DESIGNS}
    steps: dict[str, list[float]] = {key: [] for key in trainers}
    batches: dict[str, list[float]] = {key: [] for key in trainers}
    for turn in range(ROUNDS):
        for key, trainer in trainers.items():
            for _ in range(STEPS_A_ROUND):
                began = time.process_time()
                trainer._step(10**6)
                stepped = time.process_time()
                trainer.batches.of(trainer.step)
                if turn:  # the first round warms up
                    steps[key].append(stepped - began)
                    batches[key].append(time.process_time() - stepped)
    pace = {key: {"step": median(steps[key]), "batch": median(batches[key])} for key in trainers}
    path.write_text(json.dumps(pace, indent=1))
    return pace


def score(model: Model, prepared: Prepared) -> dict[str, float]:
    """Dice and HD95 of the validation cases, and the CPU seconds of a prediction."""
    cases = prepared.cases(prepared.split.validation)
    began = time.process_time()
    masks = {case.id: model.predict([str(path) for path in case.images]) for case in cases}
    seconds = (time.process_time() - began) / len(cases)
    table = evaluate(masks, {case.id: case.label for case in cases if case.label}, labels=prepared.survey.labels)
    dices = [row.dice for row in table.rows]
    return {
        "dice": mean(dices), "worst": min(dices), "hd95_mm": median(row.hd95_mm for row in table.rows),
        "seconds_a_volume": seconds,
    }  # fmt: skip


def one_run(sets: Sets, design: Design, name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train a design on a set with a seed, and score it."""
    trainer = sets.trainer(design, name, seed)
    # Every design keeps its last weights: choosing them on the people it is scored on would flatter it.
    later = count()
    trainer._validate = lambda ids: float(next(later))  # type: ignore[method-assign]
    model = trainer.run(Length(steps=steps)).model
    run = {"design": design.name, "set": name, "seed": seed, "steps": steps, **score(model, trainer.prepared)}
    weights = choose_view_weights(model, trainer.prepared)
    if weights:
        model.card = dataclasses.replace(model.card, view_weights=weights)
        run |= {"weights": weights, "weighted_dice": score(model, trainer.prepared)["dice"]}
    if design.views == "all":
        run["alone"] = {
            view: score(model.with_views([view]), trainer.prepared)["dice"] for view in model.card.plan.views
        }
    return run


def table_of(runs: list[dict[str, Any]]) -> str:
    """A row for each set and design, means over seeds."""
    lines = [
        "| set | design | steps | Dice, each seed | Dice | worst | HD95 mm | predict, CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in SETS:
        for design in DESIGNS:
            here = [run for run in runs if run["set"] == name and run["design"] == design.name]
            if here:
                means = {
                    key: mean(run[key] for run in here) for key in ("dice", "worst", "hd95_mm", "seconds_a_volume")
                }
                each = " ".join(f"{run['dice']:.3f}" for run in here)
                lines.append(
                    f"| {name} | {design.name} | {here[0]['steps']:,} | {each} | {means['dice']:.3f} | "
                    f"{means['worst']:.3f} | {means['hd95_mm']:.2f} | {means['seconds_a_volume']:.3f} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    sets, path = Sets(given.data, given.output), given.output / "runs.jsonl"
    runs = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = {(run["design"], run["set"], run["seed"]) for run in runs}
    pace = {name: calibrate(sets, name) for name in SETS}
    for seed, design, name in product(range(given.seeds), DESIGNS, SETS):
        if (design.name, name, seed) not in done:
            steps = max(1, round(given.seconds / pace[name][design.name]["step"]))
            runs.append(one_run(sets, design, name, seed, steps))
            with path.open("a") as file:
                file.write(json.dumps(runs[-1]) + "\n")
            print(json.dumps(runs[-1]), flush=True)
    table = table_of(runs)
    (given.output / "table.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
