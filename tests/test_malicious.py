"""Model and settings files that mean harm: each is refused in one line, runs nothing and reaches nothing outside."""

import resource
import time
from pathlib import Path

import pytest

import medfcn
from medfcn.config import read_settings
from medfcn.errors import MedfcnError
from medfcn.inference.model import Model
from medfcn.inference.state_dict import read_state_dict
from medfcn.networks.design import MonaiDesign
from medfcn.networks.monai_nets import MonaiNetwork
from medfcn.networks.presets import with_preset
from medfcn.networks.pretrained import encoder_weights
from medfcn.runs.cases import TrainingImages
from medfcn.runs.models import models_of
from medfcn.settings import NetworkSettings
from tests.malicious import SECRET, Specimen, specimens, workshop

ALL = specimens()
MEGABYTES = 256


def accept(specimen: Specimen, path: Path) -> None:
    """Use a specimen as medfcn would."""
    if specimen.kind == "model":
        TrainingImages(models_of(path))
        medfcn.load(path, device="cpu")
    elif specimen.kind == "weights":
        encoder_weights(read_state_dict(path), with_preset(NetworkSettings(preset="fcn8s")), source=path.name)
    else:
        network = read_settings(path).network
        if network.monai:
            MonaiNetwork(MonaiDesign.of(network))


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("specimen", ALL, ids=lambda specimen: specimen.name)
def test_it_is_refused_in_one_line(specimen: Specimen, tmp_path: Path) -> None:
    path = specimen.make(workshop(tmp_path))
    before, peak = tree(tmp_path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(MedfcnError) as caught:
        accept(specimen, path)
    text = str(caught.value)
    assert text
    assert text.isprintable()
    assert len(text) <= 600
    assert SECRET not in text
    assert tree(tmp_path) == before, "something was written"
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEGABYTES << 10


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len({specimen.name for specimen in ALL}) == len(ALL) >= 120


def test_what_they_start_from_is_sound(tmp_path: Path) -> None:
    """So that nothing is refused for another reason than the harm in it."""
    shop = workshop(tmp_path)
    assert Model.load(shop.run(), device="cpu").card.labels.names == ("left", "right")
    assert medfcn.load(shop.one_file(shop.archive()), device="cpu").card.labels.names == ("left", "right")
