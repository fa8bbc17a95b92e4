"""Every step on the sample volumes: train, predict, evaluate, draw."""

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from medfcn.datasets import find_inputs, find_masks
from medfcn.errors import MissingFileError
from medfcn.evaluation import ScoreTable, evaluate, write_scores
from medfcn.files import make_folder, remove_half_written
from medfcn.labels import read_mask
from medfcn.progress import Progress, reporting
from medfcn.reporting.compose import report
from medfcn.reporting.pictures import PictureCase, overlay_sheet
from medfcn.runs.folder import RunFolder
from medfcn.runs.outputs import refuse_blocked, refuse_existing
from medfcn.verbs import predict, train
from medfcn.volumes import read_volume


@dataclass(frozen=True)
class Demo:
    """Files of a finished demo.

    Attributes:
        folder: Contains everything below.
        run: The run folder.
        masks: The folder of masks of the test volumes.
        scores: The scores of these masks.
        picture: A PNG of the masks over the volumes.
        report: A page with the scores, and a viewer of the masks over the volumes.
    """

    folder: Path
    run: Path
    masks: Path
    scores: ScoreTable
    picture: Path
    report: Path


def sample_data() -> Path:
    """The folder of the sample volumes, in a checkout or as installed.

    Raises:
        MissingFileError: They are in neither place.
    """
    places = (
        Path(__file__).resolve().parent.parent / "sample_data",
        Path(sysconfig.get_path("data")) / "share" / "medfcn" / "sample_data",
    )
    for place in places:
        if (place / "train" / "images").is_dir():
            return place
    raise MissingFileError("sample_data: not found beside the package or under share/medfcn; install medfcn again")


def demo(
    output: Path | str,
    *,
    steps: int = 350,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Demo:
    """Train on twelve sample volumes, predict masks for four others, score and draw them.

    Args:
        output: The folder to make.
        steps: Number of optimiser steps; their number, not their time, decides how good the masks are.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads of the training; None takes one or all cores, whichever is faster.
        resume: Go on with a demo that was stopped; its training ends with the same weights as without the stop.
        overwrite: Replace an existing demo.
        progress: Where messages and progress are reported.

    Raises:
        OutputExistsError: The folder exists, and neither `resume` nor `overwrite` is true.
        SettingsError: Both are true.
        MissingFileError: There is nothing to resume.
    """
    say, folder, data = reporting(progress), Path(output), sample_data()
    if not resume:
        refuse_existing(folder, overwrite=overwrite)
    run, masks, scores = (folder / name for name in ("run", "masks", "scores"))
    picture = folder / "overlay.png"
    refuse_blocked(folder, files=(picture.name, RunFolder.report), folders=(run.name, masks.name, scores.name))
    for place in () if resume else (masks, scores):
        refuse_existing(place, overwrite=overwrite)
    if not resume:
        make_folder(folder)
    remove_half_written(folder)
    train(
        data / "train",
        run,
        labels="organ=1",
        steps=steps,
        device=device,
        threads=threads,
        resume=resume,
        overwrite=overwrite,
        progress=say,
    )
    test = data / "test"
    predict(run, test / "images", masks, device=device, resume=resume, overwrite=overwrite, progress=say)
    # The other steps take seconds: they are repeated, even if a stopped demo had done some of them.
    overwrite |= resume
    table = evaluate(masks, test / "labels", progress=say)
    write_scores(table, scores, overwrite=overwrite)
    references, predictions = find_masks(test / "labels"), find_masks(masks)
    pictures = [
        PictureCase(read_volume(case.images[0]), read_mask(references[case.id]), read_mask(mask), title=case.id)
        for case in find_inputs(test / "images")
        if (mask := predictions.get(case.id))
    ]
    overlay_sheet(pictures, picture)
    page = report(masks, test, folder / RunFolder.report, run=run, table=table, overwrite=overwrite, progress=say)
    return Demo(folder=folder, run=run, masks=masks, scores=table, picture=picture, report=page)
