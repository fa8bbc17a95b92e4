"""The loop: repeatable, honest about what it chose, and stopped by what cannot be learnt from."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import medfcn
from medfcn.config import override
from medfcn.errors import DatasetError, MedfcnError, TrainingError
from medfcn.networks.objective import Objective
from medfcn.networks.supervision import Outputs
from medfcn.settings import Settings
from medfcn.training.averaging import AveragedWeights
from tests.conftest import draw_ball, write_case


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model.safetensors")


def are_equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_budget_is_repeated_bit_for_bit_by_its_number_of_steps(balls: Path, tmp_path: Path) -> None:
    run = medfcn.train(balls, tmp_path / "budget", budget="7s", device="cpu", threads=1, seed=3)
    again = medfcn.train(balls, tmp_path / "steps", steps=run.schedule, device="cpu", threads=1, seed=3)
    assert run.steps >= 30
    assert again.steps == run.steps
    assert are_equal(weights(tmp_path / "budget"), weights(tmp_path / "steps"))
    other = medfcn.train(balls, tmp_path / "seed", steps=run.steps, device="cpu", threads=1, seed=4)
    assert not are_equal(weights(tmp_path / "steps"), weights(other.folder))


def test_epochs_are_epoch_steps_each(balls: Path, tmp_path: Path) -> None:
    settings = override(Settings(), "training", epoch_steps=4)
    run = medfcn.train(balls, tmp_path / "run", epochs=2, settings=settings, device="cpu", threads=1)
    assert run.steps == 8
    with (run.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    assert float(rows[-1]["cpu_seconds"]) > 0
    assert rows[-1]["validation_dice"]


def test_the_network_learns_the_balls(ball_run: Path) -> None:
    with (ball_run / "validation" / "scores.csv").open() as file:
        assert min(float(row["dice"]) for row in csv.DictReader(file)) > 0.85


def test_a_run_contains_no_path_and_names_test_cases_in_its_list_alone(ball_run: Path, balls: Path) -> None:
    for path in ball_run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(balls.parent).encode() not in content, path
            if path.name != "cases.csv":  # which lists the cases that were left out
                assert b"ball_6" not in content, path


def test_a_loss_that_is_not_finite_stops_at_its_step_and_names_the_cases(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = Objective.forward

    def broken(self: Objective, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return original(self, outputs, targets) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(Objective, "forward", broken)
    with pytest.raises(TrainingError, match=r"step 3: the loss is nan; its slices are of ball_\d"):
        medfcn.train(balls, tmp_path / "run", steps=6, device="cpu", threads=1)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_several_labels_are_trained_and_keep_their_values(tmp_path: Path) -> None:
    for number in range(4):
        image, mask = draw_ball(number)
        halves = np.where(np.arange(mask.shape[0])[:, None, None] < mask.shape[0] // 2, 3, 7) * mask
        write_case(tmp_path / "data", f"case_{number}", image, halves.astype(np.uint8))
    run = medfcn.train(tmp_path / "data", tmp_path / "run", labels="low=3,high=7", steps=40, device="cpu", threads=1)
    mask = run.load(device="cpu").predict(tmp_path / "data" / "images" / "case_0.nii.gz")
    assert set(np.unique(mask.array)) == {0, 3, 7}
    assert run.load(device="cpu").card.plan.mirror_axes == ()


def test_neighbouring_slices_are_seen(balls: Path, tmp_path: Path) -> None:
    run = medfcn.train(balls, tmp_path / "run", steps=3, context=3, device="cpu", threads=1)
    model = run.load(device="cpu")
    assert model.network.encoder.levels[0][0][0].weight.shape[1] == 3
    assert model.predict(balls / "images" / "ball_0.nii.gz").shape == (26, 22, 12)


def test_a_constant_image_is_refused(balls: Path, tmp_path: Path) -> None:
    for number in range(3):
        image, mask = draw_ball(number)
        write_case(tmp_path / "data", f"case_{number}", image if number else np.full_like(image, 7), mask)
    with pytest.raises(DatasetError, match=r"case_0: images/case_0\.nii\.gz: every voxel is 7"):
        medfcn.train(tmp_path / "data", tmp_path / "run", steps=2)


def test_an_interrupted_training_leaves_no_model_and_goes_on(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **choices: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("medfcn.training.finishing.write_scores", interrupted)
        with pytest.raises(KeyboardInterrupt):
            medfcn.train(balls, tmp_path / "run", steps=2, device="cpu", threads=1)
    with pytest.raises(MedfcnError, match=r"no model\.json"):
        medfcn.load(tmp_path / "run")
    medfcn.train(balls, tmp_path / "run", steps=2, device="cpu", threads=1, resume=True)
    medfcn.load(tmp_path / "run")
    assert not (tmp_path / "run" / "state").exists()


def test_a_training_interrupted_before_its_first_step_leaves_nothing(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **choices: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medfcn.training.training.write_cases", interrupted)
    with pytest.raises(KeyboardInterrupt):
        medfcn.train(balls, tmp_path / "run", steps=2, device="cpu", threads=1)
    assert not (tmp_path / "run").exists()  # nor the prepared slices, which are a patient's


def test_averaged_weights_follow_the_network_and_lag_behind() -> None:
    from medfcn.networks.design import Design
    from medfcn.networks.fcn import build_network
    from medfcn.settings import NetworkSettings

    network = build_network(Design.of(NetworkSettings(score_channels=2), widths=(2, 4), channels_in=1, label_count=1))
    averaged = AveragedWeights(network, decay=0.9)
    start = averaged.network.head.weight.clone()
    with torch.no_grad():
        network.head.weight.add_(1.0)
    averaged.update()
    after_one = (averaged.network.head.weight - start).mean().item()
    for _ in range(300):
        averaged.update()
    after_many = (averaged.network.head.weight - start).mean().item()
    assert 0 < after_one < 1.0
    assert after_many == pytest.approx(1.0, abs=1e-3)
    assert not averaged.network.training


def test_a_case_without_a_label_is_never_dropped_in_silence(balls: Path, tmp_path: Path) -> None:
    table = "id,image,label\n" + "".join(
        f"b{n},images/ball_{n}.nii.gz,{'' if n == 2 else f'labels/ball_{n}.nii.gz'}\n" for n in range(5)
    )
    for kind in ("images", "labels"):
        shutil.copytree(balls / kind, tmp_path / "data" / kind)
    (tmp_path / "data" / "cases.csv").write_text(table)
    with pytest.raises(MedfcnError, match="line 4"):
        medfcn.train(tmp_path / "data" / "cases.csv", tmp_path / "run", steps=2, device="cpu", threads=1)
