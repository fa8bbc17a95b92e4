"""Libraries: loaded when they are first needed, and without a search for garbage meanwhile."""

import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from medfcn.errors import MedfcnError, MissingFileError

_has_frozen = False
"""True once what was loaded was put where Python no longer looks: a host's own `gc.freeze` is none of this."""


@contextmanager
def loading(*, for_good: bool = False) -> Iterator[None]:
    """Import large libraries in a quarter to a third less CPU time.

    While objects become more, Python looks through all of them for garbage again and again, and once more when the
    process ends. A library's modules are no garbage: meanwhile nothing is looked for.

    Args:
        for_good: What exists afterwards is never looked through again: for commands, whose process is their own. It
            then holds for what the process loads later, too.

    Example:
        >>> with loading():
        ...     import decimal
    """
    global _has_frozen
    was_on, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if (for_good or _has_frozen) and len(sys.modules) > known:
            gc.freeze()
            _has_frozen = True
        if was_on:
            gc.enable()


_NEEDED = {
    "bundle": ("a MONAI Bundle", {"ignite": "pytorch-ignite", "jsonschema": "jsonschema", "fire": "fire"}),
    "cluster": ("a cluster", {"distributed": "Dask"}),
    "dicom": ("DICOM", {"pydicom": "pydicom"}),
    "dicom-seg": ("a DICOM segmentation", {"pydicom": "pydicom", "highdicom": "highdicom"}),
    "mlflow": ("tracking with mlflow", {"mlflow": "mlflow"}),
    "onnx": ("ONNX", {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"}),
    "engine onnx": ("the engine onnx", {"onnxruntime": "onnxruntime", "onnx": "onnx"}),
    "engine openvino": ("the engine openvino", {"openvino": "openvino", "onnx": "onnx"}),
    "rtstruct": ("a DICOM structure set", {"pydicom": "pydicom"}),
    "tensorboard": ("tracking with tensorboard", {"tensorboardX": "tensorboardX"}),
    "tune": ("a search", {"optuna": "optuna"}),
    "wandb": ("tracking with wandb", {"wandb": "wandb"}),
}
"""By purpose: what needs the libraries, and their modules with the names by which people know them."""
_EXTRAS = {"dicom-seg": "dicom", "rtstruct": "dicom", "engine onnx": "onnx", "engine openvino": "openvino"}
"""The extra of medfcn for a purpose, where it has another name."""


def require_installed(purpose: str, error: type[MedfcnError] = MissingFileError) -> None:
    """Refuse to begin work whose libraries are not installed. None is loaded for it, so the answer comes at once.

    Args:
        purpose: An extra of medfcn, a format of `predict` or `export`, or `engine` and its name. Others need nothing.
        error: The class of the error.

    Raises:
        MedfcnError: As `error`: a library is not installed; the message says how to install it.

    Example:
        >>> require_installed("nifti")
    """
    what, modules = _NEEDED.get(purpose, ("", {}))
    for module, name in modules.items():
        if not _is_installed(module):
            remedy = f"pip install 'medfcn[{_EXTRAS.get(purpose, purpose)}]'"
            raise error(f"{what} needs {name}, which is not installed; {remedy}", code="LIBRARY_MISSING")


def _is_installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None
