"""The gradient of a batch, in as many parts as the memory needs."""

import math
import time

import torch
from torch import nn

from medfcn.errors import MemoryShortError
from medfcn.memory import free_bytes, free_text, give_back, has_limit, megabytes, more_memory
from medfcn.memory_errors import is_memory_error, shortage
from medfcn.networks.memory import RESERVE_BYTES, require_maps
from medfcn.networks.objective import Objective
from medfcn.networks.supervision import SupervisedFCN
from medfcn.progress import Progress, warn
from medfcn.training.distributed import ALONE, World

_ASKED_SECONDS = 2.0
"""How often the free memory of a machine is looked at: that takes half a millisecond."""


class Gradients:
    """Computes the gradients of batches; after memory ran out, in smaller parts.

    The gradients of the parts are added up, weighted by their numbers of slices. The sum is the gradient of the whole
    batch if the loss is a mean over slices, or over voxels of equal weight, and without batch normalisation.
    Otherwise it is an approximation: batch statistics, a Dice over the batch, and means over weighted or labelled
    voxels are those of each part. Dropout draws part by part.

    With several processes, each gives its share of a batch and gets the gradient of the whole, for every loss and
    normalisation. There are no smaller parts then, because all processes would have to take them at once. Dropout
    draws by itself in each process.

    Args:
        supervised: The network with the heads of its training.
        objective: The loss to minimise.
        micro_batch: Number of slices in a part; the whole batch at first.
        use_bfloat16: The network computes in bfloat16.
        progress: Where smaller parts are reported.
        world: The processes that share each batch; they meet in `join`.
        slice_bytes: Memory that a slice takes on a CPU, which is asked for beforehand; 0 asks for none.

    Attributes:
        micro_batch: Number of slices in a part now.
    """

    def __init__(
        self,
        supervised: SupervisedFCN,
        objective: Objective,
        *,
        micro_batch: int,
        use_bfloat16: bool,
        progress: Progress,
        world: World = ALONE,
        slice_bytes: int = 0,
    ) -> None:
        self.supervised = supervised
        self.objective = objective
        self.micro_batch = micro_batch
        self.use_bfloat16 = use_bfloat16
        self.progress = progress
        self.world = world
        self.slice_bytes = slice_bytes if world.size == 1 else 0
        self._asked_at = -math.inf
        self._called: nn.Module = supervised
        self._parameters = list(supervised.parameters())
        self._buffers = list(supervised.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]

    def join(self) -> None:
        """Take the first process's weights, and share every batch from now on."""
        self.world.start_alike(self.supervised)
        self._called = self.world.together(self.supervised)

    def set_gradients(self, images: torch.Tensor, targets: torch.Tensor, *, seed: int) -> torch.Tensor:
        """Set the gradient of every parameter.

        Args:
            images: `(N, C, H, W)`, this process's share of the batch.
            targets: `(N, H, W)`.
            seed: Random seed of dropout.

        Returns:
            The loss of the batch, a scalar without a gradient, on the network's device.

        Raises:
            MemoryShortError: One slice does not fit into memory, or a process's share does not.
        """
        self._copy(self._buffers, self._before)
        self.make_room(len(images), images.device)
        while True:
            try:
                return self._sum_of_parts(images, targets, seed=seed)
            except Exception as error:
                if not is_memory_error(error):
                    raise
                if self.world.size > 1:
                    raise MemoryShortError(
                        f"{shortage(error)}, with {len(images)} slices a process; start more processes, or set a "
                        "smaller training.batch_size, slices.window or network.width"
                    ) from error
                if self.micro_batch == 1:
                    raise MemoryShortError(
                        f"{shortage(error)}, with one slice at a time; set a smaller slices.window or network.width, "
                        "or take another --device"
                    ) from error
            # Outside of the handler, so that the memory of the failed attempt is free again.
            self._halve(images.device)

    def make_room(self, count: int, device: torch.device) -> None:
        """Take smaller parts if the memory of a CPU is too little, because torch may end the process there.

        Args:
            count: Slices of the batch.
            device: Where the network is.

        Raises:
            MemoryShortError: There is too little for one slice.
        """
        now = time.monotonic()
        if (
            not self.slice_bytes
            or device.type != "cpu"
            or (now - self._asked_at < _ASKED_SECONDS and not has_limit())
        ):
            return
        self._asked_at = now
        is_trimmed = False
        while (free := free_bytes()) is not None:
            needed = RESERVE_BYTES + min(count, self.micro_batch) * self.slice_bytes
            if free >= needed:
                return
            if not is_trimmed:
                give_back()
                is_trimmed = True
                continue
            if self.micro_batch == 1 or free < RESERVE_BYTES + self.slice_bytes:
                least = megabytes(RESERVE_BYTES + self.slice_bytes)
                raise MemoryShortError(
                    f"out of memory: a step with one slice needs {least}, {free_text(free)}; set a smaller "
                    f"slices.window or network.width, or {more_memory()}"
                )
            self._halve(device)

    def _halve(self, device: torch.device) -> None:
        """Undo the changes of the failed attempt, and take smaller parts."""
        self.micro_batch = (self.micro_batch + 1) // 2
        self._copy(self._before, self._buffers)
        self._forget()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        elif device.type == "mps":
            torch.mps.empty_cache()
        warn(
            self.progress,
            f"out of memory: going on with {self.micro_batch} slices at a time, whose gradients are added up; "
            "batch statistics are now those of so many slices",
        )

    def _forget(self) -> None:
        """Drop the gradients of before, without a walk through the modules."""
        for parameter in self._parameters:
            parameter.grad = None

    def _sum_of_parts(self, images: torch.Tensor, targets: torch.Tensor, *, seed: int) -> torch.Tensor:
        self._forget()
        # Dropout draws from here, so that a step does not depend on those before it.
        _seed(seed ^ (self.world.rank << 24), images.device)
        if len(images) <= self.micro_batch:
            loss = self._loss(images, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        total = images.new_zeros(())
        for part, wanted in zip(
            torch.split(images, self.micro_batch), torch.split(targets, self.micro_batch), strict=True
        ):
            loss = self._loss(part, wanted) * (len(part) / len(images))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.slice_bytes and images.device.type == "cpu" and has_limit():
            require_maps(len(images), self.slice_bytes)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            outputs = self._called(images)
        loss: torch.Tensor = self.objective(outputs, targets)
        return loss

    @staticmethod
    def _copy(source: list[torch.Tensor], target: list[torch.Tensor]) -> None:
        if source:
            torch._foreach_copy_(target, source)


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators from which a network on a device draws.

    For each kind of device that is not in use, `torch.manual_seed` writes down from where it was called, line by line
    (torch 2.13).
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
