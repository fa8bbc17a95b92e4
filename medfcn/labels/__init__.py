"""The meaning of a mask's values: which value is which label, which labels overlap, and the record beside a mask."""

from medfcn.labels.codec import IGNORED, LabelCodec
from medfcn.labels.entries import LabelEntry
from medfcn.labels.label_map import LabelMap
from medfcn.labels.masks import read_mask
from medfcn.labels.overlaps import Overlap

__all__ = ["IGNORED", "LabelCodec", "LabelEntry", "LabelMap", "Overlap", "read_mask"]
