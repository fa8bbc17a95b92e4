"""The choice of how each channel's intensities are scaled, and the figures for it."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.slices.plan import Intensity

Kind = Literal["ct", "none", "zscore"]
"""How intensities are scaled; see `Intensity`."""
_CT_MINIMUM = -500.0
"""Air is about -1000 HU; no other common modality has its minimum below this."""
_NAMED: Mapping[str, Kind] = {"ct": "ct", "nonorm": "none", "zscore": "zscore"}
"""Kinds of intensities by the names that nnU-Net gives to channels."""
_NOT_HERE = ("rescale_0_1", "rescale_to_0_1", "rgb_to_0_1")
"""Kinds of nnU-Net that medfcn does not have."""


def choose_kind(
    cases: Sequence[CaseFingerprint], channel: int, wanted: Literal["auto"] | Kind, *, name: str = ""
) -> tuple[Kind, str]:
    """The kind of scaling of a channel, and why.

    Args:
        cases: The training cases' figures.
        channel: Its place, from 0.
        wanted: The setting `slices.normalisation`.
        name: The channel's name in a `dataset.json`; empty without one.
    """
    if wanted != "auto":
        return wanted, "as set"
    if named := _NAMED.get(name.casefold()):
        return named, f"the channel is named {name}, as in nnU-Net"
    lowest = float(np.median([case.minimum[channel] for case in cases]))
    kind: Kind = "ct" if lowest <= _CT_MINIMUM else "zscore"
    why = f"the median minimum is {lowest:.4g}, {'at most' if kind == 'ct' else 'above'} {_CT_MINIMUM:g}"
    if name.casefold() in _NOT_HERE:
        why += f"; nnU-Net's {name} is not available here"
    return kind, why


def intensity_of(cases: Sequence[CaseFingerprint], channel: int, kind: Kind) -> Intensity:
    """The scaling of a channel by a kind; of `ct` with the figures of the cases' foreground.

    Args:
        cases: The training cases' figures.
        channel: Its place, from 0.
        kind: From `choose_kind`.
    """
    if kind == "none":
        return Intensity(kind)
    if kind == "zscore":
        return Intensity(kind, background="robust")
    values = np.concatenate([case.foreground[channel] for case in cases])
    lower, upper = (float(value) for value in np.percentile(values, [0.5, 99.5]))
    clipped = np.clip(values, lower, upper)
    std = float(clipped.std()) or 1.0
    return Intensity("ct", lower=lower, upper=upper, mean=float(clipped.mean()), std=std)
