"""Files in, masks out: one volume or a folder of them, with one model or several averaged.

Every mask is written whole or not at all, with a `<case>.json` beside it that says what it was made from and
by. A case that cannot be predicted is recorded in `failures.csv` and the others go on; a full disk, a missing
permission or a lost GPU stop the run.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import msgspec

from medfcn.datasets import Case, find_inputs
from medfcn.errors import DatasetError, MedfcnError, ModelError, OutputExistsError, SettingsError
from medfcn.files import refuse_existing_file, sha256_of, write_csv
from medfcn.inference.card import Card
from medfcn.inference.devices import using_threads
from medfcn.inference.ensemble import Ensemble as Ensemble
from medfcn.inference.ensemble import load as load
from medfcn.inference.model import READ_STRICTLY, Prediction, as_channels
from medfcn.inference.review import Row, rows_of, write_confidence
from medfcn.labels.sidecar import MaskRecord, record_path
from medfcn.progress import Progress, Silent
from medfcn.runs.folder import CONFIDENCE_FILE, FAILURES_FILE
from medfcn.runs.outputs import refuse_existing
from medfcn.volumes import ReadOptions, Volume
from medfcn.volumes.names import stem_of

_READ_AHEAD = 2
_MASK_ENDINGS = (".nii", ".nii.gz")
_NO_FOLDERS = (".mha", ".mhd", ".nrrd", ".nhdr", ".hdr", ".img", ".mgz", ".mgh", ".dcm", ".npy", ".npz", ".zip")
"""Endings that folders do not have, beside whatever begins as a mask's does."""


@dataclass(frozen=True)
class PredictionRun:
    """What became of a folder.

    Attributes:
        output: Where the masks are.
        predicted: Ids of the cases that have a new mask.
        skipped: Ids whose mask was there already and is what this model makes of this input.
        failures: Id and one line for each case without a mask.
        flags: Id and one line for each mask a reader should look at.
        review: Ids of the cases, new ones and those that were there, of which a label is to be reviewed; None where
            the models do not know what to expect, and no mask lacks a label.
    """

    output: Path
    predicted: tuple[str, ...]
    skipped: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]
    flags: tuple[tuple[str, str], ...]
    review: tuple[str, ...] | None = None


def predict(
    runs: Sequence[Path | str] | Path | str,
    source: Path | str,
    output: Path | str,
    *,
    probabilities: bool = False,
    tta: bool | None = None,
    views: str | Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    options: ReadOptions = READ_STRICTLY,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> PredictionRun:
    """Put masks on a volume, or on every volume of a folder.

    Args:
        runs: Run folders; several are an ensemble.
        source: A volume's file, or a folder of them.
        output: The folder for `<case>.nii.gz` and `<case>.json`, and for `confidence.csv`, which lists all of these
            cases, those first of whose masks least is expected; for one volume it may be the mask's own file, ending
            in `.nii` or `.nii.gz`.
        probabilities: Also write `probabilities/<case>.nii.gz`, or `<case>_<value>.nii.gz` for several labels; where
            these overlap, `<case>_<place in the list>.nii.gz`.
        tta: Average over mirror images; None does as the model's settings say.
        views: Some of the views that the models were trained on, such as `coronal`; None takes them all.
        cases: Ids of the cases to predict; None takes all.
        options: What to opt in to when reading volumes that are otherwise refused.
        overwrite: Replace masks that are there.
        resume: Keep masks that this model made of this input with these settings, and make the others.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of torch. Another number can change a probability by 1e-6, so masks are made with one
            unless asked otherwise, and their `.json` says with how many.
        progress: Where messages go.

    Raises:
        OutputExistsError: The output is there, and neither `overwrite` nor `resume` was asked for; or a mask would
            take the place of an input, which neither allows.
        MissingFileError: A run or the source is not there.
        ModelError: A model cannot be loaded.
        DatasetError: The folder holds no volumes, or not those of `cases`.
        SettingsError: The output's name ends nearly as a mask's does.
        OSError: The disk is full, or a folder may not be written to.
    """
    say = progress or Silent()
    target = Path(output)
    if not resume:
        refuse_existing(target, overwrite=overwrite)
    found = _chosen(find_inputs(source), cases)
    is_file = target.name.endswith(_MASK_ENDINGS)
    _refuse_mistyped(target)
    if is_file and len(found) != 1:
        raise ModelError(f"{target.name}: one mask file cannot hold {len(found)} cases; give a folder to -o")
    models = load(runs, device=device, views=views)
    folder = target.parent if is_file else target
    job = _Job(
        models=models,
        folder=folder,
        mask=target if is_file else None,
        probabilities=probabilities,
        tta=tta,
        options=options,
        threads=threads,
    )
    if is_file and not resume:
        refuse_existing_file(record_path(target), overwrite=overwrite)
    _refuse_inputs(found, job)
    folder.mkdir(parents=True, exist_ok=True)
    predicted, skipped, failures, flags = [], [], [], []
    with say.task("predict", len(found)) as task, using_threads(threads):
        for case, volumes in _read_ahead(found, job, resume=resume):
            try:
                read = volumes.result()
                if read is None:
                    skipped.append(case.id)
                else:
                    prediction = job.write(case, read)
                    predicted.append(case.id)
                    flags += [(case.id, flag) for flag in prediction.flags]
            except MedfcnError as error:
                stale = "; an older mask of it is still there" if job.mask_path(case).exists() else ""
                failures.append((case.id, f"{error}{stale}"))
                say.say(f"{case.id}: failed: {error}{stale}")
            task.advance(case.id)
    # A mask's own file may lie anywhere, beside a `failures.csv` that is not ours.
    if failures and not is_file:
        write_csv(folder / FAILURES_FILE, ("case", "error"), failures)
    elif not is_file:
        (folder / FAILURES_FILE).unlink(missing_ok=True)
    done = {*predicted, *skipped}
    rows = [row for case in found if case.id in done for row in job.judged(case)]
    is_told = any(dice is not None or is_due for *_, dice, is_due in rows)
    if is_told and not is_file:
        write_confidence(folder / CONFIDENCE_FILE, rows)
    elif not is_file:
        (folder / CONFIDENCE_FILE).unlink(missing_ok=True)
    review = tuple(dict.fromkeys(case_id for case_id, *_, is_due in rows if is_due)) if is_told else None
    return PredictionRun(target, tuple(predicted), tuple(skipped), tuple(failures), tuple(flags), review)


def _refuse_mistyped(target: Path) -> None:
    """Refuse an output that was meant to be a mask's file and would become a folder.

    Raises:
        SettingsError: It is not there, and ends as a volume does or nearly does, but not in `.nii` or `.nii.gz`.
    """
    if target.exists() or target.name.endswith(_MASK_ENDINGS):
        return
    suffixes = [suffix.lower() for suffix in target.suffixes]
    if any(suffix.startswith((".ni", ".gz")) or suffix in _NO_FOLDERS for suffix in suffixes):
        raise SettingsError(
            f"{target}: ends in neither .nii nor .nii.gz, as masks do; mend the ending, or make the folder first "
            "if one of that name is meant"
        )


def _chosen(found: tuple[Case, ...], ids: Sequence[str] | None) -> tuple[Case, ...]:
    if ids is None:
        return found
    unknown = sorted(set(ids) - {case.id for case in found})
    if unknown:
        raise DatasetError(
            f"{len(unknown)} of the cases asked for have no volume, first {unknown[0]}; correct the ids"
        )
    return tuple(case for case in found if case.id in set(ids))


def _refuse_inputs(found: Sequence[Case], job: "_Job") -> None:
    """Refuse to put a mask in the place of a volume that it is made from."""
    inputs = {path.resolve() for case in found for path in case.images}
    for case in found:
        for path in (job.mask_path(case), *job.probability_paths(case)):
            if path.resolve() in inputs:
                raise OutputExistsError(
                    f"{path}: is an input, and would be replaced by a mask; choose another output"
                )


@dataclass(frozen=True)
class _Job:
    """What is the same for every case of a run."""

    models: Ensemble
    folder: Path
    mask: Path | None
    probabilities: bool
    tta: bool | None
    options: ReadOptions
    threads: int

    def mask_path(self, case: Case) -> Path:
        return self.mask or self.folder / f"{case.id}.nii.gz"

    def probability_paths(self, case: Case) -> tuple[Path, ...]:
        """Where each label's probabilities go, if they were asked for."""
        if not self.probabilities:
            return ()
        entries = self.models.card.labels.entries
        stem = stem_of(self.mask_path(case))
        # Named by value: a label's name comes from a file and may not be fit for a path.
        endings = [f"_{entry.written}" if len(entries) > 1 else "" for entry in entries]
        return tuple(self.folder / "probabilities" / f"{stem}{ending}.nii.gz" for ending in endings)

    @cached_property
    def card_sha256(self) -> tuple[str, ...]:
        """Of each model; see `_card_sha256`."""
        return tuple(_card_sha256(model.card) for model in self.models.models)

    def record(self, case: Case, input_sha256: Sequence[str]) -> MaskRecord:
        """The part of a mask's record that is known before it is predicted."""
        card = self.models.card
        return MaskRecord(
            input_sha256=tuple(input_sha256),
            model_sha256=tuple(model.card.weights_sha256 for model in self.models.models),
            card_sha256=self.card_sha256,
            medfcn=version("medfcn"),
            threads=self.threads,
            reading=dataclasses.asdict(self.options),
            threshold=self.models.rules.threshold,
            tta=card.settings.prediction.tta if self.tta is None else self.tta,
            case=case.id,
            labels=card.labels,
            intended_use=card.intended_use,
        )

    def is_done(self, case: Case) -> bool:
        """Whether the case's mask is what would be made now."""
        mask = self.mask_path(case)
        try:
            record = MaskRecord.beside(mask)
            if record is None or record.by_label is None:
                return False
            made_now = self.record(case, [sha256_of(path) for path in case.images])
            if record.origin != made_now.origin or record.mask_sha256 != sha256_of(mask):
                return False
            hashes = tuple(sha256_of(path) for path in self.probability_paths(case))
            return not hashes or record.probabilities_sha256 == hashes
        except (OSError, SettingsError):
            return False

    def write(self, case: Case, volumes: Sequence[Volume]) -> Prediction:
        """Predict one case and write its mask, then what says that the mask is complete."""
        prediction = self.models.predict_case(list(volumes), tta=self.tta, keep_probabilities=self.probabilities)
        path = self.mask_path(case)
        prediction.mask.save(path, overwrite=True)
        probability_paths = self.probability_paths(case)
        if prediction.probabilities is not None:
            for file, array in zip(probability_paths, prediction.probabilities, strict=True):
                file.parent.mkdir(exist_ok=True)
                volumes[0].with_array(array).save(file, overwrite=True)
        record = msgspec.structs.replace(
            self.record(case, [volume.sha256 for volume in volumes]),
            mask_sha256=sha256_of(path),
            probabilities_sha256=tuple(sha256_of(file) for file in probability_paths),
            volumes_ml=prediction.volumes_ml,
            expected_dice={name: item.expected_dice for name, item in prediction.assessments.items()},
            review={name: item.review for name, item in prediction.assessments.items()},
            flags=prediction.flags,
            notes=tuple(note for volume in volumes for note in volume.notes),
        )
        record.write(path)
        return prediction

    def judged(self, case: Case) -> list[Row]:
        """Rows of `confidence.csv` from the record beside a case's mask."""
        record = MaskRecord.beside(self.mask_path(case))
        return rows_of(case.id, record) if record else []


def _card_sha256(card: Card) -> str:
    """A hash of what decides a mask, and what is said of it, beside the weights."""
    value = card.to_json()
    what = [value[name] for name in ("labels", "channels", "one_part", "view_weights", "threshold", "unseen")]
    plan = {name: item for name, item in value["plan"].items() if name != "reasons"}
    settings = [value["settings"][name] for name in ("network", "prediction")]
    return hashlib.sha256(json.dumps([what, plan, settings], sort_keys=True).encode()).hexdigest()


def _read_ahead(
    cases: Sequence[Case], job: _Job, *, resume: bool
) -> Iterator[tuple[Case, "Future[tuple[Volume, ...] | None]"]]:
    """Each case with its volumes, read by another thread while the network works; None for one that is done."""

    def read(case: Case) -> tuple[Volume, ...] | None:
        if resume and job.is_done(case):
            return None
        return as_channels([str(path) for path in case.images], job.models.card.channels, job.options)

    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: list[Future[tuple[Volume, ...] | None]] = []
        try:
            for index, case in enumerate(cases):
                while len(waiting) < min(index + 1 + _READ_AHEAD, len(cases)):
                    waiting.append(pool.submit(read, cases[len(waiting)]))
                future = waiting[index]
                yield case, future
                waiting[index] = Future()  # lets the volumes go
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
