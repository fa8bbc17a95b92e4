"""2D networks of `monai.networks.nets`, by name: the plain way to compare an FCN with others.

MONAI is imported when one is built.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from medfcn.errors import SettingsError
from medfcn.library_memory import loading_monai
from medfcn.memory_errors import raise_shortage
from medfcn.networks.design import MonaiDesign
from medfcn.networks.network import SliceNetwork
from medfcn.settings import NetworkSettings, Settings
from medfcn.text import did_you_mean, one_line

TESTED = ("AttentionUnet", "BasicUNet", "DynUNet", "HighResNet", "SegResNet", "UNet")
"""The networks that are tested with medfcn."""
_OURS = ("spatial_dims", "in_channels", "out_channels")
"""Arguments that follow from the plan and the labels."""
_FETCHES = ("pretrain", "download", "url", "path", "weights_")
"""Parts of the names of arguments with which a network would fetch or read weights."""
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)
_USUAL_MULTIPLE = 16
"""Pixels of which windows are multiples where a network takes no multiple of any number."""
_LARGEST_WINDOW = 256


class MonaiNetwork(SliceNetwork):
    """A network of MONAI that turns slices into logits, initialised at random as MONAI does it.

    Args:
        design: Its name and arguments.

    Attributes:
        network: The network itself.

    Raises:
        SettingsError: There is no such network, or MONAI refuses the arguments.
    """

    takes_any_size = False

    def __init__(self, design: MonaiDesign) -> None:
        super().__init__()
        self.design: MonaiDesign = design
        kind = _class_of(design.name)
        arguments = network_arguments(design)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.network: nn.Module = kind(**arguments)
        except Exception as error:  # whatever MONAI raises for arguments that it does not like
            raise_shortage(error)
            raise SettingsError(
                f"setting network.monai: {design.name} cannot be built: {one_line(str(error))[:300]}; see its "
                "arguments in MONAI's documentation, and set network.monai_arguments",
                field="network.monai_arguments",
            ) from error

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """`(N, K, H, W)` float32 logits of `(N, C, H, W)` slices of the window's size."""
        logits: torch.Tensor = self.network(slices)
        return logits.float()


def _class_of(name: str) -> Callable[..., nn.Module]:
    with loading_monai():
        import monai.networks.nets as nets

    kind = getattr(nets, name, None)
    is_network = isinstance(kind, type) and issubclass(kind, nn.Module)
    names = inspect.signature(kind).parameters if isinstance(kind, type) and is_network else {}
    if not isinstance(kind, type) or not {"in_channels", "out_channels"} <= set(names):
        raise SettingsError(
            f"setting network.monai: {name!r} is no network of monai.networks.nets with in_channels and "
            f"out_channels{did_you_mean(name, TESTED)}",
            code="SETTING_UNKNOWN",
            field="network.monai",
        )
    return kind


def network_arguments(design: MonaiDesign) -> dict[str, Any]:
    """All arguments of a network.

    Raises:
        SettingsError: One is unknown, is not the user's to choose, or would fetch weights.
    """
    known, field = inspect.signature(_class_of(design.name)).parameters, "network.monai_arguments"
    for name, value in design.arguments.items():
        if name in _OURS:
            raise SettingsError(f"setting {field}: {name} follows from the data set; leave it out", field=field)
        if _would_fetch(name) and value:
            raise SettingsError(
                f"setting {field}: {name} would fetch weights from elsewhere; leave it out, and take --init to start "
                "from a run",
                field=field,
            )
        if name not in known:
            raise SettingsError(
                f"setting {field}: {design.name} has no argument {name!r}{did_you_mean(name, list(known))}",
                code="SETTING_UNKNOWN",
                field=field,
            )
    ours = {"spatial_dims": 2, "in_channels": design.channels_in, "out_channels": design.channels_out}
    off = {name: False for name in known if _would_fetch(name) and known[name].default is True}
    return {name: value for name, value in ours.items() if name in known} | off | dict(design.arguments)


def _would_fetch(name: str) -> bool:
    return any(part in f"{name}_" for part in _FETCHES)


def require_monai_trainable(settings: Settings) -> None:
    """Refuse settings of a training that are for the parts of an FCN, which a network of MONAI does not have.

    Raises:
        SettingsError: One is set.
    """
    training = settings.training
    wrong = {
        "deep_supervision": training.deep_supervision,
        "presence_weight": training.presence_weight > 0,
        "distance_weight": training.distance_weight > 0,
        "freeze_encoder": training.freeze_encoder,
        "layer_decay": training.layer_decay < 1,
    }
    for name, is_set in wrong.items():
        if settings.network.monai is not None and is_set:
            raise SettingsError(
                f"setting training.{name}: is for medfcn's own networks, and network.monai is "
                f"{settings.network.monai!r}; leave one of them out",
                field=f"training.{name}",
            )


def window_multiple(settings: NetworkSettings) -> int:
    """Pixels of which a plan makes windows multiples, such that the network takes all of them from twice as many.

    Raises:
        SettingsError: The network cannot be built.
    """
    trial = _Trial(MonaiDesign.of(settings))
    sizes = {multiple: ((2 * multiple, 3 * multiple), (5 * multiple, 2 * multiple)) for multiple in _MULTIPLES}
    return next(
        (multiple for multiple, pair in sizes.items() if all(trial.problem(size) == "" for size in pair)),
        _USUAL_MULTIPLE,
    )


def require_window(design: MonaiDesign, window: tuple[int, int]) -> None:
    """Try a network once, on two slices of the window's size.

    Raises:
        SettingsError: It does not give `(N, K, H, W)` logits; another window is named, if one is found.
    """
    trial = _Trial(design)
    problem = trial.problem(window)
    if not problem:
        return
    other = next((size for size in _windows_near(window) if not trial.problem(size)), None)
    advice = "it takes no other window that was tried: set network.monai_arguments, or take another network"
    if other is not None:
        advice = f"set slices.window = [{other[0]}, {other[1]}]"
    raise SettingsError(
        f"setting network.monai: {design.name} does not take windows of {window[0]}×{window[1]} pixels ({problem}); "
        f"{advice}",
        field="network.monai",
    )


def _windows_near(window: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Windows to name in a refusal: the next multiples of powers of two, then squares."""
    for multiple in _MULTIPLES[3:]:
        first, second = (max(2, -(-edge // multiple)) * multiple for edge in window)
        yield first, second
    for edge in range(32, _LARGEST_WINDOW + 1, 32):
        yield edge, edge


class _Trial:
    """A network that is tried on slices without values, on the device `meta`; on the CPU if it cannot be there."""

    def __init__(self, design: MonaiDesign) -> None:
        self.design = design
        self.device = "meta"
        with torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    self.network = MonaiNetwork(design)
            except SettingsError:
                self.device = "cpu"
                self.network = MonaiNetwork(design)

    def problem(self, size: tuple[int, int]) -> str:
        """The reason why the network does not take slices of a size; empty if it does."""
        slices = torch.zeros(2, self.design.channels_in, *size, device=self.device)
        wanted = (2, self.design.channels_out, *size)
        for is_training in (True, False):
            self.network.train(is_training)
            try:
                with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    output = self.network.network(slices)
            except Exception as error:  # whatever a network raises for a size that it does not take
                raise_shortage(error)
                return one_line(str(error))[:200]
            if not isinstance(output, torch.Tensor):
                return f"it gives a {type(output).__name__}, not a tensor"
            if tuple(output.shape) != wanted:
                return f"it gives {tuple(output.shape)} for {tuple(slices.shape)}, expected {wanted}"
        return ""
