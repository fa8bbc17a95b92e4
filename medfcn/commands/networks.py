"""`medfcn networks`: the designs of networks as tables and pictures."""

import json
from typing import Any

import click

from medfcn.commands.exits import command, show, show_report
from medfcn.commands.options import overwrite_option
from medfcn.libraries import loading


@command()
@click.option(
    "--preset",
    metavar="NAME",
    help="Show one design in detail, such as fcn8s. [default: list all]",
)
@click.option("--config", metavar="FILE", help="TOML file of settings; show its network in detail.")
@click.option(
    "--size",
    metavar="HxW",
    default="256x256",
    show_default=True,
    help="Rows and columns of a slice in pixels; one number stands for both.",
)
@click.option("--channels", type=click.IntRange(1, 4096), default=1, show_default=True, help="Channels of an image.")
@click.option("--label-count", type=click.IntRange(1, 4096), default=1, show_default=True, help="Labels to segment.")
@click.option(
    "--width", type=float, metavar="FACTOR", help="Factor on the number of channels of each map. [default: 1]"
)
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON, stage by stage.")
@click.option(
    "--picture",
    metavar="FILE",
    help="Also draw one design (auto without --preset and --config): a .png, .svg or .pdf file.",
)
@overwrite_option
def networks(preset: str | None, config: str | None, size: str, as_json: bool, **choices: Any) -> None:
    """List all network designs, or show that of --preset or --config: parameters, strides, receptive field."""
    with loading(for_good=True):
        from medfcn.config import override, read_settings
        from medfcn.networks.describe.listing import network_text, overview_text
        from medfcn.networks.describe.stages import slice_size, summarise_network, summarise_presets

    picture, drawn = choices["picture"], None
    settings = override(read_settings(config), "network", preset=preset, width=choices["width"])
    slices = {
        "size": slice_size(size),
        "channels_in": choices["channels"] * (1 if settings.slices.context is None else settings.slices.context),
        "label_count": choices["label_count"],
    }
    one = summarise_network(settings.network, **slices) if picture or preset or config else None
    if one and picture:
        from medfcn.networks.describe.drawing import draw_network

        drawn = draw_network(one, picture, overwrite=choices["overwrite"])
    summaries = (one,) if one and (preset or config) else summarise_presets(width=settings.network.width, **slices)
    if as_json:
        show(*json.dumps([summary.to_json() for summary in summaries], indent=2).split("\n"))
    else:
        show_report(network_text(summaries[0]) if preset or config else overview_text(summaries))
    if drawn:
        show(f"picture: {drawn}", err=as_json)
