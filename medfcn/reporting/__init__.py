"""Scores and runs -> one HTML page, and pictures of masks."""

from medfcn.reporting.compose import predict_report, report, train_report
from medfcn.reporting.pictures import PictureCase, overlay_sheet

__all__ = ["PictureCase", "overlay_sheet", "predict_report", "report", "train_report"]
