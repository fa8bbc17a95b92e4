"""Histograms of a data set as SVG: intensities of a channel over all cases, and counts of names."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medfcn.reporting.charts import Chart, nice_ticks
from medfcn.volumes import Volume

_QUANTILES = np.linspace(0, 100, 201)
_SAMPLE = 20_000
_BINS = 40


def quantiles_of(volume: Volume) -> NDArray[np.float64]:
    """201 quantiles of an image's intensities, from a sample of its finite voxels; empty if there is none."""
    step = max(1, math.ceil((volume.array.size / _SAMPLE) ** (1 / 3)))
    values = volume.array[::step, ::step, ::step].astype(np.float64).reshape(-1)
    values = values[np.isfinite(values)]
    return np.percentile(values, _QUANTILES) if values.size else np.zeros(0)


def intensity_chart(cases: Sequence[NDArray[np.float64]], title: str) -> str:
    """The intensities of all cases together; each case counts alike.

    Args:
        cases: The quantiles of each case.
        title: The name of the channel.

    Returns:
        An `<svg>` element; the rarest 1 % of the intensities are in the outer bins. Empty without any intensity.
    """
    pooled = np.concatenate([np.zeros(0), *cases])
    if not pooled.size:
        return ""
    low, high = np.percentile(pooled, (0.5, 99.5))
    if not high > low:
        low, high = low - 0.5, low + 0.5
    counts, edges = np.histogram(pooled.clip(low, high), bins=_BINS, range=(low, high))
    percents = 100 * counts / pooled.size
    chart = Chart(440, 220, title=title, columns=("from", "to", "percent of voxels"))
    ticks_x, ticks_y = nice_ticks(float(low), float(high)), nice_ticks(0.0, float(percents.max()))
    place_x, place_y = chart.scale_x(ticks_x[0], ticks_x[-1]), chart.scale_y(0.0, ticks_y[-1])
    chart.ticks_x(ticks_x, place_x, title)
    chart.ticks_y(ticks_y, place_y, "% of voxels")
    for start, end, percent in zip(edges[:-1], edges[1:], percents, strict=True):
        x, width = place_x(float(start)), place_x(float(end)) - place_x(float(start))
        words = f"{start:.4g} to {end:.4g}: {percent:.3g} % of voxels"
        chart.bar(x, place_y(float(percent)), width, place_y(0.0), words, (float(start), float(end), float(percent)))
    return str(chart)


def count_chart(counts: Mapping[str, int], title: str) -> str:
    """How many cases have each name, as bars."""
    chart = Chart(440, 60 + 26 * len(counts), title=title, columns=(title, "cases"), left=70)
    ticks = sorted({round(tick) for tick in nice_ticks(0.0, float(max(counts.values())))})
    place = chart.scale_x(ticks[0], ticks[-1])
    chart.ticks_x(ticks, place, f"{title}: cases")
    for number, (name, count) in enumerate(counts.items()):
        top = 16.0 + 26 * number
        chart.text(chart.left - 6, top + 13, name, "tick end")
        chart.bar(chart.left, top, place(count) - chart.left, top + 18, f"{name}: {count}", (name, count))
    return str(chart)
