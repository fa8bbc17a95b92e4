"""A trained model: its files, and a volume → a mask.

A model is two files in a run folder: `model.safetensors`, the weights, and `model.json`, the card with all that is
needed to use them. Neither can hold code. Both are checked against each other before anything is allocated.
"""

import dataclasses
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from medfcn.config import Settings, settings_from, to_tables
from medfcn.errors import MedfcnError, MissingFileError, ModelError
from medfcn.files import atomic_write, sha256_of, write_json
from medfcn.inference.devices import choose_device
from medfcn.inference.inferer import Precision, SlidingVolumeInferer
from medfcn.networks.fcn import FCN, build_network, channels_last
from medfcn.slices.components import keep_largest
from medfcn.slices.plan import Plan
from medfcn.slices.preprocess import image_tensor, network_transforms
from medfcn.volumes import LabelMap, ReadOptions, Volume, VolumeLike, as_volume
from medfcn.volumes.names import printable

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
_FORMAT = 1
READ_STRICTLY = ReadOptions()
_LARGEST_CARD = 16 * 2**20
INTENDED_USE = "Research use only; not a medical device."


@dataclass(frozen=True)
class Card:
    """What stands in `model.json`.

    Attributes:
        labels: What is segmented, and the values written for it.
        channels: Names of the image channels, in order.
        plan: How volumes become slices.
        settings: All settings of the training.
        one_part: Positions (from 1) of the labels of which only the largest connected part is kept.
        weights_sha256: Of `model.safetensors`.
        versions: Of medfcn and what it stands on, when it was trained.
        training: What was trained on and for how long: counts, hashes, seconds.
        validation: Summary of the scores on the validation cases.
        intended_use: Research only.
        format: Of the card itself.
    """

    labels: LabelMap
    channels: tuple[str, ...]
    plan: Plan
    settings: Settings
    one_part: tuple[int, ...]
    weights_sha256: str
    versions: Mapping[str, str]
    training: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    intended_use: str = INTENDED_USE
    format: int = _FORMAT

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, which `from_json` turns back."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return plain | {
            "labels": self.labels.to_json(),
            "plan": self.plan.to_json(),
            "settings": to_tables(self.settings),
        }

    @classmethod
    def from_json(cls, value: Any, *, source: str) -> "Card":
        """The inverse of `to_json`.

        Raises:
            ModelError: A key is missing or unknown, or a value does not fit.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        if not isinstance(value, dict):
            raise ModelError(f"{source}: holds no JSON object; copy the run folder again")
        if type(value.get("format")) is not int or value["format"] != _FORMAT:
            found = printable(repr(value.get("format")), limit=40)
            raise ModelError(f"{source}: format {found} is not {_FORMAT}; use the medfcn version that wrote it")
        if set(value) != known:
            odd = printable(", ".join(sorted(set(value) ^ known)))
            raise ModelError(f"{source}: missing or unknown keys {odd}; copy the run folder again")
        try:
            card = cls(
                labels=LabelMap.from_json(value["labels"]),
                channels=tuple(value["channels"]),
                plan=Plan.from_json(value["plan"]),
                settings=settings_from(value["settings"], source=source),
                one_part=tuple(value["one_part"]),
                **{name: value[name] for name in known - {"labels", "channels", "plan", "settings", "one_part"}},
            )
            _require_types(card, value)
        except MedfcnError as error:
            raise ModelError(f"{source}: {printable(str(error), limit=400)}") from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = printable(repr(error))
            raise ModelError(f"{source}: a value does not fit ({what}); copy the run folder again") from error
        if len(card.channels) != len(card.plan.intensities):
            raise ModelError(f"{source}: channels and plan.intensities differ in number; copy the run folder again")
        return card


def _require_types(card: Card, value: Mapping[str, Any]) -> None:
    """TypeError for the fields of a card that no other reader has looked at."""
    positions = range(1, len(card.labels.entries) + 1)
    sound = {
        "channels": isinstance(value["channels"], list) and all(isinstance(name, str) for name in card.channels),
        "one_part": all(type(position) is int and position in positions for position in card.one_part),
        "weights_sha256": isinstance(card.weights_sha256, str),
        "versions": isinstance(card.versions, Mapping),
        "training": isinstance(card.training, Mapping),
        "validation": isinstance(card.validation, Mapping),
        "intended_use": isinstance(card.intended_use, str),
    }
    for name, holds in sound.items():
        if not holds:
            raise TypeError(f"{name} cannot be {str(value[name])[:100]}")


@dataclass(frozen=True)
class Prediction:
    """A mask and what is known of it.

    Attributes:
        mask: On the image's own grid, with the labels' written values.
        volumes_ml: For each label, in millilitres.
        flags: What a reader should know, such as that the image is constant.
        probabilities: `(L, I, J, K)` float32, one for each label, when asked for.
    """

    mask: Volume
    volumes_ml: Mapping[str, float]
    flags: tuple[str, ...]
    probabilities: NDArray[np.float32] | None = None


class Model:
    """A trained network with everything it needs to turn a volume into a mask.

    Attributes:
        network: The network, in evaluation mode on `device`.
        card: Where it comes from and how it is used.
        device: Where it runs.
        precision: Its arithmetic in prediction: float32, so that a mask does not depend on the hardware.
    """

    def __init__(self, network: FCN, card: Card, *, device: torch.device, precision: Precision = "float32") -> None:
        self.network = channels_last(network.to(device)).eval()
        self.card = card
        self.device = device
        self.precision = precision
        self._transforms = network_transforms(card.plan)

    @classmethod
    def load(cls, run: Path | str, *, device: str = "auto") -> "Model":
        """Load the model of a run folder.

        Raises:
            MissingFileError: The folder, or one of the two files, is not there.
            ModelError: They cannot be read, contradict each other, or come from another version.
            SettingsError: The device is not there.
        """
        folder = Path(run)
        for name in (CARD_FILE, WEIGHTS_FILE):
            if not (folder / name).is_file():
                raise MissingFileError(f"{folder}: no {name} in it; give a folder that `medfcn train` finished")
        card = _read_card(folder / CARD_FILE)
        path = folder / WEIGHTS_FILE
        if sha256_of(path) != card.weights_sha256:
            raise ModelError(f"{path.name}: its SHA-256 is not the one in {CARD_FILE}; copy the run folder again")
        network = _read_network(path, card)
        return cls(network, card, device=choose_device(device))

    def save(self, run: Path | str) -> None:
        """Write `model.safetensors` and `model.json` into a folder, each whole or not at all."""
        folder = Path(run)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        content = save_tensors(tensors)
        with atomic_write(folder / WEIGHTS_FILE) as file:
            file.write(content)
        self.card = dataclasses.replace(self.card, weights_sha256=sha256_of(folder / WEIGHTS_FILE))
        write_json(folder / CARD_FILE, self.card.to_json())

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
            tta: Average over mirror images; None does as the model's settings say.
            options: What to opt in to when a path is read that would otherwise be refused.

        Returns:
            An unsigned integer mask with the labels' written values; 0 is background.

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
        options: ReadOptions = READ_STRICTLY,
    ) -> Prediction:
        """The mask of a volume with its volumes in ml and flags; see `predict`."""
        volumes = as_channels(source, self.card.channels, options)
        probabilities = self.probabilities(volumes, tta=tta)
        return masked(
            probabilities,
            volumes,
            self.card,
            threshold=self.card.settings.prediction.threshold,
            keep=keep_probabilities,
        )

    def probabilities(self, volumes: Sequence[Volume], *, tta: bool | None = None) -> NDArray[np.float32]:
        """`(L, I, J, K)` float32 probabilities of the labels on the native grid of a case's channels."""
        sample = self._transforms({"image": image_tensor(volumes)})
        image = sample["image"]
        network_grid = self._network_probabilities(image.as_tensor(), tta=tta)
        carried = image.clone()
        carried.set_array(torch.from_numpy(network_grid))
        native: NDArray[np.float32] = self._transforms.inverse({"image": carried})["image"].numpy()  # type: ignore[no-untyped-call]
        return native

    def _network_probabilities(self, image: torch.Tensor, *, tta: bool | None) -> NDArray[np.float32]:
        plan, prediction = self.card.plan, self.card.settings.prediction
        inferer = SlidingVolumeInferer(
            plan.view,
            window=plan.window,
            context=plan.context,
            batch_size=prediction.batch_size,
            tile_overlap=prediction.tile_overlap,
            device=self.device,
            precision=self.precision,
        )
        use_tta = prediction.tta if tta is None else tta
        mirrors: list[tuple[int, ...]] = [()]
        if use_tta:
            for axis in plan.mirror_axes:
                mirrors += [(*axes, 2 + axis) for axes in mirrors]
        total: NDArray[np.float32] | None = None
        for axes in mirrors:
            logits = inferer(image[None], _Mirrored(self.network, axes))[0]
            part = _foreground(logits).numpy()
            if not np.isfinite(part).all():
                raise ModelError("the network gives NaN for this volume; look at its intensities, or train again")
            total = part if total is None else total + part
        if total is None:
            raise ModelError("plan.mirror_axes: nothing to average; copy the run folder again")
        return total / np.float32(len(mirrors))


class _Mirrored:
    """A network that sees its slices mirrored; its logits are mirrored back."""

    def __init__(self, network: FCN, axes: tuple[int, ...]) -> None:
        self.network = network
        self.axes = axes

    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        if not self.axes:
            logits: torch.Tensor = self.network(slices)
            return logits
        mirrored: torch.Tensor = self.network(slices.flip(self.axes))
        return mirrored.flip(self.axes)


def _foreground(logits: torch.Tensor) -> torch.Tensor:
    """`(K, R, A, S)` logits to `(L, R, A, S)` probabilities of the labels."""
    return torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, dim=0)[1:]


def as_channels(
    source: VolumeLike | Sequence[VolumeLike], channels: Sequence[str], options: ReadOptions = READ_STRICTLY
) -> tuple[Volume, ...]:
    """A case's channels as trusted volumes.

    Raises:
        ModelError: There are more or fewer than the model was trained on.
    """
    sources = list(source) if isinstance(source, list) else [source]
    if len(sources) != len(channels):
        raise ModelError(
            f"the model takes {len(channels)} channels ({', '.join(channels)}), the case has {len(sources)}; "
            "give one volume for each, in that order"
        )
    return tuple(as_volume(item, options=options) for item in sources)


def masked(
    probabilities: NDArray[np.float32], volumes: Sequence[Volume], card: Card, *, threshold: float, keep: bool
) -> Prediction:
    """Probabilities on the native grid → a mask, its volumes and flags.

    With one label a voxel is foreground from `threshold` on. With several it takes the label of the largest
    probability, background's being what the labels leave of one. Then only the largest part of the card's `one_part`
    labels stays.
    """
    if len(probabilities) == 1:
        indices = (probabilities[0] >= threshold).astype(np.uint8)
    else:
        best = probabilities.argmax(axis=0)
        background = 1 - probabilities.sum(axis=0)
        indices = np.where(probabilities.max(axis=0) > background, best + 1, 0).astype(np.uint8)
    if card.one_part:
        indices = keep_largest(indices, card.one_part)
    flags = []
    for volume, channel in zip(volumes, card.channels, strict=True):
        if volume.array.min() == volume.array.max():
            flags.append(f"channel {channel} is constant: the mask is empty")
            indices = np.zeros_like(indices)
            probabilities = np.zeros_like(probabilities)
    counts = np.bincount(indices.reshape(-1), minlength=len(card.labels.names) + 1)[1:]
    if not flags:
        flags = [f"{name} not found" for name, count in zip(card.labels.names, counts, strict=True) if not count]
    return Prediction(
        mask=volumes[0].with_array(card.labels.decode(indices)),
        volumes_ml={
            name: float(count * volumes[0].voxel_ml) for name, count in zip(card.labels.names, counts, strict=True)
        },
        flags=tuple(flags),
        probabilities=probabilities if keep else None,
    )


def _read_card(path: Path) -> Card:
    if path.stat().st_size > _LARGEST_CARD:
        raise ModelError(f"{path.name}: larger than {_LARGEST_CARD // 2**20} MB, which no card is; copy it again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name}: not JSON ({printable(str(error))}); copy the run folder again") from error
    return Card.from_json(value, source=path.name)


def _read_network(path: Path, card: Card) -> FCN:
    """The card's network with the file's weights; shapes are compared before anything is allocated."""
    found = _declared_tensors(path)
    if sum(card.plan.widths) > sum(shape[0] for _, shape in found.values() if shape):
        raise ModelError(f"{path.name}: holds fewer channels than plan.widths in {CARD_FILE}; copy the run again")
    with torch.device("meta"):
        network = build_network(
            card.settings.network,
            widths=card.plan.widths,
            channels_in=card.plan.channels_in,
            label_count=len(card.labels.entries),
        )
    expected = {
        name: ("F32" if tensor.is_floating_point() else "I64", tuple(tensor.shape))
        for name, tensor in network.state_dict().items()
    }
    if found != expected:
        odd = min(name for name in set(found) | set(expected) if found.get(name) != expected.get(name))
        raise ModelError(
            f"{path.name}: weights do not fit the network in {CARD_FILE}, first at {printable(odd)}: found "
            f"{printable(str(found.get(odd)))}, expected {expected.get(odd)}; copy the run folder again"
        )
    try:
        tensors = load_tensors(path.read_bytes())
    except SafetensorError as error:
        raise ModelError(f"{path.name}: {printable(str(error))}; copy the run folder again") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{path.name}: {name} holds NaN or infinite weights; train again")
    network.load_state_dict(tensors, assign=True)
    return network


def _declared_tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The types and shapes that a safetensors file declares, from its header alone."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(path.stat().st_size - 8, 100 * 2**20):
            raise ModelError(f"{path.name}: not a safetensors file; copy the run folder again")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            return {
                name: (str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
                for name, entry in header.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ModelError(f"{path.name}: its header is broken; copy the run folder again") from error
