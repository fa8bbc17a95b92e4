"""`medfcn evaluate`: score masks against references, and compare them with other masks."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfcn.commands.exits import FAILED, SOME_FAILED, answer, command, reporter, show, show_report
from medfcn.commands.options import (
    all_metrics_option,
    cases_option,
    group_by_option,
    labels_option,
    memory_option,
    overwrite_option,
    reading_options,
    text,
)
from medfcn.errors import OutputExistsError
from medfcn.files import refuse_existing_file, write_json
from medfcn.libraries import loading
from medfcn.runs.folder import COMPARISON_FILE, FAILURES_FILE, SCORES_FILE, SUMMARY_FILE, RunFolder

if TYPE_CHECKING:
    from medfcn.evaluation import ScoreTable


@command()
@click.argument("predictions")
@click.argument("references")
@click.option("-o", "--output", required=True, help="The folder for scores.csv and summary.json.")
@labels_option
@click.option("--tolerance-mm", type=click.FloatRange(min=0), default=1.0, show_default=True, help="For NSD, in mm.")
@click.option(
    "--boundary",
    type=click.Choice(["voxels", "elements"]),
    default="voxels",
    show_default=True,
    help="Boundary for HD, HD95, ASSD and MASD.",
)
@click.option("--pooled-hd95", is_flag=True, help="HD95 as one percentile of both directions, not the larger of two.")
@click.option("--lesions", is_flag=True, help="Also count lesions (found, missed, false), for scattered targets.")
@click.option(
    "--boundary-at-edges/--no-boundary-at-edges",
    default=True,
    show_default=True,
    help="Faces at the ends of the volume count as surface. Without them, the volume goes on as it ends.",
)
@click.option(
    "--classes",
    is_flag=True,
    help="Also judge them as a classifier of voxels: confusion matrix, precision, recall, F1, support, averages.",
)
@text("--table", "FILE", "Also a table for a paper, with its caption: FILE ends in .tex, .md or .csv.")
@click.option("--compare", metavar="OTHER", help="Other masks, or a folder of their scores, to compare with.")
@text("--groups", "FILE", "CSV of id, group: intervals and tests are over groups (patients), not over cases.")
@group_by_option
@click.option(
    "--by",
    metavar="COLUMN",
    multiple=True,
    help="Also give the scores by the values of this column (scanner, site, sex, diagnosis), and the gap between the "
    "best and the worst; repeatable.",
)
@text(
    "--cohort",
    "FILE",
    "CSV of id and the columns of --by; an id is a case or a patient. [default: REFERENCES, if it is a table]",
)
@click.option("--images", metavar="FOLDER", help="Volumes to show in report.html. [default: those of REFERENCES]")
@click.option("--report/--no-report", "with_report", default=True, help="Write report.html.", show_default=True)
@all_metrics_option
@cases_option
@reading_options
@memory_option("evaluate")
@overwrite_option
def evaluate(predictions: str, references: str, output: str, **choices: Any) -> None:
    """Score the masks in PREDICTIONS against those in REFERENCES, in Dice and millimetres.

    REFERENCES is a folder of masks or a data set. Every reference needs a mask; a missing one counts as a miss.
    """
    with loading(for_good=True):
        from medfcn.evaluation import Definitions, compare, masks_or_scores, write_paper_table, write_scores
        from medfcn.evaluation import evaluate as run_evaluation
        from medfcn.evaluation.compare import side_names
        from medfcn.reporting.compose import report
        from medfcn.reporting.shown_cases import images_at

    overwrite, other, folder, paper = choices["overwrite"], choices["compare"], Path(output), choices["table"]
    _require_free(output, predictions, references, paper=paper, overwrite=overwrite)
    pictures = images_at(choices["images"]) if choices["images"] else None
    others = masks_or_scores(other) if other else None
    defining = ("tolerance_mm", "boundary", "pooled_hd95", "lesions", "boundary_at_edges", "classes")
    same: dict[str, Any] = {
        **{name: choices[name] for name in ("labels", "options", "cases")},
        "definitions": Definitions(**{name: choices[name] for name in defining}),
        "progress": reporter(),
    }
    grouping = {name: choices[name] for name in ("groups", "group_by")}
    table = run_evaluation(predictions, references, by=choices["by"], cohort=choices["cohort"], **grouping, **same)
    comparison = None
    if others is not None:
        comparison = compare(table, others, references, sides=side_names(predictions, other), **grouping, **same)
    was_scored = (folder / SCORES_FILE).is_file()
    write_scores(table, folder, overwrite=overwrite)
    for name, is_made in ((COMPARISON_FILE, others is not None), (RunFolder.report, choices["with_report"])):
        if was_scored and not is_made:
            (folder / name).unlink(missing_ok=True)  # it belongs to the scores that were replaced
    _show_scores(table, all_metrics=choices["all_metrics"])
    if paper:
        write_paper_table(table, paper)
        of_one = f" ({predictions} alone; the comparison is in {COMPARISON_FILE})" if comparison is not None else ""
        show(f"table: {paper}{of_one}")
    if comparison is not None:
        write_json(folder / COMPARISON_FILE, comparison.to_json())
        show("", f"compared with {other}:")
        show_report(comparison.to_text())
        show(f"comparison: {folder / COMPARISON_FILE}")
    if choices["images"] and not choices["with_report"]:
        show("--images changes nothing with --no-report: they are shown in the report", err=True)
    if choices["with_report"]:
        page = folder / RunFolder.report
        shown: dict[str, Any] = {"images": pictures, "table": table, "comparison": comparison}
        report(predictions, references, page, overwrite=overwrite, **shown, **same)
        show(f"report: {page}")
    answer(
        {
            "output": folder,
            "summary": table.summary().to_json(),
            "classes": None if table.classes is None else table.classes.to_json(),
            "comparison": None if comparison is None else comparison.to_json(),
            "failures": dict(table.failures),
        }
    )
    if table.failures or (comparison is not None and comparison.failures):
        sys.exit(SOME_FAILED if table.rows else FAILED)


def _require_free(output: str, predictions: str, references: str, *, paper: str | None, overwrite: bool) -> None:
    """Refuse an output in which something would be replaced, before anything is read.

    Raises:
        OutputExistsError: The folder is that of the predictions or references, or a file is there already.
        SettingsError: The table of a paper has no format.
    """
    from medfcn.evaluation.paper_table import require_paper_format
    from medfcn.runs.outputs import refuse_blocked, refuse_existing

    for name, place in (("PREDICTIONS", predictions), ("REFERENCES", references)):
        if Path(output).resolve() == Path(place).resolve():
            raise OutputExistsError(f"{output}: is {name} itself; choose a folder of its own for the scores")
    refuse_existing(output, overwrite=overwrite)
    refuse_blocked(Path(output), files=(SCORES_FILE, SUMMARY_FILE, FAILURES_FILE, COMPARISON_FILE, RunFolder.report))
    if paper:
        require_paper_format(paper)
        refuse_existing_file(Path(paper), overwrite=overwrite)


def _show_scores(table: "ScoreTable", *, all_metrics: bool) -> None:
    """Print the table, then classes and calibration where there are some."""
    show_report(table.to_text(all_metrics=all_metrics))
    for more in (table.classes, table.calibration):
        if more is not None:
            show_report(f"\n{more.to_text()}")
