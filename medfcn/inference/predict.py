"""Files in, masks out: one volume or a folder of them, with one model or several averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medfcn.calls import require_one
from medfcn.datasets import Case, find_inputs
from medfcn.datasets.channels import ChannelUse
from medfcn.datasets.tables import Ids, chosen_ids
from medfcn.errors import MedfcnError, ModelError, SettingsError
from medfcn.files import make_folder, refuse_existing_file
from medfcn.inference.batch import (
    MASK_ENDINGS,
    Batch,
    ModelSource,
    PredictionRun,
    stamp_of,
)
from medfcn.inference.case import READ_STRICTLY, as_channels
from medfcn.inference.devices import require_threads
from medfcn.inference.engine_choice import EngineChoice
from medfcn.inference.ensemble import load_models
from medfcn.inference.ineffective_options import idle_tta, idle_views, requested_views
from medfcn.inference.many import predict_cases, result_of
from medfcn.inference.merge import merge_parts
from medfcn.inference.naming import BidsNames, MaskNames, root_of
from medfcn.inference.refusals import refuse_begun, refuse_inputs, refuse_mistyped, refuse_other_work, refuse_taken
from medfcn.labels.colours import colours_of
from medfcn.labels.sidecar import MaskRecord, record_path
from medfcn.progress import Progress, reporting, warn
from medfcn.runs.arithmetic import Wanted
from medfcn.runs.cases import TrainingImages
from medfcn.runs.claims import at_work, tasks_at_work
from medfcn.runs.models import Runs, models_of, refuse_swapped
from medfcn.runs.outputs import refuse_existing
from medfcn.runs.shards import Parts, Shard
from medfcn.text import counted, listed
from medfcn.volumes import ReadOptions, Volume
from medfcn.volumes.names import stem_of

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import Transforms

_TRIED_CASES = 3
"""Cases of which one is read to try engines on, if the first ones are broken."""
Sidecars = Sequence[Path | str] | Path | str
"""`<case>.json` files beside masks, or folders of them."""


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """The options of `predict`.

    Attributes:
        runs: Run folders, `.medfcn` files, or names that `medfcn models` lists; several are an ensemble.
        source: A volume's file, a folder of them, or a data set; see `medfcn.datasets.find_inputs`.
        output: The folder for `<case>.nii.gz` and `<case>.json`, and for `confidence.csv`, which lists the cases with
            the lowest expected Dice first. For one volume it may be the mask's own file, ending in `.nii` or
            `.nii.gz`.
        probabilities: Also write `probabilities/<case>.nii.gz`, or `<case>_<value>.nii.gz` for several labels; where
            these overlap, `<case>_<index>.nii.gz`.
        tta: Average over mirror images; None follows the model's settings.
        views: Some of the views that the models were trained on, such as `coronal`; None takes all.
        cases: Ids of the cases to predict, or of patients with all theirs, or a file of them; None takes all.
        options: What to accept when reading volumes that are otherwise refused.
        overwrite: Replace existing masks.
        resume: Keep the masks that these models made of the same input with the same settings; make the others.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        engine: The library that runs the networks: `torch` (the default), `onnx`, `openvino`, or `auto` for the
            fastest that makes the same masks here. It is chosen once for an output folder, and kept by whoever works
            in it later.
        precision: `float32` (the default), `bfloat16`, or `auto` for bfloat16 where the training found it as good and
            the processor has it. Chosen once, as the engine.
        fold_norm: Fold batch normalisation into the convolutions before it, where torch runs in float32; None does,
            except in an output that began without.
        threads: CPU threads of torch. Another number can change a probability by 1e-6, so the default is one, and
            the `.json` beside a mask records the number.
        jobs: Number of processes, of `threads` threads each, that share the cases. A mask does not depend on it. None
            begins with one; others join if there are cores, memory and work for them, which is reported in a line.
        shard: `i/N`: predict only the i-th of N parts of the cases, for N commands on as many machines, which write
            into one output and need no locks. The one that finds that all have ended writes the folder's tables.
        finish: Only write the tables of a folder whose shards have all ended, where none of them did.
        cluster: The address of a Dask scheduler, or the path of its scheduler file: its workers predict the cases.
            They must see the same files under the same names.
        label_table: Write a label table (values, names, colours) and the intent code of labels into the header of
            masks, which viewers show.
        colours: Colours by label, such as `{"organ": "#E69F00"}` or `"organ=#E69F00"`; by default those of a palette.
        uncertainty: Also write, for each label, `uncertainty/<case>_entropy.nii.gz` (of the mean probability, bits)
            and `<case>_disagreement.nii.gz` (of folds, views and mirror images), on the volume's own grid.
        seg_nrrd: Also write `seg_nrrd/<case>.seg.nrrd`, a segmentation of 3D Slicer.
        again: `<case>.json` files, or folders of them: their masks are made again, byte for byte. Everything but the
            files comes from them, and RUN and INPUT are searched for the models and volumes by hash.
        format: `bids` names masks and probabilities as BIDS derivatives, with `dataset_description.json` and
            `dseg.tsv`, and puts the tables into `logs/`; the cases need names of BIDS. `dicom-seg` or `rtstruct` also
            writes each mask as a DICOM object that refers to its series, `<case>.dcm`; every volume must be a DICOM
            series. With `probabilities`, `dicom-seg` also writes `probabilities/<case>.dcm`.
        codes: Coded concepts of labels for `dicom-seg`, such as `gtv=SCT:86049000:Malignant neoplasm, primary`.
        transforms: The MONAI transforms that the runs were trained with, if their cards cannot hold them.
        report: Also write `report.html`: the masks over the volumes.
        progress: Where messages and progress are reported.
    """

    runs: Runs = field(kw_only=False)
    source: Path | str = field(kw_only=False)
    output: Path | str = field(kw_only=False)
    probabilities: bool = False
    tta: bool | None = None
    views: str | Sequence[str] | None = None
    cases: Ids | None = None
    options: ReadOptions = READ_STRICTLY
    overwrite: bool = False
    resume: bool = False
    device: str = "auto"
    engine: str | None = None
    precision: str | None = None
    fold_norm: bool | None = None
    threads: int = 1
    jobs: int | None = None
    shard: str | None = None
    finish: bool = False
    cluster: str | None = None
    label_table: bool = True
    colours: Mapping[str, str] | str | None = None
    uncertainty: bool = False
    seg_nrrd: bool = False
    again: Sidecars | None = None
    format: str = "nifti"
    codes: str = ""
    transforms: Transforms | None = None
    report: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise SettingsError(f"jobs {self.jobs}: at least 1 is needed; give a larger number", field="jobs")
        require_threads(self.threads)
        require_one(shard=self.shard, finish=self.finish or None, cluster=self.cluster)
        require_one(jobs=self.jobs, cluster=self.cluster)
        require_one(shard=self.shard, report=self.report or None)
        if (self.shard or self.finish) and Path(self.output).name.endswith(MASK_ENDINGS):
            raise SettingsError(f"{self.output}: shards fill a folder; give one to -o", field="output")
        self._require_names_of_bids()

    def _require_names_of_bids(self) -> None:
        """SettingsError for an output that BIDS has no name for."""
        if self.format != "bids":
            return
        if Path(self.output).name.endswith(MASK_ENDINGS):
            raise SettingsError(f"{self.output}: a BIDS derivative is a folder; give one to -o", field="output")
        given = {"uncertainty": self.uncertainty, "seg_nrrd": self.seg_nrrd}
        for name in (name for name, is_given in given.items() if is_given):
            raise SettingsError(
                f"format bids: BIDS has no name for {name}; leave it out, or predict it into another folder",
                code="OPTIONS_TOGETHER",
                field="format",
            )

    @property
    def names(self) -> MaskNames:
        """The names of files in the output."""
        return BidsNames(Path(self.output)) if self.format == "bids" else MaskNames()

    @property
    def wanted(self) -> Wanted:
        """The requested engine and precision."""
        return Wanted(self.engine, self.precision, self.fold_norm)

    @property
    def chosen_shard(self) -> Shard | None:
        """The part of the cases to predict; None for all."""
        return None if self.shard is None else Shard.parse(self.shard)


@dataclass(frozen=True)
class Given:
    """Cases whose masks are known already.

    Attributes:
        cases: The cases, with the files of their volumes.
        masks: The hash of the mask of each case, by its id; one that comes out otherwise is a failure.
        is_more: The output has masks of the same command.
    """

    cases: tuple[Case, ...]
    masks: Mapping[str, str]
    is_more: bool = False


def predict_masks(request: PredictRequest, given: Given | None = None, *, has_tables: bool = True) -> PredictionRun:
    """Predict as requested, without a report; see `medfcn.predict`.

    Args:
        request: The options.
        given: The cases, instead of those of `request.source`.
        has_tables: Write the tables of the folder; without, other commands may add cases to it.
    """
    if given is None:
        refuse_swapped(request.runs, request.source)
    target, shard = Path(request.output), request.chosen_shard
    if shard is not None:
        Parts(target / request.names.tables).refuse_others(shard)
    is_new = not (request.resume or request.finish or (given and given.is_more))
    may_join = is_new and not request.overwrite and shard is None and bool(tasks_at_work(target))
    if is_new and not may_join:
        refuse_existing(target, overwrite=request.overwrite, is_shared=shard is not None, can_resume=True)
    names = request.names
    records = target.glob("**/*.json" if request.format == "bids" else "*.json")
    before = {path.name: stamp_of(path) for path in records}
    refuse_mistyped(target)
    choice = EngineChoice.of(
        request.wanted,
        target,
        is_one_file=target.name.endswith(MASK_ENDINGS),
        is_begun=not is_new or may_join or shard is not None,
    )
    device = choice.wanted.device(request.device)
    loaded = load_models(request.runs, device=device, transforms=request.transforms)
    models = loaded.with_views(request.views)
    use, series = models.card.use, request.options.series
    found = given.cases if given else ()
    if given is None:
        found = find_inputs(
            request.source,
            channels=use.count,
            optional=use.dropped_places,
            series=series,
            bids=request.options.bids,
        )
    chosen = _chosen(names.named(found), request.cases, reporting(request.progress))
    if target.name.endswith(MASK_ENDINGS) and len(chosen) != 1:
        raise ModelError(
            f"{target.name}: one mask file cannot hold {len(chosen)} cases; give a folder to -o", field="output"
        )
    if not request.finish:
        models = choice.made(models, lambda: _first_readable(chosen, use, request.options), threads=request.threads)
    batch = Batch(
        models=models,
        target=target,
        probabilities=request.probabilities,
        tta=request.tta,
        views=requested_views(request.views),
        options=request.options,
        threads=request.threads,
        resume=request.resume,
        before=before,
        shard=shard,
        expected=given.masks if given else {},
        has_table=request.label_table,
        colours=colours_of(request.colours, models.card.labels),
        uncertainty=request.uncertainty,
        seg_nrrd=request.seg_nrrd,
        names=names,
        has_tables=has_tables,
        trained_on=TrainingImages(models_of(request.runs), [card.training.get("cases", 0) for card in loaded.cards]),
    )
    if request.finish:
        return result_of(chosen, batch, merge_parts(chosen, batch), tables=False)
    if shard is not None and not (request.resume or request.overwrite):
        refuse_begun(chosen, batch, shard)
    if has_tables and not (given and given.is_more):  # else several commands add cases, each its own
        refuse_other_work(chosen, batch, overwrite=request.overwrite, joins=may_join)
    if may_join:
        batch = replace(batch, resume=True)
    if batch.is_one_file and not request.resume:
        refuse_existing_file(record_path(target), overwrite=request.overwrite)
    refuse_inputs(chosen, batch)
    refuse_taken(chosen, batch, report=request.report)
    progress = reporting(request.progress)
    if may_join:
        progress.say(f"joins the command that is at work in {target}, and shares its cases")
    for line in (*idle_views(loaded.cards, request.views), *idle_tta(models.cards, tta=request.tta)):
        warn(progress, line)
    for line in batch.trained_on.doubts:
        warn(progress, line)
    _say_old_rules(batch, progress)
    if isinstance(names, BidsNames):
        make_folder(target)
        names.describe(root_of(found))
    batch = replace(batch, models=choice.state(models, progress, threads=request.threads))
    source = ModelSource(
        runs=request.runs,
        device=device,
        views=request.views,
        transforms=request.transforms,
        arithmetic=batch.arithmetic,
        threads=request.threads,
    )
    with at_work(batch.claimed_folder, batch.task(chosen)):
        result = predict_cases(chosen, batch, progress, source=source, jobs=request.jobs, cluster=request.cluster)
    if request.resume and has_tables and not result.skipped:
        warn(progress, "resume kept no mask: none was there that these models made of these inputs in this way")
    if has_tables and given is None and shard is None and request.cases is None:
        _say_left(chosen, batch, progress)
    return result


def _say_left(cases: Sequence[Case], batch: Batch, progress: Progress) -> None:
    """Name the masks in the output that are of cases which are not in the input: an earlier command made them."""
    if batch.is_one_file:
        return
    own = {batch.mask_path(case) for case in cases}
    left = [mask for name in batch.before if (mask := _mask_beside(batch.target / name)) and mask not in own]
    if left:
        ids = listed(sorted(stem_of(mask) for mask in left), limit=20)
        warn(
            progress,
            f"{batch.target} holds {counted(len(left), 'mask')} more, of cases that are not in the input: {ids}; an "
            "earlier command made them, and they stay as they are, in no table",
        )


def _mask_beside(record: Path) -> Path | None:
    """The mask of a record in a plain folder of masks; None where there is none."""
    mask = record.with_suffix(".nii.gz")
    return mask if mask.is_file() and MaskRecord.is_in(record) else None


def _first_readable(cases: Sequence[Case], use: ChannelUse, options: ReadOptions) -> Sequence[Volume]:
    """The channels of one of the first cases; none if these cannot be read."""
    for case in cases[:_TRIED_CASES]:
        with suppress(MedfcnError):
            return as_channels([str(path) for path in case.images], use, options)
    return ()


def _say_old_rules(batch: Batch, progress: Progress) -> None:
    """Say once that a run was trained with rules that training no longer uses, or does not know its volumes."""
    cards, rules = batch.models.cards, []
    if not any(card.fingerprint for card in cards):
        warn(
            progress,
            "nothing is known of the volumes that the model was trained on, so foreign volumes (of another modality, "
            "spacing or field of view) are not flagged; a new training records them",
        )
    if any(
        item.kind == "zscore" and item.background == "minimum" for card in cards for item in card.plan.intensities
    ):
        rules.append("background is what is exactly at the minimum, so that one voxel below it spoils the mask")
    if batch.models.rules.removes_components and not batch.models.rules.is_certainty_kept:
        rules.append("of an organ's components the largest is kept, even if another is more certain")
    if rules:
        progress.say(
            f"the model keeps the rules of its training: {'; '.join(rules)}. Training again would use the new ones"
        )


def _chosen(found: tuple[Case, ...], given: Ids | None, progress: Progress) -> tuple[Case, ...]:
    if given is None:
        return found
    patients = {case.id: case.group for case in found}
    ids = chosen_ids(given, patients, lack="volume", patients=patients, say=progress.say)
    return tuple(case for case in found if case.id in ids)
