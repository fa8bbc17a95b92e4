"""Several processes that train one network together, started by `torchrun` on one machine or several.

Each has a share of every batch on its own device. Tensors are exchanged by NCCL, or by gloo on CPUs. Everything else
(a request to stop, the number of steps, the prepared cases) is exchanged by gloo, which waits as long as the first
process checks, prepares or validates.
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
from functools import cache
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
_ERRORS = "told"
"""Key of the processes' common store: the number of those that met an error."""
_LOOK_SECONDS, _GRACE_SECONDS = 2.0, 30.0
_FIRST_SECONDS = 0.5
"""Time that the others give the first process to report, if all meet the same error."""
_calls = itertools.count()


class World:
    """The processes of one training, as one of them sees it; a single process by default.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, control: dist.ProcessGroup | None = None) -> None:
        self.rank = rank
        self.size = size
        self._control = control

    @property
    def is_first(self) -> bool:
        """True in the process that reports, validates and writes the run folder."""
        return self.rank == 0

    @property
    def shared(self) -> SharedBatch | None:
        """The other processes, for losses; None without any."""
        return self if self.size > 1 else None

    def share(self, batch_size: int) -> range:
        """The slices of a batch that this process takes; processes differ by one at most.

        Raises:
            SettingsError: There are fewer slices than processes.

        Example:
            >>> [World(rank, 3).share(8) for rank in range(3)]
            [range(0, 2), range(2, 5), range(5, 8)]
        """
        if batch_size < self.size:
            raise SettingsError(
                f"setting training.batch_size: {batch_size} slices cannot be shared by {self.size} processes; take "
                f"{self.size} or more, or start fewer processes",
                field="training.batch_size",
            )
        return range(batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size)

    def total(self, values: Tensor) -> Tensor:
        """The sum of the processes' values; gradients flow back to each of them."""
        total: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
        return total

    def gather(self, values: Tensor) -> Tensor:
        """The values of every process, `(size, *values.shape)`, without a gradient."""
        each = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(each, values.contiguous())
        return torch.stack(each)

    def broadcast(self, value: _Value | None) -> _Value:
        """The value of the first process, in every process; the others pass None."""
        values: list[Any] = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0, group=self._control)
        first: _Value = values[0]
        return first

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        numbers = torch.tensor([number])
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._control)
        return int(numbers)

    def wait(self) -> None:
        """Wait until every process is here, however long that takes."""
        self.largest(0)

    def start_alike(self, module: nn.Module) -> None:
        """Copy the first process's weights and buffers into a module."""
        for tensor in module.state_dict().values() if self.size > 1 else ():
            first = tensor.contiguous()
            dist.broadcast(first, src=0)
            tensor.copy_(first)

    def together(self, module: nn.Module) -> nn.Module:
        """The module to call in a training instead of `module`: its gradients are the mean over processes.

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
    """A sum over processes. Every process uses the sum, so its gradients are added up too."""

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
    """Meet the processes that `torchrun` started with this one; without `torchrun` there is one process.

    An error in any of them ends all, and the first that meets it reports it. The others raise a `ProcessError` that
    need not be shown.

    Args:
        device: `auto`, `cpu` or `cuda`; each process takes the GPU of its number on its machine. For a single process
            also `cuda:N`.

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
    """The device of one of several processes on a machine."""
    if ":" in name:
        raise SettingsError(
            f"device {name!r} is one GPU, and each process takes one of its own; use cuda, auto or cpu",
            field="device",
        )
    chosen = choose_device(name)
    if chosen.type == "mps":
        raise SettingsError(f"device {name!r} is for one process; start medfcn without torchrun", field="device")
    if chosen.type == "cpu":
        return chosen
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= gpus:
        raise SettingsError(
            f"{os.environ['LOCAL_WORLD_SIZE']} processes on a machine with {gpus} CUDA GPUs; start torchrun with "
            f"--nproc-per-node {gpus}, or use cpu",
            field="device",
        )
    return torch.device("cuda", local)


@contextmanager
def _watching(store: Store) -> Iterator[None]:
    """End this process after another met an error and this one waits for it in vain."""
    has_left = threading.Event()

    def watch() -> None:
        while not has_left.wait(_LOOK_SECONDS):
            try:
                is_over = store.check([_ERRORS])
            except RuntimeError:  # the machine with the store is gone
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
    """The error to raise, so that only one process reports it."""
    if rank and isinstance(error, TrainingStoppedError | KeyboardInterrupt):
        return error  # the first process reports it
    if rank:
        time.sleep(_FIRST_SECONDS)
    try:
        is_told = store.add(_ERRORS, 1) > 1
    except RuntimeError:
        is_told = False
    if is_told:
        return ProcessError(f"another of the {size} processes ended the training, and reports why", is_told=True)
    if _is_lost(error):
        return ProcessError(
            f"another of the {size} processes ended without a message: killed, or its machine is gone; start "
            "again, with --resume where a checkpoint was saved"
        )
    if rank and isinstance(error, MedfcnError | OSError | MemoryError):
        problem = str(error) or "out of memory"
        return ProcessError(f"process {rank} of 0 to {size - 1}, on {socket.gethostname()}: {problem}")
    return error


def _is_lost(error: BaseException) -> bool:
    """True if a process could not reach another, which gloo reports as a plain RuntimeError."""
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and any(word in str(error) for word in ("gloo", "onnection"))
    )


@dataclass(frozen=True)
class Machine:
    """The device, the processes and the clock of a training.

    Attributes:
        device: The device of the network.
        seed: Random seed.
        started: `time.monotonic()` when the command began; budgets count from here.
        cpu_started: CPU seconds that the process had used by then.
        world: The processes that train together.
    """

    device: torch.device
    seed: int
    started: float
    cpu_started: float = 0.0
    world: World = ALONE


@cache
def versions(*, monai: str = "") -> dict[str, str]:
    """The versions of medfcn and of the libraries on which its numbers depend.

    Args:
        monai: The version of MONAI; empty where it did not run.
    """
    found = {"python": platform.python_version()} | {name: version(name) for name in ("medfcn", "torch")}
    return found | ({"monai": monai} if monai else {}) | {name: version(name) for name in ("numpy", "nibabel")}
