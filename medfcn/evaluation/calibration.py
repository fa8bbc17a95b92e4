"""Calibration of voxels: whether of those to which a model gives a probability of 0.8 four in five are of the label.

Voxels are put into ten bins by their probability. In a calibrated model the mean probability of a bin is the share
of its voxels that are of the label. The expected calibration error is the mean of the differences, weighted by the
voxels of the bins. Background far from an organ is easy, and most of every volume: it pulls the error of all voxels
towards 0. So the error is also given for the voxels within 3 mm of the border of the reference.

Source:
    Naeini, Cooper, Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015; Guo,
    Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017, equations 3 and 5, for one class.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import MedfcnError, MemoryShortError, VolumeError
from medfcn.evaluation.probability_files import probabilities_beside, uncertainty_beside
from medfcn.files import plain_json
from medfcn.labels.codec import IGNORED
from medfcn.labels.label_map import LabelMap
from medfcn.labels.sidecar import MaskRecord
from medfcn.runs.folder import ENTROPY
from medfcn.text import aligned, page
from medfcn.volumes import Volume, read_volume, require_same_grid
from medfcn.volumes.options import ReadOptions

BINS = 10
BORDER_MM = 3.0
PLACES = ("everywhere", "near the border")
_HOW = (
    f"Voxels of all cases together, in {BINS} bins of equal width by probability; the expected calibration error "
    "(ECE) is the mean difference between a bin's mean probability and its share of the label, weighted by voxels. "
    f"Near the border: within {BORDER_MM:g} mm of a voxel on the other side of the reference's border."
)
_BY_ENTROPY = (
    "Of {} of them the uncertainty alone is known: a probability is taken to be at least 0.5 in the mask and at most "
    "0.5 elsewhere. Their error looks smaller than it is, most of all where a part was removed from the mask."
)
_EVEN = 0.5
_STEPS = 1 << 14
"""Points between which the entropy of a probability is taken for a line."""
_SLACK = 1e-5


@dataclass(frozen=True)
class Bins:
    """Voxels by their probability.

    Attributes:
        voxels: Those of each bin.
        probability: Sum of their probabilities.
        present: How many of them are of the label.
    """

    voxels: NDArray[np.int64]
    probability: NDArray[np.float64]
    present: NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: NDArray[Any], is_label: NDArray[np.bool_]) -> "Bins":
        """Put voxels into bins; a probability on an edge goes to the bin above it, 1 to the last.

        Example:
            >>> bins = Bins.of(np.array([0.25, 0.25, 1.0, 0.9]), np.array([True, False, True, True]))
            >>> bins.voxels.tolist(), bins.present.tolist()
            ([0, 0, 2, 0, 0, 0, 0, 0, 0, 2], [0, 0, 1, 0, 0, 0, 0, 0, 0, 2])
            >>> round(bins.expected_error, 4)  # (|0.5 - 1| + |1.9 - 2|) / 4
            0.15
        """
        flat, truth = probabilities.reshape(-1).astype(np.float64), is_label.reshape(-1)
        place = np.minimum((flat * BINS).astype(np.int64), BINS - 1)
        return cls(
            np.bincount(place, minlength=BINS),
            np.bincount(place, weights=flat, minlength=BINS).astype(np.float64),
            np.bincount(place[truth], minlength=BINS),
        )

    def __add__(self, other: "Bins") -> "Bins":
        return Bins(self.voxels + other.voxels, self.probability + other.probability, self.present + other.present)

    @property
    def expected_error(self) -> float:
        """The expected calibration error; `nan` without voxels."""
        count = int(self.voxels.sum())
        return float(np.abs(self.probability - self.present).sum()) / count if count else math.nan

    def rows(self) -> list[dict[str, float]]:
        """The reliability table: bins that have voxels."""
        return [
            {
                "from": place / BINS,
                "to": (place + 1) / BINS,
                "voxels": int(self.voxels[place]),
                "mean_probability": float(self.probability[place] / self.voxels[place]),
                "share_of_label": float(self.present[place] / self.voxels[place]),
            }
            for place in np.flatnonzero(self.voxels).tolist()
        ]


OfLabel = tuple[Bins, Bins]
"""The voxels of a label everywhere, and those near its border."""


@dataclass(frozen=True)
class CaseBins:
    """The voxels of a case.

    Attributes:
        labels: By name; empty where nothing is known.
        is_by_entropy: True if the probabilities follow from the entropy and the mask.
    """

    labels: Mapping[str, OfLabel] = field(default_factory=dict)
    is_by_entropy: bool = False


@dataclass(frozen=True)
class Calibration:
    """The calibration of each label over some cases.

    Attributes:
        labels: By name.
        cases: Number of cases with probabilities or uncertainty.
        by_entropy: Number of these with uncertainty alone.
    """

    labels: Mapping[str, OfLabel]
    cases: int
    by_entropy: int = 0

    def errors(self) -> dict[str, tuple[float, float]]:
        """The expected calibration error of each label, everywhere and near the border."""
        return {name: (whole.expected_error, near.expected_error) for name, (whole, near) in self.labels.items()}

    def to_json(self) -> dict[str, Any]:
        """Values for a JSON file: NaN is `None`."""
        labels = {
            name: {
                place: {"expected_calibration_error": bins.expected_error, "bins": bins.rows()}
                for place, bins in zip(PLACES, pair, strict=True)
            }
            for name, pair in self.labels.items()
        }
        plain: dict[str, Any] = plain_json(
            {"definition": self.definition, "cases": self.cases, "by_entropy": self.by_entropy, "labels": labels}
        )
        return plain

    def to_text(self) -> str:
        """A table for a terminal."""
        rows: list[Sequence[str]] = [("label", *(f"ECE {place}" for place in PLACES))]
        rows += [(name, *(_shown(error) for error in pair)) for name, pair in self.errors().items()]
        return page([*aligned(rows, right=[1, 2]), self.definition])

    @property
    def definition(self) -> str:
        """The meaning of the figures, in words."""
        return f"{_HOW} {_BY_ENTROPY.format(self.by_entropy)}" if self.by_entropy else _HOW


def _shown(error: float) -> str:
    return "–" if math.isnan(error) else f"{error:.4f}"


def calibration_of(cases: Iterable[CaseBins]) -> Calibration | None:
    """The calibration over cases; None if none of them says anything."""
    known = [case for case in cases if case.labels]
    names = dict.fromkeys(name for case in known for name in case.labels)
    labels = {name: _summed(case.labels[name] for case in known if name in case.labels) for name in names}
    return Calibration(labels, len(known), sum(case.is_by_entropy for case in known)) if known else None


def _summed(pairs: Iterable[OfLabel]) -> OfLabel:
    whole, near = zip(*pairs, strict=True)
    return reduce(add, whole), reduce(add, near)


def bins_of_case(
    mask: Path,
    record: MaskRecord,
    prediction: Volume,
    reference: Volume,
    labels: LabelMap,
    options: ReadOptions,
) -> CaseBins:
    """The voxels of each label of a case by their probability.

    The probabilities are those that `predict --probabilities` wrote with the mask. Without them they follow from its
    uncertainty: the entropy says how sure the model is of a voxel, and the mask of what. That needs a mask that was
    decided at a probability of 0.5.

    Args:
        mask: The file of the mask.
        record: What is known of this very file.
        prediction: The mask, on the grid of the reference.
        reference: The mask of the reader.
        labels: The labels that are scored; those that overlap are left out.
        options: Of reading.

    Returns:
        Nothing where there are no files, or not those of this mask.
    """
    try:
        if record.labels is None or labels.overlapping or record.labels.overlapping:
            return CaseBins()
        paths, is_by_entropy = probabilities_beside(mask, record), False
        if not paths and record.threshold in (None, _EVEN):
            paths, is_by_entropy = uncertainty_beside(mask, record, ENTROPY), True
        files = dict(zip(record.labels.entries, paths, strict=True)) if paths else {}
        indices = labels.encode(reference.array, name=str(mask.name))
        result = {}
        for number, entry in enumerate(labels.entries, start=1):
            own = next((one for one in files if one.name == entry.name), None)
            if own is None:
                continue
            values = _shares_in(files[own], reference, options)
            if is_by_entropy:
                values = of_entropy(values, prediction.array == own.written)
            result[entry.name] = _two_places(values, indices == number, indices != IGNORED, reference)
    except MemoryShortError:
        raise
    except (MedfcnError, OSError):  # the mask is scored all the same
        return CaseBins()
    return CaseBins(result, is_by_entropy)


def _shares_in(path: Path, reference: Volume, options: ReadOptions) -> NDArray[np.float32]:
    """The probabilities or the entropy in a file, on the grid of a reference.

    Raises:
        VolumeError: They are not from 0 to 1.
    """
    shares = read_volume(path, options=options).reordered_to(reference)
    require_same_grid(reference, shares)
    values = shares.array.astype(np.float32, copy=False)
    if not (values.min() >= -_SLACK and values.max() <= 1 + _SLACK):
        raise VolumeError(f"{path.name}: expected values from 0 to 1", field="probabilities")
    return np.clip(values, 0, 1)


def of_entropy(bits: NDArray[np.float32], is_in_mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The probabilities whose entropy is known: at least 0.5 in the mask, at most 0.5 elsewhere.

    Example:
        >>> bits = np.array([1.0, 0.0, 0.0, 0.4689956], dtype=np.float32)
        >>> [f"{value:.3f}" for value in of_entropy(bits, np.array([True, True, False, False]))]
        ['0.500', '1.000', '0.000', '0.100']
    """
    lower = np.linspace(0, 0.5, _STEPS + 1) ** 2 * 2  # closer where the entropy rises steeply
    inner = lower[1:]
    entropy = np.concatenate([[0.0], -(inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner))])
    found = np.interp(bits, entropy, lower).astype(np.float32)
    return np.where(is_in_mask, 1 - found, found)


def _two_places(
    values: NDArray[np.float32], is_label: NDArray[np.bool_], is_known: NDArray[np.bool_], reference: Volume
) -> OfLabel:
    whole = Bins.of(values[is_known], is_label[is_known])
    box = _box_around(is_label, reference.spacing_mm)
    if box is None:
        return whole, Bins.of(values[:0], is_label[:0])
    near = near_border(is_label[box], reference.spacing_mm) & is_known[box]
    return whole, Bins.of(values[box][near], is_label[box][near])


def near_border(is_label: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    """The voxels within `BORDER_MM` of a voxel on the other side of a mask's border, from centre to centre.

    Example:
        >>> near_border(np.array([[[False] * 6 + [True] * 3]]), (1.0, 1.0, 1.0))[0, 0].astype(int).tolist()
        [0, 0, 0, 1, 1, 1, 1, 1, 1]
    """
    from scipy.ndimage import distance_transform_edt

    if not is_label.any() or is_label.all():
        return np.zeros_like(is_label)
    apart = np.where(
        is_label,
        distance_transform_edt(is_label, sampling=spacing_mm),
        distance_transform_edt(~is_label, sampling=spacing_mm),
    )
    near: NDArray[np.bool_] = apart <= BORDER_MM + _SLACK
    return near


def _box_around(is_label: NDArray[np.bool_], spacing_mm: Sequence[float]) -> tuple[slice, ...] | None:
    """A box around a mask with everything that is near its border."""
    box = []
    for axis, edge in enumerate(spacing_mm):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(is_label.any(axis=others))
        if not len(places):
            return None
        reach = math.ceil(BORDER_MM / edge) + 1
        box.append(slice(max(0, int(places[0]) - reach), int(places[-1]) + reach + 1))
    return tuple(box)
