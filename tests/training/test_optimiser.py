"""Which weights are trained, and how fast."""

import copy
import subprocess
import sys

import pytest
import torch

from medfcn.networks.design import Design
from medfcn.networks.fcn import build_network
from medfcn.networks.presets import PRESETS, with_preset
from medfcn.networks.supervision import SupervisedFCN
from medfcn.settings import NetworkSettings, TrainingSettings
from medfcn.training.optimiser import _EagerAdamW, build_optimiser, largest_rate, set_training_mode


def _supervised(**parts: object) -> SupervisedFCN:
    torch.manual_seed(0)
    settings = NetworkSettings(**({"widths": (4, 6, 8), "score_channels": 5} | parts))  # type: ignore[arg-type]
    network = build_network(Design.of(settings, widths=settings.widths or (4, 6, 8), channels_in=1, label_count=1))
    return SupervisedFCN(network, label_count=1, deep=True, presence=True, distances=True)


def _step(supervised: SupervisedFCN, training: TrainingSettings) -> None:
    optimiser = build_optimiser(supervised, training)
    for group in optimiser.param_groups:
        group["lr"] = group["scale"] * 1e-2
    set_training_mode(supervised, training)
    outputs = supervised(torch.randn(4, 1, 24, 24, generator=torch.Generator().manual_seed(1)))
    assert outputs.presence is not None
    assert outputs.distances is not None
    sum(
        [*(part.square().mean() for part in outputs.logits), outputs.presence.sum(), outputs.distances.sum()]
    ).backward()
    optimiser.step()


def test_every_weight_is_trained_once() -> None:
    supervised = _supervised()
    for training in (TrainingSettings(), TrainingSettings(layer_decay=0.5)):
        trained = [part for group in build_optimiser(supervised, training).param_groups for part in group["params"]]
        assert sorted(map(id, trained)) == sorted(id(part) for part in supervised.parameters())


def test_a_head_that_is_joined_with_the_step_to_full_size_is_trained_faster() -> None:
    supervised = _supervised(stem_stride=2, restoring="joined")
    groups = build_optimiser(supervised, TrainingSettings()).param_groups
    scales = {id(part): group["scale"] for group in groups for part in group["params"]}
    assert sorted(scales) == sorted(id(part) for part in supervised.parameters())
    rates = {name: scales[id(part)] for name, part in supervised.named_parameters()}
    fast = {"network.restore.learned.weight", "network.restore.learned.bias"}
    assert {name for name, rate in rates.items() if rate > 1} == fast
    assert set(rates.values()) == {1.0, rates["network.restore.learned.bias"]}


def test_a_frozen_encoder_keeps_every_number_and_the_decoder_moves() -> None:
    supervised = _supervised()
    before = {name: tensor.clone() for name, tensor in supervised.state_dict().items()}
    _step(supervised, TrainingSettings(freeze_encoder=True))
    after = supervised.state_dict()
    for name, tensor in before.items():
        if name.startswith("network.encoder."):
            assert torch.equal(tensor, after[name]), name
    assert not torch.equal(before["network.head.weight"], after["network.head.weight"])


def test_frozen_statistics_stay_and_weights_move() -> None:
    supervised = _supervised()
    before = {name: tensor.clone() for name, tensor in supervised.state_dict().items()}
    _step(supervised, TrainingSettings(freeze_statistics=True))
    after = supervised.state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == ("running_" in name or "num_batches" in name), name


def test_each_encoder_level_moves_less_than_the_one_after_it() -> None:
    supervised = _supervised()
    scales = {
        id(part): group["scale"]
        for group in build_optimiser(supervised, TrainingSettings(layer_decay=0.5)).param_groups
        for part in group["params"]
    }
    levels = supervised.network.encoder.levels
    assert [{scales[id(part)] for part in level.parameters()} for level in levels] == [{0.125}, {0.25}, {0.5}]
    assert scales[id(supervised.network.head.weight)] == 1.0


@pytest.mark.parametrize(("width", "rate"), [(1.0, 5e-4), (0.5, 1e-3), (0.125, 4e-3), (0.0625, 4e-3)])
def test_wide_networks_without_normalisation_start_slower(width: float, rate: float) -> None:
    settings = with_preset(NetworkSettings(preset="fcn8s", width=width))
    with torch.device("meta"):
        network = build_network(
            Design.of(settings, widths=PRESETS["fcn8s"].widths or (), channels_in=1, label_count=1)
        )
    assert largest_rate(network, settings, TrainingSettings()) == pytest.approx(rate)
    assert largest_rate(network, settings, TrainingSettings(learning_rate=0.1)) == 0.1


def test_it_steps_as_torchs_own_does_and_loads_no_compiler() -> None:
    """The same functions without the wrappers, whose import costs more than that of torch."""
    steps = """
import sys, torch
from medfcn.training.optimiser import _EagerAdamW

def weights(kind):
    torch.manual_seed(0)
    network = torch.nn.Linear(5, 3)
    groups = [{"params": [network.weight], "weight_decay": 0.1}, {"params": [network.bias], "weight_decay": 0.0}]
    optimiser = kind(groups, lr=1e-2, fused=True)
    for slices in torch.randn(6, 4, 5):
        optimiser.zero_grad()
        network(slices).square().mean().backward()
        optimiser.step()
        optimiser.load_state_dict(optimiser.state_dict())
    return [*network.parameters()], optimiser.state_dict()

ours, state = weights(_EagerAdamW)
print("torch._dynamo" in sys.modules, "sympy" in sys.modules)
theirs, expected = weights(torch.optim.AdamW)
print(all(map(torch.equal, ours, theirs)), state["param_groups"] == expected["param_groups"])
"""
    done = subprocess.run([sys.executable, "-c", steps], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout == "False False\nTrue True\n"


def test_steps_are_those_of_torch_to_the_bit() -> None:
    """Kernels with channels last or not, weights that get a gradient late, and a state that is loaded again."""
    random = torch.Generator().manual_seed(0)
    last = torch.channels_last
    started = [
        torch.randn(16, 5, 3, 3, generator=random).contiguous(memory_format=last),
        torch.randn(7, 16, 5, 5, generator=random),
        torch.randn(16, 9, 1, 1, generator=random).contiguous(memory_format=last),
        torch.randn(19, 3, generator=random),
        torch.randn(33, generator=random),
        torch.randn(6, 6, 4, 4, generator=random).contiguous(memory_format=last),
    ]
    ours, theirs = ([torch.nn.Parameter(part.clone()) for part in started] for _ in range(2))
    groups = [[{"params": side[:4], "weight_decay": 0.1}, {"params": side[4:]}] for side in (ours, theirs)]
    optimiser = _EagerAdamW(groups[0], lr=1e-2, fused=True)
    reference = torch.optim.AdamW(groups[1], lr=1e-2, fused=True)
    for number in range(12):
        for place, pair in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(pair[0].shape, generator=random)
            # As kernels lie, or as torch gives them for kernels of one channel: in another order.
            laid = gradient if number % 2 else torch.empty_like(pair[0].data).copy_(gradient)
            for part in pair:
                part.grad = None if place == 5 and number < 3 else laid.clone()
        if number == 8:
            for group in (*optimiser.param_groups, *reference.param_groups):
                group["lr"] = 1e-3
        optimiser.step()
        reference.step()
        if number == 6:
            optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(optimiser.state[one][name], reference.state[other][name])
