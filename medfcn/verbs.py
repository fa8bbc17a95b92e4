"""The calls that also write a report: above everything they put together.

The report's modules are loaded when a report is written.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from medfcn.calls import called_with
from medfcn.datasets import find_inputs
from medfcn.errors import SettingsError
from medfcn.files import write_csv
from medfcn.inference.again import remake_masks
from medfcn.inference.batch import MASK_ENDINGS, PredictionRun
from medfcn.inference.predict import PredictRequest, predict_masks
from medfcn.progress import Silent, process_rank
from medfcn.runs.folder import FAILURES_FILE, LOGS_FOLDER, RunFolder
from medfcn.training.job import Run
from medfcn.training.on_cluster import train_on_cluster
from medfcn.training.options import whole_request
from medfcn.training.request import TrainRequest
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


@called_with(PredictRequest)
def predict(request: PredictRequest) -> PredictionRun:
    """Put masks on a volume, or on every volume of a folder.

    Raises:
        OutputExistsError: The output exists, and neither `overwrite` nor `resume` is set; or a mask would replace an
            input, which neither allows.
        MissingFileError: A run or the source does not exist.
        ModelError: A model cannot be loaded, or was trained with other transforms.
        DatasetError: The folder contains no volumes, or not those of `cases`.
        SettingsError: The output's name ends nearly as a mask's does; or `again` is given with an option that a
            record decides, or with a record that is none; or a DICOM output is wanted of volumes that are none.
        OSError: The disk is full, or a folder may not be written to.
    """
    exported = _exporter_of(request)
    result = predict_masks(request) if request.again is None else remake_masks(request)
    if exported is not None:
        result = exported(result)
    if not request.report or not (result.predicted or result.skipped or result.others):
        return result
    from medfcn.reporting.compose import predict_report

    is_bids = request.format == "bids"
    page = predict_report(
        request.output,
        {case: list(files) for case, files in result.inputs.items()},
        output=Path(request.output) / LOGS_FOLDER / RunFolder.report if is_bids else None,
        options=request.options,
        overwrite=True,
        progress=request.progress,
    )
    return replace(result, report=page)


def _exporter_of(request: PredictRequest) -> Callable[[PredictionRun], PredictionRun] | None:
    """A function that writes masks as DICOM too, with the cases that failed; None unless it is wanted.

    Raises:
        SettingsError: The format is not known, or an input is no DICOM series.
    """
    if request.format == "nifti" or (request.format == "bids" and request.again is None):
        return None
    if request.again is not None:
        raise SettingsError(
            "format: masks that are made again from their records are NIfTI files; leave --format out",
            code="OPTIONS_TOGETHER",
            field="format",
        )
    from medfcn.exporting.dicom_seg import parse_codes
    from medfcn.exporting.masks import Masked, MaskExport, checked_format, export_masks, require_series

    export = MaskExport(
        format=checked_format(request.format), options=request.options, codes=parse_codes(request.codes)
    )
    inputs = find_inputs(request.source, series=request.options.series, bids=request.options.bids)
    require_series(path for case in inputs for path in case.images[:1])

    def write(result: PredictionRun) -> PredictionRun:
        target = Path(request.output)
        is_one_file = target.name.endswith(MASK_ENDINGS)
        cases = [
            Masked(
                case=case,
                mask=target if is_one_file else target / f"{case}.nii.gz",
                image=result.inputs[case][0],
                is_new=case in result.predicted,
            )
            for case in (*result.predicted, *result.skipped, *result.others)
        ]
        failures = (*result.failures, *export_masks(export, cases, request.progress or Silent()))
        if len(failures) > len(result.failures) and not is_one_file:
            write_csv(target / FAILURES_FILE, ("case", "error"), failures)
        failed = {case for case, _ in failures}  # with a mask, and without its object

        def others(cases: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(case for case in cases if case not in failed)

        return replace(
            result,
            failures=failures,
            predicted=others(result.predicted),
            skipped=others(result.skipped),
            others=others(result.others),
        )

    return write
