"""The files of trained models, wherever they lie: in a run folder, in its folds, or in one `.medfcn` file."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medfcn.byte_range import ByteRange
from medfcn.errors import MissingFileError, ModelError, refuse_pipe
from medfcn.runs.folder import RunFolder
from medfcn.runs.named_models import on_shelf
from medfcn.runs.one_file import ENDING, GET_AGAIN, read_archive
from medfcn.text import listed, shown

COPY_AGAIN = "copy the run folder again"
MODEL_CARD = "card.md"
"""In a `.medfcn` file: the facts that a person should know."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of one network.

    Attributes:
        run: The run folder, or the `.medfcn` file.
        fold: Of a model in a `.medfcn` file, the folder in it with a slash; empty if it has one network.
        inside: Of such a model, all files in it by name; None for a run folder.
    """

    run: Path
    fold: str = ""
    inside: Mapping[str, ByteRange] | None = None

    @property
    def remedy(self) -> str:
        """The way out if a file is broken."""
        return COPY_AGAIN if self.inside is None else GET_AGAIN

    @property
    def card(self) -> ByteRange:
        """`model.json`; see `_needed`."""
        return self._needed(RunFolder.card)

    @property
    def weights(self) -> ByteRange:
        """`model.safetensors`; see `_needed`."""
        return self._needed(RunFolder.weights)

    @property
    def cases(self) -> ByteRange | None:
        """`cases.csv`, if it is there."""
        return self._found(RunFolder.cases)

    def _needed(self, name: str) -> ByteRange:
        """A file without which the model cannot be used.

        Raises:
            MissingFileError: It is not there.
            ModelError: It is a link that leads out of the run folder, or the run is a pipe.
        """
        found = self._found(name)
        if found is None:
            refuse_pipe(self.run, ModelError)
            raise MissingFileError(f"{self.run}: no {name} in it; {_remedy_without(self.run)}")
        return found

    def _found(self, name: str) -> ByteRange | None:
        if self.inside is not None:
            return self.inside.get(self.fold + name)
        path = self.run / name
        if not path.is_file():
            return None
        _refuse_outside(path, self.run)
        return ByteRange.of(path, error=ModelError, remedy=COPY_AGAIN)


def _remedy_without(path: Path) -> str:
    """The way out of a path that is no finished run."""
    if RunFolder(path).identity.is_file():
        return "its training has not ended; go on with it: `medfcn train --resume RUN`"
    inner = []
    with suppress(OSError):
        inner = sorted(shown(card.parent) for card in path.glob(f"*/{RunFolder.card}"))
    if inner:
        return f"it holds {'a run' if len(inner) == 1 else 'runs'}: give {listed(inner)}"
    return f"give a folder that `medfcn train` finished, a {ENDING} file, or a name that `medfcn models` lists"


def refuse_swapped(runs: "Runs", source: Path | str) -> None:
    """Refuse a run that is given as the volumes, with volumes in the place of the run.

    Raises:
        MissingFileError: No run has a model, and the source has one.
    """
    given = [runs] if isinstance(runs, str | Path) else [run for run in runs if isinstance(run, str | Path)]
    if len(given) != 1 or is_run(given[0]) or not is_run(source) or not Path(given[0]).exists():
        return
    raise MissingFileError(
        f"{given[0]}: no run of `medfcn train`, while {source} is one; the run is named first, then the volumes: "
        f"`medfcn predict {source} {given[0]} -o MASKS`"
    )


def is_run(path: Path | str) -> bool:
    """True if a path is a run folder, finished or not, that of a training in folds, or a `.medfcn` file."""
    return _is_one_file(Path(path)) or RunFolder(Path(path)).is_any


Runs = Sequence[Path | str | ModelFiles] | Path | str
"""Run folders, `.medfcn` files and names of models, or files that were found; one, or several that are averaged."""


def models_of(runs: Runs) -> tuple[ModelFiles, ...]:
    """The files of each network of some runs; those of a run with folds are the networks of its folds.

    Raises:
        MissingFileError: There is no run, or a file is not there.
        ModelError: A `.medfcn` file is broken, or a fold is a link that leads out of its run folder.
    """
    found: list[ModelFiles] = []
    for run in [runs] if isinstance(runs, str | Path) else runs:
        found += [run] if isinstance(run, ModelFiles) else _models_in(on_shelf(run))
    if not found:
        raise MissingFileError("no run folder given; name one that `medfcn train` finished")
    return tuple(found)


def models_below(runs: Runs) -> tuple[ModelFiles, ...]:
    """The files of every network in some folders, however deep; what is broken is passed over.

    Raises:
        MissingFileError: There is no such folder, file or model.
    """
    found: list[ModelFiles] = []
    for run in [runs] if isinstance(runs, str | Path) else runs:
        if isinstance(run, ModelFiles):
            found.append(run)
            continue
        path = on_shelf(run).absolute()
        if not path.exists():
            raise MissingFileError(f"{run}: there is no such run; check the path")
        files = [path] if path.is_file() else sorted(path.rglob(f"*{ENDING}"))
        for file in files:
            with suppress(ModelError, MissingFileError, OSError):
                found += _models_in(file)
        found += [ModelFiles(card.parent) for card in sorted(path.rglob(RunFolder.card)) if path.is_dir()]
    return tuple(found)


def the_model(run: Path | str) -> ModelFiles:
    """The files of a run with one network.

    Raises:
        MissingFileError: A file is not there.
        ModelError: It is a broken `.medfcn` file, or one with several networks.
    """
    path = on_shelf(run)
    found = _models_in(path) if _is_one_file(path) else (ModelFiles(path),)
    if len(found) != 1:
        raise ModelError(f"{path.name}: contains {len(found)} networks, where one is needed; export one fold")
    return found[0]


def card_text(run: Path | str) -> str:
    """The model card in a `.medfcn` file, or in that of the model of a name.

    Raises:
        MissingFileError: There is no such model.
        ModelError: It is broken, or has no card.
    """
    path = on_shelf(run)
    if not path.exists():
        raise MissingFileError(f"{run}: no such model; see the names that `medfcn models` lists")
    card = (read_archive(path) if _is_one_file(path) else {}).get(MODEL_CARD)
    if card is None:
        raise ModelError(f"{path.name}: has no model card; make one with `medfcn export`")
    return card.read().decode("utf-8", errors="replace")


def _is_one_file(path: Path) -> bool:
    return path.suffix == ENDING and not path.is_dir()


def _models_in(path: Path) -> tuple[ModelFiles, ...]:
    return models_in_archive(path) if _is_one_file(path) else _models_in_folder(path)


def models_in_archive(path: Path) -> tuple[ModelFiles, ...]:
    """The files of each network in a `.medfcn` file, whatever its ending; see `read_archive`.

    Raises:
        ModelError: It is no such archive, lacks a file, or has one that belongs to no network.
    """
    inside = read_archive(path)
    folders = sorted({name.removesuffix(RunFolder.card) for name in inside if name.endswith(RunFolder.card)})
    allowed = {f"{folder}{name}" for folder in folders for name in RunFolder.of_model}
    odd = inside.keys() - allowed - {MODEL_CARD}
    if not folders or (folders[0] == "" and len(folders) > 1) or odd:
        name = min(odd, default=RunFolder.card)
        raise ModelError(f"{path.name}: {name} is missing, or belongs to no model in it; {GET_AGAIN}")
    return tuple(ModelFiles(path, folder, inside) for folder in folders)


def _models_in_folder(path: Path) -> tuple[ModelFiles, ...]:
    folds = RunFolder(path).folds().values()
    for fold in folds:
        _refuse_outside(fold.path, path)
    return tuple(ModelFiles(fold.path) for fold in folds) or (ModelFiles(path),)


def _refuse_outside(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of its run folder: what is there was not meant to be read.

    Raises:
        ModelError: It does.
    """
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{path.name}: is a link that leads out of the run folder; put the file itself there", code="OUTPUT_LINK"
        )
