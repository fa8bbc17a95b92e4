"""Means, quantiles and intervals of the values of many cases; a missed case is infinite."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["INTERVAL", "bootstrap_intervals", "mean_of", "order_statistic"]

_RESAMPLES, _SEED, _CONFIDENCE = 2000, 20_190_710, 0.95

_FEWEST = 5
"""Fewer values give no interval: resampling two cases would only give values between them."""

INTERVAL = f"{_CONFIDENCE:.0%} percentile bootstrap of {_FEWEST} cases or more, {_RESAMPLES} resamples, seed {_SEED}"
"""Definition of the intervals, in words."""


def mean_of(values: NDArray[np.float64]) -> float:
    """The mean, infinite when any value is; `nan` without values."""
    if not values.size:
        return math.nan
    return math.fsum(values) / values.size


def order_statistic(values: NDArray[np.float64], share: float) -> float:
    """A quantile by linear interpolation between order statistics, with infinity as the largest number.

    Between a finite and an infinite value the result is infinity, never `nan`.

    Args:
        values: Ascending, without `nan`.
        share: In `[0, 1]`.

    Example:
        >>> values = np.array([1.0, 2.0, 4.0, np.inf])
        >>> [order_statistic(values, share) for share in (0.25, 0.5, 0.75)]
        [1.75, 3.0, inf]
    """
    if not values.size:
        return math.nan
    place = (values.size - 1) * share
    low = math.floor(place)
    below, above = float(values[low]), float(values[min(low + 1, values.size - 1)])
    if place == low or below == above:
        return below
    return below + (above - below) * (place - low)


def bootstrap_intervals(values: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """95 % percentile bootstrap intervals of the mean and of the median.

    Args:
        values: Ascending and finite.

    Returns:
        Lower and upper end for the mean, and for the median; always the same for the same values. All `nan` for
        fewer than five values.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Example:
        >>> bootstrap_intervals(np.full(5, 0.5))
        (0.5, 0.5, 0.5, 0.5)
    """
    if values.size < _FEWEST:
        return (math.nan,) * 4
    random = np.random.default_rng(_SEED)
    count = values.size
    block = max(1, 500_000 // count)
    means, medians = [], []
    for start in range(0, _RESAMPLES, block):
        # (resamples, cases) places of the resampled values.
        places = random.integers(0, count, size=(min(block, _RESAMPLES - start), count), dtype=np.int32)
        means.append(values[places].mean(axis=1))
        # The values ascend, so the median of the values is the value at the median of the places.
        middle = np.partition(places, ((count - 1) // 2, count // 2), axis=1)
        medians.append((values[middle[:, (count - 1) // 2]] + values[middle[:, count // 2]]) / 2)
    tails = ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2)
    ordered = [np.sort(np.concatenate(parts)) for parts in (means, medians)]
    mean_low, mean_high, median_low, median_high = (
        order_statistic(statistics, tail) for statistics in ordered for tail in tails
    )
    return mean_low, mean_high, median_low, median_high
