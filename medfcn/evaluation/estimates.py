"""Means, quantiles and intervals of the values of many cases; a missed case is infinite.

Several cases of one patient are no independent evidence. Where patients are stated, a resample takes patients, each
with all their cases.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES, _SEED, _CONFIDENCE = 2000, 20_190_710, 0.95

FEWEST = 5
"""Fewer values, or patients, give no interval: resampling two cases would only give values between them."""

_TAILS = ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2)
_HOW = f"{_RESAMPLES} resamples, seed {_SEED}"

INTERVAL = f"{_CONFIDENCE:.0%} percentile bootstrap of {FEWEST} cases or more, {_HOW}"
"""Definition of the intervals, in words."""
OVER_PATIENTS = (
    f"{_CONFIDENCE:.0%} percentile bootstrap of {FEWEST} patients or more, {_HOW}; a resample takes patients, each "
    "with all their cases"
)
"""The same where patients have several cases."""

Vector = NDArray[np.float64]


def mean_of(values: Vector) -> float:
    """The mean, infinite when any value is; `nan` without values."""
    if not values.size:
        return math.nan
    return math.fsum(values) / values.size


def order_statistic(values: Vector, share: float) -> float:
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


def _draws(random: np.random.Generator, count: int) -> Iterator[NDArray[np.int32]]:
    """Places of resampled values, `(resamples, count)` at a time; the same for the same count."""
    block = max(1, 500_000 // count)
    for start in range(0, _RESAMPLES, block):
        yield random.integers(0, count, size=(min(block, _RESAMPLES - start), count), dtype=np.int32)


def _interval(statistics: Sequence[Vector]) -> tuple[float, float]:
    """Both ends of the interval of a statistic, from its values in all resamples."""
    ordered = np.sort(np.concatenate(statistics))
    low, high = (order_statistic(ordered, tail) for tail in _TAILS)
    return low, high


def bootstrap_intervals(values: Vector, patients: Sequence[str] = ()) -> tuple[float, float, float, float]:
    """95 % percentile bootstrap intervals of the mean and of the median.

    Args:
        values: Ascending and finite.
        patients: The patient of each value; without them each value is one of its own.

    Returns:
        Lower and upper end for the mean, and for the median; always the same for the same values. All `nan` for
        fewer than five values, or patients.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; of clusters: Davison and Hinkley,
        Bootstrap Methods and their Application, 1997, section 3.8.

    Example:
        >>> bootstrap_intervals(np.full(5, 0.5))
        (0.5, 0.5, 0.5, 0.5)
        >>> bootstrap_intervals(np.full(5, 0.5), ["P1", "P1", "P2", "P2", "P3"])
        (nan, nan, nan, nan)
    """
    if len(set(patients)) < len(patients):
        return _cluster_intervals(values, patients)
    if values.size < FEWEST:
        return (math.nan,) * 4
    means, medians = [], []
    count = values.size
    for places in _draws(np.random.default_rng(_SEED), count):
        means.append(values[places].mean(axis=1))
        # The values ascend, so the median of the values is the value at the median of the places.
        middle = np.partition(places, ((count - 1) // 2, count // 2), axis=1)
        medians.append((values[middle[:, (count - 1) // 2]] + values[middle[:, count // 2]]) / 2)
    return *_interval(means), *_interval(medians)


@dataclass(frozen=True)
class _Clusters:
    """Values by patient.

    Attributes:
        of_value: `(n,)` number of the patient of each value.
        sums: `(patients,)` sum of each patient's values.
        sizes: `(patients,)` their number.
    """

    of_value: NDArray[np.int64]
    sums: Vector
    sizes: Vector

    @classmethod
    def of(cls, values: Vector, patients: Sequence[str]) -> "_Clusters":
        """Patients in the order of their names."""
        names, of_value = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
        sums, sizes = (np.bincount(of_value, weights=part, minlength=names.size) for part in (values, None))
        return cls(of_value, np.asarray(sums, np.float64), np.asarray(sizes, np.float64))

    def by_mean(self) -> "_Clusters":
        """Patients in the order of their means, so that names do not matter."""
        order = np.lexsort((self.sizes, self.sums / self.sizes))
        return _Clusters(np.argsort(order)[self.of_value], self.sums[order], self.sizes[order])

    def means(self, places: NDArray[np.int32]) -> Vector:
        """The mean of all values of the resampled patients, for each resample."""
        return np.asarray(self.sums[places].sum(axis=1) / self.sizes[places].sum(axis=1))


def _cluster_intervals(values: Vector, patients: Sequence[str]) -> tuple[float, float, float, float]:
    """The intervals where patients have several values."""
    clusters = _Clusters.of(values, patients).by_mean()
    count = clusters.sums.size
    if count < FEWEST:
        return (math.nan,) * 4
    means, medians = [], []
    for places in _draws(np.random.default_rng(_SEED), count):
        means.append(clusters.means(places))
        # How often each value is in a resample; the values ascend, so the middle ones are found by counting.
        rows = np.arange(len(places))[:, np.newaxis] * count
        often = np.bincount((places + rows).reshape(-1), minlength=places.size).reshape(places.shape)
        upto = often[:, clusters.of_value].cumsum(axis=1)
        low, high = (upto[:, -1:] - 1) // 2, upto[:, -1:] // 2
        medians.append((values[(upto <= low).sum(axis=1)] + values[(upto <= high).sum(axis=1)]) / 2)
    return *_interval(means), *_interval(medians)


def mean_interval(values: Vector, patients: Sequence[str]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean; that of the negative values is its mirror image.

    Args:
        values: Finite.
        patients: The patient of each value.

    Returns:
        Both ends; `nan` for fewer than five patients.
    """
    clusters = _Clusters.of(values, patients)
    if clusters.sums.size < FEWEST:
        return math.nan, math.nan
    random = np.random.default_rng(_SEED)
    return _interval([clusters.means(places) for places in _draws(random, clusters.sums.size)])


def gap_interval(
    first: Vector, of_first: Sequence[str], second: Vector, of_second: Sequence[str]
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the difference between the means of two groups of cases.

    Patients with cases in one group, in the other and in both are resampled apart: two groups of different patients
    vary on their own, and two images of the same patients together.

    Args:
        first: Values of the first group, finite.
        of_first: The patient of each.
        second: Those of the second group.
        of_second: The patient of each.

    Returns:
        Both ends of first minus second; `nan` if a group has fewer than five patients.
    """
    if min(len(set(of_first)), len(set(of_second))) < FEWEST:
        return math.nan, math.nan
    values, in_first = np.concatenate((first, second)), np.arange(first.size + second.size) < first.size
    _, place = np.unique(np.asarray([*of_first, *of_second], dtype=np.str_), return_inverse=True)
    # A row for the sum and one for the number of each patient's values, in the first group and in the second.
    parts = (values * in_first, in_first, values * ~in_first, ~in_first)
    table = np.stack([np.bincount(place, weights=part) for part in parts])
    random = np.random.default_rng(_SEED)
    total = np.zeros((len(table), _RESAMPLES))
    kinds = (table[1] > 0) + 2 * (table[3] > 0)
    for kind in np.unique(kinds):
        pool = table[:, kinds == kind]
        pool = pool[:, np.lexsort(pool)]
        total += np.concatenate([pool[:, places].sum(axis=2) for places in _draws(random, pool.shape[1])], axis=1)
    return _interval([total[0] / total[1] - total[2] / total[3]])
