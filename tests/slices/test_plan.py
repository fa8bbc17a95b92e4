"""From figures of a data set to a plan: every choice follows from the cases unless it is set."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfcn.config import override
from medfcn.errors import DatasetError, SettingsError
from medfcn.labels import IGNORED
from medfcn.settings import AugmentSettings, Settings, View
from medfcn.slices.appearance import Appearance
from medfcn.slices.augment import CHANGES
from medfcn.slices.fingerprint import CaseFingerprint, fingerprint_case
from medfcn.slices.plan import Plan
from medfcn.slices.planning import make_plan
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.slices.views import VIEWS, parse_views
from medfcn.training.prepare import as_moved
from medfcn.volumes import Volume
from tests.slices.stored_orders import ORDERS, oblique_affine, stored_in


def _case(
    shape: tuple[int, int, int] = (64, 80, 48),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    minimum: float = 0.0,
    voxels: tuple[int, ...] = (500,),
    foreground: Any = (10.0, 20.0, 30.0),
    extent: tuple[float, float, float] = (30.0, 30.0, 30.0),
    right: float = 0.5,
) -> CaseFingerprint:
    return CaseFingerprint(
        id="case",
        shape=shape,
        spacing_mm=spacing,
        extent_mm=extent,
        minimum=(minimum,),
        foreground=(np.array(foreground, dtype=np.float32),),
        label_voxels=voxels,
        largest_shares=tuple(1.0 for _ in voxels),
        right_shares=tuple(right if count else math.nan for count in voxels),
        appearance=Appearance("RAS", {}, ()),
    )


WHOLE = override(Settings(), "slices", crop="never")
"""Training sees whole slices."""
EDGES, SPACINGS = st.integers(1, 700), st.floats(0.5, 2.0)


@pytest.mark.parametrize(("thick", "view"), [(0, "sagittal"), (1, "coronal"), (2, "axial")])
def test_slices_are_taken_across_the_thick_axis(thick: int, view: str) -> None:
    spacing = [0.8, 0.9, 0.8]
    spacing[thick] = 3.0
    case = _case(spacing=(spacing[0], spacing[1], spacing[2]))
    plan = make_plan([case, case, _case()], Settings())
    assert plan.views == (view,)
    assert plan.spacing_mm[thick] is None
    assert [length for length in plan.spacing_mm if length is not None] == [
        pytest.approx(length) for axis, length in enumerate(spacing) if axis != thick
    ]


def test_nearly_isotropic_cases_are_cut_axially() -> None:
    assert make_plan([_case(spacing=(1.0, 1.0, 1.4))], Settings()).views == ("axial",)
    assert make_plan([_case(spacing=(1.4, 1.0, 1.0))], Settings()).views == ("axial",)
    minority = [_case(spacing=(3.0, 1.0, 1.0)), _case(), _case()]
    assert make_plan(minority, Settings()).views == ("axial",)


@pytest.mark.parametrize(
    ("extent", "view"),
    [((20, 40, 20), "coronal"), ((40, 20, 20), "sagittal"), ((20, 20, 40), "axial"), ((33, 20, 30), "axial")],
)
def test_an_isotropic_organ_is_cut_across_its_longest_direction(
    extent: tuple[float, float, float], view: str
) -> None:
    assert make_plan([_case(extent=extent), _case(extent=(0.0, 0.0, 0.0))], Settings()).views == (view,)


@pytest.mark.parametrize(
    ("extent", "view"), [((60, 20, 20), "axial"), ((60, 40, 20), "coronal"), ((60, 20, 40), "axial")]
)
@pytest.mark.parametrize("sides", [(1.0, 0.0), (0.5, 0.1, 0.9)])
def test_a_pair_of_organs_on_either_side_is_never_cut_sagittally(
    extent: tuple[float, float, float], view: str, sides: tuple[float, ...]
) -> None:
    """A sagittal slice of the left one looks like one of the right one."""

    def plan(shares: tuple[float, ...], voxels: tuple[int, ...]) -> Plan:
        case = dataclasses.replace(_case(extent=extent, voxels=voxels), right_shares=shares)
        return make_plan([case, case], Settings())

    even = (500,) * len(sides)
    assert plan(sides, even).views == (view,)
    assert "in planes that tell left from right" in plan(sides, even).reasons["views"]
    for shares, voxels in ((sides, (*even[1:], 1001)), ((0.5,) * len(sides), even), ((1.0,) * len(sides), even)):
        assert plan(shares, voxels).views == ("sagittal",)


@pytest.mark.parametrize(("spacing", "wanted"), [((4.0, 1.0, 1.0), "auto"), ((1.0, 1.0, 1.0), ("sagittal",))])
def test_sagittal_slices_of_a_pair_say_that_they_do_not_tell_its_sides(
    spacing: tuple[float, float, float], wanted: Any
) -> None:
    """Across the thick axis, or as set."""
    case = dataclasses.replace(_case(spacing=spacing, voxels=(500, 500)), right_shares=(1.0, 0.0))
    middle = dataclasses.replace(case, right_shares=(0.5, 0.5))
    chosen = override(Settings(), "slices", views=wanted)
    of_pair, other = (make_plan([each, each], chosen) for each in (case, middle))
    assert of_pair.views == other.views == ("sagittal",)
    said = "; such slices do not tell left from right: take others (--views)"
    assert of_pair.reasons["views"] == other.reasons["views"] + said
    both = make_plan([case, case], override(Settings(), "slices", views=("axial", "sagittal")))
    assert said not in both.reasons["views"]


def test_all_views_are_named_where_several_labels_would_gain_by_them() -> None:
    for extent in ((20.0, 40.0, 20.0), (30.0, 30.0, 30.0)):
        for voxels, is_named in (((500, 500), True), ((500,), False)):
            reason = make_plan([_case(extent=extent, voxels=voxels)], Settings()).reasons["views"]
            assert ("--views all" in reason) == is_named
    thick = make_plan([_case(spacing=(1.0, 1.0, 3.0), voxels=(500, 500))], Settings())
    assert "--views all" not in thick.reasons["views"]
    lesions = [_case(spacing=(1.0, 1.0, 3.0), voxels=(count,)) for count in (50, 5000)]
    assert "--views all may find more of lesions" in make_plan(lesions, Settings()).reasons["views"]


ALL_VIEWS = override(Settings(), "slices", views="all")
TUMOUR: dict[str, Any] = {"shape": (120, 120, 54), "spacing": (1.0, 1.0, 3.3), "extent": (70.0, 60.0, 105.0)}


@pytest.mark.parametrize(
    ("changed", "apart"),
    [
        ({}, (3, 3, 3)),
        ({"extent": (70.0, 40.0, 105.0)}, (3, 2, 3)),  # 16 slices across the organ
        ({"extent": (15.0, 15.0, 9.0)}, (3, 1, 1)),  # nothing is lost along the thick axis
        ({"spacing": (1.0, 3.3, 1.0)}, (3, 3, 3)),
        ({"spacing": (1.0, 1.0, 1.8)}, ()),
        ({"spacing": (1.0, 3.0, 3.0)}, ()),
        ({"spacing": (1.0, 1.0, 100.0), "extent": (900.0, 900.0, 900.0)}, (32, 32, 32)),
    ],
    ids=str,
)
def test_slices_that_were_not_recorded_are_interpolated(changed: dict[str, Any], apart: tuple[int, ...]) -> None:
    plan = make_plan([_case(**TUMOUR | changed)], ALL_VIEWS)
    assert plan.apart == apart
    assert ("apart" in plan.reasons) == ("apart" in plan.to_json()) == bool(apart)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert make_plan([_case(**TUMOUR | changed)], override(ALL_VIEWS, "slices", apart=1)).apart == ()


LARGE_LESIONS = [_case(**TUMOUR, voxels=(count,)) for count in (4_000, 20_000, 90_000)]


def test_large_lesions_in_thick_slices_are_seen_along_three_views_in_fewer_than_half_of_the_slices() -> None:
    plan = make_plan(LARGE_LESIONS, Settings())
    assert (plan.views, plan.spacing_mm, plan.apart) == (VIEWS, (1.0, 1.0, 1.0), (8, 8, 8))
    assert plan.reasons["views"].startswith("all, for large lesions")
    assert "prediction sees fewer than half as many" in plan.reasons["apart"]
    pixels = sum(np.prod(TUMOUR["shape"]) * 3.3 / apart for apart in plan.apart)
    assert pixels <= 1.5 * np.prod(TUMOUR["shape"])  # so a prediction costs about as much as with one view
    assert make_plan([_case(**TUMOUR)] * 3, Settings()).views == ("axial",)  # organs


def test_of_few_large_lesions_prediction_takes_half_of_its_statistics_from_the_volume() -> None:
    few = (LARGE_LESIONS * 11)[:32]
    plan = make_plan(few, Settings())
    assert plan.own_statistics == plan.to_json()["own_statistics"] == 0.5
    assert plan.reasons["own_statistics"].startswith("lesions of 32 cases, at most 32: prediction takes half")
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    for cases, changed in (
        ([*few, few[0]], Settings()),
        ([_case(**TUMOUR)] * 3, ALL_VIEWS),  # organs
        (few, override(Settings(), "slices", views=("axial",))),
        (few, override(Settings(), "slices", own_statistics="never")),
        *((few, override(Settings(), "network", normalisation=kind)) for kind in ("instance", "group", "none")),
        (few, override(ALL_VIEWS, "network", monai="BasicUNet")),
        (few, override(ALL_VIEWS, "network", preset="fcn8s")),
    ):
        other = make_plan(cases, changed)
        assert other.own_statistics == 0
        assert "own_statistics" not in {*other.reasons, *other.to_json()}  # as in cards of before
    for share in (0.0, 1.1, -0.5):
        with pytest.raises(SettingsError, match=r"slices\.own_statistics: .* auto, never, or a share above 0"):
            override(Settings(), "slices", own_statistics=share)


@pytest.mark.parametrize(
    "changed",
    [
        {"extent": (70.0, 40.0, 105.0)},  # less than six slices would see it
        {"spacing": (1.0, 1.0, 4.2)},
        {"shape": (512, 512, 54)},
        {"spacing": (1.0, 1.0, 1.2)},
    ],
    ids=str,
)
def test_other_lesions_are_seen_along_one_view(changed: dict[str, Any]) -> None:
    plan = make_plan([_case(**TUMOUR | changed, voxels=(count,)) for count in (4_000, 20_000, 90_000)], Settings())
    assert (len(plan.views), plan.apart) == (1, ())


@pytest.mark.parametrize(
    ("table", "changed"),
    [
        ("slices", {"spacing_mm": (1.0, 2.0)}),
        ("slices", {"window": (64, 64)}),
        ("slices", {"views": ("axial",)}),
        ("network", {"preset": "fcn8s"}),
        ("network", {"monai": "BasicUNet", "monai_arguments": {"features": [8, 8, 16, 16, 16, 8]}}),
    ],
    ids=str,
)
def test_other_settings_of_slices_keep_lesions_at_one_view(table: str, changed: dict[str, Any]) -> None:
    assert make_plan(LARGE_LESIONS, override(Settings(), table, **changed)).views == ("axial",)


def test_slices_left_out_can_be_set_for_several_views_alone() -> None:
    two = override(Settings(), "slices", views=("axial", "sagittal"), apart=5)
    plan = make_plan([_case(**TUMOUR)], two)
    assert (plan.apart, plan.reasons["apart"]) == ((5, 5), "as set")
    assert [plan.apart_along(view) for view in VIEWS] == [5, 1, 5]
    assert make_plan([_case(**TUMOUR)], Settings()).apart == ()
    with pytest.raises(SettingsError, match=r"slices\.apart: 5: there is one view"):
        make_plan([_case(**TUMOUR)], override(Settings(), "slices", apart=5))
    for apart in (0, 33):
        with pytest.raises(SettingsError, match=r"slices\.apart: .* auto, or a number from 1 to 32"):
            override(Settings(), "slices", apart=apart)


@given(st.tuples(EDGES, EDGES, EDGES), st.tuples(SPACINGS, SPACINGS, SPACINGS))
@settings(max_examples=100, deadline=None)
def test_several_views_share_one_spacing_and_a_window_that_fits_each(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    plan = make_plan([_case(shape, spacing)], override(Settings(), "slices", views="all"))
    assert plan.views == VIEWS
    assert plan.spacing_mm == (sorted(spacing)[1],) * 3
    stride = plan.stem_stride * 2 ** (len(plan.widths) - 1)
    for view in VIEWS:
        axes = [axis for axis in range(3) if axis != VIEW_AXIS[view]]
        pixels = [shape[axis] * spacing[axis] / sorted(spacing)[1] for axis in axes]
        largest = 192 * plan.stem_stride
        assert min(*pixels, largest) / stride >= 4 or len(plan.widths) == 1
        for edge, size in zip(plan.window, pixels, strict=True):
            assert edge >= min(size, largest) - stride / 4


def test_views_are_kept_in_one_order_and_in_one_spacing() -> None:
    chosen = override(Settings(), "slices", views=("sagittal", "axial"), spacing_mm=(0.7, 0.7))
    plan = make_plan([_case()], chosen)
    assert plan.views == ("axial", "sagittal")
    assert plan.spacing_mm == (0.7, 0.7, 0.7)
    with pytest.raises(SettingsError, match=r"\(0\.7, 0\.8\) differ"):
        make_plan([_case()], override(chosen, "slices", spacing_mm=(0.7, 0.8)))


@pytest.mark.parametrize(
    "text", ["", "oblique", "axial,", "axial,axial", "all,axial", "Axial", ["axial", "auto"], []]
)
def test_views_that_are_none_are_refused(text: str | list[str]) -> None:
    with pytest.raises(SettingsError, match="auto, all, or some of axial, coronal, sagittal"):
        parse_views(text)


def test_ct_is_told_by_its_air() -> None:
    ct = make_plan([_case(minimum=-1024.0, foreground=np.arange(1000))], Settings()).intensities[0]
    assert ct.kind == "ct"
    assert ct.lower == pytest.approx(np.percentile(np.arange(1000), 0.5))
    assert ct.upper == pytest.approx(np.percentile(np.arange(1000), 99.5))
    assert ct.mean == pytest.approx(499.5, abs=0.1)
    assert make_plan([_case(minimum=-400.0)], Settings()).intensities[0].kind == "zscore"


@given(EDGES, EDGES, st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=200, deadline=None)
def test_windows_and_widths_fit_the_slices(first: int, second: int, spacing: float) -> None:
    plan = make_plan([_case((first, second, 20), (spacing, spacing, spacing))], WHOLE)
    stride = plan.stem_stride * 2 ** (len(plan.widths) - 1)
    assert plan.stem_stride == (4 if min(first, second) > 384 else 2 if min(first, second) >= 96 else 1)
    largest = 192 * plan.stem_stride
    shortest = min(first, second, largest)
    assert shortest / stride >= 4 or len(plan.widths) == 1
    assert len(plan.widths) == 6 or shortest / (2 * stride) < 4, "another level would have kept 4 pixels"
    for edge, size in zip(plan.window, (first, second), strict=True):
        assert edge % stride == 0
        assert edge <= largest
        assert edge >= min(size, largest) - stride / 4
    assert 8 <= plan.batch_size <= Settings().training.batch_size
    pixels = plan.batch_size * plan.window[0] * plan.window[1] / plan.stem_stride**2
    assert plan.batch_size == 8 or pixels <= 16 * 96 * 96
    assert list(plan.widths) == sorted(plan.widths)


@given(EDGES, EDGES, st.sampled_from(["never", "auto", "always"]), st.integers(1, 3), st.sampled_from([-1000.0, 0.0]))
@settings(max_examples=50, deadline=None)
def test_a_plan_returns_from_json(first: int, second: int, mirror: str, labels: int, minimum: float) -> None:
    chosen = override(Settings(), "augment", mirror=mirror)
    plan = make_plan([_case((first, second, 9), minimum=minimum, voxels=(5,) * labels)], chosen)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_large_slices_go_through_in_one_piece_but_in_runs_from_before() -> None:
    plain = make_plan([_case()], Settings()).to_json()
    assert plain.pop("whole") == 4.0
    before = Plan.from_json(plain)
    assert before.whole == 1.25
    assert before.to_json() == plain


@pytest.mark.parametrize("view", VIEWS)
def test_several_labels_are_never_mirrored_across_left_and_right(view: View) -> None:
    for views in ((view,), "all"):
        chosen = override(override(Settings(), "slices", views=views), "augment", mirror="auto")
        axes = [axis for axis in range(3) if axis != {"sagittal": 0, "coronal": 1, "axial": 2}[view]]
        two = make_plan([_case(voxels=(5, 5)), _case(voxels=(500, 500))], chosen).mirrored(view)
        assert [axes[place] for place in two] == [axis for axis in axes if axis != 0]
        assert make_plan(_LESIONS, chosen).mirrored(view) == (0, 1)
        assert make_plan([_case(voxels=(5, 5))], override(chosen, "augment", mirror="never")).mirrored(view) == ()


_LESIONS = tuple(_case(voxels=(count,)) for count in (100, 1000, 10_000))


def test_lesions_are_mirrored_and_organs_are_not() -> None:
    organs = make_plan([_case(voxels=(count,)) for count in (500, 600, 800)], Settings())
    lesions = make_plan(_LESIONS, Settings())
    assert (organs.mirror_axes, lesions.mirror_axes) == ((), (0, 1, 2))
    assert organs.reasons["mirror_axes"].startswith("off: label volumes vary little (×1.2)")
    assert lesions.reasons["mirror_axes"].startswith("both in-plane axes: label volumes vary much (×6.6)")
    always, never = (override(Settings(), "augment", mirror=mirror) for mirror in ("always", "never"))
    assert make_plan([_case()], always).mirror_axes == (0, 1, 2)
    assert make_plan(_LESIONS, never).mirror_axes == ()


@pytest.mark.parametrize("right", [0.05, 0.95])
def test_a_label_on_one_side_is_not_mirrored_onto_the_other(right: float) -> None:
    sided = [dataclasses.replace(case, right_shares=(right,)) for case in _LESIONS]
    plan = make_plan([*sided, _case(voxels=(0,))], Settings())
    assert plan.mirror_axes == (1, 2)
    assert "keeps to one side" in plan.reasons["mirror_axes"]
    sided[0] = dataclasses.replace(sided[0], right_shares=(1 - right,))
    assert make_plan(sided, Settings()).mirror_axes == (0, 1, 2)


def _affine_of(orientation: str) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, towards in enumerate(orientation):
        affine["LRPAIS".index(towards) // 2, axis] = 1 if towards in "RAS" else -1
    return affine


@pytest.mark.parametrize(("orientation", "voxel"), [("RAS", (9, 2, 3)), ("LPS", (0, 2, 3)), ("ASR", (2, 3, 9))])
def test_the_right_half_is_the_patients(orientation: str, voxel: tuple[int, int, int]) -> None:
    shape = (4, 5, 10) if orientation == "ASR" else (10, 4, 5)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[voxel] = 1
    image = Volume(np.ones(shape, dtype=np.float32), _affine_of(orientation))
    assert fingerprint_case("case", [image], labels, 1).right_shares == (1.0,)
    labels[:] = 1
    assert fingerprint_case("case", [image], labels, 1).right_shares == (0.5,)
    assert math.isnan(fingerprint_case("case", [image], np.zeros_like(labels), 1).right_shares[0])


@pytest.mark.parametrize("cases", [[], [_case(voxels=(0,))], [_case(voxels=(0, 0)), _case(voxels=(0, 0))]])
def test_a_data_set_without_foreground_is_refused(cases: list[CaseFingerprint]) -> None:
    with pytest.raises(DatasetError, match="foreground"):
        make_plan(cases, Settings())


SET: list[tuple[str, str, Any, Callable[[Plan], Any]]] = [
    ("slices", "views", ("coronal", "sagittal"), lambda plan: plan.views),
    ("slices", "context", 5, lambda plan: plan.context),
    ("slices", "spacing_mm", (0.7, 2.5), lambda plan: tuple(plan.spacing_mm[:2])),
    ("slices", "window", (24, 56), lambda plan: plan.window),
    ("slices", "normalisation", "ct", lambda plan: plan.intensities[0].kind),
    ("network", "widths", (3, 5), lambda plan: plan.widths),
    ("slices", "crop", (24, 32), lambda plan: plan.crop),
    ("augment", "movement", "strong", lambda plan: plan.movement),
    ("slices", "turns", (-30.0, 45.0), lambda plan: plan.turns),
    ("slices", "own_statistics", 0.3, lambda plan: plan.own_statistics),
    ("training", "batch_size", 3, lambda plan: plan.batch_size),
]


@pytest.mark.parametrize(("table", "name", "value", "read"), SET, ids=[name for _, name, _, _ in SET])
def test_a_setting_overrides_the_plan(table: str, name: str, value: Any, read: Callable[[Plan], Any]) -> None:
    assert read(make_plan([_case()], Settings())) != value
    assert read(make_plan([_case()], override(Settings(), table, **{name: value}))) == value


def test_every_choice_has_a_reason() -> None:
    plan = make_plan([_case()], Settings())
    assert {"views", "spacing_mm", "context", "widths", "window", "batch_size", "mirror_axes"} <= set(plan.reasons)


BROKEN: dict[str, Any] = {
    "views": ["axial", "oblique"],
    "spacing_mm": [1.0, 0.0, None],
    "window": [0, 8],
    "context": 2,
    "widths": [0],
    "intensities": [{"kind": "zscore", "lower": 0, "upper": 0, "mean": float("nan"), "std": 1}],
    "batch_size": "many",
    "mirror_axes": [3],
    "reasons": [],
    "crop": [512, 8],
    "movement": "wild",
    "turns": [200.0],
    "apart": [2, 2],
    "own_statistics": 1.5,
    "whole": 0.5,
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_plan_that_cannot_be_used_is_refused_by_the_name_of_its_field(name: str) -> None:
    plain = json.loads(json.dumps(make_plan([_case()], Settings()).to_json()))
    with pytest.raises((ValueError, TypeError), match=name):
        Plan.from_json(plain | {name: BROKEN[name]})


@pytest.mark.parametrize("window", [(16, 100_000), (2**13 + 8, 8), (8192, 4096)], ids=str)
def test_windows_that_no_slice_fills_are_refused_before_anything_is_made(window: tuple[int, int]) -> None:
    """Each slice is filled up to them: 12 slices of 64×64 took 8.7 GB in a card's window of 100000×160."""
    plain = make_plan([_case()], Settings()).to_json()
    with pytest.raises(ValueError, match=r"plan\.window cannot be"):
        Plan.from_json(plain | {"window": list(window)})
    for name in ("window", "crop"):
        with pytest.raises(SettingsError, match=f"slices.{name}: .* two numbers of pixels from 8 to 8192"):
            override(Settings(), "slices", **{name: window})


def _volume_and_labels() -> tuple[Any, Any, Any]:
    random = np.random.default_rng(0)
    labels = np.zeros((12, 10, 8), dtype=np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    labels[8, 8, 6] = labels[8, 8, 0] = labels[8, 7, 6] = 2
    return random.integers(-50, 900, labels.shape).astype(np.int16), labels, oblique_affine(5, (0.5, 0.7, 2.0))


def test_a_fingerprint_counts_what_is_there() -> None:
    image, labels, _ = _volume_and_labels()
    affine = np.diag([-0.5, 0.7, 2.0, 1.0])
    found = fingerprint_case("case", [Volume(image, affine), Volume(image * 2, affine)], labels, 3)
    assert found.shape == (12, 10, 8)
    assert found.spacing_mm == pytest.approx((0.5, 0.7, 2.0))
    assert found.label_voxels == (27, 3, 0)
    assert found.minimum == (image.min(), 2 * image.min())
    assert sorted(found.foreground[0].tolist()) == sorted(image[labels > 0].tolist())
    assert found.largest_shares[:2] == (1.0, pytest.approx(2 / 3))
    assert np.isnan(found.largest_shares[2])


@pytest.mark.parametrize("order", range(0, 48, 7))
def test_a_fingerprint_is_the_same_from_every_stored_order(order: int) -> None:
    image, labels, affine = _volume_and_labels()
    base = fingerprint_case("case", [Volume(image, affine)], labels, 2)
    stored, stored_affine = stored_in(image, affine, ORDERS[order])
    found = fingerprint_case("case", [Volume(stored, stored_affine)], stored_in(labels, affine, ORDERS[order])[0], 2)
    assert (found.shape, found.spacing_mm, found.minimum) == (base.shape, base.spacing_mm, base.minimum)
    assert (found.label_voxels, found.largest_shares) == (base.label_voxels, base.largest_shares)
    assert sorted(found.foreground[0].tolist()) == sorted(base.foreground[0].tolist())


@pytest.mark.parametrize("count", [9_999, 10_000, 10_001, 19_999, 45_000])
def test_a_fingerprint_keeps_at_most_ten_thousand_intensities(count: int) -> None:
    labels = np.zeros((50, 50, 20), dtype=np.uint8)
    labels.reshape(-1)[:count] = 1
    image = np.arange(labels.size, dtype=np.float32).reshape(labels.shape)
    kept = fingerprint_case("case", [Volume(image, np.eye(4))], labels, 1).foreground[0]
    assert min(count, 5_000) <= len(kept) <= 10_000
    assert kept.mean() == pytest.approx(count / 2, rel=0.01)


def test_what_is_ignored_is_no_foreground() -> None:
    random = np.random.default_rng(0)
    image = Volume(random.integers(0, 100, (12, 10, 8)).astype(np.int16), np.eye(4))
    labels = np.zeros((12, 10, 8), dtype=np.uint8)
    labels[4:6, 4:7, 2:5] = 1
    labels[5, 5, 6] = 2
    scribbled = labels.copy()
    scribbled[labels == 0] = IGNORED
    plain, found = (fingerprint_case("a", [image], mask, 2) for mask in (labels, scribbled))
    assert found.label_voxels == plain.label_voxels
    assert found.extent_mm == plain.extent_mm
    assert found.largest_shares == plain.largest_shares
    assert np.array_equal(found.foreground[0], plain.foreground[0])


def _like(**changed: Any) -> Plan:
    """The plan of a run on sagittal slices of 0.7 × 0.9 mm."""
    settings = override(Settings(), "slices", views=("sagittal",), spacing_mm=(0.7, 0.9), context=3)
    settings = override(override(settings, "slices", normalisation="ct"), "network", widths=(8, 16))
    return dataclasses.replace(make_plan([_case()], settings), **changed)


def test_what_a_run_was_trained_on_is_kept_and_said() -> None:
    case, like = _case(shape=(64, 160, 48), extent=(30, 60, 30)), _like()
    plan = make_plan([case], override(Settings(), "slices", context=3), like=like)
    for name in ("views", "spacing_mm", "context", "widths"):
        assert getattr(plan, name) == getattr(like, name)
        assert plan.reasons[name].endswith("as in the run it starts from"), name
    assert [intensity.kind for intensity in plan.intensities] == ["ct"]
    assert plan.reasons["normalisation of channel 0"] == "ct: as in the run it starts from"
    assert make_plan([case], Settings()).views == ("coronal",)


def test_the_window_and_the_figures_of_ct_follow_from_the_new_cases() -> None:
    settings = override(Settings(), "slices", context=3)
    small, large = (
        make_plan([_case(shape=(64, edge, edge), foreground=(0.0, edge))], settings, like=_like())
        for edge in (40, 90)
    )
    assert max(small.window) < min(large.window)
    assert small.intensities[0].upper < large.intensities[0].upper


def test_what_the_user_sets_goes_before_the_run() -> None:
    settings = override(
        Settings(),
        "slices",
        views=("axial",),
        spacing_mm=(2.0, 2.0),
        normalisation="zscore",
        window=(32, 32),
        context=1,
    )
    plan = make_plan([_case()], override(settings, "network", widths=(4, 4, 4)), like=_like())
    assert (plan.views, plan.spacing_mm) == (("axial",), (2.0, 2.0, None))
    assert (plan.widths, plan.context) == ((4, 4, 4), 1)
    assert plan.intensities[0].kind == "zscore"
    assert not any("the run" in reason for reason in plan.reasons.values())


def test_another_view_than_the_runs_has_its_own_spacing() -> None:
    plan = make_plan([_case(spacing=(1.0, 1.1, 1.2))], override(Settings(), "slices", views=("axial",)), like=_like())
    assert plan.spacing_mm == (1.0, 1.1, None)


def test_several_views_of_a_run_and_their_spacing_are_kept() -> None:
    like = make_plan([_case()], override(Settings(), "slices", views="all", spacing_mm=(0.8, 0.8)))
    case = _case(spacing=(1.0, 1.1, 1.2))
    plan = make_plan([case], Settings(), like=like)
    assert (plan.views, plan.spacing_mm) == (VIEWS, (0.8, 0.8, 0.8))
    one = make_plan([case], override(Settings(), "slices", views=("coronal",)), like=like)
    assert (one.views, one.spacing_mm) == (("coronal",), (0.8, None, 0.8))
    assert make_plan([case], override(Settings(), "slices", views="all"), like=_like()).spacing_mm == (1.1,) * 3


@pytest.mark.parametrize(
    ("thick", "apart", "context"),
    [(1.0, "1 pixel", 3), (2.0, "2 pixels", 3), (2.1, "2.1 pixels", 1), (10.0, "10 pixels", 1)],
)
@pytest.mark.parametrize("in_plane", [0.5, 1.0])
def test_neighbours_come_along_where_they_lie_close(thick: float, apart: str, context: int, in_plane: float) -> None:
    plan = make_plan([_case(spacing=(in_plane, in_plane, in_plane * thick))], Settings())
    assert plan.context == context
    assert f"slices lie {apart} apart" in plan.reasons["context"]


def test_cases_of_one_slice_have_no_neighbours() -> None:
    alone, thick = _case(shape=(64, 52, 1), spacing=(3.0, 3.0, 5.0)), _case(spacing=(3.0, 3.0, 5.0))
    plan = make_plan([alone, alone, thick], Settings())
    assert plan.context == 1
    assert plan.reasons["context"] == "the slice alone: 2 of 3 cases have no other"
    assert make_plan([alone, thick, thick], Settings()).context == 3


def test_a_design_of_the_literature_sees_the_slice_alone() -> None:
    assert make_plan([_case()], override(Settings(), "network", preset="fcn8s"), stride=32).context == 1


@pytest.mark.parametrize(("wanted", "context"), [(None, 3), (1, 1), (5, 5)])
def test_the_runs_context_is_kept_unless_it_is_set(wanted: int | None, context: int) -> None:
    plan = make_plan([_case()], override(Settings(), "slices", context=wanted), like=_like())
    assert plan.context == context


def test_a_channel_that_the_run_did_not_have_is_chosen_from_the_cases() -> None:
    case = _case()
    two = dataclasses.replace(case, minimum=(0.0, 0.0), foreground=case.foreground * 2)
    plan = make_plan([two], Settings(), like=_like())
    assert [intensity.kind for intensity in plan.intensities] == ["ct", "zscore"]
    assert plan.reasons["normalisation of channel 1"].startswith("zscore: the median minimum")


def test_channels_are_scaled_as_nnunet_names_them() -> None:
    case = _case()
    case = dataclasses.replace(case, minimum=(0.0,) * 5, foreground=case.foreground * 5)
    plan = make_plan([case], Settings(), channels=("CT", "noNorm", "zscore", "rescale_0_1", "MRI"))
    assert [intensity.kind for intensity in plan.intensities] == ["ct", "none", "zscore", "zscore", "zscore"]
    assert plan.reasons["normalisation of channel 0"] == "ct: the channel is named CT, as in nnU-Net"
    assert plan.reasons["normalisation of channel 1"] == "none: the channel is named noNorm, as in nnU-Net"
    assert plan.reasons["normalisation of channel 3"].endswith("nnU-Net's rescale_0_1 is not available here")
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    as_set = make_plan([case], override(Settings(), "slices", normalisation="zscore"), channels=("CT",) * 5)
    assert {intensity.kind for intensity in as_set.intensities} == {"zscore"}


def test_the_slices_of_a_body_are_seen_whole() -> None:
    plan = make_plan([_case(shape=(512, 512, 120), spacing=(0.8, 0.8, 3.0))], WHOLE)
    assert plan.window == (512, 512)
    assert (plan.stem_stride, plan.widths) == (4, (32, 64, 128, 256, 256, 256))
    assert plan.reasons["stem_stride"] == "slices whose shorter edge has 512 pixels are quartered at once"


def test_an_organ_in_large_slices_is_trained_in_parts_of_them() -> None:
    """As the hearts: half of each edge, or the organ with an eighth on either side."""
    heart = _case(shape=(216, 256, 10), spacing=(1.5, 1.5, 10.0), extent=(120.0, 110.0, 80.0))
    plan, whole = (make_plan([heart], chosen) for chosen in (Settings(), WHOLE))
    assert (plan.window, plan.crop, plan.trained) == ((224, 256), (112, 128), (112, 128))
    assert (whole.crop, whole.trained) == (None, whole.window)
    assert plan.stem_stride == whole.stem_stride == 2  # so a prediction costs as much
    assert plan.batch_size == 20
    assert (plan.movement, whole.movement) == ("strong", "usual")
    assert (plan.turns, whole.turns) == ((20.0, -20.0), ())
    assert {"crop", "movement", "turns"} <= set(plan.reasons) - set(whole.reasons)
    assert not {"crop", "movement", "turns"} & set(whole.to_json())  # as in cards of before
    for made in (plan, whole):
        again = Plan.from_json(json.loads(json.dumps(made.to_json())))
        assert (again, again.to_json()) == (made, made.to_json())
    wide = dataclasses.replace(heart, extent_mm=(240.0, 240.0, 80.0))
    assert make_plan([wide], Settings()).crop is None  # 1.25 × 160 pixels of 216 and of 256 are not few
    small = _case(shape=(180, 180, 10), spacing=(1.5, 1.5, 10.0))
    assert make_plan([small], Settings()).crop is None
    lesions = [dataclasses.replace(heart, label_voxels=(count,)) for count in (50, 5000)]
    assert make_plan(lesions, Settings()).crop is None
    for table, name, value in (("slices", "window", (256, 256)), ("network", "preset", "fcn8s")):
        assert make_plan([heart], override(Settings(), table, **{name: value})).crop is None


def test_no_further_look_where_none_is_wanted() -> None:
    heart = _case(shape=(216, 256, 10), spacing=(1.5, 1.5, 10.0), extent=(120.0, 110.0, 80.0))
    plan = make_plan([heart], override(Settings(), "slices", turns="never"))
    assert (plan.turns, plan.crop) == ((), (112, 128))
    assert "turns" not in plan.reasons
    for turns in ((), (181.0,), (10.0,) * 9):
        with pytest.raises(SettingsError, match=r"slices\.turns: .* auto, never, or 1 to 8 angles"):
            override(Settings(), "slices", turns=turns)


def test_a_crop_that_is_set_goes_before_the_plan() -> None:
    plan = make_plan([_case()], override(Settings(), "slices", crop=(24, 32)))
    assert (plan.crop, plan.reasons["crop"], plan.movement) == ((24, 32), "as set", "strong")
    both = override(override(Settings(), "slices", crop=(24, 32)), "augment", movement="usual")
    assert make_plan([_case()], both).movement == "usual"
    with pytest.raises(SettingsError, match="more than the window's 64×80"):
        make_plan([_case()], override(Settings(), "slices", crop=(24, 96)))


def test_other_movement_leaves_what_is_set() -> None:
    heart = _case(shape=(216, 256, 10), spacing=(1.5, 1.5, 10.0))
    chosen = override(Settings(), "augment", rotation_degrees=5.0)
    augment = as_moved(chosen, make_plan([heart], chosen)).augment
    assert (augment.rotation_degrees, augment.scale, augment.still_share) == (5.0, 0.35, 0.0)
    assert as_moved(chosen, make_plan([heart], WHOLE)) == chosen
    small = override(chosen, "augment", movement="small")
    augment = as_moved(small, make_plan([heart], small)).augment
    assert (augment.rotation_degrees, augment.scale, augment.shear, augment.still_share) == (5.0, 0.1, 0.05, 0.67)
    for values in CHANGES.values():
        assert values.keys() <= {part.name for part in dataclasses.fields(AugmentSettings)}


def test_lesions_are_moved_half_as_far() -> None:
    lesions = [_case(voxels=(count,)) for count in (400, 8_000, 40_000)]
    plan, organ = make_plan(lesions, Settings()), make_plan([_case()] * 3, Settings())
    assert (plan.movement, organ.movement) == ("small", "usual")
    assert plan.reasons["movement"].startswith("lesions differ much")
    assert "movement" not in organ.to_json()  # as in cards of before
    kept = override(Settings(), "augment", mirror="never")
    assert make_plan(lesions, kept).movement == "small"  # what lesions are does not depend on it
    usual = override(Settings(), "augment", movement="usual")
    assert (make_plan(lesions, usual).movement, as_moved(usual, make_plan(lesions, usual))) == ("usual", usual)


def test_small_movement_is_half_of_the_usual_one() -> None:
    usual = AugmentSettings()
    for name in ("rotation_degrees", "scale", "shear", "shift", "elastic"):
        assert CHANGES["small"][name] == getattr(usual, name) / 2


def test_large_slices_are_halved_at_once_and_small_ones_are_not() -> None:
    small, large = (make_plan([_case(shape=(edge, edge, edge))], Settings()) for edge in (64, 160))
    assert (small.stem_stride, large.stem_stride) == (1, 2)
    assert large.reasons["stem_stride"] == "slices whose shorter edge has 160 pixels are halved at once"
    assert large.widths == (16, 32, 64, 128, 256)
    assert 2 ** len(large.widths) == 32
    assert all(edge % 32 == 0 for edge in large.window)


def test_a_stem_that_is_set_goes_before_the_plan() -> None:
    settings = override(Settings(), "network", stem_stride=1)
    assert make_plan([_case(shape=(160, 160, 160))], settings).stem_stride == 1
    settings = override(Settings(), "network", widths=(8, 16))
    assert make_plan([_case(shape=(160, 160, 160))], settings).stem_stride == 1


def test_many_more_labels_than_channels_of_the_last_map_come_from_one_layer_at_full_size() -> None:
    few, many = ([_case(shape=(160, 160, 160), voxels=(900,) * count)] for count in (32, 33))
    usual, plan = (make_plan(cases, Settings(), joinable=16) for cases in (few, many))
    assert (usual.restoring, plan.restoring) == ("learned", "joined")
    assert plan.reasons["restoring"].startswith(
        "one layer gives the logits at full size: 33 labels are more than 2 ×"
    )
    assert make_plan(few, Settings(), joinable=16, like=plan).restoring == "joined"
    assert make_plan(many, Settings(), joinable=16, like=usual).restoring == "learned"
    assert make_plan(many, override(Settings(), "network", restoring="learned"), joinable=16).restoring == "learned"
    assert make_plan(many, Settings(), joinable=None).restoring == "learned"
    small = [_case(shape=(64, 64, 64), voxels=(900,) * 33)]  # whose logits are at full size already
    assert "restoring" not in make_plan(small, Settings(), joinable=16).to_json()
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_logits_are_interpolated_to_full_size_where_that_is_set_or_the_run_has_it() -> None:
    few, many = ([_case(shape=(160, 160, 160), voxels=(900,) * count)] for count in (2, 9))
    assert make_plan(many, Settings()).restoring == "learned"
    plan = make_plan(many, override(Settings(), "network", restoring="bilinear"))
    assert plan.restoring == "bilinear"
    assert plan.reasons["restoring"] == "as set"
    again = make_plan(few, override(Settings(), "network", restoring="bilinear"), like=plan)  # the run's settings
    assert again.reasons["restoring"] == "as in the run it starts from"
    assert make_plan(few, Settings(), like=plan).restoring == "bilinear"
    usual = make_plan(few, Settings())
    assert make_plan(many, Settings(), like=usual).restoring == "learned"
    assert "restoring" not in usual.to_json()  # as in cards of before
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
