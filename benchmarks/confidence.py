"""Whether the expected Dice ranks masks as the true one does, and whether the worst are flagged for review.

    python benchmarks/confidence.py DATA OUTPUT [--folds 3] [--steps 500]

DATA is the folder that holds `hippocampus/`. Folds by person are trained on all but the volumes of
`hippocampus_test.txt`, whose masks, from the mean of the folds, are then judged without their references and scored
with them. `OUTPUT/confidence.json` holds the figures and `OUTPUT/cases.csv` each case; a finished `OUTPUT/run` is
used again.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import medfcn
from medfcn.datasets.tables import read_ids
from medfcn.evaluation import ScoreTable
from medfcn.files import write_csv, write_json
from medfcn.inference.confidence import DoubtMeter

HELD_OUT = Path(__file__).with_name("hippocampus_test.txt")


def trained(data: Path, output: Path, *, folds: int, steps: int) -> Path:
    """The folder of the folds."""
    run, groups = output / "run", output / "groups.csv"
    names = sorted(path.name.removesuffix(".nii.gz") for path in (data / "hippocampus" / "images").glob("*.nii.gz"))
    write_csv(groups, ("id", "group"), [(name, f"person_{(int(name[-3:]) + 1) // 2}") for name in names])
    medfcn.train(
        data / "hippocampus", run, labels="hippocampus=1+2", groups=groups, leave_out=read_ids(HELD_OUT),
        folds=folds, steps=steps, device="cpu", threads=1, resume=run.is_dir(),
    )  # fmt: skip
    return run


class Meter:
    """The CPU seconds that `DoubtMeter.add` takes."""

    def __init__(self) -> None:
        self.seconds, add = 0.0, DoubtMeter.add

        def timed(meter: DoubtMeter, *slab: Any) -> None:
            began = time.process_time()
            add(meter, *slab)
            self.seconds += time.process_time() - began

        DoubtMeter.add = timed  # type: ignore[method-assign]


def judged(run: Path, data: Path) -> tuple[list[dict[str, Any]], float]:
    """What is expected of each held-out case, with its true Dice, and the share of CPU time that judging takes."""
    model, meter, began = medfcn.load(run, device="cpu"), Meter(), time.process_time()
    images = {name: data / "hippocampus" / "images" / f"{name}.nii.gz" for name in read_ids(HELD_OUT)}
    found = {name: model.predict_case(image) for name, image in images.items()}
    share = meter.seconds / (time.process_time() - began)
    references = {name: data / "hippocampus" / "labels" / f"{name}.nii.gz" for name in found}
    table = medfcn.evaluate({name: one.mask for name, one in found.items()}, references, labels="hippocampus=1+2")
    rows = []
    for row in table.rows:
        one = found[row.case]
        rows.append(
            {
                "case": row.case,
                "dice": row.dice,
                "expected_dice": one.assessments["hippocampus"].expected_dice,
                "review": one.assessments["hippocampus"].review,
                "soft_dice": float(np.mean(one.doubt.soft_dice)) if one.doubt else math.nan,
                "agreement": float(one.doubt.agreement[0]) if one.doubt else math.nan,
            }
        )
    return rows, share


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlations with the true Dice, and what became of the worst tenth."""
    true = np.array([row["dice"] for row in rows])
    expected = np.array([row["expected_dice"] for row in rows])
    tenth = max(1, round(len(rows) / 10))
    worst, lowest = set(np.argsort(true)[:tenth].tolist()), set(np.argsort(expected)[:tenth].tolist())
    reviewed = {place for place, row in enumerate(rows) if row["review"]}
    return {
        "cases": len(rows),
        "dice": float(true.mean()),
        "expected_dice": float(expected.mean()),
        "mean_absolute_error": float(np.abs(true - expected).mean()),
        "spearman": {
            name: float(spearmanr([row[name] for row in rows], true).statistic)
            for name in ("expected_dice", "soft_dice", "agreement")
        },
        "worst_tenth": tenth,
        "worst_among_lowest_expected": len(worst & lowest),
        "reviewed": len(reviewed),
        "worst_among_reviewed": len(worst & reviewed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    run = trained(given.data, given.output, folds=given.folds, steps=given.steps)
    rows, share = judged(run, given.data)
    table = ScoreTable.from_csv(run / "validation" / "scores.csv")
    unseen = [pair for model in medfcn.load(run, device="cpu").models for pair in model.card.unseen.labels[0].scores]
    found = figures(rows) | {
        "share_of_prediction": share,
        "out_of_fold_cases": len(table.rows),
        "out_of_fold_spearman": float(spearmanr(*zip(*unseen, strict=True)).statistic),
    }
    write_csv(given.output / "cases.csv", tuple(rows[0]), [tuple(row.values()) for row in rows])
    write_json(given.output / "confidence.json", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
