"""A model, and several averaged, make a mask of a volume on its own grid: `Predictor`, the base of both."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from medfcn.allocator import large_memory_returned
from medfcn.inference.card import Card
from medfcn.inference.case import READ_STRICTLY, Member, Prediction, as_channels, predict_with
from medfcn.inference.confidence import Assessment
from medfcn.inference.postprocessing import Rules, rules_of
from medfcn.inference.region import region_of
from medfcn.labels.colours import label_table
from medfcn.text import counted, one_line
from medfcn.volumes import ReadOptions, Volume, VolumeLike


class Predictor(ABC):
    """One model, or several that are averaged; makes a mask of a volume."""

    card: Card

    @property
    @abstractmethod
    def models(self) -> tuple[Member, ...]:
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
