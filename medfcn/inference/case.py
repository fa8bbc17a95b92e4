"""One case through one model or several averaged: channels → probabilities → a mask with what to expect of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from medfcn.datasets import find_inputs
from medfcn.datasets.channels import ChannelUse
from medfcn.errors import MedfcnError, MemoryShortError, ModelError
from medfcn.inference.card import Card
from medfcn.inference.confidence import Assessment, Doubt, DoubtMeter, assess_mask
from medfcn.inference.decide import Foreground, decide
from medfcn.inference.foreign import foreign_flags
from medfcn.inference.native import SlabCollector
from medfcn.inference.postprocessing import rules_of
from medfcn.inference.probabilities import view_shares
from medfcn.inference.shapes import odd_labels
from medfcn.inference.uncertainty import UncertaintyMaps, network_maps, uncertainty_maps
from medfcn.labels.measures import Intensity, Measure, measure_labels
from medfcn.networks.design import Head
from medfcn.networks.sliding import Network, Slices
from medfcn.scratch import release
from medfcn.settings import View
from medfcn.slices.grid import native_slabs
from medfcn.slices.preprocess import CaseImage, grid_of
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.slices.voxels import Ranges
from medfcn.text import counted, listed, shown
from medfcn.volumes import ReadOptions, Volume, VolumeLike, as_volume
from medfcn.volumes.formats.stored import of_one_value
from medfcn.volumes.reading import read_channels, volume_count

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import CaseTransforms

READ_STRICTLY = ReadOptions()
_DROPPED = "left out: channel "
"""How the note of a channel begins that is not used."""


@dataclass(frozen=True)
class Prediction:
    """A mask with its volumes and its expected quality.

    Attributes:
        mask: On the image's own grid, with the labels' written values.
        measures: The voxels of each label, and the intensity of each channel inside it.
        flags: Lines that a reader should know, such as that the image is constant.
        probabilities: `(L, I, J, K)` float32, one for each label, on request.
        assessments: For each label, the Dice to expect and whether to review it; empty if the models' cards contain
            no results on unseen cases.
        doubt: The origin of the assessments; None if no network ran.
        uncertainty: Entropy and disagreement of each label, on request.
    """

    mask: Volume
    measures: Mapping[str, Measure]
    flags: tuple[str, ...]
    probabilities: NDArray[np.float32] | None = None
    assessments: Mapping[str, Assessment] = field(default_factory=dict)
    doubt: Doubt | None = None
    uncertainty: UncertaintyMaps | None = None

    @property
    def volumes_ml(self) -> dict[str, float]:
        """The volume of each label, in millilitres."""
        return {name: found.voxels * self.mask.voxel_ml for name, found in self.measures.items()}


class Member(Protocol):
    """A model, as far as a prediction needs it; see `Model`."""

    card: Card
    head: Head
    transforms: CaseTransforms | None
    runner: Network

    def view_probabilities(
        self, image: NDArray[np.float32], view: View, *, tta: bool | None = None
    ) -> NDArray[np.float32]:
        """`(L, R, A, S)` probabilities of one view; see `Model`."""

    def network_probabilities(self, image: CaseImage, *, tta: bool | None = None) -> NDArray[np.float32]:
        """`(L, R, A, S)` float32 probabilities of the labels on the network grid of a case."""

    def view_slabs(
        self, slices: Slices, view: View, *, tta: bool | None = None
    ) -> Iterator[tuple[Ranges, NDArray[np.float32]]]:
        """The probabilities of one view, some slices at a time; see `Model`."""


def as_channels(
    source: VolumeLike | Sequence[VolumeLike], use: ChannelUse, options: ReadOptions = READ_STRICTLY
) -> tuple[Volume, ...]:
    """The channels of a case that a model uses, as trusted volumes.

    Channels that it does not use may be there, and are left out; if one of them varies, the first volume notes it.

    Args:
        source: As in `Predictor.predict`; the path of one channel (`_0000`) stands for its siblings too.
        use: The channels of the model.
        options: What to accept when a path is read that would otherwise be refused.

    Raises:
        ModelError: There are more or fewer than the model was trained on.
    """
    sources = list(source) if isinstance(source, list) else [cast(VolumeLike, source)]
    stacked = volume_count(sources[0]) if len(sources) == 1 and use.count > 1 and options.volume_index is None else 1
    if stacked > 1:
        volumes = read_channels(sources[0], len(use.used) if stacked == len(use.used) else use.count, options=options)
        if stacked == len(use.used):
            return volumes
        return _used([partial(as_volume, volume) for volume in volumes], use)
    if len(sources) == 1 < use.count and isinstance(sources[0], str | os.PathLike):
        case = find_inputs(sources[0], channels=use.count, optional=use.dropped_places)[0]
        if case.lacks:
            raise ModelError(f"{case.id}: {case.lacks}", code="CHANNEL_MISSING", field="channels")
        sources = list(case.images)
    if len(sources) not in (use.count, len(use.used)):
        raise ModelError(_other_count(sources, use), field="channels")
    return _used([partial(as_volume, item, options=options) for item in sources], use)


def _other_count(sources: Sequence[VolumeLike], use: ChannelUse) -> str:
    """The message about a case with more or fewer channels than the model takes."""
    spare = f", of which {listed(channel.name for channel in use.dropped)} may be absent" if use.dropped else ""
    paths = [item for item in sources if isinstance(item, str | os.PathLike)]
    files = f" ({listed(shown(path) for path in paths)})" if paths else ""
    takes = f"the model takes {counted(use.count, 'channel')} ({listed(use.names)}){spare}"
    takes += f", the case has {len(sources)}{files}"
    if len(sources) > use.count:
        each = "the file of that channel" if use.count == 1 else "the files of these channels"
        return f"{takes}; give {each} alone, in a folder with nothing else"
    return (
        f"{takes}; give one volume for each, in that order and on one grid: files <case>_0000, <case>_0001 … "
        "in one folder (DICOM series are not paired: convert them first)"
    )


def _used(readers: Sequence[Callable[[], Volume]], use: ChannelUse) -> tuple[Volume, ...]:
    """The used channels, in the order of the first of them, with notes on those that are not used."""
    first, *others = (read() for read in use.of(readers))
    notes: list[str] = []
    for channel in use.dropped if len(readers) == use.count else ():
        try:
            is_constant = readers[channel.place]().is_constant
        except MemoryShortError:
            raise
        except MedfcnError:  # a channel that is not used need not be readable
            continue
        if not is_constant:
            notes.append(f"{_DROPPED}{channel.name}, which had one value in each training case and varies here")
    return (replace(first, notes=(*first.notes, *notes)), *(other.reordered_to(first) for other in others))


def notes_of_dropped(volumes: Sequence[Volume]) -> tuple[str, ...]:
    """The notes of `as_channels` on channels that vary and are not used."""
    return tuple(note for note in volumes[0].notes if note.startswith(_DROPPED))


def predict_with(
    models: Sequence[Member],
    volumes: Sequence[Volume],
    *,
    tta: bool | None = None,
    keep_probabilities: bool = False,
    uncertainty: bool = False,
) -> Prediction:
    """One case's mask from the mean of some models' probabilities on the native grid.

    Probabilities are resampled, averaged and decided (see `decide`) a slab at a time, so that memory does not grow
    with the number of labels on the native grid. Components are removed as `rules_of` says; see `keep_parts`.

    Args:
        models: At least one; all segment the same labels from the same channels.
        volumes: One for each channel, on one grid.
        tta: Average over mirror images; None follows each model's settings.
        keep_probabilities: Also return the probabilities.
        uncertainty: Also return the uncertainty, from the same pass of the networks.
    """
    card, transforms = models[0].card, models[0].transforms
    labels, rules = card.labels, rules_of([model.card for model in models])
    flags = [
        f"channel {channel} is constant: the mask is empty"
        for volume, channel in zip(volumes, card.channels, strict=True)
        if volume.is_constant
    ]
    if flags:
        return _empty(models, volumes, flags, keep_probabilities=keep_probabilities, uncertainty=uncertainty)
    moved = None if transforms is None else transforms(volumes)
    seen = volumes if moved is None else moved.images
    slabs = SlabCollector(
        grid_of(seen[0], card.plan),
        len(labels.entries),
        rules.threshold,
        certainty=rules.needs_certainty,
        probabilities=keep_probabilities,
    )
    meter = DoubtMeter(len(models), len(labels.entries), members=labels.members)
    known = [(model.card.fingerprint, model.card.plan.intensities) for model in models if model.card.fingerprint]
    foreign = foreign_flags(known, seen, card.channels)
    said = [network_maps(model, seen, tta=tta) for model in models] if uncertainty else []
    likely = [one.likely for one in said]
    for place, parts in native_rows(models, likely, seen[0]) if said else native_parts(models, seen, tta=tta):
        slabs.add(place, *decided_part(models, parts, meter))
    found = slabs.collected()
    part = rules.cut(found.indices, found.certainty)
    odd = odd_labels(part, seen[0], labels, [model.card.shapes for model in models])
    indices, kept = part.indices, found.probabilities
    maps = uncertainty_maps(models, said, seen[0]) if said else None
    if transforms is not None and moved is not None:
        indices = transforms.undo(indices, moved)
        kept = None if kept is None else transforms.undo(kept, moved)
        if maps is not None:
            maps = UncertaintyMaps(*(transforms.undo(values, moved) for values in (maps.entropy, maps.disagreement)))
    measures = measure_labels(indices, labels, [volume.array for volume in volumes])
    volumes_ml = {name: found.voxels * volumes[0].voxel_ml for name, found in measures.items()}
    doubt = meter.doubt()
    assessments = _assess(models, volumes_ml, doubt, odd)
    flags = [f"{name} not found" for name, volume in volumes_ml.items() if not volume and not odd[name]]
    flags += [f"review {name}: {reason}" for name, of_label in assessments.items() for reason in of_label.reasons]
    return Prediction(
        mask=volumes[0].with_array(labels.decode(indices)),
        measures=measures,
        flags=(*foreign, *flags),
        probabilities=kept,
        assessments=assessments,
        doubt=doubt,
        uncertainty=maps,
    )


def _empty(
    models: Sequence[Member],
    volumes: Sequence[Volume],
    flags: Sequence[str],
    *,
    keep_probabilities: bool,
    uncertainty: bool,
) -> Prediction:
    """The mask of a case of which a channel has one value; its voxels are all one place in memory."""
    labels, volume = models[0].card.labels, volumes[0]
    measures = dict.fromkeys(labels.names, Measure(0, (Intensity(None, None),) * len(volumes)))
    nothing = of_one_value(np.float32(0), (len(labels.entries), *volume.shape))
    shares, maps = nothing if keep_probabilities else None, UncertaintyMaps(nothing, nothing) if uncertainty else None
    mask = of_one_value(labels.decode(np.zeros(1, dtype=np.uint8))[0], volume.shape)
    assessments = _assess(models, dict.fromkeys(labels.names, 0.0), None, {})
    return Prediction(volume.with_array(mask), measures, tuple(flags), shares, assessments, uncertainty=maps)


def _assess(
    models: Sequence[Member], volumes_ml: Mapping[str, float], doubt: Doubt | None, odd: Mapping[str, Sequence[str]]
) -> Mapping[str, Assessment]:
    """For each label, the Dice to expect and whether to review it."""
    unseen = [model.card.unseen for model in models if model.card.unseen is not None]
    chosen = models[0].card.settings.prediction
    return assess_mask(
        doubt, volumes_ml, unseen, review_share=chosen.review_share, review_floor=chosen.review_floor, odd=odd
    )


def native_parts(
    models: Sequence[Member], volumes: Sequence[Volume], *, tta: bool | None = None
) -> Iterator[tuple[Ranges, list[NDArray[np.float32]]]]:
    """The probabilities that some models give for a case, on its own grid, a part at a time.

    Where each model has one view, and slices of the network grid lie where those of the file do, the slices pass
    through at once. Else the probabilities of a case are put into a file first.

    Yields:
        A place along R, A and S, and the `(L, r, a, s)` probabilities of each model there.
    """
    images = {}
    for model in models:
        plan = model.card.plan
        if (key := (plan.spacing_mm, plan.intensities)) not in images:
            images[key] = CaseImage(volumes, plan)
    own = [images[model.card.plan.spacing_mm, model.card.plan.intensities] for model in models]
    view = _view_of_slabs(models, volumes[0])
    if view is None:
        likely = [model.network_probabilities(image, tta=tta) for model, image in zip(models, own, strict=True)]
        yield from native_rows(models, likely, volumes[0])
        return
    axis, grids = VIEW_AXIS[view], [grid_of(volumes[0], model.card.plan) for model in models]
    slabs = (model.view_slabs(image.slices(view), view, tta=tta) for model, image in zip(models, own, strict=True))
    for each in zip(*slabs, strict=True):
        _, right, *others = each[0][0]
        native = (
            native_slabs(part, grid.part(axis, part.shape[1 + axis]))
            for (_, part), grid in zip(each, grids, strict=True)
        )
        for parts in zip(*native, strict=True):
            rows, before = parts[0][0], right.start or 0
            yield (slice(before + rows.start, before + rows.stop), *others), [values for _, values in parts]


def _view_of_slabs(models: Sequence[Member], volume: Volume) -> View | None:
    """The view whose slices can pass from the network to the file one after the other; None if there is none."""
    views = [tuple(view_shares(model.card)) for model in models]
    if len(set(views)) > 1 or len(views[0]) > 1:
        return None
    (view,), first = views[0], models[0].card
    for model in models:
        grid, card = grid_of(volume, model.card.plan), model.card
        plan = card.plan
        same = (plan.window, plan.spacing_mm, plan.apart, card.settings.prediction.batch_size, card.settings.network)
        if not grid.keeps(VIEW_AXIS[view]) or same != (
            first.plan.window,
            first.plan.spacing_mm,
            first.plan.apart,
            first.settings.prediction.batch_size,
            first.settings.network,
        ):
            return None
    return view


def native_rows(
    models: Sequence[Member], probabilities: Sequence[NDArray[np.float32]], volume: Volume
) -> Iterator[tuple[Ranges, list[NDArray[np.float32]]]]:
    """Some models' probabilities on a volume's own grid, some rows at a time.

    Args:
        models: At least one.
        probabilities: `(L, R, A, S)` of each model on its network grid; without any there is no part.
        volume: On the grid that is wanted.

    Yields:
        A place along R, A and S, and the `(L, rows, A, S)` probabilities of each model there.
    """
    slabs = [
        native_slabs(likely, grid_of(volume, model.card.plan))
        for model, likely in zip(models, probabilities, strict=False)
    ]
    for each in zip(*slabs, strict=True):
        yield (each[0][0], slice(None), slice(None)), [values for _, values in each]
        for likely in probabilities:
            release(likely)


def decided_part(
    models: Sequence[Member], parts: Sequence[NDArray[np.float32]], meter: DoubtMeter | None = None
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Foreground | None]:
    """Decide each voxel of a part of the native grid.

    Args:
        models: At least one.
        parts: `(L, r, a, s)` probabilities of each.
        meter: Gets the part, if there is one.

    Returns:
        The `(L, r, a, s)` mean probabilities, the `(r, a, s)` indices, and their foreground if it is known.
    """
    members = models[0].card.labels.members
    alone = [
        decide(part, model.card.foreground_from, model.head, members)
        for model, part in zip(models, parts, strict=True)
    ]
    seen = [Foreground.of(mask) for mask in alone]
    if meter is not None:
        meter.add(parts, alone, seen)
    if len(models) == 1:
        return parts[0], alone[0], seen[0]
    mean = sum(parts[1:], start=parts[0]) / np.float32(len(parts))
    threshold = rules_of([model.card for model in models]).threshold
    return mean, decide(mean, threshold, models[0].head, members), None
