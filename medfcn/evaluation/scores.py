"""Scores of one case: a prediction and its reference, label by label."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medfcn.evaluation.boundary import Boundary
from medfcn.evaluation.definitions import Definitions
from medfcn.evaluation.edges import voxels_at_ends
from medfcn.evaluation.lesions import count_lesions
from medfcn.evaluation.mask_pairs import edge_lengths, without_ignored
from medfcn.evaluation.overlap import VoxelCounts, count_labels, precision_in_averages
from medfcn.evaluation.scored_part import ScoredPart
from medfcn.evaluation.surface import (
    SurfaceDistances,
    boundary_voxels,
    label_surface_distances,
    surface_distances,
)
from medfcn.labels import IGNORED, LabelCodec, LabelMap
from medfcn.labels.codec import Bytes
from medfcn.labels.sparse_labels import count_labelled, is_partly_labelled
from medfcn.volumes import Volume, require_same_grid
from medfcn.volumes.formats.stored import of_one_value

Status = Literal["ok", "both_empty", "prediction_empty", "reference_empty", "prediction_missing", "partly_labelled"]
"""Which of the two masks contain a label; `prediction_empty` and `prediction_missing` are misses.

`partly_labelled` is `ok` in a case of which less than half is labelled.
"""

STATUSES: tuple[Status, ...] = get_args(Status)
MISSES: tuple[Status, ...] = ("prediction_empty", "prediction_missing")


@dataclass(frozen=True)
class LabelScores:
    """One row of `scores.csv`: one label of one case.

    Attributes:
        case: The case's id.
        label: The label's name.
        status: Which of the two masks contain the label.
        dice: 0 to 1; `nan` when both masks are empty, 0 when one is.
        iou: As `dice`.
        precision: 0 to 1; `nan` without a prediction.
        recall: 0 to 1; `nan` without a reference.
        specificity: 0 to 1; `nan` without a prediction file.
        reference_ml: Volume of the reference, in millilitres.
        prediction_ml: Volume of the prediction; `nan` without a prediction file.
        hd_mm: Hausdorff distance; `nan` when both masks are empty, `inf` when one is. The same holds for the next
            three.
        hd95_mm: 95th percentile of the Hausdorff distance.
        assd_mm: Average symmetric surface distance.
        masd_mm: Mean average surface distance.
        nsd: Normalised surface distance at the tolerance; 0 to 1, empty masks as in `dice`.
        volume_difference_ml: Prediction minus reference.
        volume_difference_percent: The same in percent of the reference; `nan` without one.
        true_positives: Voxels in both masks.
        false_positives: Voxels in the prediction only.
        false_negatives: Voxels in the reference only.
        diagonal_mm: Distance from corner to corner of the volume; the largest of the missed volumes is the penalty of
            a miss in a penalised mean.
        lesions: Lesions of the reference. `nan` unless lesions were counted; the same holds for the next two.
        lesions_found: Lesions that the prediction overlaps.
        lesions_false: Predicted components that overlap no lesion.
        reference_at_edges: Share of the reference's boundary voxels that are at an end of the volume; `nan` without
            any. It and the next are not in the file; the notes name those that are large.
        prediction_at_edges: The same of the prediction.
        labelled_voxels: Labelled voxels of a case of which less than half is labelled. All counts and overlaps are
            of these alone; distances, NSD and lesions are `nan` except in a miss or a false prediction, and volumes
            are `nan`. 0 in other cases. It and the next are in the file if any of its cases is such a case.
        voxels: All voxels of such a case; 0 in other cases.
    """

    case: str
    label: str
    status: Status
    dice: float
    iou: float
    precision: float
    recall: float
    specificity: float
    reference_ml: float
    prediction_ml: float
    hd_mm: float
    hd95_mm: float
    assd_mm: float
    masd_mm: float
    nsd: float
    volume_difference_ml: float = math.nan
    volume_difference_percent: float = math.nan
    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    diagonal_mm: float = math.nan
    lesions: float = math.nan
    lesions_found: float = math.nan
    lesions_false: float = math.nan
    reference_at_edges: float = math.nan
    prediction_at_edges: float = math.nan
    labelled_voxels: int = 0
    voxels: int = 0

    @property
    def is_partly_labelled(self) -> bool:
        """True if less than half of the case is labelled."""
        return self.voxels > 0

    @property
    def is_wholly_ignored(self) -> bool:
        """True if no voxel of the case is labelled, so that nothing is known of the label."""
        return self.is_partly_labelled and not self.labelled_voxels

    @property
    def is_scored(self) -> bool:
        """True if the row enters averages: always, except for `both_empty`."""
        return self.status != "both_empty"

    @property
    def is_miss(self) -> bool:
        """True if there is no prediction where one was needed."""
        return self.status in MISSES

    def counted(self, metric: str) -> float:
        """The value with which the row counts in averages: its own, but for the precision of a miss, which is 0."""
        value = float(getattr(self, metric))
        return precision_in_averages(value, is_miss=self.is_miss) if metric == "precision" else value


_Measured = tuple[SurfaceDistances, SurfaceDistances]
"""The distances of a label for the metrics in millimetres, and those for `nsd`."""


def score_case(
    prediction: Volume | None,
    reference: Volume,
    labels: LabelMap,
    *,
    case: str | None = None,
    tolerance_mm: float = 1.0,
    definitions: Definitions | None = None,
    prediction_codec: LabelCodec | None = None,
) -> tuple[LabelScores, ...]:
    """Score one case.

    Voxels that the reference ignores (`labels.ignored`) are neither right nor wrong and are not counted. A face
    towards one is no boundary. Where less than half of the case is labelled, nothing is measured that speaks of a
    whole organ. A label that overlaps others is scored whole.

    Args:
        prediction: The mask, in whole numbers: the `written` value of each label, or of each overlap. `None` when
            there is no mask, which is a miss of every label.
        reference: The reader's mask, in whole numbers: the `values` of each label, and the ignored values.
        labels: The labels to score.
        case: The case's id; the reference's name by default.
        tolerance_mm: For `nsd`.
        definitions: All settings at once, instead of `tolerance_mm`.
        prediction_codec: The meaning of the prediction's values, if medfcn did not write it with these labels.

    Returns:
        One row for each label, in the order of `labels`.

    Raises:
        GeometryMismatchError: The masks are not on one grid.
        LabelError: A mask contains unexpected values.
    """
    case = case if case is not None else reference.name
    definitions = definitions or Definitions(tolerance_mm=tolerance_mm)
    about = _AboutCase(case, reference.voxel_ml, _diagonal_mm(reference, definitions.boundary), definitions)
    part = encoded_pair(prediction, reference, labels, case=case, prediction_codec=prediction_codec)
    masks, labelled, voxels = part.masks, part.voxels, part.voxels
    counts = [part.whole(each) for each in count_labels(*masks, labels=len(labels.entries), members=labels.members)]
    ignored = None
    if labels.ignored and (labelled := part.whole_count(count_labelled(masks[0]))) < voxels:
        ignored, masks = masks[0] == IGNORED, without_ignored(*masks)
    is_partly = is_partly_labelled(labelled, voxels)
    measured: Sequence[_Measured | None] = [None] * len(labels.entries)
    shares: Sequence[tuple[float, float]] = [(math.nan, math.nan)] * len(labels.entries)
    if prediction is not None and is_partly:
        measured = [_unmeasured(of_label) for of_label in counts]
    elif prediction is not None:
        measured = _measured(masks, ignored, reference, labels, about.definitions)
        shares = _shares_at_edges(masks, ignored, labels, measured, about.definitions)
    rows = []
    every = zip(labels.names, counts, measured, shares, strict=True)
    for index, (name, of_label, distances, (first, second)) in enumerate(every, start=1):
        row = replace(about.row(name, of_label, distances), reference_at_edges=first, prediction_at_edges=second)
        if is_partly:
            row = _partly_labelled(row, labelled, voxels)
        elif about.definitions.lesions:
            lesions = count_lesions(*(labels.mask_of(mask, index) for mask in masks), ignored=ignored)
            row = replace(row, lesions=lesions.reference, lesions_found=lesions.found, lesions_false=lesions.false)
        rows.append(row)
    return tuple(rows)


def encoded_pair(
    prediction: Volume | None,
    reference: Volume,
    labels: LabelMap,
    *,
    case: str,
    prediction_codec: LabelCodec | None = None,
) -> ScoredPart:
    """The reference and the prediction as indices of labels on one grid, as far as they are not background in both.

    Without a prediction, it is background.
    """
    codec = (prediction_codec or labels.written_codec).without_ignored
    predicted = of_one_value(np.uint8(0), reference.shape)
    if prediction is not None:
        prediction = prediction.reordered_to(reference)
        require_same_grid(reference, prediction)
        predicted = prediction.array
    part = ScoredPart.of(reference.array, predicted)
    encoded = labels.encode(part.reference, name=f"{case} reference")
    if prediction is not None:
        labels.refuse_unnamed(part.prediction, codec, name=f"{case} prediction")
    return replace(part, reference=encoded, prediction=codec.encode(part.prediction))


def absent_row(row: LabelScores, label: str, definitions: Definitions) -> LabelScores:
    """The row of a label that neither mask of a case contains, from any other row of that case."""
    nothing = VoxelCounts(0, 0, 0, true_negatives=1)
    measured = None if row.status == "prediction_missing" else (_NOTHING, _NOTHING)
    absent = _AboutCase(row.case, 0.0, row.diagonal_mm, definitions).row(label, nothing, measured)
    if row.is_partly_labelled:
        return _partly_labelled(absent, row.labelled_voxels, row.voxels)
    return replace(absent, lesions=row.lesions * 0, lesions_found=row.lesions * 0, lesions_false=row.lesions * 0)


def _unmeasured(counts: VoxelCounts) -> _Measured:
    """The distances of a label in a case of which less than half is labelled: infinite if one mask lacks it."""
    distances = _INFINITE if bool(counts.reference) != bool(counts.prediction) else _NOTHING
    return distances, distances


def _partly_labelled(row: LabelScores, labelled: int, voxels: int) -> LabelScores:
    """The row of a case of which less than half is labelled: without volumes, which would be those of strokes."""
    status: Status = "partly_labelled" if row.status == "ok" else row.status
    row = replace(row, status=status, labelled_voxels=labelled, voxels=voxels, reference_ml=math.nan)
    return replace(row, prediction_ml=math.nan, volume_difference_ml=math.nan, volume_difference_percent=math.nan)


_Ignored = NDArray[np.bool_] | None
"""True for voxels that the reference ignores; `None` without any."""


def _measured(
    masks: tuple[Bytes, Bytes], ignored: _Ignored, reference: Volume, labels: LabelMap, definitions: Definitions
) -> list[_Measured]:
    """Measure every label of a reference and a prediction, given as indices."""
    grid = _grid_mm(reference)
    rules: dict[str, Any] = {"ignored": ignored, "boundary_at_edges": definitions.boundary_at_edges}

    def distances(boundary: Boundary) -> Sequence[SurfaceDistances]:
        if not labels.overlapping:
            return label_surface_distances(*masks, grid, labels=len(labels.entries), boundary=boundary, **rules)
        # The border of a label is not the border of its overlaps, so each label is measured as a whole.
        pairs = (tuple(labels.mask_of(mask, index + 1) for mask in masks) for index in range(len(labels.entries)))
        return [surface_distances(first, second, grid, boundary=boundary, **rules) for first, second in pairs]

    by_boundary = {boundary: distances(boundary) for boundary in {definitions.boundary, definitions.nsd_boundary}}
    return list(zip(by_boundary[definitions.boundary], by_boundary[definitions.nsd_boundary], strict=True))


def _shares_at_edges(
    masks: tuple[Bytes, Bytes],
    ignored: _Ignored,
    labels: LabelMap,
    measured: Sequence[_Measured],
    definitions: Definitions,
) -> list[tuple[float, float]]:
    """Share of the boundary voxels of each label at an end of the volume: of the reference, of the prediction."""
    values = len(labels.membership) - 1
    at_ends = [voxels_at_ends(mask, values) @ labels.membership for mask in masks]
    if definitions.boundary == "voxels" and definitions.boundary_at_edges:
        totals = [(each.reference_mm.size, each.prediction_mm.size) for each, _ in measured]
    elif not any(counts.any() for counts in at_ends):
        totals = [(1, 1)] * len(measured)
    elif labels.overlapping:
        wholes = ([labels.mask_of(mask, index + 1) for mask in masks] for index in range(len(measured)))
        totals = [boundary_voxels(*pair, labels=1, ignored=ignored)[0] for pair in wholes]
    else:
        totals = list(boundary_voxels(*masks, labels=len(measured), ignored=ignored))
    return [
        (first / max(total, 1), second / max(other, 1))
        for first, second, (total, other) in zip(*(counts.tolist() for counts in at_ends), totals, strict=True)
    ]


def _grid_mm(volume: Volume) -> NDArray[np.float64]:
    """The grid for distances: the spacing, or the full linear part of a sheared affine."""
    linear = np.asarray(volume.affine[:3, :3], dtype=np.float64)
    return linear if edge_lengths(linear) is None else np.asarray(volume.spacing_mm)


def _diagonal_mm(volume: Volume, boundary: str) -> float:
    """The longest distance in a volume: between centres of voxels, or between their corners for surface elements."""
    linear = np.asarray(volume.affine[:3, :3], dtype=np.float64)
    extent = np.asarray(volume.shape) - (boundary == "voxels")
    signs = np.array([(1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)])
    return float(np.linalg.norm((signs * extent) @ linear.T, axis=1).max())


@dataclass(frozen=True)
class _AboutCase:
    """Facts of a case that all its rows share."""

    case: str
    voxel_ml: float
    diagonal_mm: float
    definitions: Definitions

    def row(self, label: str, counts: VoxelCounts, measured: _Measured | None) -> LabelScores:
        """The row of one label; without distances the case has no prediction file, which is a miss."""
        is_missing = measured is None
        distances, surfaces = measured or (_INFINITE, _INFINITE)
        status: Status = "ok" if counts.prediction else "prediction_empty"
        if not counts.reference:
            status = "reference_empty" if counts.prediction else "both_empty"
        more = counts.prediction - counts.reference
        row = LabelScores(
            case=self.case,
            label=label,
            status=status,
            dice=counts.dice,
            iou=counts.iou,
            precision=counts.precision,
            recall=counts.recall,
            specificity=counts.specificity,
            reference_ml=counts.reference * self.voxel_ml,
            prediction_ml=counts.prediction * self.voxel_ml,
            hd_mm=distances.hausdorff_mm(),
            hd95_mm=distances.hausdorff_mm(percentile=95.0, pooled=self.definitions.pooled_hd95),
            assd_mm=distances.assd_mm(),
            masd_mm=distances.masd_mm(),
            nsd=surfaces.nsd(tolerance_mm=self.definitions.tolerance_mm),
            volume_difference_ml=counts.prediction * self.voxel_ml - counts.reference * self.voxel_ml,
            volume_difference_percent=100 * more / counts.reference if counts.reference else math.nan,
            true_positives=counts.true_positives,
            false_positives=counts.false_positives,
            false_negatives=counts.false_negatives,
            diagonal_mm=self.diagonal_mm,
        )
        return replace(row, **_MISSING) if is_missing else row


# One boundary element without a counterpart: all its distances are infinite.
_INFINITE = SurfaceDistances(np.array([math.inf]), np.empty(0), np.ones(1), np.empty(0), "voxels")
_NOTHING = SurfaceDistances(*(np.empty(0),) * 4, "voxels")
_MISSING: dict[str, Any] = {
    "status": "prediction_missing",
    "dice": 0.0,
    "iou": 0.0,
    "specificity": math.nan,
    "prediction_ml": math.nan,
    "volume_difference_ml": math.nan,
    "volume_difference_percent": math.nan,
}
"""The values of a row without a prediction file, whatever its reference contains."""
