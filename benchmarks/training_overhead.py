"""CPU seconds of a training outside of its steps and of its imports, for two installs of medfcn in turn.

    python benchmarks/training_overhead.py DATA LABELS OUTPUT --before FOLDER --after FOLDER [--steps 585]

`--before` and `--after` are folders that contain the package `medfcn`, as in `same_bytes.py`. Each trains on DATA
with one thread and the same seed, before, after, before, after. The rest, beside the steps and the imports, is
reading, checking, preparing, validating, scoring and reporting. The table is printed, and each run is a line of
`OUTPUT/overhead.jsonl`.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean

from measured import run_measured, training_words, two_installs

# Runs the command with every CPU second booked: to steps, to imports (the outermost only), or to the rest.
DRIVER = """
import builtins, json, sys, threading, time

booked, stack, last = {"imports": 0.0, "steps": 0.0, "rest": 0.0}, ["imports"], [0.0]

def book(kind):
    now = time.process_time()
    booked[stack[-1]] += now - last[0]
    last[0] = now
    if kind:
        stack.append(kind)
    else:
        stack.pop()

def booking(original, kind):
    def call(*arguments, **choices):
        if stack[-1] == kind or threading.current_thread() is not threading.main_thread():
            return original(*arguments, **choices)
        book(kind)
        try:
            return original(*arguments, **choices)
        finally:
            book("")
    return call

builtins.__import__ = booking(builtins.__import__, "imports")
import importlib
importlib.import_module = booking(importlib.import_module, "imports")
from medfcn.cli import main
from medfcn.training.trainer import Trainer
Trainer._step = booking(Trainer._step, "steps")
book("rest")
try:
    main(sys.argv[2:])
except SystemExit as error:
    status = error.code
book("")
with open(sys.argv[1], "w") as file:
    json.dump(booked, file)
sys.exit(status)
"""


def train(package: Path, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """CPU seconds of one training, by what they went to."""
    result = folder.with_suffix(".json")
    command = [sys.executable, "-c", DRIVER, str(result), *training_words(arguments, folder)]
    run_measured(command, folder.with_suffix(".log"), PYTHONPATH=str(package.resolve()), PYTHONSAFEPATH="1")
    booked: dict[str, float] = json.loads(result.read_text())
    return booked


def main() -> None:
    parser = two_installs(__doc__, steps=585)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    print(f"{'install':<8}{'imports':>10}{'steps':>10}{'rest':>10}  CPU seconds")
    for _ in range(arguments.rounds):
        for name, done in runs.items():
            booked = train(getattr(arguments, name), arguments, arguments.output / name)
            done.append(booked)
            print(
                f"{name:<8}" + "".join(f"{booked[kind]:>10.2f}" for kind in ("imports", "steps", "rest")), flush=True
            )
            with (arguments.output / "overhead.jsonl").open("a") as file:
                file.write(json.dumps({"install": name, "steps": arguments.steps} | booked) + "\n")
    rest = {name: mean(booked["rest"] for booked in done) for name, done in runs.items()}
    print(f"rest: {rest['after'] / rest['before']:.2f} of before")


if __name__ == "__main__":
    main()
