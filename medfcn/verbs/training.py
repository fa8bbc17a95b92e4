"""Train, and write a report of the run too; the report's modules are loaded when it is written."""

from medfcn.calls import called_with
from medfcn.progress import process_rank
from medfcn.runs.folder import RunFolder
from medfcn.training.on_cluster import train_on_cluster
from medfcn.training.options import whole_request
from medfcn.training.request import TrainRequest
from medfcn.training.run import Run
from medfcn.training.train import run_training


@called_with(TrainRequest)
def train(request: TrainRequest) -> Run:
    """Train a fully convolutional network on the slices of a data set's volumes.

    The run folder contains the model, its card, its scores on the validation cases and a report. With folds, there is
    one in `output/fold_1` and so on; once all are there, `output/validation` scores every case by the fold that was
    not trained on it.

    In processes that `torchrun` started, all call it alike: they share every batch, the first one writes the run
    folder, and all return the same.

    With `resume`, a finished run is left as it is. Its labels, settings, length, seed, initial weights and case ids
    are compared with the requested ones without reading volumes.

    A run folder keeps its options: `train("runs/one", resume=True)` goes on with a stopped training, and
    `train("runs/one", "runs/two", more="10m")` carries a finished one on, from its weights and with its split.

    Raises:
        OutputExistsError: The run folder exists, and `overwrite` is false.
        DatasetError: The folder or table cannot be read as a data set, or some cases cannot be used and `skip_bad` is
            false.
        SettingsError: A setting is unknown or has a value that is not allowed.
        MissingFileError: There is nothing to resume.
        ModelError: The initial weights cannot be read, or are of another network.
        TrainingStoppedError: `stop` was asked to.
        TrainingError: Training cannot go on, another process uses the folder, or the stopped training was another.
        ProcessError: Another process met an error, or vanished.
    """
    request = whole_request(request)
    run = run_training(request) if request.cluster is None else train_on_cluster(request)
    if request.report and not process_rank():
        from medfcn.reporting.compose import train_report

        for folder in run.scored:
            if not RunFolder(folder).report.is_file():
                train_report(
                    folder,
                    request.dataset,
                    options=request.options,
                    allow_outside=request.allow_outside,
                    progress=request.progress,
                )
    return run
