"""Every case of a data set scored by a fold that had not seen it: medfcn beside nnU-Net 2D, on the same folds.

    python benchmarks/folds_with_nnunet.py DATA OUTPUT --labels tumour=1 --steps 600 --seconds 900 --batch 12 \
        --peers PYTHON

DATA is a folder with `images/` and `labels/`. medfcn is `medfcn train --folds` with one thread, and its masks are
those it leaves in `validation/`. nnU-Net is planned, trained and used for each fold by itself with a clock of CPU
seconds (`peers/nnunet_2d.py`), and predicts with mirror images, its default. Both are scored on the volumes' own
grids by medfcn's `evaluate`; the differences are paired, case by case. CPU seconds are those of the whole commands,
planning and preprocessing included. What stands in OUTPUT is not made again; a training of nnU-Net goes on where it
was stopped.
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from statistics import mean, median
from typing import Any

from measured import processor, run_measured, trained, versions
from nnunet import NNUNet

from medfcn.datasets import Dataset, find_dataset
from medfcn.evaluation import ScoreTable, compare_tables, evaluate
from medfcn.labels import LabelMap
from medfcn.progress import Silent
from medfcn.training.folds import Split, split_into_folds
from medfcn.training.survey import survey
from medfcn.volumes import ReadOptions


def folds_of(dataset: Dataset, labels: LabelMap, count: int) -> tuple[Split, ...]:
    """The folds of `medfcn train --folds` with seed 0."""
    found = survey(dataset, labels, ReadOptions(), skip_bad=False, progress=Silent())
    voxels = {case_id: shape.label_voxels for case_id, shape in found.fingerprints.items()}
    return split_into_folds(found.cases, voxels, labels.names, count=count, seed=0)


def run_medfcn(given: argparse.Namespace) -> tuple[dict[str, Path], dict[str, float]]:
    """Train all folds; the masks by case id, and what it took."""
    folder = given.output / f"medfcn_{given.steps}"
    measured = folder / "trained.json"
    if not measured.is_file():
        command = [sys.executable, "-m", "medfcn", "train", str(given.data), "-o", str(folder / "run"), "--overwrite"]
        command += ["--labels", given.labels, "--folds", str(given.folds), "--steps", str(given.steps)]
        command += [
            "--threads",
            "1",
            "--device",
            "cpu",
            *([] if given.groups is None else ["--groups", given.groups]),
        ]
        measured.parent.mkdir(parents=True, exist_ok=True)
        measured.write_text(json.dumps(trained(run_measured(command, folder / "train.log"))))
    masks = {path.name.removesuffix(".nii.gz"): path for path in folder.glob("run/fold_*/validation/*.nii.gz")}
    return masks, json.loads(measured.read_text())


def run_nnunet(
    given: argparse.Namespace, dataset: Dataset, labels: LabelMap, splits: tuple[Split, ...]
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Train all folds; the masks by case id, and what it took."""
    by_id = {case.id: case for case in dataset.cases}
    masks: dict[str, Path] = {}
    took = {"cpu_seconds": 0.0, "peak_mb": 0.0}
    prepared: dict[str, Any] = {}
    for number, split in enumerate(splits, start=1):
        if given.only and number not in given.only:
            continue
        base = given.output / "nnunet" / f"fold_{number}"
        nnunet = NNUNet(
            given.peers,
            base,
            {one: (by_id[one].images[0], by_id[one].label) for one in split.training},
            {one: by_id[one].images[0] for one in split.validation},
            labels=labels.names,
            encode=lambda array: labels.encode(array, name="mask"),
            batch=given.batch,
        )
        prepared = nnunet.prepare()
        results = base / f"{given.seconds:g}s"
        found = nnunet.train(results, given.seconds, seed=0)
        folder = results / "masks"
        if not all((folder / f"{one}.nii.gz").is_file() for one in split.validation):
            command = nnunet.predicting("final", folder, tta=True)
            run_measured(command, results / "predict.log", **nnunet.variables(results))
        masks |= {one: folder / f"{one}.nii.gz" for one in split.validation}
        took["cpu_seconds"] += found["cpu_seconds"] + prepared["cpu_seconds"]
        took["peak_mb"] = max(took["peak_mb"], found["peak_mb"])
        print(f"nnU-Net, fold {number}: {found['points']['final']['steps']} steps", flush=True)
    return masks, took | prepared


def said(name: str, table: ScoreTable, took: dict[str, Any], folds: int) -> str:
    dices, far = [row.dice for row in table.rows], [row.hd95_mm for row in table.rows]
    return (
        f"{name}: {took['cpu_seconds'] / folds:.0f} CPU s a fold, {took['peak_mb']:.0f} MB; "
        f"Dice mean {mean(dices):.4f}, median {median(dices):.4f}, worst {min(dices):.4f}; "
        f"HD95 mean {mean(far):.2f}, median {median(far):.2f} mm"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--groups", help="CSV of id, group.")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--steps", type=int, required=True, help="medfcn's, of a fold.")
    parser.add_argument("--seconds", type=float, required=True, help="nnU-Net's CPU seconds of a fold.")
    parser.add_argument("--batch", type=int, default=12, help="nnU-Net's; its own plan is made for a GPU.")
    parser.add_argument("--peers", metavar="PYTHON", default="peers/bin/python", help="The one that has nnunetv2.")
    parser.add_argument("--method", choices=("medfcn", "nnunet"), help="Only train this one.")
    parser.add_argument("--only", type=int, nargs="+", help="nnU-Net: only train these folds; for several processes.")
    given = parser.parse_args()
    # So that a training ends with the script that started it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    given.data, given.output = given.data.resolve(), given.output.resolve()
    given.peers = str(Path(given.peers).absolute())
    labels = LabelMap.parse(given.labels)
    dataset = find_dataset(given.data, groups=given.groups)
    references = {case.id: case.label for case in dataset.cases}
    patients = {case.id: case.group for case in dataset.cases}
    tables, tooks = {}, {}
    if given.method != "medfcn":
        masks, took = run_nnunet(given, dataset, labels, folds_of(dataset, labels, given.folds))
        if given.only:
            return
        # nnU-Net's masks hold positions.
        encoded = ",".join(f"{name}={value}" for value, name in enumerate(labels.names, start=1))
        tooks["nnU-Net 2D"] = took
        tables["nnU-Net 2D"] = evaluate(masks, references, labels=encoded, groups=patients)
    if given.method != "nnunet":
        masks, tooks["medfcn"] = run_medfcn(given)
        tables["medfcn"] = evaluate(masks, references, labels=given.labels, groups=patients)
    for name, table in tables.items():
        print(said(name, table, tooks[name], given.folds))
    if len(tables) == 2:
        sides = ("medfcn", "nnU-Net 2D")
        print(compare_tables(*(tables[side] for side in sides), sides=sides).to_text())
    print(processor(), json.dumps(versions("medfcn", "torch")))


if __name__ == "__main__":
    main()
