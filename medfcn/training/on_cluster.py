"""Cross-validation on a Dask cluster: each fold is a task, trained by one worker process."""

import pickle
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from medfcn.errors import MedfcnError, SettingsError, TrainingError
from medfcn.inference.on_cluster import device_of
from medfcn.inference.worker import Broken
from medfcn.progress import warn
from medfcn.runs.cluster import LostError, connected, own_number
from medfcn.runs.folder import RunFolder
from medfcn.runs.outputs import require_free
from medfcn.runs.passing import absolute_path, shareable
from medfcn.runs.replaced import drop, set_aside, set_folds_aside
from medfcn.training.folds import Folds
from medfcn.training.request import TrainRequest
from medfcn.training.run import Run
from medfcn.training.train import run_training

_PATHS = ("dataset", "output", "groups", "settings", "init", "encoder_weights", "leave_out")
"""The fields of a request that can be paths."""


def train_on_cluster(request: TrainRequest) -> Run:
    """Train the folds of a request on the workers of a cluster, which see the same files under the same names.

    With a budget, each fold has all of it, because they are trained at the same time. A fold whose worker is killed
    is continued by another from its last checkpoint.

    Raises:
        SettingsError: There are no folds to share out, or no scheduler answers.
        TrainingError: A fold could not be trained; the others are there, and `resume` trains the missing ones.
    """
    folds, folder, say = request.chosen_folds(), Path(request.output), request.say
    if folds is None or not folds.is_all:
        raise SettingsError("cluster: the workers train a fold each; give --folds N", field="cluster")
    if request.overwrite:
        set_aside(folder)
        set_folds_aside(folder, say)
    elif not request.resume:
        for place in folds.folders(folder):
            require_free(place)
    content = shareable(_for_workers(request), "the transforms")
    problems: dict[str, str] = {}
    with connected(request.cluster or "") as cluster, say.task("folds", folds.count) as task:
        say.say(str(cluster))
        places = cluster.places()
        items = {folds.name(number): (number, places) for number in folds.numbers}
        for name, result in cluster.each(train_one, content, items):
            if isinstance(result, LostError | Broken):
                problems[name] = str(result) if isinstance(result, LostError) else result.problem
                warn(say, f"fold {name}: {problems[name]}")
            task.advance(f"fold {name}")
    if problems:
        name = min(problems)
        raise TrainingError(f"fold {name}: {problems[name]}; train what is missing with --resume")
    gathered = run_training(replace(request, cluster=None, overwrite=False, resume=True))
    drop(folder)
    return gathered


def _for_workers(request: TrainRequest) -> TrainRequest:
    """A request that processes in other folders can carry out."""
    paths = {name: getattr(request, name) for name in _PATHS}
    found = {name: absolute_path(path) for name, path in paths.items() if isinstance(path, str | Path)}
    found["output"] = Path(request.output).absolute()
    plain = replace(request, cluster=None, progress=None, stop=None, report=False, resume=False, overwrite=False)
    # The clock of another machine says nothing there.
    return replace(plain, started=None, threads=request.threads or 1, **found)  # type: ignore[arg-type]


def train_one(content: bytes, number: int, places: Mapping[str, int]) -> str | Broken:
    """Train one fold, in a worker; or continue it, if a worker that was killed had begun it."""
    request: TrainRequest = pickle.loads(content)
    folds = Folds.of(None, request.folds)
    name = "" if folds is None else f"{number}/{folds.count}"
    fold = RunFolder(Path(request.output)).fold(number)
    has_begun = fold.is_finished or fold.state.is_dir() or fold.lock.is_file()
    device = device_of(request.device, own_number(places), torch.cuda.device_count()) or request.device
    try:
        run_training(replace(request, folds=None, fold=name, resume=has_begun, device=device))
    except MedfcnError as error:
        return Broken(f"on {platform.node()}: {error}", error.code)
    return name
