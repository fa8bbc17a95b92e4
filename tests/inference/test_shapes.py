"""Masks of odd shape are flagged, where references and good masks do not have that shape."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medfcn.inference.held_out import Unseen
from medfcn.inference.model import Model
from medfcn.inference.shapes import limits_of, oddities, widest
from medfcn.settings import View
from medfcn.slices.plan import Intensity
from medfcn.slices.preprocess import ImageSlices
from medfcn.slices.shape import MaskShape
from medfcn.slices.voxels import Ranges
from medfcn.verbs import predict
from medfcn.volumes import Volume
from tests.inference.models import saved, tiny_model, unseen_label, write_image

ROUND = limits_of([MaskShape()] * 20, [])
"""The limits of an organ that is round and in one piece."""
SHAPE = (36, 32, 24)


@pytest.fixture(autouse=True)
def images_are_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that gives each voxel a thousandth of its intensity."""

    def likely(
        model: Model, slices: ImageSlices, view: View, *, tta: bool | None = None
    ) -> Iterator[tuple[Ranges, NDArray[np.float32]]]:
        array = slices.image.part(tuple(slice(0, length) for length in slices.image.shape[1:]))
        yield (slice(None),) * 4, np.clip(array / 1000, 0, 1)

    monkeypatch.setattr(Model, "view_slabs", likely)


def model(*, one_part: tuple[int, ...] = (), **card: Any) -> Model:
    made = tiny_model(one_part=one_part, spacing_mm=(1.0, 1.0, None), intensities=(Intensity("none"),))
    known: dict[str, Any] = {"shapes": (ROUND,), "components": "largest and most certain"}
    made.card = dataclasses.replace(made.card, **known | card)
    return made


def ball(centre: tuple[int, int, int], radius: float, probability: float) -> NDArray[np.int16]:
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    inside = np.linalg.norm(grid - centre, axis=-1) < radius
    return np.where(inside, round(1000 * probability), 10).astype(np.int16)


def volume(array: NDArray[np.int16]) -> Volume:
    return Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]))


ORGAN = ball((18, 16, 12), 8, 0.95)


def gap() -> NDArray[np.int16]:
    image = ORGAN.copy()
    image[:, :, 11:13] = 10
    return image


def cut() -> NDArray[np.int16]:
    image = ORGAN.copy()
    image[:, :, 13:] = 10
    return image


def test_a_good_mask_is_not_flagged_and_three_odd_ones_are() -> None:
    for image, line in (
        (ORGAN, None),
        (gap(), "axial slices inside it are empty or nearly so"),
        (cut(), "it ends abruptly (superior): next to a slice with much of it is one with none"),
        (np.maximum(ball((8, 8, 8), 6, 0.95), ball((30, 26, 18), 5, 0.95)), "is far from its largest piece"),
    ):
        found = model().predict_case(volume(image))
        assert (found.flags == ()) == (line is None)
        assert all(flag.startswith("review organ: ") for flag in found.flags)
        assert line is None or found.flags[0].endswith(line)
        assert {name: item.review for name, item in found.assessments.items()} == ({"organ": True} if line else {})
        assert model(shapes=()).predict_case(volume(image)).flags == ()  # nothing is known of the organ


def test_an_organ_whose_references_do_the_same_is_not_flagged() -> None:
    flat, pair = MaskShape(stops=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)), MaskShape(far=0.5, dips=(1.0, 1.0, 1.0))
    assert model(shapes=(limits_of([flat] * 10, []),)).predict_case(volume(cut())).flags == ()
    assert model(shapes=(limits_of([pair] * 10, []),)).predict_case(volume(gap())).flags == ()
    other = ORGAN.copy()
    other[:, :, :11] = 10  # cut at the end that is never flat
    assert len(model(shapes=(limits_of([flat] * 10, []),)).predict_case(volume(other)).flags) == 1
    assert model().predict_case(volume(ball((18, 16, 0), 8, 0.95))).flags == ()  # the field of view cuts it


def test_at_most_a_tenth_of_the_good_masks_are_beyond_the_limits() -> None:
    random = np.random.default_rng(0)

    def drawn(count: int) -> list[MaskShape]:
        rows = random.beta(0.4, 1.5, (count, 11)).tolist()
        return [MaskShape(row[0], row[1], tuple(row[2:5]), tuple(row[5:])) for row in rows]

    for count in (1, 2, 3, 10, 24, 100):
        masks = [(float(random.uniform()), shape) for shape in drawn(count)]
        limits = limits_of(drawn(16), masks)
        median = np.median([dice for dice, _ in masks])
        good = [shape for dice, shape in masks if dice > median]
        assert sum(bool(oddities(shape, limits)) for shape in good) <= len(good) / 10
    assert limits_of([], []) == MaskShape(1.0, 1.0, (1.0,) * 3, (1.0,) * 6)


def test_one_odd_reference_of_twenty_changes_no_limit() -> None:
    odd = MaskShape(0.0, 0.9, (0.9,) * 3, (0.9,) * 6)
    assert limits_of([MaskShape()] * 19 + [odd], []) == ROUND
    assert limits_of([MaskShape()] * 18 + [odd] * 2, []).far == 1.0


def test_several_models_have_the_widest_of_their_limits() -> None:
    one, other = MaskShape(far=0.1, dips=(0.4, 0.5, 0.6)), MaskShape(far=0.2, dips=(0.6, 0.5, 0.4))
    assert widest([(one,), (), (other,)]) == (MaskShape(far=0.2, dips=(0.6, 0.5, 0.6)),)
    assert widest([(), ()]) == ()


TRUE, MISREAD = ball((27, 22, 12), 5.5, 0.97), ball((9, 10, 12), 8.5, 0.6)


def test_a_misread_neighbour_that_is_larger_does_not_drop_the_true_organ() -> None:
    image = volume(np.maximum(TRUE, MISREAD))
    found = model(one_part=(1,)).predict_case(image)
    assert (found.mask.array[TRUE > 500] == 1).all()
    assert (
        "review organ: the network is surer of a smaller piece than of the largest one; both were kept" in found.flags
    )
    by_size = model(one_part=(1,), components="largest", shapes=()).predict_case(image)
    assert not by_size.mask.array[TRUE > 500].any()  # a run of before keeps its rule and its mask
    assert by_size.flags == ()


def test_a_large_part_that_is_removed_is_told() -> None:
    image = volume(np.maximum(ball((27, 22, 12), 6.5, 0.97), ball((9, 10, 12), 8.5, 0.97)))
    found = model(one_part=(1,)).predict_case(image)
    assert not found.mask.array[27, 22, 12]
    (flag,) = found.flags
    assert flag == "review organ: 32 % of it was removed, as not connected to the rest"


def test_flags_are_in_the_record_the_table_and_the_report(tmp_path: Path) -> None:
    for name, image in (("a_good", ORGAN), ("b_gap", gap()), ("c_cut", cut())):
        write_image(tmp_path / "images" / f"{name}.nii.gz", image, np.diag([-1.0, -1.0, 1.0, 1.0]))
    run = saved(model(unseen=Unseen((unseen_label(((0.9, 0.8),)),), (), ())), tmp_path / "run")
    done = predict(run, tmp_path / "images", tmp_path / "masks", device="cpu", report=True)
    assert done.review == ("b_gap", "c_cut")
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "masks").glob("*.json")}
    assert {name: record["review"]["organ"] for name, record in records.items()} == {
        "a_good": None,
        "b_gap": True,
        "c_cut": True,
    }
    line = "review organ: axial slices inside it are empty or nearly so"
    assert records["b_gap"]["flags"] == [line]
    rows = list(csv.DictReader((tmp_path / "masks" / "confidence.csv").read_text().splitlines()))
    assert [(row["case"], row["review"]) for row in rows] == [("b_gap", "True"), ("c_cut", "True"), ("a_good", "")]
    assert line in (tmp_path / "masks" / "report.html").read_text()


def test_limits_and_rule_travel_in_the_card_and_decide_a_mask(tmp_path: Path) -> None:
    made = model(one_part=(1,))
    card = Model.load(saved(made, tmp_path / "run"), device="cpu").card
    assert (card.shapes, card.components) == ((ROUND,), "largest and most certain")
    by_size = dataclasses.replace(card, components="largest")
    unknown = dataclasses.replace(card, shapes=())
    assert len({one.decision_sha256 for one in (card, by_size, unknown)}) == 3
    assert not {"components", "shapes"} & tiny_model().card.to_json().keys()
