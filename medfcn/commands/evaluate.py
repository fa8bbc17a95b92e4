"""`medfcn evaluate`: masks scored against references, and compared with other masks."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from medfcn.commands.exits import FAILED, SOME_FAILED
from medfcn.commands.options import cases_option, labels_option, overwrite_option
from medfcn.errors import DatasetError, MissingFileError, OutputExistsError
from medfcn.progress import for_terminal
from medfcn.runs.folder import SCORES_FILE, RunFolder
from medfcn.runs.outputs import refuse_existing


@click.command()
@click.argument("predictions")
@click.argument("references")
@click.option("-o", "--output", required=True, help="The folder for scores.csv and summary.json.")
@labels_option
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
@cases_option
@overwrite_option
def evaluate(predictions: str, references: str, output: str, **choices: Any) -> None:
    """Score the masks in PREDICTIONS against those in REFERENCES, in Dice and millimetres.

    REFERENCES is a folder of masks or a data set. Every reference is due: one without a mask counts as a miss.
    """
    from medfcn.datasets.tables import read_ids
    from medfcn.evaluation import Definitions, write_scores
    from medfcn.evaluation import evaluate as run_evaluation

    overwrite, labels = choices["overwrite"], choices["labels"]
    for name, place in (("PREDICTIONS", predictions), ("REFERENCES", references)):
        if Path(output).resolve() == Path(place).resolve():
            raise OutputExistsError(f"{output}: is {name} itself; choose a folder of its own for the scores")
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
        from medfcn.reporting.compose import images_beside, report

        images = choices["images"] or images_beside(references) or None
        page = Path(output) / RunFolder.report
        report(
            predictions, due, page, images=images, labels=labels, definitions=definitions, table=table,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
        click.echo(f"report: {page}")
    if table.failures:
        sys.exit(SOME_FAILED if table.rows else FAILED)


def _compare(table: Any, other: str, due: Any, labels: str | None, output: str) -> None:
    """Print and keep how a table differs from that of other masks."""
    from medfcn.datasets import find_masks
    from medfcn.evaluation import ScoreTable
    from medfcn.evaluation import evaluate as run_evaluation
    from medfcn.evaluation.compare import compare_tables
    from medfcn.files import write_json

    scores = Path(other) / SCORES_FILE
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
    from medfcn.datasets import find_masks

    if ids is None:
        return references
    found = find_masks(references)
    unknown = sorted(set(ids) - set(found))
    if unknown:
        raise DatasetError(
            f"{len(unknown)} of the cases asked for have no reference, first {unknown[0]}; correct the ids"
        )
    return {case: path for case, path in found.items() if case in set(ids)}
