"""Refusals before a batch begins: outputs in which something would be replaced or mixed that must not be."""

import os
from collections.abc import Sequence
from pathlib import Path

from medfcn.datasets import Case
from medfcn.errors import OutputExistsError, SettingsError
from medfcn.files import refuse_link
from medfcn.inference.batch import MASK_ENDINGS, Batch
from medfcn.inference.naming import BidsNames
from medfcn.labels.sidecar import MaskRecord, record_path
from medfcn.runs.claims import tasks_at_work
from medfcn.runs.folder import (
    CONFIDENCE_FILE,
    FAILURES_FILE,
    ITK_SNAP_FILE,
    PROBABILITIES_FOLDER,
    SEG_NRRD_FOLDER,
    SLICER_FILE,
    TIMING_FILE,
    UNCERTAINTY_FOLDER,
    VOLUMES_FILE,
    RunFolder,
)
from medfcn.runs.outputs import refuse_blocked
from medfcn.runs.shards import Parts, Shard

_NO_FOLDERS = (".mha", ".mhd", ".nrrd", ".nhdr", ".hdr", ".img", ".mgz", ".mgh", ".dcm", ".npy", ".npz", ".zip")
"""Endings that folders do not have, besides those that begin as a mask's does."""


def refuse_mistyped(target: Path) -> None:
    """Refuse an output that is meant to be a mask's file and would become a folder.

    Raises:
        SettingsError: It does not exist, and ends as a volume does or nearly does, but not in `.nii` or `.nii.gz`.
    """
    if target.exists() or target.name.endswith(MASK_ENDINGS):
        return
    suffixes = [suffix.lower() for suffix in target.suffixes]
    if any(suffix.startswith((".ni", ".gz")) or suffix in _NO_FOLDERS for suffix in suffixes):
        raise SettingsError(
            f"{target}: ends in neither .nii nor .nii.gz, as masks do; fix the ending, or make a folder of that name "
            "first",
            field="output",
        )


def refuse_other_work(cases: Sequence[Case], batch: Batch, *, overwrite: bool, joins: bool) -> None:
    """Refuse an output in which a command is at work whose masks would be replaced, or mixed with others.

    Raises:
        OutputExistsError: One at work has other models, cases or options; or there is one, and masks are overwritten.
    """
    tasks = tasks_at_work(batch.target)
    if not tasks and not joins:
        return
    own = batch.task(cases)
    if tasks - {own} or (joins and own not in tasks):  # the one to join may have ended meanwhile
        raise OutputExistsError(
            f"{batch.folder}: another command is at work in it, with other models, cases or options; choose another "
            "output, or the same command"
        )
    if tasks and overwrite:
        raise OutputExistsError(
            f"{batch.folder}: another command is at work in it; leave --overwrite out to share its cases, or choose "
            "another output"
        )


def refuse_begun(cases: Sequence[Case], batch: Batch, shard: Shard) -> None:
    """Refuse to begin a shard again that has begun before.

    Raises:
        OutputExistsError: An output of one of its cases, or its table, is there.
    """
    taken = [path for case in cases if shard.has(case.id) for path in batch.outputs(case) if path.exists()]
    for path in (*taken[:1], Parts(batch.tables_folder).path(shard)):
        if path.exists():
            raise OutputExistsError(
                f"{path}: already exists, of a command before; go on with it (--resume), replace it (--overwrite), "
                "or choose another output"
            )


def refuse_inputs(cases: Sequence[Case], batch: Batch) -> None:
    """Refuse to replace a volume by the mask that is made from it.

    Raises:
        OutputExistsError: An output of a case is one of the volumes.
    """
    inputs = {os.path.realpath(path) for case in cases for path in case.images}
    for case in cases:
        for path in (batch.mask_path(case), *batch.further_paths(case)):
            if os.path.realpath(path) in inputs:
                raise OutputExistsError(
                    f"{path}: is an input, and would be replaced by a mask; choose another output", field="output"
                )


def refuse_taken(cases: Sequence[Case], batch: Batch, *, report: bool) -> None:
    """Refuse links and strange things where files are to be, before the first of them is written.

    Args:
        cases: The cases to predict.
        batch: Says which files each of them gets.
        report: A report is among the outputs.

    Raises:
        OutputExistsError: A link, a folder, or the record of another tool is in the place of a file.
    """
    tables = (FAILURES_FILE, CONFIDENCE_FILE, VOLUMES_FILE, TIMING_FILE, *([RunFolder.report] if report else []))
    tables = () if batch.is_one_file else (*tables, ITK_SNAP_FILE, SLICER_FILE)
    places = batch.outputs_by_folder(cases)
    inner = batch.folder / PROBABILITIES_FOLDER
    wanted = {
        PROBABILITIES_FOLDER: batch.probabilities and not isinstance(batch.names, BidsNames),
        UNCERTAINTY_FOLDER: batch.uncertainty,
        SEG_NRRD_FOLDER: batch.seg_nrrd,
    }
    folders = [name for name, is_wanted in wanted.items() if is_wanted]
    if batch.names.tables:
        folders.append(batch.names.tables)
        refuse_blocked(batch.tables_folder, files=tables)
    own = (*places.get(batch.folder, ()), *(() if batch.names.tables else tables))
    refuse_blocked(batch.folder, files=own, folders=folders)
    for place in sorted(places.keys() - {batch.folder, inner}):
        for above in (place, *place.parents):
            if above == batch.folder:
                break
            refuse_link(above)
        refuse_blocked(place, files=places[place])
    refuse_blocked(inner, files=places.get(inner, ()))
    for case in cases:
        record = record_path(batch.mask_path(case))
        if MaskRecord.is_of_another_tool(record):
            raise OutputExistsError(
                f"{record}: was written by another tool, and would be replaced; choose another output", field="output"
            )
