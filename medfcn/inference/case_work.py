"""One case of a batch: its channels are read, a mask is predicted and written, then the record beside it.

Every mask is written whole or not at all, then its `<case>.json`, which says that the mask is complete.
"""

import functools
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from medfcn.datasets import Case
from medfcn.errors import DatasetError, MedfcnError, MemoryShortError, ModelError, WriteError
from medfcn.files import make_inner_folder, named_together, remove_half_written, sha256_of
from medfcn.inference.batch import Batch, Kind, Outcome, stamp_of
from medfcn.inference.case import Prediction, as_channels, notes_of_dropped
from medfcn.labels.measures import measured
from medfcn.labels.segments import write_segments
from medfcn.labels.sidecar import CHOSEN_CASE, TRAINING_CASE, TRAINING_PATIENT, MaskRecord, record_path
from medfcn.memory import has_limit
from medfcn.memory_errors import one_memory_error
from medfcn.runs.claims import ClaimedError, Claims
from medfcn.threads import is_room_for_threads
from medfcn.volumes import Volume
from medfcn.volumes.same_voxels import voxels_sha256

_READ_AHEAD = 2
"""Cases that wait in memory for the network."""

Channels = tuple[Volume, ...]
_Reading = Future[Channels | None]
"""The channels of a case; None if its mask is done."""
Take = Callable[[bool], Case | None]
"""Gives the next case, or None if there is none. If the argument is true, one is needed now, and None is the end."""


class CaseWork:
    """Work on the cases of a batch, of which other processes may take some.

    Args:
        batch: The batch.
        claims: The claims on its cases.
    """

    def __init__(self, batch: Batch, claims: Claims) -> None:
        self.batch = batch
        self.claims = claims

    def read(self, case: Case) -> Channels | None:
        """The channels of a case; None if its mask is done.

        Raises:
            ClaimedError: Another process is at work on it.
        """
        if not self.claims.take(case.id):
            raise ClaimedError(case.id)
        if self.claims.was_left(case.id):
            for path in self.batch.outputs(case):
                remove_half_written(path.parent, path.name)
        if (self.batch.resume or self.is_others(case)) and self.batch.is_done(case):
            return None
        return _read_case(case, self.batch)

    def is_others(self, case: Case) -> bool:
        """True if another process has written the record of a case since this one began."""
        if self.batch.is_one_file:  # which is shared with nobody
            return False
        path = record_path(self.batch.mask_path(case))
        return path.is_file() and stamp_of(path) != self.batch.before.get(path.name)

    def finish(self, case: Case, read: Callable[[], Channels | None], *, is_last_try: bool = False) -> Outcome:
        """Predict a case, unless its mask is done.

        Args:
            case: The case.
            read: Gives its channels, as `read` does.
            is_last_try: Too little memory is a failure.

        Raises:
            WriteError: The disk is full, or a folder may not be written to.
        """
        began = time.monotonic()
        flags: tuple[str, ...] = ()
        try:
            with one_memory_error(case.id):
                volumes = read()
                if volumes is not None:
                    flags = _predict_case(case, volumes, self.batch)
            kind: Kind = "predicted" if volumes is not None else "others" if self.is_others(case) else "kept"
        except ClaimedError:
            return Outcome(case.id, "claimed")
        except WriteError:
            raise
        except MedfcnError as error:
            if isinstance(error, MemoryShortError) and not is_last_try:
                return Outcome(case.id, "short")
            stale = "; an older mask of it is still there" if self.batch.mask_path(case).exists() else ""
            outcome = Outcome(case.id, "failed", f"{error}{stale}", host=platform.node())
        else:
            seconds = time.monotonic() - began
            outcome = Outcome(case.id, kind, flags=flags, seconds=seconds, host=platform.node())
        self.claims.release(case.id)
        return outcome

    def outcomes(self, take: Take) -> Iterator[Outcome]:
        """Work on cases until there are no more; the next ones are read meanwhile.

        Raises:
            WriteError: The disk is full, or a folder may not be written to.
        """
        for case, reading in _read_ahead(take, self.read):
            outcome = self.finish(case, reading.result)
            del reading  # lets the volumes go
            yield outcome


def _ready(case: Case, read: Callable[[Case], Channels | None]) -> _Reading:
    """A case that is read now."""
    reading: _Reading = Future()
    try:
        reading.set_result(read(case))
    except (MedfcnError, ClaimedError) as error:
        reading.set_exception(error)
    return reading


def _read_ahead(take: Take, read: Callable[[Case], Channels | None]) -> Iterator[tuple[Case, _Reading]]:
    """Each case with its volumes, which another thread reads while the network works, if there is memory for it."""
    # Where the address space is limited, what another thread takes could be what the network was promised.
    if has_limit() or not is_room_for_threads(1):
        while (case := take(True)) is not None:
            yield case, _ready(case, read)
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: deque[tuple[Case, _Reading]] = deque()
        try:
            while True:
                while len(waiting) <= _READ_AHEAD and (case := take(not waiting)) is not None:
                    waiting.append((case, pool.submit(read, case)))
                if not waiting:
                    return
                yield waiting.popleft()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _predict_case(case: Case, volumes: Sequence[Volume], batch: Batch) -> tuple[str, ...]:
    """Predict one case and write its mask, then the record, which says that the mask is complete; gives its flags."""
    prediction = batch.models.predict_case(
        list(volumes),
        tta=batch.tta,
        keep_probabilities=batch.probabilities,
        uncertainty=batch.uncertainty,
        options=batch.options,
    )
    new = [path for path in (batch.mask_path(case), *batch.further_paths(case)) if not path.exists()]
    try:
        with named_together():  # a later command compares each file with the hash in the record
            _write_case(case, volumes, prediction, batch)
    except BaseException:
        for path in new:  # without their record they would be there for nothing
            path.unlink(missing_ok=True)
        raise
    return (*notes_of_dropped(volumes), *prediction.flags)


def _write_case(case: Case, volumes: Sequence[Volume], prediction: Prediction, batch: Batch) -> None:
    path, probability_paths = batch.mask_path(case), batch.probability_paths(case)
    if path.parent != batch.folder:
        make_inner_folder(path.parent)
    prediction.mask.save(path, overwrite=True, labels=batch.table if batch.has_table else ())
    mask_sha256 = sha256_of(path)
    if batch.expected.get(case.id, mask_sha256) != mask_sha256:
        raise ModelError(
            f"{case.id}: the mask comes out with other bytes than its record says; use the version of medfcn and "
            "torch, the device and the kind of processor that made it",
            code="MASK_DIFFERS",
        )
    arrays = [*(() if prediction.probabilities is None else prediction.probabilities)]
    if (maps := prediction.uncertainty) is not None:
        arrays += [*maps.entropy, *maps.disagreement]
    for file, array in zip((*probability_paths, *batch.uncertainty_paths(case)), arrays, strict=True):
        make_inner_folder(file.parent)
        volumes[0].with_array(array).save(file, overwrite=True)
    for file in batch.seg_path(case):
        make_inner_folder(file.parent)
        write_segments(file, prediction.mask, batch.models.card.labels, batch.colours)
    input_sha256 = [volume.sha256 for volume in volumes][: len(batch.used_files(case))]
    notes = [*batch.models.notes, *(note for volume in volumes for note in volume.notes)]
    hashes = input_sha256, functools.cache(lambda: [voxels_sha256(volume) for volume in volumes])
    if batch.trained_on.contain(*hashes):
        notes.append(TRAINING_CASE)
    elif batch.trained_on.chose(*hashes):
        notes.append(CHOSEN_CASE)
    elif case.id in batch.of_patients:
        notes.append(TRAINING_PATIENT)
    record = msgspec.structs.replace(
        batch.record(case, input_sha256),
        mask_sha256=mask_sha256,
        uncertainty_sha256=tuple(sha256_of(file) for file in batch.uncertainty_paths(case)) or None,
        seg_nrrd_sha256=next((sha256_of(file) for file in batch.seg_path(case)), None),
        probabilities_sha256=tuple(sha256_of(file) for file in probability_paths),
        expected_dice={name: item.expected_dice for name, item in prediction.assessments.items()},
        review={name: item.review for name, item in prediction.assessments.items()},
        flags=prediction.flags,
        notes=tuple(notes),
    )
    record.measured(prediction.measures, prediction.mask.voxel_ml).write(path, more=batch.names.about(case))


def _read_case(case: Case, batch: Batch) -> Channels:
    if case.lacks:
        raise DatasetError(case.lacks, code="CHANNEL_MISSING", field="image")
    with one_memory_error(case.id):
        return as_channels([str(path) for path in case.images], batch.models.card.use, batch.options)


def with_measures(case: Case, record: MaskRecord | None, batch: Batch) -> MaskRecord | None:
    """A record with sizes and intensities; those of a kept mask from before records had them are measured now."""
    if record is None or record.intensity is not None:
        return record
    try:
        images = as_channels([str(path) for path in case.images], batch.models.card.use, batch.options)
        measures, mask, _ = measured(batch.mask_path(case), batch.models.card.labels, images, options=batch.options)
    except MedfcnError:  # kept all the same, with what its record says
        return record
    return record.measured(measures, mask.voxel_ml)
