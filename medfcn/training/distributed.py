"""Several processes that train one network together, as `torchrun` starts them, on one machine or several.

Each has a share of every batch on its own device. Tensors go between the devices by NCCL, or by gloo on CPUs;
everything else (whether to stop, how many steps, what the first process prepared) goes by gloo, which may wait as
long as the first process checks, prepares or validates.
"""

import itertools
import os
import platform
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from medfcn.errors import MedfcnError, ProcessError, SettingsError, TrainingError, TrainingStoppedError
from medfcn.inference.devices import choose_device
from medfcn.networks.shared_batch import SharedBatch, share_statistics
from medfcn.progress import process_count

_Value = TypeVar("_Value")
_WAIT = timedelta(days=100)
_TOLD = "told"
"""Key of the store that the processes share: how many of them have met an error."""
_LOOK_SECONDS, _GRACE_SECONDS = 2.0, 30.0
_FIRST_SECONDS = 0.5
"""How long the others let the first process speak, where all meet the same error."""
_calls = itertools.count()


class World:
    """The processes of one training, as one of them sees it; alone unless told otherwise.

    Attributes:
        rank: Which one this is, from 0.
        size: How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, control: dist.ProcessGroup | None = None) -> None:
        self.rank = rank
        self.size = size
        self._control = control

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks, validates and writes the run folder."""
        return self.rank == 0

    @property
    def shared(self) -> SharedBatch | None:
        """What losses see of the other processes; None without any."""
        return self if self.size > 1 else None

    def share(self, batch_size: int) -> range:
        """Which slices of a batch are this process's, as many as the others' or one more.

        Raises:
            SettingsError: There are fewer slices than processes.

        Example:
            >>> [World(rank, 3).share(8) for rank in range(3)]
            [range(0, 2), range(2, 5), range(5, 8)]
        """
        if batch_size < self.size:
            raise SettingsError(
                f"setting training.batch_size: {batch_size} slices cannot be shared by {self.size} processes; take "
                f"{self.size} or more, or start fewer processes"
            )
        return range(batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size)

    def total(self, values: Tensor) -> Tensor:
        """The sum of what every process gives; gradients flow back to each of them."""
        total: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
        return total

    def gather(self, values: Tensor) -> Tensor:
        """What every process gives, `(size, *values.shape)`, without a gradient."""
        each = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(each, values.contiguous())
        return torch.stack(each)

    def broadcast(self, value: _Value | None) -> _Value:
        """What the first process gives, in every process; the others give None."""
        held: list[Any] = [value]
        if self.size > 1:
            dist.broadcast_object_list(held, src=0, group=self._control)
        given: _Value = held[0]
        return given

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        if self.size == 1:
            return number
        numbers = torch.tensor([number])
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._control)
        return int(numbers)

    def wait(self) -> None:
        """Until every process is here, however long that takes."""
        self.largest(0)

    def start_alike(self, module: nn.Module) -> None:
        """Give a module the first process's weights and buffers."""
        for tensor in module.state_dict().values() if self.size > 1 else ():
            given = tensor.contiguous()
            dist.broadcast(given, src=0)
            tensor.copy_(given)

    def together(self, module: nn.Module) -> nn.Module:
        """What to call in a training instead of `module`: its gradients are the mean over processes.

        Its batch normalisations are replaced by those that see the whole batch.
        """
        if self.size == 1:
            return module
        share_statistics(module, self)
        parallel = nn.parallel.DistributedDataParallel(module, init_sync=False)
        parallel.broadcast_buffers = False  # they are the same; as an argument, torch 2.13 warns of it
        return parallel


ALONE = World()


class _Total(torch.autograd.Function):
    """A sum over processes. What every process makes of it counts, so gradients are added up too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


@contextmanager
def joined(device: str) -> Iterator[tuple[World, torch.device]]:
    """Meet the processes that `torchrun` started with this one; alone without it.

    An error in any of them ends all, and one of them says why: the first that meets it. The others raise a
    `ProcessError` that need not be shown.

    Args:
        device: `auto`, `cpu` or `cuda`; each process takes the GPU of its number on its machine. Alone also `cuda:N`.

    Yields:
        The processes and this one's device.

    Raises:
        SettingsError: There is no such device, or none for this process.
        ProcessError: Another process met an error, or vanished.
    """
    if process_count() == 1:
        yield ALONE, choose_device(device)
        return
    if dist.is_initialized():
        raise TrainingError(
            "the calling program uses torch.distributed, which medfcn.train does by itself under torchrun; destroy "
            "the process group first"
        )
    common, rank, size = next(iter(rendezvous("env://")))
    store = PrefixStore(f"medfcn/{next(_calls)}", common)
    try:
        with _watching(store):
            own = _own_device(device)
            if own.type == "cuda":
                torch.cuda.set_device(own)
            dist.init_process_group("nccl" if own.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
            world = World(rank, size, control=dist.new_group(backend="gloo", timeout=_WAIT))
            yield world, own
    except BaseException as error:
        said = _said(error, store, rank, size)
        if dist.is_initialized() and dist.get_backend() == "gloo":  # NCCL would wait for those that are gone
            with suppress(RuntimeError):
                dist.destroy_process_group()
        if said is error:
            raise
        raise said from error
    dist.destroy_process_group()


def _own_device(name: str) -> torch.device:
    """The device of one of several processes of a machine."""
    if ":" in name:
        raise SettingsError(
            f"device {name!r} is one GPU, and each process takes one of its own; use cuda, auto or cpu"
        )
    if choose_device(name).type == "cpu":
        return torch.device("cpu")
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= gpus:
        raise SettingsError(
            f"{os.environ['LOCAL_WORLD_SIZE']} processes on a machine with {gpus} CUDA GPUs; start torchrun with "
            f"--nproc-per-node {gpus}, or use cpu"
        )
    return torch.device("cuda", local)


@contextmanager
def _watching(store: Store) -> Iterator[None]:
    """End this process when another has met an error and this one cannot: it waits for what will never come."""
    has_left = threading.Event()

    def watch() -> None:
        while not has_left.wait(_LOOK_SECONDS):
            try:
                is_over = store.check([_TOLD])
            except RuntimeError:  # the machine that held it is gone
                is_over = True
            if is_over:
                if not has_left.wait(_GRACE_SECONDS):
                    os._exit(1)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        has_left.set()


def _said(error: BaseException, store: Store, rank: int, size: int) -> BaseException:
    """What to raise for an error, so that one process alone has something to say."""
    if rank and isinstance(error, TrainingStoppedError | KeyboardInterrupt):
        return error  # the first process says so
    if rank:
        time.sleep(_FIRST_SECONDS)
    try:
        is_told = store.add(_TOLD, 1) > 1
    except RuntimeError:
        is_told = False
    if is_told:
        return ProcessError(f"another of the {size} processes ended the training, and says why", is_told=True)
    if _is_lost(error):
        return ProcessError(
            f"another of the {size} processes ended without a word: killed, or its machine is gone; start "
            "again, with --resume where a checkpoint was saved"
        )
    if rank and isinstance(error, MedfcnError | OSError | MemoryError):
        what = str(error) or "out of memory"
        return ProcessError(f"process {rank} of 0 to {size - 1}, on {socket.gethostname()}: {what}")
    return error


def _is_lost(error: BaseException) -> bool:
    """Whether a process could not reach another: gloo says so with a RuntimeError and no more."""
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and any(word in str(error) for word in ("gloo", "onnection"))
    )


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


def versions(*, monai: str = "") -> dict[str, str]:
    """The versions of medfcn and of the libraries on which its numbers depend.

    Args:
        monai: The version of MONAI; empty where it did not run.
    """
    found = {"python": platform.python_version()} | {name: version(name) for name in ("medfcn", "torch")}
    return found | ({"monai": monai} if monai else {}) | {name: version(name) for name in ("numpy", "nibabel")}
