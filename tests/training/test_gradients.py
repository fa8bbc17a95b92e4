"""When memory runs out, the same gradient comes in parts; when numbers run out of their range, nothing is learnt."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import medfcn
from medfcn.config import override, read_settings
from medfcn.errors import MemoryShortError, SettingsError, TrainingError, TrainingStoppedError
from medfcn.files import sha256_of
from medfcn.networks.design import Design
from medfcn.networks.fcn import build_network
from medfcn.networks.objective import Objective
from medfcn.networks.supervision import Outputs, SupervisedFCN
from medfcn.settings import NetworkSettings, Settings, TrainingSettings
from medfcn.training.gradients import Gradients
from medfcn.training.trainer import Trainer
from tests.training.test_resume import StopAfter, Told, last_state


def gradients_of(normalisation: Any, *, micro_batch: int, training: TrainingSettings, fits: int = 99) -> Gradients:
    """For a small network, on a device in whose memory so many slices fit."""
    network_settings = NetworkSettings(normalisation=normalisation, head="sigmoid")
    torch.manual_seed(0)
    network = build_network(Design.of(network_settings, widths=(4, 8), channels_in=1, label_count=1))
    supervised = SupervisedFCN(network, label_count=1, deep=True, presence=False, distances=False).train()
    objective = Objective.of(Settings(network=network_settings, training=training), 1)
    limit_memory(supervised, fits)
    return Gradients(supervised, objective, micro_batch=micro_batch, use_bfloat16=False, progress=Told())


def limit_memory(supervised: SupervisedFCN, fits: int) -> None:
    original = supervised.forward

    def forward(slices: torch.Tensor) -> Outputs:
        outputs = original(slices)
        if len(slices) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return outputs

    supervised.forward = forward  # type: ignore[method-assign]


def batch(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    images = torch.randn(count, 1, 16, 16, generator=random)
    return images, (images[:, 0] + torch.randn(count, 16, 16, generator=random) > 1).long()


def gradient(gradients: Gradients) -> torch.Tensor:
    parts = [
        parameter.grad.flatten() for parameter in gradients.supervised.parameters() if parameter.grad is not None
    ]
    return torch.cat(parts)


@pytest.mark.parametrize(
    "training",
    [TrainingSettings(loss="ce"), TrainingSettings(loss="ce_dice", dice_over="slice"), TrainingSettings(loss="mse")],
    ids=lambda training: training.loss,
)
@pytest.mark.parametrize("normalisation", ["none", "instance"])
def test_parts_add_up_to_the_gradient_of_the_batch(training: TrainingSettings, normalisation: str) -> None:
    whole = gradients_of(normalisation, micro_batch=12, training=training)
    loss = whole.set_gradients(*batch(), seed=3)
    parts = gradients_of(normalisation, micro_batch=12, training=training, fits=5)
    loss_of_parts = parts.set_gradients(*batch(), seed=3)
    assert parts.micro_batch == 3  # 12, then 6, then 3, which fits
    assert loss_of_parts == pytest.approx(float(loss), rel=1e-5)
    torch.testing.assert_close(gradient(parts), gradient(whole), rtol=1e-3, atol=1e-6)
    assert isinstance(parts.progress, Told)
    assert [line.split(";")[0] for line in parts.progress.lines] == [
        f"out of memory: going on with {count} slices at a time, whose gradients are added up" for count in (6, 3)
    ]


def test_an_attempt_that_failed_leaves_no_trace() -> None:
    failed = gradients_of("batch", micro_batch=12, training=TrainingSettings(), fits=3)
    failed.set_gradients(*batch(), seed=3)
    clean = gradients_of("batch", micro_batch=3, training=TrainingSettings())
    clean.set_gradients(*batch(), seed=3)
    assert torch.equal(gradient(failed), gradient(clean))
    for one, other in zip(failed.supervised.buffers(), clean.supervised.buffers(), strict=True):
        assert torch.equal(one, other)


def test_one_slice_that_does_not_fit_is_told_in_one_line() -> None:
    hopeless = gradients_of("batch", micro_batch=12, training=TrainingSettings(), fits=0)
    with pytest.raises(MemoryShortError, match="out of GPU memory: more is needed, with one slice at a time; set"):
        hopeless.set_gradients(*batch(), seed=3)


def test_a_training_that_runs_out_of_memory_goes_on_and_can_be_resumed(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SupervisedFCN.forward

    def forward(self: SupervisedFCN, slices: torch.Tensor) -> Outputs:
        if len(slices) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, slices)

    monkeypatch.setattr(SupervisedFCN, "forward", forward)
    settings = override(Settings(), "training", checkpoint_seconds=3600.0)
    common: dict[str, Any] = {"steps": 6, "settings": settings, "device": "cpu", "threads": 1}
    say = Told()
    run = medfcn.train(balls, tmp_path / "whole", progress=say, **common)
    assert sum("out of memory: going on with" in line for line in say.lines) == 2
    card = json.loads((run.folder / "model.json").read_text())["training"]
    assert (card["micro_batch"], card["micro_batch_from"]) == (8, 0)
    with pytest.raises(TrainingStoppedError):
        medfcn.train(balls, tmp_path / "stopped", stop=StopAfter(3), **common)
    assert last_state(tmp_path / "stopped").micro_batch == 8
    resumed = medfcn.train(balls, tmp_path / "stopped", resume=True, **common)
    assert sha256_of(resumed.folder / "model.safetensors") == sha256_of(run.folder / "model.safetensors")


def test_memory_that_runs_out_elsewhere_is_told_in_one_line(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **choices: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("medfcn.training.trainer.dices_of_cases", full)
    with pytest.raises(MemoryShortError, match=r"out of GPU memory: more is needed; set a smaller slices\.window"):
        medfcn.train(balls, tmp_path / "run", steps=2, device="cpu", threads=1)


def test_a_gradient_that_is_not_finite_stops_at_its_step_and_leaves_the_last_good_state(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Objective.forward
    calls = []

    def broken(self: Objective, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        loss = original(self, outputs, targets)
        # The square root of nothing: a finite number with an infinite slope.
        return loss + (outputs.logits[0].sum() * 0).abs().sqrt() if len(calls) == 5 else loss

    monkeypatch.setattr(Objective, "forward", broken)
    settings = override(Settings(), "training", checkpoint_seconds=0.0)
    common: dict[str, Any] = {"steps": 6, "settings": settings, "device": "cpu", "threads": 1}
    with pytest.raises(TrainingError, match=r"step 5: the gradient's norm is nan; its slices are of ball_\d"):
        medfcn.train(balls, tmp_path / "run", **common)
    state = last_state(tmp_path / "run")
    assert state.step == 4
    assert all(torch.isfinite(tensor).all() for tensor in (*state.supervised.values(), *state.averaged.values()))
    resumed = medfcn.train(balls, tmp_path / "run", resume=True, **common)  # it was the machine, not the data
    whole = medfcn.train(balls, tmp_path / "whole", **common)
    assert sha256_of(resumed.folder / "model.safetensors") == sha256_of(whole.folder / "model.safetensors")


def test_targets_beyond_the_labels_are_refused_with_the_case(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer.__init__

    def damage(self: Trainer, prepared: Any, *arguments: Any, **choices: Any) -> None:
        for path in (tmp_path / "run" / "state").glob("*.labels.npy"):
            array = np.load(path)
            array[array == 1] = 7
            with path.open("r+b") as file:
                np.save(file, array)
        original(self, prepared, *arguments, **choices)

    monkeypatch.setattr(Trainer, "__init__", damage)
    with pytest.raises(TrainingError, match=r"ball_\d: its prepared slices contain the target 7, beyond the 1 label"):
        medfcn.train(balls, tmp_path / "run", steps=2, device="cpu", threads=1)


def test_a_halved_batch_is_repeated_by_what_the_card_says(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = SupervisedFCN.forward, 0

    def forward(self: SupervisedFCN, slices: torch.Tensor) -> Outputs:
        nonlocal calls
        calls += self.training
        if self.training and calls > 2 and len(slices) > 16:  # memory runs out at the third step
            raise RuntimeError("could not create a primitive")
        return original(self, slices)

    monkeypatch.setattr(SupervisedFCN, "forward", forward)
    common: dict[str, Any] = {"steps": 5, "device": "cpu", "threads": 1}
    first = medfcn.train(balls, tmp_path / "first", **common)
    monkeypatch.setattr(SupervisedFCN, "forward", original)
    card = json.loads((first.folder / "model.json").read_text())["training"]
    assert (card["micro_batch"], card["micro_batch_from"]) == (16, 2)
    settings = override(Settings(), "training", micro_batch=16, micro_batch_from=2)
    again = medfcn.train(balls, tmp_path / "again", settings=settings, **common)
    other = medfcn.train(balls, tmp_path / "other", **common)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (first, again, other)]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_a_batch_that_was_halved_twice_is_repeated_and_resumed(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Gradients.set_gradients
    step = 0

    def set_gradients(self: Gradients, *arguments: Any, seed: int) -> torch.Tensor:
        nonlocal step
        step = seed & 0xFFFFFFFF
        return original(self, *arguments, seed=seed)

    def forward(self: SupervisedFCN, slices: torch.Tensor) -> Outputs:
        most = 16 if step < 4 else 8
        if self.training and step >= 2 and len(slices) > most:  # at the third step, and again at the fifth
            raise RuntimeError("could not create a primitive")
        return untouched(self, slices)

    untouched = SupervisedFCN.forward
    monkeypatch.setattr(Gradients, "set_gradients", set_gradients)
    monkeypatch.setattr(SupervisedFCN, "forward", forward)
    settings = override(Settings(), "training", checkpoint_seconds=3600.0)
    common: dict[str, Any] = {"steps": 7, "device": "cpu", "threads": 1}
    first = medfcn.train(balls, tmp_path / "first", settings=settings, **common)
    with pytest.raises(TrainingStoppedError):
        medfcn.train(balls, tmp_path / "stopped", stop=StopAfter(6), settings=settings, **common)
    monkeypatch.setattr(SupervisedFCN, "forward", untouched)
    resumed = medfcn.train(balls, tmp_path / "stopped", resume=True, settings=settings, **common)
    cards = [json.loads((run.folder / "model.json").read_text())["training"] for run in (first, resumed)]
    assert [(card["micro_batch"], card["micro_batch_from"]) for card in cards] == [([16, 8], [2, 4])] * 2
    named = tmp_path / "again.toml"
    named.write_text("[training]\nmicro_batch = [16, 8]\nmicro_batch_from = [2, 4]\n")
    again = medfcn.train(balls, tmp_path / "again", settings=read_settings(named), **common)
    # The last size alone, from its step on, is another training.
    last = override(Settings(), "training", micro_batch=8, micro_batch_from=4)
    other = medfcn.train(balls, tmp_path / "other", settings=last, **common)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (first, resumed, again, other)]
    assert weights[0] == weights[1] == weights[2]
    assert weights[0] != weights[3]


def test_sizes_of_parts_without_their_steps_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"training.micro_batch_from: 1 steps for 2 sizes"):
        TrainingSettings(micro_batch=(16, 8))
    with pytest.raises(SettingsError, match=r"training.micro_batch: \(16, -8\) is not a number from 0"):
        TrainingSettings(micro_batch=(16, -8), micro_batch_from=(2, 4))


def test_a_part_is_refused_before_torch_where_the_address_space_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.13.0 would end the process by a signal."""
    gradients = gradients_of("none", micro_batch=12, training=TrainingSettings())
    gradients.slice_bytes = 1 << 20
    monkeypatch.setattr("medfcn.training.gradients.has_limit", lambda: True)
    monkeypatch.setattr("medfcn.training.gradients.free_bytes", lambda: 1 << 40)  # before the step
    for file in ("memory", "memory_errors"):
        monkeypatch.setattr(f"medfcn.{file}.free_bytes", lambda: 40 << 20)
    gradients.set_gradients(*batch(), seed=3)
    assert gradients.micro_batch == 6  # 12 slices and the reserve take 44 MB
    gradients.slice_bytes = 1 << 30
    with pytest.raises(MemoryShortError, match="40 MB are free, with one slice at a time"):
        gradients.set_gradients(*batch(), seed=3)
