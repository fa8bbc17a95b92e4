"""The tables of a folder of masks, which follow from the outcomes of its cases and the records beside its masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from medfcn.datasets import Case
from medfcn.files import write_csv
from medfcn.inference.batch import Batch, Outcome
from medfcn.inference.case_work import with_measures
from medfcn.inference.review import write_review
from medfcn.labels.sidecar import MaskRecord
from medfcn.labels.volume_table import write_volumes
from medfcn.runs.folder import FAILURES_FILE, VOLUMES_FILE


def read_records(cases: Sequence[Case], batch: Batch, outcomes: Sequence[Outcome]) -> dict[str, MaskRecord]:
    """The record of each mask, by case id; a case without a mask has none.

    Args:
        cases: The cases.
        batch: The batch.
        outcomes: The outcome of each case.
    """
    found = {
        case.id: with_measures(case, MaskRecord.beside(batch.mask_path(case)), batch)
        for case, outcome in zip(cases, outcomes, strict=True)
        if outcome.kind != "failed"
    }
    return {case: record for case, record in found.items() if record is not None}


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
