"""A run folder: the name of everything that medfcn writes into it. The names are stated here and nowhere else.

The names of scores, predictions and searches are here too, because an output folder is recognised by them; see
`medfcn.runs.outputs`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import overload

SCORES_FILE, SUMMARY_FILE, COMPARISON_FILE = "scores.csv", "summary.json", "comparison.json"
"""The scores of a folder of masks, and their differences from other scores."""
FAILURES_FILE, CONFIDENCE_FILE = "failures.csv", "confidence.csv"
"""In a folder of predictions: the cases without a mask, and the Dice to expect of the others."""
VOLUMES_FILE, TIMING_FILE = "volumes.csv", "timing.csv"
"""In a folder of predictions: the size of each label of each case, and where and how long each case was predicted."""
ITK_SNAP_FILE, SLICER_FILE = "labels.txt", "labels.ctbl"
"""In a folder of masks: values, names and colours of the labels, for ITK-SNAP and for 3D Slicer."""
PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER, SEG_NRRD_FOLDER = "probabilities", "uncertainty", "seg_nrrd"
ENTROPY, DISAGREEMENT = "entropy", "disagreement"
"""In a folder of predictions: further files of each case, and the ends of the names of those of uncertainty."""
CLAIMS_FOLDER = ".medfcn.claims"
"""In a folder of predictions, while several processes share its cases."""
CHANGES_FILE = "changes.csv"
"""In a folder of measurements: the change of each label between two cases of one patient."""
LOGS_FOLDER = "logs"
"""In a BIDS derivative: the folder of all tables, which validators pass over."""
PARTS_FOLDER, SHARDS_FILE = "parts", "shards.json"
"""In a folder of predictions that shards fill: the folder of their tables, and in it the number of shards."""
ENGINE_FILE = ".medfcn.engine"
"""In a folder of predictions: the library and arithmetic that run the networks. Hidden: a case may have any name."""
STUDY_FILE, TRIALS_FILE, BEST_FILE = "study.db", "trials.csv", "best.toml"
"""In the folder of a search."""
PICTURE = "step_{}.png"
"""The name of a picture of a training's validation slices, after a step of seven digits."""
_FOLD = "fold_"


class Entry:
    """A file or folder with a fixed place in a run folder: its name on the class, its path on an instance.

    Example:
        >>> RunFolder.card, RunFolder(Path("run")).card.as_posix()
        ('model.json', 'run/model.json')
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, run: None, kind: type) -> str: ...

    @overload
    def __get__(self, run: "RunFolder", kind: type) -> Path: ...

    def __get__(self, run: "RunFolder | None", kind: type) -> str | Path:
        return self.name if run is None else run.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's files.

    Args:
        path: The run folder; it need not exist.
    """

    path: Path

    weights = Entry("model.safetensors")
    """The weights."""
    card = Entry("model.json")
    """Everything else that is needed to use the weights. It is written last: a run with it is finished."""
    cases = Entry("cases.csv")
    """The use of each case, and the hashes of its files."""
    options = Entry("options.json")
    """The options of the training, with which it is resumed or carried on; places are relative to the run folder."""
    log = Entry("log.csv")
    """The course of the training."""
    pictures = Entry("pictures")
    """The same three validation slices over the training, as PNG: `step_0000300.png` after step 300."""
    tensorboard = Entry("tensorboard")
    """The course of the training for TensorBoard (`--track tensorboard`)."""
    mlflow = Entry("mlflow")
    """The same for MLflow: its database, or the number of the run on a server."""
    wandb = Entry("wandb")
    """The same for Weights & Biases: an offline run."""
    report = Entry("report.html")
    """The report of the validation cases."""
    validation = Entry("validation")
    """The masks of the validation cases and their scores."""
    scores = Entry(f"validation/{SCORES_FILE}")
    """A row for each validation case and label."""
    summary = Entry(f"validation/{SUMMARY_FILE}")
    """The mean of each score, and its definition."""
    state = Entry("state")
    """Everything that a stopped training needs to continue; removed when it is finished."""
    identity = Entry("state/training.json")
    """Everything that must be the same for a stopped training to continue."""
    steps = Entry("steps.json")
    """In a folder of folds that have a budget: the number of steps that all of them take."""
    replaced = Entry(".medfcn.replaced")
    """The run that was here before, until the new one is complete."""
    lock = Entry(".medfcn.lock")
    """Locked by the one process that may write into the folder."""

    trackers = ("tensorboard", "mlflow", "wandb")
    """The folders of trackers."""

    of_model = ("model.json", "model.safetensors", "cases.csv")
    """The names of the files with which a model is used; the last need not be there."""

    @property
    def is_finished(self) -> bool:
        """True if a training ended here."""
        return self.card.is_file()

    @property
    def is_any(self) -> bool:
        """True if a training ended here, or began, or is of folds that have ended."""
        return self.is_finished or self.identity.is_file() or any(fold.is_finished for fold in self.folds().values())

    def fold(self, number: int) -> "RunFolder":
        """The run folder of a fold, counted from 1."""
        return RunFolder(self.path / f"{_FOLD}{number}")

    def folds(self) -> dict[str, "RunFolder"]:
        """The folds that exist, by what follows `fold_` in their names."""
        found = sorted(path for path in self.path.glob(f"{_FOLD}*") if path.is_dir())
        return {path.name.removeprefix(_FOLD): RunFolder(path) for path in found}

    def models(self) -> tuple["RunFolder", ...]:
        """The folders with a model each: the folds of a run without a card of its own, else the run itself."""
        return (self,) if self.is_finished else tuple(self.folds().values()) or (self,)
