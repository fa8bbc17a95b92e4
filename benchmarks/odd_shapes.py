"""Which masks are flagged for review, and for their shape, beside their true Dice.

    python benchmarks/odd_shapes.py RUN DATA CASES [--blank N]

RUN is a run folder, DATA a folder with `images/` and `labels/`, CASES a file of ids that the run did not see, one a
line.
`--blank N` sets the upper N of the reference's slices (and all above) to the image's minimum first, as if a scan were
cut short.
"""

import argparse
from pathlib import Path

import numpy as np

import medfcn
from medfcn.datasets.tables import read_ids
from medfcn.evaluation import evaluate
from medfcn.volumes import Volume

NOT_SHAPE = ("expected Dice", "ml are far")
"""Parts of the flags that are not about a shape."""


def image_of(data: Path, case: str, blank: int) -> Volume:
    image = medfcn.read_volume(data / "images" / f"{case}.nii.gz")
    if not blank:
        return image
    drawn = np.flatnonzero((medfcn.read_volume(data / "labels" / f"{case}.nii.gz").array > 0).any(axis=(0, 1)))
    array = image.array.copy()
    array[:, :, drawn[-blank] :] = array.min()
    return image.with_array(array)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--blank", type=int, default=0)
    given = parser.parse_args()
    model = medfcn.load(given.run, device="cpu")
    found = {case: model.predict_case(image_of(given.data, case, given.blank)) for case in read_ids(given.cases)}
    references = {case: given.data / "labels" / f"{case}.nii.gz" for case in found}
    table = evaluate({case: one.mask for case, one in found.items()}, references, labels=model.card.labels)
    for label in table.labels:
        rows = [row for row in table.rows if row.label == label]
        median = float(np.median([row.dice for row in rows]))
        good = [row for row in rows if row.dice > median]
        parts = {"above the median": good, "others": [row for row in rows if row.dice <= median]}
        parts["below 0.5"] = [row for row in rows if row.dice < 0.5]
        for name, part in parts.items():
            why = [[line for line in found[row.case].flags if line.startswith(f"review {label}: ")] for row in part]
            shape = sum(any(not any(words in line for words in NOT_SHAPE) for line in lines) for lines in why)
            review = sum(
                bool(found[row.case].assessments[label].review) for row in part if found[row.case].assessments
            )
            print(
                f"{label}, Dice {name} (median {median:.3f}): {len(part)} masks, {shape} for shape, {review} in all"
            )


if __name__ == "__main__":
    main()
