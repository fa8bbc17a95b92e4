"""A trained model: a volume → a mask on the volume's own grid.

A model is two files in a run folder: `model.safetensors`, the weights, and `model.json`, the card with all that is
needed to use them. Neither can contain code. They are checked against each other before memory is allocated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from medfcn.errors import ModelError
from medfcn.files import sha256_of, write_json
from medfcn.inference.card import Card, read_card
from medfcn.inference.devices import choose_device
from medfcn.inference.engines import runner_of
from medfcn.inference.predictor import Predictor
from medfcn.inference.probabilities import view_shares
from medfcn.inference.slice_inferer import SliceInferer, fitting_slices
from medfcn.inference.weights import read_network, write_weights
from medfcn.library_memory import loading_monai
from medfcn.memory import require_memory
from medfcn.networks.design import Head, head_of
from medfcn.networks.network import SliceNetwork, channels_last
from medfcn.networks.sliding import (
    ArraySlices,
    Network,
    Slices,
)
from medfcn.runs.arithmetic import Arithmetic
from medfcn.runs.folder import RunFolder
from medfcn.runs.models import ModelFiles, the_model
from medfcn.scratch import put, scratch_array
from medfcn.settings import View
from medfcn.slices.preprocess import CaseImage
from medfcn.slices.voxels import Ranges
from medfcn.text import counted, listed

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import CaseTransforms, Transforms


class Model(Predictor):
    """A trained network with everything it needs to turn a volume into a mask.

    Attributes:
        network: The network, in evaluation mode on `device`.
        card: Everything else that is needed to use it, and its origin.
        device: The device that it runs on.
        arithmetic: The library and the precision that run it.
        runner: The network as that library runs it: slices to logits.
        transforms: The user's own transforms between reading and slicing; None for most models.
        head: The way from its logits to probabilities.
    """

    def __init__(
        self,
        network: SliceNetwork,
        card: Card,
        *,
        device: torch.device,
        transforms: CaseTransforms | None = None,
    ) -> None:
        self.network = channels_last(network.to(device)).eval()
        self.card = card
        self.device = device
        self.arithmetic = Arithmetic()
        self.runner: Network = self.network
        self.transforms = transforms
        self.head: Head = head_of(
            card.settings.network, len(card.labels.entries), overlapping=card.labels.overlapping
        )

    @classmethod
    def load(
        cls, run: Path | str | ModelFiles, *, device: str = "auto", transforms: Transforms | None = None
    ) -> Model:
        """Load the model of a run.

        Args:
            run: A run folder, a `.medfcn` file, or a name that `medfcn models` lists.
            device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
            transforms: The transforms that the run was trained with, if its card cannot hold them.

        Raises:
            MissingFileError: The folder, or one of the two files, does not exist.
            ModelError: They cannot be read, contradict each other, or come from another version; or the transforms of
                the run are missing, or others than these.
            SettingsError: The device does not exist.
        """
        model = cls.load_network(run, device=device)
        model.transforms = _transforms_of(model.card, transforms)
        return model

    @classmethod
    def load_network(cls, run: Path | str | ModelFiles, *, device: str = "auto") -> Model:
        """As `load`, without the transforms of the run: to start from its weights, not to predict."""
        files = run if isinstance(run, ModelFiles) else the_model(run)
        place, weights = files.card, files.weights
        card = read_card(place)
        return cls(read_network(weights, card, remedy=files.remedy), card, device=choose_device(device))

    def with_card(self, card: Card) -> Model:
        """The same network, used in another way."""
        other = Model(self.network, card, device=self.device, transforms=self.transforms)
        other.arithmetic, other.runner = self.arithmetic, self.runner
        return other

    def run_by(self, arithmetic: Arithmetic, *, threads: int | None = None) -> Model:
        """The same network, run by some library in some precision.

        Args:
            arithmetic: The library and the precision.
            threads: CPU threads of the library; None takes those of torch, which has them from elsewhere.

        Raises:
            MissingFileError: The library is not installed.
            SettingsError: This machine cannot do it.
            ModelError: The library cannot run the network, or gives other logits than torch.
        """
        if arithmetic == self.arithmetic:
            return self
        if arithmetic.engine != "torch" and self.card.plan.own_statistics:
            raise ModelError(
                f"engine {arithmetic.engine}: this model's network is fitted to each volume (slices.own_statistics), "
                "which only torch does; take --engine torch",
                code="ENGINE_UNFIT",
                field="engine",
            )
        other = self.with_card(self.card)
        other.arithmetic = arithmetic
        count = torch.get_num_threads() if threads is None else threads
        other.runner = runner_of(self.network, self.card.plan, arithmetic, device=self.device, threads=count)
        return other

    def save(self, run: Path | str) -> None:
        """Write `model.safetensors` and `model.json` into a folder, each whole or not at all."""
        folder = RunFolder(Path(run))
        write_weights(folder.weights, self.network)
        self.card = dataclasses.replace(self.card, weights_sha256=sha256_of(folder.weights))
        write_json(folder.card, self.card.to_json())

    @property
    def looking_once(self) -> Model:
        """The same network as it was trained, that sees every slice, and each once: for the curve of a training."""
        plan = dataclasses.replace(self.card.plan, turns=(), apart=(), own_statistics=0.0)
        if plan == self.card.plan:
            return self
        return self.with_card(dataclasses.replace(self.card, plan=plan))

    def with_views(self, views: Sequence[View] | None) -> Model:
        """The same network with some of its views only; None keeps all.

        The weights of these views keep their proportions; if all are 0, the views weigh alike. The results on unseen
        cases belong to all views together, so with fewer views no quality is expected of a mask.

        Raises:
            ModelError: It was not trained on slices of a view.
        """
        known, weights = self.card.plan.views, self.card.view_weights
        if views is None or set(views) == set(known):
            return self
        for view in views:
            if view not in known:
                raise ModelError(
                    f"the model knows {listed(known)} slices, not {view}; choose among those", field="views"
                )
        kept = tuple(view for view in known if view in views)
        chosen = tuple(weight for view, weight in zip(known, weights, strict=False) if view in kept)
        share = tuple(weight / sum(chosen) for weight in chosen) if sum(chosen) > 0 else ()
        apart = tuple(self.card.plan.apart_along(view) for view in kept) if self.card.plan.apart else ()
        plan = dataclasses.replace(self.card.plan, views=kept, apart=apart)
        return self.with_card(dataclasses.replace(self.card, plan=plan, view_weights=share, unseen=None))

    @property
    def models(self) -> tuple[Model, ...]:
        """Itself."""
        return (self,)

    @cached_property
    def _batch(self) -> tuple[int, int]:
        """From `fitting_slices`, which may take some time."""
        return fitting_slices(self.card, self.network)

    @property
    def inferer(self) -> SliceInferer:
        """The network on the slices of a view, as it is run now."""
        return SliceInferer(
            self.card, self.network, self.runner, self.arithmetic, self.device, self.head, batch=self._batch
        )

    def network_probabilities(self, image: CaseImage, *, tta: bool | None = None) -> NDArray[np.float32]:
        """`(L, R, A, S)` float32 probabilities of the labels on the network grid of a case.

        With several views their weighted mean; a view of weight 0 is left out. A large array lies in a file.
        """
        stored = scratch_array(
            (*image.shape[:0:-1], len(self.card.labels.entries)), np.float32, purpose="the probabilities"
        )
        total: NDArray[np.float32] = stored.T  # contiguous
        for number, (view, share) in enumerate(view_shares(self.card).items()):
            for place, part in self.view_slabs(image.slices(view), view, tta=tta):
                put(total[place], part * share, add=number > 0)
        return total

    def view_probabilities(
        self, image: NDArray[np.float32], view: View, *, tta: bool | None = None
    ) -> NDArray[np.float32]:
        """The probabilities of one view.

        Args:
            image: `(C, R, A, S)` on the network grid, which all views share; see `network_image`.
            view: One of the views that the network was trained on.
            tta: Average over mirror images; None does as the model's settings say.

        Returns:
            `(L, R, A, S)` float32.
        """
        labels = len(self.card.labels.entries)
        require_memory(8 * labels * image[0].size, f"the probabilities of {counted(labels, 'label')}")
        total = np.empty((labels, *image.shape[1:]), dtype=np.float32)
        for place, part in self.view_slabs(ArraySlices(image, view), view, tta=tta):
            total[place] = part
        return total

    def view_slabs(
        self, slices: Slices, view: View, *, tta: bool | None = None
    ) -> Iterator[tuple[Ranges, NDArray[np.float32]]]:
        """The probabilities of one view, some slices at a time; see `SliceInferer.view_slabs`."""
        return self.inferer.view_slabs(slices, view, tta=tta)


def _transforms_of(card: Card, given: Transforms | None) -> CaseTransforms | None:
    """The user's own transforms of a run, from its card or from a script; MONAI is loaded only if there are some.

    Raises:
        ModelError: They are missing, or others than those of the training.
    """
    if not card.transforms:
        if given is None:
            return None
        raise ModelError("transforms: the run was trained without any; leave them out", field="transforms")
    with loading_monai():
        from medfcn.monai.case_transforms import CaseTransforms

    return CaseTransforms.of_run(card.transforms, given)
