"""The colours of labels: one palette for tables, reports and pictures, which every kind of colour vision can use.

Source:
    Okabe, Ito, Color Universal Design, 2008 (jfly.uni-koeln.de/color).
"""

import re
from collections.abc import Mapping, Sequence

from medfcn.errors import SettingsError
from medfcn.labels.label_map import LabelMap
from medfcn.text import did_you_mean
from medfcn.volumes.formats.nifti_labels import TableLabel

REFERENCE, PREDICTION = "#E69F00", "#56B4E9"
"""The colours of the two masks of a single label."""
PALETTE = (REFERENCE, PREDICTION, "#009E73", "#F0E442", "#CC79A7", "#0072B2", "#D55E00", "#BBBBBB")
"""The colours of several labels, in their order."""
_TINTS = ((0, 0.0), (255, 0.45), (0, 0.4), (255, 0.7), (0, 0.65))
"""Further labels take the same colours, mixed with white or black."""
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")

Colours = Mapping[str, str]
"""Colours by the name of a label, as `#E69F00`."""


def palette_colour(place: int) -> str:
    """The colour of the label at a place, from 0.

    Example:
        >>> palette_colour(0), palette_colour(8)
        ('#E69F00', '#F1CA73')
    """
    lap, at = divmod(place, len(PALETTE))
    towards, share = _TINTS[lap % len(_TINTS)]
    parts = (round(part + (towards - part) * share) for part in bytes.fromhex(PALETTE[at][1:]))
    return f"#{bytes(parts).hex().upper()}"


def parse_colours(text: str) -> dict[str, str]:
    """Read `NAME=#RRGGBB,...`.

    Raises:
        SettingsError: The text is not of that form.

    Example:
        >>> parse_colours("organ=#e69f00, lesion=#56B4E9")
        {'organ': '#E69F00', 'lesion': '#56B4E9'}
    """
    chosen: dict[str, str] = {}
    for part in text.split(","):
        name, _, colour = (piece.strip() for piece in part.rpartition("="))
        if not name or _COLOUR.fullmatch(colour) is None:
            raise SettingsError(
                f"colours: {part.strip()!r} is not NAME=#RRGGBB; write for example organ=#E69F00,lesion=#56B4E9",
                field="colours",
            )
        chosen[name] = colour.upper()
    return chosen


def colours_of(given: Colours | str | None, labels: LabelMap) -> dict[str, str]:
    """Colours from text or a mapping, for labels that exist.

    Raises:
        SettingsError: A label or a colour is unknown.
    """
    if not given:
        return {}
    chosen = parse_colours(given if isinstance(given, str) else ",".join(f"{k}={v}" for k, v in given.items()))
    for name in chosen:
        if name not in labels.names:
            raise SettingsError(
                f"colours: no label is named {name!r}{did_you_mean(name, labels.names)}",
                field="colours",
            )
    return chosen


def names_coloured(names: Sequence[str], parts: Sequence[Sequence[str]], chosen: Colours) -> list[tuple[str, str]]:
    """The colours of the reference and of the prediction of each thing that masks contain.

    Args:
        names: Their names: labels, or overlaps.
        parts: The labels that each consists of; the last of them whose colour is chosen gives it.
        chosen: Chosen colours.
    """
    found = []
    for place, name in enumerate(names):
        own = [chosen[part] for part in (*parts[place], name) if part in chosen]
        if len(names) == 1:
            found.append((REFERENCE, own[-1] if own else PREDICTION))
        else:
            colour = own[-1] if own else palette_colour(place)
            found.append((colour, colour))
    return found


def label_table(labels: LabelMap, chosen: Colours | None = None) -> tuple[TableLabel, ...]:
    """The values of masks that medfcn writes, with names and colours.

    Example:
        >>> label_table(LabelMap.parse("organ=1"))
        (TableLabel(value=1, name='organ', colour='#56B4E9'),)
        >>> [label.name for label in label_table(LabelMap.parse("whole=1+2,core=2"), {"core": "#FF0000"})]
        ['whole', 'whole + core']
    """
    overlaps = labels.overlaps
    parts = [[labels.names[index - 1] for index in overlap.labels] for overlap in overlaps]
    colours = names_coloured([overlap.name for overlap in overlaps], parts, chosen or {})
    return tuple(
        TableLabel(overlap.written, overlap.name, colour)
        for overlap, (_, colour) in zip(overlaps, colours, strict=True)
    )
