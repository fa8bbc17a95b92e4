"""`medfcn predict`: masks on a volume or a folder of them."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfcn.commands.exits import FAILED, SOME_FAILED, answer, command, reporter, show
from medfcn.commands.options import (
    allocator_option,
    cases_option,
    cluster_option,
    count,
    device_option,
    engine_options,
    flag,
    memory_option,
    overwrite_option,
    reading_options,
    text,
)
from medfcn.cores import usable_cores
from medfcn.errors import SettingsError
from medfcn.libraries import loading, require_installed
from medfcn.runs.workers import workers_begun
from medfcn.systems import PASSES_SOCKETS

if TYPE_CHECKING:
    from medfcn.inference.batch import PredictionRun
    from medfcn.volumes import ReadOptions


def _looking_at(options: ReadOptions, around: str | None, box: str | None) -> ReadOptions:
    """Options with the part of the volumes to look at.

    Raises:
        SettingsError: It is not given as numbers, or cannot be.
    """
    place = None if around is None else _numbers("around", around, 3)
    edges = None if box is None else _numbers("box", box, 6)
    pairs = None if edges is None else tuple(zip(edges[::2], edges[1::2], strict=True))
    if place is None and pairs is None:
        return options
    return dataclasses.replace(options, around_mm=place, box_mm=pairs)  # type: ignore[arg-type]


def _numbers(field: str, text: str, count: int) -> tuple[float, ...]:
    try:
        found = tuple(float(number) for number in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count:
        raise SettingsError(f"{text!r} is not {count} numbers with commas between them, in millimetres", field=field)
    return found


@command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, help="A folder for masks; for one volume also a .nii or .nii.gz file.")
@flag("--probabilities", "Also write probabilities/<case>.nii.gz.")
@click.option(
    "--format",
    type=click.Choice(["nifti", "bids", "dicom-seg", "rtstruct"]),
    default="nifti",
    show_default=True,
    help="bids writes a BIDS derivative. dicom-seg and rtstruct also write <case>.dcm, which refers to the DICOM "
    "series it was made of.",
)
@click.option(
    "--codes",
    metavar="NAME=SCHEME:VALUE:MEANING",
    default="",
    help="Coded concepts of labels for dicom-seg, several with ;. [default: SNOMED's, by the label's name]",
)
@click.option("--tta/--no-tta", default=None, help="Average over the mirror images that were used in training.")
@text("--views", "all|VIEW[,VIEW]", "Some of the model's views, such as axial,coronal. [default: all]")
@flag("--report", "Also write report.html: the masks over the volumes.")
@flag("--resume", "Keep masks that this model made of this input, and make the others.")
@click.option(
    "--label-table/--no-label-table",
    default=True,
    show_default=True,
    help="Names and colours of the labels, and the intent code of labels, in the header of masks.",
)
@text("--colours", "NAME=#RRGGBB,…", "Colours of labels in tables, masks and the report. [default: a palette]")
@flag("--uncertainty", "Also write uncertainty/<case>_entropy.nii.gz and <case>_disagreement.nii.gz.")
@flag("--seg-nrrd", "Also write seg_nrrd/<case>.seg.nrrd, for 3D Slicer.")
@click.option(
    "--again",
    metavar="SIDECAR",
    multiple=True,
    help="Make the masks of these <case>.json files (or folders of them) again, byte for byte. They decide "
    "everything; their models and volumes are searched by hash in RUN and INPUT.",
)
@cases_option
@reading_options
@text(
    "--around",
    "X,Y,Z",
    "Look only around this place, in RAS+ mm: a box of the size of the training volumes. For volumes much larger.",
)
@text("--box", "X0,X1,Y0,Y1,Z0,Z1", "Look only into this box, in RAS+ mm.")
@overwrite_option
@device_option
@engine_options
@count("--threads", "CPU threads of each process.", default=1)
@count("--jobs", "Number of processes that share the volumes. [default: as cores, memory and work allow]")
@text("--shard", "I/N", "Predict only the I-th of N parts, on as many machines at once. [default: all]")
@flag("--finish", "Only write the tables of a folder whose shards have all ended.")
@cluster_option
@memory_option("predict")
@allocator_option
def predict(runs: tuple[str, ...], options: ReadOptions, around: str | None, box: str | None, **choices: Any) -> None:
    """Predict masks for INPUT, a volume or a folder of volumes, with the model of RUN.

    The predictions of several RUNs are averaged. Each mask is on its volume's own grid.
    """
    if choices["again"]:
        runs, choices["source"], choices["again"] = _told_apart((*runs, choices["source"]), choices["again"])
    else:
        choices["again"] = None
    for purpose in (choices["format"], f"engine {choices['engine']}", *(["cluster"] if choices["cluster"] else [])):
        require_installed(purpose)
    options = _looking_at(options, around, box)
    with workers_begun(_sure_workers(choices)):
        with loading(for_good=True):
            from medfcn.verbs import predict as run_prediction

        result = run_prediction(list(runs), options=options, progress=reporter(), **choices)
        some_views = None if choices["again"] else choices["views"] not in (None, "", "auto", "all")
        say_outcome(result, some_views=some_views)


def _sure_workers(choices: Mapping[str, Any]) -> int:
    """Workers that are wanted in any case; they load the libraries while this process does, each on its own core."""
    elsewhere = choices["again"] or choices["cluster"] or choices["finish"]
    if elsewhere or not choices["jobs"] or not PASSES_SOCKETS or not Path(choices["source"]).is_dir():
        return 0
    jobs, output = min(int(choices["jobs"]), usable_cores()), Path(choices["output"])
    done = sum(1 for _ in output.glob("*.json")) if choices["resume"] else 0
    files = (name for _, _, names in os.walk(choices["source"]) for name in names if not name.startswith("."))
    volumes = sum(1 for _ in islice(files, jobs + done)) - done  # at most
    return max(1, min(jobs, volumes)) - 1


def say_outcome(result: PredictionRun, *, some_views: bool | None = False) -> None:
    """Say what came of a prediction; ends the process with a status of its own if cases failed.

    Args:
        result: What came of it.
        some_views: Only some of the views were asked for; None if records decided it.
    """
    from medfcn.inference.foreign import FOREIGN
    from medfcn.runs.cases import SeenCases
    from medfcn.text import counted

    done = len(result.predicted) + len(result.skipped) + len(result.others)
    if result.report:
        show(f"report: {result.report}")
    for line in flag_lines(result.flags):
        show(line, err=True)
    foreign = len({case for case, note in result.flags if note.startswith(FOREIGN)})
    if foreign:
        are, masks = ("is", "its mask") if foreign == 1 else ("are", "their masks")
        of_all = f"{foreign} of {counted(done, 'volume')} {are} unlike those of the training"
        show(f"{of_all}: look at {masks} first", err=True)
    kept = f", {len(result.skipped)} kept" if result.skipped else ""
    kept += f", {len(result.others)} by other processes" if result.others else ""
    show(f"{counted(len(result.predicted), 'mask')}{kept}: {result.output}")
    if result.review is not None:
        show(f"{len(result.review)} of {counted(done, 'case')} to review")
    elif done:
        few, some = "the model has fewer than 5 validation cases of each label", "not all of its views were used"
        why = {True: some, False: few, None: f"{few}, or {some}"}[some_views]
        remedy = "" if some_views else "; `medfcn train --folds` validates with every case"
        show(f"no expected Dice: {why}{remedy}")
    seen = SeenCases(result.training_cases, result.chosen_cases, result.training_patients)
    for line in seen.lines(done, "volume"):
        show(line, err=True)
    names = ["output", "predicted", "skipped", "others", "review", "report"]
    names += ["training_cases", "chosen_cases", "training_patients"]
    facts = {name: getattr(result, name) for name in names}
    answer({**facts, "flags": result.flags, "failures": dict(result.failures)})
    if result.failures:
        cases = counted(len(result.failures) + len(result.predicted), "case")
        show(f"{len(result.failures)} of {cases} failed", err=True)
        sys.exit(SOME_FAILED if done else FAILED)


def flag_lines(flags: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each case that a reader should look at, with the gravest flag; all flags of a case that is alone.

    Args:
        flags: Id and one line for each thing.

    Example:
        >>> flag_lines([("a", "review organ: it is far"), ("a", "lesion not found"), ("b", "foreign volume: dark")])
        ['a: lesion not found (+1 more in volumes.csv)', 'b: foreign volume: dark']
    """
    from medfcn.inference.foreign import FOREIGN

    def grade(note: str) -> tuple[bool, ...]:
        is_foreign, is_expected = note.startswith(FOREIGN), "expected Dice" in note
        return not is_foreign, not note.endswith("not found"), not is_expected, not note.startswith("review ")

    by_case: dict[str, list[str]] = {}
    for case, note in flags:
        by_case.setdefault(case, []).append(note)
    if len(by_case) == 1:
        return [f"{case}: {note}" for case, note in flags]
    worst = {case: min(of_case, key=grade) for case, of_case in by_case.items()}
    more = {case: f" (+{len(of_case) - 1} more in volumes.csv)" for case, of_case in by_case.items()}
    return [f"{case}: {note}{more[case] if len(by_case[case]) > 1 else ''}" for case, note in worst.items()]


def _told_apart(arguments: Sequence[str], again: Sequence[str]) -> tuple[tuple[str, ...], str, list[str]]:
    """The runs, the input and the records of `--again masks/*.json`, of which the shell makes arguments."""
    from medfcn.labels.sidecar import MaskRecord

    records = [one for one in arguments if one.endswith(".json") and MaskRecord.is_in(Path(one))]
    *runs, source = (one for one in arguments if one not in records)
    if not runs:
        raise click.UsageError("a RUN and an INPUT are needed beside the records of --again")
    return tuple(runs), source, [*again, *records]
