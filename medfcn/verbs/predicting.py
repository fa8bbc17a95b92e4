"""Predict, and write DICOM objects and a report of the masks too; their modules are loaded when they are wanted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from medfcn.calls import called_with
from medfcn.datasets import find_inputs
from medfcn.errors import SettingsError
from medfcn.files import write_csv
from medfcn.inference.batch import MASK_ENDINGS, PredictionRun
from medfcn.inference.predict import predict_masks
from medfcn.inference.reproduction import remake_masks
from medfcn.inference.request import PredictRequest
from medfcn.libraries import require_installed
from medfcn.progress import reporting
from medfcn.runs.folder import FAILURES_FILE, LOGS_FOLDER, RunFolder


@called_with(PredictRequest)
def predict(request: PredictRequest) -> PredictionRun:
    """Put masks on a volume, or on every volume of a folder.

    Raises:
        OutputExistsError: The output exists, and neither `overwrite` nor `resume` is set; or a mask would replace an
            input, which neither allows.
        MissingFileError: A run or the source does not exist, or a library for the format or engine is not installed.
        ModelError: A model cannot be loaded, or was trained with other transforms.
        DatasetError: The folder contains no volumes, or not those of `cases`.
        SettingsError: The output's name ends nearly as a mask's does; or `again` is given with an option that a
            record decides, or with a record that is none; or a DICOM output is wanted of volumes that are none.
        OSError: The disk is full, or a folder may not be written to.
    """
    for purpose in (request.format, f"engine {request.engine}"):
        require_installed(purpose)
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
        failures = (*result.failures, *export_masks(export, cases, reporting(request.progress)))
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
