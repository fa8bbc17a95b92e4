"""The tables of a folder that several shards fill, from the tables that the shards leave."""

from collections.abc import Sequence
from typing import cast, get_args

from medfcn.datasets import Case
from medfcn.errors import DatasetError
from medfcn.inference.batch import Batch, Kind, Outcome
from medfcn.inference.tables import read_records, write_tables
from medfcn.inference.timing import Timings, read_timings
from medfcn.runs.folder import TIMING_FILE
from medfcn.runs.shards import Parts, key_of
from medfcn.text import counted


def merge_parts(cases: Sequence[Case], batch: Batch) -> dict[str, Outcome]:
    """Write the tables of the folder from those of all shards. Doing it again, or twice at once, changes nothing.

    Args:
        cases: All cases, of all shards.
        batch: The batch.

    Returns:
        The outcome of each case.

    Raises:
        DatasetError: A shard has not ended, or there are cases that no shard has worked on.
    """
    parts = Parts(batch.tables_folder)
    rows = parts.read()
    strangers = [case.id for case in cases if key_of(case.id) not in rows]
    if strangers:
        count = counted(len(strangers), "case")
        raise DatasetError(
            f"{batch.folder}: {count} came after the shards had begun, first {strangers[0]}; run all shards again "
            "with --resume",
            code="SHARDS_MISSING",
        )
    ended = {}
    for case in cases:
        row = rows[key_of(case.id)]
        kind = cast(Kind, row.outcome) if row.outcome in get_args(Kind) else "kept"
        ended[case.id] = Outcome(case.id, kind, row.error)
    outcomes = list(ended.values())
    write_tables(batch.tables_folder, outcomes, read_records(cases, batch, outcomes))
    timings = Timings(batch.tables_folder / TIMING_FILE)
    timings.take(timing for shard in parts.shards() for timing in read_timings(parts.timing_path(shard)))
    timings.write()
    return ended
