"""Weights carried from a trained network: stage by stage, to other labels, and never to a network they do not fit."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from medfcn.errors import ModelError
from medfcn.networks.design import Design
from medfcn.networks.fcn import FCN, build_network
from medfcn.networks.presets import with_preset
from medfcn.networks.transfer import Transfer, choose_carried, label_layers, require_same_parts
from medfcn.settings import NetworkSettings

SMALL = {"width": 1 / 32}


def built(*, labels: int = 1, widths: tuple[int, ...] = (4, 6, 8), channels: int = 1, **parts: object) -> FCN:
    settings = with_preset(NetworkSettings(**parts))  # type: ignore[arg-type]
    torch.manual_seed(0)
    return build_network(
        Design.of(settings, widths=settings.widths or widths, channels_in=channels, label_count=labels)
    ).eval()


def lived_in(network: FCN, *, seed: int = 0, upsampling: bool = True) -> FCN:
    """With every weight moved from where it started; upsampling too, or as it starts."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and (upsampling or not ("upsample" in name or "restore" in name)):
                tensor.add_(0.1 * tensor.abs().mean() * torch.randn(tensor.shape, generator=random))
            if name.endswith("bias"):
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=random))
    return network


def carried(trained: FCN, network: FCN, *, same_labels: bool = True) -> Transfer:
    carry = choose_carried(network, trained, same_labels=same_labels, source="runs/old")
    carry.start(network, trained)
    return carry


def slices(height: int = 256, width: int = 192) -> torch.Tensor:
    return torch.randn(2, 1, height, width, generator=torch.Generator().manual_seed(1))


def interpolated(coarse: torch.Tensor, factor: int) -> torch.Tensor:
    return functional.interpolate(coarse, scale_factor=factor, mode="bilinear", align_corners=False)


def inside(logits: torch.Tensor, border: int) -> torch.Tensor:
    return logits[..., border:-border, border:-border]


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize(("before", "after", "factor"), [("fcn32s", "fcn16s", 16), ("fcn16s", "fcn8s", 8)])
@torch.inference_mode()
def test_a_stage_starts_as_the_coarser_network_up_to_the_interpolations(
    before: str, after: str, factor: int, labels: int
) -> None:
    coarse = lived_in(built(preset=before, labels=labels, **SMALL))
    fine = built(preset=after, labels=labels, **SMALL)
    carry = carried(coarse, fine)
    fused = coarse.maps(slices()).fused[-1]
    assert fused.std() > 0.01
    # The coarser network's last scores, doubled by interpolation and brought to full size by interpolation.
    assert torch.allclose(inside(fine.maps(slices()).fused[-1], 2), inside(interpolated(fused, 2), 2), atol=1e-5)
    expected = interpolated(interpolated(fused, 2), factor)
    border = 4 * factor
    assert torch.allclose(inside(fine(slices()), border), inside(expected, border), atol=1e-5)
    step = len(fine.fusions)
    assert set(carry.zeroed) == {f"scores.{step}.weight", f"scores.{step}.bias"}
    assert set(carry.fresh) == {f"fusions.{step - 1}.upsample.learned.weight", "restore.learned.weight"}
    assert not carry.relabelled
    assert len(carry.taken) == len(coarse.state_dict()) - 1  # all but restore


@torch.inference_mode()
def test_two_interpolations_are_nearly_one() -> None:
    """From a network whose upsampling was not trained, a stage's output is nearly the coarser network's own."""
    stages = [lived_in(built(preset="fcn32s", **SMALL), upsampling=False)]
    for preset in ("fcn16s", "fcn8s"):
        stages.append(built(preset=preset, **SMALL))
        carried(stages[-2], stages[-1])
    first, second, third = (inside(stage(slices()), 64) for stage in stages)
    assert 0 < (second - first).std() < 0.2 * first.std()
    assert 0 < (third - second).std() < 0.06 * second.std()


@torch.inference_mode()
def test_trained_upsampling_inside_is_kept() -> None:
    coarse = lived_in(built(preset="fcn16s", **SMALL))
    fine = built(preset="fcn8s", **SMALL)
    carried(coarse, fine)
    assert torch.equal(fine.fusions[0].upsample.learned.weight, coarse.fusions[0].upsample.learned.weight)
    assert torch.equal(fine.maps(slices()).fused[1], coarse.maps(slices()).fused[1])


@pytest.mark.parametrize(
    "preset", ["auto", "fcn8s", "vgg_concat", "compact", "plain", "score_decoder", "resnet18_8s"]
)
@torch.inference_mode()
def test_the_same_network_and_labels_give_the_same_logits(preset: str) -> None:
    parts = {"preset": preset, "width": 1 / 16}
    trained = lived_in(built(labels=2, **parts))
    network = built(labels=2, **parts)
    carry = carried(trained, network)
    assert len(carry.taken) == len(trained.state_dict())
    assert torch.equal(network(slices(70, 50)), trained(slices(70, 50)))
    next(iter(network.parameters())).zero_()  # a copy: the trained network does not change
    assert next(iter(trained.parameters())).abs().max() > 0


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("preset", ["auto", "fcn8s", "score_decoder", "vgg_concat"])
@torch.inference_mode()
def test_with_other_labels_only_their_layers_start_anew(preset: str, count: int) -> None:
    parts = {"preset": preset, "width": 1 / 16}
    trained, network = lived_in(built(labels=2, **parts)), built(labels=count, **parts)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    carry = carried(trained, network, same_labels=False)
    assert carry.relabelled
    assert not carry.zeroed
    assert not carry.fresh
    state = network.state_dict()
    assert all(torch.equal(state[name], before[name]) for name in carry.relabelled)
    assert all(torch.equal(state[name], trained.state_dict()[name]) for name in carry.taken)
    assert {name.split(".")[0] for name in carry.relabelled} <= {"scores", "fusions", "head", "restore"}
    assert {name for name in state if name.startswith("encoder.")} <= set(carry.taken)


def test_the_layers_of_the_labels_are_the_head_or_the_scores() -> None:
    def of(**parts: object) -> set[str]:
        names = label_layers(built(labels=2, **parts, **SMALL).design)
        return {name.split(".weight")[0].split(".bias")[0] for name in names}

    assert of() == {"head"}
    assert of(score_channels=3) == {"head"}  # as many as the logits, and not theirs
    assert of(preset="fcn32s") == {"scores.0", "restore.learned"}
    assert of(preset="fcn16s") == {"scores.0", "scores.1", "fusions.0.upsample.learned", "restore.learned"}
    shared = {"scores.0", "fusions.0.upsample.learned", "restore.learned"}
    assert of(preset="score_decoder") == {*shared, "head"}


@torch.inference_mode()
def test_a_new_skip_of_features_starts_at_zero_and_its_refinement_at_random() -> None:
    trained = lived_in(built(finest_stride=2))
    network = built()
    carry = carried(trained, network)
    assert set(carry.zeroed) == {"scores.2.weight", "scores.2.bias"}
    assert {name.split(".")[0] for name in carry.fresh} == {"fusions"}
    assert {"head.weight", "fusions.0.refine.0.0.weight"} <= set(carry.taken)
    assert torch.equal(network.maps(slices(32, 32)).fused[1], trained.maps(slices(32, 32)).fused[1])


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({"widths": (4, 7, 8)}, r"encoder.levels.1.0.0.weight: \(6, 4, 3, 3\) there, \(7, 4, 3, 3\) here"),
        ({"channels": 3}, r"encoder.levels.0.0.0.weight: \(4, 1, 3, 3\) there, \(4, 3, 3, 3\) here"),
        ({"widths": (4, 6, 8, 8)}, "encoder.levels.3.0.0.weight: nothing there"),
        ({"widths": (4, 6)}, r"scores.0.weight: \(16, 8, 1, 1\) there, \(16, 6, 1, 1\) here"),
        ({"encoder": "flat", "widths": (4,)}, "encoder.levels.0.first.0.weight: nothing there"),
        ({"score_channels": 5}, r"scores.0.weight: \(16, 8, 1, 1\) there, \(5, 8, 1, 1\) here"),
        ({"head_kernel": 3}, r"head.weight: \(1, 16, 1, 1\) there, \(1, 16, 3, 3\) here"),
    ],
    ids=["widths", "channels", "more levels", "fewer levels", "another encoder", "score channels", "head"],
)
def test_what_does_not_fit_is_told_with_its_first_tensor(changed: dict[str, object], first: str) -> None:
    trained, network = built(), built(**changed)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=first) as caught:
        choose_carried(network, trained, same_labels=True, source="runs/old")
    assert str(caught.value).startswith("runs/old: its weights do not fit this network, first at ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "changed",
    [
        {"encoder": "pooled", "widths": (4, 6, 8)},
        {"fusion": "concat"},
        {"upsampling": "bilinear"},
        {"upsampling": "dilated"},  # of the same names and shapes
        {"refinements": 2},
        {"normalisation": "instance"},
        {"skips": False},
        {"scores": False, "fusion": "concat"},
    ],
    ids=str,
)
def test_parts_that_change_what_weights_mean_are_refused_by_name(changed: dict[str, object]) -> None:
    here, there = with_preset(NetworkSettings(**changed)), with_preset(NetworkSettings())  # type: ignore[arg-type]
    part = next(iter(changed))
    with pytest.raises(ModelError, match=f"runs/old: network.{part} is .* there and .* here") as caught:
        require_same_parts(here, there, source="runs/old")
    assert (caught.value.code, caught.value.field) == ("WEIGHTS_MISFIT", f"network.{part}")


def test_parts_without_weights_may_change() -> None:
    there = with_preset(NetworkSettings(preset="fcn16s"))
    require_same_parts(with_preset(NetworkSettings(preset="fcn8s", dropout=0.1)), there, source="runs/old")
    require_same_parts(there, there, source="runs/old")


def test_a_skip_is_never_taken_away() -> None:
    here, there = (with_preset(NetworkSettings(preset=preset)) for preset in ("fcn16s", "fcn8s"))
    with pytest.raises(ModelError, match=r"network\.finest_stride is 8 there and 16 here"):
        require_same_parts(here, there, source="runs/old")


def test_a_tensor_that_would_be_left_behind_is_told() -> None:
    trained, network = (built(preset=preset, upsampling="bilinear", **SMALL) for preset in ("fcn8s", "fcn16s"))
    with pytest.raises(ModelError, match=r"first at scores\.2\.weight: \(1, 8, 1, 1\) there, nothing here"):
        choose_carried(network, trained, same_labels=True, source="runs/old")


def test_a_network_that_has_no_memory_yet_can_be_asked() -> None:
    with torch.device("meta"):
        network = built(preset="fcn8s")
    carry = choose_carried(network, built(preset="fcn16s", width=1.0), same_labels=True, source="runs/old")
    assert carry.zeroed
    assert all(isinstance(part, nn.Module) for part in network.modules())
