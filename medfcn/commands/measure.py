"""`medfcn measure`: the volumes of existing masks."""

import sys
from typing import Any

import click

from medfcn.commands.exits import FAILED, SOME_FAILED, answer, command, reporter, show, show_report
from medfcn.commands.options import cases_option, count, labels_option, overwrite_option, reading_options, text
from medfcn.libraries import loading


@command()
@click.argument("masks")
@click.argument("images", required=False)
@click.option("-o", "--output", required=True, help="The folder for volumes.csv.")
@labels_option
@text(
    "--pairs",
    "FILE",
    "CSV of two times of a patient, the ids of cases: before, after; or id, group, time, where each case is paired "
    "with the next of its group. Writes changes.csv: the change in ml and per cent.",
)
@cases_option
@reading_options
@overwrite_option
@count("--threads", "Masks measured at a time.", default=1)
def measure(masks: str, images: str | None, output: str, **choices: Any) -> None:
    """Measure the masks in MASKS: ml and voxels of each label, and the intensity of IMAGES inside it.

    Of masks that `medfcn predict` wrote, volumes.csv is the same that it wrote.
    """
    with loading(for_good=True):
        from medfcn.evaluation.measure import measure as run_measurement
        from medfcn.text import counted, failure

    found = run_measurement(masks, images, output, progress=reporter(), **choices)
    show_report(found.to_text())
    for case, reason in found.failures:
        show(failure(case, reason), err=True)
    show(f"volumes: {output}")
    answer(
        {
            "output": output,
            "volumes": [row._asdict() for row in found.rows],
            "changes": [change._asdict() for change in found.changes],
            "notes": found.notes,
            "failures": dict(found.failures),
        }
    )
    if found.failures:
        masks = counted(len(found.failures) + len(found.records), "mask")
        show(f"{len(found.failures)} of {masks} failed", err=True)
        sys.exit(SOME_FAILED if found.records else FAILED)
