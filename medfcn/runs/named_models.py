"""Models by name: those in the wheel, and those in `~/.medfcn/models`."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from medfcn.runs.one_file import ENDING

_IN_WHEEL = "box"
_OWN = (".medfcn", "models")


@dataclass(frozen=True)
class NamedModel:
    """A model with a name.

    Attributes:
        name: Its name.
        path: The `.medfcn` file or the run folder.
        is_ours: True if it comes with medfcn.
    """

    name: str
    path: Path
    is_ours: bool


def models(own: Path | str | None = None) -> tuple[NamedModel, ...]:
    """All models with a name, which can be given wherever a run folder can.

    Args:
        own: The folder of models of one's own; None takes `~/.medfcn/models`. A name of the wheel's wins.
    """
    own = Path.home().joinpath(*_OWN) if own is None else Path(own)
    found: dict[str, NamedModel] = {}
    for folder, is_ours in ((own, False), (Path(str(files("medfcn") / _IN_WHEEL)), True)):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix == ENDING or (not is_ours and path.is_dir()):
                name = path.name.removesuffix(ENDING)
                found[name] = NamedModel(name, path, is_ours)
    return tuple(found[name] for name in sorted(found))


def on_shelf(run: Path | str) -> Path:
    """The path of a run: the one that is given if it exists, else that of the model of this name, if there is one."""
    path = Path(run)
    if path.exists() or len(path.parts) != 1:
        return path
    return next((model.path for model in models() if model.name == str(run)), path)
