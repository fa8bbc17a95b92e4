"""The batches of a training: sampled, augmented and on the device."""

import numpy as np
import torch

from medfcn.errors import TrainingError
from medfcn.labels import IGNORED
from medfcn.settings import Settings
from medfcn.slices.augment import Augmenter
from medfcn.slices.sampler import SliceSampler
from medfcn.text import counted
from medfcn.training.prepare import Prepared


class Batches:
    """One process's share of each step's batch; the whole batch if there is one process.

    Args:
        prepared: Cases, plan and slices.
        settings: For sampling and augmentation.
        seed: Random seed of the training.
        share: The slices of every batch that this process takes.
        device: Where the batch is put.
    """

    def __init__(
        self, prepared: Prepared, settings: Settings, *, seed: int, share: range, device: torch.device
    ) -> None:
        plan, labels = prepared.plan, prepared.survey.labels
        self.share = share
        self.device = device
        self.sampler = SliceSampler(
            cases=prepared.stored,
            window=plan.trained,
            context=plan.context,
            batch_size=plan.batch_size,
            foreground_share=settings.training.foreground_share,
            seed=seed,
        )
        self.augmenter = Augmenter(settings.augment, plan.trained, plan.mirror_axes, seed, labels.members)
        self._largest = len(labels.overlaps)
        # What is not drawn of a case is background or one of its other labels: a target beyond the labels.
        drawn, unions = prepared.survey.drawn, prepared.survey.unions
        self._outside = {case_id: self._largest + 1 + unions.index(of_case) for case_id, of_case in drawn.items()}

    def of(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The augmented images and targets of a step.

        Raises:
            TrainingError: The prepared slices are damaged.
        """
        batch = self.sampler.batch(step, self.share)
        beyond = (batch.targets > self._largest) & (batch.targets != IGNORED)
        if beyond.any():
            index, *_ = (int(found[0]) for found in np.nonzero(beyond))
            raise TrainingError(
                f"{batch.cases[index]}: its prepared slices contain the target {batch.targets[beyond][0]}, beyond "
                f"the {counted(self._largest, 'label')}; they are damaged: start again with --overwrite",
                code="SLICES_DAMAGED",
            )
        images = torch.from_numpy(batch.images).to(self.device)
        targets = torch.from_numpy(batch.targets).to(self.device)
        images, targets = self.augmenter(images, targets, step=step, views=batch.views, share=self.share)
        for index, case_id in enumerate(batch.cases if self._outside else ()):
            if outside := self._outside.get(case_id):
                targets[index].masked_fill_(targets[index] == 0, outside)
        return images.contiguous(memory_format=torch.channels_last), targets

    def cases(self, step: int) -> tuple[str, ...]:
        """The cases in the whole batch of a step, each once."""
        return tuple(sorted(set(self.sampler.batch(step).cases)))
