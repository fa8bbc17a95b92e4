"""A run folder: what may be put into it, what a stopped training leaves there, and how it is finished."""

import dataclasses
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medfcn.errors import MissingFileError, OutputExistsError
from medfcn.evaluation import ScoreTable, evaluate, write_scores
from medfcn.inference.card import CARD_FILE
from medfcn.inference.weights import WEIGHTS_FILE
from medfcn.training.lock import LOCK_FILE
from medfcn.training.prepare import Prepared, ceiling_text
from medfcn.training.trainer import Outcome
from medfcn.training.validate import choose_one_part

STATE_FOLDER, VALIDATION_FOLDER = "state", "validation"
_FILES = (WEIGHTS_FILE, CARD_FILE, "cases.csv", "log.csv", "report.html")
_HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{12}\.part")


def is_finished(folder: Path) -> bool:
    """Whether a training in a folder came to its end: its card is written last."""
    return (folder / CARD_FILE).is_file()


def require_stopped(folder: Path) -> None:
    """Refuse to resume where no training was stopped.

    Raises:
        MissingFileError: The folder is not there, or holds neither a state nor the lock of a job that was killed.
    """
    if not (folder / STATE_FOLDER).is_dir() and not (folder / LOCK_FILE).is_file():
        raise MissingFileError(
            f"{folder}: holds no stopped training; check the path, or leave --resume out to start one"
        )


def require_free(folder: Path) -> None:
    """Refuse to start where something lies already, the lock apart.

    Raises:
        OutputExistsError: Something does.
    """
    held = {path.name for path in folder.iterdir()} - {LOCK_FILE}
    if STATE_FOLDER in held and CARD_FILE not in held:
        raise OutputExistsError(
            f"{folder}: already exists and holds a stopped training; pass --resume to go on with it, or --overwrite "
            "to start again"
        )
    if held:
        raise OutputExistsError(f"{folder}: already exists; choose another output, or pass --overwrite to replace it")


def clear(folder: Path) -> None:
    """Remove what an earlier training left in a run folder, and nothing else that may lie there."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for name in (VALIDATION_FOLDER, STATE_FOLDER):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    remove_half_written(folder)


def remove_half_written(folder: Path) -> None:
    """Remove the temporary files that a killed training left in a run folder, which nothing else is at work in."""
    for place in (folder, folder / STATE_FOLDER, folder / VALIDATION_FOLDER):
        for path in place.glob(".*.part"):
            if _HALF_WRITTEN.fullmatch(path.name):
                path.unlink(missing_ok=True)


def write_run(folder: Path, prepared: Prepared, outcome: Outcome, record: Mapping[str, Any]) -> ScoreTable:
    """Write what the model reaches on the validation cases, then the model with the card that says so.

    Args:
        folder: The run folder.
        prepared: What was trained on.
        outcome: What the training came to.
        record: What else the card keeps of the training.
    """
    validation = folder / VALIDATION_FOLDER
    validation.mkdir(exist_ok=True)
    model = outcome.model
    cases = prepared.cases(prepared.split.validation)
    model.card = dataclasses.replace(model.card, one_part=choose_one_part(model, prepared))
    masks, references = {}, {}
    for case in cases:
        prediction = model.predict([str(path) for path in case.images], options=prepared.survey.options)
        prediction.save(validation / f"{case.id}.nii.gz", overwrite=True)
        masks[case.id], references[case.id] = prediction, case.label
    table = evaluate(masks, references, labels=prepared.survey.labels)
    write_scores(table, validation, overwrite=True)
    training = {
        "cases": len(prepared.split.training),
        "validation_cases": len(prepared.split.validation),
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "ceiling_dice": ceiling_text(prepared.ceilings),
        **record,
    }
    if outcome.micro_batch < prepared.plan.batch_size:
        training["micro_batch"] = outcome.micro_batch
    model.card = dataclasses.replace(model.card, training=training, validation=table.summary().to_json())
    model.save(folder)
    return table
