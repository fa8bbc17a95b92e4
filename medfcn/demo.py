"""The whole way on the sample volumes: train, predict, evaluate, draw."""

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from medfcn.datasets import find_inputs, find_masks
from medfcn.errors import MissingFileError, SettingsError
from medfcn.evaluation import ScoreTable, evaluate, write_scores
from medfcn.inference.predict import predict
from medfcn.labels import read_mask
from medfcn.progress import Progress, Silent
from medfcn.reporting.compose import report
from medfcn.reporting.pictures import PictureCase, overlay_sheet
from medfcn.runs.folder import RunFolder
from medfcn.runs.outputs import refuse_existing
from medfcn.training.train import train
from medfcn.volumes import read_volume


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        folder: Holds everything below.
        run: The run folder.
        masks: The folder of masks of the unseen volumes.
        scores: Of these masks.
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
    """Train on twelve sample volumes, put masks on four unseen ones, score and draw them.

    Args:
        output: The folder to make.
        steps: Of the training; their number, not their time, decides how good the masks are.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of the training; None takes one or all cores, whichever is faster.
        resume: Go on with a demo that was stopped; its training ends with the weights it would have had.
        overwrite: Replace an existing demo.
        progress: Where messages go.

    Raises:
        OutputExistsError: The folder exists, and neither `resume` nor `overwrite` is true.
        SettingsError: Both are.
        MissingFileError: There is nothing to resume.
    """
    if resume and overwrite:
        raise SettingsError("resume and overwrite are given together; give one of them")
    say, folder, data = progress or Silent(), Path(output), sample_data()
    if not resume:
        refuse_existing(folder, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
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
    # What follows the training is made again in seconds, whatever of it was there.
    overwrite |= resume
    images = data / "test" / "images"
    masks = predict(run, images, folder / "masks", device=device, overwrite=overwrite, progress=say).output
    references = find_masks(data / "test" / "labels")
    table = evaluate(masks, data / "test" / "labels", progress=say)
    write_scores(table, folder / "scores", overwrite=overwrite)
    picture = folder / "overlay.png"
    found = find_masks(masks)
    overlay_sheet(
        [
            PictureCase(
                read_volume(case.images[0]), read_mask(references[case.id]), read_mask(found[case.id]), title=case.id
            )
            for case in find_inputs(images)
            if case.id in found
        ],
        picture,
    )
    page = report(
        masks, data / "test", folder / RunFolder.report, run=run, table=table, overwrite=overwrite, progress=say
    )
    return Demo(folder=folder, run=run, masks=masks, scores=table, picture=picture, report=page)
