"""The options of a training in its run folder: what `--resume RUN` and `--more TIME RUN` go on with.

They lie in `options.json`. The places of the data set and of other files are relative to the run folder, so that both
can be moved together. The cases that were left out are in `cases.csv` alone. Older run folders have no such file.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import msgspec

from medfcn.calls import require_one
from medfcn.config import settings_from, to_tables
from medfcn.decoding import read_json
from medfcn.errors import MissingFileError, SettingsError, TrainingError, naming
from medfcn.files import write_json
from medfcn.inference.card import read_card
from medfcn.labels import LabelMap
from medfcn.runs.folder import RunFolder
from medfcn.runs.outputs import require_stopped
from medfcn.training.record import LEFT_OUT, ON_REQUEST, uses_of
from medfcn.training.request import TrainRequest
from medfcn.volumes.options import ReadOptions

_FORMAT = 1
_PLACES = ("dataset", "groups", "init", "encoder_weights")
"""The options that can be paths."""
_LENGTHS = ("budget", "epochs", "steps", "more")
_PLAIN = (
    *("preset", "group_by", "seed", "skip_bad", "allow_outside", "folds", "fold", "device", "threads"),
    *("report", "track", "track_images"),
    *_LENGTHS,
)
"""The options whose values are text, numbers and switches."""
_REMEDY = "give all options: medfcn train DATASET -o RUN --resume"


class _Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The content of `options.json`."""

    format: int
    dataset: str
    settings: dict[str, Any]
    reading: dict[str, Any] = {}
    labels: dict[str, Any] | None = None
    groups: str | None = None
    init: str | None = None
    encoder_weights: str | None = None
    has_left_out: bool = False
    preset: str | None = None
    group_by: str | None = None
    seed: int = 0
    skip_bad: bool = False
    allow_outside: bool = False
    folds: int | None = None
    fold: str | None = None
    device: str = "auto"
    threads: int | None = None
    report: bool = True
    track: str | None = None
    track_images: bool = False
    budget: str | float | None = None
    epochs: int | None = None
    steps: str | None = None
    more: str | None = None


def keep_options(request: TrainRequest, labels: LabelMap | None, folder: Path) -> None:
    """Write the options of a training into its run folder; of one that is resumed, only the data set's place.

    Args:
        request: The whole request.
        labels: The labels that it names.
        folder: The run folder; of all folds of a command, the folder of all.
    """
    path = RunFolder(folder).options
    places = {name: _relative(getattr(request, name), folder) for name in _PLACES}
    before = _kept(folder) if request.resume else None
    if before is not None:
        options = msgspec.structs.replace(before, dataset=str(places["dataset"]))
        if options == before:
            return
    else:
        reading = {**request.options.recorded(), "bids": request.options.bids}
        options = _Options(
            format=_FORMAT,
            settings=to_tables(request.chosen_settings()),
            reading={name: value for name, value in reading.items() if value is not None},
            labels=None if labels is None else labels.to_json(),
            has_left_out=request.leave_out is not None,
            **{name: getattr(request, name) for name in _PLAIN}
            | {"steps": None if request.steps is None else str(request.steps)},
            **places,  # type: ignore[arg-type]
        )
    write_json(path, msgspec.to_builtins(options))


def _kept(folder: Path) -> _Options | None:
    """The options in a run folder; None where there are none, or broken ones, which the request stands in for."""
    try:
        return _read(folder) if RunFolder(folder).options.is_file() else None
    except TrainingError:
        return None


def whole_request(request: TrainRequest) -> TrainRequest:
    """The whole request of one that names a run folder alone, to be resumed or to be carried on; others as they are.

    Options that are given beside the run folder replace those that it keeps; see `TrainRequest.given`.

    Raises:
        MissingFileError: There is no such run, or its data set is not where it was.
        TrainingError: Its options are not kept, or are broken; or the run to carry on is not finished, or is one of
            several folds.
        SettingsError: A run is carried on with other weights than its own, with folds, or into its own folder.
    """
    if request.resume and not request.output:
        return _resumed(request, Path(request.dataset))
    if request.more is not None:
        require_one(more=request.more, init=request.init, encoder_weights=request.encoder_weights)
        return _carried_on(request, Path(request.dataset))
    return request


def _resumed(request: TrainRequest, run: Path) -> TrainRequest:
    """The request of a stopped training."""
    if not RunFolder(run).options.is_file():
        require_stopped(run, (run, *(fold.path for fold in RunFolder(run).folds().values())))
        if RunFolder(run.parent).options.is_file():
            raise TrainingError(
                f"{run}: is one of the folds of {run.parent}, which are resumed together; resume that folder",
                code="NOT_STOPPED",
            )
        raise TrainingError(
            f"{run}: keeps no options ({RunFolder.options}), because it was stopped before its training began or is "
            "of an earlier version; give all of them: medfcn train DATASET -o RUN --resume",
            code="NOT_STOPPED",
        )
    kept = _kept_request(_read(run), run, moved_to=request.moved_to)
    output = run.absolute().parent if kept.fold else run
    return dataclasses.replace(_with_given(kept, request), resume=True, output=output)


def _carried_on(request: TrainRequest, run: Path) -> TrainRequest:
    """The request of a training that starts from a finished run's weights and split.

    Settings and labels are those of the card, in which nothing is open any more.
    """
    folder = RunFolder(run)
    if not folder.is_finished:
        if folder.folds():
            raise TrainingError(
                f"{run}: has folds, each with cases of its own that its network must not see; carry on each alone: "
                f"medfcn train --more {request.more} {run.name}/fold_1 -o RUN2/fold_1",
                code="FOLDS_DIFFER",
                field="more",
            )
        if not run.is_dir():
            raise MissingFileError(f"{run}: there is no such run folder; check the path")
        raise TrainingError(f"{run}: is not finished, so there is nothing to carry on; finish it first (--resume)")
    if request.folds is not None or request.fold is not None:
        raise SettingsError(
            "more: a run is carried on with its own split, which has no folds; leave --folds and --fold out",
            code="OPTIONS_TOGETHER",
            field="more",
        )
    card = read_card(folder.card)
    place = run if folder.options.is_file() else run.absolute().parent  # folds that were trained together
    is_kept = RunFolder(place).options.is_file()
    _refuse_inside(Path(request.output), place if is_kept else run)
    if is_kept:
        kept = _kept_request(_read(place), place, moved_to=request.moved_to)
    elif request.moved_to is not None:
        kept = TrainRequest(request.moved_to, run)
    else:
        raise MissingFileError(
            f"{run}: does not say where its data set is, because it is of an earlier version; name its place "
            f"(medfcn train --more {request.more} {run.name} DATASET -o RUN2, moved_to=DATASET)",
            field="moved_to",
        )
    alone: dict[str, Any] = dict.fromkeys((*_LENGTHS, "folds", "fold", "preset", "encoder_weights"))
    start: dict[str, Any] = {
        "settings": card.settings,
        "labels": card.labels,
        "seed": int(card.training.get("seed", 0)) + 1,  # other batches than those that the weights have seen
        "init": run,
    }
    return _with_given(dataclasses.replace(kept, **alone, **start), request)


def _refuse_inside(output: Path, run: Path) -> None:
    """Refuse to make a run folder in another: whoever moves or replaces that one would take this one along."""
    if run.resolve() in output.resolve().parents:
        raise SettingsError(
            f"{output}: is inside {run}, the run to carry on; choose an output outside of it", field="output"
        )


def _with_given(kept: TrainRequest, request: TrainRequest) -> TrainRequest:
    """A kept request with everything that a new one sets."""
    given = {
        item.name: getattr(request, item.name)
        for item in dataclasses.fields(request)
        if item.name not in ("dataset", "moved_to", "given")
        and (item.name in request.given or getattr(request, item.name) != item.default)
    }
    if any(name in given for name in _LENGTHS):
        given = {**dict.fromkeys(_LENGTHS), **given}
    return dataclasses.replace(kept, **given)


def _kept_request(options: _Options, run: Path, *, moved_to: Path | str | None) -> TrainRequest:
    """The request that options stand for."""
    places = {name: _absolute(getattr(options, name), run) for name in _PLACES}
    stated = places.pop("dataset")
    dataset = stated if moved_to is None else Path(moved_to)
    if dataset is None or not Path(dataset).exists():
        shown = options.dataset if moved_to is None else str(moved_to)
        raise MissingFileError(
            f"{run}: its data set is not at {shown} (from the run folder); name its place "
            f"(medfcn train --resume {run.name} DATASET, moved_to=DATASET)",
            field="moved_to",
        )
    plain: dict[str, Any] = places | {name: getattr(options, name) for name in _PLAIN}
    source = RunFolder.options
    with naming(source):  # whatever it contains, no option of the command is to blame
        return TrainRequest(
            dataset,
            run,
            settings=settings_from(options.settings, source=source),
            options=ReadOptions.of_record(options.reading, source=source, error=TrainingError, remedy=_REMEDY),
            labels=None if options.labels is None else LabelMap.from_json(options.labels),
            leave_out=_left_out(run) if options.has_left_out else None,
            **plain,
        )


class _Version(msgspec.Struct, frozen=True):
    format: int


def _read(run: Path) -> _Options:
    path = RunFolder(run).options
    found = read_json(path, _Version, error=TrainingError, remedy=_REMEDY).format
    if found != _FORMAT:
        raise TrainingError(
            f"{path.name}: format {found} is not {_FORMAT}; use the medfcn version that wrote it, or {_REMEDY}",
            field="format",
        )
    return read_json(path, _Options, error=TrainingError, remedy=_REMEDY)


def _left_out(run: Path) -> tuple[str, ...]:
    """The cases that were left out on request."""
    each = next((model for model in RunFolder(run).models() if model.cases.is_file()), RunFolder(run))
    return tuple(case for case, use in uses_of(each.path).items() if use == (LEFT_OUT, ON_REQUEST))


def _relative(place: Path | str | None, folder: Path) -> str | None:
    """A path from the run folder, which begins with a dot; a name that is no path stays."""
    if place is None or not Path(place).exists():
        return None if place is None else str(place)
    path = Path(os.path.relpath(Path(place).resolve(), folder.resolve())).as_posix()
    return path if path.startswith(".") else f"./{path}"


def _absolute(place: str | None, run: Path) -> Path | str | None:
    """The path that `_relative` gave, from the working folder where it is in it."""
    if place is None or not place.startswith("."):
        return place
    return Path(os.path.normpath(run.resolve() / place))
