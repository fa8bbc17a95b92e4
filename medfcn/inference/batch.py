"""A batch: many cases through one model or several averaged, each to a mask and the record beside it.

Every mask is written whole or not at all, then its `<case>.json`, which says that the mask is complete. A case that
cannot be predicted is recorded in `failures.csv` and the others continue. A full disk, a missing permission or a lost
GPU stop the batch.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from medfcn.datasets import Case
from medfcn.errors import DatasetError, MedfcnError, MemoryShortError, SettingsError, WriteError
from medfcn.files import make_folder, make_inner_folder, remove_half_written, sha256_of, write_csv
from medfcn.inference.case import READ_STRICTLY, Prediction, as_channels, notes_of_dropped
from medfcn.inference.devices import using_threads
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.idle import mirrors_of
from medfcn.inference.review import write_review
from medfcn.inference.timing import Timings
from medfcn.labels.measures import measured
from medfcn.labels.sidecar import ENGINE, TRAINING_CASE, MaskRecord, record_path
from medfcn.labels.volume_table import write_volumes
from medfcn.memory import is_room_for_threads, one_memory_error
from medfcn.progress import Progress
from medfcn.runs.cases import TrainingImages
from medfcn.runs.claims import ClaimedError, Claims
from medfcn.runs.folder import FAILURES_FILE, TIMING_FILE, VOLUMES_FILE
from medfcn.volumes import ReadOptions, Volume
from medfcn.volumes.names import stem_of

MASK_ENDINGS = (".nii", ".nii.gz")
PROBABILITIES_FOLDER = "probabilities"
_READ_AHEAD = 2
"""Cases that wait in memory for the network."""
_WAIT_SECONDS = 0.2
"""Between two looks at the cases of other processes."""

_Channels = tuple[Volume, ...]
_Reading = Future[_Channels | None]
"""The channels of a case; None if its mask is done."""


@dataclass(frozen=True)
class PredictionRun:
    """The outcome of a batch.

    Attributes:
        output: The folder of the masks, or the one mask's file.
        predicted: Ids of the cases with a new mask.
        skipped: Ids of the cases whose mask was there already and is the one that this model makes of this input.
        failures: Id and error, in one line, of each case without a mask.
        flags: Id and one line for each mask that a reader should look at.
        review: Ids of the cases, new and skipped, with a label to be reviewed; None if the models do not know what to
            expect, and there is none.
        report: The page with the masks over the volumes, if it was requested.
        inputs: The image files of each case by its id.
        others: Ids of the cases that other processes predicted meanwhile.
        training_cases: Ids of the cases with a mask, new or not, that one of the models was trained on.
    """

    output: Path
    predicted: tuple[str, ...]
    skipped: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]
    flags: tuple[tuple[str, str], ...]
    review: tuple[str, ...] | None = None
    report: Path | None = None
    inputs: Mapping[str, tuple[Path, ...]] = field(default_factory=dict, repr=False)
    others: tuple[str, ...] = ()
    training_cases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Everything that is the same for all cases of a batch.

    Args:
        models: The models, whose probabilities are averaged.
        target: The folder for masks, or the file of the only mask.
        probabilities: Also write the probabilities of each label.
        tta: Average over mirror images; None follows the model's settings.
        views: The views that the models were cut down to; None if these are all.
        options: What to accept when reading volumes that are otherwise refused.
        threads: CPU threads of torch.
        resume: Keep the masks that these models made of the same input with the same settings.
        before: `stamp_of` of each record that was in the folder when the command began, by its name. Other ones are
            of processes that share the folder.
        trained_on: The images that the models were trained on.
    """

    models: Ensemble
    target: Path
    probabilities: bool = False
    tta: bool | None = None
    views: tuple[str, ...] | None = None
    options: ReadOptions = READ_STRICTLY
    threads: int = 1
    resume: bool = False
    before: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    trained_on: TrainingImages = field(default_factory=TrainingImages)

    @property
    def is_one_file(self) -> bool:
        """True if the target is a mask's own file."""
        return self.target.name.endswith(MASK_ENDINGS)

    @property
    def folder(self) -> Path:
        """The folder of the masks."""
        return self.target.parent if self.is_one_file else self.target

    def mask_path(self, case: Case) -> Path:
        """The file of a case's mask."""
        return self.target if self.is_one_file else self.folder / f"{case.id}.nii.gz"

    def used_files(self, case: Case) -> tuple[Path, ...]:
        """The image files of a case that the models use."""
        return self.models.card.use.of(case.images)

    def probability_paths(self, case: Case) -> tuple[Path, ...]:
        """The file of each label's probabilities; none unless they were requested."""
        if not self.probabilities:
            return ()
        entries = self.models.card.labels.entries
        # Named by value: a label's name comes from a file and may not be fit for a path.
        endings = [f"_{entry.written}" if len(entries) > 1 else "" for entry in entries]
        stem = stem_of(self.mask_path(case))
        return tuple(self.folder / PROBABILITIES_FOLDER / f"{stem}{ending}.nii.gz" for ending in endings)

    def outputs(self, case: Case) -> tuple[Path, ...]:
        """Every file of a case."""
        mask = self.mask_path(case)
        return (mask, record_path(mask), *self.probability_paths(case))

    @cached_property
    def _card_sha256(self) -> tuple[str, ...]:
        return tuple(model.card.decision_sha256 for model in self.models.models)

    def record(self, case: Case, input_sha256: Sequence[str]) -> MaskRecord:
        """The part of a mask's record that is known before it is predicted."""
        card, mirrors = self.models.card, mirrors_of(self.models.cards, tta=self.tta)
        return MaskRecord(
            input_sha256=tuple(input_sha256),
            model_sha256=tuple(model.card.weights_sha256 for model in self.models.models),
            card_sha256=self._card_sha256,
            medfcn=version("medfcn"),
            threads=self.threads,
            reading=dataclasses.asdict(self.options),
            threshold=self.models.rules.threshold,
            tta=bool(mirrors),
            mirrors=mirrors,
            views=self.views,
            engine=ENGINE,
            precision=self.models.models[0].precision,
            device=self.models.models[0].device.type,
            case=case.id,
            labels=card.labels,
            intended_use=card.intended_use,
        )

    def is_done(self, case: Case) -> bool:
        """True if the case's mask is the one that would be made now."""
        mask = self.mask_path(case)
        try:
            record = MaskRecord.beside(mask)
            if record is None or record.by_label is None:
                return False
            made_now = self.record(case, [sha256_of(path) for path in self.used_files(case)])
            if record.origin != made_now.origin or record.mask_sha256 != sha256_of(mask):
                return False
            hashes = tuple(sha256_of(path) for path in self.probability_paths(case))
            return not hashes or record.probabilities_sha256 == hashes
        except (OSError, SettingsError):
            return False


def stamp_of(path: Path) -> tuple[int, int]:
    """Numbers of a file that change when it is replaced."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ino


class _Shared:
    """The cases of a batch, of which other processes may take some."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.claims = Claims(None if batch.is_one_file else batch.folder)

    def read(self, case: Case) -> _Channels | None:
        """The channels of a case; None if its mask is done.

        Raises:
            ClaimedError: Another process is at work on it.
        """
        if not self.claims.take(case.id):
            raise ClaimedError(case.id)
        if (self.batch.resume or self.is_others(case)) and self.batch.is_done(case):
            return None
        return _read_case(case, self.batch)

    def is_others(self, case: Case) -> bool:
        """True if another process has written the record of a case since this one began."""
        path = record_path(self.batch.mask_path(case))
        return path.is_file() and stamp_of(path) != self.batch.before.get(path.name)


def predict_cases(cases: Sequence[Case], batch: Batch, progress: Progress) -> PredictionRun:
    """Predict cases one after the other, and write the masks and the tables of the folder.

    Several processes that work on one folder share its cases: each takes the next that nobody has, and ends when all
    cases are done.

    Raises:
        WriteError: The disk is full, or a folder may not be written to.
    """
    make_folder(batch.folder)
    _remove_half_written(cases, batch)
    predicted: list[str] = []
    skipped: list[str] = []
    others: list[str] = []
    failures: list[tuple[str, str]] = []
    shared = _Shared(batch)
    flags: list[tuple[str, str]] = []
    timings = Timings(None if batch.is_one_file else batch.folder / TIMING_FILE)

    def predict(case: Case, read: Callable[[], _Channels | None]) -> None:
        began = time.monotonic()
        with one_memory_error(case.id):
            volumes = read()
            if volumes is None:
                (others if shared.is_others(case) else skipped).append(case.id)
                return
            prediction = _predict_case(case, volumes, batch)
            predicted.append(case.id)
            timings.add(case.id, time.monotonic() - began)
            flags.extend((case.id, flag) for flag in (*notes_of_dropped(volumes), *prediction.flags))

    def fail(case: Case, error: MedfcnError) -> None:
        if isinstance(error, WriteError):
            raise error
        stale = "; an older mask of it is still there" if batch.mask_path(case).exists() else ""
        failures.append((case.id, f"{error}{stale}"))
        progress.say(f"{case.id}: failed: {error}{stale}")

    with ExitStack() as stack, progress.task("predict", len(cases)) as task, using_threads(batch.threads):
        stack.callback(shared.claims.close)
        stack.enter_context(timings)
        again: list[Case] = []
        for case, reading in _read_ahead(cases, shared):
            try:
                predict(case, reading.result)
            except (MemoryShortError, ClaimedError):
                again.append(case)  # once more at the end, without other volumes in memory
                continue
            except MedfcnError as error:
                fail(case, error)
            shared.claims.release(case.id)
            task.advance(case.id)
        while again:
            taken: list[Case] = []
            for case in again:
                try:
                    predict(case, partial(shared.read, case))
                except ClaimedError:
                    taken.append(case)
                    continue
                except MedfcnError as error:
                    fail(case, error)
                shared.claims.release(case.id)
                task.advance(case.id)
            if len(taken) == len(again):
                time.sleep(_WAIT_SECONDS)
            again = taken
    done = {*predicted, *skipped, *others}
    records = {case.id: MaskRecord.beside(batch.mask_path(case)) for case in cases if case.id in done}
    # The only mask may be anywhere, beside a `failures.csv` that is not medfcn's.
    review = write_review(None if batch.is_one_file else batch.folder, records)
    if not batch.is_one_file:
        _write_failures(batch.folder / FAILURES_FILE, failures)
        whole = {case.id: _with_measures(case, records.get(case.id), batch) for case in cases}
        write_volumes(batch.folder / VOLUMES_FILE, whole)
    return PredictionRun(
        batch.target,
        tuple(predicted),
        tuple(skipped),
        tuple(failures),
        tuple(flags),
        review,
        inputs={case.id: case.images for case in cases},
        others=tuple(others),
        training_cases=tuple(
            case for case, record in records.items() if record and batch.trained_on.contain(record.input_sha256)
        ),
    )


def _with_measures(case: Case, record: MaskRecord | None, batch: Batch) -> MaskRecord | None:
    """A record with sizes and intensities; those of a kept mask from before records had them are measured now."""
    if record is None or record.intensity is not None:
        return record
    try:
        images = as_channels([str(path) for path in case.images], batch.models.card.use, batch.options)
        measures, mask, _ = measured(batch.mask_path(case), batch.models.card.labels, images, options=batch.options)
    except MedfcnError:  # kept all the same, with what its record says
        return record
    return record.measured(measures, mask.voxel_ml)


def _remove_half_written(cases: Sequence[Case], batch: Batch) -> None:
    """Remove the temporary files of a killed process, of which each can be a patient's mask."""
    files = [path for case in cases for path in batch.outputs(case)] if batch.is_one_file else []
    for folder in (batch.folder, batch.folder / PROBABILITIES_FOLDER):
        if folder == batch.folder or not folder.is_symlink():
            remove_half_written(folder, *(path.name for path in files))


def _write_failures(path: Path, failures: Sequence[tuple[str, str]]) -> None:
    if failures:
        write_csv(path, ("case", "error"), failures)
    else:
        path.unlink(missing_ok=True)


def _predict_case(case: Case, volumes: Sequence[Volume], batch: Batch) -> Prediction:
    """Predict one case and write its mask, then the record, which says that the mask is complete."""
    prediction = batch.models.predict_case(list(volumes), tta=batch.tta, keep_probabilities=batch.probabilities)
    new = [path for path in (batch.mask_path(case), *batch.probability_paths(case)) if not path.exists()]
    try:
        _write_case(case, volumes, prediction, batch)
    except BaseException:
        for path in new:  # without their record they would be there for nothing
            path.unlink(missing_ok=True)
        raise
    return prediction


def _write_case(case: Case, volumes: Sequence[Volume], prediction: Prediction, batch: Batch) -> None:
    path, probability_paths = batch.mask_path(case), batch.probability_paths(case)
    prediction.mask.save(path, overwrite=True)
    if prediction.probabilities is not None:
        for file, array in zip(probability_paths, prediction.probabilities, strict=True):
            make_inner_folder(file.parent)
            volumes[0].with_array(array).save(file, overwrite=True)
    input_sha256 = [volume.sha256 for volume in volumes][: len(batch.used_files(case))]
    notes = [*batch.models.notes, *(note for volume in volumes for note in volume.notes)]
    if batch.trained_on.contain(input_sha256):
        notes.append(TRAINING_CASE)
    record = msgspec.structs.replace(
        batch.record(case, input_sha256),
        mask_sha256=sha256_of(path),
        probabilities_sha256=tuple(sha256_of(file) for file in probability_paths),
        expected_dice={name: item.expected_dice for name, item in prediction.assessments.items()},
        review={name: item.review for name, item in prediction.assessments.items()},
        flags=prediction.flags,
        notes=tuple(notes),
    )
    record.measured(prediction.measures, prediction.mask.voxel_ml).write(path)


def _read_case(case: Case, batch: Batch) -> _Channels:
    if case.lacks:
        raise DatasetError(case.lacks, code="CHANNEL_MISSING", field="image")
    with one_memory_error(case.id):
        return as_channels([str(path) for path in case.images], batch.models.card.use, batch.options)


def _ready(case: Case, shared: _Shared) -> _Reading:
    """A case that is read now."""
    reading: _Reading = Future()
    try:
        reading.set_result(shared.read(case))
    except (MedfcnError, ClaimedError) as error:
        reading.set_exception(error)
    return reading


def _read_ahead(cases: Sequence[Case], shared: _Shared) -> Iterator[tuple[Case, _Reading]]:
    """Each case with its volumes, which another thread reads while the network works."""
    if not is_room_for_threads(1):
        for case in cases:
            yield case, _ready(case, shared)
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: list[_Reading] = []
        try:
            for index, case in enumerate(cases):
                while len(waiting) < min(index + 1 + _READ_AHEAD, len(cases)):
                    waiting.append(pool.submit(shared.read, cases[len(waiting)]))
                reading = waiting[index]
                yield case, reading
                waiting[index] = Future()  # lets the volumes go
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
