"""Pictures for slides: all words are inside, none on another; colours, directions and sizes are right."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from medfcn.errors import SettingsError
from medfcn.progress import Silent
from medfcn.reporting import slides
from medfcn.reporting.slides import SlideStyle, slide_path, write_slide, write_slides
from medfcn.reporting.upright import CaseVolumes
from medfcn.volumes import Volume
from tests.reporting.pages import case_volumes

LABELS = [("left lobe", "#E69F00"), ("right lobe", "#56B4E9")]


def masked(number: int = 0, **choices) -> CaseVolumes:
    volumes = case_volumes(number, labels=2, **choices)
    return CaseVolumes(volumes.image, None, volumes.prediction, has_reference=False)


def seen(monkeypatch, tmp_path, title: str, labels=LABELS, style: SlideStyle | None = None, volumes=None):
    """The figure of a picture, and its pixels `(rows, columns, 3)` from 0 to 255."""
    kept = []
    draw = slides._drawn
    monkeypatch.setattr(slides, "_drawn", lambda *given: kept.append(draw(*given)) or kept[-1])
    write_slide(tmp_path / "a.png", title, volumes or masked(), labels, style or SlideStyle())
    image = pytest.importorskip("PIL.Image")
    with image.open(tmp_path / "a.png") as picture:
        return kept[0], np.asarray(picture.convert("RGB")).astype(int)


def words_of(figure: Figure):
    """Every text with its box in pixels."""
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]


@pytest.mark.parametrize("title", ["case_1", "a very long name of a case of some hospital " * 4, "$x_1^{$ & <b>"])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_no_words_are_cut_off_or_overlap(monkeypatch, tmp_path, title: str, count: int) -> None:
    volumes = masked()
    mask = volumes.prediction.array.copy()
    mask[mask > 0] = np.arange(np.count_nonzero(mask)) % count + 1
    many = CaseVolumes(volumes.image, None, volumes.prediction.with_array(mask), has_reference=False)
    names = [(f"structure number {place} with a long name", f"#{place:02X}8040") for place in range(count)]
    figure, pixels = seen(monkeypatch, tmp_path, title, labels=names, volumes=many)
    assert pixels.shape == (1080, 1920, 3)
    words = words_of(figure)
    assert any(text == title.strip() or text == title for text, _ in words)
    axes = [axis.get_window_extent() for axis in figure.axes]
    for place, (text, box) in enumerate(words):
        assert min(box.x0, box.y0, 1920 - box.x1, 1080 - box.y1) >= -1, text
        for other, another in words[place + 1 :]:
            assert not box.padded(-1).overlaps(another.padded(-1)), (text, other)
        assert not any(box.padded(-2).overlaps(axis) for axis in axes), text


def test_the_ground_is_dark_or_light(monkeypatch, tmp_path) -> None:
    for ground, corner in (("dark", (16, 20, 24)), ("light", (255, 255, 255))):
        _, pixels = seen(monkeypatch, tmp_path, "a", style=SlideStyle.parse(ground))
        assert tuple(pixels[3, 3]) == corner
    with pytest.raises(SettingsError, match="neither dark nor light"):
        SlideStyle.parse("grey")


def test_labels_have_their_colours_and_only_the_visible_ones_are_named(monkeypatch, tmp_path) -> None:
    figure, pixels = seen(monkeypatch, tmp_path, "a", labels=[*LABELS, ("absent", "#FF00FF")])
    names = [text for text, _ in words_of(figure)]
    assert "left lobe" in names
    assert "absent" not in names
    for _, colour in LABELS:
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(axis=-1) < 12).sum() > 300


def test_the_scale_bar_is_as_long_as_it_says(monkeypatch, tmp_path) -> None:
    figure, _ = seen(monkeypatch, tmp_path, "a")
    for axis in figure.axes:
        bar = axis.lines[-1]
        (text,) = [text for text in axis.texts if text.get_text().endswith("m")]
        number, unit = text.get_text().split()
        ends = bar.get_xdata()
        assert abs(ends[1] - ends[0]) == float(number) * {"mm": 1, "cm": 10}[unit]
        box = axis.get_window_extent()
        across, up = abs(np.diff(axis.get_xlim())[0]) / box.width, abs(np.diff(axis.get_ylim())[0]) / box.height
        assert across == pytest.approx(up, rel=0.01), "a millimetre is as long in both directions"


def test_the_patients_right_is_on_the_left(monkeypatch, tmp_path) -> None:
    affine = np.eye(4)
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[4:16, 4:16, 4:16] = 1
    mask[12:16, 4:16, 4:16] = 2  # towards R
    volumes = CaseVolumes(Volume(mask.astype(np.float32), affine), None, Volume(mask, affine), has_reference=False)
    figure, pixels = seen(monkeypatch, tmp_path, "a", volumes=volumes)
    axial = figure.axes[0]
    assert [text.get_text() for text in axial.texts][:4] == ["R", "L", "A", "P"]
    box = axial.get_window_extent()
    columns = pixels[1080 - int(box.y1) : 1080 - int(box.y0), int(box.x0) : int(box.x1)]
    orange, blue = (
        np.argwhere(np.abs(columns - colour).max(axis=-1) < 12)[:, 1].mean()
        for colour in ([0xE6, 0x9F, 0x00], [0x56, 0xB4, 0xE9])
    )
    assert blue < orange


def test_chosen_slices_are_those_of_the_whole_volume(monkeypatch, tmp_path) -> None:
    figure, _ = seen(monkeypatch, tmp_path, "a", style=SlideStyle.parse(slices="coronal=3, axial=12"))
    assert [text for text, _ in words_of(figure)][1:] == ["coronal 3/20", "axial 12/12"]


@pytest.mark.parametrize("text", ["axial", "axial=0", "axail=3", "axial=x", "", "axial=3,,", "axial=-1"])
def test_slices_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"slices: .* is not PLANE=N"):
        SlideStyle.parse(slices=text)


def test_a_case_without_such_a_slice_does_not_stop_the_others(tmp_path) -> None:
    cases = {"long": masked(shape=(24, 20, 14)), "short": masked()}
    style = SlideStyle.parse(slices="axial=13")
    failures = write_slides(tmp_path / "png", list(cases), cases.__getitem__, LABELS, style, Silent())
    assert [path.name for path in (tmp_path / "png").iterdir()] == ["long.png"]
    assert failures == [("short", "short: has 12 axial slices and no number 13; choose another")]
    assert slide_path(tmp_path, "a") == tmp_path / "a.png"
