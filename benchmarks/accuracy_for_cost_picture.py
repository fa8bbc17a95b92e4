"""The table and the picture of `accuracy_for_cost.py`."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Attributes:
        name: What stands beside its line.
        colour: Of Okabe and Ito's, which colour-blind readers tell apart.
        marker: matplotlib's; tells the methods apart in grey.
    """

    name: str
    colour: str
    marker: str


LOOKS = {
    "medfcn": Look("medfcn", "#0072B2", "o"),
    "medfcn_one_slice": Look("medfcn, one slice in", "#56B4E9", "s"),
    "nnunet": Look("nnU-Net 2D", "#D55E00", "D"),
    "monai": Look("MONAI BasicUNet", "#009E73", "^"),
}
WIDTH_PIXELS, HEIGHT_PIXELS, PIXELS_PER_INCH = 900, 520, 120
LEAST_GAP = 0.05
"""Between two names at the right, as a share of the picture's height."""


@dataclass(frozen=True)
class Point:
    """What a method reached, over seeds.

    Attributes:
        is_on_the_way: The training was to go on: its learning rate was still high, so one that was to end here would
            have come further.
    """

    method: str
    tta: bool
    is_default: bool
    is_on_the_way: bool
    runs: tuple[dict[str, Any], ...]

    def over_seeds(self, key: str) -> float:
        return mean(run[key] for run in self.runs)


def points_of(runs: Sequence[dict[str, Any]]) -> list[Point]:
    """Runs that differ in their seed only belong together; methods in the order of `LOOKS`, then by CPU seconds."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        key = (run["method"], run["tta"], run["is_default"], run["seconds"], run["schedule_seconds"])
        grouped[key].append(run)
    points = [
        Point(method, tta, is_default, seconds < schedule, tuple(together))
        for (method, tta, is_default, seconds, schedule), together in grouped.items()
    ]
    order = list(LOOKS)
    return sorted(points, key=lambda point: (order.index(point.method), point.tta, point.over_seeds("cpu_seconds")))


def table_of(runs: Sequence[dict[str, Any]]) -> str:
    """A row of Markdown for each point."""
    lines = [
        "| method | mirror images | train, CPU s | seeds | Dice mean | median | worst | HD95 mean, mm "
        "| predict, CPU s a volume | peak MB, train / predict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for point in points_of(runs):
        dices = [run["dice"] for run in point.runs]
        spread = f" ± {stdev(dices):.3f}" if len(dices) > 1 else ""
        seconds = f"{point.over_seeds('cpu_seconds'):,.0f}"
        if point.is_on_the_way:
            seconds += f" of {point.runs[0]['schedule_seconds']:,.0f}"
        peaks = [max(run[key] for run in point.runs) for key in ("peak_mb", "predict_peak_mb")]
        cells = [
            LOOKS[point.method].name, "yes" if point.tta else "no", seconds, str(len(dices)),
            f"{mean(dices):.3f}{spread}", f"{point.over_seeds('median'):.3f}", f"{point.over_seeds('worst'):.3f}",
            f"{point.over_seeds('hd95_mm'):.2f}", f"{point.over_seeds('predict_cpu_seconds'):.2f}",
            f"{peaks[0]:,} / {peaks[1]:,}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread_out(heights: Sequence[float], least: float) -> list[float]:
    """Heights moved as little as it takes for each to stand clear of the one below it.

    Example:
        >>> spread_out([0.5, 0.51, 0.9], 0.05)
        [0.5, 0.55, 0.9]
    """
    placed: dict[int, float] = {}
    below = -float("inf")
    for index in sorted(range(len(heights)), key=lambda index: heights[index]):
        below = max(heights[index], below + least)
        placed[index] = round(below, 6)
    return [placed[index] for index in range(len(heights))]


def draw_picture(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Dice against CPU seconds, a line for each method as it predicts by default; hollow where it was to go on.

    Raises:
        SystemExit: There are no runs.
    """
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import FuncFormatter, NullFormatter

    points = [point for point in points_of(runs) if point.is_default]
    if not points:
        raise SystemExit("no runs to draw yet; give --method first")
    size = (WIDTH_PIXELS / PIXELS_PER_INCH, HEIGHT_PIXELS / PIXELS_PER_INCH)
    figure = Figure(figsize=size, dpi=PIXELS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    ends: list[tuple[Look, float, float]] = []
    for method, look in LOOKS.items():
        mine = [point for point in points if point.method == method]
        if not mine:
            continue
        for partial in (True, False):
            some = [point for point in mine if point.is_on_the_way == partial]
            style = {"color": look.colour, "linestyle": "--" if partial else "-", "linewidth": 1.6}
            line = (
                some
                if not partial
                else [*some, *(point for point in mine if not point.is_on_the_way)][: len(some) + 1]
            )
            axes.plot(*_places(line), **style)
            fill = "white" if partial else look.colour
            axes.plot(*_places(some), look.marker, color=look.colour, markerfacecolor=fill, markersize=6.5)
        for point in mine:
            if len(point.runs) > 1:
                seeds = [(run["cpu_seconds"], run["dice"]) for run in point.runs]
                axes.plot(*zip(*seeds, strict=True), ".", color=look.colour, alpha=0.45, markersize=4)
        last = max(mine, key=lambda point: point.over_seeds("cpu_seconds"))
        ends.append((look, last.over_seeds("cpu_seconds"), last.over_seeds("dice")))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(_ticks([seconds for point in points for seconds in (point.over_seeds("cpu_seconds"),)]))
    axes.set_xlabel("CPU seconds of training, one thread")
    axes.set_ylabel("mean Dice, 40 volumes of other people")
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    heights = spread_out([dice for _, _, dice in ends], LEAST_GAP * (high - low))
    for (look, seconds, dice), height in zip(ends, heights, strict=True):
        # Beside the last point, moved up where another name stands, and legible over another line.
        axes.annotate(
            look.name, (seconds, dice), xytext=(1.06 * seconds, height), color=look.colour, va="center", fontsize=9,
            annotation_clip=False, path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
    if any(point.is_on_the_way for point in points):
        note = "hollow: on the way through a longer training"
        axes.text(0.99, 0.02, note, transform=axes.transAxes, ha="right", fontsize=8, color="0.35")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.over_seeds("cpu_seconds") for point in points], [point.over_seeds("dice") for point in points]


def _ticks(seconds: Sequence[float]) -> list[float]:
    """Round numbers from the shortest training to the longest."""
    every = [digit * 10.0**power for power in range(6) for digit in (1, 2, 3, 5)]
    return [tick for tick in every if 0.8 * min(seconds) <= tick <= 1.25 * max(seconds)]
