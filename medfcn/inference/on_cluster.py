"""A batch on a Dask cluster: each case is a task, and each worker process has the models once."""

import dataclasses
import pickle
import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

import torch

from medfcn.datasets import Case
from medfcn.errors import MedfcnError, WriteError
from medfcn.inference.batch import Batch, ModelSource, Outcome, Recipe
from medfcn.inference.case_work import CaseWork
from medfcn.inference.devices import using_threads
from medfcn.inference.worker import Broken
from medfcn.labels.sidecar import record_path
from medfcn.progress import Progress
from medfcn.runs.claims import Claims
from medfcn.runs.cluster import LostError, connected, own_number
from medfcn.runs.passing import shareable

_one_at_a_time = threading.Lock()
"""A worker process has one model, whatever its number of threads."""


def predict_on_cluster(
    cases: Sequence[Case],
    batch: Batch,
    source: ModelSource,
    address: str,
    report: Callable[[Outcome], None],
    progress: Progress,
) -> None:
    """Predict cases on the workers of a cluster, which see the same files under the same names.

    The scheduler gives each case to one worker, so there are no locks. A case whose worker is killed is given to
    another, four times at most.

    Args:
        cases: The cases.
        batch: The batch.
        source: Where the workers load the models.
        address: That of the scheduler; see `connected`.
        report: Called with the outcome of each case.
        progress: Where the number of workers is reported.

    Raises:
        WriteError: A worker's disk is full, or it may not write to the output.
        MedfcnError: The scheduler is gone, or a worker cannot do the work at all.
    """
    alone = dataclasses.replace(batch, target=batch.target.absolute(), is_claimed=False, before={})
    content = shareable(Recipe.of(alone, source.absolute()), "the transforms")
    with connected(address) as cluster:
        progress.say(str(cluster))
        places = cluster.places()
        items = {
            case.id: (_absolute(case), batch.before.get(record_path(batch.mask_path(case)).name), places)
            for case in cases
        }
        for name, result in cluster.each(predict_one, content, items):
            if isinstance(result, LostError):
                result = Outcome(name, "failed", f"{name}: {result}")
            elif isinstance(result, Broken):
                kind = WriteError if result.is_write else MedfcnError
                raise kind(result.problem, code=result.code)
            elif result.kind == "others":  # a worker wrote the record, and was killed before it could say so
                result = dataclasses.replace(result, kind="predicted")
            report(result)


def _absolute(case: Case) -> Case:
    return dataclasses.replace(case, images=tuple(path.absolute() for path in case.images))


def predict_one(
    content: bytes, case: Case, before: tuple[int, int] | None, places: Mapping[str, int]
) -> Outcome | Broken:
    """Predict one case, in a worker.

    Args:
        content: The recipe, as bytes.
        case: The case.
        before: As in `Batch`, of this case's record; None if there was none.
        places: The number of each worker among those of its machine.
    """
    with _one_at_a_time:
        try:
            batch = _batch_of(content, own_number(places))
            name = record_path(batch.mask_path(case)).name
            batch = dataclasses.replace(batch, before={} if before is None else {name: before})
            work = CaseWork(batch, Claims(None))
            with using_threads(batch.threads):
                return work.finish(case, partial(work.read, case), is_last_try=True)
        except MedfcnError as error:
            return Broken(f"on {platform.node()}: {error}", error.code, isinstance(error, WriteError))


@lru_cache(maxsize=1)
def _batch_of(content: bytes, number: int) -> Batch:
    recipe: Recipe = pickle.loads(content)
    return recipe.batch(device_of(recipe.source.device, number, torch.cuda.device_count()))


def device_of(device: str, number: int, gpus: int) -> str | None:
    """The device of one of several workers on a machine: a GPU of its own, if there are several and none is named.

    Args:
        device: The requested device.
        number: The number of the worker on its machine.
        gpus: The GPUs that it sees; those of `dask-cuda` see one each.

    Example:
        >>> device_of("auto", 5, 4), device_of("cuda", 1, 1), device_of("cpu", 1, 4), device_of("cuda:0", 1, 4)
        ('cuda:1', None, None, None)
    """
    return f"cuda:{number % gpus}" if gpus > 1 and device in ("auto", "cuda") else None
