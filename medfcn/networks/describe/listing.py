"""Networks as text for a terminal."""

from collections.abc import Sequence

from medfcn.networks.describe.stages import NetworkSummary
from medfcn.text import aligned, counted, page

_COUNTING = (
    "Mult.-adds: multiply-adds of convolutions, for one slice with the padding done inside. Strides: of the "
    "encoder's levels; fused: of those that are fused. Field: the receptive field, edge in pixels of the square "
    "that can change one logit; one larger than the slice sees as much as there is."
)


def overview_text(summaries: Sequence[NetworkSummary]) -> str:
    """A row for each network, and the meaning of the figures below."""
    rows = [("preset", "parameters", "mult.-adds", "strides", "fused", "field")]
    rows += [
        (
            summary.name,
            f"{summary.parameters:,}",
            short_number(summary.multiply_adds),
            " ".join(map(str, summary.encoder_strides)),
            " ".join(map(str, summary.fused_strides)),
            str(summary.receptive_field),
        )
        for summary in summaries
    ]
    first = summaries[0]
    given = f"A slice of {shape_text(first.channels_in, first.size)}; {counted(first.channels_out, 'logit')} a pixel."
    return page([*aligned(rows, right=(1, 2, *range(5, len(rows[0])))), "", given, _COUNTING])


def network_text(summary: NetworkSummary) -> str:
    """A row for each stage of a network, the totals, and the meaning of the figures below."""
    rows = [("stage", "made of", "stride", "map", "parameters", "mult.-adds")]
    rows += [
        (
            stage.name,
            ", ".join(stage.made_of),
            str(stage.stride),
            shape_text(stage.channels, stage.size),
            f"{stage.parameters:,}",
            short_number(stage.multiply_adds),
        )
        for stage in summary.stages
    ]
    rows.append((summary.name, "", "", "", f"{summary.parameters:,}", short_number(summary.multiply_adds)))
    padded = "" if summary.padded == summary.size else f", padded to {size_text(summary.padded)}"
    logits = counted(summary.channels_out, "logit")
    given = (
        f"A slice of {shape_text(summary.channels_in, summary.size)}{padded}; {logits} a pixel, "
        f"receptive field {size_text([summary.receptive_field] * 2)}."
    )
    return page([*aligned(rows, right=range(2, len(rows[0])), prose=[1]), "", given, _COUNTING])


def shape_text(channels: int, size: Sequence[int]) -> str:
    """Channels, rows and columns of a map.

    Example:
        >>> shape_text(64, (256, 192))
        '64 × 256 × 192'
    """
    return f"{channels} × {size_text(size)}"


def size_text(size: Sequence[int]) -> str:
    """Rows and columns, such as `256 × 192`."""
    return " × ".join(map(str, size))


def short_number(count: int) -> str:
    """A count in thousands, millions or thousand millions, to three digits.

    Example:
        >>> short_number(15_346_630_656), short_number(512), short_number(999_999)
        ('15.3 G', '512', '1.00 M')
    """
    value, unit = float(count), ""
    for larger in ("k", "M", "G", "T", "P"):
        if value < 999.5:
            break
        value, unit = value / 1000, f" {larger}"
    if not unit:
        return str(count)
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
