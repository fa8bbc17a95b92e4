"""Settings that change nothing say so, and those that do say nothing."""

from pathlib import Path
from typing import Any

import pytest

import medfcn
from medfcn.config import override
from medfcn.errors import SettingsError
from medfcn.progress import Silent
from medfcn.settings import Settings
from tests.conftest import draw_ball, write_case


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases of two labels."""
    folder = tmp_path_factory.mktemp("balls")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(3):
        image, mask = draw_ball(number)
        mask[:, :, :6] *= 2
        write_case(folder, f"ball_{number}", image, mask)
    return folder


IDLE: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "mirrors": ({"prediction": {"tta": True}, "augment": {"mirror": "never"}}, "prediction.tta"),
    "a threshold of classes": ({"prediction": {"threshold": 0.4}}, "prediction.threshold"),
    "tiles": ({"prediction": {"tile_overlap": 0.25}}, "prediction.tile_overlap"),
    "Dice in cross-entropy": ({"training": {"loss": "ce", "dice_weight": 2.0}}, "training.dice_weight"),
    "its extent": ({"training": {"loss": "focal", "dice_over": "slice"}}, "training.dice_over"),
    "turns of still slices": ({"augment": {"still_share": 1.0, "rotation_degrees": 5.0}}, "augment.rotation_degrees"),
    "VGG's layers": ({"network": {"classifier_channels": 64}}, "network.classifier_channels"),
    "statistics": (
        {"network": {"normalisation": "group"}, "training": {"freeze_statistics": True}},
        "training.freeze_statistics",
    ),
    "layers of a frozen encoder": (
        {"training": {"freeze_encoder": True, "layer_decay": 0.5}},
        "training.layer_decay",
    ),
}
BUSY: dict[str, dict[str, dict[str, Any]]] = {
    "nothing set": {},
    "mirrors": {"prediction": {"tta": True}, "augment": {"mirror": "always"}},
    "tiles": {"prediction": {"tile_overlap": 0.25}, "slices": {"window": (8, 8)}},
    "Dice": {"training": {"dice_weight": 2.0, "dice_over": "slice"}},
    "turns": {"augment": {"rotation_degrees": 5.0}},
    "statistics": {"slices": {"own_statistics": 0.5}},
    "a threshold": {"prediction": {"threshold": 0.4}, "network": {"head": "sigmoid"}},
}


def _planned(folder: Path, tables: dict[str, dict[str, Any]], **options: Any) -> Any:
    settings = Settings()
    for table, values in tables.items():
        settings = override(settings, table, **values)
    return medfcn.plan(folder, settings=settings, **options)


@pytest.mark.parametrize("name", list(IDLE))
def test_a_setting_that_changes_nothing_is_named(name: str, balls: Path) -> None:
    tables, field = IDLE[name]
    found = _planned(balls, tables)
    assert [line.split(" changes")[0] for line in found.idle] == [f"setting {field}"]
    assert found.idle[0] in " ".join(found.to_text().split())


@pytest.mark.parametrize("network", [{"normalisation": "group"}, {"monai": "BasicUNet"}], ids=str)
def test_a_share_of_statistics_that_a_network_does_not_keep_is_refused_at_planning(
    network: dict[str, Any], balls: Path
) -> None:
    with pytest.raises(SettingsError, match=r"^setting slices\.own_statistics: 0\.5, and the network has no batch"):
        _planned(balls, {"network": network, "slices": {"own_statistics": 0.5}})
    assert _planned(balls, {"network": network, "slices": {"own_statistics": "never"}}).idle == ()


@pytest.mark.parametrize("name", list(BUSY))
def test_a_setting_that_changes_something_is_not(name: str, balls: Path) -> None:
    labels = "ball=1+2" if name == "a threshold" else None
    assert _planned(balls, BUSY[name], labels=labels).idle == ()


def test_folds_decide_on_validation_cases(balls: Path, tmp_path: Path) -> None:
    said = Said()
    settings = override(override(Settings(), "training", validation_share=0.5), "network", width=1 / 16)
    medfcn.train(
        balls,
        tmp_path / "run",
        fold="1/3",
        settings=settings,
        steps=1,
        device="cpu",
        threads=1,
        report=False,
        progress=said,
    )
    assert sum("training.validation_share changes nothing: folds" in line for line in said.lines) == 1


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
