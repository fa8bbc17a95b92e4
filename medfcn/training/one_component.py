"""The labels of which one component may be kept, as the training references say."""

import math
from collections.abc import Iterable

from medfcn.inference.card import Card
from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.training.prepare import Prepared

_ONE_COMPONENT_SHARE = 0.98
"""A reference counts as one component if its largest component has this share of its voxels."""
ONE_COMPONENT_CASES = 0.95
"""Share of the training references that must be one component, for a label that can be cut to its largest one."""
JUDGED_CASES = 0.5
"""As many of the judged references must be, which are few; their Dice then decides."""


def one_component_labels(card: Card, prepared: Prepared) -> tuple[int, ...]:
    """Indices of the labels that are one component in nearly all training references, if the settings leave it open.

    References of which less than half is labelled do not count: strokes in one organ are several components. None
    where labels overlap: what is removed from one label would be removed from others too.
    """
    if card.labels.overlapping or card.settings.prediction.largest_part != "auto":
        return ()
    indices = range(1, len(card.labels.entries) + 1)
    ids = prepared.split.training
    return tuple(label for label in indices if is_one_component(label, prepared, ids, ONE_COMPONENT_CASES))


def is_one_component(label: int, prepared: Prepared, ids: Iterable[str], least: float) -> bool:
    """True if a label is one component in this share of the whole references of some cases that contain it.

    False without such a reference: nothing would speak against the label's being cut.
    """
    return _are_one((case.largest_shares[label - 1] for case in _whole(prepared, ids)), least)


def may_be_cut_together(card: Card, prepared: Prepared) -> bool:
    """True if one component has all of every label in nearly all training references, if the settings leave it open.

    Organs that touch do, though one of them may be in pieces. A small one apart from the others does not, so all must
    stay as they are.
    """
    is_open = card.settings.prediction.largest_part == "auto" and not card.labels.overlapping
    ids = prepared.split.training
    return is_open and len(card.labels.entries) > 1 and are_together(prepared, ids, ONE_COMPONENT_CASES)


def are_together(prepared: Prepared, ids: Iterable[str], least: float) -> bool:
    """True if one component of all labels together has every label, each by itself, in some references.

    A label has to lie in it in this share of those references that contain it and show every label whole. Voxels of
    all labels are not counted in one sum: a small label would not matter in it. False if a label is in no such
    reference, but in others: nothing would speak against its being removed.
    """
    ids, drawn = list(ids), prepared.survey.drawn
    whole = _whole(prepared, (case_id for case_id in ids if case_id not in drawn))
    counts = zip(*(prepared.survey.fingerprints[case_id].label_voxels for case_id in ids), strict=True)
    present = [place for place, voxels in enumerate(counts) if any(voxels)]
    return bool(present) and all(
        _are_one((case.together_shares[place] for case in whole), least) for place in present
    )


def _whole(prepared: Prepared, ids: Iterable[str]) -> list[CaseFingerprint]:
    """The figures of those cases of which more than half is labelled."""
    references = [prepared.survey.fingerprints[case_id] for case_id in ids]
    return [case for case in references if not case.is_partly_labelled]


def _are_one(shares: Iterable[float], least: float) -> bool:
    """True if this share of some masks is one component, by the share that their largest component has of each."""
    present = [share for share in shares if not math.isnan(share)]
    whole = sum(share >= _ONE_COMPONENT_SHARE for share in present)
    return bool(present) and whole >= least * len(present)


def always_cut(card: Card) -> tuple[int, ...]:
    """Indices of the labels that the settings cut to one component, whatever the cases say."""
    is_always = card.settings.prediction.largest_part == "always" and not card.labels.overlapping
    return tuple(range(1, len(card.labels.entries) + 1)) if is_always else ()


def labels_left_to_strokes(card: Card, prepared: Prepared) -> tuple[int, ...]:
    """Indices of the labels that only partly labelled training references contain, if the settings leave it open."""
    if card.labels.overlapping or card.settings.prediction.largest_part != "auto":
        return ()
    references = [prepared.survey.fingerprints[case_id] for case_id in prepared.split.training]
    known = [
        {case.is_partly_labelled for case in references if case.label_voxels[place]}
        for place in range(len(card.labels.entries))
    ]
    return tuple(place for place, found in enumerate(known, start=1) if found == {True})
