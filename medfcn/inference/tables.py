"""The tables of a folder of masks, which follow from the outcomes of its cases and the records beside its masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from medfcn.files import write_csv
from medfcn.inference.batch import Outcome
from medfcn.inference.review import write_review
from medfcn.labels.sidecar import MaskRecord
from medfcn.labels.volume_table import write_volumes
from medfcn.runs.folder import FAILURES_FILE, VOLUMES_FILE


def write_tables(
    folder: Path | None, outcomes: Sequence[Outcome], records: Mapping[str, MaskRecord | None]
) -> tuple[str, ...] | None:
    """Write the tables of a folder. The same outcomes and records give the same bytes, whoever writes them.

    Args:
        folder: The folder of the masks; None writes nothing.
        outcomes: Those of all cases, in the order of the cases.
        records: The record of each mask, by case id.

    Returns:
        Ids of the cases with a label to be reviewed; None if no record says what to expect.
    """
    review = write_review(folder, records)
    if folder is not None:
        write_failures(folder / FAILURES_FILE, outcomes)
        write_volumes(folder / VOLUMES_FILE, records)
    return review


def write_failures(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write `failures.csv`, or remove an older one if no case failed."""
    failures = [(outcome.case, outcome.problem) for outcome in outcomes if outcome.kind == "failed"]
    if failures:
        write_csv(path, ("case", "error"), failures)
    else:
        path.unlink(missing_ok=True)
