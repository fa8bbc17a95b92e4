"""Volumes that are unlike those of the training are flagged, whatever they are; those of its own kind are not."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, rotate

import medfcn
from medfcn.inference.card import Card, read_card
from medfcn.inference.foreign import FOREIGN, Fingerprint, Span, fingerprint_of, foreign_flags
from medfcn.inference.predictor import Predictor
from medfcn.progress import Silent
from medfcn.settings import NetworkSettings, Settings
from medfcn.slices.appearance import appearance_of
from medfcn.slices.plan import Intensity
from medfcn.volumes import Volume
from tests.inference.kinds import affine, body, ct, mr, other_mr, pet, resampled, stored, volume, write_dataset
from tests.slices.stored_orders import ORDERS, stored_in

TINY = Settings(network=NetworkSettings(preset="fcn8s", width=1 / 16))
SEED = 77
"""A patient who is in no training."""


def _noise(*, like: int = SEED) -> Any:
    return np.random.default_rng(like).normal(size=mr(like).shape)


def _swapped_grid() -> Volume:
    """A header that takes the patient's feet for the left."""
    return volume(np.transpose(mr(SEED), (2, 0, 1)), affine((4.0, 1.5, 1.5)))


KNOWN: dict[str, tuple[Callable[[], Volume], str]] = {
    # Of its own kind, which is never flagged.
    "the same kind": (lambda: volume(mr(SEED)), ""),
    "axes exchanged": (lambda: stored(mr(SEED), ORDERS[29]), ""),
    "axes reversed": (lambda: stored(mr(SEED), ORDERS[7]), ""),
    "times 1000": (lambda: volume(1000 * mr(SEED)), ""),
    "a tenth, plus 500": (lambda: volume(0.1 * mr(SEED) + 500), ""),
    "voxels a tenth smaller": (lambda: resampled(mr(SEED), (1.35, 1.35, 4.0)), ""),
    # Other modalities and contrasts.
    "CT": (lambda: volume(ct(SEED)), "channel image: .*its contrast is another"),
    "PET": (lambda: volume(pet(SEED)), "channel image: .* in training"),
    "another contrast": (lambda: volume(other_mr(SEED)), "channel image: .* in training"),
    "light and dark exchanged": (lambda: volume(-mr(SEED)), "channel image: .* in training"),
    "a mask": (lambda: volume(1.0 * (body(SEED)[0] == 3)), "one value besides its background: is it a mask"),
    # Other voxels, fields of view and orders.
    "cm taken for mm": (lambda: volume(mr(SEED), affine((0.15, 0.15, 0.4))), "unit of length"),
    "voxels of twice the size": (lambda: volume(mr(SEED), affine((3.0, 3.0, 8.0))), "voxels are 3 × 3 × 8 mm"),
    "thick slices": (lambda: volume(mr(SEED)[:, :, ::3], affine((1.5, 1.5, 12.0))), "voxels are 1.5 × 1.5 × 12 mm"),
    "a part of the body": (lambda: volume(mr(SEED)[12:36, 10:30]), "spans 36 × 30 × 64 mm"),
    "a larger frame": (lambda: volume(np.pad(mr(SEED), ((40, 40), (40, 40), (0, 0)))), "spans 192 × 180"),
    "an order that its header does not say": (
        _swapped_grid,
        "in the order A, S, R it would be usual: is the header",
    ),
    "tilted": (lambda: volume(rotate(mr(SEED), 0), _tilted()), "tilted by 45° against"),
    # No image, or a spoilt one.
    "noise": (lambda: volume(_noise()), "is it noise"),
    "drowned in noise": (lambda: volume(mr(SEED) + 2 * mr(SEED).std() * _noise()), "neighbouring voxels along"),
    "smooth noise": (lambda: volume(gaussian_filter(_noise(), 1.0)), "channel image: .* in training"),
    "blurred": (lambda: volume(gaussian_filter(mr(SEED), 4)), "channel image: .* in training"),
    "a ramp": (lambda: volume(np.indices((48, 40, 16)).sum(axis=0)), "channel image: .* in training"),
    "slices in any order": (
        lambda: volume(mr(SEED)[np.random.default_rng(1).permutation(48)]),
        "neighbouring voxels along R are less alike",
    ),
    "constant": (lambda: volume(0 * mr(SEED)), "channel image is constant"),
}


def _tilted() -> Any:
    turn = np.eye(4)
    turn[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    return turn @ affine()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One thin network, trained for two steps on nine bodies in MR."""
    folder = tmp_path_factory.mktemp("foreign")
    data = write_dataset(folder / "data", mr)
    medfcn.train(
        data, folder / "run", labels="organ=1", settings=TINY, steps=2, device="cpu", threads=1, report=False
    )
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> Predictor:
    return medfcn.load(run, device="cpu")


def _foreign(flags: Sequence[str]) -> list[str]:
    return [flag for flag in flags if flag.startswith(FOREIGN)]


@pytest.mark.parametrize("name", list(KNOWN))
def test_what_each_volume_says(name: str, model: Predictor) -> None:
    make, expected = KNOWN[name]
    flags = model.predict_case(make()).flags
    if expected:
        assert any(re.search(expected, flag) for flag in flags), flags
    else:
        assert _foreign(flags) == []


def test_volumes_of_its_own_kind_are_not_flagged(model: Predictor) -> None:
    flagged = [seed for seed in range(100, 140) if _flags(model.card, [volume(mr(seed))])]
    assert len(flagged) <= 2


def _flags(card: Card, volumes: Sequence[Volume]) -> list[str]:
    assert card.fingerprint is not None
    return foreign_flags([(card.fingerprint, card.plan.intensities)], volumes, card.channels)


@pytest.mark.parametrize("order", ORDERS[::5], ids=[f"order_{number}" for number in range(0, 48, 5)])
def test_the_look_of_a_volume_is_that_of_its_other_orders(order: Any) -> None:
    one, other = appearance_of([volume(mr(3))]), appearance_of([stored(mr(3), order)])
    assert other.grid == pytest.approx(one.grid)
    assert other.channels[0] == pytest.approx(one.channels[0], rel=1e-4, abs=1e-5)


def test_the_card_tells_what_was_trained_on(run: Path) -> None:
    found = json.loads((run / "model.json").read_text())["fingerprint"]
    assert found["cases"] == 9
    assert found["orientations"] == ["LPS"]
    assert found["grid"]["spacing_S"]["lowest"] == found["grid"]["spacing_S"]["highest"] == 4
    assert found["grid"]["field_R"]["lowest"] == 72
    levels = found["channels"][0]["level_95"]
    assert levels["least"] < levels["lowest"] < levels["highest"] < levels["most"]
    assert read_card(run / "model.json").fingerprint is not None


def test_channels_that_are_exchanged_are_named(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", ct, pet)
    medfcn.train(
        data, tmp_path / "run", labels="organ=1", settings=TINY, steps=2, device="cpu", threads=1, report=False
    )
    card = medfcn.load(tmp_path / "run", device="cpu").card
    assert [intensity.kind for intensity in card.plan.intensities] == ["ct", "zscore"]
    right = [volume(ct(SEED)), volume(pet(SEED))]
    assert _flags(card, right) == []
    wrong = _flags(card, right[::-1])
    assert len(wrong) == 2
    assert "channel 0000: " in wrong[0]
    assert wrong[0].endswith("it looks like 0001: are the channels in order?")
    assert wrong[1].endswith("it looks like 0000: are the channels in order?")


@pytest.mark.parametrize("change", [lambda hu: hu + 1024, lambda hu: hu / 4, lambda hu: (hu + 1024) * 8])
def test_values_of_ct_that_are_no_hounsfield_units_are_foreign(change: Callable[[Any], Any]) -> None:
    known = [(fingerprint_of([appearance_of([volume(ct(seed))]) for seed in range(8)]), [Intensity("ct", -100, 300)])]
    assert foreign_flags(known, [volume(ct(SEED))], ["CT"]) == []
    assert "% of" in foreign_flags(known, [volume(change(ct(SEED)))], ["CT"])[0]


def test_few_cases_allow_more_than_many() -> None:
    looks = [appearance_of([volume(mr(seed))]) for seed in range(12)]
    allowed = [fingerprint_of(looks[:count]).grid["spacing_S"].most for count in (1, 3, 12)]
    assert allowed == sorted(allowed, reverse=True)
    assert 4 * 1.3 < allowed[-1] < 4 * 1.6
    assert _limits(fingerprint_of(looks[:1]))["median"] > _limits(fingerprint_of(looks))["median"]


def _limits(found: Fingerprint) -> dict[str, float]:
    return {name: span.most - span.least for name, span in found.channels[0].items()}


def test_an_ensemble_knows_what_any_of_its_models_knows() -> None:
    thin = fingerprint_of([appearance_of([volume(mr(seed))]) for seed in range(8)])
    thick = fingerprint_of([appearance_of([volume(mr(s)[:, :, ::3], affine((1.5, 1.5, 12.0)))]) for s in range(8)])
    scaled = [Intensity("zscore", background="robust")]
    seen = [volume(mr(SEED)[:, :, ::3], affine((1.5, 1.5, 12.0)))]
    assert foreign_flags([(thin, scaled)], seen, ["image"])
    assert foreign_flags([(thin, scaled), (thick, scaled)], seen, ["image"]) == []
    assert foreign_flags([], seen, ["image"]) == []


def test_a_slice_by_itself_has_figures() -> None:
    found = fingerprint_of([appearance_of([volume(mr(seed)[:, :, 7:8])]) for seed in range(5)])
    known = [(found, [Intensity("zscore", background="robust")])]
    assert foreign_flags(known, [volume(mr(SEED)[:, :, 7:8])], ["image"]) == []
    assert foreign_flags(known, [volume(_noise()[:, :, 7:8])], ["image"])


@pytest.mark.parametrize("scale", [1e-300, 1e-38, 1e-9, 1e9, 1e30, 3e38, 1e300])
def test_figures_of_any_scale_are_numbers_that_a_card_can_hold(scale: float) -> None:
    array = mr(3) / mr(3).max() * scale
    seen = appearance_of([Volume(array, affine())])
    found = fingerprint_of([seen])
    msgspec.json.decode(msgspec.json.encode(found), type=Fingerprint)
    look = seen.channels[0]
    if look is not None:
        assert np.isfinite(list(look.values())).all()
        assert look["median"] == pytest.approx((appearance_of([volume(mr(3))]).channels[0] or {})["median"], abs=0.01)
    else:
        assert scale in (1e-300, 1e300)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((1, 1, 1)),
        np.arange(2.0).reshape(2, 1, 1),
        np.eye(3)[None].astype(bool),
        np.pad(np.ones((1, 1, 1)), 9),
        np.arange(27, dtype=np.int64).reshape(3, 3, 3) * 10**15,
        np.random.default_rng(0).integers(0, 2, (9, 9, 9)).astype(np.uint8),
    ],
    ids=["one voxel", "two voxels", "no numbers", "a dot", "large numbers", "two values"],
)
def test_odd_volumes_have_figures_or_none(array: Any) -> None:
    seen = appearance_of([Volume(array, affine())])
    found = fingerprint_of([seen])
    assert foreign_flags([(found, [Intensity("zscore", background="robust")])], [Volume(array, affine())], ["i"]) == (
        ["foreign volume: channel i has one value besides its background: is it a mask?"]
        if seen.channels[0] is None and array.min() < array.max()
        else []
    )


def test_spans_rise() -> None:
    assert Span(0, 1, 2, 3).contains(3)
    with pytest.raises(ValueError, match="do not rise"):
        Span(0, 1, 0.5, 3)


class _Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_run_that_knows_nothing_says_so_once(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    card = json.loads((run / "model.json").read_text())
    del card["fingerprint"]
    (tmp_path / "run" / "model.json").write_text(json.dumps(card))
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        volume(ct(number)).save(tmp_path / "images" / f"{number}.nii.gz")
    said = _Said()
    done = medfcn.predict(tmp_path / "run", tmp_path / "images", tmp_path / "masks", device="cpu", progress=said)
    assert sum("nothing is known of the volumes" in line for line in said.lines) == 1
    assert not _foreign([flag for _, flag in done.flags])
    known = medfcn.predict(run, tmp_path / "images", tmp_path / "known", device="cpu", progress=_Said())
    assert len(_foreign([flag for _, flag in known.flags])) == 2
    record = json.loads((tmp_path / "known" / "1.json").read_text())
    assert _foreign(record["flags"])
    assert (tmp_path / "known" / "1.nii.gz").read_bytes() == (tmp_path / "masks" / "1.nii.gz").read_bytes()


def test_real_volumes_of_its_own_kind_and_of_others(shared_data: Path, tmp_path: Path) -> None:
    """A network of two steps on 20 hippocampi, which knows the others, and nothing else."""
    names = sorted(path.name.split(".")[0] for path in (shared_data / "hippocampus" / "images").iterdir())
    medfcn.train(
        shared_data / "hippocampus",
        tmp_path / "run",
        leave_out=names[20:],
        settings=TINY,
        steps=2,
        device="cpu",
        threads=1,
        report=False,
    )
    model = medfcn.load(tmp_path / "run", device="cpu")
    own = [medfcn.read_volume(shared_data / "hippocampus" / "images" / f"{name}.nii.gz") for name in names[60:100]]
    assert sum(bool(_flags(model.card, [one])) for one in own) <= 2
    assert _foreign(model.predict_case(own[0]).flags) == []
    voxels, matrix = own[0].array, own[0].affine
    cut = tuple(slice(40, 40 + size) for size in voxels.shape)
    others = {
        name: medfcn.read_volume(sorted((shared_data / name / "images").glob("*.nii.gz"))[place])
        for name, place in (("sts_ct", 0), ("sts_mr_t1", 0), ("heart_cine", 0), ("sts_petct", 1))
    }
    foreign = {
        **others,
        "CT on its grid": Volume(np.resize(others["sts_ct"].array[cut], voxels.shape), matrix),
        "PET on its grid": Volume(np.resize(others["sts_petct"].array[cut], voxels.shape), matrix),
        "noise": Volume(np.random.default_rng(0).normal(size=voxels.shape).astype(np.float32), matrix),
        "light and dark exchanged": Volume(-voxels.astype(np.float32), matrix),
        "cubed": Volume(voxels.astype(np.float32) ** 3, matrix),
        "cm": Volume(voxels, matrix @ np.diag([0.1, 0.1, 0.1, 1.0])),
        "exchanged axes": Volume(np.ascontiguousarray(np.swapaxes(voxels, 1, 2)), matrix),
    }
    assert {name for name, one in foreign.items() if not _flags(model.card, [one])} == set()
    same = {
        "times 1000": Volume(voxels.astype(np.float32) * 1000, matrix),
        "plus 500": Volume(voxels.astype(np.float32) / 7 + 500, matrix),
        "another order": Volume(*stored_in(voxels, matrix, ORDERS[37])),
    }
    assert {name for name, one in same.items() if _flags(model.card, [one])} == set()


@pytest.mark.parametrize("name", ["heart_cine", "sts_mr_t1", "sts_ct"])
def test_real_volumes_of_other_kinds(name: str, shared_data: Path) -> None:
    files = sorted((shared_data / name / "images").glob("*.nii.gz"))[::2]
    looks = [appearance_of([medfcn.read_volume(file)]) for file in files[:10]]
    scaled = Intensity("ct") if name == "sts_ct" else Intensity("zscore", background="robust")
    known = [(fingerprint_of(looks), [scaled])]

    def flagged(paths: Sequence[Path]) -> int:
        return sum(bool(foreign_flags(known, [medfcn.read_volume(path)], ["image"])) for path in paths)

    assert flagged(files[10:]) <= 0.05 * len(files[10:])
    for other in ("heart_cine", "sts_ct", "hippocampus"):
        if other != name:
            assert flagged(sorted((shared_data / other / "images").glob("*.nii.gz"))[:6]) == 6, other
