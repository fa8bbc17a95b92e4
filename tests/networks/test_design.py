"""A design has every part set, by the settings, the preset or the plan."""

import dataclasses

import pytest
import torch

from medfcn.errors import SettingsError
from medfcn.labels import LabelMap
from medfcn.networks.design import Design, planned_design
from medfcn.networks.fcn import build_network
from medfcn.networks.presets import PRESETS
from medfcn.settings import NetworkSettings
from tests.inference.models import tiny_plan


@pytest.mark.parametrize("preset", PRESETS)
def test_every_part_of_a_design_is_set(preset: str) -> None:
    design = Design.of(NetworkSettings(preset=preset), widths=PRESETS[preset].widths or (4, 8))  # type: ignore[arg-type]
    assert None not in dataclasses.astuple(design)
    set_by_preset = {name: value for name, value in vars(PRESETS[preset]).items() if value is not None}
    assert {name: value for name, value in vars(design).items() if name in set_by_preset and name != "head"} == {
        name: value for name, value in set_by_preset.items() if hasattr(design, name) and name != "head"
    }


def test_the_width_scales_what_there_is_and_0_stays_0() -> None:
    thin = Design.of(NetworkSettings(preset="fcn8s", width=1 / 1024, decoder_widths=(1, 2048)))
    assert (thin.widths, thin.classifier_channels, thin.score_channels) == ((1,) * 5, 4, 0)
    assert thin.decoder_widths == (1, 2)


@pytest.mark.parametrize(("set_stem", "expected"), [(None, 4), (2, 2)])
def test_the_plan_chooses_the_stem_that_the_settings_leave_open(set_stem: int | None, expected: int) -> None:
    plan, labels = tiny_plan(stem_stride=4), LabelMap.parse("left=1,right=2")
    design = planned_design(NetworkSettings(stem_stride=set_stem), plan, labels)  # type: ignore[arg-type]
    assert design.stem_stride == expected
    assert (design.widths, design.channels_in) == (plan.widths, plan.channels_in)
    assert (design.label_count, design.head, design.channels_out) == (2, "softmax", 3)
    assert planned_design(NetworkSettings(encoder="pooled"), plan, labels).stem_stride == 1


def test_labels_that_overlap_have_a_logit_each() -> None:
    design = planned_design(NetworkSettings(), tiny_plan(), LabelMap.parse("whole=1+2,core=2"))
    assert (design.head, design.channels_out) == ("sigmoid", 2)


def test_widths_that_nothing_sets_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"setting network\.widths: not set") as caught:
        Design.of(NetworkSettings())
    assert caught.value.field == "network.widths"


def test_logits_of_many_labels_are_interpolated_to_full_size_as_the_plan_says() -> None:
    names = ",".join(f"l{number}={number}" for number in range(1, 10))
    plan, labels = tiny_plan(stem_stride=2, restoring="bilinear"), LabelMap.parse(names)
    network = build_network(planned_design(NetworkSettings(), plan, labels))
    assert not [name for name in network.state_dict() if name.startswith("restore")]
    assert network(torch.zeros(1, plan.channels_in, 21, 17)).shape == (1, 10, 21, 17)
    learned = build_network(planned_design(NetworkSettings(restoring="learned"), plan, labels))
    assert learned.state_dict()["restore.learned.weight"].shape == (10, 10, 4, 4)
