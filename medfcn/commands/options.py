"""Options that several commands have, and the checks that make a wrong value a misuse of the command line."""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from medfcn.errors import SettingsError

_Value = TypeVar("_Value")


def checked(
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


def refuse_together(choices: Mapping[str, Any], *names: str) -> None:
    """Refuse options of which only one may be given.

    Raises:
        click.UsageError: Several are.
    """
    given = [name for name in names if choices[name] is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} are given together; give one of them")


def _check_labels(text: str) -> object:
    from medfcn.labels import LabelMap

    return LabelMap.parse(text)


def check_budget(text: str) -> object:
    """Seconds of a wall time such as 90s, 10m or 2h; SettingsError where it is none."""
    from medfcn.config import budget_seconds

    return budget_seconds(text)


def _check_grouping(how: str) -> None:
    from medfcn.datasets.patients import check_grouping

    check_grouping(how)


def _check_context(count: int) -> None:
    if count % 2 == 0:
        raise SettingsError(f"{count} is not an odd number; a slice has as many neighbours on either side")


def _check_device(name: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise SettingsError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N")


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


def check_preset(name: str) -> object:
    """A design by its name; SettingsError where there is none."""
    from medfcn.config import override
    from medfcn.networks.presets import with_preset
    from medfcn.settings import Settings

    return with_preset(override(Settings(), "network", preset=name).network)


labels_option = click.option(
    "--labels",
    metavar="NAME=V[+V…],…",
    callback=checked(_check_labels),
    help="What to segment or score: hippocampus=1+2 merges values 1 and 2; anterior=1,posterior=2 keeps two; "
    "whole=1+2,core=2 overlap; ignore=255 leaves out voxels that nobody labelled.",
)
slice_views_option = click.option(
    "--views",
    "--view",
    metavar="auto|all|VIEW[,VIEW]",
    callback=checked(_check_views),
    help="Planes of the slices: axial, coronal, sagittal, several with commas, or all. [default: auto]",
)
predict_views_option = click.option(
    "--views",
    metavar="all|VIEW[,VIEW]",
    callback=checked(_check_views),
    help="Some of the model's views, such as axial,coronal. [default: all]",
)
preset_option = click.option(
    "--preset",
    metavar="NAME",
    callback=checked(check_preset),
    help="The network's design, such as fcn8s. [default: auto]",
)
init_option = click.option(
    "--init",
    metavar="RUN",
    help="A run folder whose weights to start from; its network, views, spacing and context are then the defaults.",
)
group_by_option = click.option(
    "--group-by",
    metavar="stem|none|REGEX",
    callback=checked(_check_grouping),
    help="Patients from the ids (instead of --groups). stem: ids that differ in a last token for a frame, time, "
    "visit, side, scan or date are one patient. REGEX: its first group, else the whole match, is the patient. none: "
    "each case is one.",
)
cases_option = click.option("--cases", metavar="FILE", help="Only the cases whose ids stand in FILE, one a line.")
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=checked(_check_device),
    help="auto, cpu, cuda or cuda:N.",
)
context_option = click.option(
    "--context",
    type=click.IntRange(min=1),
    callback=checked(_check_context),
    help="Slices the network sees at once, odd. [default: 3 with the preset auto where slices lie at most two pixels "
    "apart, else 1]",
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads. [default: one or all, whichever is faster]"
)
allow_outside_option = click.option(
    "--allow-outside", is_flag=True, help="Accept paths in a table that lead out of its folder."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
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
            callback=checked(_check_fill),
            help="Put VALUE where voxels are NaN or infinite; such files are refused otherwise.",
        ),
        click.option("--assume-grid", is_flag=True, help="Read files without a transform on a grid along x, y, z."),
        click.option(
            "--xform",
            type=click.Choice(["auto", "sform", "qform"]),
            default="auto",
            help="Which transform to take where qform, sform and pixdim disagree; such files are refused otherwise. "
            "sform is taken as it is, a gantry tilt included.",
        ),
    ):
        with_options = option(with_options)
    return with_options
