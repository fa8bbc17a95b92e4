"""A trained model: a volume → a mask on the volume's own grid.

A model is two files in a run folder: `model.safetensors`, the weights, and `model.json`, the card with all that is
needed to use them. Neither can contain code. They are checked against each other before memory is allocated.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, reduce
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from medfcn.allocator import large_memory_returned
from medfcn.errors import ModelError
from medfcn.files import sha256_of, write_json
from medfcn.inference.card import Card, read_card
from medfcn.inference.case import READ_STRICTLY, Prediction, as_channels, predict_with
from medfcn.inference.confidence import Assessment
from medfcn.inference.devices import choose_device
from medfcn.inference.engines import runner_of
from medfcn.inference.postprocessing import Rules, rules_of
from medfcn.inference.probabilities import between_slices, foreground, view_shares
from medfcn.inference.region import region_of
from medfcn.inference.weights import read_network, write_weights
from medfcn.labels.colours import label_table
from medfcn.memory import loading_monai, require_memory
from medfcn.networks.design import Head, head_of, planned_design
from medfcn.networks.folding import folded
from medfcn.networks.memory import fitting_batch, require_maps
from medfcn.networks.network import SliceNetwork, channels_last
from medfcn.networks.own_statistics import some_slices, with_own_statistics
from medfcn.networks.sliding import (
    REACH,
    ArraySlices,
    MirroredNetwork,
    Network,
    Slabs,
    Slices,
    Sliding,
    logits_in_slabs,
    stacked,
    tile_of,
)
from medfcn.networks.turned import TurnedNetwork
from medfcn.runs.arithmetic import Arithmetic
from medfcn.runs.folder import RunFolder
from medfcn.runs.models import ModelFiles, the_model
from medfcn.scratch import put, scratch_array
from medfcn.settings import View
from medfcn.slices.preprocess import CaseImage
from medfcn.slices.slicing import VIEW_AXIS, spread
from medfcn.slices.voxels import Ranges
from medfcn.text import counted, listed, one_line
from medfcn.volumes import ReadOptions, Volume, VolumeLike

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import CaseTransforms, Transforms

_SLAB_MAP_BYTES, _SLAB_BYTES = 1 << 25, 1 << 26
"""The maps of a network, and its logits, that are in memory at once on a CPU, unless those of two slices take more.
They are the same on every machine."""
_OWN_SLICES = 8
"""Slices of each view by which a network is fitted to a volume, at most."""
_GROUP_VALUES = 1 << 21
"""Probabilities that are worked on at a time, unless one slice has more."""


class Predictor(ABC):
    """One model, or several that are averaged; makes a mask of a volume."""

    card: Card

    @property
    @abstractmethod
    def models(self) -> tuple[Model, ...]:
        """The models whose probabilities are averaged, at least one."""

    @property
    def cards(self) -> tuple[Card, ...]:
        """The card of each model."""
        return tuple(model.card for model in self.models)

    @property
    def rules(self) -> Rules:
        """The threshold, and the labels of which one component is kept."""
        return rules_of(self.cards)

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the record of a mask: that the user's transforms run with another MONAI than in the training."""
        then = self.card.versions.get("monai")
        if not self.card.transforms or then == (now := version("monai")):
            return ()
        return (f"transforms: trained with MONAI {then}, run with {now}",)

    def __repr__(self) -> str:
        """One line: what is segmented, from which channels, in which views, by how many models."""
        views = ", ".join(sorted({view for model in self.models for view in model.card.plan.views}))
        labels, channels = (", ".join(names) for names in (self.card.labels.names, self.card.channels))
        count = counted(len(self.models), "model")
        return one_line(f"<{type(self).__name__} of {count}: labels {labels}; channels {channels}; {views} slices>")

    def predict(
        self,
        source: VolumeLike | Sequence[VolumeLike],
        *,
        tta: bool | None = None,
        options: ReadOptions = READ_STRICTLY,
    ) -> Volume:
        """The mask of a volume, on the volume's own grid.

        Args:
            source: A path, a `Volume`, a nibabel image, or an `(array, affine)` tuple; a list of these for a model
                with several channels.
            tta: Average over mirror images; None follows the model's settings.
            options: What to accept when a path is read that would otherwise be refused.

        Returns:
            An unsigned integer mask with the labels' written values; 0 is background. Its `save` writes the label
            table that `medfcn predict` writes.

        Raises:
            VolumeError: The volume cannot be trusted.
            ModelError: The number of channels is not the model's.
        """
        return self.predict_case(source, tta=tta, options=options).mask

    def predict_case(
        self,
        source: VolumeLike | Sequence[VolumeLike],
        *,
        tta: bool | None = None,
        keep_probabilities: bool = False,
        uncertainty: bool = False,
        options: ReadOptions = READ_STRICTLY,
    ) -> Prediction:
        """The mask of a volume with its volumes in ml, flags and expected quality; see `predict`."""
        with large_memory_returned():
            volumes = as_channels(source, self.card.use, options)
            region = region_of(volumes[0], self.cards, options)
            seen = volumes if region is None else [region.cut(volume) for volume in volumes]
            found = predict_with(
                self.models, seen, tta=tta, keep_probabilities=keep_probabilities, uncertainty=uncertainty
            )
            whole = found if region is None else region.on_whole(found, volumes[0])
            return dataclasses.replace(
                whole, mask=dataclasses.replace(whole.mask, labels=label_table(self.card.labels))
            )

    def assess(
        self,
        source: VolumeLike | Sequence[VolumeLike],
        *,
        tta: bool | None = None,
        options: ReadOptions = READ_STRICTLY,
    ) -> Mapping[str, Assessment]:
        """For each label, the Dice to expect of its mask, without a reference, and whether to review it.

        The same as `predict_case(source).assessments`; the arguments are those of `predict`.
        """
        return self.predict_case(source, tta=tta, options=options).assessments


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
        """The slices that go through the network at once, and the bytes of their maps; see `fitting_batch`."""
        card = self.card
        design = planned_design(card.settings.network, card.plan, card.labels)
        return fitting_batch(card.settings.prediction.batch_size, design, self._reach, self.network)

    @property
    def _whole(self) -> float:
        """A slice up to so many times the window goes through in one piece."""
        return self.card.plan.whole if self.network.takes_any_size else 1.0

    @property
    def _reach(self) -> tuple[int, int]:
        """Rows and columns of the largest slice that is as one of training."""
        beyond = REACH if self.network.takes_any_size else 1.0
        height, width = (math.ceil(beyond * edge) for edge in self.card.plan.window)
        return height, width

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
        """The probabilities of one view, some slices at a time.

        Args:
            slices: Those of a case along the view.
            view: One of the views that the network was trained on.
            tta: Average over mirror images; None does as the model's settings say.

        Yields:
            A place along L, R, A and S, and the `(L, r, a, s)` float32 probabilities there. The places depend on the
            model and the case's shape alone.
        """
        plan, prediction = self.card.plan, self.card.settings.prediction
        use_tta = prediction.tta if tta is None else tta
        mirrors: list[tuple[int, ...]] = [()]
        if use_tta:
            for axis in plan.mirrored(view):
                mirrors += [(*axes, 2 + axis) for axes in mirrors]
        count, _, *size = slices.shape
        sliding = self._sliding(count, (size[0], size[1]), plan.apart_along(view))
        looking = self._fitted(slices) if plan.own_statistics and 0 not in slices.shape else self.runner
        if plan.turns:
            together = self._slab((size[0], size[1]))
            looking = TurnedNetwork(looking, angles=plan.turns, part=plan.trained, head=self.head, together=together)
        networks = [MirroredNetwork(looking, axes) for axes in mirrors]
        axis, labels = VIEW_AXIS[view], len(self.card.labels.entries)
        thickness = max(1, _GROUP_VALUES // max(1, labels * math.prod(size)))
        parts = self._seen(slices, networks, sliding, thickness)
        if sliding.apart > 1 and count:
            parts = between_slices(parts, spread(count, sliding.apart), thickness)
        for start, shares in parts:
            place = [slice(None)] * 4
            place[1 + axis] = slice(start, start + len(shares))
            yield tuple(place), stacked(shares, view)

    def _fitted(self, slices: Slices) -> Network:
        """The network with the volume's own statistics along a view; see `medfcn.networks.own_statistics`."""
        plan, (batch_size, held) = self.card.plan, self._batch
        beyond = self._beyond((slices.shape[2], slices.shape[3]))
        few = max(2, int(min(_OWN_SLICES, batch_size) / beyond))
        if self.device.type == "cpu":
            require_maps(few, math.ceil(beyond * held / batch_size))
        seen = some_slices(slices, plan.window, count=few, context=plan.context, whole=self._whole)
        tensor = torch.from_numpy(seen).to(self.device).contiguous(memory_format=torch.channels_last)
        fitted = with_own_statistics(self.network, tensor, plan.own_statistics)
        return folded(fitted) if self.arithmetic.folded else channels_last(fitted)

    def _seen(
        self, slices: Slices, networks: Sequence[Network], sliding: Sliding, thickness: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The mean probabilities of some networks for the slices that they see, at most so many at a time."""
        for slab, logits in logits_in_slabs(slices, networks, sliding):
            for start in range(0, slab.stop - slab.start, thickness):
                seen = (foreground(each[start : start + thickness], self.head) for each in logits)
                total: NDArray[np.float32] = reduce(np.add, seen)
                shares = total / np.float32(len(networks)) if len(networks) > 1 else total
                yield slab.start + start, shares

    def _sliding(self, count: int, size: tuple[int, int], apart: int) -> Sliding:
        """The way through some slices of a size, in slabs that take little memory."""
        plan, prediction = self.card.plan, self.card.settings.prediction
        batch_size, held = self._batch
        slab, slice_bytes = batch_size, 0
        beyond = self._beyond(size)
        if self.device.type == "cpu" or beyond > 1:
            slab = self._slab(size)
        if self.device.type == "cpu":
            slice_bytes = math.ceil(beyond * held / batch_size)
            require_maps(min(count, 2 * slab - 1, batch_size), slice_bytes)
        return Sliding(
            plan.window,
            context=plan.context,
            batch_size=batch_size,
            tile_overlap=prediction.tile_overlap,
            whole=self._whole,
            device=self.device,
            precision=self.arithmetic.precision,
            slab=slab,
            is_even=not plan.turns,  # what is looked at again follows from the slices that come together
            slice_bytes=slice_bytes,
            apart=apart,
        )

    def _beyond(self, size: tuple[int, int]) -> float:
        """How many times the pixels of `_reach` go through the network at once for a slice; 1 if they are fewer."""
        window = self.card.plan.window
        height, width = map(max, size, window)
        return max(1.0, math.prod(tile_of((height, width), window, self._whole)) / math.prod(self._reach))

    @property
    def slabs(self) -> Slabs:
        """The slices that go through the network at once on a CPU, and share a place of further looks everywhere."""
        batch_size, held = self._batch
        classes = len(self.card.labels.entries) + (self.head == "softmax")
        most = _SLAB_MAP_BYTES * batch_size // max(1, held)
        return Slabs(batch_size, most, _SLAB_BYTES // (4 * classes), max(2, most) * math.prod(self._reach))

    def _slab(self, size: tuple[int, int]) -> int:
        """Slices of a size that go through the network at once on a CPU; see `slabs`."""
        window = self.card.plan.window
        height, width = map(max, size, window)
        return self.slabs.of((height, width), tile_of((height, width), window, self._whole))


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
