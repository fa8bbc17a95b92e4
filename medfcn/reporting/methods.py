"""The methods paragraph of a paper, from a run's own record: data, split, plan, training, scores, versions.

Everything in it is in `model.json` and `cases.csv`; nothing is measured here, and no id of a case is named.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from medfcn.decoding import decode_csv
from medfcn.errors import ModelError
from medfcn.evaluation.label_summary import PartlyLabelled
from medfcn.inference.card import Card, read_card
from medfcn.runs.folder import RunFolder
from medfcn.runs.models import ModelFiles, Runs, models_of
from medfcn.text import counted, listed
from medfcn.training.optimiser import USUAL_RATE
from medfcn.training.schedule import learning_rate

_SCALING = {
    "zscore": "scaled by each volume's own mean and standard deviation",
    "ct": "clipped and scaled by the intensities of the organ in all training volumes",
    "none": "left as stored",
}
_LOSSES = {
    "ce_dice": "the sum of cross-entropy and Dice loss",
    "ce": "cross-entropy",
    "dice": "Dice loss",
    "focal": "focal loss",
    "tversky": "Tversky loss",
    "mse": "the squared error of probabilities",
    "hinge": "hinge loss",
}
_CHANGES = {
    "rotation_degrees": "rotation to {:g}°",
    "scale": "scaling by up to {:.0%}",
    "shear": "shear to {:g}",
    "shift": "shifts to {:.0%} of the window",
    "elastic": "elastic deformation",
    "noise": "noise",
    "blur_pixels": "blur",
    "low_resolution": "coarser pixels",
    "bias_field": "bias fields",
    "contrast": "contrast",
    "brightness": "brightness",
    "gamma": "gamma",
}


def methods_paragraph(runs: Runs) -> str:
    """The paragraph, as sentences in plain text.

    Args:
        runs: A run folder, a `.medfcn` file or the name of a model; the networks of several are averaged.

    Raises:
        MissingFileError: There is no run.
        ModelError: Its card cannot be read.
    """
    files = models_of(runs)
    cards = [read_card(each.card) for each in files]
    sentences = (*_about(cards), *_data(files, cards), *_slices(cards[0]), *_training(cards), *_masks(cards[0]))
    return " ".join((*sentences, *_scores(cards), *_versions(cards[0])))


def _about(cards: Sequence[Card]) -> Iterator[str]:
    first = cards[0]
    network = first.settings.network
    design = f"MONAI's {network.monai}" if network.monai else "a 2D fully convolutional network"
    several = f" ({len(cards)} networks, whose probabilities were averaged)" if len(cards) > 1 else ""
    yield f"Masks of {listed(first.labels.names)} were made by {design}{several}, trained with medfcn."


def _data(files: Sequence[ModelFiles], cards: Sequence[Card]) -> Iterator[str]:
    first = cards[0]
    yield f"Its input is {counted(len(first.channels), 'channel')}: {listed(_channels(first))}."
    uses = [_uses(each) for each in files]
    for number, (card, use) in enumerate(zip(cards, uses, strict=True), start=1):
        which = f"Network {number}" if len(cards) > 1 else "It"
        validation = card.training.get("validation_cases", 0)
        validated = f" and validated on {counted(int(validation), 'other volume')}" if validation else ""
        patients = _patients(use)
        yield f"{which} was trained on {counted(int(card.training.get('cases', 0)), 'volume')}{validated}{patients}."
        if card.start_text:
            yield f"{which} starts from {card.start_text}."
        yield from card.partly_texts


def _channels(card: Card) -> Iterator[str]:
    """The names of the channels; for one that has a number alone, the kind of its intensities if that is known."""
    for number, (name, intensity) in enumerate(zip(card.channels, card.plan.intensities, strict=True), start=1):
        if name.isdecimal():
            yield f"channel {number} ({'CT' if intensity.kind == 'ct' else 'not named'})"
        else:
            yield name


def _uses(files: ModelFiles) -> Sequence[Mapping[str, str]]:
    """The rows of `cases.csv`; none if there is no such file, or a damaged one."""
    if files.cases is None:
        return []
    with suppress(ModelError):
        return decode_csv(files.cases.read(), [], source=RunFolder.cases, error=ModelError, remedy="")
    return []


def _patients(rows: Sequence[Mapping[str, str]]) -> str:
    """The number of patients, where some have several volumes; they are never on both sides of the split."""
    used = [row for row in rows if row.get("use") in ("training", "validation")]
    groups = {row.get("group", "") for row in used}
    if not used or "" in groups:
        return ""
    if len(groups) == len(used):
        return ", each taken as a patient of its own"
    return f", split by patient ({counted(len(groups), 'patient')} in all)"


def _slices(card: Card) -> Iterator[str]:
    plan = card.plan
    yield scaling(card)
    spacing = " × ".join("each volume's own" if edge is None else f"{edge:.3g} mm" for edge in plan.spacing_mm)
    height, width = plan.window
    crops = "" if plan.crop is None else f" (in training {plan.crop[0]} × {plan.crop[1]})"
    seen = "each slice alone" if plan.context == 1 else f"each slice with {plan.context - 1} neighbours"
    views = f"{listed(plan.views)} slices" + (", whose probabilities were averaged" if len(plan.views) > 1 else "")
    yield (
        f"It sees {views} on a grid of {spacing} (right-left, front-back, feet-head), "
        f"in windows of {height} × {width} pixels{crops}, {seen}."
    )
    if plan.turns:
        angles = listed(f"{angle:g}°" for angle in plan.turns)
        yield f"It saw the part around what it found again, turned by {angles}; the probabilities were averaged."
    if max(plan.apart, default=1) > 1:
        steps = listed(f"{apart} ({view})" for view, apart in zip(plan.views, plan.apart, strict=True))
        yield f"It saw one slice in {steps}; between them its probabilities were interpolated linearly."
    if plan.own_statistics:
        yield (
            f"Each batch normalisation took {plan.own_statistics:.0%} of its statistics from the volume to be "
            "segmented (Schneider et al., NeurIPS 2020)."
        )
    network = card.settings.network
    if not network.monai and plan.widths:
        yield (
            f"The encoder ({network.encoder or network.preset}) has {counted(len(plan.widths), 'level')} of "
            f"{listed(plan.widths)} channels; its maps are fused"
            f"{'' if network.skips else ' nowhere'} by {'addition' if network.fusion == 'add' else 'concatenation'}."
        )


def scaling(card: Card) -> str:
    """How intensities were scaled; which channel in which way, where that differs."""
    channels: dict[str, list[str]] = {}
    for name, each in zip(card.channels, card.plan.intensities, strict=True):
        channels.setdefault(_SCALING[each.kind], []).append(name)
    if len(channels) == 1:
        return f"Intensities were {next(iter(channels))}."
    ways = (f"{listed(names)} {'was' if len(names) == 1 else 'were'} {way}" for way, names in channels.items())
    return f"Of the channels, {'; '.join(ways)}."


def _training(cards: Sequence[Card]) -> Iterator[str]:
    card = cards[0]
    training, augment = card.settings.training, card.settings.augment
    rates = listed(dict.fromkeys(_rate(each) for each in cards), separator=" or ")
    steps = listed(dict.fromkeys(str(each.training.get("steps", "?")) for each in cards), separator=" or ")
    yield (
        f"Training took {steps} steps of {card.plan.batch_size} slices with AdamW (weight decay "
        f"{training.weight_decay:g}; the learning rate {rates}) "
        f"on {_LOSSES[training.loss]}, with seed {card.training.get('seed', '?')}."
    )
    changes = [words.format(value) for name, words in _CHANGES.items() if (value := getattr(augment, name))]
    if changes:
        still = f"; {augment.still_share:.0%} of the slices were not turned, scaled, sheared or deformed"
        yield f"Slices were augmented by {listed(changes, limit=20)}{still if augment.still_share else ''}."
    if training.ema_decay:
        yield f"Weights are an exponential moving average (decay {training.ema_decay:g})."


def _rate(card: Card) -> str:
    """The course of the learning rate, in words; see `medfcn.training.schedule.learning_rate`."""
    training, steps = card.settings.training, card.training.get("steps")
    warmup, largest = training.warmup_steps, training.learning_rate or USUAL_RATE
    most = "" if training.learning_rate else "at most "
    if isinstance(steps, int) and steps <= warmup:
        reached = learning_rate(steps - 1, largest=largest, warmup_steps=warmup, total_steps=steps)
        return f"rises to {most}{reached:.3g} for all of its {counted(steps, 'step')}"
    if not warmup:
        return f"falls as a cosine from {most}{largest:g}"
    return f"rises to {most}{largest:g} in {counted(warmup, 'step')}, then falls as a cosine"


def _masks(card: Card) -> Iterator[str]:
    head = (
        "one probability for each label by itself" if len(card.labels.names) == 1 or card.labels.overlapping else ""
    )
    if head:
        chosen = "" if card.threshold is None else ", chosen on the validation volumes"
        yield f"A voxel belongs to a label from a probability of {card.foreground_from:.3g}{chosen}."
    if card.together:
        yield f"Only one component ({card.components}) of all labels together was kept."
    if card.one_part:
        kept = listed(card.labels.names[index - 1] for index in card.one_part)
        yield f"Only one component was kept ({card.components}) of {kept}."
    yield "Masks were made on each volume's own grid."


def _scores(cards: Sequence[Card]) -> Iterator[str]:
    if len(cards) > 1:
        return
    labels = cards[0].validation.get("labels")
    if not isinstance(labels, Mapping):
        return
    is_far_known = False
    parts: dict[str, None] = {}
    for name, label in labels.items():
        dice, hd95 = label.get("shares", {}).get("dice", {}), label.get("distances", {}).get("hd95_mm", {})
        mean, middle, worst = (_figure(dice.get(each), 3) or "–" for each in ("mean", "median", "worst"))
        partly = PartlyLabelled.recorded(label)
        is_of_misses = partly is not None and hd95.get("median") == "inf"  # the other volumes have no distance
        median = "" if is_of_misses else _figure(hd95.get("median"), 2)
        far = f" and a median HD95 of {median} mm" if median else ""
        is_far_known |= bool(median)
        yield (
            f"On the validation volumes {name} had a mean Dice of {mean} (median {middle}, worst {worst}; "
            f"n = {label.get('scored')}, missed {label.get('missed')}){far}."
        )
        if partly is not None:
            parts[f"Of these volumes, {partly.text(int(label.get('scored', 0)))}."] = None
    yield from parts
    if chosen := cards[0].chosen_on_validation:
        yield f"These volumes chose the {' and the '.join(chosen)}, so new ones may score lower."
    definitions = cards[0].validation.get("definitions")
    metrics = definitions.get("metrics", {}) if isinstance(definitions, Mapping) else {}
    if metrics.keys() >= {"dice", "hd95_mm"}:
        far = f"HD95 is {metrics['hd95_mm']}; " if is_far_known else ""
        yield f"Dice is {metrics['dice']}; {far}a miss has Dice 0{' and an infinite distance' if far else ''}."


def _figure(value: Any, digits: int) -> str:
    """A score; empty if it is not known."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return f"{value:.{digits}f}"
    return "∞" if value == "inf" else ""


def _versions(card: Card) -> Iterator[str]:
    known = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    yield f"Versions: {known}. {card.intended_use}"
