"""What the tests of several processes do in each of them; `torchrun` starts this with a folder of its own.

Everything is done in one start, because importing torch takes longer than any of it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import medfcn
from medfcn.config import override
from medfcn.errors import ProcessError, SettingsError, TrainingError, TrainingStoppedError
from medfcn.labels import IGNORED
from medfcn.networks.design import Design
from medfcn.networks.fcn import build_network
from medfcn.networks.objective import Objective
from medfcn.networks.supervision import SupervisedFCN
from medfcn.progress import Silent
from medfcn.settings import NetworkSettings, Settings, TrainingSettings
from medfcn.training.distributed import ALONE, World, joined
from medfcn.training.gradients import Gradients
from medfcn.training.run import Run
from medfcn.training.trainer import Trainer

SETTINGS = override(
    override(Settings(), "network", widths=(4, 8)),
    "training",
    precision="float32",
    batch_size=7,  # not divisible: one process has three slices, the other four
    epoch_steps=3,
    checkpoint_seconds=3600.0,
)
LOSSES: dict[str, dict[str, Any]] = {
    "ce_dice": {},
    "slice": {"dice_over": "slice"},
    "weighted": {"class_weights": (0.3, 1.0, 2.0), "label_smoothing": 0.1},
    "tversky": {"loss": "tversky"},
    "focal": {"loss": "focal"},
    "mse": {"loss": "mse"},
    "hinge": {"loss": "hinge"},
    "tasks": {"presence_weight": 0.5, "distance_weight": 0.5, "deep_supervision": True},
}
STEPS = 8


def gradient_of(name: str, *, ignores: bool, normalisation: str, world: World = ALONE) -> dict[str, torch.Tensor]:
    """The loss, the gradient and the running statistics of a small network on this process's share of a batch."""
    training = TrainingSettings(**LOSSES[name])
    network_settings = NetworkSettings(normalisation=normalisation)  # type: ignore[arg-type]
    torch.manual_seed(0 if world.is_first else 99)  # others start as the first does
    network = build_network(Design.of(network_settings, widths=(4, 8), channels_in=1, label_count=2)).double()
    supervised = SupervisedFCN(
        network, label_count=2, deep=training.deep_supervision, presence=name == "tasks", distances=name == "tasks"
    )
    supervised.double().train()
    settings = Settings(network=network_settings, training=training)
    objective = Objective.of(settings, 2, shared=world.shared)
    gradients = Gradients(supervised, objective, micro_batch=7, use_bfloat16=False, progress=Silent(), world=world)
    gradients.join()
    random = torch.Generator().manual_seed(1)
    images = torch.randn(7, 1, 16, 16, generator=random, dtype=torch.float64)
    targets = torch.randint(0, 3, (7, 16, 16), generator=random)
    if ignores:
        targets[6] = IGNORED  # the second process ignores, the first does not
        targets[5, :8] = IGNORED
    share = world.share(7)
    mine = slice(share.start, share.stop)
    loss = gradients.set_gradients(images[mine], targets[mine], seed=3)
    found = {"loss": loss}
    found |= {f"gradient.{key}": value.grad for key, value in supervised.named_parameters() if value.grad is not None}
    found |= {f"buffer.{key}": value.clone() for key, value in supervised.named_buffers()}
    return found


def gradient_cases() -> list[dict[str, Any]]:
    return [
        {"name": name, "ignores": ignores, "normalisation": normalisation}
        for name in LOSSES
        for ignores in (False, True)
        for normalisation in (("batch", "none") if name == "ce_dice" else ("batch",))
    ]


def key_of(case: dict[str, Any]) -> str:
    return "-".join(map(str, case.values()))


class StopAt:
    """Lets this process ask to stop at a step, by the library's own way."""

    def __init__(self, step: int, stop: Any) -> None:
        self.step, self.stop = step, stop
        self.original = Trainer._step

    def __enter__(self) -> None:
        outer = self

        def step(trainer: Trainer, total: int | None) -> None:
            outer.original(trainer, total)
            if trainer.step == outer.step:
                outer.stop.ask(15)

        Trainer._step = step  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        Trainer._step = self.original  # type: ignore[method-assign]


def failing_step(trainer: Trainer, total: int | None) -> None:
    raise TrainingError("the disk of this process is full")


def train(data: Path, folder: Path, **choices: Any) -> Run:
    return medfcn.train(data, folder, **({"steps": STEPS, "settings": SETTINGS, "device": "cpu"} | choices))


def main(data: Path, folder: Path) -> None:
    from medfcn.runs.stop import Stop

    told: dict[str, Any] = {}
    with joined("cpu") as (world, _):
        rank = world.rank
        for case in gradient_cases():
            save_file(gradient_of(**case, world=world), folder / f"{key_of(case)}.{rank}.safetensors")
    run = train(data, folder / "whole")
    told["whole"] = [run.steps, len(run.validation.rows)]
    stop = Stop()
    with StopAt(5, stop if rank == 1 else Stop()):  # only the second process is asked to
        try:
            train(data, folder / "stopped", stop=stop)
        except TrainingStoppedError as error:
            told["stopped"] = [str(error), error.signal_number]
    train(data, folder / "stopped", resume=True)
    told["again"] = train(data, folder / "whole", resume=True).steps
    train(data, folder / "folds", folds=2, steps=2)
    told["laps"] = train(data, folder / "laps", folds=2, steps=None, budget="6s").steps
    told["budget"] = train(data, folder / "budget", steps=None, budget="1s").steps
    try:
        train(data, folder / "few", settings=override(SETTINGS, "training", batch_size=1))
    except (SettingsError, ProcessError) as error:
        told["few"] = [type(error).__name__, str(error)]
    if rank == 1:
        Trainer._step = failing_step  # type: ignore[method-assign]
    try:
        train(data, folder / "failed")
    except ProcessError as error:
        told["failed"] = [str(error), error.is_told]
    (folder / f"told.{rank}.json").write_text(json.dumps(told))
    os._exit(0)  # the other process notices that this one is gone


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
