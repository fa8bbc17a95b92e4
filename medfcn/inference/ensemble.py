"""The models of one or several runs, as one model whose probabilities are their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medfcn.errors import ModelError
from medfcn.inference.model import Model
from medfcn.inference.predictor import Predictor
from medfcn.inference.self_test import settle
from medfcn.runs.arithmetic import Arithmetic, Wanted
from medfcn.runs.models import ModelFiles, Runs, models_of
from medfcn.slices.views import parse_views

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import Transforms


class Ensemble(Predictor):
    """Several models whose probabilities are averaged on the native grid.

    Raises:
        ModelError: They do not segment the same labels from the same channels.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        first = models[0].card
        for model in models[1:]:
            if model.card.transforms != first.transforms:
                raise ModelError(
                    "the runs differ in their transforms; average only runs of one task", field="transforms"
                )
            if model.card.labels != first.labels or model.card.use != first.use:
                field = "channels" if model.card.labels == first.labels else "labels"
                raise ModelError(f"the runs differ in their {field}; average only runs of one task", field=field)
        self.card = first
        self._models = tuple(models)

    def with_views(self, views: str | Sequence[str] | None) -> Ensemble:
        """The same models with some of their views only; None, `auto` and `all` keep all.

        Raises:
            ModelError: One was not trained on slices of a view.
            SettingsError: A view is unknown.
        """
        chosen = "all" if views is None else parse_views(views)
        return self if isinstance(chosen, str) else Ensemble([model.with_views(chosen) for model in self._models])

    def run_by(self, arithmetic: Arithmetic, *, threads: int | None = None) -> Ensemble:
        """The same models, run by some library in some precision; see `Model.run_by`."""
        return Ensemble([model.run_by(arithmetic, threads=threads) for model in self._models])

    @property
    def models(self) -> tuple[Model, ...]:
        """The models, in the order of their runs."""
        return self._models


def load_models(
    runs: Runs,
    *,
    device: str = "auto",
    views: str | Sequence[str] | None = None,
    transforms: Transforms | None = None,
) -> Ensemble:
    """The models of one or several runs as torch has them; the rest is as in `load`."""
    found = models_of(runs)
    models = [Model.load(files, device=device, transforms=transforms) for files in found]
    _refuse_copies(found, models)
    return Ensemble(models).with_views(views)


def _refuse_copies(found: Sequence[ModelFiles], models: Sequence[Model]) -> None:
    """Refuse a network that would count twice in the mean.

    Raises:
        ModelError: Two have the same weights.
    """
    places: dict[str, ModelFiles] = {}
    for files, model in zip(found, models, strict=True):
        first = places.setdefault(model.card.weights_sha256, files)
        if first is not files:
            fold = f" ({first.fold.rstrip('/')})" if first.fold else ""
            raise ModelError(
                f"{files.run}: has the weights of {first.run}{fold}, so that this network would count twice in the "
                "mean; give each once, and move copies out of the run folder",
                field="runs",
            )


def load(
    runs: Runs,
    *,
    device: str = "auto",
    views: str | Sequence[str] | None = None,
    transforms: Transforms | None = None,
    engine: str = "torch",
    precision: str = "float32",
    fold_norm: bool = True,
) -> Ensemble:
    """Load the models of one or several runs; a folder with `fold_1`, `fold_2` … inside stands for these.

    Args:
        runs: Run folders, `.medfcn` files, or names that `medfcn models` lists.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        views: Some of the views that each model was trained on, such as `coronal`; None, `auto` and `all` take all.
        transforms: The MONAI transforms that the runs were trained with, if their cards cannot hold them.
        engine: The library that runs the networks: `torch`, `onnx`, `openvino`, or `auto` for the fastest that makes
            the same masks here. It gets the CPU threads that torch has now.
        precision: `float32`, `bfloat16`, or `auto` for bfloat16 where the training found it as good and the processor
            has it.
        fold_norm: Fold batch normalisation into the convolutions before it, where torch runs in float32.

    Raises:
        MissingFileError: A folder, or a file of its model, does not exist; or the library is not installed.
        ModelError: A model is broken, or they do not belong together, or one was not trained on slices of a view, or
            with these transforms; or the library cannot run it.
        SettingsError: The device does not exist, or a view, engine or precision is unknown, or this machine cannot
            do it.
    """
    wanted = Wanted(engine, precision, fold_norm)
    models = load_models(runs, device=wanted.device(device), views=views, transforms=transforms)
    return models.run_by(settle(wanted, models.models).arithmetic)
