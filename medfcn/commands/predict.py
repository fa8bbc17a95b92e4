"""`medfcn predict`: masks on a volume or a folder of them."""

import sys
from typing import Any

import click

from medfcn.commands.exits import FAILED, SOME_FAILED
from medfcn.commands.options import (
    cases_option,
    device_option,
    overwrite_option,
    predict_views_option,
    reading_options,
)
from medfcn.progress import for_terminal
from medfcn.text import printable


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, help="A folder for masks; for one volume also a .nii or .nii.gz file.")
@click.option("--probabilities", is_flag=True, help="Also write probabilities/<case>.nii.gz.")
@click.option("--tta/--no-tta", default=None, help="Average over the mirror images that training drew.")
@predict_views_option
@click.option("--report", "with_report", is_flag=True, help="Also write report.html: the masks over the volumes.")
@click.option("--resume", is_flag=True, help="Keep masks that this model made of this input; make the others.")
@cases_option
@reading_options
@overwrite_option
@device_option
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
def predict(
    runs: tuple[str, ...], source: str, output: str, cases: str | None, with_report: bool, **choices: Any
) -> None:
    """Put masks on INPUT, a volume or a folder of volumes, with the model of RUN.

    Several RUNs are averaged. Masks lie on the volumes' own grids.
    """
    from medfcn.datasets.tables import read_ids
    from medfcn.inference.predict import predict as run_prediction

    progress = for_terminal()
    ids = read_ids(cases) if cases else None
    result = run_prediction(list(runs), source, output, cases=ids, progress=progress, **choices)
    if with_report and (result.predicted or result.skipped):
        from medfcn.reporting.compose import predict_report

        click.echo(f"report: {predict_report(output, source, overwrite=True, progress=progress)}")
    for case, flag in result.flags:
        click.echo(printable(f"{case}: {flag}"), err=True)
    kept = f", {len(result.skipped)} kept" if result.skipped else ""
    click.echo(f"{len(result.predicted)} masks{kept}: {result.output}")
    if result.review is not None:
        click.echo(f"{len(result.review)} of {len(result.predicted) + len(result.skipped)} cases to review")
    elif result.predicted or result.skipped:
        click.echo(
            "which of them to review is not known: that takes a model with 5 validation cases or more of each label, "
            "and all its views; `medfcn train --folds` judges every case"
        )
    if result.failures:
        click.echo(f"{len(result.failures)} of {len(result.failures) + len(result.predicted)} cases failed", err=True)
        sys.exit(SOME_FAILED if result.predicted or result.skipped else FAILED)
