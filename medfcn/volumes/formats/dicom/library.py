"""pydicom, when it is there, with its errors as errors of medfcn and its warnings kept back."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from medfcn.errors import MedfcnError, SettingsError, VolumeError, needing
from medfcn.memory_errors import raise_shortage
from medfcn.text import one_line

_LOCK = threading.Lock()
_SAID_CHARACTERS = 160


class _Quiet:
    """Warnings are off while any thread reads; Python's own `catch_warnings` is for one thread."""

    readers = 0
    kept: "warnings.catch_warnings[None] | None" = None


def pydicom() -> Any:
    """The library.

    Raises:
        SettingsError: It is not installed.
    """
    with needing("pydicom", "reading DICOM", "dicom", SettingsError):
        import pydicom as library
    return library


@contextmanager
def guarded(what: str, remedy: str = "export the series again", code: str = "HEADER_DAMAGED") -> Iterator[None]:
    """Turn any error that pydicom or a decoder raises for a damaged file into one line, and keep warnings back.

    Args:
        what: What could not be done, such as "its header cannot be read".
        remedy: What to do.
        code: The kind of problem.

    Raises:
        VolumeError: The library raised an error. Errors of medfcn pass.
    """
    with _LOCK:
        _Quiet.readers += 1
        if _Quiet.readers == 1:
            _Quiet.kept = warnings.catch_warnings()
            _Quiet.kept.__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    except MedfcnError:
        raise
    except Exception as error:
        raise_shortage(error)
        said = one_line(" ".join(str(error).split()) or type(error).__name__, limit=_SAID_CHARACTERS)
        raise VolumeError(f"{what} ({said}); {remedy}", code=code) from error
    finally:
        with _LOCK:
            _Quiet.readers -= 1
            if _Quiet.readers == 0 and _Quiet.kept is not None:
                _Quiet.kept.__exit__(None, None, None)
                _Quiet.kept = None
