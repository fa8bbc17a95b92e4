"""Trainings in processes of their own that may be killed, without a start of Python and torch for each.

Run as a script: reads a JSON object a line, forks, and trains or saves in the child; the child's number and what
becomes of it are written a line each.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Nursery:
    """The process that forks trainings."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def start(self, **order: Any) -> int:
        """Begin something in a child; returns its process number."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.line().removeprefix("child "))

    def line(self) -> str:
        """What a child says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self, child: int) -> list[str]:
        """Kill a child, if it is still there; what it had said by then."""
        os.kill(child, signal.SIGKILL)
        return self.until_end(child)

    def until_end(self, child: int) -> list[str]:
        """What a child says until it has ended."""
        lines = []
        while (line := self.line()) != f"gone {child}":
            assert self.process.poll() is None
            lines.append(line)
        return lines


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery; its children do not outlive it."""
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


def _say(text: str) -> None:
    # One write a line, so that lines of two processes are never mixed.
    os.write(1, f"{text}\n".encode())


def _train(order: dict[str, Any]) -> None:
    import medfcn
    from medfcn.config import override
    from medfcn.settings import Settings

    settings = override(Settings(), "training", epoch_steps=10, checkpoint_seconds=order.pop("checkpoint_seconds"))
    folder = Path(order["output"])
    run = medfcn.train(**order, settings=settings, device="cpu", threads=1, resume=folder.exists())
    _say(f"done {run.steps}")


def _tune(order: dict[str, Any]) -> None:
    import medfcn
    from medfcn.config import override
    from medfcn.settings import Settings

    settings = override(Settings(), "training", epoch_steps=10, checkpoint_seconds=0.0)
    resume = Path(order["output"]).exists()
    tuned = medfcn.tune(**order, settings=settings, device="cpu", threads=1, resume=resume)
    _say(f"done {len(tuned.trials)}")


def _save(order: dict[str, Any]) -> None:
    import torch

    from medfcn.runs.checkpoints import Checkpoints
    from tests.training.states import state_at

    checkpoints = Checkpoints(Path(order["folder"]), "key", every_seconds=0)
    torch.manual_seed(0)
    for step in range(order["first"], order["first"] + 1000):
        checkpoints.write(step, state_at(step).save)
        _say(f"saved {step}")


def _serve() -> None:
    import torch

    for name in ("medfcn.tuning.tune", "optuna", "torch._dynamo"):  # once, for all children
        importlib.import_module(name)
    torch.set_num_threads(1)
    unreaped: list[int] = []
    for line in sys.stdin:
        order = json.loads(line)
        while unreaped:
            os.waitpid(unreaped.pop(), 0)
        child = os.fork()
        if child == 0:
            _say(f"child {os.getpid()}")
            try:
                {"train": _train, "tune": _tune, "save": _save}[order.pop("work")](order)
            except BaseException as error:
                _say(f"failed {type(error).__name__}: {error}")
            os._exit(0)
        # Not reaped yet: its number stays its own, so that a late kill cannot meet another process.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        _say(f"gone {child}")
        unreaped.append(child)


if __name__ == "__main__":
    _serve()
