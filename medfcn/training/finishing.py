"""Writes a finished run folder: the validation masks, their scores, and the model with its card."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from medfcn.evaluation import ScoreTable, evaluate, write_scores
from medfcn.files import make_inner_folder
from medfcn.inference.card import BFLOAT16_TEST, Card
from medfcn.inference.foreign import fingerprint_of
from medfcn.labels import LabelMap
from medfcn.labels.colours import label_table
from medfcn.labels.tables import write_label_tables
from medfcn.progress import Progress, warn
from medfcn.runs.cases import MAY_FLATTER
from medfcn.runs.folder import ITK_SNAP_FILE, SLICER_FILE, RunFolder
from medfcn.runs.validation_masks import CHOSEN_ON_THEM
from medfcn.text import counted, listed
from medfcn.training.bfloat16 import bfloat16_test
from medfcn.training.final_choices import settle
from medfcn.training.outcome import Outcome
from medfcn.training.prepare import Prepared, ceiling_text
from medfcn.training.start import Start
from medfcn.training.validation import Outputs
from medfcn.volumes import Volume

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
    model, split, survey = outcome.model, prepared.split, prepared.survey
    outputs = outcome.outputs or Outputs(model, prepared.state / "outputs", prepared.validation)
    settled = settle(model, prepared, outputs)
    if later := chosen_later(model.card, settled.card):
        progress.say(f"{later}: the scores of the validation are with it, those of the steps were without")
    _write_masks(run, settled.masks, survey.labels)
    table = _scores_of(settled.masks, prepared)
    doubts = []
    if not split.fold and not outcome.is_chosen:
        doubts.append(
            f"no validation found any label, so none chose weights: the last ones (step {outcome.steps}) are kept"
        )
    if seen := start.seen({case: survey.hashes[case][:-1] for case in split.validation}, survey.voxels):
        doubts.append(start.seen_text(seen, len(split.validation)))
    for line in doubts:
        warn(progress, line)
    chosen = _notes_on_choices(settled.card, outcome) if table.rows and not split.fold else ()
    unpredicted = never_predicted(table, survey.unstated_ignore)
    notes = (*table.notes, *chosen, *doubts, *split.notes, *_notes_on_labels(prepared), *unpredicted)
    table = dataclasses.replace(table, notes=notes)
    write_scores(table, run.validation, overwrite=True)
    tested = bfloat16_test(model, settled.card, prepared.validation, outputs, prepared.state / "bfloat16")
    model.card = dataclasses.replace(
        settled.card,
        training=_facts(prepared, outcome, record, tested=tested, seen=len(seen)),
        validation=table.summary().to_json(),
        fingerprint=fingerprint_of([survey.fingerprints[case_id].appearance for case_id in split.training]),
    )
    model.save(run.path)
    return table


def _write_masks(run: RunFolder, masks: Mapping[str, Volume], labels: LabelMap) -> None:
    """Write the masks of the validation cases, by id, and the tables of their labels for viewers."""
    shown = label_table(labels)
    write_label_tables(shown, itk_snap=run.validation / ITK_SNAP_FILE, slicer=run.validation / SLICER_FILE)
    for case_id, mask in masks.items():
        mask.save(run.validation / f"{case_id}.nii.gz", overwrite=True, labels=shown)


def _scores_of(masks: Mapping[str, Volume], prepared: Prepared) -> ScoreTable:
    references = {case.id: case.on_file or case.mask for case in prepared.validation}
    groups = {case.id: case.group for case in prepared.survey.cases if case.id in references}
    labelled = {case.id: case.labelled for case in prepared.validation}
    return evaluate(masks, references, labels=prepared.survey.labels, groups=groups, labelled=labelled)


def _notes_on_choices(card: Card, outcome: Outcome) -> tuple[str, ...]:
    """A line on what the validation cases chose, by which their own scores flatter."""
    if not outcome.is_chosen:
        return ()
    details = {"weights": f" (step {outcome.best_step})", "threshold": f" {card.threshold or 0:g}"}
    validations = len(outcome.schedule.validation_steps())
    chosen = dataclasses.replace(card, training={"validations": validations}).chosen_on_validation
    if not chosen:
        return ()
    were = "was" if chosen == ("threshold",) else "were"
    names = " and ".join(f"the {name}{details.get(name, '')}" for name in chosen)
    return (
        f"{names} {were} {CHOSEN_ON_THEM}, so {MAY_FLATTER}; "
        "--folds scores each case by a network for which nothing was chosen on it",
    )


def _by_use(prepared: Prepared, text_of: Callable[[Sequence[str]], str]) -> dict[str, str]:
    """A text on the cases of each use, by the use, where there is something to say."""
    uses = {"training": prepared.split.training, "validation": prepared.split.validation}
    return {use: text for use, ids in uses.items() if (text := text_of(ids))}


def _notes_on_labels(prepared: Prepared) -> tuple[str, ...]:
    """Lines on cases of which less than half is labelled, or only some labels were drawn."""
    notes = []
    partly = _by_use(prepared, prepared.survey.partly_labelled)
    drawn = _by_use(prepared, prepared.survey.partly_drawn)
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
    if "training" in drawn:
        notes.append(f"training cases: {drawn['training']}; elsewhere in them is background or another label")
    return tuple(notes)


def _facts(
    prepared: Prepared, outcome: Outcome, record: Mapping[str, Any], *, tested: object, seen: int
) -> dict[str, Any]:
    """The entries of the card's `training`.

    Args:
        prepared: The cases, the plan and the slices.
        outcome: Result of the training.
        record: Further entries.
        tested: Result of the test in bfloat16; None where there was none.
        seen: Validation cases that the initial weights have seen.
    """
    split, survey = prepared.split, prepared.survey
    training = {
        "cases": len(split.training),
        "validation_cases": len(split.validation),
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "validations": 0 if split.fold else len(outcome.schedule.validation_steps()),
        "device": str(outcome.model.device),
        "threads": torch.get_num_threads(),
        "ceiling_dice": ceiling_text(prepared.ceilings) + survey.of_labelled(split.training),
        **record,
    }
    if tested is not None:
        training[BFLOAT16_TEST] = tested
    if survey.unstated_ignore:
        training[UNSTATED_IGNORE] = survey.unstated_ignore
    if seen:
        training["validation_seen_before"] = seen
    if partly := _by_use(prepared, survey.partly_labelled):
        training["partly_labelled"] = partly
    if drawn := _by_use(prepared, survey.partly_drawn):
        training["partly_drawn"] = drawn
    if not outcome.schedule.is_plain:
        training["schedule"] = outcome.schedule.text
    return training | _parts(outcome, prepared.plan.batch_size)


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
        f"{listed(labels)}: predicted in 0 of {counted(cases, 'validation case')}; "
        f"{counted(misses, 'reference')} {'contains' if misses == 1 else 'contain'} "
        f"{'it' if len(labels) == 1 else 'them'}"
        for (cases, misses), labels in by_counts.items()
    ]
    remedy = unstated_ignore or "train longer, with a larger --budget or more --steps"
    return (f"{'; '.join(found)}; {remedy}",) if found else ()
