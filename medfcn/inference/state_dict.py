"""State dicts of other tools: safetensors, or a file that `torch.load` reads with `weights_only=True`.

No code in a file is ever run. A file that needs more than tensors to be read is refused.
"""

import pickle
import warnings
import zipfile
from pathlib import Path

import torch

from medfcn.errors import MissingFileError, ModelError
from medfcn.inference.weights import is_safetensors, read_safetensors
from medfcn.text import shown

_LARGEST = 2 * 2**30
"""Bytes; VGG-16, the largest that has an encoder here, takes 0.55 GB in float32."""


def read_state_dict(path: Path | str) -> dict[str, torch.Tensor]:
    """The tensors of a weights file, on the CPU.

    Args:
        path: A safetensors file, or one of `torch.save` (a zip archive, or a pickle as before torch 1.6) that
            contains a state dict and nothing else.

    Raises:
        MissingFileError: There is no such file.
        ModelError: It is too large, broken, contains code, or is not a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: weights file not found; check the path given to --encoder-weights")
    name = shown(path)
    if path.stat().st_size > _LARGEST:
        raise ModelError(f"{name}: larger than {_LARGEST // 2**30} GB, which no VGG-16 or ResNet is; check the file")
    if is_safetensors(path):
        return read_safetensors(path)
    return _require_tensors(_read_torch(path, name), name)


def _read_torch(path: Path, name: str) -> object:
    """The content of a file, by `torch.load` with `weights_only=True`; there is no second try without."""
    _require_stored(path, name)
    try:
        # An open file, because torch chooses another reader by the extension of a path.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns before it refuses TorchScript
            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{name}: contains code or objects besides tensors, or is no weights file; no code was run; save its "
            "state dict as safetensors"
        ) from error
    except Exception as error:  # broken bytes cause any builtin error inside torch 2.13's readers
        raise ModelError(
            f"{name}: neither a safetensors file nor one that torch.load reads with weights_only; save its state "
            "dict as safetensors"
        ) from error


def _require_stored(path: Path, name: str) -> None:
    """Refuse an archive that would unpack to more than it is; torch.save never compresses."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
    # zipfile raises NotImplementedError for archives of a version or kind that it does not read.
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ModelError(f"{name}: a broken zip archive; get the file again") from error
    if total > path.stat().st_size:
        raise ModelError(f"{name}: a compressed archive, which torch.save never makes; save its state dict again")


def _require_tensors(content: object, name: str) -> dict[str, torch.Tensor]:
    if not isinstance(content, dict):
        raise ModelError(f"{name}: contains a {type(content).__name__}, not a state dict; save the state dict alone")
    for key, value in content.items():
        where = str(key)
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ModelError(f"{name}: contains {where}, which is no tensor; save the state dict alone", field=where)
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ModelError(f"{name}: {where} is no dense tensor; save the state dict in float32", field=where)
    return content
