"""Masks as 3D Slicer's segmentations."""

from pathlib import Path

import numpy as np

from medfcn.labels.colours import Colours, label_table, names_coloured
from medfcn.labels.label_map import LabelMap
from medfcn.volumes.formats.nifti_labels import TableLabel
from medfcn.volumes.formats.nifti_writing import stored_type
from medfcn.volumes.formats.seg_nrrd import write_seg_nrrd
from medfcn.volumes.volume import Volume


def write_segments(path: Path, mask: Volume, labels: LabelMap, colours: Colours | None = None) -> None:
    """Write a mask as `.seg.nrrd`, a segment for each label; those that overlap have a layer each.

    Args:
        path: The file; an existing one is replaced.
        mask: With the values that medfcn writes.
        labels: Their meaning.
        colours: Chosen colours by label.
    """
    if not labels.overlapping:
        array = mask.array.astype(stored_type(mask.array), copy=False)
        write_seg_nrrd(path, [array], mask.affine, label_table(labels, colours))
        return
    indices = labels.written_codec.encode(mask.array)
    layers = [labels.mask_of(indices, index).view(np.uint8) for index in range(1, len(labels.names) + 1)]
    own = names_coloured(labels.names, [()] * len(labels.names), colours or {})
    segments = [TableLabel(1, name, colour) for name, (_, colour) in zip(labels.names, own, strict=True)]
    write_seg_nrrd(path, layers, mask.affine, segments)
