"""The names that masks of 3D Slicer give to their values: each of its files numbers its segments anew."""

from pathlib import Path

from medfcn.datasets.cases import Dataset
from medfcn.datasets.problems import Problem
from medfcn.text import counted, listed
from medfcn.volumes.formats.seg_nrrd import segment_names
from medfcn.volumes.names import extension_of


def differing_segments(dataset: Dataset) -> Problem | None:
    """The warning of masks that give one value different names: it may be another organ in each; None if none do."""
    meanings: dict[int, dict[str, list[str]]] = {}
    for case in dataset.cases:
        if isinstance(case.label, Path) and extension_of(case.label).endswith((".nrrd", ".nhdr")):
            for value, name in _names_in(case.label):
                meanings.setdefault(value, {}).setdefault(name, []).append(case.id)
    for value, names in sorted(meanings.items()):
        if len(names) > 1:
            most = sorted(names.items(), key=lambda item: -len(item[1]))
            uses = listed((f"{name!r} in {counted(len(ids), 'mask')} ({ids[0]})" for name, ids in most), limit=3)
            found = f"the value {value} is named {uses}"
            remedy = "give all masks one numbering, unless the names do not matter"
            return Problem("LABELS_DIFFER", "warning", "", "", "label", found, remedy)
    return None


def _names_in(mask: Path) -> tuple[tuple[int, str], ...]:
    try:
        return segment_names(mask)
    except OSError:  # said when it is read
        return ()
