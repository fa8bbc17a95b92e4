"""Writes a finished run folder: the validation masks, their scores, and the model with its card."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from medfcn.evaluation import ScoreTable, evaluate, write_scores
from medfcn.files import make_inner_folder
from medfcn.inference.card import BFLOAT16_TEST, Card
from medfcn.inference.foreign import fingerprint_of
from medfcn.labels.colours import label_table
from medfcn.labels.tables import write_label_tables
from medfcn.progress import Progress, warn
from medfcn.runs.folder import ITK_SNAP_FILE, SLICER_FILE, RunFolder
from medfcn.runs.validation_masks import CHOSEN_ON_THEM
from medfcn.text import listed
from medfcn.training.bfloat16 import bfloat16_test
from medfcn.training.final_choices import settle
from medfcn.training.outcome import Outcome
from medfcn.training.prepare import Prepared, ceiling_text
from medfcn.training.start import Start
from medfcn.training.validation import Outputs

UNSTATED_IGNORE = "unstated_ignore"
"""The key in the card's `training` of what to do about a value that fills most masks."""


def write_run(
    run: RunFolder,
    prepared: Prepared,
    outcome: Outcome,
    record: Mapping[str, Any],
    start: Start,
    progress: Progress,
) -> ScoreTable:
    """Write the scores of the validation cases, then the model with the card that contains them.

    Args:
        run: The run folder.
        prepared: The cases, the plan and the slices.
        outcome: Result of the training.
        record: Further entries of the card's `training`.
        start: Where the initial weights are from.
        progress: Where labels that no mask contains are reported.
    """
    make_inner_folder(run.validation)
    model, split = outcome.model, prepared.split
    outputs = outcome.outputs or Outputs(model, prepared.state / "outputs", prepared.validation)
    settled = settle(model, prepared, outputs)
    if later := chosen_later(model.card, settled.card):
        progress.say(f"{later}: the scores of the validation are with it, those of the steps were without")
    shown = label_table(prepared.survey.labels)
    write_label_tables(shown, itk_snap=run.validation / ITK_SNAP_FILE, slicer=run.validation / SLICER_FILE)
    for case_id, mask in settled.masks.items():
        mask.save(run.validation / f"{case_id}.nii.gz", overwrite=True, labels=shown)
    references = {case.id: case.on_file or case.mask for case in prepared.validation}
    groups = {case.id: case.group for case in prepared.survey.cases if case.id in references}
    labelled = {case.id: case.labelled for case in prepared.validation}
    table = evaluate(settled.masks, references, labels=prepared.survey.labels, groups=groups, labelled=labelled)
    notes = list(table.notes)
    validations = 0 if split.fold else len(outcome.schedule.validation_steps())
    if table.rows and not split.fold and outcome.is_chosen:
        details = {"weights": f" (step {outcome.best_step})", "threshold": f" {settled.card.threshold or 0:g}"}
        card = dataclasses.replace(settled.card, training={"validations": validations})
        chosen = [f"the {name}{details.get(name, '')}" for name in card.chosen_on_validation]
        if chosen:
            were = "was" if card.chosen_on_validation == ("threshold",) else "were"
            notes.append(
                f"{' and '.join(chosen)} {were} {CHOSEN_ON_THEM}, so new ones may score lower; "
                "--folds scores each case by a network for which nothing was chosen on it"
            )
    elif not split.fold and not outcome.is_chosen:
        notes.append(
            f"no validation scored any label, so none chose weights: the last ones (step {outcome.steps}) are kept"
        )
        warn(progress, notes[-1])
    files = {case: prepared.survey.hashes[case][:-1] for case in split.validation}
    if seen := start.seen(files, prepared.survey.voxels):
        notes.append(start.seen_text(seen, len(split.validation)))
        warn(progress, notes[-1])
    notes += split.notes
    uses = {"training": split.training, "validation": split.validation}
    partly = {use: text for use, ids in uses.items() if (text := prepared.survey.partly_labelled(ids))}
    if "validation" in partly:
        notes.append(
            f"validation cases: {partly['validation']}; from such cases predict expects no Dice, and no threshold is "
            "chosen on them"
        )
    if "training" in partly:
        notes.append(
            f"training cases: {partly['training']}; from such cases predict takes no volume, and a label that they "
            "lack may still be there"
        )
    drawn = {use: text for use, ids in uses.items() if (text := prepared.survey.partly_drawn(ids))}
    if "training" in drawn:
        notes.append(f"training cases: {drawn['training']}; elsewhere in them is background or another label")
    notes += never_predicted(table, prepared.survey.unstated_ignore)
    table = dataclasses.replace(table, notes=tuple(notes))
    write_scores(table, run.validation, overwrite=True)
    training = {
        "cases": len(split.training),
        "validation_cases": len(split.validation),
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "validations": validations,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "ceiling_dice": ceiling_text(prepared.ceilings) + prepared.survey.of_labelled(split.training),
        **record,
    }
    tested = bfloat16_test(model, settled.card, prepared.validation, outputs, prepared.state / "bfloat16")
    if tested is not None:
        training[BFLOAT16_TEST] = tested
    if prepared.survey.unstated_ignore:
        training[UNSTATED_IGNORE] = prepared.survey.unstated_ignore
    if seen:
        training["validation_seen_before"] = len(seen)
    if partly:
        training["partly_labelled"] = partly
    if drawn:
        training["partly_drawn"] = drawn
    if not outcome.schedule.is_plain:
        training["schedule"] = outcome.schedule.text
    training |= _parts(outcome, prepared.plan.batch_size)
    model.card = dataclasses.replace(
        settled.card,
        training=training,
        validation=table.summary().to_json(),
        fingerprint=fingerprint_of([prepared.survey.fingerprints[case_id].appearance for case_id in split.training]),
    )
    model.save(run.path)
    return table


def _parts(outcome: Outcome, batch_size: int) -> dict[str, int | list[int]]:
    """The settings by which batches are taken in the same parts; none where they were always whole."""
    steps, sizes = [[pair[place] for pair in outcome.parts] for place in (0, 1)]
    if not sizes or sizes[-1] >= batch_size:
        return {}
    if len(sizes) == 1:
        return {"micro_batch": sizes[0], "micro_batch_from": steps[0]}
    return {"micro_batch": sizes, "micro_batch_from": steps}


def chosen_later(before: Card, after: Card) -> str:
    """The choices by which the masks differ from those of the training's own validations; empty without any."""
    chosen = []
    if after.view_weights != before.view_weights:
        chosen.append(f"the weights {listed(f'{weight:.2f}' for weight in after.view_weights)} of the views")
    if after.threshold != before.threshold and after.threshold is not None:
        chosen.append(f"the threshold {after.threshold:g}")
    if after.together != before.together:
        chosen.append("one component of all labels together")
    if after.one_part != before.one_part:
        names = listed(after.labels.names[index - 1] for index in after.one_part)
        chosen.append(f"one component of {names}" if names else "all components of every label")
    return f"chosen after the training: {listed(chosen, separator=' and ')}" if chosen else ""


def never_predicted(table: ScoreTable, unstated_ignore: str = "") -> tuple[str, ...]:
    """A line on the labels that references contain and no mask does, as after too few steps; none without any.

    Args:
        table: Scores of the validation cases.
        unstated_ignore: What to do about a value that fills most masks and is not said to be ignored: where there is
            one, more steps only learn it better.
    """
    by_counts: dict[tuple[int, int], list[str]] = {}
    for label in table.labels:
        rows = [row for row in table.rows if row.label == label]
        misses = sum(row.is_miss for row in rows)
        if misses and not any(row.true_positives + row.false_positives for row in rows):
            by_counts.setdefault((len(rows), misses), []).append(label)
    found = [
        f"{listed(labels)}: predicted in none of the {cases} validation cases, of which {misses} contain "
        f"{'it' if len(labels) == 1 else 'them'}"
        for (cases, misses), labels in by_counts.items()
    ]
    remedy = unstated_ignore or "train longer, with a larger --budget or more --steps"
    return (f"{'; '.join(found)}; {remedy}",) if found else ()
