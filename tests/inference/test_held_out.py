"""What a card keeps of unseen cases: written and read, refused when it cannot be, and choosing only what is clear."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from medfcn.errors import ModelError
from medfcn.inference.card import Card
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.held_out import Unseen
from medfcn.inference.model import Model
from medfcn.inference.postprocessing import THRESHOLDS, Rules, best_threshold, held_out_gain, rules_of
from tests.inference.models import blobs, saved, tiny_model, unseen_label, write_image

LABEL = unseen_label(
    scores=((0.9, 0.85), (0.95, 0.9)), absent_share=0.2, log_ml=(1.5, 0.3), one_part=((0.8, 0.82), (0.9, 0.9))
)
SOUND = Unseen((LABEL,), thresholds=(0.4, 0.5), threshold_dices=((0.8, 0.81), (0.7, 0.69)))


def with_unseen(unseen: Unseen | None, **choices: Any) -> Model:
    model = tiny_model(**choices)
    model.card = dataclasses.replace(model.card, unseen=unseen)
    return model


def by_threshold(gains: list[float], *, at: float, seed: int = 0) -> Unseen:
    """Cases whose Dice at one threshold differs from that at all others by the gains."""
    start = np.random.default_rng(seed).uniform(0.7, 0.9, len(gains))
    rows = np.repeat(start[:, None], len(THRESHOLDS), axis=1)
    rows[:, THRESHOLDS.index(at)] += gains
    return Unseen((unseen_label(),), THRESHOLDS, tuple(map(tuple, rows.tolist())))


def test_it_travels_in_the_card(tmp_path: Path) -> None:
    model = with_unseen(SOUND)
    model.card = dataclasses.replace(model.card, threshold=0.4)
    card = Model.load(saved(model, tmp_path / "run"), device="cpu").card
    assert card.unseen == SOUND
    assert (card.threshold, card.foreground_from) == (0.4, 0.4)


def test_cards_of_before_load_and_mean_what_they_meant(tmp_path: Path) -> None:
    folder = saved(tiny_model(prediction={"threshold": 0.6}), tmp_path / "run")
    card = json.loads((folder / "model.json").read_text())
    for name in ("threshold", "unseen"):
        del card[name]
    del card["settings"]["prediction"]["review_share"]
    (folder / "model.json").write_text(json.dumps(card))
    model = Model.load(folder, device="cpu")
    assert (model.card.foreground_from, model.card.unseen) == (0.6, None)
    found = model.predict_case(write_image(tmp_path / "image.nii.gz", blobs()))
    assert found.assessments == {}


NAN, HUGE = float("nan"), 10**400
TAMPERED: list[tuple[tuple[Any, ...], list[Any]]] = [
    (("labels",), [[], {}, None, 1, "ab", [None], [{}]]),
    (("thresholds",), [[0.5, 0.4], [0.4, 0.4], [0.0, 0.5], [0.5, 1.0], [NAN, 0.5], [0.5], [True, 0.5], None, "45"]),
    (("threshold_dices",), [[[0.5]], [[0.5, 1.5]], [[0.5, NAN]], [["0.5", 0.5]], [0.5], None, {"a": 1}]),
    (("labels", 0, "scores"), [[[0.5]], [[0.5, 0.5, 0.5]], [[0.5, -1]], [[NAN, 0.5]], [[HUGE, 0.5]], ["ab"], None]),
    (("labels", 0, "absent_share"), [None, "0", -0.1, 2, NAN, True, [0]]),
    (("labels", 0, "log_ml"), [[1.0], [1.0, -1.0], [NAN, 1.0], [1.0, NAN], [HUGE, 1.0], [999.0, 1.0], "ab", 5]),
    (("labels", 0, "one_part"), [[[0.5]], [[0.5, 2.0]], [[[0.5], 0.5]], None]),
    (("labels", 0, "more"), [1]),
    (("more",), [1]),
]


@pytest.mark.parametrize("place", range(len(TAMPERED)), ids=lambda place: ".".join(map(str, TAMPERED[place][0])))
def test_what_cannot_be_is_refused_in_a_line(tmp_path: Path, place: int) -> None:
    folder = saved(with_unseen(SOUND), tmp_path / "run")
    sound = (folder / "model.json").read_text()
    path, values = TAMPERED[place]
    for value in values:
        card = json.loads(sound)
        holder = card["unseen"]
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        (folder / "model.json").write_text(json.dumps(card))
        with pytest.raises(ModelError, match=r"model\.json") as caught:
            Model.load(folder, device="cpu")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


def test_a_threshold_is_chosen_only_where_chance_would_not_have() -> None:
    clear = by_threshold([0.01, 0.02, 0.015, 0.012, 0.02, 0.01], at=0.4)
    assert best_threshold([clear]) == 0.4
    assert best_threshold([by_threshold([0.05, -0.03, 0.02, -0.02, 0.01, 0.0], at=0.4)]) is None
    assert best_threshold([by_threshold([-0.02] * 6, at=0.4)]) is None
    assert best_threshold([by_threshold([0.02] * 4, at=0.4)]) is None  # too few
    assert best_threshold([by_threshold([0.02] * 6, at=0.5)]) is None
    assert best_threshold([Unseen((unseen_label(),), (), ())]) is None
    assert best_threshold([]) is None
    assert best_threshold([clear, Unseen((unseen_label(),), (), ())]) is None


def test_folds_choose_together_and_a_set_threshold_wins() -> None:
    folds = [by_threshold([0.012, 0.011, 0.010], at=0.4, seed=seed) for seed in range(3)]
    cards = [with_unseen(unseen).card for unseen in folds]
    assert rules_of(cards) == Rules(0.4, ())
    assert rules_of(cards[:1]).threshold == 0.5  # a fold by itself keeps out of it
    set_cards = [with_unseen(None, prediction={"threshold": 0.55}).card for _ in folds]
    assert rules_of(set_cards).threshold == 0.55
    assert rules_of([*cards[:2], with_unseen(None).card]).threshold == 0.5


def test_the_gain_that_is_told_is_of_cases_that_did_not_choose() -> None:
    alike = [by_threshold([0.012, 0.011, 0.010, 0.012, 0.011], at=0.4, seed=seed) for seed in range(3)]
    assert held_out_gain(alike) == pytest.approx(0.0112)
    lone = [alike[0], by_threshold([0.0] * 5, at=0.4), by_threshold([0.0] * 5, at=0.4)]
    assert held_out_gain(lone) < np.mean([0.012, 0.011, 0.010, 0.012, 0.011]) / 3


def test_folds_keep_one_part_where_their_unseen_cases_do_not_lose_by_it() -> None:
    def cards(*pairs: tuple[tuple[float, float], ...], own: tuple[int, ...] = ()) -> list[Card]:
        return [with_unseen(Unseen((unseen_label(one_part=pair),), (), ()), one_part=own).card for pair in pairs]

    gain, loss = ((0.8, 0.9), (0.8, 0.8)), ((0.8, 0.75), (0.8, 0.8))
    assert rules_of(cards(gain, loss)).one_part == (1,)
    assert rules_of(cards(loss, loss, own=(1,))).one_part == ()
    assert rules_of(cards(gain, (), own=())).one_part == ()  # one fold's training references are of many parts
    assert rules_of(cards((), (), own=(1,))).one_part == (1,)
    assert rules_of(cards(((0.0, 0.0),), ((0.0, 0.0),), own=(1,))).one_part == ()  # no fold found anything


def test_folds_keep_one_component_of_all_labels_where_their_unseen_cases_do_not_lose_by_it() -> None:
    def cards(
        *pairs: tuple[tuple[float, float], ...],
        own: bool = False,
        of_label: tuple[tuple[float, float], ...] | None = None,
    ) -> list[Card]:
        each = [(pair, pair if of_label is None else of_label) for pair in pairs]
        unseen = [
            Unseen((msgspec.structs.replace(unseen_label(), together=known),), (), (), pair) for pair, known in each
        ]
        return [dataclasses.replace(with_unseen(one).card, together=own) for one in unseen]

    gain, loss = ((0.8, 0.9), (0.8, 0.8)), ((0.8, 0.75), (0.8, 0.8))
    assert rules_of(cards(gain, loss)).together
    assert not rules_of(cards(loss, loss, own=True)).together
    assert not rules_of(cards(gain, ())).together
    assert rules_of(cards((), (), own=True)).together
    assert not rules_of(cards(gain, gain, of_label=loss)).together  # a label loses, though the mean does not
    assert not rules_of(cards(gain, gain, own=True, of_label=())).together  # nothing is known of the labels
    assert rules_of(cards(loss, own=True)).together  # a single one keeps what its own cases chose


def test_the_mask_of_several_follows_their_rules(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.nii.gz", blobs())
    unseen = by_threshold([0.012, 0.011, 0.010], at=0.7)
    models = [with_unseen(unseen, seed=seed) for seed in range(2)]
    together = Ensemble(models)
    assert together.rules.threshold == 0.7
    likely = together.predict_case(image, keep_probabilities=True)
    assert likely.probabilities is not None
    assert np.array_equal(likely.mask.array, (likely.probabilities[0] >= np.float32(0.7)).astype(np.uint8))
