"""`medfcn export` and `medfcn models`: trained models in forms that travel."""

from typing import Any

import click

from medfcn.commands.exits import answer, command, reporter, show
from medfcn.commands.options import overwrite_option, text
from medfcn.libraries import loading, require_installed


@command()
@click.argument("run", metavar="RUN")
@click.option("-o", "--output", required=True, help="The file to make; the folder of a bundle.")
@click.option(
    "--format",
    type=click.Choice(["medfcn", "onnx", "pt2", "bundle"]),
    default="medfcn",
    show_default=True,
    help="medfcn: one file for medfcn. onnx: for ONNX Runtime and OpenVINO, with a script that needs no torch. pt2: "
    "a program of torch.export, with a script that needs no medfcn. bundle: a MONAI Bundle (a folder), which MONAI "
    "runs without medfcn.",
)
@text("--scores", "FOLDER", "Scores for the model's card, such as those of folds, instead of the run's own.")
@text("--about", "FILE", "Markdown on the data and their licence, for the model's card.")
@overwrite_option
def export(**choices: Any) -> None:
    """Write the model of RUN into one file, which other commands take as RUN.

    It is tried on a phantom in several sizes before the file gets its name.
    """
    require_installed(choices["format"])
    with loading(for_good=True):
        from medfcn.exporting.export import export as run_export

    model = run_export(progress=reporter(), **choices)
    show(f"model: {model}")
    answer({"model": model})


@command()
@click.argument("name", required=False)
def models(name: str | None) -> None:
    """List the models that have a name, in medfcn and in ~/.medfcn/models; or show the card of one."""
    from medfcn.runs.models import card_text
    from medfcn.runs.named_models import models as find_models
    from medfcn.text import aligned

    if name is not None:
        card = card_text(name)
        show(*card.split("\n"))
        answer({"name": name, "card": card})
        return
    rows = [(model.name, "in medfcn" if model.is_ours else "in ~/.medfcn/models") for model in find_models()]
    answer([{"name": name, "where": where} for name, where in rows])
    for line in aligned([("name", "where"), *rows]) if rows else ["no models: put them into ~/.medfcn/models"]:
        show(line)
