"""A run as a MONAI Bundle: MONAI makes the masks of the run from it, without medfcn."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

import medfcn
from medfcn.errors import ModelError, OutputExistsError, SettingsError
from medfcn.exporting.phantom import dice_of
from medfcn.exporting.plain_network import plain_network
from medfcn.networks.design import MonaiDesign
from medfcn.networks.monai_nets import MonaiNetwork
from medfcn.slices.plan import Intensity
from tests.exporting.grids import GRID
from tests.inference.models import blobs, looking_model, saved, tiny_model, write_image
from tests.networks import designs

ROOT = Path(__file__).resolve().parents[2]
LABELS = "$import os=1,right=7"
"""Of which the first would be code, if it came into MONAI's configuration."""


def built(source: str) -> torch.nn.Module:
    scope: dict[str, object] = {}
    exec(source, scope)
    network: torch.nn.Module = scope["Network"]()  # type: ignore[operator]
    return network.eval()


JOINED = {"labels": 20, "stem_stride": 2, "restoring": "joined"}


@pytest.mark.parametrize(("preset", "parts"), [*((name, {"labels": 2}) for name in designs.ALL), ("auto", JOINED)])
def test_the_source_of_a_network_gives_its_logits_to_the_last_bit(preset: str, parts: dict[str, Any]) -> None:
    network = designs.lived_in(designs.build(preset, channels=3, **parts)).eval()
    plain = plain_network(network)
    assert "medfcn" not in plain.source.partition('"""\n')[2]
    again = built(plain.source)
    again.load_state_dict(plain.weights)
    slices = torch.randn(1, 3, 37, 50, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network(slices), again(slices))


def test_a_network_of_monai_is_named_with_its_arguments() -> None:
    features = {"features": [4, 4, 8, 8, 8, 4]}
    design = MonaiDesign(channels_in=1, label_count=1, head="sigmoid", name="BasicUNet", arguments=features)
    network = MonaiNetwork(design).eval()
    plain = plain_network(network)
    again = built(plain.source)
    again.load_state_dict(plain.weights)
    slices = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network(slices), again(slices))


ignite = pytest.importorskip("ignite")
pytest.importorskip("jsonschema")
pytest.importorskip("fire")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scaled = (Intensity("zscore", background="robust"),)
    model = tiny_model(labels=LABELS, one_part=(1, 2), context=3, intensities=scaled)
    return saved(model, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return medfcn.export(run, tmp_path_factory.mktemp("bundles") / "organ", format="bundle")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with volumes in two orders, sizes and spacings."""
    folder = tmp_path_factory.mktemp("images")
    turned = np.array([[0, 0, 1.7, 3], [-1.1, 0, 0, 5], [0, 2.3, 0, -9], [0, 0, 0, 1]])
    write_image(folder / "a.nii.gz", blobs((20, 17, 6)))
    write_image(folder / "b.nii.gz", blobs((9, 22, 18), seed=1), turned)
    write_image(folder / "one_slice.nii.gz", blobs((20, 17, 1)))
    framed = np.zeros((24, 21, 8), np.int16)
    framed[2:-2, 2:-2, 1:] = blobs((20, 17, 7), seed=2) + 2000
    write_image(folder / "framed.nii.gz", framed)
    return folder


def require_masks_of(run: Path, images: Path, masks: Path) -> None:
    model = medfcn.load(run, device="cpu")
    assert {path.name for path in masks.iterdir()} == {path.name for path in images.iterdir()}
    for image in images.iterdir():
        ours, theirs = model.predict(image), nibabel.load(masks / image.name)
        assert set(np.unique(ours.array)) == {0, 1, 7}
        assert dice_of(ours.array, np.asarray(theirs.dataobj)) >= 0.9999
        for name in GRID:
            assert theirs.header[name].tobytes() == nibabel.load(image).header[name].tobytes(), name
        assert theirs.get_data_dtype() == np.uint8


def test_masks_of_monai_are_those_of_the_run(run: Path, bundle: Path, images: Path, tmp_path: Path) -> None:
    from medfcn.exporting.bundle import run_bundle

    before = sys.path[:], sys.modules.get("scripts")
    run_bundle(bundle, images, tmp_path)
    assert (sys.path, sys.modules.get("scripts")) == before
    require_masks_of(run, images, tmp_path)


def test_a_volume_that_predict_refuses_is_refused(bundle: Path, tmp_path: Path) -> None:
    from medfcn.exporting.bundle import run_bundle

    write_image(tmp_path / "images" / "a.nii.gz", np.full((20, 17, 6), np.nan, np.float32))
    with pytest.raises(SystemExit, match=r"a\.nii\.gz: has voxels that are NaN"):
        run_bundle(bundle, tmp_path / "images", tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


@pytest.mark.filterwarnings("ignore:No hash value")  # MONAI, where it finds the schema in its place
def test_the_metadata_is_verified_offline_and_holds_no_code(bundle: Path, tmp_path: Path) -> None:
    from monai.bundle import verify_metadata

    schema = bundle / "configs" / "metadata_schema.json"
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["inputs"]["image"]["num_channels"] == 3
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert channels == {"0": "background", "1": "_import os", "2": "right"}
    assert "import os" not in (bundle / "configs" / "inference.json").read_text()
    for name in ("task", "network_data_format"):
        broken = tmp_path / f"without_{name}.json"
        broken.write_text(json.dumps({key: value for key, value in metadata.items() if key != name}))
        with pytest.raises(ValueError, match="is a required property"):
            verify_metadata(meta_file=str(broken), filepath=str(schema))
    lines = [line for path in (bundle / "scripts").iterdir() for line in path.read_text().splitlines()]
    assert not any(line.startswith(("import medfcn", "from medfcn")) for line in lines)


def test_several_channels_are_files_of_one_case(tmp_path: Path) -> None:
    run = saved(tiny_model(intensities=(Intensity("zscore"), Intensity("zscore"))), tmp_path / "run")
    bundle = medfcn.export(run, tmp_path / "bundle", format="bundle")  # which proves itself on two channels
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    assert config["dataset"]["data"]["channels"] == 2


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"views": ("axial", "coronal"), "spacing_mm": (1.5, 1.5, 1.5)}, "the views axial, coronal"),
        ({"labels": "whole=1+2,core=2"}, "labels that overlap"),
    ],
    ids=["views", "overlap"],
)
def test_a_run_that_needs_more_is_refused_by_name(changed: dict[str, object], name: str, tmp_path: Path) -> None:
    run = saved(tiny_model(**changed), tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=f"the run uses {name}, which a MONAI Bundle does not know"):
        medfcn.export(run, tmp_path / "bundle", format="bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_bundle_that_predicts_otherwise_gets_no_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medfcn.exporting import bundle as module

    whole = module.bundle_contents

    def shifted(source: object) -> dict[str, bytes]:
        contents = whole(source)  # type: ignore[arg-type]
        place = "scripts/network.py"
        return contents | {place: contents[place].replace(b"return float_1", b"return -float_1")}

    monkeypatch.setattr(module, "bundle_contents", shifted)
    with pytest.raises(ModelError, match=r"MONAI's mask of a phantom of .* has a Dice of"):
        medfcn.export(run, tmp_path / "bundle", format="bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_looks_as_often_as_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medfcn.exporting import bundle as module

    model = looking_model()
    run, whole = saved(model, tmp_path / "run"), module.bundle_contents
    bundle = medfcn.export(run, tmp_path / "bundle", format="bundle")
    image = write_image(tmp_path / "images" / "a.nii.gz", blobs((20, 17, 6), seed=1))
    module.run_bundle(bundle, tmp_path / "images", tmp_path / "masks")
    ours, once = (each.predict(image).array for each in (model, model.looking_once))
    assert dice_of(ours, np.asarray(nibabel.load(tmp_path / "masks" / "a.nii.gz").dataobj)) >= 0.9999
    assert dice_of(ours, once) < 0.99

    def looking_once(source: object) -> dict[str, bytes]:
        contents = whole(source)  # type: ignore[arg-type]
        changed = contents["scripts/looking.py"].replace(b"return looked_again(", b"return once(slices)  # ")
        return contents | {"scripts/looking.py": changed}

    monkeypatch.setattr(module, "bundle_contents", looking_once)
    with pytest.raises(ModelError, match=r"MONAI's mask of a phantom of .* has a Dice of 0\.9[0-8]"):
        medfcn.export(run, tmp_path / "other", format="bundle")


def test_only_a_bundle_is_replaced(run: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="already exists"):
        medfcn.export(run, bundle, format="bundle")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="is no bundle"):
        medfcn.export(run, tmp_path / "mine", format="bundle", overwrite=True)
    with pytest.raises(SettingsError, match="a bundle is a folder"):
        medfcn.export(run, tmp_path / "bundle.zip", format="bundle")
    (bundle / "letter.txt").write_text("of someone")
    medfcn.export(run, bundle, format="bundle", overwrite=True)
    assert not (bundle / "letter.txt").exists()
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


@pytest.mark.slow
def test_monai_runs_it_where_there_is_no_medfcn(run: Path, bundle: Path, images: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    packages = ["monai", "torch", "nibabel", "pytorch-ignite", "fire", "jsonschema"]
    subprocess.run([*install, *packages], check=True)
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    without = subprocess.run(
        [python, "-c", "import medfcn"], cwd=bundle, env=variables, capture_output=True, check=False
    )
    assert without.returncode

    def monai(*words: str) -> None:
        command = [python, "-m", "monai.bundle", *words]
        done = subprocess.run(command, cwd=bundle, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    monai("verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", "configs/metadata_schema.json")
    places = ["--dataset_dir", str(images), "--output_dir", str(tmp_path / "masks")]
    monai("run", "--config_file", "configs/inference.json", *places)
    require_masks_of(run, images, tmp_path / "masks")
