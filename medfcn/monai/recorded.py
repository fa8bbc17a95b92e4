"""MONAI transforms as name and arguments, to be written in a model's card and built again from it.

Only the transforms of a closed list are built again, and only from text, numbers and lists: a card cannot name code.
"""

import functools
import hashlib
import inspect
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import CodeType, FunctionType
from typing import Any

import monai.transforms
import numpy as np
import torch

from medfcn.errors import ModelError
from medfcn.memory_errors import raise_shortage
from medfcn.text import one_line

RECORDED = (
    *("Orientationd", "Spacingd", "Flipd", "Rotate90d", "Rotated", "Zoomd", "Affined", "Resized", "Transposed"),
    *("ResizeWithPadOrCropd", "SpatialPadd", "BorderPadd", "DivisiblePadd"),
    *("CenterSpatialCropd", "CenterScaleCropd", "SpatialCropd", "CropForegroundd"),
    *("ScaleIntensityd", "ScaleIntensityRanged", "ScaleIntensityRangePercentilesd", "ClipIntensityPercentilesd"),
    *("NormalizeIntensityd", "ShiftIntensityd", "StdShiftIntensityd", "ThresholdIntensityd", "AdjustContrastd"),
    *("HistogramNormalized", "SignalFillEmptyd", "Identityd"),
    *("GaussianSmoothd", "GaussianSharpend", "MedianSmoothd", "SavitzkyGolaySmoothd"),
    *("MapLabelValued", "LabelFilterd", "FillHolesd", "KeepLargestConnectedComponentd", "RemoveSmallObjectsd"),
)
"""The transforms of `monai.transforms` that a card can name."""
_OF_VOLUMES = {"spatial_size": 2**28, "roi_size": 2**28, "zoom": 64}
"""Largest product of the numbers of an argument: voxels, or the growth of a volume."""
_MOST = {
    **_OF_VOLUMES,
    "spatial_border": 1024,
    "margin": 1024,
    "k": 1024,
    "roi_start": 2**20,
    "roi_end": 2**20,
    "radius": 64,
    "window_length": 1024,
    "order": 64,
    "approx": 64,
    "num_bins": 2**16,
    "sigma": 100,
    "sigma1": 100,
    "sigma2": 100,
    "min_size": 2**40,
    "scale_params": 64,
}
"""Largest number of each argument that is a size."""
_IGNORED_STATE = frozenset({"_tracing", "R"})
_DEEPEST = 12
_FEW = 64
"""Numbers of an array that is written as a list."""


@dataclass(frozen=True)
class TransformRecord:
    """A transform as a card has it.

    Attributes:
        name: Its class in `monai.transforms`; for any other its module too.
        arguments: Those that differ from the defaults; None for a transform that cannot be built from the card.
        sha256: Of its name and arguments; without arguments, of everything that it holds.
    """

    name: str
    arguments: Mapping[str, Any] | None
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, which `from_json` turns back."""
        return {"name": self.name, "arguments": self.arguments, "sha256": self.sha256}

    @classmethod
    def of(cls, transform: Callable[..., Any]) -> "TransformRecord":
        """The record of a transform.

        Example:
            >>> record = TransformRecord.of(monai.transforms.Spacingd(["image", "label"], pixdim=2.0))
            >>> record.name, dict(record.arguments or {})
            ('Spacingd', {'keys': ['image', 'label'], 'pixdim': [2.0]})
            >>> TransformRecord.of(len).name, TransformRecord.of(len).arguments
            ('builtins.len', None)
        """
        kind = type(transform)
        if kind.__name__ in RECORDED and kind is getattr(monai.transforms, kind.__name__, None):
            arguments = _arguments_of(transform)
            if arguments is not None:
                return cls(kind.__name__, arguments, _hash_of([kind.__name__, arguments]))
        named: Any = transform if hasattr(transform, "__qualname__") else kind
        return cls(f"{named.__module__}.{named.__qualname__}", None, _hash_of(state_of(transform)))

    def build(self) -> Callable[..., Any]:
        """The transform again.

        Raises:
            ModelError: It is not in the list, this version of MONAI lacks it, or MONAI refuses its arguments.
        """
        kind = getattr(monai.transforms, self.name, None) if self.name in RECORDED else None
        if kind is None or self.arguments is None:
            raise ModelError(
                f"transforms: {self.name} cannot be built from a card; pass the transforms again in a script",
                code="TRANSFORMS_MISSING",
                field="transforms",
            )
        _require_modest(self.name, self.arguments)
        try:
            built: Callable[..., Any] = _quietly(kind, **self.arguments)
        except Exception as error:  # whatever MONAI raises for arguments that it does not like
            raise_shortage(error)
            raise ModelError(
                f"transforms: {self.name} cannot be built: {one_line(str(error))[:200]}; use the version of MONAI in "
                "model.json",
                field="transforms",
            ) from error
        return built


def _require_modest(name: str, arguments: Mapping[str, Any]) -> None:
    """ModelError for a size in a card with which a transform would use up memory or time."""
    for key, value in arguments.items():
        most = _MOST.get(key)
        if most is None or value is None:
            continue
        numbers = [abs(number) for number in _numbers(value)]
        sizes = numbers * 3 if len(numbers) == 1 else numbers
        size = math.prod(max(number, 1) for number in sizes) if key in _OF_VOLUMES else max(numbers, default=0)
        if not size <= most:  # NaN too
            raise ModelError(
                f"transforms: {name} has {one_line(f'{key} {value!r}', limit=80)}, which is too large; copy the run "
                "folder again",
                field="transforms",
            )


def _numbers(value: Any) -> list[float]:
    """All numbers in lists of lists."""
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def _hash_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(_canonical(value), sort_keys=True).encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """`value` with 2.0 as 2."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _arguments_of(transform: Callable[..., Any]) -> dict[str, Any] | None:
    """The arguments from which a transform of MONAI can be built again; None if they are not found.

    MONAI keeps no arguments. Those that a transform, or one that it wraps, has as attributes are taken, and the
    transform that is built from them must have the same state.
    """
    kind = type(transform)
    found: dict[str, Any] = {}
    build = functools.partial(_quietly, kind)
    for name, parameter in inspect.signature(kind).parameters.items():
        value = _attribute(transform, name)
        if isinstance(value, np.ndarray) and value.size <= _FEW and value.dtype.kind in "biuf":
            value = value.tolist()
        if value is _ABSENT or not _is_plain(value):
            continue
        plain = state_of(value)
        if parameter.default is inspect.Parameter.empty or plain != state_of(parameter.default):
            found[name] = plain
    try:
        same = state_of(build(**found)) == state_of(transform)
    except Exception:  # whatever MONAI raises where an argument is not among its attributes
        return None
    if not same:
        return None
    for name in [name for name in found if name != "keys"]:  # those that only repeat the default for each key
        fewer = {key: value for key, value in found.items() if key != name}
        try:
            if state_of(build(**fewer)) == state_of(transform):
                found = fewer
        except Exception:  # it is needed
            continue
    return found


def _quietly(kind: Callable[..., Any], **arguments: Any) -> Any:
    """Build a transform without the warnings of MONAI, which its user has seen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(**arguments)


_ABSENT = object()


def _attribute(transform: object, name: str, depth: int = 2) -> Any:
    """An attribute of a transform, or of one that it wraps."""
    state = getattr(transform, "__dict__", {})
    for spelling in (name, f"_{name}"):
        if spelling in state:
            return state[spelling]
    if depth:
        for inner in state.values():
            if type(inner).__module__.startswith("monai.transforms."):
                value = _attribute(inner, name, depth - 1)
                if value is not _ABSENT:
                    return value
    return _ABSENT


def _is_plain(value: Any) -> bool:
    """True for text, numbers and lists of these, which JSON can hold."""
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str | np.integer | np.bool_)


def state_of(value: Any, depth: int = _DEEPEST) -> Any:
    """Everything in an object that can decide what it does, as values that JSON can hold: the same in any process.

    Lists and tuples are alike, and so are enums and their values. Functions are told apart by their code and by what
    they close over.
    """
    if depth == 0:
        return "…"
    if isinstance(value, Enum):
        return state_of(value.value, depth)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, np.generic):
        return state_of(value.item(), depth)
    if isinstance(value, list | tuple):
        return [state_of(item, depth - 1) for item in value]
    if isinstance(value, Mapping):
        return {"dict": sorted(([str(key), state_of(item, depth - 1)] for key, item in value.items()), key=str)}
    if isinstance(value, set | frozenset):
        return {"set": sorted((state_of(item, depth - 1) for item in value), key=str)}
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value)
        return {"array": [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]}
    if isinstance(value, type | torch.dtype | torch.device | np.dtype | bytes | complex | range | slice):
        return str(value)
    if isinstance(value, functools.partial):
        return {"partial": [state_of(item, depth - 1) for item in (value.func, value.args, value.keywords)]}
    if inspect.ismethod(value):
        return {"method": [value.__qualname__, state_of(value.__self__, depth - 1)]}
    if inspect.isfunction(value):
        return _function_state(value, depth)
    state = {name: item for name, item in getattr(value, "__dict__", {}).items() if name not in _IGNORED_STATE}
    kind = type(value)
    named = f"{kind.__module__}.{kind.__qualname__}"
    return {"object": [getattr(value, "__qualname__", named), state_of(state, depth - 1)]}


def _function_state(function: FunctionType, depth: int) -> Any:
    name = f"{function.__module__}.{function.__qualname__}"
    if name.startswith("monai."):
        return {"function": name}
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    inside = [_code_state(function.__code__), closed, function.__defaults__, function.__kwdefaults__]
    return {"function": [name, state_of(inside, depth - 1)]}


def _code_state(code: CodeType) -> list[Any]:
    """The instructions of a function and of those inside it, and the names and constants that they use."""
    constants = [_code_state(item) if isinstance(item, CodeType) else item for item in code.co_consts]
    return [code.co_code.hex(), code.co_names, constants]
