"""The axes along which training shows mirror images: of lesions, and never a left organ as a right one."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from medfcn.slices.fingerprint import CaseFingerprint

_LESION_SPREAD = 2.0
"""Labels whose volumes typically differ by more than this factor are taken for lesions: 2.5 for the tumours of
`benchmarks/README.md`, which gain by mirror images, 1.2 for its hippocampi, which lose."""
_SIDED = 0.6
"""A label is on one side of the patient if that half of the volume contains more than this share of it."""


def choose_mirrors(
    cases: Sequence[CaseFingerprint], mirror: Literal["never", "auto", "always"]
) -> tuple[tuple[int, ...], str]:
    """The axes of the network grid (0 is R, 1 is A, 2 is S) that are mirrored where they lie in a slice, and why.

    Args:
        cases: The training cases' figures.
        mirror: The setting `augment.mirror`.
    """
    if mirror == "never":
        return (), "none, as set"
    if mirror == "always":
        return (0, 1, 2), "both in-plane axes, as set"
    whole = [case for case in cases if not case.is_partly_labelled]
    if not whole:
        return (), "off: less than half of every case is labelled, which does not tell organs from lesions"
    spread = _volume_spread(whole)
    if spread < _LESION_SPREAD:
        return (), f"off: label volumes vary little (×{spread:.2g}), less than those of lesions do"
    why = f"label volumes vary much (×{spread:.2g}), as for lesions, which have no fixed side"
    # Axis 0 runs from left to right: mirroring it would swap a left organ with a right one.
    several = len(cases[0].label_voxels) > 1
    if several or is_sided([case.right_shares[0] for case in cases]):
        kept = "there are several labels" if several else "the label keeps to one side"
        return (1, 2), f"not across left and right, because {kept}; else on: {why}"
    return (0, 1, 2), f"both in-plane axes: {why}"


def has_lesions(cases: Sequence[CaseFingerprint]) -> bool:
    """True if the labels of the training cases are taken for lesions."""
    return bool(choose_mirrors(cases, "auto")[0])


def _volume_spread(cases: Sequence[CaseFingerprint]) -> float:
    """The factor by which volumes typically differ from their geometric mean, for the label that differs least."""
    spreads = []
    for label in range(len(cases[0].label_voxels)):
        volumes = [case.label_voxels[label] * math.prod(case.spacing_mm) for case in cases]
        logs = [math.log(volume) for volume in volumes if volume]
        spreads.append(math.exp(float(np.std(logs))) if logs else 1.0)
    return min(spreads)


def is_sided(right_shares: Sequence[float]) -> bool:
    """True if a label keeps to one side of the patient: in nine of ten volumes most of it is in the same half.

    Args:
        right_shares: For each case the share of the label's voxels in the right half; nan where it is absent.

    Example:
        >>> is_sided([0.9, 0.8, 1.0]), is_sided([0.1, 0.9, 0.95]), is_sided([0.5, 0.52, 0.49])
        (True, False, False)
    """
    known = [share for share in right_shares if not math.isnan(share)]
    right, left = (sum(share > _SIDED for share in shares) for shares in (known, [1 - share for share in known]))
    return max(right, left) >= 0.9 * len(known) > 0
