"""The command line: each command is a thin shell over one library call.

Results go to stdout, progress and messages to stderr. Exit status: 0 all done; 1 the run failed, or every case
did; 2 misuse of the command line; 3 finished, but some cases failed; 130 interrupted, 143 ended by SIGTERM.
Of several processes that torchrun started, one speaks: the first, or the one that met an error.

Nothing heavy is imported before a command needs it: `medfcn --help` answers at once.
"""

import functools
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from medfcn.errors import (
    DatasetError,
    MedfcnError,
    MissingFileError,
    ProcessError,
    SettingsError,
    TrainingStoppedError,
)
from medfcn.files import read_ids, refuse_existing
from medfcn.progress import for_terminal, printable, process_count, process_rank

_Value = TypeVar("_Value")
_FAILED, _MISUSE, _SOME_FAILED, _INTERRUPTED, _BY_SIGNAL = 1, 2, 3, 130, 128


class _Commands(click.Group):
    """Turns whatever a user can mend into one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            return super().invoke(ctx)
        except click.UsageError:
            if process_rank():
                sys.exit(_MISUSE)  # as the first process says
            raise
        except ProcessError as error:
            _fail(str(error), debug=debug, is_told=error.is_told)
        except TrainingStoppedError as error:
            _fail(str(error), debug=debug, status=_BY_SIGNAL + error.signal_number)
        except MedfcnError as error:
            _fail(str(error), debug=debug)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}; nothing half-written was left behind", debug=debug)
        except KeyboardInterrupt:
            message = "interrupted; every file that was written is whole, the others are not there"
            _fail(message, debug=False, status=_INTERRUPTED, before="\n")
        except MemoryError:
            _fail("out of memory; use smaller volumes, a smaller batch, or a machine with more", debug=debug)


def _fail(
    message: str, *, debug: bool, status: int = _FAILED, is_told: bool | None = None, before: str = ""
) -> NoReturn:
    """Say what is wrong in one line and leave.

    Args:
        message: The line.
        debug: Whether to show the traceback too.
        status: To leave with.
        is_told: Whether another process says it; None where all processes have the same to say.
        before: Goes before the line.
    """
    if debug:
        traceback.print_exc()
    if not (process_rank() > 0 if is_told is None else is_told):
        click.echo(f"{before}medfcn: {printable(message)}", err=True)
    if process_count() > 1:  # at once: an interpreter that ends would wait for processes that are gone
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _checked(
    check: Callable[[_Value], object],
) -> Callable[[click.Context, click.Parameter, _Value | None], _Value | None]:
    """A click callback that makes a value the library would refuse a misuse of the command line."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: _Value | None) -> _Value | None:
        if value is not None:
            try:
                check(value)
            except SettingsError as error:
                raise click.BadParameter(str(error), ctx=ctx, param=parameter) from error
        return value

    return callback


def _check_labels(text: str) -> object:
    from medfcn.volumes import LabelMap

    return LabelMap.parse(text)


def _check_fold(text: str) -> object:
    from medfcn.training.folds import Folds

    return Folds.of(text, None)


def _check_budget(text: str) -> object:
    from medfcn.config import budget_seconds

    return budget_seconds(text)


def _check_context(count: int) -> None:
    if count % 2 == 0:
        raise SettingsError(f"{count} is not an odd number; a slice has as many neighbours on either side")


def _check_device(name: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise SettingsError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N")


_labels = click.option(
    "--labels",
    metavar="NAME=V[+V…],…",
    callback=_checked(_check_labels),
    help="What to segment or score: hippocampus=1+2 merges values 1 and 2; anterior=1,posterior=2 keeps two; "
    "whole=1+2,core=2 overlap; ignore=255 leaves out voxels that nobody labelled.",
)


def _reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that opt in to volumes which are otherwise refused, as one `options`."""

    @functools.wraps(command)
    def with_options(xform: str, assume_grid: bool, nonfinite: str | None, volume: int | None, **choices: Any) -> Any:
        from medfcn.volumes import ReadOptions

        fill = None if nonfinite is None else float(nonfinite.removeprefix("fill:"))
        options = ReadOptions(xform=xform, assume_grid=assume_grid, nonfinite=fill, volume_index=volume)  # type: ignore[arg-type]
        return command(options=options, **choices)

    for option in (
        click.option("--volume", type=click.IntRange(min=0), help="Which volume of a 4D file to read, from 0."),
        click.option(
            "--nonfinite",
            metavar="fill:VALUE",
            callback=_checked(_check_fill),
            help="Put VALUE where voxels are NaN or infinite; such files are refused otherwise.",
        ),
        click.option("--assume-grid", is_flag=True, help="Read files without a transform on a grid along x, y, z."),
        click.option(
            "--xform",
            type=click.Choice(["auto", "sform", "qform"]),
            default="auto",
            help="Which transform to believe where two disagree; such files are refused otherwise.",
        ),
    ):
        with_options = option(with_options)
    return with_options


def _check_fill(text: str) -> object:
    try:
        value = float(text.removeprefix("fill:"))
    except ValueError:
        value = math.nan
    if not text.startswith("fill:") or not math.isfinite(value):
        raise SettingsError(f"{text!r} is not fill:VALUE with a finite number; write for example fill:0")
    return value


def _check_views(text: str) -> object:
    from medfcn.slices.views import parse_views

    return parse_views(text)


_slice_views = click.option(
    "--views",
    "--view",
    metavar="auto|all|VIEW[,VIEW]",
    callback=_checked(_check_views),
    help="Planes of the slices: axial, coronal, sagittal, several with commas, or all. [default: auto]",
)
_predict_views = click.option(
    "--views",
    metavar="all|VIEW[,VIEW]",
    callback=_checked(_check_views),
    help="Some of the model's views, such as axial,coronal. [default: all]",
)
_preset = click.option("--preset", metavar="NAME", help="The network's design, such as fcn8s. [default: auto]")
_init = click.option("--init", metavar="RUN", help="A run folder whose weights and network to start from.")
_cases = click.option("--cases", metavar="FILE", help="Only the cases whose ids stand in FILE, one a line.")
_device = click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=_checked(_check_device),
    help="auto, cpu, cuda or cuda:N.",
)
_context = click.option(
    "--context",
    type=click.IntRange(min=1),
    callback=_checked(_check_context),
    help="Slices the network sees at once, odd. [default: 1]",
)
_overwrite = click.option("--overwrite", is_flag=True, help="Replace an existing output.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="medfcn")
def main(debug: bool) -> None:
    """Train 2D fully convolutional networks on NIfTI volumes, put masks on new ones, and score them.

    Research use only; not a medical device.
    """
    command = click.get_current_context().invoked_subcommand
    if command != "train" and process_count() > 1:
        raise click.UsageError(f"{command} runs in one process; start it without torchrun")


@main.command()
@click.argument("dataset")
@_labels
@click.option("--groups", metavar="FILE", help="CSV of id, group.")
@click.option("--allow-outside", is_flag=True, help="Accept paths in a table that lead out of its folder.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
@_reading
def check(
    dataset: str, labels: str | None, groups: str | None, allow_outside: bool, as_json: bool, options: Any
) -> None:
    """Read every case of DATASET and name every problem: file, field, value, what to do.

    Exit status 1 if there is an error, 0 if there are only warnings.
    """
    from medfcn.volumes import LabelMap, find_dataset
    from medfcn.volumes.check import check_dataset

    found = find_dataset(dataset, groups=groups, allow_outside=allow_outside)
    label_map = LabelMap.parse(labels) if labels else None
    with for_terminal().task("check", len(found.all_cases)) as task:
        report = check_dataset(
            found, labels=label_map, options=options, threads=2, progress=lambda done, total: task.advance()
        )
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else report.to_text())
    if report.errors:
        sys.exit(_FAILED)


@main.command()
@click.argument("dataset")
@_labels
@click.option("--groups", metavar="FILE", help="CSV of id, group.")
@click.option("--config", metavar="FILE", help="TOML file of settings.")
@_preset
@_init
@_context
@_slice_views
@click.option("--leave-out", metavar="FILE", help="Ids, one a line, of cases not to use at all: the test part.")
@click.option("--allow-outside", is_flag=True, help="Accept paths in a table that lead out of its folder.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the split.")
@click.option("--skip-bad", is_flag=True, help="Leave out cases that cannot be used.")
@_reading
def plan(dataset: str, config: str | None, leave_out: str | None, **choices: Any) -> None:
    """Say what training would do with DATASET, and why."""
    from medfcn.training.train import plan as run_plan

    ids = read_ids(leave_out) if leave_out else ()
    click.echo(run_plan(dataset, settings=config, leave_out=ids, progress=for_terminal(), **choices).to_text())


@main.command()
@click.argument("dataset")
@click.option("-o", "--output", required=True, metavar="RUN", help="The run folder to make.")
@_labels
@click.option(
    "--budget",
    callback=_checked(_check_budget),
    help="Wall time of the whole command, such as 90s, 10m, 2h. [default: 10m]",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of a budget.")
@click.option("--steps", type=click.IntRange(min=1), help="Instead of a budget; repeats a run of that many exactly.")
@_preset
@_init
@click.option(
    "--encoder-weights",
    metavar="FILE",
    help="VGG-16 or ResNet in torchvision's layout, for the encoder of a preset that fits.",
)
@_context
@_slice_views
@click.option("--groups", metavar="FILE", help="CSV of id, group: cases of one group (a patient) are never parted.")
@click.option("--leave-out", metavar="FILE", help="Ids, one a line, of cases not to use at all: the test part.")
@click.option("--config", metavar="FILE", help="TOML file of settings.")
@_device
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: one or all, whichever is faster]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every random number.")
@click.option("--allow-outside", is_flag=True, help="Accept paths in a table that lead out of its folder.")
@_reading
@click.option("--skip-bad", is_flag=True, help="Leave out cases that cannot be used, and say so in cases.csv.")
@click.option("--fold", metavar="K/N", callback=_checked(_check_fold), help="Train fold K of N, into RUN/fold_K.")
@click.option(
    "--folds", type=click.IntRange(min=2), metavar="N", help="Train N folds into RUN/fold_1 …, sharing the budget."
)
@click.option(
    "--resume", is_flag=True, help="Go on with the training that was stopped in RUN, and end as it would have."
)
@_overwrite
def train(dataset: str, output: str, config: str | None, leave_out: str | None, **choices: Any) -> None:
    """Train a network on the volumes and masks of DATASET.

    DATASET is a folder with images/ and labels/, a Decathlon or nnU-Net folder with its dataset.json, or a CSV or
    TSV with the columns image and label.

    On several GPUs, and on several machines with one file system: torchrun --nproc-per-node 8 -m medfcn train ….
    """
    from medfcn.report import REPORT_FILE, train_report
    from medfcn.training.stop import stop_on_signals
    from medfcn.training.train import train as run_training

    _refuse_together(choices, "budget", "epochs", "steps")
    _refuse_together(choices, "fold", "folds")
    progress = for_terminal()
    ids = read_ids(leave_out) if leave_out else ()
    with stop_on_signals() as stop:
        run = run_training(dataset, output, settings=config, leave_out=ids, stop=stop, progress=progress, **choices)
    if process_rank():
        return
    for folder in run.scored:
        if not (folder / REPORT_FILE).is_file():
            train_report(folder, dataset, allow_outside=choices["allow_outside"], progress=progress)
    click.echo(f"Validation, {run.folder} (see report.html in it):")
    click.echo(run.validation.to_text())


def _names(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """Names that were given one by one, or with commas between."""
    return [name.strip() for value in values for name in value.split(",")] or None


@main.command()
@click.argument("dataset")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="The folder to make.")
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True, help="Trainings, in all.")
@click.option("--budget", callback=_checked(_check_budget), help="Wall time of one trial. [default: 10m]")
@click.option("--epochs", type=click.IntRange(min=1), help="Of one trial, instead of a budget.")
@click.option("--steps", type=click.IntRange(min=1), help="Of one trial, instead of a budget; can be repeated.")
@click.option("--folds", type=click.IntRange(min=2), metavar="N", help="Score each trial on all cases, in N folds.")
@_labels
@click.option("--only", multiple=True, metavar="NAME[,NAME…]", callback=_names, help="Search these settings only.")
@click.option("--config", metavar="FILE", help="TOML file of settings, which are not searched then.")
@_preset
@_context
@_slice_views
@click.option("--groups", metavar="FILE", help="CSV of id, group: cases of one group (a patient) are never parted.")
@click.option("--leave-out", metavar="FILE", help="Ids, one a line, of cases that no trial sees: the test part.")
@_device
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: one or all, whichever is faster]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every random number.")
@click.option("--allow-outside", is_flag=True, help="Accept paths in a table that lead out of its folder.")
@_reading
@click.option("--skip-bad", is_flag=True, help="Leave out cases that cannot be used.")
@click.option("--resume", is_flag=True, help="Go on with the search that was stopped in FOLDER, or add trials.")
@_overwrite
def tune(dataset: str, output: str, config: str | None, leave_out: str | None, **choices: Any) -> None:
    """Search for the settings that suit DATASET best, trained and scored on the same cases each time.

    The first trial has the defaults. FOLDER/best.toml is for `medfcn train --config`. Needs medfcn[tune].
    """
    from medfcn.training.stop import stop_on_signals
    from medfcn.tuning.tune import tune as run_search

    _refuse_together(choices, "budget", "epochs", "steps")
    ids = read_ids(leave_out) if leave_out else ()
    with stop_on_signals() as stop:
        tuned = run_search(
            dataset, output, settings=config, leave_out=ids, stop=stop, progress=for_terminal(), **choices
        )
    click.echo(tuned.to_text())


def _refuse_together(choices: Mapping[str, Any], *names: str) -> None:
    given = [name for name in names if choices[name] is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} are given together; give one of them")


@main.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, help="A folder for masks; for one volume also a .nii or .nii.gz file.")
@click.option("--probabilities", is_flag=True, help="Also write probabilities/<case>.nii.gz.")
@click.option("--tta/--no-tta", default=None, help="Average over the mirror images that training drew.")
@_predict_views
@click.option("--report", "with_report", is_flag=True, help="Also write report.html: the masks over the volumes.")
@click.option("--resume", is_flag=True, help="Keep masks that this model made of this input; make the others.")
@_cases
@_reading
@_overwrite
@_device
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
def predict(
    runs: tuple[str, ...], source: str, output: str, cases: str | None, with_report: bool, **choices: Any
) -> None:
    """Put masks on INPUT, a volume or a folder of volumes, with the model of RUN.

    Several RUNs are averaged. Masks lie on the volumes' own grids.
    """
    from medfcn.inference.predict import predict as run_prediction

    progress = for_terminal()
    ids = read_ids(cases) if cases else None
    result = run_prediction(list(runs), source, output, cases=ids, progress=progress, **choices)
    if with_report and (result.predicted or result.skipped):
        from medfcn.report import predict_report

        click.echo(f"report: {predict_report(output, source, overwrite=True, progress=progress)}")
    for case, flag in result.flags:
        click.echo(printable(f"{case}: {flag}"), err=True)
    kept = f", {len(result.skipped)} kept" if result.skipped else ""
    click.echo(f"{len(result.predicted)} masks{kept}: {result.output}")
    if result.review is not None:
        click.echo(f"{len(result.review)} of {len(result.predicted) + len(result.skipped)} cases to review")
    if result.failures:
        click.echo(f"{len(result.failures)} of {len(result.failures) + len(result.predicted)} cases failed", err=True)
        sys.exit(_SOME_FAILED if result.predicted or result.skipped else _FAILED)


@main.command()
@click.argument("predictions")
@click.argument("references")
@click.option("-o", "--output", required=True, help="The folder for scores.csv and summary.json.")
@_labels
@click.option("--tolerance-mm", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Of NSD, in mm.")
@click.option(
    "--boundary",
    type=click.Choice(["voxels", "elements"]),
    default="voxels",
    show_default=True,
    help="What HD, HD95, ASSD and MASD are measured between: voxels or surface elements.",
)
@click.option("--pooled-hd95", is_flag=True, help="One 95th percentile of both directions, not the larger of two.")
@click.option("--lesions", is_flag=True, help="Also count lesions found, missed and false: for scattered targets.")
@click.option("--compare", metavar="OTHER", help="Other masks, or the folder of their scores: paired differences.")
@click.option("--images", metavar="FOLDER", help="Volumes to show in report.html. [default: those of REFERENCES]")
@click.option("--report/--no-report", "with_report", default=True, help="Write report.html.", show_default=True)
@_cases
@_overwrite
def evaluate(predictions: str, references: str, output: str, **choices: Any) -> None:
    """Score the masks in PREDICTIONS against those in REFERENCES, in Dice and millimetres.

    REFERENCES is a folder of masks or a data set. Every reference is due: one without a mask counts as a miss.
    """
    from medfcn.evaluation import Definitions, write_scores
    from medfcn.evaluation import evaluate as run_evaluation

    overwrite, labels = choices["overwrite"], choices["labels"]
    refuse_existing(output, overwrite=overwrite)
    if choices["compare"] and not Path(choices["compare"]).exists():
        raise MissingFileError(f"{choices['compare']}: not there; give --compare other masks, or a folder of scores")
    progress = for_terminal()
    due = _references(references, read_ids(choices["cases"]) if choices["cases"] else None)
    definitions = Definitions(
        tolerance_mm=choices["tolerance_mm"],
        boundary=choices["boundary"],
        pooled_hd95=choices["pooled_hd95"],
        lesions=choices["lesions"],
    )
    table = run_evaluation(predictions, due, labels=labels, definitions=definitions, progress=progress)
    write_scores(table, output, overwrite=overwrite)
    click.echo(table.to_text())
    if choices["compare"]:
        _compare(table, choices["compare"], due, labels, output)
    if choices["with_report"]:
        from medfcn.report import images_beside, report

        images = choices["images"] or images_beside(references) or None
        page = Path(output) / "report.html"
        report(
            predictions, due, page, images=images, labels=labels, definitions=definitions, table=table,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
        click.echo(f"report: {page}")
    if table.failures:
        sys.exit(_SOME_FAILED if table.rows else _FAILED)


def _compare(table: Any, other: str, due: Any, labels: str | None, output: str) -> None:
    """Print and keep how a table differs from that of other masks."""
    from medfcn.evaluation import ScoreTable
    from medfcn.evaluation import evaluate as run_evaluation
    from medfcn.evaluation.compare import compare_tables
    from medfcn.files import write_json
    from medfcn.volumes import find_masks

    scores = Path(other) / "scores.csv"
    try:
        masks = find_masks(other)
    except DatasetError:
        masks = {}
    if masks or not scores.is_file():
        theirs = run_evaluation(other, due, labels=labels, definitions=table.definitions, progress=for_terminal())
    else:
        theirs = ScoreTable.from_csv(scores)
    click.echo(f"compared with {'the masks in ' if masks else ''}{other if masks else scores}:")
    comparison = compare_tables(table, theirs)
    write_json(Path(output) / "comparison.json", comparison.to_json())
    click.echo(comparison.to_text())
    click.echo(f"comparison: {Path(output) / 'comparison.json'}")


def _references(references: str, ids: Sequence[str] | None) -> Any:
    """The references of some cases, or all."""
    from medfcn.volumes import find_masks

    if ids is None:
        return references
    found = find_masks(references)
    unknown = sorted(set(ids) - set(found))
    if unknown:
        raise DatasetError(
            f"{len(unknown)} of the cases asked for have no reference, first {unknown[0]}; correct the ids"
        )
    return {case: path for case, path in found.items() if case in set(ids)}


def _check_size(text: str) -> object:
    from medfcn.networks.summary import slice_size

    return slice_size(text)


def _check_picture(path: str) -> object:
    from medfcn.networks.drawing import picture_format

    return picture_format(path)


@main.command()
@click.option("--preset", metavar="NAME", help="One design in detail, such as fcn8s. [default: all, a row each]")
@click.option("--config", metavar="FILE", help="TOML file of settings; its network in detail.")
@click.option(
    "--size",
    metavar="HxW",
    default="256x256",
    show_default=True,
    callback=_checked(_check_size),
    help="Pixels of a slice; one number is both.",
)
@click.option("--channels", type=click.IntRange(1, 4096), default=1, show_default=True, help="Of an image.")
@click.option("--label-count", type=click.IntRange(1, 4096), default=1, show_default=True, help="Labels to segment.")
@click.option("--width", type=float, metavar="FACTOR", help="On every number of channels. [default: 1]")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON, stage by stage.")
@click.option(
    "--picture",
    metavar="FILE",
    callback=_checked(_check_picture),
    help="Also draw one design, auto unless another is asked for: a .png, .svg or .pdf file.",
)
@_overwrite
def networks(preset: str | None, config: str | None, size: str, as_json: bool, **choices: Any) -> None:
    """List the designs of networks, or show one: parameters, multiply-adds, strides, receptive field."""
    from medfcn.config import override, read_settings
    from medfcn.networks.drawing import draw_network
    from medfcn.networks.summary import slice_size, summarise, summarise_presets
    from medfcn.networks.table import network_text, overview_text

    picture, overwrite, width = choices["picture"], choices["overwrite"], choices["width"]
    settings = override(read_settings(config), "network", preset=preset, width=width)
    slices = {
        "size": slice_size(size),
        "channels_in": choices["channels"] * (settings.slices.context or 1),
        "label_count": choices["label_count"],
    }
    if picture:
        refuse_existing(picture, overwrite=overwrite)
    one = summarise(settings.network, **slices) if picture or preset or config else None
    shown = (one,) if one and (preset or config) else summarise_presets(width=settings.network.width, **slices)
    if as_json:
        click.echo(json.dumps([summary.to_json() for summary in shown], indent=2))
    else:
        click.echo(network_text(shown[0]) if preset or config else overview_text(shown))
    if picture and one:
        click.echo(f"picture: {draw_network(one, picture, overwrite=overwrite)}", err=as_json)


@main.command()
@click.option("-o", "--output", default="medfcn_demo", show_default=True, help="The folder to make.")
@click.option("--steps", type=click.IntRange(min=1), default=350, show_default=True, help="Of the training.")
@_overwrite
@_device
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: one or all, whichever is faster]")
def demo(**choices: Any) -> None:
    """Train, predict, evaluate and draw on the sample volumes that come with medfcn, in about two minutes."""
    from medfcn.demo import demo as run_demo

    result = run_demo(progress=for_terminal(), **choices)
    click.echo(result.scores.to_text())
    click.echo(
        f"masks:   {result.masks}\nscores:  {result.folder / 'scores' / 'scores.csv'}\npicture: {result.picture}\n"
        f"report:  {result.report}"
    )
