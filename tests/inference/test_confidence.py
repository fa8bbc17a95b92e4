"""The expected Dice: follows what unseen cases had, rises with what probabilities expect, and flags what is odd."""

import dataclasses
import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfcn.evaluation.overlap import count_labels
from medfcn.inference.confidence import (
    Assessment,
    Doubt,
    DoubtMeter,
    LabelConfidence,
    assess_mask,
    label_confidences,
    mean_limit,
)
from medfcn.inference.decide import Foreground
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.expected_dice import Curve, fit_curves, lower_limits
from medfcn.inference.held_out import Unseen, UnseenLabel
from medfcn.inference.model import Model
from medfcn.inference.postprocessing import Rules
from medfcn.labels import LabelMap
from medfcn.slices.components import OnePart
from medfcn.verbs import predict
from medfcn.volumes import Volume
from tests.inference.models import blobs, saved, tiny_model, unseen_label, write_image

SHARES = st.floats(0, 1)


def fit_curve(soft: Sequence[float] | NDArray[np.float64], dice: Sequence[float] | NDArray[np.float64]) -> Curve:
    return fit_curves([np.stack([np.array(soft), np.array(dice)], axis=1)])[0]


def rules_of(*folds: UnseenLabel, review_floor: float = 0.0) -> LabelConfidence:
    """The rules of a single label."""
    unseen = tuple(Unseen((of_fold,), (), ()) for of_fold in folds)
    return label_confidences(unseen, 0.1, review_floor)[0]


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=30))
def test_whatever_the_cases_the_curve_rises_and_stays_within_0_and_1(pairs: list[tuple[float, float]]) -> None:
    curve = fit_curve(*map(list, zip(*pairs, strict=True)))
    found = curve(np.linspace(0, 1, 50))
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    assert 0 <= found[0] <= found[-1] <= 1
    assert curve.slope > 0


def _cases(count: int, *, seed: int, curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    soft = random.uniform(0.85, 0.97, count)
    return soft, np.clip(curve(soft) + random.normal(0, 0.01, count), 0, 1)


def test_the_curve_of_many_cases_is_found_again_and_its_mean_is_theirs() -> None:
    truth = Curve(-0.9, 1.3)
    soft, dice = _cases(300, seed=1, curve=truth)
    curve = fit_curve(soft, dice)
    at = np.linspace(0.86, 0.96, 5)
    np.testing.assert_allclose(curve(at), truth(at), atol=0.01)
    assert curve(soft).mean() == pytest.approx(dice.mean(), abs=1e-3)


def test_ten_cases_and_a_miss_among_them_do_not_turn_the_curve_over() -> None:
    for seed in range(10):
        soft, dice = _cases(10, seed=seed, curve=Curve(-0.5, 1.0))
        dice[soft.argmax()] = 0.0  # of which the probabilities said nothing
        curve = fit_curve(soft, dice)
        assert 0.1 <= curve.slope < 5
        assert curve(soft).mean() == pytest.approx(dice.mean(), abs=0.03)


def test_cases_that_are_all_alike_keep_the_slope() -> None:
    curve = fit_curve([0.95] * 6, [0.9, 0.88, 0.91, 0.9, 0.89, 0.92])
    assert curve.slope == pytest.approx(1, abs=1e-6)
    assert float(curve(np.array([0.95]))[0]) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("labels", ["organ=1", "left=1,right=2", "whole=1+2,core=2"])
def test_the_doubt_is_that_of_every_voxel_and_pair(labels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medfcn.slices.grid._DECIDED_VOXELS", 700)  # several slabs
    models = [tiny_model(labels=labels, seed=seed) for seed in range(3)]
    image, names = Volume(blobs(), np.diag([-1.0, -1.0, 2.0, 1.0])), LabelMap.parse(labels)
    doubt = Ensemble(models).predict_case(image).doubt
    assert doubt is not None
    masks, count = [], len(names.entries)
    for number, model in enumerate(models):
        alone = model.predict_case(image, keep_probabilities=True)
        assert alone.probabilities is not None
        assert alone.doubt is not None
        masks.append(np.zeros(image.shape, dtype=np.uint8))
        for place, part in enumerate(names.overlaps, start=1):
            masks[-1][alone.mask.array == part.written] = place
        rows = np.eye(count + 1, dtype=bool)[:, 1:] if names.members is None else names.members
        for label in range(count):
            drawn = rows[masks[-1], label]
            likely = alone.probabilities[label].astype(np.float64)
            mass = likely[likely >= 0.05].sum()
            expected = 2 * likely[drawn].sum() / (mass + drawn.sum())
            assert doubt.soft_dice[number, label] == pytest.approx(expected, rel=1e-5)
            assert alone.doubt.soft_dice[0, label] == pytest.approx(expected, rel=1e-5)
        assert np.isnan(alone.doubt.agreement).all()
    pairs = [count_labels(one, other, labels=count, members=names.members) for one, other in combinations(masks, 2)]
    for label in range(count):
        shared = sum(2 * pair[label].true_positives for pair in pairs)
        both = sum(pair[label].reference + pair[label].prediction for pair in pairs)
        assert doubt.agreement[label] == pytest.approx(shared / both)


def test_empty_masks_have_no_doubt() -> None:
    meter = DoubtMeter(2, 1)
    nothing = np.zeros((3, 3, 3), dtype=np.uint8)
    meter.add([np.zeros((1, 3, 3, 3), np.float32)] * 2, [nothing, nothing], [Foreground.of(nothing)] * 2)
    doubt = meter.doubt()
    assert np.isnan(doubt.soft_dice).all()
    assert np.isnan(doubt.agreement).all()


def judge(absent_share: float = 0.0) -> LabelConfidence:
    soft, dice = _cases(40, seed=3, curve=Curve(-0.5, 1.0))
    scores = tuple(zip(soft.tolist(), dice.tolist(), strict=True))
    return rules_of(unseen_label(scores, absent_share, log_ml=(1.0, 0.2)))


def of(judged: LabelConfidence, *soft: float, agreement: float = math.nan, ml: float = math.e) -> Assessment:
    return judged.assess(np.array(soft), agreement, ml)


def test_the_lowest_of_the_unseen_cases_would_be_reviewed() -> None:
    soft, _ = _cases(40, seed=3, curve=Curve(-0.5, 1.0))
    reviewed = {value for value in soft.tolist() if of(judge(), value).review}
    assert reviewed == set(sorted(soft.tolist())[: len(reviewed)])
    assert 1 <= len(reviewed) <= 6


def test_labels_share_the_cases_that_are_reviewed_and_few_cases_widen_the_limit() -> None:
    """Of cases like those that are known about a tenth is reviewed, whatever their number and that of the labels."""
    random = np.random.default_rng(0)

    def reviewed(labels: int, count: int) -> float:
        found = []
        for _ in range(60):
            soft = Curve(2.5, 1.0)(0.5 + random.normal(0, 0.03, (labels, count + 20)))
            scores = [unseen_label(tuple((x, x) for x in row[:count].tolist())) for row in soft]
            rules = label_confidences((Unseen(tuple(scores), (), ()),), 0.1)
            odd = [[of(rule, x).review for x in row[count:]] for rule, row in zip(rules, soft, strict=True)]
            found.append(np.any(odd, axis=0).mean())
        return float(np.mean(found))

    for labels, count in ((1, 6), (1, 40), (3, 6), (3, 40)):
        assert 0.05 < reviewed(labels, count) < 0.16, (labels, count)


def test_a_limit_of_no_share_or_of_all_is_one_and_cases_alike_are_no_reason() -> None:
    alike = np.full(6, 0.9)
    assert lower_limits([alike, alike], 0.0) == [0.0, 0.0]
    assert lower_limits([alike], 1.0) == [1.0]
    assert lower_limits([alike], 0.1) == [pytest.approx(0.9)]
    assert lower_limits([], 0.1) == []


def test_labels_share_their_spread_and_keep_their_own_mean() -> None:
    close, apart = np.array([0.90, 0.901, 0.902, 0.9, 0.9, 0.9]), np.array([0.6, 0.7, 0.5, 0.65, 0.55, 0.75])
    alone = [lower_limits([one], 0.05)[0] for one in (close, apart)]
    together = lower_limits([close, apart], 0.05)
    assert alone[0] > 0.89 > together[0] > 0.7
    assert alone[1] < together[1] < 0.5


def test_six_cases_move_the_curve_and_hardly_turn_it() -> None:
    """What one case among few is worth far from them all is not what it is worth among them."""
    soft = np.array([0.94, 0.95, 0.97, 0.97, 0.98, 0.98])
    dice = np.array([0.77, 0.91, 0.92, 0.92, 0.96, 0.97])
    few, many = fit_curve(soft, dice), fit_curve(np.tile(soft, 40), np.tile(dice, 40))
    assert 1.0 < few.slope < 1.1 < many.slope
    assert few(soft).mean() == pytest.approx(dice.mean(), abs=0.01)


def test_a_label_of_few_cases_begins_where_the_other_labels_of_its_network_are() -> None:
    soft, low, high = np.full(6, 0.9), np.full(6, 0.70), np.array([0.83, 0.74, 0.81, 0.69, 0.86, 0.77])
    pairs = [np.stack([soft, dice], axis=1) for dice in (low, low, high)]
    alone = [float(fit_curves([one])[0](soft[:1])[0]) for one in pairs]
    together = [float(curve(soft[:1])[0]) for curve in fit_curves(pairs)]
    assert alone[2] - 0.05 < together[2] < alone[2] - 0.005
    assert together[0] == pytest.approx(alone[0], abs=0.005)


@pytest.mark.parametrize("good", [1, 3, 12])
@pytest.mark.parametrize("reached", [0.0, 0.1, 0.35])
def test_a_label_that_fails_in_every_case_is_promised_no_more_and_blames_no_other(good: int, reached: float) -> None:
    soft, scatter = np.full(6, 0.9), np.array([-0.02, 0.01, 0.0, 0.02, -0.01, 0.0])
    pairs = [np.stack([soft + scatter, 0.92 + scatter], axis=1) for _ in range(good)]
    pairs.append(np.stack([soft, reached + scatter * (reached > 0)], axis=1))
    expected = [float(curve(soft[:1])[0]) for curve in fit_curves(pairs)]
    assert expected[-1] == pytest.approx(reached, abs=0.03)
    assert expected[:-1] == pytest.approx([0.92] * good, abs=0.02)


def test_perfect_labels_are_not_blamed_for_one_that_was_drawn_elsewhere() -> None:
    soft = np.linspace(0.90, 0.93, 6)
    pairs = [np.stack([soft, dice], axis=1) for dice in (*[np.ones(6)] * 3, np.linspace(0.18, 0.28, 6))]
    expected = [float(curve(np.array([0.92]))[0]) for curve in fit_curves(pairs)]
    assert min(expected[:3]) > 0.98
    assert expected[3] == pytest.approx(0.23, abs=0.03)


def test_what_is_odd_is_reviewed_and_nothing_that_can_come_breaks_it() -> None:
    fine = of(judge(), 0.95)
    assert (fine.review, fine.reasons) == (False, ())
    assert 0.88 < fine.expected_dice < 0.95
    empty = of(judge(), math.nan, ml=0.0)
    assert (empty.expected_dice, empty.review) == (0.0, True)
    usual = of(judge(absent_share=0.3), math.nan, ml=0.0)
    assert math.isnan(usual.expected_dice)
    assert not usual.review
    far_below = of(judge(), 0.001)
    assert far_below.review
    assert far_below.expected_dice < 0.05
    for ml, word in ((math.exp(1.0 + 4.2 * 0.2), "larger"), (math.exp(1.0 - 4.2 * 0.2), "smaller")):
        assert word in of(judge(), 0.95, ml=ml).reasons[0]
    assert of(judge(), 1.0).expected_dice < 1


def test_networks_that_disagree_expect_no_more_than_they_agree() -> None:
    apart = of(judge(), 0.95, 0.95, agreement=0.6)
    assert (apart.expected_dice, apart.review) == (0.6, True)
    assert of(judge(), 0.95, 0.95, agreement=0.99) == of(judge(), 0.95)
    halved = of(judge(), 0.95, math.nan)  # one of two finds nothing
    assert halved.expected_dice == pytest.approx(of(judge(), 0.95).expected_dice / 2)


def test_too_few_unseen_cases_expect_nothing() -> None:
    judged = rules_of(unseen_label(((0.9, 0.8),) * 4))
    assert math.isnan(of(judged, 0.9).expected_dice)
    assert of(judged, 0.9).review is None
    assert of(judged, math.nan, ml=0.0).review
    assert assess_mask(None, {"organ": 0.0}, [], review_share=0.1) == {}
    constant = assess_mask(None, {"organ": 0.0}, [Unseen((unseen_label(),), (), ())], review_share=0.1)
    assert constant["organ"].review


@pytest.mark.parametrize("count", [0, 2, 4, 5])
def test_an_empty_mask_expects_0_however_few_cases_there_are_unless_the_label_is_often_absent(count: int) -> None:
    def judged(absent_share: float) -> Assessment:
        rules = rules_of(unseen_label(((0.9, 0.8),) * count, absent_share))
        return of(rules, math.nan, ml=0.0)

    for absent_share in (0.0, 0.05):
        assert judged(absent_share) == Assessment(0.0, review=True)
    for absent_share in (0.1, 0.5):
        assert math.isnan(judged(absent_share).expected_dice)
        assert judged(absent_share).review is False


def test_with_two_cases_an_empty_mask_expects_0_and_the_label_beside_it_nothing() -> None:
    two = Unseen((unseen_label(((0.9, 0.8),) * 2), unseen_label(((0.5, 0.0),) * 2)), (), ())
    doubt = Doubt(np.array([[0.9, math.nan]]), np.array([math.nan, math.nan]))
    found = assess_mask(doubt, {"lv": 2.0, "rv": 0.0}, [two], review_share=0.1, review_floor=0.5)
    assert math.isnan(found["lv"].expected_dice)
    assert (found["lv"].review, found["rv"]) == (None, Assessment(0.0, review=True))


def _alike(count: int, labels: int = 3) -> Unseen:
    """Cases whose labels are mostly low together: their mean scatters nearly as each of them does."""
    random = np.random.default_rng(0)
    case, own = random.normal(0, 0.4, count), random.normal(0, 0.1, (labels, count))
    soft = 1 / (1 + np.exp(-2.2 - case - own))
    return Unseen(tuple(unseen_label(tuple((x, x) for x in row.tolist())) for row in soft), (), ())


def _judged(unseen: Unseen, *soft: float, share: float = 0.1) -> dict[str, Assessment]:
    names = [f"part {number}" for number in range(len(soft))]
    doubt = Doubt(np.array([soft]), np.full(len(soft), math.nan))
    return assess_mask(doubt, dict.fromkeys(names, 1.0), [unseen], review_share=share)


def test_labels_that_are_all_somewhat_low_are_reviewed_though_none_is_below_its_own_limit() -> None:
    unseen = _alike(12)
    limits = [rule.limit for rule in label_confidences((unseen,), 0.1)]
    most = mean_limit((unseen,), 0.1)
    assert most > max(limits) + 0.01
    between = (most + max(limits)) / 2
    found = _judged(unseen, between, between, between + 0.001)
    told = [name for name, one in found.items() if one.review]
    assert len(told) == 1
    (line,) = found[told[0]].reasons
    mean = np.mean([one.expected_dice for one in found.values()])
    assert line == f"the mean expected Dice of all labels is {mean:.3f}, below {most:.3g}"
    assert not any(one.review for one in _judged(unseen, between, between, 0.99).values())  # the others are good
    assert not any(one.review for one in _judged(unseen, between, between, between, share=0.0).values())
    one_low = _judged(unseen, between, between, 0.5)
    assert [len(one.reasons) for one in one_low.values()] == [0, 0, 1]  # its own limit says it already
    assert one_low["part 2"].reasons[0].startswith("its expected Dice is ")


def test_labels_and_their_mean_together_ask_for_little_more_than_the_share() -> None:
    random = np.random.default_rng(0)
    told = []
    for _ in range(40):
        soft = Curve(2.2, 1.0)(0.5 + random.normal(0, 0.05, (3, 32)))
        known = Unseen(tuple(unseen_label(tuple((x, x) for x in row[:12].tolist())) for row in soft), (), ())
        told += [any(one.review for one in _judged(known, *case).values()) for case in soft[:, 12:].T.tolist()]
    assert 0.10 < np.mean(told) < 0.19


def test_a_mean_has_no_limit_where_a_label_lacks_cases_or_is_the_only_one() -> None:
    whole, few = _alike(12), _alike(4)
    first, *others = whole.labels
    lacking = Unseen((msgspec.structs.replace(first, scores=first.scores[1:]), *others), (), ())
    for unseen in (few, lacking, _alike(12, labels=1)):
        assert math.isnan(mean_limit((unseen,), 0.1))
    assert math.isnan(mean_limit((whole, lacking), 0.1))
    assert mean_limit((whole, few), 0.1) > 0.5  # few cases of one network are pooled with the others'


def test_a_mean_is_nothing_without_one_of_the_labels() -> None:
    unseen = _alike(12)
    often = Unseen((msgspec.structs.replace(unseen.labels[0], absent_share=0.5), *unseen.labels[1:]), (), ())
    doubt = Doubt(np.array([[math.nan, 0.8, 0.8]]), np.full(3, math.nan))
    for known, is_told in ((often, False), (unseen, True)):
        found = assess_mask(doubt, {"a": 0.0, "b": 1.0, "c": 1.0}, [known], review_share=0.1)
        assert found["a"].review is is_told
        assert not any("mean" in reason for one in found.values() for reason in one.reasons)


def test_folds_pool_what_each_had_not_seen() -> None:
    soft, dice = _cases(9, seed=5, curve=Curve(-0.5, 1.0))
    scores = list(zip(soft.tolist(), dice.tolist(), strict=True))
    folds = [unseen_label(tuple(scores[start : start + 3])) for start in (0, 3, 6)]
    assert rules_of(*folds[:1]).curve is None
    assert rules_of(*folds).curve == fit_curve(soft, dice)


def calibrated(**choices: object) -> Model:
    """A model whose probabilities on unseen cases were right, and whose masks of these images are not like them."""
    model = tiny_model(**choices)  # type: ignore[arg-type]
    scores = tuple((value, value) for value in np.linspace(0.9, 0.95, 10).tolist())
    unseen = Unseen(tuple(unseen_label(scores) for _ in model.card.labels.entries), (), ())
    model.card = dataclasses.replace(model.card, unseen=unseen)
    return model


def test_a_folder_is_told_what_to_review(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / "images" / f"case_{number}.nii.gz", blobs(seed=number))
    run = saved(calibrated(labels="left=1,right=2"), tmp_path / "run")
    done = predict(run, tmp_path / "images", tmp_path / "masks", device="cpu")
    lines = (tmp_path / "masks" / "confidence.csv").read_text().splitlines()
    assert lines[0] == "case,label,volume_ml,expected_dice,review"
    rows = [line.split(",") for line in lines[1:]]
    assert sorted((row[0], row[1]) for row in rows) == [(f"case_{n}", s) for n in range(3) for s in ("left", "right")]
    expected = [float(row[3]) for row in rows]
    assert expected == sorted(expected)
    assert set(done.review or ()) == {row[0] for row in rows if row[4] == "True"} != set()
    assert any(line.startswith("review left: its expected Dice is ") for _, line in done.flags)
    model = Model.load(run, device="cpu")
    of_labels = model.assess(tmp_path / "images" / "case_1.nii.gz")
    told = {row[1]: float(row[3]) for row in rows if row[0] == "case_1"}
    assert told == pytest.approx({name: item.expected_dice for name, item in of_labels.items()})
    before = {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir() if path.name != "timing.csv"}
    (tmp_path / "masks" / "case_1.nii.gz").unlink()
    again = predict(run, tmp_path / "images", tmp_path / "masks", device="cpu", resume=True)
    assert (again.predicted, again.review) == (("case_1",), done.review)
    after = {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir() if path.name != "timing.csv"}
    assert after == before


def test_too_few_unseen_cases_say_nothing_of_a_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "case.nii.gz", blobs())
    model = tiny_model()
    model.card = dataclasses.replace(model.card, unseen=Unseen((unseen_label(((0.9, 0.8),) * 4),), (), ()))
    done = predict(saved(model, tmp_path / "run"), tmp_path / "images", tmp_path / "masks", device="cpu")
    assert done.review is None
    assert not (tmp_path / "masks" / "confidence.csv").exists()
    told = json.loads((tmp_path / "masks" / "case.json").read_text())
    assert (told["expected_dice"], told["review"]) == ({"organ": None}, {"organ": None})


def test_nothing_is_said_of_fewer_views_than_were_judged(tmp_path: Path) -> None:
    model = calibrated(views=("axial", "coronal"), spacing_mm=(1.5, 1.5, 1.5))
    image = write_image(tmp_path / "image.nii.gz", blobs())
    assert model.assess(image)
    assert model.with_views(["axial", "coronal"]).assess(image)
    assert model.with_views(["coronal"]).assess(image) == {}


def test_the_doubt_of_one_volume_does_not_depend_on_how_it_is_stored() -> None:
    model, image = calibrated(), Volume(blobs(), np.diag([-1.0, -1.0, 2.0, 1.0]))
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = image.shape[0] - 1
    turned = Volume(image.array[::-1], image.affine @ mirror)
    assert model.assess(image) == model.assess(turned)


def test_doubt_is_of_the_labels_in_their_order() -> None:
    doubt = Doubt(np.array([[0.95, 0.5]]), np.array([math.nan, math.nan]))
    scores = tuple((value, value) for value in np.linspace(0.9, 0.95, 10).tolist())
    found = assess_mask(doubt, {"a": 1.0, "b": 1.0}, [Unseen((unseen_label(scores),) * 2, (), ())], review_share=0.1)
    assert found["a"].expected_dice > 0.9 > found["b"].expected_dice


def floored(*scores: tuple[float, float], floor: float = 0.5) -> LabelConfidence:
    return rules_of(unseen_label(scores), review_floor=floor)


POOR = tuple((soft, soft) for soft in np.linspace(0.02, 0.6, 20).tolist())
"""Unseen cases of a network so poor that a relative limit lies at 0.07."""


@pytest.mark.parametrize("dice", [0.11, 0.13, 0.19, 0.49])
def test_a_mask_below_the_floor_is_reviewed_however_low_the_others_are(dice: float) -> None:
    assert not of(floored(*POOR, floor=0.0), dice).review
    found = of(floored(*POOR), dice)
    assert found.review
    assert found.reasons == (f"its expected Dice is {found.expected_dice:.3f}, below 0.5",)
    assert not of(floored(*POOR, floor=0.1), dice).review
    assert of(floored(*POOR, floor=0.8), 0.7).review
    assert not of(floored(*POOR), 0.7).review


def test_the_floor_holds_for_probabilities_alone_where_too_few_cases_are_known() -> None:
    found = of(floored((0.9, 0.8)), 0.31)
    assert math.isnan(found.expected_dice)
    assert (found.review, found.reasons) == (
        True,
        ("by its probabilities alone, its expected Dice is 0.310, below 0.5",),
    )
    assert of(floored((0.9, 0.8)), 0.9, 0.9, agreement=0.2).review
    assert of(floored((0.9, 0.8)), 0.6).review is None


def test_the_floor_is_a_setting(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.nii.gz", blobs())
    lines = {}
    for floor in (0.0, 0.5, 0.99):
        model = tiny_model(prediction={"review_floor": floor})
        model.card = dataclasses.replace(model.card, unseen=Unseen((unseen_label(),), (), ()))
        found = Model.load(saved(model, tmp_path / f"run_{floor}"), device="cpu").predict_case(image)
        lines[floor] = [flag for flag in found.flags if "below" in flag]
    assert not lines[0.0]
    assert lines[0.99][0].endswith(", below 0.99")


@pytest.mark.parametrize("unseen", [None, Unseen((unseen_label(), unseen_label(absent_share=0.5)), (), ())])
def test_a_label_that_was_found_and_wholly_removed_is_not_told_as_not_found(
    monkeypatch: pytest.MonkeyPatch, unseen: Unseen | None
) -> None:
    def cut(_: Rules, indices: NDArray[np.uint8], certainty: object) -> OnePart:
        del certainty
        return OnePart(np.where(indices == 2, 0, indices).astype(np.uint8), {1: 0.0, 2: 1.0})

    both = tiny_model(labels="organ=1,node=2")
    both.card = dataclasses.replace(both.card, unseen=unseen)
    image = Volume(blobs(), np.diag([-1.0, -1.0, 2.0, 1.0]))
    assert both.predict_case(image).measures["node"].voxels
    monkeypatch.setattr(Rules, "cut", cut)
    found = both.predict_case(image)
    assert not found.measures["node"].voxels
    assert found.assessments["node"].review
    assert [flag for flag in found.flags if "node" in flag] == [
        "review node: it was found, but not connected to the other labels, and 100 % of it was removed"
    ]
