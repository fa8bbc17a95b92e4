"""Choices on the validation cases: made only where these are not to be scored, and kept in the card."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from scipy.stats import spearmanr

import medfcn
from medfcn.cli import main
from medfcn.config import override
from medfcn.evaluation import ScoreTable
from medfcn.evaluation.overlap import count_labels
from medfcn.evaluation.scores import LabelScores, Status
from medfcn.inference.card import read_card
from medfcn.inference.decide import decide
from medfcn.inference.model import Model
from medfcn.labels import IGNORED, LabelMap
from medfcn.progress import Silent
from medfcn.settings import Settings
from medfcn.slices.fingerprint import CaseFingerprint, fingerprint_case
from medfcn.training import final_choices, judged_case
from medfcn.training.crossvalidation import gather
from medfcn.training.finishing import never_predicted
from medfcn.training.folds import Folds
from medfcn.training.judged_case import ThresholdTally
from medfcn.training.one_component import JUDGED_CASES, ONE_COMPONENT_CASES, are_together
from medfcn.training.trainer import Outcome, Trainer
from medfcn.training.validation import Outputs, ScoredCase
from medfcn.volumes import Volume
from tests.conftest import draw_ball, write_case
from tests.inference.models import tiny_model

COMMON: dict[str, Any] = {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def folded(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Two folds, and the cases that were judged, in order."""
    judged: list[str] = []

    original = judged_case.judge_case

    def look(model: Model, outputs: Outputs, case: ScoredCase, eligible: Any, thresholds: Any) -> Any:
        if thresholds:  # training cases, on which a fold chooses, are not asked for them
            judged.append(case.id)
        return original(model, outputs, case, eligible, thresholds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judged_case, "judge_case", look)
        run = medfcn.train(balls, tmp_path_factory.mktemp("unseen") / "run", folds=2, steps=60, **COMMON)
    return run.folder, judged


def test_a_fold_is_judged_on_the_cases_it_was_not_trained_on_and_on_no_other(folded: tuple[Path, list[str]]) -> None:
    folder, judged = folded
    held: list[str] = []
    for number in (1, 2):
        run = folder / f"fold_{number}"
        table = ScoreTable.from_csv(run / "validation" / "scores.csv")
        held += table.cases
        card = read_card(run / "model.json")
        assert card.unseen is not None
        dices = [dice for _, dice in card.unseen.labels[0].scores]
        assert dices == pytest.approx([row.dice for row in table.rows], abs=1e-5)
        assert len(card.unseen.threshold_dices) == len(table.rows)
        assert card.threshold is None
        assert card.unseen.labels[0].absent_share == 0
    assert judged == held
    assert sorted(held) == [f"ball_{number}" for number in range(8)]


def _blurred(number: int, strength: float) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """An unseen ball in more and more noise."""
    image, mask = draw_ball(number)
    noise = np.random.default_rng(1000 + number).normal(0, strength, image.shape)
    return (image + noise).astype(np.int16), mask


def test_the_expected_dice_falls_with_the_true_one_and_the_worst_are_to_be_reviewed(
    folded: tuple[Path, list[str]], tmp_path: Path
) -> None:
    for place in range(16):
        write_case(tmp_path / "new", f"ball_{20 + place}", *_blurred(20 + place, 10.0 * place))
    done = medfcn.predict(folded[0], tmp_path / "new" / "images", tmp_path / "masks", device="cpu")
    table = medfcn.evaluate(tmp_path / "masks", tmp_path / "new" / "labels")
    true = {row.case: row.dice for row in table.rows}
    expected = {
        case: next(iter(json.loads((tmp_path / "masks" / f"{case}.json").read_text())["expected_dice"].values()))
        for case in true
    }
    assert spearmanr([expected[case] for case in true], list(true.values())).statistic > 0.8
    assert done.review is not None
    assert set(sorted(true, key=lambda case: true[case])[:3]) <= set(done.review)
    assert "ball_20" not in done.review


def test_the_command_says_how_many_are_to_be_reviewed(
    folded: tuple[Path, list[str]], balls: Path, tmp_path: Path
) -> None:
    words = ["predict", folded[0], balls / "images", "-o", tmp_path / "masks", "--device", "cpu"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    lines = (tmp_path / "masks" / "confidence.csv").read_text().splitlines()[1:]
    due = sum(line.endswith("True") for line in lines)
    assert f"{due} of 8 cases to review" in result.stdout


@pytest.mark.parametrize("labels", ["organ=1", "whole=1+2,core=2"])
def test_each_threshold_has_the_dice_of_the_mask_it_gives(labels: str) -> None:
    names, random = LabelMap.parse(labels), np.random.default_rng(0)
    count, thresholds = len(names.entries), (0.3, 0.5, 0.6)
    reference = random.integers(0, count + 1, (6, 7, 8)).astype(np.uint8)
    reference[0] = IGNORED
    likely = random.uniform(size=(count, 6, 7, 8)).astype(np.float32)
    likely[-1] = np.minimum(likely[-1], likely[0])  # so that no core lies outside the whole
    tally = ThresholdTally(reference, names, thresholds)
    for rows in (slice(0, 2), slice(2, 6)):
        tally.add(rows, likely[:, rows])
    found = tally.mean_dices()
    for threshold, dice in zip(thresholds, found, strict=True):
        mask = decide(likely, threshold, "sigmoid", names.members)
        counts = count_labels(reference, mask, labels=count, members=names.members)
        assert dice == pytest.approx(np.mean([item.dice for item in counts]), abs=0.02 if count > 1 else 1e-9)
    nothing = ThresholdTally(np.zeros((2, 2, 2), np.uint8), names, (0.5,))
    nothing.add(slice(None), np.zeros((count, 2, 2, 2), np.float32))
    assert nothing.mean_dices().tolist() == [1.0]


def make_timid(monkeypatch: pytest.MonkeyPatch, *, by: float) -> None:
    """Lower all logits of networks at the end of their training, so that their probabilities are too low."""
    original = Trainer.run

    def run(trainer: Trainer, *arguments: Any, **choices: Any) -> Outcome:
        outcome = original(trainer, *arguments, **choices)
        outcome.model.network.head.bias.data.sub_(by)
        return replace(outcome, outputs=None)

    monkeypatch.setattr(Trainer, "run", run)


@pytest.mark.parametrize("threshold", ["auto", 0.5])
def test_validation_cases_choose_the_threshold_where_it_helps_and_is_not_set(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: Any
) -> None:
    make_timid(monkeypatch, by=2.5)
    settings = override(Settings(), "training", validation_share=0.7)
    settings = override(settings, "prediction", threshold=threshold)
    said: list[str] = []
    heard = Silent()
    monkeypatch.setattr(heard, "say", said.append)
    run = medfcn.train(balls, tmp_path / "run", settings=settings, steps=60, **COMMON | {"progress": heard})
    model = Model.load(run.folder, device="cpu")
    later = [line for line in said if "those of the steps were without" in line]
    assert any(f"the threshold {model.card.threshold}" in line for line in later) is (threshold == "auto")
    if threshold == 0.5:
        assert (model.card.threshold, model.rules.threshold) == (None, 0.5)
        assert not any("threshold" in note for note in run.validation.notes)
        return
    assert model.card.threshold is not None
    assert model.rules.threshold == model.card.threshold < 0.5
    assert model.card.chosen_on_validation == ("threshold",)  # there was one validation: no weights to choose from
    assert any(
        note.startswith(f"the threshold {model.card.threshold:g} was chosen on these cases")
        for note in run.validation.notes
    )
    case = run.validation.cases[0]
    found = model.predict_case(balls / "images" / f"{case}.nii.gz", keep_probabilities=True)
    assert found.probabilities is not None
    kept = medfcn.read_volume(run.folder / "validation" / f"{case}.nii.gz")
    assert np.array_equal(found.mask.array, kept.array)
    assert found.mask.array.sum() > (found.probabilities >= 0.5).sum()


@pytest.mark.parametrize("folds", [None, 2])
def test_a_label_that_no_mask_holds_is_told_with_what_to_do(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: int | None
) -> None:
    make_timid(monkeypatch, by=50.0)
    words = ["train", balls, "-o", tmp_path / "run", "--labels", "ball=1", "--steps", 2, "--device", "cpu"]
    words += ["--threads", 1, *(() if folds is None else ("--folds", folds))]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    count = 1 if folds is None else 4
    cases, contain = f"{count} validation cases", f"{count} references contain"
    if folds is None:
        cases, contain = "1 validation case", "1 reference contains"
    line = f"ball: predicted in 0 of {cases}; {contain} it; train longer, with a larger --budget or more --steps"
    said = " ".join(result.stdout.split())  # lines are folded
    assert "predicted in 0 of" not in result.stderr  # once, with the table
    told = [line] if folds is None else [f"fold_{number}: {line}" for number in (1, 2)]
    assert all(said.count(each) == 1 for each in told), said
    report = (tmp_path / "run" / "report.html").read_text()
    assert all(each in report for each in told)


def test_a_label_is_missed_only_where_references_hold_it_and_no_mask_does() -> None:
    def row(label: str, case: str, status: Status, *, found: int = 0) -> LabelScores:
        return LabelScores(case, label, status, *[0.0] * 12, false_positives=found)

    rows = [row("a", "1", "prediction_empty"), row("a", "2", "ok", found=1)]
    rows += [row("b", "1", "prediction_empty"), row("b", "2", "reference_empty", found=1)]
    rows += [row("c", "1", "both_empty"), row("c", "2", "both_empty")]
    rows += [row("d", "1", "both_empty"), row("d", "2", "prediction_empty")]
    (line,) = never_predicted(ScoreTable(tuple(rows)))
    assert line.startswith("d: predicted in 0 of 2 validation cases; 1 reference contains it; train longer")
    rows += [row("e", "1", "both_empty"), row("e", "2", "prediction_empty")]
    (line,) = never_predicted(ScoreTable(tuple(rows)), "add ignore=4")
    assert line == "d, e: predicted in 0 of 2 validation cases; 1 reference contains them; add ignore=4"


def test_strokes_whose_unlabelled_value_is_not_named_are_no_case_for_more_steps(tmp_path: Path) -> None:
    for number in range(4):
        image = np.random.default_rng(number).normal(size=(16, 16, 2)).astype(np.float32)
        mask = np.full(image.shape, 4, dtype=np.uint8)
        mask[2:4, 2, :] = 1
        mask[8:10, 8, :] = 0
        write_case(tmp_path / "strokes", f"case_{number}", image, mask)
    run = medfcn.train(tmp_path / "strokes", tmp_path / "run", steps=2, **COMMON)
    (note,) = [note for note in run.validation.notes if "predicted in 0 of" in note]
    assert note.endswith("add ignore=4 to the labels (labels='organ=1,ignore=4')")
    assert "label_1" in note
    assert "train longer" not in note


def test_folds_choose_a_threshold_for_their_mean_alone_and_say_so(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_timid(monkeypatch, by=2.5)
    run = medfcn.train(balls, tmp_path / "run", folds=2, steps=60, **COMMON)
    together = run.load(device="cpu")
    assert together.rules.threshold < 0.5
    assert [model.rules.threshold for model in together.models] == [0.5, 0.5]
    (note,) = [note for note in run.validation.notes if "threshold" in note]
    assert "their scores here are those with 0.5" in note
    image: Volume = medfcn.read_volume(balls / "images" / "ball_0.nii.gz")
    assert together.predict(image).array.sum() > together.models[0].predict(image).array.sum()
    again = gather(run.folder, Folds((1, 2), 2, is_all=True))
    assert again is not None
    assert again.notes == run.validation.notes


def test_one_component_is_kept_only_if_a_judged_reference_is_one_and_holds_the_label(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rule is chosen because nothing could speak against it."""
    chosen: dict[str, tuple[int, ...]] = {}
    original = final_choices.is_one_component

    def train(name: str, share: float) -> None:
        def of(label: int, prepared: Any, ids: Any, least: float) -> bool:
            ids = list(ids)
            if set(ids) <= set(prepared.split.validation):
                for case_id in ids:
                    figures = prepared.survey.fingerprints[case_id]
                    prepared.survey.fingerprints[case_id] = replace(figures, largest_shares=(share,))
            return original(label, prepared, ids, least)

        with monkeypatch.context() as patch:
            patch.setattr(final_choices, "is_one_component", of)
            run = medfcn.train(balls, tmp_path / name, steps=20, **COMMON)
        chosen[name] = read_card(run.folder / "model.json").one_part

    train("whole", 1.0)
    train("two parts", 0.6)
    train("absent", float("nan"))
    assert chosen == {"whole": (1,), "two parts": (), "absent": ()}


def test_one_component_of_all_labels_is_kept_if_references_are_one_and_the_mean_dice_does_not_fall(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upper half of each ball is another organ, and the masks get an island of it in a corner."""
    for number in range(8):
        image, mask = draw_ball(number)
        mask[:, :, 6:] *= 2
        write_case(tmp_path / "halves", f"ball_{number}", image, mask)
    original, found = judged_case.decide_case, final_choices.may_be_cut_together
    chosen: dict[str, bool] = {}

    def train(name: str, *, apart: bool) -> None:
        def decide(*args: Any, **more: Any) -> Any:
            decided = original(*args, **more)
            decided.indices[:2, :2, :2] = 2
            return decided

        def of(card: Any, prepared: Any) -> bool:
            for case_id, figures in prepared.survey.fingerprints.items() if apart else ():
                prepared.survey.fingerprints[case_id] = replace(
                    figures, together_shares=(1.0, 0.6), largest_shares=(0.6, 0.6)
                )
            return found(card, prepared)

        with monkeypatch.context() as patch:
            patch.setattr(judged_case, "decide_case", decide)
            patch.setattr(final_choices, "may_be_cut_together", of)
            run = medfcn.train(tmp_path / "halves", tmp_path / name, labels="lower=1,upper=2", steps=20, **COMMON)
        card = read_card(run.folder / "model.json")
        chosen[name] = card.together
        masks = list((run.folder / "validation").glob("*.nii.gz"))
        held = [bool(medfcn.read_volume(path).array[:2, :2, :2].any()) for path in masks]
        assert masks
        assert held == [apart] * len(masks)

    train("touching", apart=False)
    train("apart", apart=True)
    assert chosen == {"touching": True, "apart": False}


def _organ_and_node(number: int, *, is_touching: bool, has_node: bool = True) -> CaseFingerprint:
    """An organ of 3,872 voxels and a node of 48, which is 1.2 % of both."""
    labels = np.zeros((40, 30, 12), dtype=np.uint8)
    labels[4:26, 6:28, 2:10] = 1
    start = 26 if is_touching else 30 + number % 4
    if has_node:
        labels[start : start + 4, 10:14, 4:7] = 2
    return fingerprint_case(f"case_{number:02d}", [Volume(labels.astype(np.int16), np.eye(4))], labels, 2)


@pytest.mark.parametrize(
    ("is_touching", "least"), [(False, ONE_COMPONENT_CASES), (False, JUDGED_CASES), (True, 0.95)]
)
def test_a_small_label_apart_from_the_others_keeps_all_components(is_touching: bool, least: float) -> None:
    """It lies apart in each reference, where all voxels in one sum would be one component."""
    cases = [_organ_and_node(number, is_touching=is_touching, has_node=number % 4 > 0) for number in range(20)]
    assert all(sum(case.label_voxels[:1]) > 0.98 * sum(case.label_voxels) for case in cases)
    fingerprints = {case.id: case for case in cases}

    def prepared(drawn: dict[str, Any]) -> Any:
        return SimpleNamespace(survey=SimpleNamespace(fingerprints=fingerprints, drawn=drawn))

    assert are_together(prepared({}), fingerprints, least) is is_touching
    without = [case.id for case in cases if not case.label_voxels[1]]
    assert are_together(prepared({}), without, least)  # of one that is nowhere nothing is asked
    partly = {case.id: (2,) for case in cases if case.label_voxels[1]}
    assert not are_together(prepared(partly), fingerprints, least)  # no reference shows where it lies to the other


def _judged(*cases: tuple[list[float], list[float]]) -> Any:
    """Dice of each label with all components, and with one of all labels together, of some cases."""
    return [SimpleNamespace(dices=apart, together=SimpleNamespace(dices=dices)) for apart, dices in cases]


def test_one_component_of_all_labels_lowers_the_dice_of_no_label() -> None:
    nan = float("nan")
    is_better = final_choices._is_better_together
    assert is_better(_judged(([0.8, 0.7], [0.9, 0.7]), ([0.8, nan], [0.8, nan])))
    assert is_better(_judged(([0.8, 0.7], [0.8, 0.7])))  # nothing was removed, and the references allow it
    assert is_better(_judged(([0.8, 0.0], [0.8, nan])))  # the reference lacks the label, an island of it went
    assert not is_better(_judged(([0.5, 0.7], [0.9, 0.6])))
    assert is_better(_judged(([0.5, 0.7], [0.51, 0.6996]), ([0.5, 0.7], [0.5, 0.7])))  # a voxel of the second went
    assert not is_better(_judged(([0.5, 0.7], [0.51, 0.698])))
    assert not is_better(_judged(([0.5, 0.7], [0.5, 0.6996])))  # nothing was gained for it
    assert not is_better(_judged(([0.5, 0.7], [0.9, 0.0]), ([0.5, nan], [0.9, nan])))
    assert not is_better([])
    assert not is_better(_judged(([0.0, 0.0], [0.0, 0.0])))  # nothing was found, which tells nothing


def test_one_component_is_not_kept_of_a_label_of_which_nothing_was_found() -> None:
    def chosen(*cases: tuple[list[float], list[float]]) -> tuple[int, ...]:
        judged: Any = [SimpleNamespace(dices=apart, largest=largest) for apart, largest in cases]
        return final_choices._choose_components(tiny_model(labels="ball=1,other=2").card, (1, 2), judged)

    nan = float("nan")
    assert chosen(([0.0, 0.8], [0.0, 0.8])) == (2,)
    assert chosen(([0.0, 0.8], [0.0, 0.7])) == ()
    assert chosen(([0.0, nan], [0.0, nan]), ([0.5, 0.0], [0.4, 0.0]), ([0.2, nan], [0.4, nan])) == (1,)
    assert chosen() == ()


def test_strokes_of_each_label_lie_in_one_component_of_all() -> None:
    def found(*shares: list[float]) -> bool:
        return final_choices._are_strokes_together([SimpleNamespace(held_together=of_case) for of_case in shares])  # type: ignore[misc]

    assert found([1.0, 1.0], [1.0, float("nan")])
    assert not found([1.0, 0.0], [1.0, float("nan")])
    assert not found([1.0, float("nan")], [1.0, float("nan")])  # no mask finds any: nothing speaks for it
    assert not found()


def test_the_card_keeps_the_shapes_that_are_usual_and_odd_masks_are_flagged(
    folded: tuple[Path, list[str]], tmp_path: Path
) -> None:
    models = medfcn.load(folded[0], device="cpu").models
    assert all(len(model.card.shapes) == 1 for model in models)
    assert {model.card.components for model in models} == {"largest and most certain"}
    for number in range(30, 40):
        image, mask = draw_ball(number)
        write_case(tmp_path / "good", f"ball_{number}", image, mask)
        lost = image.copy()
        lost[:, :, 6:] = image.min()
        write_case(tmp_path / "lost", f"ball_{number}", lost, mask)
    odd = {}
    for kind in ("good", "lost"):
        done = medfcn.predict(folded[0], tmp_path / kind / "images", tmp_path / kind / "masks", device="cpu")
        odd[kind] = {case for case, flag in done.flags if "it ends abruptly (superior)" in flag}
        others = {case for case, flag in done.flags if "expected Dice" not in flag}
        assert kind == "lost" or len(others) <= 1
    assert len(odd["lost"]) >= 9
    assert not odd["good"]
