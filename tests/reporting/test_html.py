"""`report.html`: what it says is what was scored, nothing in it is active, and it stays small."""

import base64
import hashlib
import itertools
import json
import math
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medfcn.evaluation.score_table import ScoreTable
from medfcn.labels import IGNORED
from medfcn.png import png_bytes
from medfcn.reporting.charts import Mark, agreement_chart, nice_ticks, strip_chart
from medfcn.reporting.html import About, safe_json, write_prediction_report, write_report
from medfcn.reporting.packing import _block_labels, packed_case
from medfcn.reporting.panels import boundary_loops
from medfcn.reporting.sections import PredictedCase, prediction_rows
from medfcn.reporting.strips import error_strip
from medfcn.reporting.upright import CaseVolumes, upright_case
from medfcn.volumes import Volume
from tests.reporting.pages import AFFINE, PAYLOADS, Page, active_parts, case_volumes, table_of


def written(tmp_path, cases, names=("organ",), **options):
    table = table_of(cases, names)
    return table, Page(write_report(tmp_path / "report.html", table, cases.__getitem__, **options).read_text("utf-8"))


def unpacked(text, shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8).reshape(shape, order="F")


def reoriented(volume, axes, flips):
    """The same patient on another grid: axes re-ordered and turned round."""
    array, affine = volume.array.transpose(axes), volume.affine[:, [*axes, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
    return Volume(array, affine)


# ---- what the viewer is given ----


def test_the_viewer_gets_the_same_patient_in_all_48_orientations():
    volumes = case_volumes()
    expected = packed_case(upright_case(volumes), most_bytes=10**6)
    masks = (volumes.image, volumes.reference, volumes.prediction)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            turned = [reoriented(volume, axes, flips) for volume in masks]
            found = packed_case(upright_case(CaseVolumes(*turned)), most_bytes=10**6)
            for name in ("shape", "edges", "image", "reference", "prediction", "worst", "start", "toWorld"):
                assert found[name] == expected[name], name
            # The indices shown are those of the file at hand.
            point = np.array([*found["start"], 1.0])
            voxel = np.array(found["toFile"]).reshape(3, 4) @ point
            world = np.array(found["toWorld"]).reshape(3, 4) @ point
            np.testing.assert_allclose(turned[0].affine[:3] @ [*voxel, 1.0], world, atol=1e-4)
            index = tuple(np.rint(voxel).astype(int))
            x, y, z = found["start"]
            assert unpacked(found["prediction"], found["shape"])[x, y, z] == turned[2].array[index]
            assert unpacked(found["reference"], found["shape"])[x, y, z] == turned[1].array[index]


def test_masks_are_whole_and_the_image_is_within_a_grey_step():
    case = upright_case(case_volumes())
    packed = packed_case(case, most_bytes=10**6)
    np.testing.assert_array_equal(unpacked(packed["reference"], packed["shape"]), case.reference)
    np.testing.assert_array_equal(unpacked(packed["prediction"], packed["shape"]), case.prediction)
    image = packed["image"]
    assert image["factors"] == [1, 1, 1]
    step = (image["high"] - image["low"]) / 255
    seen = image["low"] + step * unpacked(image["bytes"], image["shape"])
    clipped = np.clip(case.image, image["low"], image["high"])
    assert np.abs(seen - clipped).max() <= step / 2 + 1e-3


def test_a_crop_holds_every_voxel_of_both_masks_and_its_margin():
    volumes = case_volumes(shape=(90, 80, 40))
    case = upright_case(volumes, margin_mm=6.0)
    assert case.reference.sum() == volumes.reference.array.sum()
    assert case.prediction.sum() == volumes.prediction.array.sum()
    assert case.shape == (9 + 12, 8 + 10, 5 + 4)


@settings(deadline=None, max_examples=25)
@given(st.tuples(*(st.integers(4, 40),) * 3), st.integers(3_000, 40_000))
def test_a_case_never_takes_more_than_its_share(shape, most_bytes):
    random = np.random.default_rng(0)
    image = Volume(random.integers(0, 4000, shape).astype(np.int16), AFFINE)
    mask = Volume((random.random(shape) < 0.5).astype(np.uint8), AFFINE)
    packed = packed_case(upright_case(CaseVolumes(image, mask, mask)), most_bytes=most_bytes)
    texts = [packed["image"]["bytes"], packed["reference"], packed["prediction"]]
    assert sum(map(len, texts)) <= most_bytes + 3_000
    assert len(unpacked(packed["image"]["bytes"], packed["image"]["shape"]))


@pytest.mark.parametrize("most_bytes", [5_000, 10**6])
def test_uncertainty_takes_a_part_of_the_share_and_follows_its_masks(most_bytes):
    volumes = case_volumes(shape=(60, 50, 30))
    bits = np.random.default_rng(0).random((60, 50, 30)).astype(np.float32)
    other = volumes.reference.with_array(bits)
    case = upright_case(replace(volumes, uncertainty=other))
    assert case.uncertainty.shape == case.shape == case.reference.shape
    packed = packed_case(case, most_bytes=most_bytes)
    doubt = packed["uncertainty"]
    assert len(doubt["bytes"]) <= max(most_bytes // 8, 2_000)
    found = unpacked(doubt["bytes"], doubt["shape"]) / 255
    if most_bytes > 10**5:
        assert np.abs(found - case.uncertainty).max() < 0.003
    else:
        assert max(doubt["factors"]) > 1
        assert found.mean() == pytest.approx(0.5, abs=0.05)
    shifted = replace(volumes, uncertainty=Volume(bits[1:], AFFINE))
    left_out = upright_case(shifted)
    assert left_out.uncertainty is None
    assert any(note.startswith("the uncertainty is not shown: ") for note in left_out.notes)


@pytest.mark.parametrize("how", ["shape", "place"])
def test_a_prediction_on_another_grid_is_left_out_and_named(how):
    volumes = case_volumes()
    mask = volumes.prediction
    other = Volume(mask.array[:, :, 1:] if how == "shape" else mask.array, mask.affine + np.eye(4, k=3) * 30)
    case = upright_case(replace(volumes, prediction=other))
    assert case.prediction is None
    assert case.reference is not None
    assert any(note.startswith("the prediction is not shown: ") for note in case.notes)


def test_a_prediction_in_another_order_is_shown_at_its_place():
    volumes = case_volumes()
    expected = upright_case(volumes)
    turned = reoriented(volumes.prediction, (2, 0, 1), (True, False, True))
    assert (upright_case(replace(volumes, prediction=turned)).prediction == expected.prediction).all()


def test_a_thinned_mask_loses_no_part(monkeypatch):
    monkeypatch.setattr("medfcn.reporting.packing._MOST_MASK_VOXELS", 2_000)
    lone = np.zeros((40, 40, 40), dtype=np.uint8)
    lone[1, 1, 1] = lone[38, 39, 37] = 1
    packed = packed_case(upright_case(CaseVolumes(None, Volume(lone, np.eye(4)), None)), most_bytes=10**6)
    factors = packed["maskFactors"]
    assert max(factors) > 1
    shape = [math.ceil(length / factor) for length, factor in zip(packed["shape"], factors, strict=True)]
    assert unpacked(packed["reference"], shape).sum() == 2


def test_an_image_in_another_order_is_shown_at_its_place():
    volumes = case_volumes()
    expected = packed_case(upright_case(volumes), most_bytes=10**6)
    turned = reoriented(volumes.image, (2, 0, 1), (True, False, True))
    case = upright_case(CaseVolumes(turned, volumes.reference, volumes.prediction))
    assert packed_case(case, most_bytes=10**6)["image"] == expected["image"]


def test_an_image_on_another_grid_is_left_out_and_named():
    volumes = case_volumes()
    moved = Volume(volumes.image.array, AFFINE + np.array([[0, 0, 0, 9.0], *np.zeros((3, 4))]))
    case = upright_case(CaseVolumes(moved, volumes.reference, volumes.prediction))
    assert case.image is None
    assert "the image is not shown" in case.notes[0]


# ---- pictures ----


@settings(deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_enclose_exactly_the_pixels(mask):
    area = 0.0
    for loop in boundary_loops(mask):
        assert all((a[0] == b[0]) != (a[1] == b[1]) for a, b in zip(loop, [*loop[1:], loop[0]], strict=True))
        area += sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(loop, [*loop[1:], loop[0]], strict=True)) / 2
    assert area == mask.sum()


def test_a_png_is_read_back_by_another_reader(tmp_path):
    image = pytest.importorskip("PIL.Image")
    grey = np.random.default_rng(0).integers(0, 256, (7, 5)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(png_bytes(grey))
    with image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), grey)


def test_the_strip_goes_through_the_slice_with_the_largest_error():
    volumes = case_volumes()
    wrong = volumes.reference.array.copy()
    wrong[:, :, 9] = 1
    strip = error_strip(
        upright_case(CaseVolumes(volumes.image, volumes.reference, volumes.reference.with_array(wrong))),
        [("#a", "#b")],
    )
    assert "axial 10/12 · 5.76 cm²" in strip


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_cover_the_range_with_a_handful(low, width):
    ticks = nice_ticks(low, low + width)
    assert ticks[0] <= low + 1e-6 * width + 1e-9 * abs(low)
    assert ticks[-1] >= low + width - 1e-6 * width - 1e-9 * abs(low)
    assert 2 <= len(ticks) <= 13


def half_unlabelled():
    """A case whose reference ignores the upper half, with a perfect prediction of the lower half."""
    volumes = case_volumes()
    reference = volumes.reference.array.copy()
    reference[:, :, 6:] = IGNORED
    found = np.where(reference == IGNORED, volumes.prediction.array, reference)
    return CaseVolumes(volumes.image, *(volumes.reference.with_array(mask) for mask in (reference, found)))


def test_nothing_differs_where_nobody_labelled():
    case = upright_case(half_unlabelled())
    assert case.prediction[case.reference == IGNORED].any()
    assert not case.wrong().any()
    assert all(at.area_mm2 == 0 for at in case.worst_slices)
    strip = error_strip(case, [("#111111", "#222222")])
    assert strip.count("no difference") == 2 * 3  # each caption, and the words for those who cannot see
    assert upright_case(half_unlabelled(), margin_mm=0).shape == (9, 8, 5), "a crop to what is drawn or found"


def test_a_thinned_mask_keeps_labels_before_what_nobody_labelled():
    mask = np.zeros((4, 2, 2), dtype=np.uint8)
    mask[0, 0, 0], mask[1, 1, 1], mask[2, 0, 0] = 1, IGNORED, IGNORED
    assert _block_labels(mask, (2, 2, 2)).tolist() == [[[1]], [[IGNORED]]]


def test_a_miss_is_drawn_as_a_cross_in_a_lane_of_its_own():
    chart = strip_chart(
        [("organ", [Mark(math.inf, 0, "a", "#case-0", "cross"), Mark(1.0, 0, "b", "#case-1")])],
        "HD95",
        is_share=False,
    )
    assert chart.count('class="cross"') == 1
    assert "∞" in chart


def test_limits_of_agreement_that_do_not_exist_are_not_drawn():
    chart = agreement_chart([Mark(1, 0.5, "a", "#case-0")], bias=0.5, limits=(math.nan, math.nan))
    assert "SD" not in chart
    assert "+0.500 ml" in chart


def test_limits_of_agreement_are_of_five_cases_or_more(tmp_path):
    for count in (4, 5):
        cases = {f"case_{number}": case_volumes(number) for number in range(count)}
        _, page = written(tmp_path, cases)
        has_limits = "+1.96 SD" in page.text
        assert has_limits == (count == 5)
        assert ("0.00 to 0.00" in page.text) == has_limits, "the table says the same as the chart"


def test_a_chart_has_its_values_as_lines_of_a_table_in_full():
    chart = strip_chart(
        [("organ", [Mark(0.123456789, 0, "a,b", "#case-0"), Mark(math.inf, 0, "=c", "#case-1", "cross")])],
        "HD95 (mm)",
        is_share=False,
    )
    lines = re.findall(r'data-csv="([^"]*)"', chart)
    assert lines == ["case,label,HD95 (mm)", "&quot;a,b&quot;,organ,0.123456789", "'=c,organ,inf"]


def test_a_long_title_is_narrowed_to_its_room_and_long_ticks_leave_gaps():
    long = strip_chart([("organ", [Mark(1e6, 0, "a", "#case-0")])], "A title " * 12, is_share=False)
    assert 'lengthAdjust="spacingAndGlyphs"' in long
    ticks = re.findall(r'class="tick middle" x="([\d.]+)"[^>]*>([^<]+)<', long)
    for (x, word), (after, _) in itertools.pairwise(ticks):
        assert float(after) - float(x) > 6.5 * len(word)
    assert "lengthAdjust" not in strip_chart([("organ", [Mark(1, 0, "a", "#case-0")])], "Dice", is_share=True)


# ---- the page ----


def test_missed_cases_come_first_and_are_named(tmp_path):
    cases = {f"case_{number}": case_volumes(number, miss=number in (3, 5)) for number in range(7)}
    cases["case_9"] = CaseVolumes(cases["case_0"].image, cases["case_0"].reference, None)
    _, page = written(tmp_path, cases)
    assert "Missed in 3 of 8 cases: case_3 (mask empty), case_5 (mask empty), case_9 (no mask file)" in page.text
    order = [a["title"] for tag, a in page.elements if tag == "a" and "title" in a]
    assert order[:3] == ["case_3", "case_5", "case_9"]


def test_numbers_are_those_of_the_summary_with_definition_and_tolerance(tmp_path):
    cases = {f"case_{number}": case_volumes(number) for number in range(4)}
    table, page = written(
        tmp_path, cases, about=About(title="A study", facts={"Model": {"weights_sha256": "ab" * 32}})
    )
    summary = table.summary()
    assert f"{summary['organ'].shares['dice'].mean:.3f}" in page.text
    assert f"{summary['organ'].distances['hd95_mm'].median:.2f}" in page.text
    for words in (
        "NSD within 1 mm",
        "2 TP / (2 TP + FP + FN)",
        "Research use only; not a medical device.",
        "ab" * 32,
        "95 % CI",
    ):
        assert words in page.text, words


def test_every_case_has_its_volumes_and_its_slices(tmp_path):
    cases = {f"case_{number}": case_volumes(number, labels=2) for number in range(9)}
    _, page = written(tmp_path, cases, names=("left", "right"))
    held = {a["id"]: json.loads(text) for tag, a, text in page.raw if tag == "script" and "id" in a}
    assert held.keys() == {"page-data", *(f"case-data-{number}" for number in range(9))}
    assert [label["name"] for label in held["page-data"]["labels"]] == ["left", "right"]
    assert sum(tag == "svg" and a.get("class") == "strip" for tag, a in page.elements) == 9


def test_a_report_without_images_or_without_anything_to_show_is_written(tmp_path):
    cases = {"a": case_volumes()}
    table = table_of(cases)
    bare = CaseVolumes(None, cases["a"].reference, cases["a"].prediction)
    assert Page(write_report(tmp_path / "a.html", table, lambda _: bare).read_text("utf-8")).elements
    page = Page(write_report(tmp_path / "b.html", table, lambda _: CaseVolumes(notes=("gone",))).read_text("utf-8"))
    assert "No volumes in this page for 1 cases" in page.text
    assert Page(write_report(tmp_path / "c.html", ScoreTable(()), lambda _: bare).read_text("utf-8")).elements


def test_a_reader_that_fails_leaves_the_old_report(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")

    def broken(case):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_report(path, table_of({"a": case_volumes()}), broken)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_forty_large_cases_stay_below_20_mb(tmp_path):
    random = np.random.default_rng(0)
    shape = (130, 120, 80)
    image = Volume(random.normal(0, 300, shape).astype(np.int16), np.eye(4))
    ball = np.linalg.norm(np.indices(shape) - np.array([65, 60, 40]).reshape(3, 1, 1, 1), axis=0)
    rough = ball + random.normal(0, 2, shape)
    volumes = CaseVolumes(
        image, Volume((rough < 34).astype(np.uint8), np.eye(4)), Volume((rough < 36).astype(np.uint8), np.eye(4))
    )
    row = table_of({"case": case_volumes()}).rows[0]
    rows = [type(row)(**{**row.__dict__, "case": f"case_{number:02}"}) for number in range(40)]
    path = write_report(tmp_path / "report.html", ScoreTable(tuple(rows)), lambda _: volumes)
    assert 4e6 < path.stat().st_size < 20e6
    assert path.read_text("utf-8").count('id="case-data-') == 40


def test_many_cases_keep_the_worst_and_name_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("medfcn.reporting.html._VOLUME_BYTES", 1_000_000)
    volumes = case_volumes(shape=(70, 60, 50))
    row = table_of({"case": volumes}).rows[0]
    rows = [replace(row, case=f"case_{number:03}", dice=1 - number / 1000) for number in range(150)]
    noise = np.random.default_rng(0).integers(0, 4000, volumes.image.shape).astype(np.int16)
    noisy = CaseVolumes(Volume(noise, AFFINE), volumes.reference, volumes.prediction)
    path = write_report(tmp_path / "report.html", ScoreTable(tuple(rows)), lambda _: noisy)
    page = Page(path.read_text("utf-8"))
    assert path.stat().st_size < 4e6
    data = next(json.loads(text) for tag, a, text in page.raw if a.get("id") == "page-data")
    has = [case["has"] for case in data["cases"]]
    assert data["cases"][0]["id"] == "case_149"
    assert has == sorted(has, reverse=True), "the worst cases come with their volumes"
    assert 10 < sum(has) < 150
    assert f"No volumes in this page for {150 - sum(has)} cases" in page.text


def test_lesions_have_columns_only_where_they_were_counted(tmp_path):
    cases = {"a": case_volumes()}
    _, plain = written(tmp_path, cases)
    assert "Lesions:" not in plain.text
    table = table_of(cases)
    counted = ScoreTable(tuple(replace(row, lesions=4.0, lesions_found=3.0, lesions_false=1.0) for row in table.rows))
    page = Page(write_report(tmp_path / "report.html", counted, cases.__getitem__).read_text("utf-8"))
    assert "Lesions: 3 of 4 found, 1 false; recall 0.750, precision 0.750, F1 0.750." in page.text


def test_a_log_of_odd_numbers_is_drawn_as_far_as_it_can_be(tmp_path):
    log = {
        "step": [1.0, math.inf, math.nan, 4.0],
        "loss": [0.5, 1.0, 2.0, -1e308],
        "validation_dice": [math.nan] * 4,
    }
    _, page = written(tmp_path, {"a": case_volumes()}, about=About(log=log))
    assert "Training loss" in page.text
    assert "Validation Dice" not in page.text


# ---- nothing active ----


def hostile(tmp_path):
    """A page whose ids, labels, title, settings, notes and failures are all hostile."""
    half = len(PAYLOADS) // 2
    names = PAYLOADS[:2]
    cases = {text: case_volumes(number, labels=2, miss=number % 5 == 0) for number, text in enumerate(PAYLOADS)}
    cases = {
        case: CaseVolumes(v.image, v.reference, v.prediction, notes=(case,), hashes={case: case})
        for case, v in cases.items()
    }
    table = table_of(cases, names)
    table = ScoreTable(
        table.rows, table.definitions, PAYLOADS[:half], tuple(zip(PAYLOADS, reversed(PAYLOADS), strict=True))
    )
    facts = {text: {text: text} for text in PAYLOADS}
    about = About(
        title=PAYLOADS[2], subtitle=PAYLOADS[3], facts=facts, log={"step": [1.0, 2.0], PAYLOADS[0]: [1.0, 2.0]}
    )
    return write_report(tmp_path / "report.html", table, cases.__getitem__, about=about)


def test_thirty_payloads_stay_text(tmp_path):
    assert len(set(PAYLOADS)) == 30
    plain = {f"case_{number}": case_volumes(number, labels=2, miss=number % 5 == 0) for number in range(30)}
    _, harmless = written(tmp_path, plain, names=("a", "b"))
    text = hostile(tmp_path).read_text("utf-8")
    page = Page(text)
    assert active_parts(page) == []
    assert active_parts(harmless) == []
    scripts = [(tag, a.get("id")) for tag, a, _ in page.raw]
    assert scripts == [(tag, a.get("id")) for tag, a, _ in harmless.raw]
    for tag, attributes, content in page.raw:
        if tag == "script" and attributes.get("type") == "application/json":
            assert not re.search("[<>&\u2028\u2029]", content)
            json.loads(content)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\u2028\u2029]", text)


def test_payloads_stay_text_without_references(tmp_path):
    failures = tuple(zip(PAYLOADS, PAYLOADS, strict=True))
    path = write_prediction_report(
        tmp_path / "report.html",
        PAYLOADS,
        PAYLOADS[:1],
        lambda case: CaseVolumes(case_volumes().image, None, case_volumes().prediction, (case,), has_reference=False),
        lambda case: PredictedCase(case, {PAYLOADS[0]: 1.0}, (case,)),
        about=About(title=PAYLOADS[1], failures=failures),
    )
    page = Page(path.read_text("utf-8"))
    assert active_parts(page) == []
    assert "reference" not in {a.get("id", "").removeprefix("show-") for _, a in page.elements}


def test_the_policy_allows_these_scripts_and_nothing_else(tmp_path):
    _, page = written(tmp_path, {"a": case_volumes()})
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules.keys() == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        texts = [text for tag, a, text in page.raw if tag == kind and "type" not in a]
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]
        assert rules[f"{kind}-src"].split() == hashes


def test_nothing_in_the_page_names_another_place(tmp_path):
    _, page = written(tmp_path, {"a": case_volumes()})
    for _, _, text in page.raw:
        assert not re.search(r"https?://|//[a-z]+\.|url\(|import\(|fetch\(|XMLHttpRequest|eval\(|innerHTML", text)


@given(st.text())
def test_json_in_the_page_is_what_was_put_in(text):
    held = safe_json({"case": text})
    assert not re.search("[<>&\u2028\u2029]", held)
    assert json.loads(held) == {"case": text}


def test_a_flag_stands_at_the_label_it_names():
    flags = ("review tail: its expected Dice is 0.4", "body not found", "channel ct is constant")
    mask = PredictedCase("a", {"head": 1.0, "body": 0.0, "tail": 2.0}, flags)
    known = {"a": {"head": 0.9, "body": 0.9}}
    rows = prediction_rows([mask, PredictedCase("b", {"head": 1.0}, ())], ("head", "body", "tail"), known)
    of_a = {row.label: row.status for row in rows if row.case == "a"}
    assert of_a == {"head": flags[2], "body": "; ".join(flags[1:]), "tail": f"{flags[0]}; {flags[2]}"}
    assert {row.status for row in rows if row.case == "b"} == {"no flags, not assessed"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("largest", "kind"), [(1e-42, "f4"), (1e-300, "f8"), (1e300, "f8")])
def test_an_image_of_tiny_or_huge_values_is_drawn_from_black_to_white(largest: float, kind: str) -> None:
    mask = np.zeros((16, 16, 8), np.uint8)
    mask[4:9, 4:9, 2:5] = 1
    image = (np.linspace(0, 1, mask.size).reshape(mask.shape) * largest).astype(kind)
    volumes = CaseVolumes(Volume(image, np.eye(4)), Volume(mask, np.eye(4)), None)
    packed = packed_case(upright_case(volumes), most_bytes=10**6)["image"]
    grey = np.frombuffer(zlib.decompress(base64.b64decode(packed["bytes"])), np.uint8)
    assert (grey.min(), grey.max()) == (0, 255)
