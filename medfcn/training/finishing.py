"""Writes a finished run folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medfcn.evaluation import ScoreTable, evaluate, write_scores
from medfcn.progress import Progress
from medfcn.runs.folder import RunFolder
from medfcn.training.held_out import judge_unseen
from medfcn.training.prepare import Prepared, ceiling_text
from medfcn.training.trainer import Outcome
from medfcn.training.validate import choose_one_part, never_found
from medfcn.training.view_weights import choose_view_weights


def write_run(
    folder: Path, prepared: Prepared, outcome: Outcome, record: Mapping[str, Any], progress: Progress
) -> ScoreTable:
    """Write what the model reaches on the validation cases, then the model with the card that says so.

    Args:
        folder: The run folder.
        prepared: What was trained on.
        outcome: What the training came to.
        record: What else the card keeps of the training.
        progress: Is told of labels that no mask holds.
    """
    validation = RunFolder(folder).validation
    validation.mkdir(exist_ok=True)
    model = outcome.model
    model.card = dataclasses.replace(model.card, view_weights=choose_view_weights(model, prepared))
    model.card = dataclasses.replace(model.card, one_part=choose_one_part(model, prepared))
    model.card, masks = judge_unseen(model, prepared)
    for case_id, mask in masks.items():
        mask.save(validation / f"{case_id}.nii.gz", overwrite=True)
    references = {case.id: case.label for case in prepared.cases(prepared.split.validation) if case.label}
    table = evaluate(masks, references, labels=prepared.survey.labels)
    if table.rows and not prepared.split.fold:
        threshold = "" if model.card.threshold is None else f" and the threshold {model.card.threshold:g}"
        note = (
            f"the weights (step {outcome.best_step}){threshold} were chosen on these cases, so new ones may score "
            "lower; --folds scores each case by a network for which nothing was chosen on it"
        )
        table = dataclasses.replace(table, notes=(*table.notes, note))
    missing = never_found(table)
    for line in missing:
        progress.say(line)
    table = dataclasses.replace(table, notes=(*table.notes, *missing))
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
