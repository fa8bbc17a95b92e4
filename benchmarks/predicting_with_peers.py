"""CPU seconds of whole prediction commands, start included: medfcn, nnU-Net 2D and a MONAI `SliceInferer` script.

    python3 -m venv peers && peers/bin/pip install -c constraints.txt nnunetv2
    python benchmarks/predicting_with_peers.py DATA OUTPUT --peers peers/bin/python [--only SET ...] [--rounds 3]
        [--without "nnU-Net 2D"]

DATA is the folder that contains `hippocampus/` and `heart_cine/`. The sets:

`hippocampus`   60 volumes of 35×51×35 voxels, one label, one slice in (`--context 1`)
`hearts`        20 volumes of 216×256×10 voxels, 3 labels
`ct`            one phantom of 512×512×134 voxels, one label

Each set is trained for a few steps with medfcn and for some seconds with nnU-Net, its plan for `2d`, only so that
there are weights: what a prediction takes does not depend on how good they are, but for its components. The
MONAI script (`peers/monai_slices.py`) runs medfcn's network, as exported to a bundle. nnU-Net predicts without mirror
images (`--disable_tta`), medfcn as it does by default, and where that is to look several times (`slices.turns`) also
with one look, which is what the MONAI script does. One thread and one process each, tool after tool in turn.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import nibabel
import numpy as np
from measured import Used, processor, run_measured, versions
from nnunet import NNUNet
from streaming import made_volume

HERE = Path(__file__).resolve().parent
PHANTOMS = range(13, 19)
"""Slices of the phantoms of a training. With fewer the test is a much larger volume, which is refused."""
ONE_LOOK = "medfcn, one look"
METHODS = ("medfcn", ONE_LOOK, "MONAI SliceInferer", "nnU-Net 2D")
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True)
class Kind:
    """A set.

    Attributes:
        training: How many volumes are trained on.
        test: How many are predicted.
        labels: As `medfcn train --labels`; the names alone in nnU-Net's order.
        steps: Of medfcn.
        batch: Slices in nnU-Net's steps.
        options: What else `medfcn train` is told.
    """

    training: int
    test: int
    labels: str
    steps: int
    batch: int
    options: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [part.partition("=")[0] for part in self.labels.split(",")]


SETS = {
    "hippocampus": Kind(20, 60, "hippocampus=1+2", 60, 32, ("--context", "1")),
    "hearts": Kind(20, 20, "right=1,wall=2,left=3", 60, 8, ("--group-by", "stem")),
    "ct": Kind(len(PHANTOMS), 1, "organ=1", 60, 4),
}


def volumes_of(name: str, data: Path, folder: Path) -> tuple[dict[str, tuple[Path, Path]], dict[str, Path]]:
    """Image and mask of each training case by id, and the images that are predicted."""
    kind = SETS[name]
    if name == "ct":
        training = {f"p{slices}": slices for slices in PHANTOMS}
        for one, slices in training.items():
            paths = [folder / "train" / side / f"{one}.nii.gz" for side in ("images", "labels")]
            made_volume(512, slices, paths[0], reference=paths[1])
        volume = made_volume(512, 134, folder / "test" / "p134.nii.gz")
        return {one: both(folder / "train", f"{one}.nii.gz") for one in training}, {"p134": volume}
    source = data / ("heart_cine" if name == "hearts" else name)
    files = sorted(path.name for path in (source / "images").glob("*.nii.gz"))[: kind.training + kind.test]
    for number, file in enumerate(files):
        is_training = number < kind.training
        for side in ("images", "labels") if is_training else ("images",):
            link = folder / "train" / side / file if is_training else folder / "test" / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to((source / side / file).resolve())
    ids = [file.removesuffix(".nii.gz") for file in files]
    training = {one: both(folder / "train", f"{one}.nii.gz") for one in ids[: kind.training]}
    return training, {one: folder / "test" / f"{one}.nii.gz" for one in ids[kind.training :]}


def both(folder: Path, file: str) -> tuple[Path, Path]:
    return folder / "images" / file, folder / "labels" / file


def commands(name: str, given: argparse.Namespace) -> dict[str, tuple[Sequence[str], dict[str, str]]]:
    """The command of each method with its environment; what they need is trained and exported first."""
    kind, folder = SETS[name], given.output / name
    training, test = volumes_of(name, given.data, folder)
    run, bundle, log = folder / "run", folder / "bundle", folder / "log.txt"
    medfcn = [sys.executable, "-m", "medfcn"]
    if not (run / "model.json").is_file():
        words = ["train", str(folder / "train"), "-o", str(run), "--labels", kind.labels, "--steps", str(kind.steps)]
        run_measured([*medfcn, *words, *kind.options, "--threads", "1", "--overwrite"], log)
    if not bundle.is_dir():
        run_measured([*medfcn, "export", str(run), "-o", str(bundle), "--format", "bundle"], log)
    plan = json.loads((run / "model.json").read_text())["plan"]
    spacing = [str(edge or -1) for edge in plan["spacing_mm"]]  # -1: each volume's own, for MONAI
    script = [sys.executable, str(HERE / "peers" / "monai_slices.py"), str(bundle), str(folder / "test")]
    script += [str(folder / "MONAI SliceInferer"), "--window", *map(str, plan["window"])]
    script += ["--axis", str(AXES[plan["views"][0]])]
    found: dict[str, tuple[Sequence[str], dict[str, str]]] = {}
    for method, model in ({"medfcn": run} | ({ONE_LOOK: one_look(run)} if plan.get("turns") else {})).items():
        words = ["predict", str(model), str(folder / "test"), "-o", str(folder / method), "--overwrite"]
        found[method] = ([*medfcn, *words, "--threads", "1", "--jobs", "1"], {})
    found["MONAI SliceInferer"] = ([*script, "--spacing", *spacing], {})
    if "nnU-Net 2D" in given.without:
        return found
    nnunet = NNUNet(given.peers, folder / "nnunet", training, test, kind.names, encoder(name), batch=kind.batch)
    nnunet.prepare()
    results = folder / "nnunet" / "trained"
    nnunet.train(results, given.seconds, seed=0)
    found["nnU-Net 2D"] = (nnunet.predicting("final", folder / "nnU-Net 2D", tta=False), nnunet.variables(results))
    return found


def one_look(run: Path) -> Path:
    """A copy of a run that looks once."""
    copy = run.with_name("run_of_one_look")
    shutil.copytree(run, copy, dirs_exist_ok=True)
    card = json.loads((run / "model.json").read_text())
    card["plan"]["turns"] = []
    (copy / "model.json").write_text(json.dumps(card))
    return copy


def encoder(name: str) -> Callable[[Any], Any]:
    """A mask's values → nnU-Net's."""
    is_merged = name == "hippocampus"
    return lambda mask: ((mask > 0) if is_merged else mask).astype(np.uint8)


def compare(name: str, given: argparse.Namespace) -> list[str]:
    """A row for each method."""
    asked = commands(name, given)
    found: dict[str, list[Used]] = {method: [] for method in METHODS if method in asked}
    for _ in range(given.rounds):
        for method, (command, variables) in asked.items():
            if not method.startswith("medfcn"):
                shutil.rmtree(given.output / name / method, ignore_errors=True)
            found[method].append(run_measured(command, given.output / name / "log.txt", **variables))
    count, rows = SETS[name].test, []
    ours, once = ([used.cpu_seconds for used in found.get(key, found["medfcn"])] for key in ("medfcn", ONE_LOOK))
    for method, all_used in found.items():
        seconds = [used.cpu_seconds for used in all_used]
        masks = sorted((given.output / name / method).glob("*.nii.gz"))
        marked = sum(int(np.count_nonzero(np.asarray(nibabel.load(path).dataobj))) for path in masks)
        if len(masks) != count:
            raise SystemExit(f"{name}, {method}: {len(masks)} masks instead of {count}")
        beside = " | ".join(times_of(seconds, other) for other in (ours, once))
        peak = max(used.peak_mb for used in all_used)
        rows.append(f"| {name} | {method} | {median(seconds) / count:.3f} | {beside} | {peak:.0f} | {marked:,} |")
    return rows


def times_of(seconds: Sequence[float], others: Sequence[float]) -> str:
    """How many times as long, round by round: the median, and the range."""
    times = [each / other for each, other in zip(seconds, others, strict=True)]
    return f"{median(times):.2f} ({min(times):.2f}–{max(times):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--peers", metavar="PYTHON", default="peers/bin/python", help="The one that has nnunetv2.")
    parser.add_argument("--only", nargs="+", choices=SETS)
    parser.add_argument("--seconds", type=float, default=40.0, help="nnU-Net's CPU seconds of a training.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", nargs="+", choices=METHODS[-1:], default=[])
    given = parser.parse_args()
    given.data, given.output = given.data.resolve(), given.output.resolve()
    given.peers = str(Path(given.peers).absolute())
    print(f"{processor()}; {json.dumps(versions('medfcn', 'monai', 'torch'))}; one thread, {given.rounds} rounds\n")
    print("| set | method | CPU s a volume | × medfcn (range) | × one look | peak MB | voxels marked |")
    print("|---|---|---|---|---|---|---|")
    for name in given.only or SETS:
        print("\n".join(compare(name, given)), flush=True)


if __name__ == "__main__":
    main()
