"""A model and a volume give a mask on the volume's own grid, however the volume is given and stored."""

import dataclasses
import pydoc
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError, MissingFileError, ModelError, OutputExistsError
from medfcn.inference import slice_inferer
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.model import Model
from medfcn.inference.predictor import Predictor
from medfcn.inference.self_test import settle
from medfcn.inference.slice_inferer import SliceInferer
from medfcn.labels import read_mask
from medfcn.networks.own_statistics import some_slices, with_own_statistics
from medfcn.networks.sliding import ArraySlices
from medfcn.runs.arithmetic import Arithmetic, Wanted
from medfcn.slices.plan import Intensity
from medfcn.slices.preprocess import network_image
from medfcn.slices.views import VIEWS
from medfcn.volumes import Volume, read_volume
from tests.inference.models import blobs, saved, tiny_model, write_image
from tests.slices.stored_orders import ORDERS, oblique_affine, restored, stored_in

AFFINE = oblique_affine(4, (1.0, 1.3, 2.4), most_degrees=25)
TWO_CHANNELS = (Intensity("zscore"), Intensity("ct", lower=-500, upper=500, mean=0, std=200))


def _image(seed: int = 0) -> Volume:
    return Volume(blobs(seed=seed), AFFINE, name="case")


def test_an_untrained_model_draws_a_good_part_of_every_volume() -> None:
    """Otherwise the tests here would compare empty masks."""
    share = tiny_model().predict(_image()).array.mean()
    assert 0.2 < share < 0.8


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"context": 3},
        {"crop": (8, 12), "turns": (20.0, -20.0)},
        {"views": ("sagittal",), "spacing_mm": (None, 1.5, 2.0)},
        {"views": VIEWS, "spacing_mm": (1.5, 1.5, 1.5), "view_weights": (0.5, 0.2, 0.3)},
        {"views": VIEWS, "spacing_mm": (1.5, 1.5, 1.5), "apart": (3, 1, 2)},
        {"views": VIEWS, "spacing_mm": (1.5, 1.5, 1.5), "own_statistics": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("labels", ["organ=1", "left=2,right=5"])
def test_all_48_stored_orders_get_the_same_mask_up_to_their_own_order(plan: dict[str, Any], labels: str) -> None:
    model = tiny_model(labels=labels, one_part=(1,), **plan)
    image = blobs((14, 12, 6))
    expected: NDArray[Any] | None = None
    likely: NDArray[Any] | None = None
    for order in ORDERS:
        stored, affine = stored_in(image, AFFINE, order)
        found = model.predict_case(Volume(stored, affine), keep_probabilities=True)
        assert np.array_equal(found.mask.affine, affine)
        mask = restored(found.mask.array, order)
        assert found.probabilities is not None
        probability = restored(found.probabilities[-1], order)
        expected, likely = (mask, probability) if expected is None else (expected, likely)
        assert expected is not None
        assert np.array_equal(mask, expected)
        assert np.array_equal(probability, likely)
    assert len(np.unique(expected)) > 1  # type: ignore[arg-type]
    assert np.std(likely) > 0.05  # type: ignore[arg-type]


THREE: dict[str, Any] = {"views": VIEWS, "spacing_mm": (1.5, 1.5, 1.5)}


def _probabilities(model: Predictor, image: Volume) -> NDArray[np.float32]:
    found = model.predict_case(image, keep_probabilities=True).probabilities
    assert found is not None
    return found


@pytest.mark.parametrize("weights", [(), (0.5, 0.0, 0.5), (0.2, 0.2, 0.6)])
@pytest.mark.parametrize("labels", ["organ=1", "left=2,right=5"])
def test_views_are_averaged_by_their_weights(weights: tuple[float, ...], labels: str) -> None:
    model = tiny_model(labels=labels, view_weights=weights, **THREE)
    alone = [_probabilities(model.with_views([view]), _image()) for view in VIEWS]
    assert all(np.abs(first - second).max() > 0.1 for first, second in combinations(alone, 2))
    expected = np.average(alone, axis=0, weights=weights or None)
    np.testing.assert_allclose(_probabilities(model, _image()), expected, atol=1e-5)


def test_a_model_of_one_view_gives_that_views_probabilities_bit_for_bit() -> None:
    plain = _probabilities(tiny_model(), _image())
    assert plain.tobytes() == _probabilities(tiny_model(view_weights=(1.0,)), _image()).tobytes()
    assert plain.tobytes() == _probabilities(tiny_model().with_views(["axial"]), _image()).tobytes()


def test_a_view_without_weight_is_not_asked() -> None:
    model = tiny_model(view_weights=(0.0, 1.0, 0.0), **THREE)
    seen: list[tuple[int, ...]] = []
    model.network.register_forward_hook(lambda _m, given, _out: seen.append(tuple(given[0].shape[2:])))
    image = Volume(np.asarray(blobs((13, 10, 14))), np.diag([1.5, 1.5, 1.5, 1.0]))
    found = _probabilities(model, image)
    assert set(seen) == {(13, 14)}  # coronal: R × S
    assert found.tobytes() == _probabilities(model.with_views(["coronal"]), image).tobytes()


def test_some_views_keep_the_proportions_of_their_weights() -> None:
    model = tiny_model(view_weights=(0.6, 0.0, 0.4), **THREE)
    some = model.with_views(["sagittal", "axial"])
    assert (some.card.plan.views, some.card.view_weights) == (("axial", "sagittal"), (0.6, 0.4))
    assert model.with_views(["coronal", "sagittal"]).card.view_weights == (0.0, 1.0)
    assert model.with_views(["coronal"]).card.view_weights == ()  # nothing but what weighed nothing: evenly
    assert model.with_views(None).card == model.card == model.with_views(VIEWS).card
    with pytest.raises(ModelError, match="knows axial slices, not coronal"):
        tiny_model().with_views(["axial", "coronal"])


def test_networks_of_one_view_each_are_fused_on_the_native_grid_from_all_48_stored_orders() -> None:
    spacings = {"axial": (1.5, 1.7, None), "coronal": (1.2, None, 2.0), "sagittal": (None, 1.4, 2.1)}
    models = [
        tiny_model(seed=seed, views=(view,), spacing_mm=spacing)
        for seed, (view, spacing) in enumerate(spacings.items())
    ]
    alone = [_probabilities(model, _image()) for model in models]
    np.testing.assert_allclose(_probabilities(Ensemble(models), _image()), np.mean(alone, axis=0), atol=1e-6)
    expected = Ensemble(models).predict(_image()).array
    for order in ORDERS:
        stored, affine = stored_in(_image().array, AFFINE, order)
        assert np.array_equal(restored(Ensemble(models).predict(Volume(stored, affine)).array, order), expected)


@pytest.mark.parametrize("labels", ["organ=1", "left=2,right=5"])
def test_a_mask_decided_slab_by_slab_is_that_decided_at_once(labels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [tiny_model(labels=labels, seed=seed, spacing_mm=(1.5 + seed, 1.7, None)) for seed in range(2)]
    whole = Ensemble(models).predict_case(_image(), keep_probabilities=True)
    monkeypatch.setattr("medfcn.slices.grid._DECIDED_VOXELS", 500)
    parts = Ensemble(models).predict_case(_image(), keep_probabilities=True)
    assert np.array_equal(whole.mask.array, parts.mask.array)
    assert whole.probabilities is not None
    assert parts.probabilities is not None
    assert whole.probabilities.tobytes() == parts.probabilities.tobytes()


def test_a_model_that_was_saved_gives_bit_equal_masks(tmp_path: Path) -> None:
    model = tiny_model(labels="left=1,right=2", context=3, view_weights=(0.5, 0.25, 0.25), **THREE)
    run = saved(model, tmp_path / "run")
    again = Model.load(run, device="cpu")
    assert again.card == model.card
    first, second = (item.predict_case(_image(), keep_probabilities=True) for item in (model, again))
    assert first.probabilities is not None
    assert second.probabilities is not None
    assert first.probabilities.tobytes() == second.probabilities.tobytes()
    assert np.array_equal(first.mask.array, second.mask.array)
    assert {path.name for path in run.iterdir()} == {"model.safetensors", "model.json"}
    saved(again, tmp_path / "again")
    for name in ("model.safetensors", "model.json"):
        assert (run / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_volume_may_be_given_in_any_form(tmp_path: Path) -> None:
    model = tiny_model()
    path = write_image(tmp_path / "case.nii.gz", blobs(), np.diag([-1.0, -1.0, 2.0, 1.0]))
    expected = model.predict(path)
    volume, image = read_volume(path), nibabel.load(path)
    for source in (str(path), volume, image, (volume.array, volume.affine), [path], [volume]):
        found = model.predict(source)
        assert np.array_equal(found.array, expected.array)
        assert np.array_equal(found.affine, expected.affine)
    assert expected.array.dtype == np.uint8


def test_the_order_of_channels_matters_and_their_number_is_checked() -> None:
    model = tiny_model(intensities=TWO_CHANNELS)
    first, second = _image(0), _image(1)
    one, other = model.predict([first, second]).array, model.predict([second, first]).array
    assert not np.array_equal(one, other)
    for wrong in (first, [first], [first, second, first]):
        with pytest.raises(ModelError, match=r"takes 2 channels \(channel_0, channel_1\)") as caught:
            model.predict(wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="takes 1 channel "):
        tiny_model().predict([first, second])
    elsewhere = Volume(second.array, np.diag([1.0, 1.0, 1.0, 1.0]), name="other")
    with pytest.raises(GeometryMismatchError, match="channels of one case"):
        model.predict([first, elsewhere])


def _odd_file(path: Path) -> Path:
    """Oblique int16 with a fourth dimension of 1, unusual codes, seconds among the units, and text of a patient."""
    affine = oblique_affine(12, (0.9, 1.1, 2.6), most_degrees=20)
    affine[:3, 0] *= -1
    image = nibabel.Nifti1Image(blobs()[..., None], affine)
    header: Any = image.header
    image.set_qform(affine, code=4)
    image.set_sform(affine, code=3)
    header.set_xyzt_units("mm", "sec")
    header["pixdim"][4] = 2.5
    header["descrip"], header["db_name"], header["intent_name"] = b"DOE^JANE", b"1970", b"secret"
    nibabel.save(image, path)
    return path


GEOMETRY = ("dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "xyzt_units")
PLACE = ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_mask_has_the_grid_of_its_image_byte_for_byte(tmp_path: Path, ending: str) -> None:
    source = _odd_file(tmp_path / f"case{ending}")
    written = tiny_model().predict(source).save(tmp_path / f"mask{ending}")
    image, mask = nibabel.load(source), nibabel.load(written)
    for field in (*GEOMETRY, *PLACE):
        assert mask.header[field].tobytes() == image.header[field].tobytes(), field
    assert mask.shape == image.shape == (20, 17, 6, 1)
    assert mask.affine.tobytes() == image.affine.tobytes()
    assert mask.get_data_dtype() == np.uint8
    raw = mask.header.binaryblock
    assert not any(text in raw for text in (b"DOE", b"1970", b"secret"))


@pytest.mark.parametrize(("unit", "millimetres"), [("meter", 1000.0), ("micron", 0.001)])
def test_the_unit_of_length_of_a_file_does_not_matter(tmp_path: Path, unit: str, millimetres: float) -> None:
    model, affine = tiny_model(), np.diag([-1.0, -1.0, 2.0, 1.0])
    expected = model.predict_case(write_image(tmp_path / "mm.nii.gz", blobs(), affine))
    affine[:3, :3] /= millimetres
    image = nibabel.Nifti1Image(blobs(), affine)
    header: Any = image.header
    header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "other.nii.gz")
    found = model.predict_case(tmp_path / "other.nii.gz")
    assert np.array_equal(found.mask.array, expected.mask.array)
    assert found.volumes_ml == {"organ": pytest.approx(expected.volumes_ml["organ"])}


@pytest.mark.parametrize("labels", ["organ=1", "left=3,right=7"])
def test_a_constant_image_gets_an_empty_mask_and_says_so(labels: str) -> None:
    image = Volume(np.full((8, 9, 4), 40, dtype=np.int16), AFFINE)
    found = tiny_model(labels=labels).predict_case(image, keep_probabilities=True)
    assert not found.mask.array.any()
    assert found.probabilities is not None
    assert not found.probabilities.any()
    assert set(found.volumes_ml.values()) == {0.0}
    assert found.flags == ("channel channel_0 is constant: the mask is empty",)


def test_labels_are_written_as_their_values_and_merged_ones_as_their_place() -> None:
    found = tiny_model(labels="anterior=5,posterior=7,rest=9+11").predict_case(_image())
    assert set(np.unique(found.mask.array)) == {0, 5, 7, 3}
    assert list(found.volumes_ml) == ["anterior", "posterior", "rest"]


def test_a_mask_follows_from_its_probabilities() -> None:
    for labels, values in (("organ=4", [0, 4]), ("anterior=3,posterior=7", [0, 3, 7])):
        found = tiny_model(labels=labels).predict_case(_image(), keep_probabilities=True)
        likely = found.probabilities
        assert likely is not None
        assert likely.min() >= 0
        assert likely.sum(axis=0).max() <= 1 + 1e-5
        if len(likely) == 1:
            chosen = (likely[0] >= 0.5).astype(int)
        else:
            chosen = np.concatenate([1 - likely.sum(axis=0, keepdims=True), likely]).argmax(axis=0)
        assert np.array_equal(found.mask.array, np.array(values)[chosen])
        volume = _image().voxel_ml
        counts = [np.count_nonzero(found.mask.array == value) for value in values[1:]]
        assert list(found.volumes_ml.values()) == pytest.approx([count * volume for count in counts])


def test_the_threshold_decides_and_is_inclusive() -> None:
    image = _image()
    shares = [tiny_model(prediction={"threshold": value}).predict(image).array.mean() for value in (0.3, 0.5, 0.7)]
    assert shares[0] > shares[1] > shares[2]


def test_only_the_largest_part_is_kept_where_the_card_says_so() -> None:
    from medfcn.slices.components import keep_one_part

    models = (tiny_model(one_part=part, prediction={"threshold": 0.8}) for part in ((), (1,)))
    plain, whole = (model.predict(_image()).array for model in models)
    assert not np.array_equal(plain, whole)
    assert np.array_equal(whole, keep_one_part(plain, (1,)).indices)


def test_mirror_images_are_averaged_over_the_axes_of_training() -> None:
    image = _image()
    for axes, count in (((), 1), ((0,), 2), ((1,), 2), ((0, 1), 4)):
        model = tiny_model(mirror_axes=axes, spacing_mm=(1.0, 1.3, None), window=(20, 20))
        calls: list[torch.Tensor] = []
        handle = model.network.register_forward_hook(
            lambda _m, given, _out, calls=calls: calls.append(given[0].clone())
        )
        averaged = model.predict_case(image, tta=True, keep_probabilities=True)
        handle.remove()
        assert len(calls) == count
        assert averaged.probabilities is not None
        plain = model.predict_case(image, tta=False, keep_probabilities=True)
        assert plain.probabilities is not None
        assert np.array_equal(averaged.probabilities, plain.probabilities) == (count == 1)
        # A mirrored volume gets the mirrored average: what makes it worth its time.
        if 0 in axes:
            flipped = Volume(image.array[::-1], image.affine)
            mirrored = model.predict_case(flipped, tta=True, keep_probabilities=True)
            assert mirrored.probabilities is not None
            np.testing.assert_allclose(mirrored.probabilities[:, ::-1], averaged.probabilities, atol=1e-5)


def test_further_looks_are_at_the_same_places_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU gets a whole batch of slices, a CPU some of them; where they look again must not follow from that."""
    monkeypatch.setattr(slice_inferer, "_SLAB_BYTES", 1)  # two slices at once on a CPU
    looking = tiny_model(window=(20, 20), crop=(16, 16), turns=(20.0, -20.0), spacing_mm=(1, 1, None))
    looking.runner = lambda slices: 3 * (slices[:, :1] - 1)  # finds what is bright
    array = blobs((24, 22, 9)) // 10
    for place in range(9):  # a bright block that moves from slice to slice
        array[2 * place : 2 * place + 8, place + 1 : place + 9, place] += 2000
    image = Volume(array, np.diag([-1.0, -1.0, 2.0, 1.0]))
    in_slabs = looking.predict_case(image, keep_probabilities=True).probabilities
    original = SliceInferer._sliding
    monkeypatch.setattr(SliceInferer, "_sliding", lambda *given: dataclasses.replace(original(*given), slab=None))
    at_once = looking.predict_case(image, keep_probabilities=True).probabilities
    assert in_slabs is not None
    assert at_once is not None
    np.testing.assert_allclose(at_once, in_slabs, atol=1e-4)


@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
@pytest.mark.parametrize("plan", [{}, THREE, THREE | {"apart": (3, 1, 2), "context": 3}], ids=str)
def test_a_network_is_fitted_to_a_volume_along_each_view(plan: dict[str, Any], folded: bool) -> None:
    """As the network with the statistics of that view's slices says; in the curve of a training as it was trained."""
    image, plain, fitted = _image(), tiny_model(**plan), tiny_model(own_statistics=0.5, **plan)
    how = fitted.card.plan
    on_grid = network_image([image], how)
    for view in how.views:
        few = some_slices(ArraySlices(on_grid, view), how.window, count=8, context=how.context)
        by_hand = Model(
            with_own_statistics(plain.network, torch.from_numpy(few), 0.5), plain.card, device=plain.device
        )
        expected = by_hand.view_probabilities(on_grid, view)
        found = fitted.run_by(Arithmetic(folded=folded)).view_probabilities(on_grid, view)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        usual = plain.view_probabilities(on_grid, view)
        assert np.abs(found - usual).max() > 0.01
        once, as_trained = (model.looking_once.view_probabilities(on_grid, view) for model in (fitted, plain))
        assert np.array_equal(once, as_trained)
    likely = _probabilities(fitted.run_by(Arithmetic(folded=folded)), image)
    assert np.abs(likely - _probabilities(plain, image)).max() > 0.01
    assert np.array_equal(likely, _probabilities(fitted.run_by(Arithmetic(folded=folded)), image))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_other_engines_than_torch_are_refused_where_a_network_is_fitted_to_each_volume(engine: Any) -> None:
    with pytest.raises(ModelError, match=rf"engine {engine}: .*slices\.own_statistics.*; take .*torch"):
        tiny_model(own_statistics=0.5).run_by(Arithmetic(engine))


def test_auto_takes_torch_at_once_where_a_network_is_fitted_to_each_volume() -> None:
    settled = settle(Wanted("auto"), [tiny_model(own_statistics=0.5)])
    assert settled.arithmetic.engine == "torch"
    why = "the network is fitted to each volume (slices.own_statistics), which only torch does"
    assert settled.line == f"engine auto: torch ({why})"


@pytest.mark.parametrize("labels", ["organ=1", "left=2,right=5", "whole=1+2,core=2"])
def test_a_part_is_looked_at_again_as_the_plan_says(labels: str) -> None:
    looking = tiny_model(labels=labels, window=(20, 20), crop=(8, 12), turns=(20.0, -20.0), spacing_mm=(1, 1, None))
    image = _image()
    shown: list[tuple[int, ...]] = []
    handle = looking.network.register_forward_hook(lambda _m, given, _out: shown.append(tuple(given[0].shape[2:])))
    again = looking.predict_case(image, keep_probabilities=True)
    handle.remove()
    assert shown[1:3] == [(8, 12)] * 2
    assert len(shown) % 3 == 0
    once = looking.looking_once.predict_case(image, keep_probabilities=True)
    assert again.probabilities is not None
    assert once.probabilities is not None
    plain = tiny_model(labels=labels, window=(20, 20), spacing_mm=(1, 1, None)).predict_case(
        image, keep_probabilities=True
    )
    assert plain.probabilities is not None
    assert np.array_equal(once.probabilities, plain.probabilities)  # as a card from before
    assert not np.array_equal(again.probabilities, plain.probabilities)
    assert again.probabilities.min() >= 0
    assert again.probabilities.max() <= 1
    uncertain = looking.predict_case(image, keep_probabilities=True, uncertainty=True)
    assert uncertain.probabilities is not None
    np.testing.assert_allclose(uncertain.probabilities, again.probabilities, atol=1e-6)
    assert plain.mask.array.any()
    assert again.mask.array.any()


def test_a_network_that_gives_nan_is_an_error_not_an_empty_mask() -> None:
    model = tiny_model()
    model.network.head.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        model.predict(_image())


def test_an_ensemble_averages_probabilities() -> None:
    models = [tiny_model(seed=seed) for seed in range(3)]
    single = [model.predict_case(_image(), keep_probabilities=True).probabilities for model in models]
    found = Ensemble(models).predict_case(_image(), keep_probabilities=True)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, np.mean(single, axis=0), atol=1e-6)
    assert np.array_equal(found.mask.array, (found.probabilities[0] >= 0.5).astype(np.uint8))
    assert np.array_equal(Ensemble(models).predict(_image()).array, found.mask.array)
    alone = Ensemble(models[:1]).predict(_image())
    assert np.array_equal(alone.array, models[0].predict(_image()).array)


@pytest.mark.parametrize(
    "other", [{"labels": "organ=2"}, {"labels": "a=1,b=2"}, {"intensities": TWO_CHANNELS}], ids=str
)
def test_models_of_other_tasks_are_not_averaged(other: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"differ in their (labels|channels)"):
        Ensemble([tiny_model(), tiny_model(**other)])


@pytest.mark.parametrize("verb", [Model.predict, Model.predict_case, Model.assess], ids=lambda verb: verb.__name__)
def test_help_shows_the_short_names_of_types(verb: Any) -> None:
    """Spelled out, `VolumeLike` fills a screen."""
    heading = pydoc.render_doc(verb, renderer=pydoc.plaintext).splitlines()[2]
    assert "source: 'VolumeLike | Sequence[VolumeLike]'" in heading
    assert len(heading) < 400


def test_a_model_says_on_one_line_what_it_is() -> None:
    one = tiny_model(labels="organ=1,ve\x1bssel=2")
    assert repr(one) == "<Model of 1 model: labels organ, ve\\x1bssel; channels channel_0; axial slices>"
    assert repr(Ensemble([one, one])).startswith("<Ensemble of 2 models: labels organ")


def test_a_mask_is_not_written_over_a_file(tmp_path: Path) -> None:
    mask = tiny_model().predict(_image())
    path = mask.save(tmp_path / "mask.nii.gz")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        mask.save(path)
    assert path.read_bytes() == before
    assert np.array_equal(read_mask(path).array, mask.array)


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors", None])
def test_a_run_folder_without_its_model_is_named(tmp_path: Path, missing: str | None) -> None:
    run = tmp_path / "run"
    if missing:
        (saved(tiny_model(), run) / missing).unlink()
    with pytest.raises(MissingFileError, match="run: no model"):
        Model.load(run, device="cpu")
