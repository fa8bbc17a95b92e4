"""The scorecard of reliability: each row tries one kind of pressure, and goes on where it was.

    python benchmarks/reliability.py                       every row to its full count, hours on two cores
    python benchmarks/reliability.py --rows 2,9 --minutes 20
    python benchmarks/reliability.py --quick               a few minutes of most rows
    python benchmarks/reliability.py --rows "" -o DIR      only the table of what is there

Needs the tests beside it, and Linux. Rows are kept in `row_NN.json` of the output folder, with what went wrong, and
for row 2 with the list of headers (`row_02.txt`). A row that is not at its end goes on from there. Exit status 1: a
row that was measured is not met.
"""

import argparse
import faulthandler
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from scorecard.work import NotMeasuredError, Result, Row, Work, read_result, write_result  # noqa: E402


def rows() -> list[Row]:
    """Every row; the modules are loaded here, for `--help`."""
    from scorecard import faults, others, volumes

    return [
        Row(1, "hostile volumes, in every place", "right or one line", 22, 1, volumes.hostile_volumes),
        Row(2, "headers that two readers see otherwise", "0 in silence", 2000, 200, volumes.two_readers),
        Row(3, "truncations and bit flips", "refused or identical", 1400, 140, volumes.damaged_streams),
        Row(4, "bombs", "≤ 2 s, ≤ 64 MB", 9, 1, volumes.bombs),
        Row(5, "slice → reassemble", "exact, 48 orders", 2000, 96, volumes.reassembly),
        Row(6, "seeded faults", "all caught", 99, 0, others.seeded_faults),
        Row(7, "kill -9 while training", "bitwise equal", 100, 2, faults.kill_training),
        Row(8, "kill -9 inside a save", "0 unreadable", 200, 10, faults.kill_saving),
        Row(9, "full disk", "path, bytes, nothing lost", 40, 10, faults.full_disk),
        Row(10, "folder with bad cases", "good ones equal, exit 3", 200, 40, faults.bad_cases),
        Row(11, "kill -9 while predicting", "byte-equal, 0 litter", 100, 4, faults.kill_prediction),
        Row(12, "four processes, one folder", "0 unreadable of 1,000", 1000, 50, faults.four_jobs),
        Row(13, "processes and reruns", "one hash", 6, 0, faults.one_hash),
        Row(14, "512 × 512 × 1000", "≤ 0.75 × float32", 1, 0, others.large_volume),
        Row(15, "files that mean harm", "refused, nothing run", 3, 0, others.harmful_files),
        Row(16, "injection", "0 active", 30, 10, others.injection),
        Row(17, "canaries", "0 in any output", 2, 1, others.canaries),
        Row(18, "scores against definitions", "1e-9; a miss costs", 2000, 60, others.brute_force),
        Row(19, "fuzzing every reader", "only MedfcnError", 360, 1, others.fuzzing),
        Row(20, "masks from their record", "byte-equal", 20, 4, others.made_again),
        Row(21, "memory taken away at any moment", "a line with MB", 200, 20, faults.memory_taken_away),
    ]


def measure(row: Row, output: Path, *, minutes: float | None, quick: bool) -> Result:
    """Begin a row, or go on with it."""
    path = output / f"row_{row.number:02d}.json"
    before = read_result(path)
    count = row.quick if quick else row.count
    if before is not None and not before.why and before.done >= count:
        return before
    scratch = Path(tempfile.mkdtemp(prefix="scorecard_"))
    work = Work(scratch, None if minutes is None else 60 * minutes, count)
    if before is not None:
        work.done, work.failures, work.lines = before.done, list(before.failures), list(before.lines)
        work.facts = dict(before.facts)
    figure = why = ""

    def kept() -> Result:
        return Result(
            row.number, work.done, work.least, figure, tuple(work.failures), work.facts, tuple(work.lines), why
        )

    work.save = lambda: write_result(path, kept())
    try:
        figure = row.run(work)
    except NotMeasuredError as error:
        why = str(error)
    except Exception as error:
        traceback.print_exc()
        work.fail(f"the row itself ended with {type(error).__name__}: {error}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    work.save()
    return kept()


def table(every: list[Row], output: Path) -> str:
    """The scorecard as Markdown."""
    lines = ["| # | what | aim | figure | met |", "|---|---|---|---|---|"]
    for row in every:
        result = read_result(output / f"row_{row.number:02d}.json")
        if result is None:
            continue
        figure = result.why or result.figure
        lines.append(f"| {row.number} | {row.what} | {row.aim} | {figure} | {result.met} |")
    return "\n".join(lines)


def main() -> int:
    """Measure the rows, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", help="numbers of rows, separated by commas [default: all]")
    parser.add_argument("--minutes", type=float, help="wall minutes for each row, which goes on from there next time")
    parser.add_argument("--quick", action="store_true", help="small counts of most rows")
    parser.add_argument("-o", "--output", type=Path, help="the folder of the rows [default: a new one for --quick]")
    options = parser.parse_args()
    output = options.output or (Path(tempfile.mkdtemp()) if options.quick else Path("reliability"))
    output.mkdir(parents=True, exist_ok=True)
    every, failed = rows(), False
    numbers = None if options.rows is None else {int(number) for number in options.rows.split(",") if number}
    faulthandler.enable()
    for row in every:
        if (numbers is not None and row.number not in numbers) or (options.quick and not row.quick):
            continue
        began, cpu = time.monotonic(), time.process_time()
        result = measure(row, output, minutes=options.minutes, quick=options.quick)
        failed |= bool(result.failures)
        print(
            f"row {row.number}: {result.why or result.figure} ({result.met}; {time.monotonic() - began:.0f} s, "
            f"{time.process_time() - cpu:.0f} CPU s here)",
            flush=True,
        )
        for line in result.failures[:10]:
            print(f"  {line}", flush=True)
        if row.number == 2 and result.lines:
            (output / "row_02.txt").write_text("\n".join(result.lines) + "\n")
    print(table(every, output))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
