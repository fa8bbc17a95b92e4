"""Dice for CPU seconds of training: medfcn, nnU-Net 2D and a plain MONAI loop on one split, in one picture.

    python benchmarks/accuracy_for_cost.py DATA OUTPUT --method medfcn --seconds 60 300 600 --seeds 0 1 2
    python benchmarks/accuracy_for_cost.py DATA OUTPUT --method monai --seconds 540 1620
    python benchmarks/accuracy_for_cost.py DATA OUTPUT --method nnunet --seconds 2500 --points 300 600 1250 --peers PYTHON
    python benchmarks/accuracy_for_cost.py DATA OUTPUT --table --picture benchmarks/pictures/accuracy_for_cost.png

DATA is the Decathlon's hippocampus, a folder with `images/` and `labels/`. All train on the volumes that are not in
`hippocampus_test.txt` and are scored on those that are, with medfcn's `evaluate`, on the volumes' own grids; nothing is
chosen there. PYTHON is that of an environment with nnunetv2:

    python3 -m venv peers && peers/bin/pip install -c constraints.txt nnunetv2

A training is a command of its own with one thread; its CPU seconds, user and system, children included, are what the
system says when it ends. medfcn is told a number of steps, found by running 60 and 260 of them; the peers have a clock
of CPU seconds that ends their training and shapes their learning rate (`peers/`). Each training and its scores are a
line of `OUTPUT/runs.jsonl`, and what stands there is not run again; nnU-Net also goes on where it was stopped.
"""  # noqa: E501

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_for_cost_picture import draw_picture, table_of
from measured import Used, processor, run_measured, trained, versions
from nnunet import NNUNet

from medfcn.datasets.tables import read_ids
from medfcn.evaluation import evaluate
from medfcn.files import write_csv

HERE = Path(__file__).resolve().parent
TEST_FILE = HERE / "hippocampus_test.txt"
LABELS = "hippocampus=1+2"
MEDFCN = {"medfcn": (), "medfcn_one_slice": ("--context", "1")}
"""What each method adds to `medfcn train`."""

CALIBRATION_STEPS = (60, 260)
LEAST_SHARE, AIMED_SHARE = 0.97, 0.985
"""Of the seconds asked for: less than the first, or more than all, and the steps are corrected."""

NNUNET_BATCH = 32
"""Its own plan, made for a GPU, says 223 slices: seven times fewer steps."""


def next_steps(seconds: float, runs: Sequence[tuple[int, float]]) -> int:
    """Steps of a training that takes some CPU seconds: on the line through the runs, from the nearest of them.

    Args:
        seconds: CPU seconds of the whole command.
        runs: Steps and CPU seconds of at least two other runs.

    Example:
        >>> next_steps(60.0, [(60, 16.0), (260, 26.0)])
        940
    """
    steps, taken = np.array(runs, dtype=float).T
    # Weighted so that runs count by their relative errors: that of a long run is large in seconds.
    pace = np.polyfit(steps, taken, 1, w=1 / taken)[0]
    nearest = int(np.argmin(np.abs(taken - seconds)))
    return int(steps[nearest] + (seconds - taken[nearest]) / pace + 1e-9)


class Bench:
    """The data, where results go, and the runs there so far."""

    def __init__(self, data: Path, output: Path, peers: str) -> None:
        self.data, self.output, self.peers = data, output, peers
        ids = sorted(path.name.removesuffix(".nii.gz") for path in (data / "images").glob("*.nii.gz"))
        self.test = list(read_ids(TEST_FILE))
        if missing := set(self.test) - set(ids):
            raise SystemExit(f"{data}/images: {len(missing)} of the test volumes are not there; give the hippocampus")
        self.training = [one for one in ids if one not in self.test]
        output.mkdir(parents=True, exist_ok=True)
        self.groups = output / "groups.csv"
        # Two sides of one person stand next to each other in this set's numbers.
        write_csv(self.groups, ("id", "group"), [(one, f"person_{(int(one.split('_')[1]) + 1) // 2}") for one in ids])

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What stands in a file of lines of JSON."""
        path = self.output / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def add(self, name: str, line: dict[str, Any]) -> None:
        with (self.output / name).open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def is_done(self, **wanted: Any) -> bool:
        return any(wanted.items() <= run.items() for run in self.lines("runs.jsonl"))

    def score(self, masks: Path) -> dict[str, Any]:
        """Scores of the test volumes."""
        references = {one: self.data / "labels" / f"{one}.nii.gz" for one in self.test}
        found = {one: masks / f"{one}.nii.gz" for one in self.test if (masks / f"{one}.nii.gz").is_file()}
        table = evaluate(found, references, labels=LABELS)
        dices, distances = [row.dice for row in table.rows], [row.hd95_mm for row in table.rows]
        return {
            "cases": len(table.rows), "dice": float(np.mean(dices)), "median": float(np.median(dices)),
            "worst": min(dices), "hd95_mm": float(np.mean(distances)),
        }  # fmt: skip

    def predicted(self, masks: Path, command: Sequence[str], log: Path, **variables: str) -> dict[str, Any]:
        """Predict the test volumes with a command, and score them."""
        shutil.rmtree(masks, ignore_errors=True)
        used = run_measured(command, log, **variables)
        each = used.cpu_seconds / len(self.test)
        return self.score(masks) | {"predict_cpu_seconds": round(each, 3), "predict_peak_mb": round(used.peak_mb)}


def run_medfcn(bench: Bench, method: str, seconds: float, seed: int, attempts: int) -> None:
    """Train until the CPU seconds are near those asked for, then predict as it does by default."""
    folder = bench.output / method / f"{seconds:g}s_seed{seed}"
    medfcn = [sys.executable, "-m", "medfcn"]
    fixed = ["--labels", LABELS, "--groups", str(bench.groups), "--leave-out", str(TEST_FILE), "--device", "cpu"]

    def train(steps: int, run: Path, seed: int) -> Used:
        chosen = ["--threads", "1", "--steps", str(steps), "--seed", str(seed), *MEDFCN[method]]
        command = [*medfcn, "train", str(bench.data), "-o", str(run), *fixed, *chosen, "--overwrite"]
        used = run_measured(command, folder / "train.log")
        bench.add("paces.jsonl", {"method": method, "steps": steps, "cpu_seconds": round(used.cpu_seconds, 2)})
        return used

    def paces() -> list[tuple[int, float]]:
        return [
            (line["steps"], line["cpu_seconds"]) for line in bench.lines("paces.jsonl") if line["method"] == method
        ]

    for steps in CALIBRATION_STEPS:
        if steps not in {taken for taken, _ in paces()}:
            train(steps, bench.output / method / "calibration", 0)
    earlier = [run for run in bench.lines("runs.jsonl") if (run["method"], run["seconds"]) == (method, seconds)]
    steps = earlier[-1]["steps"] if earlier else next_steps(AIMED_SHARE * seconds, paces())
    for _ in range(attempts):
        if steps < 1:
            raise SystemExit(f"{seconds:g} CPU s is less than medfcn takes to start; ask for more")
        used = train(steps, folder / "run", seed)
        if LEAST_SHARE * seconds <= used.cpu_seconds <= seconds:
            break
        made, steps = steps, next_steps(AIMED_SHARE * seconds, paces())
    else:
        steps = made
    command = [*medfcn, "predict", str(folder / "run"), str(bench.data / "images"), "-o", str(folder / "masks")]
    test = ["--cases", str(TEST_FILE), "--device", "cpu", "--threads", "1"]
    scores = bench.predicted(folder / "masks", [*command, *test], folder / "predict.log")
    line = {"method": method, "seconds": seconds, "schedule_seconds": seconds, "seed": seed, "tta": False}
    line |= {"is_default": True, "steps": steps, **trained(used), **scores, "processor": processor()}
    bench.add("runs.jsonl", line | {"versions": versions("medfcn", "torch")})


def run_monai(bench: Bench, seconds: float, seed: int) -> None:
    """Train and predict with the plain loop."""
    folder = bench.output / "monai" / f"{seconds:g}s_seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    script, model, masks = str(HERE / "peers" / "monai_basicunet.py"), str(folder / "model.pt"), folder / "masks"
    (folder / "training.txt").write_text("\n".join(bench.training) + "\n")
    clock = ["--seconds", str(seconds), "--seed", str(seed)]
    train = [sys.executable, script, "train", str(bench.data), str(folder / "training.txt"), model, *clock]
    used = run_measured(train, folder / "train.log")
    predict = [sys.executable, script, "predict", str(bench.data), str(TEST_FILE), model, "--masks", str(masks)]
    scores = bench.predicted(masks, predict, folder / "predict.log")
    line = {"method": "monai", "seconds": seconds, "schedule_seconds": seconds, "seed": seed, "tta": False}
    line |= {"is_default": True, "steps": json.loads((folder / "model.json").read_text())["steps"], **trained(used)}
    bench.add("runs.jsonl", line | scores | {"processor": processor(), "versions": versions("monai", "torch")})


def run_nnunet(bench: Bench, seconds: float, seed: int, points: Sequence[float]) -> None:
    """Train once for all points; predict each with mirror images, its default, and the last also without."""
    base = bench.output / "nnunet"
    folder = base / f"{seconds:g}s_seed{seed}"

    def image(one: str) -> Path:
        return bench.data / "images" / f"{one}.nii.gz"

    nnunet = NNUNet(
        bench.peers,
        base,
        {one: (image(one), bench.data / "labels" / f"{one}.nii.gz") for one in bench.training},
        {one: image(one) for one in bench.test},
        labels=("hippocampus",),
        encode=lambda mask: (mask > 0).astype(np.uint8),
        batch=NNUNET_BATCH,
        dataset="Dataset001_Hippocampus",
    )
    prepared, whole = nnunet.prepare(), nnunet.train(folder, seconds, seed, points)
    saved = whole.pop("points")
    for name, tta in [(name, True) for name in saved] + [("final", False)]:
        reached = whole if name == "final" else whole | {"cpu_seconds": round(saved[name]["cpu_seconds"], 1)}
        line = {"method": "nnunet", "seconds": seconds if name == "final" else float(name), "seed": seed, "tta": tta}
        line |= {"schedule_seconds": seconds}
        if bench.is_done(**line):
            continue
        masks = folder / f"masks_{name}{'' if tta else '_no_tta'}"
        command = nnunet.predicting(name, masks, tta=tta)
        scores = bench.predicted(masks, command, folder / "predict.log", **nnunet.variables(folder))
        line |= {"is_default": tta, "steps": saved[name]["steps"], **reached, **scores, "processor": processor()}
        line |= {"preparing_cpu_seconds": prepared["cpu_seconds"]}
        bench.add("runs.jsonl", line | {"versions": {key: prepared[key] for key in ("nnunetv2", "torch")}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--method", choices=[*MEDFCN, "monai", "nnunet"])
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 300.0, 600.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--points", type=float, nargs="*", default=[], help="nnU-Net: scored on the way, CPU s.")
    parser.add_argument("--attempts", type=int, default=2, help="medfcn: trainings until the CPU s are met.")
    parser.add_argument("--peers", metavar="PYTHON", default="peers/bin/python", help="The one that has nnunetv2.")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    # So that a training ends with the script that started it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    bench = Bench(given.data.resolve(), given.output.resolve(), str(Path(given.peers).absolute()))
    methods: dict[str, Callable[[float, int], None]] = {
        "monai": lambda seconds, seed: run_monai(bench, seconds, seed),
        "nnunet": lambda seconds, seed: run_nnunet(bench, seconds, seed, given.points),
    }
    for method in MEDFCN:
        methods[method] = lambda seconds, seed, method=method: run_medfcn(
            bench, method, seconds, seed, given.attempts
        )
    for seed in given.seeds if given.method else []:
        for seconds in sorted(given.seconds):
            # Of nnU-Net's rows each is looked for by itself.
            if given.method == "nnunet" or not bench.is_done(method=given.method, seconds=seconds, seed=seed):
                methods[given.method](seconds, seed)
    runs = bench.lines("runs.jsonl")
    if given.table:
        print(table_of(runs))
    if given.picture:
        draw_picture(runs, given.picture)


if __name__ == "__main__":
    main()
