"""A drawing shows every map and every step of its network, nothing over anything else."""

from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.patches import Circle, Rectangle

from medfcn.errors import OutputExistsError, SettingsError
from medfcn.networks.describe.drawing import draw_network, network_figure
from medfcn.networks.describe.stages import NetworkSummary, summarise_network
from medfcn.networks.presets import PRESETS
from medfcn.settings import NetworkSettings


def extents(figure: Any) -> list[tuple[str, Any]]:
    """Every text, with the box around it, and every map, with the pixels it covers."""
    renderer = figure.canvas.get_renderer()
    axes = figure.axes[0]
    found = []
    for text in axes.texts:
        shape = text.get_bbox_patch()
        if shape is not None:
            text.update_bbox_position_size(renderer)
        found.append((text.get_text(), (shape or text).get_window_extent(renderer)))
    maps = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_zorder() >= 2]
    return found + [("a map", patch.get_window_extent(renderer)) for patch in maps]


def overlap(first: Any, second: Any) -> bool:
    return bool(
        min(first.x1, second.x1) - max(first.x0, second.x0) > 0.5
        and min(first.y1, second.y1) - max(first.y0, second.y0) > 0.5
    )


def require_readable(summary: NetworkSummary) -> None:
    figure = network_figure(summary)
    found = extents(figure)
    for (name, box), (other, its_box) in combinations(found, 2):
        assert not overlap(box, its_box), f"{summary.name}: {name!r} lies over {other!r}"
    for name, box in found:
        assert box.x0 >= 0, name
        assert box.y0 >= 0, name
        assert box.x1 <= figure.bbox.width, name
        assert box.y1 <= figure.bbox.height, name


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("size", "label_count"), [((256, 256), 1), ((512, 37), 20)])
def test_nothing_lies_over_anything_else(preset: Any, size: tuple[int, int], label_count: int) -> None:
    require_readable(summarise_network(NetworkSettings(preset=preset), size=size, label_count=label_count))


@pytest.mark.parametrize(
    "settings",
    [
        NetworkSettings(preset="resnet50_8s", finest_stride=2, score_channels=16, refinements=2),
        NetworkSettings(preset="resnet18_8s", finest_stride=2, upsampling="nearest_conv"),
        NetworkSettings(widths=(8,) * 8, upsampling="dilated", fusion="concat", refinements=3),
        NetworkSettings(preset="vgg_concat", width=16.0),
        NetworkSettings(preset="fcn1s", upsampling="bilinear", width=0.001),
        NetworkSettings(widths=(8,)),
    ],
    ids=["two operations before the logits", "restored by 2", "eight levels", "wide", "thin", "one level"],
)
@pytest.mark.parametrize("size", [(1, 1), (2048, 2048)])
def test_unusual_networks_and_slices_stay_readable(
    settings: NetworkSettings, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medfcn.networks.describe.stages.receptive_field", lambda *_: 9999)
    require_readable(summarise_network(settings, size=size, channels_in=21, label_count=104))


@pytest.mark.parametrize("preset", ["auto", "fcn8s", "vgg_concat", "plain", "score_decoder"])
def test_every_map_and_every_join_is_drawn(preset: Any) -> None:
    summary = summarise_network(NetworkSettings(preset=preset), size=(128, 96))
    axes = network_figure(summary).axes[0]
    texts = [text.get_text() for text in axes.texts]
    maps = [stage for stage in summary.stages if stage.part == "encoder"] + list(summary.part("fusion"))
    for stage in maps:
        assert f"{stage.channels} × {stage.size[0]} × {stage.size[1]}" in texts
    for stride in summary.encoder_strides:
        assert texts.count(f"stride {stride}") == 1
    joins = [stage.join for stage in summary.part("fusion") if stage.join]
    assert sum(isinstance(patch, Circle) for patch in axes.patches) == len(joins)
    assert texts.count("+") == joins.count("+")
    assert texts.count("c") == joins.count("concat")
    assert texts.count("×2") == len(summary.part("fusion"))
    assert texts.count("conv 1×1") == len(summary.part("score"))
    ends = [stage for stage in summary.stages if stage.part in ("head", "restore")]
    assert all(f"{stage.name}\n{stage.made_of[0]}" in texts for stage in ends)
    assert any(f"{summary.parameters:,} parameters" in text for text in texts)


def test_boxes_grow_with_rows_and_channels() -> None:
    axes = network_figure(summarise_network(NetworkSettings(preset="fcn8s"))).axes[0]
    blue = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_zorder() == 2][1:7]
    heights, widths = [box.get_height() for box in blue], [box.get_width() for box in blue]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == pytest.approx(2 * heights[2])  # 256 and 64 rows: a quarter, of which the root is a half
    assert widths == sorted(widths)


@pytest.mark.parametrize(
    ("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")]
)
def test_the_ending_says_the_format_and_the_same_network_gives_the_same_bytes(
    ending: str, start: bytes, tmp_path: Path
) -> None:
    summary = summarise_network(NetworkSettings(preset="plain"), size=(64, 64))
    first, second = (draw_network(summary, tmp_path / f"{name}.{ending}").read_bytes() for name in "ab")
    assert first.startswith(start)
    assert first == second


def test_another_ending_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    summary = summarise_network(NetworkSettings(preset="plain"), size=(64, 64))
    with pytest.raises(SettingsError, match=r"does not end in \.png, \.svg or \.pdf"):
        draw_network(summary, tmp_path / "plain.jpeg")
    assert not list(tmp_path.iterdir())


def test_an_existing_picture_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    summary = summarise_network(NetworkSettings(preset="plain"), size=(64, 64))
    path = tmp_path / "plain.png"
    path.write_text("precious")
    with pytest.raises(OutputExistsError, match="already exists"):
        draw_network(summary, path)
    assert path.read_text() == "precious"
    draw_network(summary, path, overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict.copy(matplotlib.rcParams)  # as it stands, without matplotlib choosing a backend for the asking
    draw_network(summarise_network(NetworkSettings(preset="plain"), size=(64, 64)), tmp_path / "plain.svg")
    assert dict.copy(matplotlib.rcParams) == before
