"""A model of labels that overlap writes parts, and tells of labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medfcn.errors import ModelError
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.model import Model
from medfcn.labels import LabelMap, read_mask
from medfcn.verbs import predict
from medfcn.volumes import Volume, read_volume
from tests.inference.models import blobs, saved, tiny_model, write_image
from tests.overlapping import CROSSED, NESTED


def image() -> Volume:
    return Volume(blobs((31, 27, 9), seed=4), np.diag([-1.1, -1.2, 2.0, 1.0]))


def most_probable(p: NDArray[np.float32], labels: LabelMap, threshold: float) -> NDArray[np.int64]:
    """Voxel by voxel from the definition: the value of the part with the largest product of odds."""
    assert labels.members is not None
    odds = p.astype(np.float64) / (1 - p) / (threshold / (1 - threshold))
    products = [np.prod(odds[row], axis=0) if row.any() else np.ones(p.shape[1:]) for row in labels.members]
    return np.array([0, *(part.written for part in labels.overlaps)])[np.argmax(products, axis=0)]


@pytest.mark.parametrize("text", [NESTED, CROSSED])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_a_voxel_is_of_the_most_probable_part(text: str, threshold: float) -> None:
    model = tiny_model(labels=text, prediction={"threshold": threshold})
    found = model.predict_case(image(), keep_probabilities=True)
    labels = model.card.labels
    assert model.head == "sigmoid"
    assert found.probabilities is not None
    assert len(found.probabilities) == len(labels.entries)
    expected = most_probable(found.probabilities, labels, threshold)
    assert (found.mask.array == expected).mean() > 0.9999
    assert len(np.unique(found.mask.array)) == len(labels.overlaps) + 1
    for entry in labels.entries:
        ml = np.isin(found.mask.array, entry.values).sum() * image().voxel_ml
        assert found.volumes_ml[entry.name] == pytest.approx(ml)


def test_nested_labels_that_agree_are_cut_off_at_the_threshold() -> None:
    """Where no label says that it holds without the one around it, each holds from the threshold on."""
    for threshold in (0.5, 0.7):
        model = tiny_model(labels="whole=1+2,core=2", prediction={"threshold": threshold})
        found = model.predict_case(image(), keep_probabilities=True)
        assert found.probabilities is not None
        whole, core = found.probabilities > threshold
        agree = ~(core & ~whole)
        assert 0.3 < agree.mean() < 1
        np.testing.assert_array_equal((found.mask.array >= 1)[agree], whole[agree])
        np.testing.assert_array_equal((found.mask.array == 2)[agree], core[agree])


def test_labels_not_found_are_flagged_by_name() -> None:
    model = tiny_model(labels=NESTED)
    model.network.head.bias.data[1:] = -100.0
    found = model.predict_case(image())
    assert set(np.unique(found.mask.array)) == {0, 1}
    assert found.flags == ("core not found", "enhancing not found")
    assert found.volumes_ml["core"] == 0 < found.volumes_ml["whole"]


def test_files_of_overlapping_labels_are_complete(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.nii.gz", blobs())
    run = saved(tiny_model(labels=CROSSED), tmp_path / "run")
    predict(run, tmp_path / "images", tmp_path / "masks", probabilities=True, device="cpu")
    mask = read_mask(tmp_path / "masks" / "a.nii.gz")
    assert set(np.unique(mask.array)) == {0, 2, 4, 7, 9}
    sidecar = json.loads((tmp_path / "masks" / "a.json").read_text())
    assert LabelMap.from_json(sidecar["labels"]) == LabelMap.parse(CROSSED)
    assert list(sidecar["volumes_ml"]) == ["left", "right", "rest"]
    paths = sorted((tmp_path / "masks" / "probabilities").iterdir())
    assert [path.name for path in paths] == ["a_1.nii.gz", "a_2.nii.gz", "a_3.nii.gz"]
    p = np.stack([read_volume(path).array for path in paths])
    assert (mask.array == most_probable(p, LabelMap.parse(CROSSED), 0.5)).mean() > 0.999


def test_an_ensemble_of_overlapping_labels_decides_by_the_mean() -> None:
    models = [tiny_model(labels=NESTED, seed=seed) for seed in range(2)]
    means = np.mean([m.predict_case(image(), keep_probabilities=True).probabilities for m in models], axis=0)
    found = Ensemble(models).predict(image())
    assert (found.array == most_probable(means, LabelMap.parse(NESTED), 0.5)).mean() > 0.9999


@pytest.mark.parametrize(
    ("change", "words"),
    [({"one_part": [1]}, "one_part does not fit"), ({"head": "softmax"}, "softmax.*labels overlap")],
    ids=["one part", "softmax"],
)
def test_a_card_that_overlapping_labels_cannot_have_is_refused(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    run = saved(tiny_model(labels=NESTED), tmp_path / "run")
    assert Model.load(run, device="cpu").card.labels.overlapping
    card = json.loads((run / "model.json").read_text())
    card["one_part"] = change.get("one_part", [])
    card["settings"]["network"]["head"] = change.get("head", "auto")
    (run / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=words):
        Model.load(run, device="cpu")
