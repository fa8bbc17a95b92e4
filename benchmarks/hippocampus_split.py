"""Which hippocampus volumes are held out, by person: writes the ids that no choice may be made on.

    python benchmarks/hippocampus_split.py FOLDER_OF_IMAGES > benchmarks/hippocampus_test.txt

Volumes `hippocampus_<2k-1>` and `hippocampus_<2k>` are the two sides of one person, group k. The sorted groups
are shuffled with seed 0, and whole groups are taken until there are at least 40 volumes.
"""

import random
import re
import sys
from collections import defaultdict
from pathlib import Path


def group_of(case_id: str) -> int:
    """The person a volume belongs to."""
    return (int(re.sub(r"\D", "", case_id)) + 1) // 2


def held_out(case_ids: list[str], *, at_least: int = 40) -> list[str]:
    """The test volumes among `case_ids`."""
    groups: dict[int, list[str]] = defaultdict(list)
    for case_id in case_ids:
        groups[group_of(case_id)].append(case_id)
    order = sorted(groups)
    random.Random(0).shuffle(order)
    chosen: list[str] = []
    for group in order:
        if len(chosen) >= at_least:
            break
        chosen.extend(groups[group])
    return sorted(chosen)


if __name__ == "__main__":
    names = [path.name.removesuffix(".nii.gz") for path in Path(sys.argv[1]).glob("hippocampus_*.nii.gz")]
    print("\n".join(held_out(names)))
