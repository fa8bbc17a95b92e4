"""A mask and its reference -> scores -> summary: numbers only.

Metrics are pure functions on arrays with the spacing in millimetres; they need only numpy and scipy. `evaluate` and
`compare` apply them to folders.
"""

from medfcn.evaluation.classes import ClassReport, ClassScores
from medfcn.evaluation.compare import compare, compare_tables, masks_or_scores
from medfcn.evaluation.definitions import Definitions
from medfcn.evaluation.evaluate import evaluate
from medfcn.evaluation.label_summary import (
    DistanceSummary,
    LabelSummary,
    ShareSummary,
    VolumeSummary,
)
from medfcn.evaluation.lesions import LesionCounts, count_lesions
from medfcn.evaluation.overlap import (
    VoxelCounts,
    confusion_matrix,
    count_labels,
    count_voxels,
    dice,
    iou,
    precision,
    recall,
    specificity,
)
from medfcn.evaluation.paired_differences import Comparison, MovedCase, PairedDifference
from medfcn.evaluation.paper_table import write_paper_table
from medfcn.evaluation.score_table import ScoreTable, read_scores, write_scores
from medfcn.evaluation.scores import LabelScores, score_case
from medfcn.evaluation.summary import Summary, summarise
from medfcn.evaluation.surface import (
    SurfaceDistances,
    assd_mm,
    hausdorff_mm,
    label_surface_distances,
    masd_mm,
    nsd,
    surface_distances,
)

__all__ = [
    "ClassReport",
    "ClassScores",
    "Comparison",
    "Definitions",
    "DistanceSummary",
    "LabelScores",
    "LabelSummary",
    "LesionCounts",
    "MovedCase",
    "PairedDifference",
    "ScoreTable",
    "ShareSummary",
    "Summary",
    "SurfaceDistances",
    "VolumeSummary",
    "VoxelCounts",
    "assd_mm",
    "compare",
    "compare_tables",
    "confusion_matrix",
    "count_labels",
    "count_lesions",
    "count_voxels",
    "dice",
    "evaluate",
    "hausdorff_mm",
    "iou",
    "label_surface_distances",
    "masd_mm",
    "masks_or_scores",
    "nsd",
    "precision",
    "read_scores",
    "recall",
    "score_case",
    "specificity",
    "summarise",
    "surface_distances",
    "write_paper_table",
    "write_scores",
]
