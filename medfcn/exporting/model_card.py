"""`card.md`: the facts that a person should know of a model before it is used."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medfcn.evaluation.label_summary import PartlyLabelled
from medfcn.inference.card import Card
from medfcn.text import listed, printable

_WITHOUT_ABOUT = (
    "Not stated. Give it with `medfcn export --about FILE`: where the volumes come from, under which licence, and "
    "who drew the references."
)
_SHARES = (("dice", "Dice"), ("nsd", "NSD"))
_DISTANCES = (("hd95_mm", "HD95 mm"),)


def numbers_of(validation: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a summary without any case's id, which may travel with a model.

    Example:
        >>> numbers_of({"labels": {"a": {"shares": {"dice": {"mean": 0.9, "worst_case": "case_1"}}}}, "notes": ["b"]})
        {'labels': {'a': {'shares': {'dice': {'mean': 0.9}}}}}
    """
    kept = {name: validation[name] for name in ("interval",) if isinstance(validation.get(name), str)}
    labels = validation.get("labels")
    return {**kept, "labels": _figures(labels)} if isinstance(labels, Mapping) else kept


def _figures(table: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            kept[str(name)] = _figures(value)
        elif value == "inf" or value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            kept[str(name)] = value
    return kept


def model_card(
    name: str, cards: Sequence[Card], validation: Mapping[str, Any], about: str | None, *, chosen: Sequence[str]
) -> str:
    """The text of `card.md`.

    Args:
        name: Of the model.
        cards: Of each network.
        validation: The summary of the scores on cases that the networks were not trained on, as `summary.json`.
        about: Markdown on the data and their licence.
        chosen: What was chosen on the cases of these scores, such as `weights`.
    """
    first = cards[0]
    lines = [
        f"# {_plain(name)}",
        "",
        f"**{_plain(first.intended_use)}**",
        "",
        f"A 2D fully convolutional network of medfcn {_plain(str(first.versions.get('medfcn', '')))} that puts "
        f"masks of {_plain(listed(first.labels.names))} on volumes of {_channels(first)}"
        + (f"; the mean of {len(cards)} networks." if len(cards) > 1 else "."),
        "",
        "## Data and licence",
        "",
        (about or _WITHOUT_ABOUT).strip(),
        "",
        "## Split",
        "",
        *_split(cards),
        "",
        "## Scores",
        "",
        *_scores(validation, chosen),
        "",
        "## Use",
        "",
        "Predict with `medfcn predict MODEL VOLUMES -o MASKS`. Every mask needs a reader's eye. "
        f"{_plain(first.intended_use)}",
        "",
        "## Limits",
        "",
        *_limits(cards),
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text from a file, without what Markdown or HTML would act on."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#!" else letter for letter in printable(text))


def _channels(card: Card) -> str:
    names = _plain(listed(card.channels))
    return f"one channel ({names})" if len(card.channels) == 1 else f"{len(card.channels)} channels ({names})"


def _split(cards: Sequence[Card]) -> Iterator[str]:
    for number, card in enumerate(cards, start=1):
        facts = card.training
        which = f"Network {number}: " if len(cards) > 1 else ""
        known = {"cases": "trained on {} case", "validation_cases": "validated on {} other", "steps": "{} step"}
        said = [
            text.format(_plain(str(facts[key]))) + ("" if facts[key] == 1 else "s")
            for key, text in known.items()
            if key in facts
        ]
        start = f"; it starts from {_plain(card.start_text)}" if card.start_text else ""
        yield f"- {which}{', '.join(said) or 'not known'}{start}."
        yield from (f"- {which}{_plain(text)}" for text in card.partly_texts)


def _scores(validation: Mapping[str, Any], chosen: Sequence[str]) -> Iterator[str]:
    labels = validation.get("labels")
    if not isinstance(labels, Mapping) or not labels:
        yield "No case was left to score the model on."
        return
    yield "On cases that the scored network was not trained on; brackets hold the interval of the mean."
    yield ""
    yield "| label | cases | missed | " + " | ".join(title for _, title in (*_SHARES, *_DISTANCES)) + " |"
    yield "|---|---|---|" + "---|" * len((*_SHARES, *_DISTANCES))
    for name, label in labels.items():
        shares, distances = label.get("shares", {}), label.get("distances", {})
        fields = [_mean(shares.get(key)) for key, _ in _SHARES] + [_mean(distances.get(key)) for key, _ in _DISTANCES]
        yield f"| {_plain(name)} | {label.get('scored', '')} | {label.get('missed', '')} | {' | '.join(fields)} |"
    for name, label in labels.items():
        if partly := PartlyLabelled.recorded(label):
            yield ""
            yield f"{_plain(name)}: {_plain(partly.text(int(label.get('scored', 0))))}."
    if chosen:
        yield ""
        were = "was" if tuple(chosen) == ("threshold",) else "were"
        yield f"The {' and '.join(chosen)} {were} chosen on these cases, so new ones may score lower."
    if isinstance(validation.get("interval"), str):
        yield ""
        yield f"Intervals: {_plain(validation['interval'])}."


def _mean(score: object) -> str:
    if not isinstance(score, Mapping) or not isinstance(score.get("mean"), int | float):
        return str(score.get("mean") or "") if isinstance(score, Mapping) else ""
    low, high = score.get("mean_low"), score.get("mean_high")
    between = f" [{low:.3f}, {high:.3f}]" if isinstance(low, float) and isinstance(high, float) else ""
    return f"{score['mean']:.3f}{between}"


def _limits(cards: Sequence[Card]) -> Iterator[str]:
    seen = [card.fingerprint for card in cards if card.fingerprint is not None]
    if seen:
        cases = min(fingerprint.cases for fingerprint in seen)
        yield f"- It knows only volumes like the {'one' if cases == 1 else cases} it was trained on:"
        for axis, way in (("R", "right to left"), ("A", "front to back"), ("S", "head to feet")):
            spacing = [fingerprint.grid.get(f"spacing_{axis}") for fingerprint in seen]
            field = [fingerprint.grid.get(f"field_{axis}") for fingerprint in seen]
            if all(spacing) and all(field):
                parts = [
                    f"{min(span.lowest for span in spans if span):.3g} to "
                    f"{max(span.highest for span in spans if span):.3g} mm"
                    for spans in (spacing, field)
                ]
                yield f"  - {way}: voxels of {parts[0]}, a field of view of {parts[1]}."
        yield "- A volume unlike these is flagged; one that is much larger is refused, unless its part is given."
    else:
        yield "- Nothing is known of the volumes that it was trained on, so foreign ones are not flagged."
    yield "- Scores of other scanners, ages and diseases than those of the training are not known."
    yield "- It is not a medical device, and must not decide on a patient."
