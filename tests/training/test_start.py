"""Trainings that start from a run or from an encoder's weights: what is kept, what is said, what is refused."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import medfcn
from medfcn.config import override
from medfcn.errors import MedfcnError, MemoryShortError, MissingFileError, ModelError, SettingsError
from medfcn.evaluation import read_scores
from medfcn.files import sha256_of, write_csv
from medfcn.inference.card import read_card
from medfcn.inference.model import Model
from medfcn.labels import LabelMap
from medfcn.networks.fcn import FCN
from medfcn.networks.presets import with_preset
from medfcn.progress import Silent
from medfcn.runs.cases import NOTHING_OF_NEW, TrainingImages
from medfcn.runs.models import models_of
from medfcn.settings import NetworkSettings, Settings
from medfcn.training.record import parts_of
from medfcn.training.start import Start, find_start
from medfcn.training.train import plan
from medfcn.volumes import Volume
from tests.conftest import draw_ball, write_case
from tests.inference.models import saved, tiny_model, tiny_plan
from tests.networks.torchvision_layout import ResNet, Vgg16, filled

NARROW = {"width": 1 / 32}
STILL = override(Settings(), "training", learning_rate=1e-12, ema_decay=0.0)
"""A training that changes nothing that can be seen."""


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on coronal slices of 1.2 × 1.5 mm, three at once; its label is `ball`."""
    model = tiny_model(labels="ball=1", views=("coronal",), spacing_mm=(1.2, None, 1.5), context=3, widths=(4, 6, 6))
    return saved(model, tmp_path_factory.mktemp("somewhere") / "old")


@pytest.fixture(scope="module")
def narrow_vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(filled(Vgg16(divisor=32)).state_dict(), path)
    return path


def network_of(start: Start, settings: Settings, labels: str = "ball=1", **planned: Any) -> tuple[FCN, list[str]]:
    """The network a training would start with on a plan made by hand, and what is said."""
    told = Told()
    settled = start.settle(settings, preset=None)
    context = settled.slices.context or (1 if start.plan is None else start.plan.context)
    how = tiny_plan(context=context, **planned)
    if settled.network.widths:
        how = dataclasses.replace(how, widths=settled.network.widths)
    network = start.network(settled, how, LabelMap.parse(labels), progress=told)
    return network, told.lines


@contextmanager
def refused(error: type[MedfcnError], match: str) -> Iterator[None]:
    with pytest.raises(error, match=match) as caught:
        yield
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def train(dataset: Path, run: Path, **choices: Any) -> dict[str, Any]:
    """A training of one step; returns its card."""
    medfcn.train(dataset, run, **({"steps": 1, "device": "cpu", "threads": 1, "labels": "ball=1"} | choices))
    card: dict[str, Any] = json.loads((run / "model.json").read_text())
    return card


def test_a_run_is_carried_on_as_it_is(old: Path, balls: Path, tmp_path: Path) -> None:
    card = train(balls, tmp_path / "new", init=old, settings=STILL)
    before = json.loads((old / "model.json").read_text())
    for name in ("views", "spacing_mm", "context", "widths"):
        assert card["plan"][name] == before["plan"][name]
        assert "as in the run it starts from" in card["plan"]["reasons"][name]
    network = Model.load(tmp_path / "new", device="cpu").card.settings.network
    assert network == with_preset(NetworkSettings(score_channels=5, stem_stride=1))
    assert card["plan"]["window"] != before["plan"]["window"]  # follows from the new volumes
    assert card["training"]["init"] == sha256_of(old / "model.safetensors")
    assert str(old.parent.name) not in (tmp_path / "new" / "model.json").read_text()
    first, second = (Model.load(run, device="cpu").network.state_dict() for run in (old, tmp_path / "new"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        if tensor.is_floating_point() and "running" not in name:
            assert torch.allclose(tensor, second[name], atol=1e-6), name


def test_fine_tuning_changes_the_copy_and_not_the_run(old: Path, balls: Path, tmp_path: Path) -> None:
    before = sha256_of(old / "model.safetensors")
    train(balls, tmp_path / "new", init=old, steps=3)
    assert sha256_of(old / "model.safetensors") == before
    assert sha256_of(tmp_path / "new" / "model.safetensors") != before


def test_cases_that_the_initial_weights_have_seen_are_named_wherever_they_are_scored(
    old: Path, balls: Path, tmp_path: Path
) -> None:
    source, images = tmp_path / "source", sorted((balls / "images").iterdir())
    shutil.copytree(old, source)
    rows = [(f"was_{path.name}", "training", sha256_of(path)) for path in images]
    write_csv(source / "cases.csv", ("case", "use", "sha256_image"), rows)
    told = Told()
    choices: dict[str, Any] = {"steps": 1, "device": "cpu", "threads": 1, "labels": "ball=1", "report": False}
    run = medfcn.train(balls, tmp_path / "folds", init=source, folds=2, progress=told, **choices).folder
    each = [read_scores(run / f"fold_{number}" / "validation") for number in (1, 2)]
    for table in each:
        (note,) = (note for note in table.notes if "from whose weights" in note)
        count = len(table.cases)
        assert note.startswith(f"{count} of {count} validation cases are of the training cases of source, from whose")
        assert "their scores say nothing of new ones: " in note
        assert any(note in line for line in told.lines)
    together = [note for note in read_scores(run / "validation").notes if "from whose weights" in note]
    assert [note.split(": ")[0] for note in together] == ["fold_1", "fold_2"]
    # What starts from these weights in turn, and a file of them, have seen the same images.
    medfcn.export(run / "fold_1", tmp_path / "fold_1.medfcn")
    for seen in (run / "fold_1", tmp_path / "fold_1.medfcn"):
        known = TrainingImages(models_of(seen), [len(images) - len(each[0].cases)])
        assert all(known.contain([sha256_of(path)]) for path in images)
        assert not known.doubts
    assert parts_of(run / "fold_1")[1] == tuple(sorted(each[0].cases))  # rows without a case are no cases
    (run / "fold_1" / "cases.csv").unlink()
    assert TrainingImages(models_of(run / "fold_1"), [1]).doubts == ()
    assert not Start().seen({"a": ["1"]}, {"a": ["2"]})
    for fold, table in zip((1, 2), each, strict=True):  # told by `describe` and by exports
        text = read_card(run / f"fold_{fold}" / "model.json").start_text
        assert text.endswith(
            f", trained also on {len(table.cases)} of the validation volumes, whose {NOTHING_OF_NEW}"
        )


def test_images_that_were_saved_anew_are_still_those_of_the_training(balls: Path, tmp_path: Path) -> None:
    """Other bytes, another type, another order of the axes, another name: by their voxels they are known."""
    train(balls, tmp_path / "run", report=False)
    training, validation = parts_of(tmp_path / "run")
    anew = tmp_path / "anew"
    for number, case in enumerate((*training, *validation)):
        volume, mask = (medfcn.read_volume(balls / kind / f"{case}.nii.gz") for kind in ("images", "labels"))
        turned = np.diag([-1.0, 1, 1, 1])
        turned[0, 3] = volume.shape[0] - 1
        for kind, stored in (("images", volume), ("labels", mask)):
            array = stored.array[::-1].astype(np.float64) if kind == "images" else stored.array[::-1]
            (anew / kind).mkdir(parents=True, exist_ok=True)
            Volume(array, stored.affine @ turned).save(anew / kind / f"new_{number}.nii")
    medfcn.export(tmp_path / "run", tmp_path / "run.medfcn")
    expected = tuple(f"new_{number}" for number in range(len(training)))
    for model in ("run", "run.medfcn"):
        masks = tmp_path / f"masks_{model}"
        assert medfcn.predict(tmp_path / model, anew / "images", masks, device="cpu").training_cases == expected
        kept = medfcn.predict(tmp_path / model, anew / "images", masks, device="cpu", resume=True)
        assert (kept.predicted, kept.training_cases) == ((), expected)
        said = (
            f"{len(training)} of {len(training) + len(validation)} predictions are of training cases of the model; "
        )
        assert any(note.startswith(said) for note in medfcn.evaluate(masks, anew / "labels").notes)
    # A run that starts from these weights says which of its validation cases they have seen, and hands that on.
    train(anew, tmp_path / "next", init=tmp_path / "run", report=False)
    seen = [case for case in parts_of(tmp_path / "next")[1] if case in expected]
    notes = read_scores(tmp_path / "next" / "validation").notes
    assert seen
    assert any("from whose weights" in note and ", ".join(seen) in note for note in notes)
    both = medfcn.predict(tmp_path / "next", balls / "images", tmp_path / "both", device="cpu").training_cases
    assert set(training) <= set(both)


def test_the_steps_behind_the_weights_are_counted_over_all_runs(tmp_path: Path) -> None:
    def record(name: str, **training: object) -> dict[str, object]:
        model = tiny_model(labels="ball=1")
        model.card = dataclasses.replace(model.card, training=training)
        return {**find_start(saved(model, tmp_path / name), None).record, "init": ""}

    assert record("first", steps=80) == {"init": "", "init_steps": 80}
    assert record("second", steps=30, init="5f", init_steps=80) == {"init": "", "init_steps": 110}
    # A run of an earlier version says what it started from, and not how many steps are behind that.
    assert record("earlier", steps=30, init="5f") == record("unknown") == {"init": ""}


def test_a_training_from_random_numbers_records_no_start(balls: Path, tmp_path: Path) -> None:
    assert not {"init", "init_steps", "encoder_weights"} & train(balls, tmp_path / "run")["training"].keys()


def test_the_same_labels_are_taken_and_other_ones_start_at_random(old: Path) -> None:
    trained = Model.load(old, device="cpu").network
    given = {"context": 3, "widths": (4, 6, 6)}
    same, said = network_of(find_start(old, None), Settings(), widths=given["widths"])
    assert torch.equal(same.head.weight, trained.head.weight)
    assert said == [f"starts from old: {len(trained.state_dict())} of {len(trained.state_dict())} tensors"]
    for labels in ("lesion=1", "ball=1,lesion=2"):
        other, said = network_of(find_start(old, None), Settings(), labels, widths=given["widths"])
        assert not torch.equal(other.head.weight[:1], trained.head.weight)
        assert torch.equal(other.scores[0].weight, trained.scores[0].weight)
        names = labels.replace("=1", "").replace("=2", "").replace(",", ", ")
        assert said[0].endswith(
            f"the layers of the labels start at random, because the run has ball and this one {names}"
        )


def test_the_same_labels_with_another_head_start_at_random(old: Path) -> None:
    settings = override(Settings(), "network", head="softmax")
    network, said = network_of(find_start(old, None), settings, widths=(4, 6, 6))
    assert network.channels_out == 2
    assert "start at random" in said[0]


@pytest.mark.parametrize(
    ("run", "given", "preset", "expected"),
    [
        ({"preset": "fcn32s", **NARROW}, {}, None, {"preset": "fcn32s", **NARROW}),
        ({"preset": "fcn16s"}, {"finest_stride": 8}, None, {"preset": "fcn16s", "finest_stride": 8}),
        ({"preset": "fcn32s", "dropout": 0.1, **NARROW}, {}, "fcn16s", {"preset": "fcn16s", **NARROW}),
        ({"preset": "fcn32s", **NARROW}, {"width": 0.5}, "fcn16s", {"preset": "fcn16s", "width": 0.5}),
        ({"preset": "fcn16s", **NARROW}, {"preset": "fcn8s"}, None, {"preset": "fcn8s", **NARROW}),
        ({"head": "softmax"}, {}, "auto", {"head": "softmax"}),
        ({"score_channels": 5, "dropout": 0.2}, {"dropout": 0.1}, None, {"score_channels": 5, "dropout": 0.1}),
    ],
    ids=range(7),
)  # fmt: skip
def test_the_network_is_the_runs_where_it_is_not_set(
    run: dict[str, Any], given: dict[str, Any], preset: str | None, expected: dict[str, Any]
) -> None:
    model = tiny_model()
    there = with_preset(NetworkSettings(**run))
    model.card = dataclasses.replace(model.card, settings=dataclasses.replace(model.card.settings, network=there))
    settings = dataclasses.replace(Settings(), network=NetworkSettings(**given))
    if preset is not None:
        settings = override(settings, "network", preset=preset)
    settled = Start("old", run=model).settle(settings, preset=preset)
    assert settled.network == with_preset(NetworkSettings(**expected))


def test_the_context_is_the_runs_where_it_is_not_set(old: Path, balls: Path) -> None:
    for wanted, context in ((None, 3), (3, 3)):
        assert plan(balls, labels="ball=1", init=old, context=wanted).plan.context == context
    with refused(
        ModelError, r"old: .* first at encoder\.levels\.0\.0\.0\.weight: \(4, 3, 3, 3\) there, \(4, 1, 3, 3\)"
    ):
        plan(balls, labels="ball=1", init=old, context=1)


def test_a_plan_can_be_asked_for(old: Path, balls: Path) -> None:
    text = " ".join(plan(balls, labels="ball=1", init=old).to_text().split())
    assert "coronal" in text
    assert text.count("as in the run it starts from") == 6  # view, spacing, context, stem, widths, intensities


def test_a_run_that_does_not_fit_leaves_an_older_one_as_it_is(old: Path, balls: Path, tmp_path: Path) -> None:
    """Before anything is prepared or overwritten."""
    write_case(tmp_path / "data", "case", *draw_ball(1))
    older = saved(tiny_model(), tmp_path / "older")
    content = {path: path.read_bytes() for path in older.iterdir()}
    for choices, match in (
        ({"preset": "fcn8s"}, "old: network.encoder is 'strided' there and 'vgg16' here"),
        ({"settings": override(Settings(), "network", widths=(4, 6, 7))}, r"first at encoder\.levels\.2"),
    ):
        with refused(ModelError, match):
            train(balls, older, init=old, overwrite=True, **choices)
        assert {path: path.read_bytes() for path in older.iterdir()} == content


def test_a_run_is_not_replaced_by_what_starts_from_it(old: Path, balls: Path) -> None:
    with refused(SettingsError, "is the run to start from, and would be replaced; choose another output"):
        train(balls, old.parent / "." / "old", init=old, overwrite=True)
    Model.load(old, device="cpu")


def test_two_starts_are_one_too_many(old: Path, narrow_vgg16: Path, balls: Path, tmp_path: Path) -> None:
    with refused(SettingsError, "init and encoder_weights are given together; give one of them"):
        train(balls, tmp_path / "run", init=old, encoder_weights=narrow_vgg16)


def test_a_start_that_is_not_there_is_told(balls: Path, tmp_path: Path) -> None:
    with refused(MissingFileError, r"no model\.json in it"):
        train(balls, tmp_path / "run", init=tmp_path)
    with refused(MissingFileError, "weights file not found"):
        train(balls, tmp_path / "run", encoder_weights=tmp_path / "nowhere.pth")
    assert not (tmp_path / "run").exists()


def test_an_encoder_starts_from_a_file(narrow_vgg16: Path, balls: Path, tmp_path: Path) -> None:
    settings = override(STILL, "network", preset="fcn16s", **NARROW)
    card = train(balls, tmp_path / "run", encoder_weights=narrow_vgg16, settings=settings)
    assert card["training"]["encoder_weights"] == sha256_of(narrow_vgg16)
    assert "vgg16.pth" not in json.dumps(card)
    kernel = Model.load(tmp_path / "run", device="cpu").network.encoder.levels[0][0][0].weight
    state = torch.load(narrow_vgg16, weights_only=True)
    assert torch.allclose(kernel, state["features.0.weight"].sum(dim=1, keepdim=True), atol=1e-6)
    network, said = network_of(find_start(None, narrow_vgg16), settings)
    assert torch.equal(network.encoder.levels[5][1][0].weight.flatten(1), state["classifier.0.weight"])
    assert said == ["the encoder starts from vgg16.pth, the other layers at random"]


def test_several_slices_and_channels_share_the_first_kernel(narrow_vgg16: Path, balls: Path, tmp_path: Path) -> None:
    settings = override(STILL, "network", preset="fcn32s", **NARROW)
    train(balls, tmp_path / "run", encoder_weights=narrow_vgg16, settings=settings, context=3)
    kernel = Model.load(tmp_path / "run", device="cpu").network.encoder.levels[0][0][0].weight
    state = torch.load(narrow_vgg16, weights_only=True)
    assert kernel.shape[1] == 3
    assert torch.allclose(kernel.sum(dim=1), state["features.0.weight"].sum(dim=1), atol=1e-6)
    assert np.allclose(kernel[:, 0].detach(), kernel[:, 2].detach())


def test_a_file_of_another_network_is_told_before_the_cases_are_read(
    narrow_vgg16: Path, balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def survey(*arguments: object, **choices: object) -> None:
        raise AssertionError("the cases were read")

    monkeypatch.setattr("medfcn.training.train.survey", survey)
    with refused(
        ModelError, r"vgg16\.pth: contains VGG-16 .*, the preset auto has the encoder strided; take one of the"
    ):
        train(balls, tmp_path / "run", encoder_weights=narrow_vgg16)
    with refused(
        ModelError, r"vgg16\.pth: features.0.weight has the shape \(2, 3, 3, 3\), the encoder takes \(64, 3,"
    ):
        train(balls, tmp_path / "run", encoder_weights=narrow_vgg16, preset="fcn8s")
    resnet = tmp_path / "resnet.pth"
    torch.save(filled(ResNet(18, divisor=8)).state_dict(), resnet)
    with refused(ModelError, r"resnet\.pth: contains ResNet-18, .* take one of the presets resnet18_8s"):
        train(balls, tmp_path / "run", encoder_weights=resnet, preset="fcn8s")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("labels", ["ball=1", "ball=1,edge=2"])
def test_stages_carry_the_coarser_weights_on(balls: Path, tmp_path: Path, labels: str) -> None:
    """Trained for a few steps each; the next starts with what was trained, its new skip silent."""
    for number in range(8):
        image, mask = draw_ball(number)
        edge = np.where((mask > 0) & (image < 170), 2, mask).astype(np.uint8)
        write_case(tmp_path / "data", f"ball_{number}", image, edge)
    settings = override(Settings(), "network", preset="fcn32s", **NARROW)
    train(tmp_path / "data", tmp_path / "fcn32s", labels=labels, settings=settings, steps=2)
    for before, after in (("fcn32s", "fcn16s"), ("fcn16s", "fcn8s")):
        told = Told()
        start = find_start(tmp_path / before, None)
        settled = start.settle(override(Settings(), "network", preset=after), preset=after)
        trained = Model.load(tmp_path / before, device="cpu")
        network = start.network(settled, trained.card.plan, trained.card.labels, progress=told)
        step = len(network.fusions)
        assert not network.scores[step].weight.any()
        assert torch.equal(network.scores[0].weight, trained.network.scores[0].weight)
        assert told.lines[0].endswith(
            "the new skips' scores start at zero; new upsampling starts as linear interpolation"
        )
        card = train(
            tmp_path / "data", tmp_path / after, labels=labels, preset=after, init=tmp_path / before, steps=2
        )
        assert card["settings"]["network"]["width"] == NARROW["width"]
        assert card["training"]["init"] == trained.card.weights_sha256
        assert Model.load(tmp_path / after, device="cpu").network.scores[step].weight.any()  # it learns


@pytest.mark.parametrize("folds", [None, 2])
def test_a_network_larger_than_the_memory_is_refused_before_anything_is_prepared(
    folds: int | None, balls: Path, tmp_path: Path
) -> None:
    huge = override(Settings(), "network", widths=(4096,) * 8, width=16.0)
    with pytest.raises(MemoryShortError, match=r"weights of the network \(network.width.*MB are free"):
        medfcn.train(balls, tmp_path / "run", settings=huge, steps=1, folds=folds, progress=Silent())
    assert not list(tmp_path.rglob("*.npy"))
    assert not (tmp_path / "run" / "model.json").exists()


def test_a_large_network_can_be_planned_where_there_is_no_room_for_it(balls: Path) -> None:
    huge = override(Settings(), "network", widths=(4096,) * 3, width=16.0)
    assert plan(balls, settings=huge).plan.widths == (4096,) * 3
