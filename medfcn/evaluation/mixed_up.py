"""Predictions that are not what the `<case>.json` beside them says, and volumes that are scored more than once."""

from collections.abc import Iterator, Mapping, Sequence

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
    return (*notes, *_notes_on_models(records))


def notes_on_twins(records: Mapping[str, MaskRecord], references: Mapping[str, str]) -> tuple[str, ...]:
    """Name the cases that are one volume under several names: each counts as a case of its own.

    Args:
        records: As for `notes_on_records`.
        references: By case, the hash of the voxels of its reference; cases whose reference is empty are left out.
    """
    images = {case: ",".join(sorted(record.input_sha256)) for case, record in records.items()}
    same: dict[tuple[str, ...], list[str]] = {}
    for what, hashes in (("image", images), ("reference", references)):
        cases: dict[str, list[str]] = {}
        for case, found in hashes.items():
            if found:
                cases.setdefault(found, []).append(case)
        for twins in cases.values():
            if len(twins) > 1:
                same.setdefault(tuple(twins), []).append(what)
    if not same:
        return ()
    each = [f"{' = '.join(twins)} (the same {' and '.join(what)})" for twins, what in same.items()]
    return (f"one volume under several names counts several times; keep one of each: {listed(each, limit=_MOST)}",)


def _notes_on_models(records: Mapping[str, MaskRecord]) -> Iterator[str]:
    """Say that masks of several models are scored as if one had made them, as of folders that were filled twice."""
    made: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for case, record in records.items():
        if record.model_sha256:
            made.setdefault((record.model_sha256, record.card_sha256), []).append(case)
    if len(made) > 1:
        each = sorted(made.items(), key=lambda item: -len(item[1]))
        by = (f"{len(cases)} by {_short(*model)} ({listed(cases, limit=3)})" for model, cases in each)
        yield f"the predictions were made by {len(made)} models, and are scored together: {listed(by, limit=5)}"


def _short(weights: Sequence[str], cards: Sequence[str]) -> str:
    """A model by the beginning of a hash of its networks, and of its cards."""
    return " + ".join(f"{one[:8]}/{card[:4]}" for one, card in zip(weights, cards, strict=False)) or "another"
