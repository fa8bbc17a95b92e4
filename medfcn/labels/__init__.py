"""The meaning of a mask's values: which value is which label, which labels overlap, and the record beside a mask."""

from medfcn.labels.label_map import IGNORED, LabelEntry, LabelMap, read_mask
from medfcn.labels.overlaps import LabelPart

__all__ = ["IGNORED", "LabelEntry", "LabelMap", "LabelPart", "read_mask"]
