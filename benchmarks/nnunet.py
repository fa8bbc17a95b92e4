"""nnU-Net 2D by its own commands: lay data out for it, prepare, train for CPU seconds, predict.

Everything lies in one folder: `raw/` and `preprocessed/`, and a folder for each training. What is there is not made
again.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from measured import run_measured, trained
from numpy.typing import NDArray

SCRIPT = Path(__file__).resolve().parent / "peers" / "nnunet_2d.py"
DATASET = "Dataset001_Benchmark"


@dataclass(frozen=True)
class NNUNet:
    """A data set for nnU-Net, and where its results go.

    Attributes:
        python: Of an environment with nnunetv2.
        folder: Made when needed.
        training: Image and mask of each training case, by id.
        test: Image of each case to be predicted, by id.
        labels: Names of the labels.
        encode: A mask's values → 0 for background, k for the k-th label.
        batch: Slices in a step. Its own plan, made for a GPU, says many more, and fewer steps.
        dataset: What it is called.
    """

    python: str
    folder: Path
    training: Mapping[str, tuple[Path, Path]]
    test: Mapping[str, Path]
    labels: Sequence[str]
    encode: Callable[[NDArray[Any]], NDArray[np.uint8]]
    batch: int
    dataset: str = DATASET

    @property
    def raw(self) -> Path:
        return self.folder / "raw" / self.dataset

    def command(self, name: str) -> str:
        return str(Path(self.python).parent / f"nnUNetv2_{name}")

    def variables(self, results: Path) -> dict[str, str]:
        found = {f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed")}
        return found | {"nnUNet_results": str(results), "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}

    def lay_out(self) -> None:
        """The volumes in nnU-Net's raw layout."""
        for name in ("imagesTr", "labelsTr", "imagesTs"):
            (self.raw / name).mkdir(parents=True, exist_ok=True)
        for one, (image, label) in self.training.items():
            shutil.copyfile(image, self.raw / "imagesTr" / f"{one}_0000.nii.gz")
            found = nibabel.load(label)
            mask = self.encode(np.asarray(found.dataobj))
            nibabel.save(nibabel.Nifti1Image(mask, found.affine), self.raw / "labelsTr" / f"{one}.nii.gz")
        for one, image in self.test.items():
            shutil.copyfile(image, self.raw / "imagesTs" / f"{one}_0000.nii.gz")
        labels = {"background": 0} | {name: value for value, name in enumerate(self.labels, start=1)}
        about = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
        (self.raw / "dataset.json").write_text(json.dumps(about | {"numTraining": len(self.training)}, indent=1))

    def prepare(self) -> dict[str, Any]:
        """Plan and preprocess once, with nnU-Net's own command; what it took, and which versions."""
        done = self.folder / "prepared.json"
        if not done.is_file():
            self.lay_out()
            # Its planner takes the number of augmenting processes for one of threads, and fails with none (2.8.1).
            variables = self.variables(self.folder) | {"nnUNet_n_proc_DA": "1"}
            command = [self.command("plan_and_preprocess"), "-d", "1", "-c", "2d", "-np", "1", "-npfp", "1"]
            used = run_measured(command, self.folder / "prepare.log", **variables)
            path = self.folder / "preprocessed" / self.dataset / "nnUNetPlans.json"
            plans = json.loads(path.read_text())
            planned = plans["configurations"]["2d"]
            about = {"planned_batch": planned["batch_size"], "patch": planned["patch_size"]}
            planned["batch_size"] = min(planned["batch_size"], self.batch)
            path.write_text(json.dumps(plans, indent=1))
            ask = "from importlib.metadata import version; print(version('nnunetv2'), version('torch'))"
            said = subprocess.run([self.python, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
            about |= {"cpu_seconds": round(used.cpu_seconds, 1), "nnunetv2": said[0], "torch": said[1]}
            done.write_text(json.dumps(about, indent=1))
        return dict(json.loads(done.read_text()))

    def train(self, results: Path, seconds: float, seed: int, points: Sequence[float] = ()) -> dict[str, Any]:
        """Train for CPU seconds, going on where it was stopped; what it took, and `points` as the script tells it."""
        notes, measured = self._run(results) / "points.json", results / "trained.json"
        if not measured.is_file():
            before = json.loads(notes.read_text())["cpu_seconds"] if notes.is_file() else 0.0
            command = [self.python, str(SCRIPT), str(seconds), "--seed", str(seed)]
            asked = ["--points", *map(str, points)] if points else []
            used = run_measured([*command, *asked], results / "train.log", **self.variables(results))
            measured.write_text(json.dumps(trained(used, before=before)))
        return json.loads(measured.read_text()) | {"points": json.loads(notes.read_text())["points"]}

    def predicting(self, checkpoint: str, masks: Path, *, tta: bool) -> list[str]:
        """The command that predicts the test cases with one of a training's checkpoints."""
        command = [self.command("predict"), "-d", "1", "-c", "2d", "-f", "all", "-device", "cpu"]
        command += ["-i", str(self.raw / "imagesTs"), "-o", str(masks), "-npp", "0", "-nps", "0"]
        return [*command, "-chk", f"checkpoint_{checkpoint}.pth", *([] if tta else ["--disable_tta"])]

    def _run(self, results: Path) -> Path:
        return results / self.dataset / "nnUNetTrainer__nnUNetPlans__2d" / "fold_all"
