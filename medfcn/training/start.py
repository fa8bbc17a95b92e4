"""The initial weights of a network: random, or those of a pretrained encoder, or of a whole run."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medfcn.calls import require_one
from medfcn.errors import SettingsError, TrainingError
from medfcn.files import sha256_of
from medfcn.inference.model import Model
from medfcn.inference.state_dict import read_state_dict
from medfcn.labels import LabelMap
from medfcn.library_memory import loading_monai
from medfcn.networks.design import planned_design
from medfcn.networks.fcn import FCN, build_network
from medfcn.networks.memory import require_weights
from medfcn.networks.monai_nets import require_monai_trainable
from medfcn.networks.network import SliceNetwork
from medfcn.networks.presets import with_preset
from medfcn.networks.pretrained import encoder_weights, start_encoder
from medfcn.networks.transfer import Transfer, choose_carried, require_same_parts
from medfcn.progress import Progress
from medfcn.runs.cases import NOTHING_OF_NEW, TrainingImages
from medfcn.runs.models import models_of
from medfcn.settings import NetworkSettings, Settings
from medfcn.slices.plan import Plan
from medfcn.text import counted, listed, shown
from medfcn.training.identity import read_identity

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import CaseTransforms, Transforms

_COPIES = 5
"""Weights, their gradients, both moments of AdamW, and the average."""


@dataclass(frozen=True)
class Start:
    """The source of a network's initial weights: a run, an encoder, or random numbers if neither is given.

    Attributes:
        name: The run or the file, for messages.
        run: The model whose weights are the initial ones.
        encoder: A state dict in torchvision's layout, for the encoder alone.
        trained_on: The images that it was trained on.
        record: For `model.json`: the SHA-256 of the weights, never a path; and the steps behind those of a run.
    """

    name: str = ""
    run: Model | None = None
    encoder: Mapping[str, torch.Tensor] | None = None
    trained_on: TrainingImages = dataclasses.field(default_factory=TrainingImages)
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def seen(self, hashes: Mapping[str, Sequence[str]], voxels: Mapping[str, Sequence[str]]) -> list[str]:
        """The cases that the run was trained on whose weights are the initial ones.

        Args:
            hashes: Of the image files of each case.
            voxels: Of the voxels of these.
        """
        contain = self.trained_on.contain
        return [case for case, images in hashes.items() if contain(images, partial(voxels.__getitem__, case))]

    def seen_text(self, seen: Sequence[str], of_all: int) -> str:
        """The worth of the scores of such validation cases, in words.

        Args:
            seen: The cases.
            of_all: The number of validation cases.
        """
        one = len(seen) == 1
        are, their = ("is of the training cases", "its") if one else ("are of the training cases", "their")
        return (
            f"{len(seen)} of {counted(of_all, 'validation case')} {are} of {self.name}, from whose weights this run "
            f"starts; {their} {NOTHING_OF_NEW}: {listed(seen, limit=20)}"
        )

    @property
    def plan(self) -> Plan | None:
        """How the run's volumes became slices."""
        return None if self.run is None else self.run.card.plan

    def settle(self, settings: Settings, *, preset: str | None) -> Settings:
        """Settings with every part of the network set.

        Without a preset, parts that the user leaves open are the run's. With one, they are the preset's, and those
        that no preset sets (`width`, `head`) are the run's.

        Args:
            settings: The user's settings, single options included.
            preset: The preset, if it is given by itself.

        Raises:
            SettingsError: There is no such preset, or its parts do not fit each other.
            ModelError: The weights are of another network.
        """
        if self.run is not None:
            network = _network_after(self.run.card.settings.network, settings.network, preset=preset)
            settings = dataclasses.replace(settings, network=network)
        settings = dataclasses.replace(settings, network=with_preset(settings.network))
        require_monai_trainable(settings)
        if self.run is not None:
            require_same_parts(settings.network, with_preset(self.run.card.settings.network), source=self.name)
        if self.encoder is not None:
            encoder_weights(self.encoder, settings.network, source=self.name)
        return settings

    def require_fit(self, settings: Settings, plan: Plan, labels: LabelMap) -> None:
        """Refuse weights that do not fit the planned network, before anything is prepared.

        Raises:
            ModelError: Their shapes differ; the first tensor is named.
        """
        if self.run is not None:
            with torch.device("meta"):
                network = build_network(planned_design(settings.network, plan, labels))
            self._carry(self.run, network, labels)

    def network(self, settings: Settings, plan: Plan, labels: LabelMap, *, progress: Progress) -> SliceNetwork:
        """The network with its initial weights.

        Args:
            settings: From `settle`.
            plan: How volumes become slices.
            labels: The labels to segment.
            progress: Where the weights that are used are reported.

        Raises:
            ModelError: The weights do not fit.
        """
        network = build_network(planned_design(settings.network, plan, labels))
        if self.run is not None:
            carry = self._carry(self.run, network, labels)
            carry.start(network, self.run.network)
            progress.say(_carried_text(self.name, carry, self.run.card.labels, labels))
        if self.encoder is not None and isinstance(network, FCN):
            weights = encoder_weights(self.encoder, settings.network, source=self.name)
            start_encoder(network.encoder, weights, image_channels=len(plan.intensities), context=plan.context)
            progress.say(f"the encoder starts from {self.name}, the other layers at random")
        return network

    def _carry(self, run: Model, network: SliceNetwork, labels: LabelMap) -> Transfer:
        same_labels = labels.names == run.card.labels.names
        return choose_carried(network, run.network, same_labels=same_labels, source=self.name)


def require_room(settings: Settings, plan: Plan, labels: LabelMap, device: torch.device) -> None:
    """Refuse to train a network that is too large for the memory of this machine, before anything is prepared.

    Raises:
        MemoryShortError: It is.
    """
    copies = _COPIES if device.type == "cpu" else 1
    require_weights(planned_design(settings.network, plan, labels), copies=copies)


def find_start(init: Path | str | None, encoder: Path | str | None, *, output: Path | str | None = None) -> Start:
    """Read the initial weights.

    Args:
        init: A run folder.
        encoder: A weights file; see `read_state_dict`.
        output: The run folder to make.

    Raises:
        SettingsError: Both are given, or the new run would replace the one it starts from.
        MissingFileError: The run or the file is not there.
        ModelError: It cannot be read.
    """
    require_one(init=init, encoder_weights=encoder)
    if init is not None:
        if output is not None and Path(init).resolve() == Path(output).resolve():
            message = f"{output}: is the run to start from, and would be replaced; choose another output"
            raise SettingsError(message, field="init")
        run = Model.load_network(init, device="cpu")
        steps = run.card.steps_in_all
        behind = {} if steps is None else {"init_steps": steps}
        seen = TrainingImages(models_of(init))
        return Start(shown(init), run=run, trained_on=seen, record={"init": run.card.weights_sha256, **behind})
    if encoder is not None:
        state = read_state_dict(encoder)
        return Start(shown(encoder), encoder=state, record={"encoder_weights": sha256_of(encoder)})
    return Start()


def choose_transforms(
    given: "Transforms | None", start: Start, resumed: Path | None = None
) -> "CaseTransforms | None":
    """The user's own transforms: those that are given, else those of a stopped training, else of the initial run.

    Args:
        given: As a script passes them.
        start: The initial weights.
        resumed: The run folder of a stopped training.

    Raises:
        SettingsError: One is random, or is not a transform.
        ModelError: They cannot be built again, or the stopped training has others.
        TrainingError: The stopped training has none.
    """
    recorded = read_identity(resumed) if resumed is not None else {}
    stored = recorded.get("transforms") or ([] if start.run is None else start.run.card.transforms)
    if given is not None and recorded and "transforms" not in recorded:
        raise TrainingError(
            f"{resumed}: cannot be resumed as something else: it was started without transforms; leave them out, or "
            "start again (--overwrite, overwrite=True)",
            field="transforms",
        )
    if given is None and not stored:
        return None
    # Loaded here, because most trainings have none and plans do without MONAI.
    with loading_monai():
        from medfcn.monai.case_transforms import CaseTransforms

    if "transforms" in recorded or given is None:
        return CaseTransforms.of_run(stored, given)
    return CaseTransforms(given)


def _network_after(run: NetworkSettings, given: NetworkSettings, *, preset: str | None) -> NetworkSettings:
    """The given settings, with the run's where they are open; see `Start.settle`."""
    defaults = NetworkSettings()
    chosen = {
        part.name: getattr(given, part.name)
        for part in dataclasses.fields(given)
        if getattr(given, part.name) != getattr(defaults, part.name)
    }
    if given.monai is not None:
        arguments = run.monai_arguments if given.monai == run.monai else None
        return dataclasses.replace(given, monai_arguments=given.monai_arguments or arguments)
    if preset is None and "preset" not in chosen:
        return dataclasses.replace(run, **chosen)
    kept: dict[str, Any] = {"width": run.width, "head": run.head}
    if with_preset(dataclasses.replace(given, stem_stride=None)).encoder == "strided":  # chosen by the run's plan
        kept["stem_stride"] = run.stem_stride
    return dataclasses.replace(given, **(kept | chosen))


def _carried_text(name: str, carry: Transfer, before: LabelMap, labels: LabelMap) -> str:
    """The initial weights in one line."""
    count = sum(len(names) for names in (carry.taken, carry.zeroed, carry.relabelled, carry.fresh))
    parts = [f"starts from {name}: {len(carry.taken)} of {count} tensors"]
    if carry.zeroed:
        parts.append("the new skips' scores start at zero")
    if carry.relabelled:
        was, now = (listed(each.names) for each in (before, labels))
        parts.append(f"the layers of the labels start at random, because the run has {was} and this one {now}")
    if carry.fresh:
        parts.append("new upsampling starts as linear interpolation")
    return "; ".join(parts)
