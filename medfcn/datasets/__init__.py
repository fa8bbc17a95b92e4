"""Folders, tables and `dataset.json` become cases; `check` reads every one of them."""

from medfcn.datasets.cases import Case, Dataset
from medfcn.datasets.check import check_cases
from medfcn.datasets.check_report import CheckReport
from medfcn.datasets.find import find_dataset, find_masks, require_complete
from medfcn.datasets.inputs import find_inputs
from medfcn.datasets.problems import Problem

__all__ = [
    "Case",
    "CheckReport",
    "Dataset",
    "Problem",
    "check_cases",
    "find_dataset",
    "find_inputs",
    "find_masks",
    "require_complete",
]
