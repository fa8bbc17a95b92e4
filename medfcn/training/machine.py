"""What a training runs on: the device, the clock, the processes, and the versions of what its numbers depend on."""

import platform
from dataclasses import dataclass
from importlib.metadata import version

import torch

from medfcn.training.distributed import ALONE, World


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Attributes:
        device: Where the network is.
        seed: Of every random number.
        started: `time.monotonic()` when the command began; budgets count from here.
        cpu_started: CPU seconds that the process had used by then, for other things.
        world: The processes that train together.
    """

    device: torch.device
    seed: int
    started: float
    cpu_started: float = 0.0
    world: World = ALONE


def versions() -> dict[str, str]:
    """Of medfcn and what its numbers depend on."""
    names = ("medfcn", "torch", "monai", "numpy", "nibabel")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
