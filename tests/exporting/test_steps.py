"""The steps of scripts and bundles do with odd volumes what `predict` does, or refuse them for the same reason."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import medfcn
from medfcn.errors import MedfcnError
from medfcn.exporting.one_view import about, template
from medfcn.exporting.phantom import dice_of
from medfcn.inference import slice_inferer
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.model import Model
from medfcn.networks.graph import Exportable
from medfcn.slices.plan import Intensity
from tests.exporting.grids import GRID
from tests.inference.models import blobs, looking_model, tiny_model

ROBUST = Intensity("zscore", background="robust")
PLACE = np.diag([-1.0, -1.0, 2.0, 1.0])
OBLIQUE = np.array([[-1.0, -0.5, 0.3, 3], [0.4, 1.2, 0.6, -20], [-0.3, -0.5, 2.1, 8], [0, 0, 0, 1]])
OBLIQUE[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] @ np.diag([1.1, 1.4, 2.2])


def framed(value: int, shape: tuple[int, int, int] = (26, 24, 9)) -> NDArray[np.int16]:
    """A scan with a frame of one value around it."""
    array = np.full(shape, value, np.int16)
    array[3:-3, 3:-3, 1:-1] = blobs(shape)[3:-3, 3:-3, 1:-1] + 2000
    return array


def nested() -> NDArray[np.int16]:
    """A frame within a frame."""
    array = framed(0)
    array[[0, -1]] = array[:, [0, -1]] = 8000
    return array


def with_lost(value: int, count: int = 1) -> NDArray[np.int16]:
    """A scan with lost slices."""
    array = blobs((24, 22, 30))
    array[:, :, 5 : 5 + count] = value
    return array


def noisy() -> NDArray[np.float32]:
    """Air with noise around zero, and padding at two sides."""
    array = np.random.default_rng(0).normal(0, 6, (40, 40, 6)).astype(np.float32)
    array[8:32, 8:32] += 500 + blobs((24, 24, 6)) / 10
    array[0], array[:, -1] = 0, -900
    return array


def masked() -> NDArray[np.int16]:
    """A brain without the head around it, in fewer slices than the file has."""
    array, (i, j, _) = blobs((26, 24, 9)) + np.int16(2500), np.indices((26, 24, 9))
    array[(i - 13) ** 2 + (j - 12) ** 2 > 64] = 0
    array[:, :, :2] = 0
    return array


def of_unit(code: str, affine: NDArray[np.float64]) -> nibabel.Nifti1Image:
    """A volume in another unit of length."""
    image = nibabel.Nifti1Image(blobs(), affine)
    image.header.set_xyzt_units(code)
    return image


def scaled() -> nibabel.Nifti1Image:
    """A volume whose header scales it."""
    image = nibabel.Nifti1Image(blobs(), PLACE)
    image.header.set_slope_inter(0.37, -100)
    return image


def stripes() -> NDArray[np.int16]:
    """A volume whose every slice along one axis has one value."""
    return np.broadcast_to(np.arange(100, 900, 50, dtype=np.int16)[:, None, None], (16, 16, 16)).copy()


PREDICTED: dict[str, Callable[[], Any]] = {
    "constant": lambda: np.full((20, 17, 6), 7, np.int16),
    "frame below": lambda: framed(0),
    "frame above": lambda: framed(9000),
    "frame amid": lambda: framed(2000),
    "nested frames": nested,
    "lost slice, amid": lambda: with_lost(0),
    "lost slice, below": lambda: with_lost(-20000),
    "lost slice, above": lambda: with_lost(20000),
    "many lost": lambda: with_lost(20000, 9),
    "stripes": stripes,
    "masked": masked,
    "air": noisy,
    "one voxel": lambda: np.ones((1, 1, 1), np.int16),
    "one slice": lambda: blobs((20, 17, 1)),
    "one row": lambda: blobs((1, 17, 20)),
    "smaller than the window": lambda: blobs((3, 4, 2)),
    "in tiles": lambda: blobs((40, 33, 3)),
    "trailing ones": lambda: blobs()[..., None, None],
    "long voxels": lambda: nibabel.Nifti1Image(blobs((14, 30, 9)), np.diag([3.0, 0.5, 7.0, 1.0])),
    "oblique": lambda: nibabel.Nifti1Image(blobs((22, 19, 8)), OBLIQUE),
    "big-endian": lambda: nibabel.Nifti1Image(blobs().astype(">i2"), PLACE, nibabel.Nifti1Header(endianness=">")),
    "unsigned": lambda: (blobs() - blobs().min()).astype(np.uint16),
    "float64": lambda: blobs() * np.float64(1e-12),
    "scaled": scaled,
    "metres": lambda: of_unit("meter", np.diag([-0.001, -0.001, 0.002, 1.0])),
    "microns": lambda: of_unit("micron", np.diag([-1000.0, -1000.0, 2000.0, 1.0])),
    "NIfTI-2": lambda: nibabel.Nifti2Image(blobs(), PLACE),
}


def without_codes() -> nibabel.Nifti1Image:
    """A volume of unknown directions."""
    image = nibabel.Nifti1Image(blobs(), PLACE)
    image.set_qform(None, 0)
    image.set_sform(None, 0)
    return image


def of_two_forms() -> nibabel.Nifti1Image:
    """A volume that lies in two places."""
    image = nibabel.Nifti1Image(blobs(), PLACE)
    image.set_qform(np.diag([1.0, -1.0, 2.0, 1.0]), 1)
    image.header["sform_code"] = 1
    return image


def with_voxel(value: float) -> NDArray[np.float64]:
    """A volume with a voxel that is no intensity."""
    array = blobs().astype(np.float64)
    array[3, 3, 3] = value
    return array


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "two dimensions": (lambda: blobs()[..., 0], "three dimensions"),
    "four dimensions": (lambda: np.stack([blobs()] * 2, axis=-1), "three dimensions"),
    "no directions": (without_codes, "qform_code and sform_code are both 0"),
    "two places": (of_two_forms, "qform and sform disagree"),
    "NaN": (lambda: with_voxel(np.nan), "NaN"),
    "beyond float32": (lambda: with_voxel(1e39), "beyond 3.4e38"),
    "two files": (lambda: [blobs(), blobs()], "the model takes 1 channels"),
}


def written(made: Any, folder: Path, number: int = 0) -> Path:
    """A file of an array or an image."""
    image = nibabel.Nifti1Image(made, PLACE) if isinstance(made, np.ndarray) else made
    path = folder / f"case_{number:04}.nii.gz"
    nibabel.save(image, path)
    return path


class Scripted:
    """A model, and the steps of the scripts that run without medfcn, with its network."""

    def __init__(self, model: Model) -> None:
        self.model, self.about = Ensemble([model]), about(model)
        self.steps = types.ModuleType("steps")
        exec(compile(template("run_pt2.txt"), "steps", "exec"), vars(self.steps))
        self.network = Exportable.of(model.network, model.card.plan, model.head).network

    def run(self, *given: NDArray[Any]) -> NDArray[np.float32]:
        """The logits of a batch, and of the size of its slices if the network looks again at what it found."""
        with torch.inference_mode():
            named = zip(self.about["inputs"], given, strict=False)
            return self.network(*(torch.from_numpy(each) for _, each in named)).numpy()

    def mask(self, paths: list[Path], **changed: Any) -> Any:
        """The script's mask."""
        return self.steps.mask_image(self.run, self.about | changed, [str(path) for path in paths])

    def require_alike(self, paths: list[Path], folder: Path) -> NDArray[Any]:
        """Compare the script's file with that of `predict`, and return the mask."""
        ours, theirs = folder / "ours.nii.gz", folder / "theirs.nii.gz"
        self.model.predict_case([str(path) for path in paths]).mask.save(ours)
        nibabel.save(self.mask(paths), theirs)
        first, second = nibabel.load(ours), nibabel.load(theirs)
        found = np.asarray(first.dataobj)
        assert dice_of(found, np.asarray(second.dataobj)) >= 0.9999
        assert first.get_data_dtype() == second.get_data_dtype()
        for name in GRID:
            assert first.header[name].tobytes() == second.header[name].tobytes(), name
        return found


@pytest.fixture(scope="module")
def robust() -> Scripted:
    return Scripted(
        tiny_model(labels="left=1,right=7", one_part=(1, 2), together=True, context=3, intensities=(ROBUST,))
    )


@pytest.fixture(scope="module")
def two_channels() -> Scripted:
    return Scripted(tiny_model(intensities=(ROBUST, Intensity("none")), one_part=(1,), views=("coronal",)))


@pytest.mark.parametrize("name", PREDICTED)
def test_the_mask_is_that_of_the_run(robust: Scripted, name: str, tmp_path: Path) -> None:
    found = robust.require_alike([written(PREDICTED[name](), tmp_path)], tmp_path)
    assert found.any() != (name in ("constant", "one voxel"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_predict_refuses_the_script_refuses(robust: Scripted, name: str, tmp_path: Path) -> None:
    make, why = REFUSED[name]
    made = make()
    paths = [
        written(each, tmp_path, number) for number, each in enumerate(made if isinstance(made, list) else [made])
    ]
    with pytest.raises(MedfcnError):
        robust.model.predict_case([str(path) for path in paths])
    with pytest.raises(SystemExit, match=why), np.errstate(over="ignore"):
        robust.mask(paths)


@pytest.mark.parametrize(
    "plan",
    [
        {"intensities": (Intensity("zscore"),)},
        {"intensities": (Intensity("ct", lower=-200, upper=300, mean=20, std=90),), "head": "sigmoid"},
        {"intensities": (Intensity("none"),), "labels": "organ=300"},
    ],
    ids=["minimum", "ct", "none"],
)
def test_other_ways_to_scale_and_decide(plan: dict[str, Any], tmp_path: Path) -> None:
    scripted = Scripted(tiny_model(**plan))
    for number, made in enumerate([blobs(), np.full((9, 9, 9), 7, np.int16), masked()]):
        (tmp_path / str(number)).mkdir()
        scripted.require_alike([written(made, tmp_path / str(number))], tmp_path / str(number))


@pytest.mark.parametrize("looks", [False, True], ids=["one look", "looks again"])
def test_slices_a_few_times_the_window_go_through_in_one_piece(looks: bool, tmp_path: Path) -> None:
    path = written(PREDICTED["in tiles"](), tmp_path)
    masks = []
    for whole in (1.25, 4.0):
        model = looking_model(whole=whole) if looks else tiny_model(whole=whole)
        masks.append(Scripted(model).require_alike([path], tmp_path))
        (tmp_path / "ours.nii.gz").unlink()
    assert (masks[0] != masks[1]).any()


def test_channels_are_brought_to_the_grid_of_the_first(two_channels: Scripted, tmp_path: Path) -> None:
    turned = np.diag([1.0, -1.0, 2.0, 1.0])
    turned[0, 3] = -19
    first = written(blobs(), tmp_path)
    second = written(nibabel.Nifti1Image(blobs(seed=1)[::-1].copy(), turned), tmp_path, 1)
    assert two_channels.require_alike([first, second], tmp_path).any()
    apart = written(nibabel.Nifti1Image(blobs(seed=1), PLACE + 5 * np.eye(4, k=3)), tmp_path, 2)
    with pytest.raises(MedfcnError, match="share a grid"):
        two_channels.model.predict_case([str(first), str(apart)])
    with pytest.raises(SystemExit, match="is not on the grid of"):
        two_channels.mask([first, apart])


@pytest.mark.parametrize("name", ["one slice", "smaller than the window", "in tiles", "many lost", "oblique"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_network_that_looks_again_does_so_in_groups_of_slices(
    head: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slice_inferer, "_SLAB_BYTES", 1)
    path, scripted = written(PREDICTED[name](), tmp_path), Scripted(looking_model(head=head))
    scripted.require_alike([path], tmp_path)
    if name == "many lost":
        ours = np.asarray(scripted.mask([path]).dataobj)
        for other in ({"group_pixels": 10**9}, {"batch": 1}):
            assert dice_of(ours, np.asarray(scripted.mask([path], **other).dataobj)) < 0.999


def test_a_channel_of_one_value_makes_an_empty_mask(two_channels: Scripted, tmp_path: Path) -> None:
    paths = [written(blobs(), tmp_path), written(np.full((20, 17, 6), 7, np.int16), tmp_path, 1)]
    assert not two_channels.require_alike(paths, tmp_path).any()


def test_a_volume_much_larger_than_those_of_the_training_is_refused(robust: Scripted, tmp_path: Path) -> None:
    path = written(blobs(), tmp_path)
    with pytest.raises(SystemExit, match="much larger than those of the training"):
        robust.mask([path], most_mm3=20 * 17 * 6 * 2 - 1.0)
    assert np.asarray(robust.mask([path], most_mm3=20 * 17 * 6 * 2 + 1.0).dataobj).any()
    assert about(medfcn.load("hippocampus-mr", device="cpu").models[0])["most_mm3"] > 0
