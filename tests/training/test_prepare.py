"""From files to prepared slices: what nobody labelled stays what it is on the way."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

import medfcn
from medfcn.config import override
from medfcn.datasets import find_dataset
from medfcn.datasets.check import check
from medfcn.errors import DatasetError, MemoryShortError, SettingsError
from medfcn.labels import IGNORED, LabelMap
from medfcn.progress import Lines, Silent
from medfcn.settings import Settings
from medfcn.slices.grid import map_to_network
from medfcn.slices.plan import Plan
from medfcn.slices.preprocess import grid_of
from medfcn.training.prepare import ceiling, plan_training, prepare
from medfcn.training.survey import Survey, prepared_bytes, survey
from medfcn.volumes import ReadOptions, Volume, require_same_grid
from tests.conftest import draw_ball, write_case
from tests.slices.stored_orders import ORDERS, stored_in

IGNORING = LabelMap.parse("ball=1,ignore=255")


def scribble(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask in every third slice; nobody labelled the others."""
    drawn = np.full_like(mask, 255)
    drawn[:, :, ::3] = mask[:, :, ::3]
    return drawn


@pytest.fixture
def scribbled(tmp_path: Path) -> Path:
    for number in range(4):
        image, mask = draw_ball(number)
        write_case(tmp_path / "data", f"ball_{number}", image, scribble(mask))
    return tmp_path / "data"


def surveyed(root: Path, labels: LabelMap | None) -> Survey:
    return survey(find_dataset(root), labels, ReadOptions(), skip_bad=False, progress=Silent())


def test_labels_and_channels_in_any_of_the_48_orders_are_reordered(tmp_path: Path) -> None:
    """`check` names it, and training gets the masks and channels that it would get of files in one order."""
    image, mask = draw_ball(3, (14, 12, 9))
    affine = np.diag([-1.0, -1.0, 1.5, 1.0])
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number, order in enumerate(ORDERS):
        Volume(image + number, affine).save(tmp_path / "images" / f"a{number}_0000.nii.gz")
        Volume(*stored_in(image - number - 1, affine, order)).save(tmp_path / "images" / f"a{number}_0001.nii.gz")
        Volume(*stored_in(mask, affine, order)).save(tmp_path / "labels" / f"a{number}.nii.gz")
    report = check(tmp_path)
    assert not report.errors
    assert {problem.code for problem in report.warnings} == {"READ_NOTE"}
    assert all(case.label is not None and case.label.displacement_voxels == 0 for case in report.cases)
    for found in (surveyed(tmp_path, LabelMap.parse("ball=1")), surveyed(tmp_path, None)):
        again = found.without_volumes()
        for number in range(len(ORDERS)):
            for read in (found.read(f"a{number}"), again.read(f"a{number}")):
                np.testing.assert_array_equal(read.mask.array, mask)
                np.testing.assert_array_equal(read.images[1].array, image - number - 1)
                assert require_same_grid(read.images[0], read.mask) == 0


def test_labels_that_no_mask_holds_are_told_alone(scribbled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DatasetError, match=r"requested labels, foo=7; the masks contain 1; correct labels="):
        survey(
            find_dataset(scribbled),
            LabelMap.parse("foo=7,ignore=255"),
            ReadOptions(),
            skip_bad=False,
            progress=Lines(),
        )
    assert "warning" not in capsys.readouterr().err


def test_ignored_voxels_reach_the_slices_as_they_are(scribbled: Path, tmp_path: Path) -> None:
    found = surveyed(scribbled, IGNORING)
    settings = override(Settings(), "slices", views=("axial",))
    split, plan = plan_training(found, settings, seed=0)
    (tmp_path / "store").mkdir()
    prepared = prepare(found, split, plan, tmp_path / "store", Silent())
    for case in prepared.stored:
        whole = draw_ball(int(case.id[-1]))[1]
        assert found.fingerprints[case.id].label_voxels == (int(whole[:, :, ::3].sum()),)
        assert [bool((labels == IGNORED).all()) for labels in case.labels] == [n % 3 != 0 for n in range(12)]
        assert len(case.label_slices) == 1
        assert all(number % 3 == 0 for number in case.label_slices[0])
        labelled = case.labels[::3]
        assert int((labelled == 1).sum()) == int(whole[:, :, ::3].sum())
        assert set(np.unique(labelled)) <= {0, 1}
    assert set(prepared.ceilings.values()) == {1.0}


def test_the_label_that_dataset_json_ignores_needs_no_option(scribbled: Path) -> None:
    for path in (scribbled / "labels").iterdir():
        mask = nibabel.load(path)
        voxels = np.asarray(mask.dataobj)
        nibabel.save(nibabel.Nifti1Image(np.where(voxels == 255, 2, voxels).astype(np.uint8), mask.affine), path)
    (scribbled / "dataset.json").write_text('{"labels": {"background": 0, "ball": 1, "ignore": 2}}')
    for labels in (None, LabelMap.parse("ball=1")):
        found = surveyed(scribbled, labels)
        assert (found.labels.names, found.labels.ignored) == (("ball",), (2,))
        assert found.fingerprints["ball_0"].label_voxels == (int(draw_ball(0)[1][:, :, ::3].sum()),)
    (scribbled / "dataset.json").write_text('{"labels": {"background": 0, "whole": [1], "ignore": 2}}')
    assert surveyed(scribbled, None).labels.names == ("whole",)


def test_the_ceiling_leaves_out_what_is_ignored(scribbled: Path) -> None:
    """On a coarser grid a wholly labelled case loses as much as before; ignoring the outside loses no more."""
    image, mask = draw_ball(0)
    found = surveyed(scribbled, IGNORING)
    _, plan = plan_training(found, Settings(), seed=0)
    coarse = Plan.from_json(plan.to_json() | {"spacing_mm": [2.5, 2.5, None]})
    volume = Volume(image, np.diag([-1.0, -1.0, 1.5, 1.0]), name="a")

    def best(labels: NDArray[np.uint8]) -> float:
        return ceiling(labels, grid_of(volume, coarse), IGNORING)

    whole = best(mask)
    assert 0.8 < whole < 1.0
    far = mask.copy()
    far[:, :, :2] = IGNORED
    assert best(far) == pytest.approx(whole, abs=0.03)
    inside = np.where(mask == 1, mask, IGNORED).astype(np.uint8)
    assert best(inside) == 1.0


def test_a_case_whose_slices_do_not_fit_is_named_before_they_are_made(
    scribbled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """26 bytes for each voxel of a channel and its mask are asked for; 24 were measured."""
    found = surveyed(scribbled, IGNORING)
    split, plan = plan_training(found, Settings(), seed=0)
    asked: list[tuple[int, str]] = []

    def require(needed: int, purpose: str) -> None:
        asked.append((needed, purpose))
        raise MemoryShortError(f"{purpose}: needs more")

    monkeypatch.setattr("medfcn.training.prepare.require_memory", require)
    first, store = split.training[0], tmp_path / "store"
    store.mkdir()
    with pytest.raises(MemoryShortError, match=f"^{first}: its slices: needs more"):
        prepare(found, split, plan, store, Silent())
    assert asked == [(26 * math.prod(found.fingerprints[first].shape), f"{first}: its slices")]
    assert not list(store.glob("*.npy"))
    for labels in (2, 104):
        many = LabelMap.parse(",".join(f"part_{value}={value}" for value in range(1, labels + 1)))
        assert prepared_bytes(1000, 2, many) == 38_000


def test_the_label_with_the_larger_share_returns_and_the_first_of_equal_ones() -> None:
    """Two voxels of 1 mm become one of 2 mm and return: each label holds half of what it shares with another."""
    grid = map_to_network((4, 1, 1), "RAS", (1.0, 1.0, 1.0), (2.0, 1.0, 1.0))
    names = LabelMap.parse("first=1,second=2")
    whole = np.array([1, 1, 2, 2], dtype=np.uint8).reshape(4, 1, 1)
    assert ceiling(whole, grid, names) == 1.0
    halves = np.array([2, 1, 2, 2], dtype=np.uint8).reshape(4, 1, 1)
    assert ceiling(halves, grid, names) == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.parametrize("verb", ["plan", "train"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stem_stride": 1}, "logits are at full size already; leave restoring out"),
        ({"preset": "fcn8s", "width": 1 / 64}, "this network does not end in these"),
        ({"stem_stride": 2, "upsampling": "bilinear"}, "this network does not end in these"),
    ],
    ids=["full size", "scores", "bilinear"],
)
def test_what_cannot_be_joined_is_refused_by_plan_and_train(
    scribbled: Path, tmp_path: Path, verb: str, settings: dict[str, Any], said: str
) -> None:
    chosen = override(Settings(), "network", restoring="joined", **settings)
    run = medfcn.plan if verb == "plan" else partial(medfcn.train, output=tmp_path / "run", device="cpu")
    with pytest.raises(SettingsError, match=rf"network\.restoring: .*{said}") as caught:
        run(scribbled, labels="ball=1,ignore=255", settings=chosen)
    assert caught.value.field == "network.restoring"


def test_masks_that_are_refused_are_not_called_empty(scribbled: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"^4 of 4 cases cannot be used: ball_0: labels/ball_0\.nii\.gz: label "
    ) as caught:
        medfcn.plan(scribbled)
    assert caught.value.code == "LABEL_VALUES"
    assert "if 255 is a label, say so with" in str(caught.value)
    assert len(str(caught.value)) < 300
