"""Files in, masks out: one volume or a folder of them, with one model or several averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from medfcn.datasets import Case, find_inputs
from medfcn.datasets.channels import ChannelUse
from medfcn.datasets.tables import Ids, chosen_ids
from medfcn.errors import MedfcnError, ModelError
from medfcn.files import make_folder, refuse_existing_file
from medfcn.inference.batch import (
    MASK_ENDINGS,
    Batch,
    ModelSource,
    PredictionRun,
    stamp_of,
)
from medfcn.inference.batch_run import predict_cases, result_of
from medfcn.inference.case import as_channels
from medfcn.inference.engine_choice import EngineChoice
from medfcn.inference.ensemble import Ensemble, load_models
from medfcn.inference.ineffective_options import idle_tta, idle_views, requested_views
from medfcn.inference.merge import merge_parts
from medfcn.inference.naming import BidsNames, root_of
from medfcn.inference.refusals import refuse_begun, refuse_inputs, refuse_mistyped, refuse_other_work, refuse_taken
from medfcn.inference.request import PredictRequest
from medfcn.inference.training_patients import of_training_patients
from medfcn.labels.colours import colours_of
from medfcn.labels.sidecar import MaskRecord, record_path
from medfcn.progress import Progress, reporting, warn
from medfcn.runs.arithmetic import Wanted
from medfcn.runs.cases import TrainingImages
from medfcn.runs.claims import at_work, tasks_at_work
from medfcn.runs.models import models_of, refuse_swapped
from medfcn.runs.outputs import refuse_existing
from medfcn.runs.shards import Parts, Shard
from medfcn.text import counted, listed
from medfcn.volumes import ReadOptions, Volume
from medfcn.volumes.names import stem_of

_TRIED_CASES = 3
"""Cases of which one is read to try engines on, if the first ones are broken."""


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
    output = _Output.of(request, is_more=given is not None and given.is_more)
    choice = output.engine_choice(request.wanted)
    device = choice.wanted.device(request.device)
    loaded = load_models(request.runs, device=device, transforms=request.transforms)
    models = loaded.with_views(request.views)
    found = given.cases if given else _inputs(request, models.card.use)
    cases = _chosen(request.names.named(found), request.cases, reporting(request.progress))
    output.require_room_for(cases)
    if not request.finish:
        volumes = partial(_first_readable, cases, models.card.use, request.options)
        models = choice.made(models, volumes, threads=request.threads)
    batch = replace(
        _batch(request, output, models, has_tables=has_tables),
        expected=given.masks if given else {},
        trained_on=TrainingImages(
            models_of(request.runs),
            [card.training.get("cases", 0) for card in loaded.cards],
            chose=[bool(card.chosen_on_validation) for card in loaded.cards],
        ),
        of_patients=of_training_patients(models_of(request.runs), found),
    )
    if request.finish:
        return result_of(cases, batch, merge_parts(cases, batch), tables=False)
    batch = _unless_refused(request, output, cases, batch)
    progress = reporting(request.progress)
    if output.may_join:
        progress.say(f"joins the command that is at work in {output.path}, and shares its cases")
    for line in (*idle_views(loaded.cards, request.views), *idle_tta(models.cards, tta=request.tta)):
        warn(progress, line)
    for line in batch.trained_on.doubts:
        warn(progress, line)
    _say_old_rules(batch, progress)
    if isinstance(request.names, BidsNames):
        make_folder(output.path)
        request.names.describe(root_of(found))
    batch = replace(batch, models=choice.state(models, progress, threads=request.threads))
    source = ModelSource(
        runs=request.runs,
        device=device,
        views=request.views,
        transforms=request.transforms,
        arithmetic=batch.arithmetic,
        threads=request.threads,
    )
    with at_work(batch.claimed_folder, batch.task(cases)):
        result = predict_cases(cases, batch, progress, source=source, jobs=request.jobs, cluster=request.cluster)
    if request.resume and has_tables and not result.skipped:
        warn(progress, "resume kept no mask: none was there that these models made of these inputs in this way")
    if has_tables and given is None and request.shard is None and request.cases is None:
        _say_left(cases, batch, progress)
    return result


@dataclass(frozen=True)
class _Output:
    """The output of a prediction, as it is before anything is written.

    Attributes:
        path: The folder, or the file of the only mask.
        shard: The part of the cases that goes into it; None for all.
        is_new: No masks of an earlier command are continued.
        is_more: It has masks of the same command.
        may_join: A command is at work in it whose cases can be shared.
        before: The stamps of the records that it has, by their names.
    """

    path: Path
    shard: Shard | None
    is_new: bool
    is_more: bool
    may_join: bool
    before: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, request: PredictRequest, *, is_more: bool) -> _Output:
        """Look at the output of a request.

        Raises:
            OutputExistsError: Something in it would be replaced.
            SettingsError: It is meant to be a mask's file, and would become a folder.
        """
        path, shard = Path(request.output), request.chosen_shard
        if shard is not None:
            Parts(path / request.names.tables).refuse_others(shard)
        is_new = not (request.resume or request.finish or is_more)
        may_join = is_new and not request.overwrite and shard is None and bool(tasks_at_work(path))
        if is_new and not may_join:
            refuse_existing(path, overwrite=request.overwrite, is_shared=shard is not None, can_resume=True)
        records = path.glob("**/*.json" if request.format == "bids" else "*.json")
        before = {record.name: stamp_of(record) for record in records}
        refuse_mistyped(path)
        return cls(path, shard, is_new, is_more, may_join, before)

    @property
    def is_one_file(self) -> bool:
        """True if it is the file of the only mask."""
        return self.path.name.endswith(MASK_ENDINGS)

    def engine_choice(self, wanted: Wanted) -> EngineChoice:
        """The choice of engine and precision for it."""
        is_begun = not self.is_new or self.may_join or self.shard is not None
        return EngineChoice.of(wanted, self.path, is_one_file=self.is_one_file, is_begun=is_begun)

    def require_room_for(self, cases: Sequence[Case]) -> None:
        """ModelError if it is the file of one mask, and there are more or fewer cases."""
        if self.is_one_file and len(cases) != 1:
            raise ModelError(
                f"{self.path.name}: one mask file cannot hold {len(cases)} cases; give a folder to -o", field="output"
            )


def _inputs(request: PredictRequest, use: ChannelUse) -> tuple[Case, ...]:
    return find_inputs(
        request.source,
        channels=use.count,
        optional=use.dropped_places,
        series=request.options.series,
        bids=request.options.bids,
    )


def _batch(request: PredictRequest, output: _Output, models: Ensemble, *, has_tables: bool) -> Batch:
    """Everything that is the same for all cases, as far as the request says it."""
    return Batch(
        models=models,
        target=output.path,
        probabilities=request.probabilities,
        tta=request.tta,
        views=requested_views(request.views),
        options=request.options,
        threads=request.threads,
        resume=request.resume,
        before=output.before,
        shard=output.shard,
        has_table=request.label_table,
        colours=colours_of(request.colours, models.card.labels),
        uncertainty=request.uncertainty,
        seg_nrrd=request.seg_nrrd,
        names=request.names,
        has_tables=has_tables,
    )


def _unless_refused(request: PredictRequest, output: _Output, cases: Sequence[Case], batch: Batch) -> Batch:
    """The batch as it is to begin, unless files of others would be replaced or mixed."""
    if output.shard is not None and not (request.resume or request.overwrite):
        refuse_begun(cases, batch, output.shard)
    if batch.has_tables and not output.is_more:  # else several commands add cases, each its own
        refuse_other_work(cases, batch, overwrite=request.overwrite, joins=output.may_join)
    if output.may_join:
        batch = replace(batch, resume=True)
    if batch.is_one_file and not request.resume:
        refuse_existing_file(record_path(output.path), overwrite=request.overwrite)
    refuse_inputs(cases, batch)
    refuse_taken(cases, batch, report=request.report)
    return batch


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
