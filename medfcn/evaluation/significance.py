"""Tests of paired differences: Wilcoxon's signed-rank test, over patients, and Holm's correction for many tests."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Number of cases up to which the test is exact, without ties and with ties; the same numbers as in scipy.
_EXACT, _EXACT_TIED = 50, 13


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P values corrected for their number, step by step from the smallest; `nan` stays, and counts as no test.

    Source:
        Holm, Scandinavian Journal of Statistics 6(2), 1979.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]
    """
    places = sorted((place for place, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__)
    corrected = [math.nan] * len(p_values)
    least = 0.0
    for done, place in enumerate(places):
        least = max(least, min(1.0, (len(places) - done) * p_values[place]))
        corrected[place] = least
    return tuple(corrected)


def least_corrected_p(patients: int, tests: int) -> float:
    """The smallest p that a signed-rank test of so many patients can have after Holm's correction for so many tests.

    Of the `2 ** patients` ways to give the ranks a sign, the two in which all signs are the same are the farthest
    from even.

    Args:
        patients: Those of the test with the most, of which each differs.
        tests: Number of tests.

    Example:
        >>> least_corrected_p(8, 12), least_corrected_p(3, 12)
        (0.09375, 1.0)
    """
    return min(1.0, tests * 2.0 ** (1 - patients))


def patient_changes(changes: NDArray[np.float64], patients: Sequence[str]) -> NDArray[np.float64]:
    """The mean change of each patient.

    An infinite change is one miss more or less: the one with more of them decides, and as many of both are no change.

    Example:
        >>> changes = np.array([0.1, 0.3, np.inf, -np.inf, 0.5, -np.inf])
        >>> patient_changes(changes, ["P1", "P1", "P2", "P2", "P2", "P3"]).tolist()
        [0.2, 0.5, -inf]
    """
    by_patient: dict[str, list[float]] = {}
    for patient, change in zip(patients, changes.tolist(), strict=True):
        by_patient.setdefault(patient, []).append(change)
    means = []
    for of_patient in by_patient.values():
        finite = [change for change in of_patient if math.isfinite(change)]
        misses = sum((change > 0) - (change < 0) for change in of_patient if math.isinf(change))
        mean = math.fsum(finite) / len(finite) if finite else 0.0
        means.append(math.copysign(math.inf, misses) if misses else mean)
    return np.array(means)


def signed_rank_p(changes: NDArray[np.float64]) -> float:
    """Wilcoxon's p-value. Only ranks count, so an infinite change is simply the largest."""
    if not changes.size:
        return math.nan
    finite = np.abs(changes[np.isfinite(changes)])
    largest = 2 * float(finite.max()) + 1 if finite.size else 1.0
    # 13 digits: differences that are equal on paper must tie.
    changes = np.asarray(np.round(np.clip(changes, -largest, largest), 13), dtype=np.float64)
    changes = changes[changes != 0]
    if not changes.size:
        return 1.0
    has_ties = np.unique(np.abs(changes)).size < changes.size
    if changes.size <= (_EXACT_TIED if has_ties else _EXACT):
        return _exact_signed_rank_p(changes)
    from scipy.stats import wilcoxon

    return float(wilcoxon(changes, method="approx").pvalue)


def _exact_signed_rank_p(changes: NDArray[np.float64]) -> float:
    """Share of all ways to give the ranks a sign whose sum is at least as far from even; ties included."""
    from scipy.stats import rankdata

    # Tied ranks may be halves; twice the rank is a whole number. `ways[s]` is the number of ways to reach the sum s.
    ranks = np.rint(2 * rankdata(np.abs(changes))).astype(int)
    ways: NDArray[np.float64] = np.ones(1)
    for rank in ranks:
        longer = np.zeros(ways.size + rank)
        longer[: ways.size] += ways
        longer[rank:] += ways
        ways = longer
    positive = int(ranks[changes > 0].sum())
    total = 2.0**changes.size
    return float(min(1.0, 2 * min(ways[: positive + 1].sum(), ways[positive:].sum()) / total))
