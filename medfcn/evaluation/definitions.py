"""How each score is defined: the settings of an evaluation, kept with its numbers and shown wherever they are."""

from dataclasses import dataclass, field, fields

from medfcn.evaluation.boundary import Boundary, require_boundary
from medfcn.evaluation.surface import require_tolerance

_BOUNDARY_WORDS: dict[Boundary, str] = {
    "voxels": "foreground voxels with a face neighbour in the background, outside the image is background, "
    "centre to centre",
    "elements": "marching-cubes surface elements at voxel corners, weighted by their area",
}


@dataclass(frozen=True)
class Definitions:
    """Definitions of the scores; they are shown wherever scores are shown.

    Attributes:
        tolerance_mm: Distance up to which two surfaces agree in `nsd`.
        boundary: Boundary between which `hd_mm`, `hd95_mm`, `assd_mm` and `masd_mm` are measured.
        nsd_boundary: Boundary between which `nsd` is measured.
        pooled_hd95: Take one 95th percentile of both directions together, instead of the larger of the two.
        lesions: Also count lesions (components), for scattered targets.
        boundary_at_edges: Faces at the ends of the volume are boundary, as in MONAI, MedPy and surface-distance. If
            not, the volume goes on as it ends, and a mask that the field of view cuts off has no surface there.
        classes: Also count the voxels of each pair of classes, for a confusion matrix.

    Raises:
        SettingsError: The tolerance is not a length, or there is no such boundary.

    Example:
        >>> Definitions(tolerance_mm=2.0, boundary="elements", pooled_hd95=True).short()
        'NSD within 2 mm (surface elements); HD95 one pooled percentile, ASSD pooled (surface elements)'
        >>> Definitions(boundary_at_edges=False).short().split("; ")[-1]
        'ends of the volume are not its boundary'
    """

    tolerance_mm: float = 1.0
    boundary: Boundary = "voxels"
    nsd_boundary: Boundary = "elements"
    pooled_hd95: bool = False
    lesions: bool = False
    boundary_at_edges: bool = True
    classes: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        require_tolerance(self.tolerance_mm)
        for name in ("boundary", "nsd_boundary"):
            require_boundary(getattr(self, name), name)

    def short(self) -> str:
        """One line for the foot of a table."""
        words: dict[Boundary, str] = {"voxels": "voxel boundary", "elements": "surface elements"}
        hd95 = "one pooled percentile" if self.pooled_hd95 else "the larger directed percentile"
        at_edges = "" if self.boundary_at_edges else "; ends of the volume are not its boundary"
        return (
            f"NSD within {self.tolerance_mm:g} mm ({words[self.nsd_boundary]}); "
            f"HD95 {hd95}, ASSD pooled ({words[self.boundary]}){at_edges}"
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
                "precision": "TP / (TP + FP), voxels; none without a prediction, and 0 in averages for a miss",
                "recall": "TP / (TP + FN), voxels; none without a reference",
                "specificity": "TN / (TN + FP), voxels of the whole volume",
                "hd_mm": "the largest distance from either boundary to the other",
                "hd95_mm": f"{percentile}, {interpolation}",
                "assd_mm": "the mean distance over both boundaries together",
                "masd_mm": "the mean of the two directed mean distances",
                "nsd": f"the share of both boundaries within {self.tolerance_mm:g} mm of the other",
                "volume_difference_ml": "prediction minus reference",
                "lesions": "components that touch by a face, edge or corner; found when one voxel is predicted; "
                "false when none of its voxels is drawn; straight across ignored voxels they are connected",
            },
            "distances_between": _BOUNDARY_WORDS[self.boundary],
            "nsd_between": _BOUNDARY_WORDS[self.nsd_boundary],
            "ends_of_the_volume": "boundary; axes of length 1 have no ends"
            if self.boundary_at_edges
            else "no boundary: the volume goes on as it ends; a mask without any boundary left counts as empty in "
            "distances",
            "ignored_voxels": "voxels that the reference labels as ignored are in no count of voxels, in no volume; "
            "a face towards one is no boundary",
            "partly_labelled": "where less than half of a case is labelled: overlap of the labelled voxels alone; no "
            "distance, NSD, volume or lesion, but infinity and NSD 0 for a miss and a false prediction",
            "geometry": "in three dimensions (a slice: in its plane), in millimetres from each reference's affine",
            "empty_masks": "both empty: left out and counted; one empty or no prediction: overlap and NSD 0, "
            "distances infinite",
        }
