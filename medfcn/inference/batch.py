"""A batch: many cases through one model or several averaged, each to a mask and the record beside it.

Here is everything that is the same for all its cases; `case_work.py` works on one case, `many.py` on all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medfcn.datasets import Case
from medfcn.errors import MedfcnError, ModelError
from medfcn.files import sha256_of
from medfcn.inference.case import READ_STRICTLY
from medfcn.inference.ensemble import Ensemble, load_models
from medfcn.inference.ineffective_options import mirrors_of
from medfcn.inference.naming import MaskNames, stems_of
from medfcn.labels.colours import label_table
from medfcn.labels.sidecar import MaskRecord, record_path
from medfcn.runs.arithmetic import Arithmetic
from medfcn.runs.cases import TrainingImages
from medfcn.runs.folder import DISAGREEMENT, ENTROPY, SEG_NRRD_FOLDER, UNCERTAINTY_FOLDER
from medfcn.runs.models import ModelFiles, Runs
from medfcn.runs.passing import absolute_path
from medfcn.runs.shards import Shard
from medfcn.volumes import ReadOptions
from medfcn.volumes.formats.nifti_labels import TableLabel
from medfcn.volumes.names import stem_of
from medfcn.volumes.reading import source_sha256

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import Transforms

MASK_ENDINGS = (".nii", ".nii.gz")
_installed = cache(version)
"""The version of a package, of which the metadata are read once."""
Kind = Literal["predicted", "kept", "others", "failed", "claimed", "short"]


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
        chosen_cases: Ids of those that were validation cases of one, on which its training chose something.
        training_patients: Ids of others that seem to be of patients whom one was trained on.
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
    chosen_cases: tuple[str, ...] = ()
    training_patients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The end of one case.

    Attributes:
        case: Its id.
        kind: `predicted`: it has a new mask. `kept`: its mask was there already. `others`: another process made it
            meanwhile. `failed`: it has none. `claimed` and `short` are no end yet: another process is at work on it,
            or memory ran out.
        problem: The error in one line, of a case that failed.
        flags: One line for each thing that a reader of the new mask should look at.
        seconds: Wall time from the volumes in memory to the written record.
        host: The machine.
    """

    case: str
    kind: Kind
    problem: str = ""
    flags: tuple[str, ...] = ()
    seconds: float = 0.0
    host: str = ""

    @property
    def is_end(self) -> bool:
        """False if the case is to be tried again."""
        return self.kind not in ("claimed", "short")


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
        expected: The hash of the mask that must come out, by case id, where masks are made again.
        trained_on: The images that the models were trained on.
        of_patients: Ids of the cases that seem to be of patients whom they were trained on.
        shard: The part of the cases that is this command's; None takes all.
        has_table: Masks get a label table in their header.
        colours: The chosen colours by label.
        uncertainty: Also write entropy and disagreement of each label.
        seg_nrrd: Also write each mask as a `.seg.nrrd` file.
        is_claimed: Other commands may share the cases, by locks. A shard has none: where several machines write into
            one folder, locks are not to be trusted.
        names: The names of files in the folder.
        has_tables: The tables of the folder are written at the end.
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
    expected: Mapping[str, str] = field(default_factory=dict)
    trained_on: TrainingImages = field(default_factory=TrainingImages)
    of_patients: frozenset[str] = frozenset()
    shard: Shard | None = None
    has_table: bool = True
    colours: Mapping[str, str] = field(default_factory=dict)
    uncertainty: bool = False
    seg_nrrd: bool = False
    is_claimed: bool = True
    names: MaskNames = field(default_factory=MaskNames)
    has_tables: bool = True

    @property
    def is_one_file(self) -> bool:
        """True if the target is a mask's own file."""
        return self.target.name.endswith(MASK_ENDINGS)

    @property
    def folder(self) -> Path:
        """The folder of the masks."""
        return self.target.parent if self.is_one_file else self.target

    @property
    def tables_folder(self) -> Path:
        """The folder of the tables."""
        return self.folder / self.names.tables

    @property
    def claimed_folder(self) -> Path | None:
        """The folder whose cases are claimed; None where no other process shares them."""
        return self.folder if self.is_claimed and self.shard is None and not self.is_one_file else None

    def mask_path(self, case: Case) -> Path:
        """The file of a case's mask."""
        return self.target if self.is_one_file else self.folder / self.names.mask(case)

    def used_files(self, case: Case) -> tuple[Path, ...]:
        """The image files of a case that the models use."""
        return self.models.card.use.of(case.images)

    def probability_paths(self, case: Case) -> tuple[Path, ...]:
        """The file of each label's probabilities; none unless they were requested."""
        if not self.probabilities:
            return ()
        if self.is_one_file:  # named after the file
            case = dataclasses.replace(case, id=stem_of(self.target))
        return tuple(self.folder / name for name in self.names.probabilities(case, self.models.card.labels.entries))

    def uncertainty_paths(self, case: Case) -> tuple[Path, ...]:
        """The files of each label's entropy, then of each label's disagreement; none unless they were requested."""
        if not self.uncertainty:
            return ()
        names = [f"{stem}_{what}" for what in (ENTROPY, DISAGREEMENT) for stem in self._stems(case)]
        return tuple(self.folder / UNCERTAINTY_FOLDER / f"{name}.nii.gz" for name in names)

    def _stems(self, case: Case) -> tuple[str, ...]:
        """The beginning of the names of files of each label."""
        return stems_of(stem_of(self.mask_path(case)), self.models.card.labels.entries)

    def seg_path(self, case: Case) -> tuple[Path, ...]:
        """The `.seg.nrrd` file of a case; none unless it was requested."""
        if not self.seg_nrrd:
            return ()
        return (self.folder / SEG_NRRD_FOLDER / f"{stem_of(self.mask_path(case))}.seg.nrrd",)

    @cached_property
    def table(self) -> tuple[TableLabel, ...]:
        """Values, names and colours of the labels in masks."""
        return label_table(self.models.card.labels, self.colours)

    def further_paths(self, case: Case) -> tuple[Path, ...]:
        """Every file of a case but the mask and its record."""
        return (*self.probability_paths(case), *self.uncertainty_paths(case), *self.seg_path(case))

    def outputs(self, case: Case) -> tuple[Path, ...]:
        """Every file of a case."""
        mask = self.mask_path(case)
        return (mask, record_path(mask), *self.further_paths(case))

    def outputs_by_folder(self, cases: Sequence[Case]) -> Mapping[Path, Sequence[str]]:
        """The names of every file of some cases, by folder."""
        found: dict[Path, list[str]] = defaultdict(list)
        for path in (path for case in cases for path in self.outputs(case)):
            found[path.parent].append(path.name)
        return found

    @property
    def arithmetic(self) -> Arithmetic:
        """The library and the precision that run the models."""
        return self.models.models[0].arithmetic

    @property
    def model_hashes(self) -> tuple[str, ...]:
        """Hashes of the models, and of what else in their cards decides a mask."""
        return (*(model.card.weights_sha256 for model in self.models.models), *self._card_sha256)

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
            medfcn=_installed("medfcn"),
            threads=self.threads,
            reading=self.options.recorded(),
            threshold=self.models.rules.threshold,
            tta=bool(mirrors),
            mirrors=mirrors,
            views=self.views,
            engine=self.arithmetic.engine,
            precision=self.arithmetic.precision,
            folded=self.arithmetic.folded or None,
            device=self.models.models[0].device.type,
            label_table=self.has_table,
            colours=dict(self.colours) or None,
            case=case.id,
            labels=card.labels,
            intended_use=card.intended_use,
        )

    def task(self, cases: Sequence[Case]) -> str:
        """A hash of everything that decides the files of some cases: the models, the images' paths, the options."""
        made = self.record(cases[0], ())
        files = (self.probabilities, self.uncertainty, self.seg_nrrd, self.has_table, self.names, dict(self.colours))
        images = [[case.id, *map(os.path.realpath, case.images)] for case in cases]
        known = [made.origin, made.mirrors, made.views, made.device, files, images]
        return hashlib.sha256(repr(known).encode("utf-8", errors="surrogateescape")).hexdigest()

    def _looks_alike(self, record: MaskRecord) -> bool:
        """True if the header of a mask is the one that would be written; old masks have no table, and are kept."""
        return record.label_table is None or (
            record.label_table == self.has_table and (record.colours or {}) == self.colours
        )

    def is_done(self, case: Case) -> bool:
        """True if the case's mask is the one that would be made now."""
        if case.lacks:
            return False
        mask = self.mask_path(case)
        try:
            record = MaskRecord.beside(mask)
            if record is None or record.by_label is None:
                return False
            hashes = [source_sha256(path, options=self.options) for path in self.used_files(case)]
            made_now = self.record(case, hashes)
            if record.origin != made_now.origin or record.mask_sha256 != sha256_of(mask):
                return False
            if not self._looks_alike(record):
                return False
            doubts = tuple(sha256_of(path) for path in self.uncertainty_paths(case))
            if doubts and doubts != record.uncertainty_sha256:
                return False
            segments = tuple(sha256_of(path) for path in self.seg_path(case))
            if segments and segments != (record.seg_nrrd_sha256,):
                return False
            shares = tuple(sha256_of(path) for path in self.probability_paths(case))
            return not shares or record.probabilities_sha256 == shares
        except (OSError, MedfcnError):
            return False


def stamp_of(path: Path) -> tuple[int, int]:
    """Numbers of a file that change when it is replaced."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ino


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where the models of a batch come from, so that other processes can load them too.

    Attributes:
        runs: Run folders.
        device: As in `load`.
        views: As in `load`.
        transforms: As in `load`.
        arithmetic: The library and the precision that run them, which was chosen for the output.
        threads: CPU threads.
    """

    runs: Runs
    device: str = "auto"
    views: str | Sequence[str] | None = None
    transforms: Transforms | None = None
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    threads: int = 1

    def absolute(self) -> ModelSource:
        """The same, for processes in other folders."""
        runs = [self.runs] if isinstance(self.runs, str | Path) else self.runs
        return dataclasses.replace(
            self, runs=[run if isinstance(run, ModelFiles) else absolute_path(run) for run in runs]
        )

    def load(self, device: str | None = None) -> Ensemble:
        """Load the models, on a device of one's own if there is one."""
        models = load_models(self.runs, device=device or self.device, views=self.views, transforms=self.transforms)
        return models.run_by(self.arithmetic, threads=self.threads)


@dataclass(frozen=True)
class Recipe:
    """A batch as another process can make it.

    Attributes:
        source: Where its models come from.
        hashes: Those of its models, which the other process must find too.
        choices: Everything else, by the name of its field.
        medfcn: The version, which the other process must have too.
    """

    source: ModelSource
    hashes: tuple[str, ...]
    choices: Mapping[str, Any]
    medfcn: str = field(default_factory=lambda: version("medfcn"))

    @classmethod
    def of(cls, batch: Batch, source: ModelSource) -> Recipe:
        """The recipe of a batch."""
        fields = [item.name for item in dataclasses.fields(batch) if item.name != "models"]
        return cls(source, batch.model_hashes, {name: getattr(batch, name) for name in fields})

    def batch(self, device: str | None = None) -> Batch:
        """The batch.

        Args:
            device: The device of this process, if it has one of its own.

        Raises:
            ModelError: The models, or the version of medfcn, are others than those of the recipe.
        """
        if self.medfcn != version("medfcn"):
            here = version("medfcn")
            raise ModelError(f"medfcn {self.medfcn} began the command, and a worker has {here}; install one version")
        batch = Batch(models=self.source.load(device), **self.choices)
        if batch.model_hashes != self.hashes:
            raise ModelError(
                "a run folder has changed since the command began, or is another one on this machine; start again",
                field="runs",
            )
        return batch
