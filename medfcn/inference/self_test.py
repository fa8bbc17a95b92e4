"""`auto`: the fastest library, and the precision, that make the masks of torch in float32 on this machine."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

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
_STRETCHES = 8
"""So many places of a volume are looked at for slices with labels."""
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
        volumes: A case's channels, of which slices with labels are predicted; without any, slices of noise are.
        threads: CPU threads; None takes those of torch.

    Raises:
        ModelError: torch's own logits are not finite.
    """
    precision = _precision(wanted, models)
    fixed = _arithmetic("torch" if wanted.engine in (None, AUTO) else wanted.engine, precision, wanted)  # type: ignore[arg-type]
    if wanted.engine != AUTO or models[0].device.type != "cpu":
        return Settled(fixed)
    if any(model.card.plan.own_statistics for model in models):
        why = "the network is fitted to each volume (slices.own_statistics), which only torch does"
        return Settled(fixed, f"engine auto: {fixed.engine} ({why})")
    samples = [_sample(model, volumes) for model in models]
    seen = min(sample.labels for sample in samples)
    if not seen:
        return Settled(fixed, f"engine auto: {fixed.engine} (the sample shows no label, so others cannot be judged)")
    seconds, words = {}, []
    for engine in ENGINES:
        arithmetic = _arithmetic(engine, precision, wanted)
        try:
            with using_threads(threads):
                taken, dice = _tried([model.run_by(arithmetic, threads=threads) for model in models], samples)
        except MissingFileError:
            words.append(f"{engine} is not installed")
            continue
        except MedfcnError as error:
            words.append(f"{engine} cannot: {_reason(error, engine)}")
            continue
        words.append(f"{engine} {1000 * taken:.0f} ms" + ("" if dice >= LEAST_DICE else f" but a Dice of {dice:.4f}"))
        if dice >= LEAST_DICE:
            seconds[arithmetic] = taken
    best = min(seconds, key=lambda each: seconds[each], default=fixed)
    every = len(models[0].card.labels.entries)
    shown = "" if seen >= every else f" that shows {seen} of {every} labels"
    return Settled(best, f"engine auto: {best.engine} ({', '.join(words)} for a sample{shown})")


def _reason(error: MedfcnError, engine: EngineName) -> str:
    """The words of an error without what to do, which `auto` does by itself: it takes another engine."""
    words = str(error).removeprefix(f"engine {engine}: ")
    return words.rpartition("; ")[0] or words


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
class _Stretch:
    """Some slices of others."""

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


@dataclass(frozen=True)
class _Sample:
    """Slices on which a model is tried.

    Attributes:
        slices: These.
        truth: Their masks by torch in float32, a part at a time.
        labels: The number of labels in these.
        voxels: The voxels of these labels.
    """

    slices: Slices
    truth: list[NDArray[np.uint8]]
    labels: int
    voxels: int

    @classmethod
    def of(cls, model: Model, slices: Slices) -> Self:
        """The sample that some slices are."""
        truth = _decided(model, slices)
        found = {value for part in truth for value in np.unique(part).tolist()} - {0}
        return cls(slices, truth, len(found), sum(int(np.count_nonzero(part)) for part in truth))


def _sample(model: Model, volumes: Sequence[Volume]) -> _Sample:
    """The first slices that show every label; else those that show most labels, and of these the most voxels."""
    tried: list[_Sample] = []
    for slices in _stretches(model, volumes):
        tried.append(_Sample.of(model, slices))
        if tried[-1].labels >= len(model.card.labels.entries):
            break
    return max(tried, key=lambda sample: (sample.labels, sample.voxels))


def _stretches(model: Model, volumes: Sequence[Volume]) -> Iterator[Slices]:
    """Slices to look at: the middle ones of a volume, then others, spread over all of it; noise without a volume."""
    view, plan = _view_of(model), model.card.plan
    if not volumes:
        shape = [_NOISE_SLICES] * 3
        for axis, edge in zip(in_plane_axes(view), plan.window, strict=True):
            shape[axis] = round(_NOISE_SCALE * edge)
        noise = np.random.default_rng(0).normal(size=(len(model.card.channels), *shape))
        yield ArraySlices(noise.astype(np.float32), view)
        return
    slices = CaseImage(volumes, plan).slices(view)
    count, _, height, width = slices.shape
    wanted = min(count, model.card.settings.prediction.batch_size, max(2, _PIXELS // (height * width)))
    middle = (count - wanted) // 2
    places = range(middle % wanted, count - wanted + 1, wanted)
    step = -(-len(places) // _STRETCHES)
    for first in sorted(places[middle // wanted % step :: step], key=lambda place: abs(place - middle)):
        yield _Stretch(slices, first, wanted)


def _decided(model: Model, slices: Slices) -> list[NDArray[np.uint8]]:
    """The indices of all voxels of some slices, a part at a time."""
    card = model.card
    rule = partial(decide, threshold=card.foreground_from, head=model.head, members=card.labels.members)
    return [rule(likely) for _, likely in model.view_slabs(slices, _view_of(model), tta=False)]


def _tried(models: Sequence[Model], samples: Sequence[_Sample]) -> tuple[float, float]:
    """CPU seconds of an arithmetic, and its lowest Dice to the true masks."""
    dice, taken = 1.0, 0.0
    for model, sample in zip(models, samples, strict=True):
        masks = _decided(model, sample.slices)  # warms up too
        flat = [np.concatenate([part.ravel() for part in parts]) for parts in (sample.truth, masks)]
        dice = min(dice, dice_of(flat[0], flat[1]))
        rounds = []
        for _ in range(_ROUNDS):
            began = time.process_time()
            _decided(model, sample.slices)
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
