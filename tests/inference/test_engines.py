"""Engines and precision: chosen once for an output, and the same masks but for the last digits of a probability."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import medfcn
from medfcn.errors import (
    MedfcnError,
    MemoryShortError,
    MissingFileError,
    ModelError,
    OutputExistsError,
    SettingsError,
)
from medfcn.inference import engines, self_test
from medfcn.inference.ensemble import load, load_models
from medfcn.inference.self_test import dice_of, settle
from medfcn.progress import Silent
from medfcn.runs.arithmetic import Arithmetic, StatedArithmetic, Wanted
from medfcn.runs.folder import ENGINE_FILE
from medfcn.slices.plan import Intensity
from medfcn.verbs import predict
from medfcn.volumes import Volume, read_volume
from tests.inference.batches import content
from tests.inference.models import blobs, saved, tiny_model, write_image

LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network has batch normalisation that does something, and images in several sizes."""
    folder = tmp_path_factory.mktemp("engines")
    model = tiny_model(labels="left=1,right=7", context=3)
    random = torch.Generator().manual_seed(3)
    for module in model.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=random) + 0.5)
    saved(model, folder / "run")
    for number, shape in enumerate([(20, 17, 6), (12, 12, 4), (9, 31, 5)]):
        write_image(folder / "images" / f"case_{number}.nii.gz", blobs(shape, seed=number))
    return folder


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def predicted(place: Path, output: Path, **choices: Any) -> dict[str, Any]:
    """Predict all images; gives the record of the first."""
    predict(place / "run", place / "images", output, device="cpu", **({"jobs": 1} | choices))
    return dict(json.loads((output / "case_0.json").read_text()))


@pytest.mark.parametrize("engine", LIBRARIES)
def test_another_engine_makes_the_masks_of_torch(engine: str, place: Path, tmp_path: Path) -> None:
    pytest.importorskip(LIBRARIES[engine])
    record = predicted(place, tmp_path / "masks", engine=engine)
    predicted(place, tmp_path / "torch")
    assert (record["engine"], record["precision"], "folded" in record) == (engine, "float32", False)
    assert StatedArithmetic(tmp_path / "masks").read() == Arithmetic(engine)
    for number in range(3):
        ours, theirs = (read_volume(tmp_path / name / f"case_{number}.nii.gz").array for name in ("torch", "masks"))
        assert ours.any()
        assert dice_of(ours, theirs) >= 0.999


def test_masks_with_folding_off_are_those_of_the_plain_network(place: Path, tmp_path: Path) -> None:
    record = predicted(place, tmp_path / "off", fold_norm=False)
    model = load_models(place / "run", device="cpu")
    assert "folded" not in record
    for number in range(3):
        image = place / "images" / f"case_{number}.nii.gz"
        ours = read_volume(tmp_path / "off" / f"case_{number}.nii.gz").array
        assert np.array_equal(ours, model.predict(image).array)
    assert predicted(place, tmp_path / "on")["folded"] is True
    assert load(place / "run", device="cpu").models[0].runner is not model.models[0].network


def test_an_output_keeps_its_engine(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    output, said = tmp_path / "masks", Said()
    predicted(place, output, engine="onnx")
    whole = content(output)
    (output / "case_1.json").unlink()
    record = predicted(place, output, resume=True, progress=said)
    assert (record["engine"], content(output)) == ("onnx", whole)
    assert any("goes on with onnx in float32" in line for line in said.lines)
    for choice in ({"engine": "torch"}, {"precision": "bfloat16"}):
        with pytest.raises(OutputExistsError, match=r"is of onnx in float32, and .* is requested") as caught:
            predicted(place, output, resume=True, **choice)
        assert caught.value.code == "ENGINE_DIFFERS"
    assert content(output) == whole
    assert predicted(place, output, overwrite=True)["engine"] == "torch"


def test_workers_and_shards_have_the_engine_of_the_output(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    predicted(place, tmp_path / "one", engine="onnx")
    predicted(place, tmp_path / "two", engine="onnx", jobs=2)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    run, images, output = place / "run", place / "images", tmp_path / "shards"
    predict(run, images, output, device="cpu", shard="1/2", engine="onnx")
    with pytest.raises(OutputExistsError, match="is of onnx in float32, and engine torch is requested"):
        predict(run, images, output, device="cpu", shard="2/2", engine="torch")
    predict(run, images, output, device="cpu", shard="2/2")
    assert content(output, without="parts") == content(tmp_path / "one")


def test_an_output_of_before_keeps_its_masks(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "masks"
    predicted(place, output, fold_norm=False)
    (output / ENGINE_FILE).unlink()
    for path in output.glob("*.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({name: record[name] for name in record if name not in ("engine", "precision")}))
    done = predict(place / "run", place / "images", output, device="cpu", resume=True)
    assert (len(done.skipped), len(done.predicted)) == (3, 0)
    assert StatedArithmetic(output).read() == Arithmetic()


def test_masks_are_made_again_by_their_engine(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    for name, choices in {"onnx": {"engine": "onnx"}, "plain": {"fold_norm": False}, "folded": {}}.items():
        record = predicted(place, tmp_path / name, **choices)
        done = predict(
            place / "run", place / "images", tmp_path / f"{name}_again", again=tmp_path / name, device="cpu"
        )
        assert len(done.predicted) == 3
        assert json.loads((tmp_path / f"{name}_again" / "case_0.json").read_text()) == record
    records = [tmp_path / "onnx" / "case_0.json", tmp_path / "plain" / "case_1.json"]
    with pytest.raises(SettingsError, match="the records are of onnx in float32 and of torch in float32"):
        predict(place / "run", place / "images", tmp_path / "both", again=records, device="cpu")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"engine": "abacus"}, "engine 'abacus': not one of torch, onnx, openvino, auto"),
        ({"engine": "open_vino"}, "did you mean 'openvino'"),
        ({"precision": "float16"}, "precision 'float16': not one of float32, bfloat16, auto"),
        ({"engine": "onnx", "precision": "bfloat16"}, "the engine onnx knows float32"),
        ({"precision": "bfloat16"}, "machine's CPU has no bfloat16"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    choices: dict[str, str], said: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "has_fast_bfloat16", lambda device: False)
    with pytest.raises(MedfcnError, match=said) as caught:
        predicted(place, tmp_path / "masks", **choices)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("engine", LIBRARIES)
def test_a_missing_library_is_one_line(
    engine: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(engines.importlib, "import_module", missing)
    library = LIBRARIES[engine]
    with pytest.raises(MissingFileError, match=rf"needs {library}, .* pip install 'medfcn\[{engine}\]'"):
        predicted(place, tmp_path / "masks", engine=engine)
    said = Said()
    assert predicted(place, tmp_path / "auto", engine="auto", progress=said)["engine"] == "torch"
    assert any(f"{engine} is not installed" in line for line in said.lines)


class Stub:
    """An engine of torch that adds something to the logits, and waits."""

    precisions = ("float32",)
    devices = ("cpu",)

    def __init__(self, *, beyond: float = 0.0, slow: int = 0) -> None:
        self.beyond, self.slow = beyond, slow

    def require(self) -> None: ...

    def runner(self, network: Any, plan: Any, arithmetic: Any, threads: int) -> Any:
        def run(slices: torch.Tensor) -> torch.Tensor:
            for _ in range(self.slow):
                network(slices)
            logits = network(slices).clone()
            logits[:, :1] += self.beyond
            return logits

        return run


def test_auto_takes_the_fastest_that_makes_the_same_masks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = load_models(place / "run", device="cpu").models

    def chosen(**found: Stub) -> tuple[str, str]:
        monkeypatch.setattr(engines, "_ENGINES", found)
        settled = settle(Wanted("auto"), models, [read_volume(place / "images" / "case_0.nii.gz")], threads=1)
        return settled.arithmetic.engine, settled.line

    assert chosen(torch=Stub(slow=6), onnx=Stub(), openvino=Stub(slow=6))[0] == "onnx"
    assert chosen(torch=Stub(), onnx=Stub(slow=6), openvino=Stub(slow=6))[0] == "torch"
    best, line = chosen(torch=Stub(slow=6), onnx=Stub(beyond=50), openvino=Stub(slow=3))
    assert best == "openvino"
    assert "onnx cannot: the logits of a slice" in line
    assert "take --engine" not in line  # it takes another one by itself
    monkeypatch.setattr(engines, "_require_alike", lambda *_: None)
    best, line = chosen(torch=Stub(slow=6), onnx=Stub(beyond=50), openvino=Stub(slow=3))
    assert best == "openvino"
    assert "but a Dice of 0" in line


@pytest.mark.parametrize(
    ("bright", "engine", "said"),
    [({26: 1, 2: 2}, "onnx", "for a sample that shows 1 of 2 labels)"), ({}, "torch", "the sample shows no label")],
    ids=["far from the middle", "nowhere"],
)
def test_the_sample_is_where_labels_are(
    bright: dict[int, int], engine: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine cannot be judged by slices without labels."""
    array = np.zeros((20, 17, 30), np.int16)
    for slice_number, pixels in bright.items():
        array[4 : 4 + pixels, 5, slice_number] = 9000
    volume = Volume(array, np.diag([-1.0, -1.0, 2.0, 1.0]))
    seen: list[int] = []

    def decided(model: Any, slices: Any) -> list[Any]:
        part = slices.part(0, slices.shape[0])
        seen.append(int((part > 0).sum()))
        return [(part > 0).astype(np.uint8)]

    monkeypatch.setattr(self_test, "_decided", decided)
    monkeypatch.setattr(engines, "_ENGINES", {"torch": Stub(), "onnx": Stub(), "openvino": Stub(beyond=1.0)})
    times = iter(range(0, 100, 10)) if bright else iter(())  # torch takes its seconds first, and then onnx
    monkeypatch.setattr(self_test.time, "process_time", lambda: next(times) ** 0.5)
    plan: dict[str, Any] = {"spacing_mm": (1.0, 1.0, None), "intensities": (Intensity("none"),)}
    model = tiny_model(labels="left=1,right=7", prediction={"batch_size": 4}, **plan)
    settled = settle(Wanted("auto"), [model], [volume], threads=1)
    assert settled.arithmetic.engine == engine
    assert said in settled.line
    assert set(seen[7:]) == ({2} if bright else set())


def test_an_engine_with_other_logits_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_ENGINES", {"onnx": Stub(beyond=1.0)})
    with pytest.raises(ModelError, match=r"differ from torch's by .* of the largest; take engine='torch'"):
        medfcn.load(place / "run", device="cpu", engine="onnx")


def test_too_little_memory_is_not_called_a_network_that_an_engine_cannot_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> None:
        raise RuntimeError("could not create a primitive")

    engine = Stub()
    monkeypatch.setattr(engine, "runner", short)
    monkeypatch.setattr(engines, "_ENGINES", {"onnx": engine})
    with pytest.raises(MemoryShortError, match="out of memory"):
        medfcn.load(place / "run", device="cpu", engine="onnx")


@pytest.mark.parametrize(
    ("has", "passed", "expected"), [(True, True, "bfloat16"), (True, False, "float32"), (False, True, "float32")]
)
def test_auto_takes_bfloat16_where_the_training_found_it_as_good_and_the_processor_has_it(
    has: bool, passed: bool, expected: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (engines, self_test):
        monkeypatch.setattr(module, "has_fast_bfloat16", lambda device: has)
    run = saved(tiny_model(labels="left=1,right=7", context=3), tmp_path / "run")
    card = json.loads((run / "model.json").read_text())
    card["training"] = {"bfloat16": {"passed": passed}}
    (run / "model.json").write_text(json.dumps(card))
    predict(run, place / "images", tmp_path / "masks", device="cpu", precision="auto", jobs=1)
    record = json.loads((tmp_path / "masks" / "case_1.json").read_text())
    assert record["precision"] == expected
    assert record.get("folded", False) is (expected == "float32")
    assert StatedArithmetic(tmp_path / "masks").read() == Arithmetic("torch", expected, folded=expected == "float32")


def test_a_card_without_the_test_says_nothing_of_bfloat16(place: Path) -> None:
    card = load_models(place / "run", device="cpu").card
    assert not card.is_bfloat16_alike


def test_a_strange_statement_is_one_line(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "masks"
    predicted(place, output)
    stated = (output / ENGINE_FILE).read_text()
    whole = json.loads(stated)
    lacking = [{key: whole[key] for key in whole if key != name} for name in whole]
    strange = [[], {"engine": "abacus"}, {}, *lacking, whole | {"folded": "yes"}, whole | {"precison": "float32"}]
    for text in ("", *map(json.dumps, strange)):
        (output / ENGINE_FILE).write_text(text)
        with pytest.raises(SettingsError) as refused:
            predicted(place, output, resume=True)
        assert str(refused.value).startswith(f"{output / ENGINE_FILE}: ")
        assert str(refused.value).endswith("; remove it and go on with resume=True")
        assert "\n" not in str(refused.value)
    (output / ENGINE_FILE).unlink()
    predicted(place, output, resume=True)
    assert (output / ENGINE_FILE).read_text() == stated
