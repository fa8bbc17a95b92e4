"""Values and paths that are passed to other processes, on this machine or others."""

import pickle
import pickletools
from pathlib import Path

from medfcn.errors import SettingsError


def shareable(value: object, purpose: str) -> bytes:
    """A value as bytes for other processes, which `pickle.loads` turns back there.

    Args:
        value: The value.
        purpose: The part of it that can be of the user's making, for the message.

    Raises:
        SettingsError: A part of it cannot be passed to another process.
    """
    problem = ""
    try:
        content = pickle.dumps(value)
        if any(argument == "__main__" for _, argument, _ in pickletools.genops(content)):
            problem = "they are defined in the script that runs"
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        problem = str(error)
    if problem:
        raise SettingsError(
            f"{purpose} cannot be passed to other processes ({problem}); define them in a module that can be "
            "imported, or work in one process",
            field="jobs",
        )
    return content


def absolute_path(path: Path | str) -> Path | str:
    """A path as processes in other folders find it; a name that is no path stays.

    Example:
        >>> absolute_path("hippocampus-mr")
        'hippocampus-mr'
    """
    return Path(path).absolute() if Path(path).exists() else path
