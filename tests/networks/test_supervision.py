"""In training every parameter is taught, by every head there is; the heads are left behind."""

import pytest
import torch
from torch import nn

from medfcn.errors import SettingsError
from medfcn.networks.objective import Objective
from medfcn.networks.supervision import Outputs, SupervisedFCN
from medfcn.settings import Settings, TrainingSettings
from tests.networks.designs import ALL, STRIDES, build, noise


def supervised(
    preset: str, labels: int, *, heads: bool = True, width: float = 1 / 16, **parts: object
) -> SupervisedFCN:
    network = build(preset, width=width, channels=2, labels=labels, **parts)
    torch.manual_seed(1)
    return SupervisedFCN(network, label_count=labels, deep=heads, presence=heads, distances=heads).train()


def targets_like(slices: torch.Tensor, labels: int) -> torch.Tensor:
    """Stripes of every label; the first slice lacks the first label."""
    rows = torch.arange(slices.shape[2])[:, None] // 7 + torch.arange(slices.shape[3]) // 9
    targets = (rows % (labels + 1)).expand(len(slices), -1, -1).clone()
    targets[0][targets[0] == 1] = 0
    return targets


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("heads", [False, True], ids=["logits alone", "every head"])
def test_every_parameter_gets_a_gradient(preset: str, labels: int, heads: bool) -> None:
    taught = supervised(preset, labels, heads=heads)
    slices = noise(4, 2, 61, 74)
    weight = 0.5 if heads else 0.0
    training = TrainingSettings(deep_supervision=heads, presence_weight=weight, distance_weight=weight)
    objective = Objective.of(Settings(training=training), labels)
    objective(taught(slices), targets_like(slices, labels)).backward()
    for name, parameter in taught.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("labels", [1, 3])
def test_there_is_a_prediction_for_every_fused_map_at_full_size(preset: str, labels: int) -> None:
    taught = supervised(preset, labels).eval()
    slices = noise(2, 2, 45, 38)
    with torch.inference_mode():
        outputs = taught(slices)
        plain = taught.network(slices)
    coarsest, finest = STRIDES[preset]
    assert len(outputs.logits) == (coarsest // finest).bit_length()
    assert {tuple(logits.shape) for logits in outputs.logits} == {tuple(plain.shape)}
    assert torch.equal(outputs.logits[0], plain)
    assert outputs.presence is not None
    assert outputs.presence.shape == (2, labels)
    assert outputs.distances is not None
    assert outputs.distances.shape == (2, labels, 45, 38)
    assert outputs.distances.abs().max() <= 1
    assert {logits.dtype for logits in (*outputs.logits, outputs.presence, outputs.distances)} == {torch.float32}


@pytest.mark.parametrize("preset", ALL)
def test_the_heads_leave_the_network_as_it_is(preset: str) -> None:
    taught = supervised(preset, 2)
    alone = supervised(preset, 2, heads=False)
    state, other = taught.network.state_dict(), alone.network.state_dict()
    assert list(state) == list(other)
    assert all(torch.equal(state[name], other[name]) for name in state)
    outputs = alone.eval()(noise(1, 2, 33, 33))
    assert outputs.presence is None
    assert outputs.distances is None
    assert len(outputs.logits) == 1


def test_score_maps_that_are_logits_are_supervised_as_they_are() -> None:
    for preset in ("fcn32s", "fcn8s", "fcn1s", "resnet18_8s"):
        assert not any(isinstance(module, nn.Conv2d) for module in supervised(preset, 2).coarse_heads)
    assert sum(isinstance(module, nn.Conv2d) for module in supervised("auto", 2).coarse_heads) == 4


def test_coarser_predictions_come_finest_first() -> None:
    """A coarser map has fewer changes from pixel to pixel, so its prediction is smoother."""
    taught = supervised("fcn1s", 1).eval()
    with torch.inference_mode():
        logits = taught(noise(1, 2, 128, 128)).logits
    roughness = [float(one.diff(dim=-1).square().mean() / one.var()) for one in logits]
    assert roughness == sorted(roughness, reverse=True)


def test_coarse_predictions_are_interpolated_in_place() -> None:
    """The score map of one deepest pixel is brightest in the middle of the pixels it stands for."""
    taught = supervised("fcn16s", 1).eval()
    score = torch.zeros(1, 1, 4, 4)
    score[0, 0, 1, 2] = 1
    taught.network.scores[0].register_forward_hook(lambda module, given, output: score)
    with torch.inference_mode():
        coarsest = taught(noise(1, 2, 128, 128)).logits[-1][0, 0]
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    assert float((coarsest * rows).sum() / coarsest.sum()) == pytest.approx(1.5 * 32 - 0.5, abs=1e-2)
    assert float((coarsest * columns).sum() / coarsest.sum()) == pytest.approx(2.5 * 32 - 0.5, abs=1e-2)


def test_presence_looks_at_the_coarsest_features_alone() -> None:
    taught = supervised("auto", 2).eval()
    slices = noise(3, 2, 64, 64)
    with torch.inference_mode():
        deepest = taught.network.maps(slices).deepest
        seen = torch.cat([deepest.flatten(2).mean(2), deepest.flatten(2).amax(2)], 1)
        outputs: Outputs = taught(slices)
        assert taught.presence is not None
        assert outputs.presence is not None
        assert torch.allclose(outputs.presence, taught.presence(seen), atol=1e-6)


def test_supervision_of_other_choices_of_parts_works_too() -> None:
    for parts in ({"fusion": "concat"}, {"refinements": 0}, {"score_channels": 0}, {"scores": False, "skips": False}):
        taught = supervised("auto", 2, **parts)
        outputs = taught(noise(2, 2, 33, 29))
        assert len(outputs.logits) == 5
        assert all(logits.shape == (2, 3, 33, 29) for logits in outputs.logits)


@pytest.mark.parametrize(("labels", "count"), [(1, 1), (1, 3), (3, 3), (3, 5)])
def test_class_weights_that_are_too_few_or_too_many_are_refused(labels: int, count: int) -> None:
    training = TrainingSettings(class_weights=(1.0,) * count)
    with pytest.raises(SettingsError, match=f"has {count} numbers, .* take {labels + 1}; give as many") as caught:
        Objective.of(Settings(training=training), labels)
    assert caught.value.field == "training.class_weights"
