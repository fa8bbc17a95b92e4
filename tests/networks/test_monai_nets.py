"""Networks of MONAI by name: built at the plan's window, tried before any work, trained, applied and carried on."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks import nets

import medfcn
from medfcn.config import read_settings, settings_from, to_tables
from medfcn.errors import ModelError, SettingsError, TrainingStoppedError
from medfcn.networks.design import MonaiDesign
from medfcn.networks.fcn import build_network, coarsest_stride
from medfcn.networks.monai_nets import TESTED, MonaiNetwork, require_window, window_multiple
from medfcn.networks.presets import with_preset
from medfcn.settings import NetworkSettings, Settings, TrainingSettings
from tests.training.test_resume import StopAfter

SMALL: dict[str, dict[str, Any]] = {
    "BasicUNet": {"features": [4, 4, 8, 8, 8, 4]},
    "UNet": {"channels": [4, 8, 8], "strides": [2, 2], "num_res_units": 1},
    "SegResNet": {"init_filters": 8},
    "AttentionUnet": {"channels": [4, 8, 8], "strides": [2, 2]},
    "DynUNet": {
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 8, 8],
    },
    "HighResNet": {"norm_type": "instance"},
}
FIVE = ("BasicUNet", "UNet", "SegResNet", "AttentionUnet", "DynUNet")


def network_of(name: str, **more: Any) -> NetworkSettings:
    return NetworkSettings(monai=name, monai_arguments=SMALL[name] | more)


def settings_of(name: str) -> Settings:
    training = TrainingSettings(batch_size=4, warmup_steps=2)
    return Settings(network=network_of(name), training=training)


def test_every_tested_network_is_one_of_monai() -> None:
    assert set(SMALL) == set(TESTED)
    assert set(FIVE) <= set(TESTED)
    assert all(hasattr(nets, name) for name in TESTED)


@pytest.mark.parametrize("name", TESTED)
def test_slices_of_the_window_become_logits(name: str) -> None:
    settings = network_of(name)
    multiple = window_multiple(settings)
    assert coarsest_stride(settings) == multiple
    window = (2 * multiple, 3 * multiple)
    for label_count, channels in ((1, 1), (2, 3)):
        design = MonaiDesign.of(settings, channels_in=3, label_count=label_count)
        network = build_network(design)
        assert isinstance(network, MonaiNetwork)
        logits = network(torch.zeros(2, 3, *window))
        assert logits.shape == (2, channels, *window)
        assert logits.dtype == torch.float32
    require_window(design, window)


@pytest.fixture(scope="module", params=FIVE)
def run(request: pytest.FixtureRequest, balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    settings = settings_of(request.param)
    medfcn.train(balls, folder, labels="ball=1", settings=settings, steps=3, device="cpu", threads=1)
    return folder


def test_a_run_is_loaded_and_predicts_on_the_files_grid(run: Path, balls: Path, tmp_path: Path) -> None:
    model = medfcn.load(run, device="cpu")
    image = medfcn.read_volume(balls / "images" / "ball_7.nii.gz")
    mask = model.predict(image)
    assert mask.shape == image.shape
    assert np.array_equal(mask.affine, image.affine)
    medfcn.predict(run, balls / "images", tmp_path / "masks", cases=["ball_7"], device="cpu")
    assert np.array_equal(medfcn.read_volume(tmp_path / "masks" / "ball_7.nii.gz").array, mask.array)
    card = json.loads((run / "model.json").read_text())
    assert card["settings"]["network"]["monai"] in FIVE
    assert card["plan"]["widths"] == []
    assert "monai" in card["versions"]


def test_a_run_starts_another(run: Path, balls: Path, tmp_path: Path) -> None:
    started = medfcn.train(balls, tmp_path / "more", labels="ball=1", init=run, steps=1, device="cpu", threads=1)
    before, after = (json.loads((folder / "model.json").read_text()) for folder in (run, started.folder))
    assert after["settings"]["network"] == before["settings"]["network"]
    assert after["training"]["init"] == before["weights_sha256"]
    two = medfcn.train(balls, tmp_path / "two", labels="a=1,b=2", init=run, steps=1, device="cpu", threads=1)
    assert len(two.load(device="cpu").card.labels.names) == 2


def test_a_stopped_training_ends_as_it_would_have(balls: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"labels": "ball=1", "settings": settings_of("UNet"), "steps": 4, "device": "cpu"}
    whole = medfcn.train(balls, tmp_path / "whole", threads=1, **options)
    with pytest.raises(TrainingStoppedError):
        medfcn.train(balls, tmp_path / "stopped", threads=1, stop=StopAfter(2), **options)
    ended = medfcn.train(balls, tmp_path / "stopped", threads=1, resume=True, **options)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (whole, ended)]
    assert weights[0] == weights[1]


def test_a_window_that_a_network_does_not_take_is_refused_with_one_that_it_takes(balls: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        settings_of("SegResNet"), slices=dataclasses.replace(Settings().slices, window=(30, 30))
    )
    with pytest.raises(SettingsError, match=r"windows of 30×30 pixels.*set slices.window = \[32, 32\]") as caught:
        medfcn.train(balls, tmp_path / "run", labels="ball=1", settings=settings, steps=1, device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "model.json").exists()


def test_a_network_that_gives_something_else_is_refused() -> None:
    design = MonaiDesign.of(NetworkSettings(monai="BasicUNetPlusPlus"), channels_in=1)
    with pytest.raises(SettingsError, match=r"it gives a list, not a tensor.*takes no other window"):
        require_window(design, (32, 32))


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("BasicUNett", {}, "did you mean 'BasicUNet'"),
        ("os", {}, "no network of monai.networks.nets"),
        ("Discriminator", {}, "no network of monai.networks.nets"),
        ("__name__", {}, "no network of monai.networks.nets"),
        ("BasicUNet", {"feature": [1]}, "did you mean 'features'"),
        ("BasicUNet", {"features": [1]}, "BasicUNet cannot be built"),
        ("UNet", {}, "UNet cannot be built"),
        ("BasicUNet", {"out_channels": 4}, "out_channels follows from the data set"),
        ("FlexibleUNet", {"backbone": "efficientnet-b0", "pretrained": True}, "would fetch weights"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        build_network(MonaiDesign.of(NetworkSettings(monai=name, monai_arguments=arguments)))
    assert "\n" not in str(caught.value)


def test_pretrained_weights_may_be_declined() -> None:
    settings = NetworkSettings(
        monai="FlexibleUNet", monai_arguments={"backbone": "efficientnet-b0", "pretrained": False}
    )
    with torch.device("meta"):
        assert isinstance(build_network(MonaiDesign.of(settings)), MonaiNetwork)


@pytest.mark.parametrize("value", [{"a": {"b": {"c": {"d": {"e": 1}}}}}, {"num_res_units": 10**9}, {"a": [1] * 65}])
def test_arguments_out_of_bounds_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"network\.monai_arguments"):
        NetworkSettings(monai="UNet", monai_arguments=value)


@pytest.mark.parametrize(
    "parts", [{"preset": "fcn8s"}, {"encoder": "vgg16"}, {"width": 0.5}, {"dropout": 0.1}, {"widths": (4, 8)}]
)
def test_parts_of_an_fcn_beside_a_network_of_monai_are_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"network.{next(iter(parts))}: .* leave one of them out"):
        with_preset(NetworkSettings(monai="BasicUNet", **parts))


def test_arguments_without_a_network_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"without network\.monai"):
        with_preset(NetworkSettings(monai_arguments={"features": [1]}))


@pytest.mark.parametrize(
    "training",
    [
        {"deep_supervision": True},
        {"presence_weight": 0.1},
        {"distance_weight": 0.1},
        {"freeze_encoder": True},
        {"layer_decay": 0.9},
    ],
)
def test_settings_for_the_parts_of_an_fcn_are_refused_before_any_work(
    training: dict[str, Any], balls: Path, tmp_path: Path
) -> None:
    settings = Settings(network=network_of("BasicUNet"), training=TrainingSettings(**training))
    with pytest.raises(SettingsError, match=f"training.{next(iter(training))}"):
        medfcn.train(balls, tmp_path / "run", labels="ball=1", settings=settings, steps=1, device="cpu")


def test_settings_without_one_are_written_as_before_and_with_one_return() -> None:
    assert "monai" not in to_tables(Settings())["network"]
    settings = settings_of("DynUNet")
    assert settings_from(json.loads(json.dumps(to_tables(settings))), source="model.json") == settings


def test_a_toml_table_names_a_network(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[network]\nmonai = "BasicUNet"\n[network.monai_arguments]\nfeatures = [4, 4, 8, 8, 8, 4]\n')
    assert read_settings(path).network == network_of("BasicUNet")


def test_weights_of_another_kind_of_network_are_refused(ball_run: Path, balls: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"labels": "ball=1", "steps": 1, "device": "cpu", "threads": 1}
    with pytest.raises(ModelError, match=r"network\.monai is None there and 'UNet' here"):
        medfcn.train(balls, tmp_path / "run", init=ball_run, settings=settings_of("UNet"), **options)


def test_a_card_that_asks_for_a_network_out_of_the_list_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    card = json.loads((copy / "model.json").read_text())
    for name, arguments in (("os", {}), ("BasicUNet", {"features": "rm -rf"}), ("Transchex", {})):
        card["settings"]["network"] |= {"monai": name, "monai_arguments": arguments}
        (copy / "model.json").write_text(json.dumps(card))
        with pytest.raises(ModelError) as caught:
            medfcn.load(copy, device="cpu")
        assert "\n" not in str(caught.value)


def test_widths_are_those_of_an_fcn_and_of_nothing_else(run: Path, ball_run: Path, tmp_path: Path) -> None:
    for source, widths in ((ball_run, []), (run, [4, 8])):
        copy = tmp_path / f"{len(widths)}"
        shutil.copytree(source, copy)
        card = json.loads((copy / "model.json").read_text())
        card["plan"]["widths"] = widths
        (copy / "model.json").write_text(json.dumps(card))
        with pytest.raises(ModelError, match=r"plan\.widths"):
            medfcn.load(copy, device="cpu")
