"""The slope and intercept of a slice, by which its stored numbers are units."""

import math
from typing import Any

from medfcn.errors import VolumeError


def rescale_of(content: Any) -> tuple[float, float] | None:
    """Slope and intercept of a slice; None where neither is stated.

    Args:
        content: The data set of a slice, or the functional groups of a frame.

    Raises:
        VolumeError: They lose the numbers.
    """
    slope, inter = content.get("RescaleSlope"), content.get("RescaleIntercept")
    if slope in (None, "") and inter in (None, ""):
        return None
    numbers = 1.0 if slope in (None, "") else float(slope), 0.0 if inter in (None, "") else float(inter)
    return _usable(numbers, "Rescale")


def mapping_of(mappings: Any) -> tuple[float, float]:
    """Slope and intercept of a frame of a parametric map: of its real-world value mapping, DICOM PS3.3, A.75.

    Args:
        mappings: The items of the frame's RealWorldValueMappingSequence.

    Raises:
        VolumeError: There is no mapping, there are several, or the one there is has no slope.
    """
    found = {(one.get("RealWorldValueSlope"), one.get("RealWorldValueIntercept")) for one in mappings}
    slope, inter = next(iter(found)) if len(found) == 1 else (None, None)
    if slope is None or inter is None:
        problem = "is a table" if len(found) == 1 else f"states {len(found)} mappings of numbers to units"
        raise VolumeError(
            f"RealWorldValueMappingSequence {problem}; expected one slope and intercept, write the map as floats",
            code="VOXELS_SCALING",
            field="RealWorldValueMappingSequence",
        )
    return _usable((float(slope), float(inter)), "RealWorldValue")


def _usable(numbers: tuple[float, float], name: str) -> tuple[float, float]:
    """A slope and an intercept that keep the numbers apart."""
    if not all(map(math.isfinite, numbers)) or numbers[0] == 0:
        found = f"{name}Slope {numbers[0]:g} and {name}Intercept {numbers[1]:g} lose the numbers; export again"
        raise VolumeError(found, code="VOXELS_SCALING", field=f"{name}Slope")
    return numbers
