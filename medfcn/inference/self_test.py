"""`auto`: the fastest library, and the precision, that make the masks of torch in float32 on this machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import MedfcnError, MissingFileError
from medfcn.inference.decide import decide
from medfcn.inference.devices import has_fast_bfloat16, using_threads
from medfcn.inference.model import Model
from medfcn.inference.probabilities import view_shares
from medfcn.networks.sliding import ArraySlices, Slices
from medfcn.runs.arithmetic import AUTO, ENGINES, Arithmetic, Wanted
from medfcn.settings import EngineName, Precision, View
from medfcn.slices.preprocess import CaseImage
from medfcn.slices.slicing import in_plane_axes
from medfcn.volumes import Volume

LEAST_DICE = 0.999
"""The lowest Dice of the masks of an engine to those of torch in float32, for each label: one that is lost has 0."""
_PIXELS = 1 << 21
"""Pixels of the slices on which engines are timed, at least two and at most a batch."""
_ROUNDS = 2
_NOISE_SLICES, _NOISE_SCALE = 6, 1.4
"""Slices of noise, where no volume is given, and their edges in windows."""


@dataclass(frozen=True)
class Settled:
    """The arithmetic of a batch.

    Attributes:
        arithmetic: The library and the precision.
        line: Why, if there was a choice; else empty.
    """

    arithmetic: Arithmetic
    line: str = ""


def settle(
    wanted: Wanted, models: Sequence[Model], volumes: Sequence[Volume] = (), *, threads: int | None = None
) -> Settled:
    """The arithmetic that is wanted; `auto` is tried out.

    Args:
        wanted: What was requested; the default is torch in float32.
        models: As they were loaded: run by torch in float32, without folding.
        volumes: A case's channels, whose middle slices are predicted; without any, slices of noise are.
        threads: CPU threads; None takes those of torch.

    Raises:
        ModelError: torch's own logits are not finite.
    """
    precision = _precision(wanted, models)
    fixed = _arithmetic("torch" if wanted.engine in (None, AUTO) else wanted.engine, precision, wanted)  # type: ignore[arg-type]
    if wanted.engine != AUTO or models[0].device.type != "cpu":
        return Settled(fixed)
    samples = [_sample(model, volumes) for model in models]
    truths = [_decided(model, sample) for model, sample in zip(models, samples, strict=True)]
    seconds, words = {}, []
    for engine in ENGINES:
        arithmetic = _arithmetic(engine, precision, wanted)
        try:
            with using_threads(threads):
                taken, dice = _tried([model.run_by(arithmetic, threads=threads) for model in models], samples, truths)
        except MissingFileError:
            words.append(f"{engine} is not installed")
            continue
        except MedfcnError as error:
            words.append(f"{engine} cannot: {error}")
            continue
        words.append(f"{engine} {1000 * taken:.0f} ms" + ("" if dice >= LEAST_DICE else f" but a Dice of {dice:.4f}"))
        if dice >= LEAST_DICE:
            seconds[arithmetic] = taken
    best = min(seconds, key=lambda each: seconds[each], default=fixed)
    return Settled(best, f"engine auto: {best.engine} ({', '.join(words)} for a sample)")


def _precision(wanted: Wanted, models: Sequence[Model]) -> Precision:
    if wanted.precision != AUTO:
        return wanted.precision or "float32"  # type: ignore[return-value]  # `Wanted` has checked it
    is_alike = all(model.card.is_bfloat16_alike for model in models)
    is_here = has_fast_bfloat16(models[0].device) and wanted.engine != "onnx"
    return "bfloat16" if is_alike and is_here else "float32"


def _arithmetic(engine: EngineName, precision: Precision, wanted: Wanted) -> Arithmetic:
    plain = Arithmetic(engine, precision)
    return Arithmetic(engine, precision, folded=plain.can_be_folded and wanted.fold_norm is not False)


@dataclass(frozen=True)
class _Middle:
    """Some slices in the middle of others."""

    slices: Slices
    first: int
    count: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, C, H, W)`."""
        return (self.count, *self.slices.shape[1:])

    def part(self, start: int, stop: int) -> NDArray[np.float32]:
        """`(stop - start, C, H, W)` slices."""
        return self.slices.part(self.first + start, self.first + stop)


def _view_of(model: Model) -> View:
    return next(iter(view_shares(model.card)))


def _sample(model: Model, volumes: Sequence[Volume]) -> Slices:
    """The slices on which a model is tried."""
    view, plan = _view_of(model), model.card.plan
    if not volumes:
        shape = [_NOISE_SLICES] * 3
        for axis, edge in zip(in_plane_axes(view), plan.window, strict=True):
            shape[axis] = round(_NOISE_SCALE * edge)
        noise = np.random.default_rng(0).normal(size=(len(model.card.channels), *shape))
        return ArraySlices(noise.astype(np.float32), view)
    slices = CaseImage(volumes, plan).slices(view)
    count, _, height, width = slices.shape
    wanted = min(count, model.card.settings.prediction.batch_size, max(2, _PIXELS // (height * width)))
    return _Middle(slices, (count - wanted) // 2, wanted)


def _decided(model: Model, slices: Slices) -> list[NDArray[np.uint8]]:
    """The indices of all voxels of some slices, a part at a time."""
    card = model.card
    rule = partial(decide, threshold=card.foreground_from, head=model.head, members=card.labels.members)
    return [rule(likely) for _, likely in model.view_slabs(slices, _view_of(model), tta=False)]


def _tried(
    models: Sequence[Model], samples: Sequence[Slices], truths: Sequence[list[NDArray[np.uint8]]]
) -> tuple[float, float]:
    """CPU seconds of an arithmetic, and its lowest Dice to the true masks."""
    dice, taken = 1.0, 0.0
    for model, sample, truth in zip(models, samples, truths, strict=True):
        masks = _decided(model, sample)  # warms up too
        flat = [np.concatenate([part.ravel() for part in parts]) for parts in (truth, masks)]
        dice = min(dice, dice_of(flat[0], flat[1]))
        rounds = []
        for _ in range(_ROUNDS):
            began = time.process_time()
            _decided(model, sample)
            rounds.append(time.process_time() - began)
        taken += min(rounds)
    return taken, dice


def dice_of(first: NDArray[Any], second: NDArray[Any]) -> float:
    """The smallest Dice of two masks over their labels; 1 where both have none, 0 where their shapes differ."""
    if first.shape != second.shape:
        return 0.0
    dice = 1.0
    for value in {*np.unique(first).tolist(), *np.unique(second).tolist()} - {0}:
        one, other = first == value, second == value
        dice = min(dice, 2 * int((one & other).sum()) / (int(one.sum()) + int(other.sum())))
    return dice
