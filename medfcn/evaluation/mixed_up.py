"""Predictions that are not what the `<case>.json` beside them says: masks that were mixed up, or edited."""

from collections.abc import Mapping

from medfcn.evaluation.matching import Pairs
from medfcn.labels.sidecar import CHANGED, MaskRecord
from medfcn.text import counted, listed

_MOST = 20
"""Cases that a note names."""


def notes_on_records(records: Mapping[str, MaskRecord], pairs: Pairs) -> tuple[str, ...]:
    """Name the predictions whose record is of another mask, or of another case that is scored too.

    Args:
        records: By case, as far as each is of the very file of the mask; see `MaskRecord.of_mask`.
        pairs: The predictions and the references.
    """
    notes, of_all = [], counted(len(pairs.predictions), "prediction")
    changed = [case for case, record in records.items() if CHANGED in record.notes]
    if changed:
        differs = "is not the mask that its .json describes: it was"
        if len(changed) > 1:
            differs = "are not the masks that their .json files describe: they were"
        notes.append(
            f"{len(changed)} of {of_all} {differs} edited since, or mixed up with other cases: "
            f"{listed(changed, limit=_MOST)}"
        )
    moved = {case: record.case for case, record in records.items() if record.case != case}
    strange = [f"{case} (of {other})" for case, other in moved.items() if other in pairs.references]
    if strange:
        notes.append(
            f"beside {len(strange)} of {of_all} lies the .json of another case that is scored here: "
            f"{listed(strange, limit=_MOST)}; were they mixed up?"
        )
    return tuple(notes)
