"""The scores of one case: a prediction and its reference, label by label.

What every number means is a `Definitions`, which travels with the numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError, SettingsError
from medfcn.evaluation.lesions import count_lesions
from medfcn.evaluation.mask_pairs import edge_lengths, without_ignored
from medfcn.evaluation.overlap import VoxelCounts, count_labels
from medfcn.evaluation.surface import Boundary, SurfaceDistances, label_surface_distances, surface_distances
from medfcn.labels import LabelMap
from medfcn.labels.values import is_any_of, parts_of_labels, places_of, values_of, written_values
from medfcn.volumes import Volume, require_same_grid

__all__ = ["Definitions", "LabelScores", "Status", "score_case"]

Status = Literal["ok", "both_empty", "prediction_empty", "reference_empty", "prediction_missing"]
"""What was there to compare; `prediction_empty` and `prediction_missing` are misses."""

STATUSES: tuple[Status, ...] = get_args(Status)
MISSES: tuple[Status, ...] = ("prediction_empty", "prediction_missing")

_BOUNDARY_WORDS: dict[Boundary, str] = {
    "voxels": "foreground voxels with a face neighbour in the background, outside the image is background, "
    "centre to centre",
    "elements": "marching-cubes surface elements at voxel corners, weighted by their area",
}


@dataclass(frozen=True)
class Definitions:
    """What the distances mean; stamped on everything that shows them.

    Attributes:
        tolerance_mm: How far apart two surfaces may be and still count as together in `nsd`.
        boundary: What `hd_mm`, `hd95_mm`, `assd_mm` and `masd_mm` are measured between.
        nsd_boundary: What `nsd` is measured between.
        pooled_hd95: One 95th percentile over both directions together, instead of the larger of the two.
        lesions: Also count lesions (components): for scattered targets.

    Raises:
        SettingsError: The tolerance is not a length.

    Example:
        >>> Definitions(tolerance_mm=2.0, boundary="elements", pooled_hd95=True).short()
        'NSD within 2 mm (surface elements); HD95 one pooled percentile, ASSD pooled (surface elements)'
    """

    tolerance_mm: float = 1.0
    boundary: Boundary = "voxels"
    nsd_boundary: Boundary = "elements"
    pooled_hd95: bool = False
    lesions: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance_mm) and self.tolerance_mm >= 0):
            raise SettingsError(f"tolerance_mm: found {self.tolerance_mm}; expected 0 or a positive length")
        for name in ("boundary", "nsd_boundary"):
            if getattr(self, name) not in get_args(Boundary):
                raise SettingsError(f"{name}: found {getattr(self, name)!r}; expected 'voxels' or 'elements'")

    def short(self) -> str:
        """One line for the foot of a table."""
        words: dict[Boundary, str] = {"voxels": "voxel boundary", "elements": "surface elements"}
        hd95 = "one pooled percentile" if self.pooled_hd95 else "the larger directed percentile"
        return (
            f"NSD within {self.tolerance_mm:g} mm ({words[self.nsd_boundary]}); "
            f"HD95 {hd95}, ASSD pooled ({words[self.boundary]})"
        )

    def to_json(self) -> dict[str, object]:
        """The settings, and every metric's definition in words."""
        percentile = (
            "the 95th percentile of both directions' distances together"
            if self.pooled_hd95
            else "the larger of the two directed 95th percentiles"
        )
        interpolation = (
            "linear interpolation"
            if self.boundary == "voxels"
            else "the first distance whose cumulative share of the surface reaches 95 %"
        )
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "metrics": {
                "dice": "2 TP / (2 TP + FP + FN), voxels",
                "iou": "TP / (TP + FP + FN), voxels",
                "precision": "TP / (TP + FP), voxels; none without a prediction",
                "recall": "TP / (TP + FN), voxels; none without a reference",
                "specificity": "TN / (TN + FP), voxels of the whole volume",
                "hd_mm": "the largest distance from either boundary to the other",
                "hd95_mm": f"{percentile}, {interpolation}",
                "assd_mm": "the mean distance over both boundaries together",
                "masd_mm": "the mean of the two directed mean distances",
                "nsd": f"the share of both boundaries within {self.tolerance_mm:g} mm of the other",
                "volume_difference_ml": "prediction minus reference",
                "lesions": "components that touch by a face, edge or corner; found when one voxel is predicted; "
                "false when none of its voxels is drawn",
            },
            "distances_between": _BOUNDARY_WORDS[self.boundary],
            "nsd_between": _BOUNDARY_WORDS[self.nsd_boundary],
            "ignored_voxels": "voxels that the reference labels as ignored are in no count of voxels, and background "
            "in both masks for distances, volumes and lesions",
            "geometry": "in three dimensions, in millimetres from each reference's affine",
            "empty_masks": "both empty: left out and counted; one empty or no prediction: overlap and NSD 0, "
            "distances infinite",
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Definitions":
        """The settings that `to_json` wrote; what it lacks takes its default."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: item for key, item in value.items() if key in known})  # type: ignore[arg-type]


@dataclass(frozen=True)
class LabelScores:
    """One row of `scores.csv`: one label of one case.

    Attributes:
        case: The case's id.
        label: The label's name.
        status: What was there to compare.
        dice: 0 to 1; `nan` when both masks are empty, 0 when one is.
        iou: As `dice`.
        precision: 0 to 1; `nan` without a prediction.
        recall: 0 to 1; `nan` without a reference.
        specificity: 0 to 1; `nan` without a prediction file.
        reference_ml: Volume drawn, in millilitres.
        prediction_ml: Volume found; `nan` without a prediction file.
        hd_mm: Hausdorff distance; `nan` when both masks are empty, `inf` when one is; so are the next three.
        hd95_mm: Its 95th percentile.
        assd_mm: Average symmetric surface distance.
        masd_mm: Mean average surface distance.
        nsd: Normalised surface distance at the tolerance; 0 to 1, empty masks as in `dice`.
        volume_difference_ml: Prediction minus reference.
        volume_difference_percent: The same, of the reference; `nan` without one.
        true_positives: Voxels in both.
        false_positives: Voxels in the prediction only.
        false_negatives: Voxels in the reference only.
        diagonal_mm: From corner to corner of the volume: what a miss costs in a penalised mean.
        lesions: Lesions drawn; `nan` unless they were counted, as are the next two.
        lesions_found: How many of them the prediction overlaps.
        lesions_false: Predicted components that overlap none.
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

    @property
    def is_scored(self) -> bool:
        """Whether the row enters averages: all but `both_empty`."""
        return self.status != "both_empty"

    @property
    def is_miss(self) -> bool:
        """Whether there was no prediction where one was due."""
        return self.status in MISSES


def score_case(
    prediction: Volume | None,
    reference: Volume,
    labels: LabelMap,
    *,
    case: str | None = None,
    tolerance_mm: float = 1.0,
    definitions: Definitions | None = None,
    prediction_values: Mapping[int, int] | None = None,
) -> tuple[LabelScores, ...]:
    """Score one case.

    Voxels that the reference ignores (`labels.ignored`) are in no count, neither right nor wrong; for distances,
    volumes and lesions both masks are background there. A label that overlaps others is the union of its parts.

    Args:
        prediction: The mask, of whole numbers, holding the `written` value of each label, or part where labels
            overlap; `None` when there is none, which is a miss of every label.
        reference: The reader's mask, of whole numbers, holding the `values` of each label, and those ignored.
        labels: Which labels there are.
        case: The case's id; the reference's name unless given.
        tolerance_mm: For `nsd`.
        definitions: All settings at once, in place of `tolerance_mm`.
        prediction_values: For a mask that medfcn did not write: the place in `labels.parts`, from 1, of each value.

    Returns:
        One row a label, in the order of `labels`.

    Raises:
        GeometryMismatchError: The masks are not on one grid.
        LabelError: A mask holds values that it should not.
    """
    definitions = definitions or Definitions(tolerance_mm=tolerance_mm)
    case = case if case is not None else reference.name
    drawn = labels.encode(reference.array, name=f"{case} reference")
    diagonal_mm = _diagonal_mm(reference)
    measured: Sequence[tuple[SurfaceDistances, SurfaceDistances] | None]
    found = np.zeros_like(drawn)
    if prediction is not None:
        require_same_grid(reference, prediction)
        found = _encoded(prediction, labels, prediction_values or written_values(labels), case)
    counts = count_labels(drawn, found, labels=len(labels.entries), members=labels.members)
    if labels.ignored:
        drawn, found = without_ignored(drawn, found)
    if prediction is None:
        measured = [None] * len(labels.entries)
    else:
        measured = _measured(drawn, found, reference, labels, definitions)
    rows = []
    for name, of_label, distances, held in zip(labels.names, counts, measured, parts_of_labels(labels), strict=True):
        if distances is None:
            row = _missing_row(case, name, of_label, reference.voxel_ml, diagonal_mm)
        else:
            row = _row(case, name, of_label, distances, reference.voxel_ml, diagonal_mm, definitions)
        if definitions.lesions:
            row = _with_lesions(row, is_any_of(drawn, held), is_any_of(found, held))
        rows.append(row)
    return tuple(rows)


def _with_lesions(row: LabelScores, drawn: NDArray[np.bool_], found: NDArray[np.bool_]) -> LabelScores:
    counts = count_lesions(drawn, found)
    return replace(row, lesions=counts.reference, lesions_found=counts.found, lesions_false=counts.false)


def _encoded(mask: Volume, labels: LabelMap, places: Mapping[int, int], case: str) -> NDArray[np.uint8]:
    """A prediction's values as places in the list."""
    if labels.unnamed == "refuse":
        strange = [str(value) for value in sorted(values_of(mask.array) - places.keys())]
        if strange:
            raise LabelError(
                f"{case}: the prediction holds the values {', '.join(strange[:8])}; expected "
                f"{', '.join(str(value) for value in sorted(places))}; name those that matter with --labels NAME=V"
            )
    return places_of(mask.array, places)


def _measured(
    drawn: NDArray[np.uint8],
    found: NDArray[np.uint8],
    reference: Volume,
    labels: LabelMap,
    definitions: Definitions,
) -> list[tuple[SurfaceDistances, SurfaceDistances]]:
    """Of each label the distances for the metrics in millimetres, and those for `nsd`."""
    grid = _grid_mm(reference)

    def distances(boundary: Boundary) -> Sequence[SurfaceDistances]:
        if not labels.overlapping:
            count = len(labels.entries)
            return label_surface_distances(drawn, found, grid, labels=count, boundary=boundary)
        # The border of a label is not that of its parts.
        return [
            surface_distances(is_any_of(drawn, held), is_any_of(found, held), grid, boundary=boundary)
            for held in parts_of_labels(labels)
        ]

    by_boundary = {boundary: distances(boundary) for boundary in {definitions.boundary, definitions.nsd_boundary}}
    return list(zip(by_boundary[definitions.boundary], by_boundary[definitions.nsd_boundary], strict=True))


def _grid_mm(volume: Volume) -> NDArray[np.float64]:
    """What distances are measured with: the spacing, or the full linear part of a sheared affine."""
    linear = np.asarray(volume.affine[:3, :3], dtype=np.float64)
    return linear if edge_lengths(linear) is None else np.asarray(volume.spacing_mm)


def _diagonal_mm(volume: Volume) -> float:
    """The longest distance there can be between two voxels of the volume."""
    linear = np.asarray(volume.affine[:3, :3], dtype=np.float64)
    extent = np.asarray(volume.shape) - 1
    signs = np.array([(1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)])
    return float(np.linalg.norm((signs * extent) @ linear.T, axis=1).max())


def _status(counts: VoxelCounts) -> Status:
    if counts.reference:
        return "ok" if counts.prediction else "prediction_empty"
    return "reference_empty" if counts.prediction else "both_empty"


def _row(
    case: str,
    label: str,
    counts: VoxelCounts,
    measured: tuple[SurfaceDistances, SurfaceDistances],
    voxel_ml: float,
    diagonal_mm: float,
    definitions: Definitions,
) -> LabelScores:
    distances, surfaces = measured
    reference_ml, prediction_ml = counts.reference * voxel_ml, counts.prediction * voxel_ml
    return LabelScores(
        case=case,
        label=label,
        status=_status(counts),
        dice=counts.dice,
        iou=counts.iou,
        precision=counts.precision,
        recall=counts.recall,
        specificity=counts.specificity,
        reference_ml=reference_ml,
        prediction_ml=prediction_ml,
        hd_mm=distances.hausdorff_mm(),
        hd95_mm=distances.hausdorff_mm(percentile=95.0, pooled=definitions.pooled_hd95),
        assd_mm=distances.assd_mm(),
        masd_mm=distances.masd_mm(),
        nsd=surfaces.nsd(tolerance_mm=definitions.tolerance_mm),
        volume_difference_ml=prediction_ml - reference_ml,
        volume_difference_percent=_percent(counts.prediction - counts.reference, counts.reference),
        true_positives=counts.true_positives,
        false_positives=counts.false_positives,
        false_negatives=counts.false_negatives,
        diagonal_mm=diagonal_mm,
    )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan


def absent_row(row: LabelScores, label: str) -> LabelScores:
    """The row of a label that a case has in neither mask, from any row of that case."""
    missing = row.status == "prediction_missing"
    return LabelScores(
        case=row.case,
        label=label,
        status=row.status if missing else "both_empty",
        dice=0.0 if missing else math.nan,
        iou=0.0 if missing else math.nan,
        precision=math.nan,
        recall=math.nan,
        specificity=math.nan if missing else 1.0,
        reference_ml=0.0,
        prediction_ml=math.nan if missing else 0.0,
        hd_mm=math.inf if missing else math.nan,
        hd95_mm=math.inf if missing else math.nan,
        assd_mm=math.inf if missing else math.nan,
        masd_mm=math.inf if missing else math.nan,
        nsd=0.0 if missing else math.nan,
        volume_difference_ml=math.nan if missing else 0.0,
        diagonal_mm=row.diagonal_mm,
        lesions=row.lesions * 0,
        lesions_found=row.lesions * 0,
        lesions_false=row.lesions * 0,
    )


def _missing_row(case: str, label: str, counts: VoxelCounts, voxel_ml: float, diagonal_mm: float) -> LabelScores:
    """A case without a prediction file is a miss, whatever the reference."""
    return LabelScores(
        case=case,
        label=label,
        status="prediction_missing",
        dice=0.0,
        iou=0.0,
        precision=math.nan,
        recall=counts.recall,
        specificity=math.nan,
        reference_ml=counts.reference * voxel_ml,
        prediction_ml=math.nan,
        hd_mm=math.inf,
        hd95_mm=math.inf,
        assd_mm=math.inf,
        masd_mm=math.inf,
        nsd=0.0,
        false_negatives=counts.false_negatives,
        diagonal_mm=diagonal_mm,
    )
