"""The optimiser: the weights that are trained, and the learning rate of each."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medfcn.networks.fcn import FCN
from medfcn.networks.network import SliceNetwork
from medfcn.networks.supervision import SupervisedFCN
from medfcn.settings import NetworkSettings, TrainingSettings

USUAL_RATE = 4e-3
_PLAIN_CHANNELS = 512
"""Without normalisation, the whole rate suits up to so many channels; for more it falls in proportion."""

_JOINED_RATE = 8.0
"""Factor on the rate of a layer that makes the logits at full size at once. Where two layers do that, a step of both
changes the logits more; with the usual rate it learned more slowly than they do. See `benchmarks/README.md`."""


def largest_rate(network: SliceNetwork, settings: NetworkSettings, training: TrainingSettings) -> float:
    """The learning rate as set, else one that suits the network.

    A step of Adam changes a sum over channels in proportion to their number. Without normalisation nothing corrects
    that, so the rate falls with the widest of the encoder's maps.

    Source:
        Yang, Hu, Feature learning in infinite-width neural networks, ICML 2021; the limit of 512
        channels was tried on FCN-8s at widths 1/8 and 1/2.
    """
    if training.learning_rate is not None:
        return training.learning_rate
    if settings.normalisation != "none" or not isinstance(network, FCN):
        return USUAL_RATE
    return USUAL_RATE * min(1.0, _PLAIN_CHANNELS / max(network.encoder.channels))


@dataclass(frozen=True)
class _Changed:
    """A weight, and what the optimiser keeps of it, as they lie in memory."""

    weight: nn.Parameter
    values: torch.Tensor
    means: torch.Tensor
    squares: torch.Tensor
    steps: torch.Tensor


class _EagerAdamW(torch.optim.AdamW):
    """torch's AdamW by its plain methods, on numbers in the order in which they lie in memory.

    torch wraps them for its compiler, and the wrappers load it: 1 CPU second and 70 MB (torch 2.13), for a network
    that is never compiled. The methods inside are the same. And kernels whose channels lie side by side are copied
    there and back at each step, for two thirds of its time, if their order is not given (torch 2.13).
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    _found: list[list[_Changed]] | None = None
    _waiting: tuple[nn.Parameter, ...] = ()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        _plain_load(self, state_dict)
        self._found = None

    def step(self, closure: Any = None) -> Any:
        """Change the weights by their gradients."""
        with torch.no_grad():
            if self._found is None or any(weight.grad is not None for weight in self._waiting):
                loss = _plain_step(self, closure)  # it makes the moments
                self._found = [self._changed(group) for group in self.param_groups]
                every = (weight for group in self.param_groups for weight in group["params"])
                self._waiting = tuple(weight for weight in every if weight not in self.state)
                return loss
            for group, found in zip(self.param_groups, self._found, strict=True):
                _change(group, [each for each in found if each.weight.grad is not None])
            return None

    def _changed(self, group: dict[str, Any]) -> list[_Changed]:
        """The weights of a group that have moments."""
        return [
            _Changed(
                weight,
                _as_it_lies(weight.detach()),
                _as_it_lies(self.state[weight]["exp_avg"]),
                _as_it_lies(self.state[weight]["exp_avg_sq"]),
                self.state[weight]["step"],
            )
            for weight in group["params"]
            if weight in self.state
        ]


_plain_step = inspect.unwrap(torch.optim.AdamW.step)
_plain_load = inspect.unwrap(torch.optim.AdamW.load_state_dict)


def _as_it_lies(tensor: torch.Tensor) -> torch.Tensor:
    """A view of kernels with the channels last, if they lie side by side."""
    is_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.permute(0, 2, 3, 1) if is_last and not tensor.is_contiguous() else tensor


def _change(group: dict[str, Any], found: list[_Changed]) -> None:
    """A step of some weights."""
    if not found:
        return
    steps, gradients = [each.steps for each in found], []
    for each in found:
        gradient = each.weight.grad
        if gradient is not None:
            is_turned = each.values.shape != each.weight.shape or each.values.stride() != each.weight.stride()
            gradients.append(gradient.permute(0, 2, 3, 1) if is_turned else gradient)
    torch._foreach_add_(steps, 1)
    torch._fused_adamw_(
        [each.values for each in found],
        gradients,
        [each.means for each in found],
        [each.squares for each in found],
        [],
        steps,
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


def build_optimiser(supervised: SupervisedFCN, training: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW with weight decay for convolution weights, and without it for biases and normalisation.

    Each group has a `scale`, the factor on the learning rate: 1 for the decoder (more for a head that is joined with
    the step to full size), `layer_decay` for the encoder's last
    level, its square for the level before, and so on. A frozen encoder is in no group.

    Source:
        Loshchilov, Hutter, ICLR 2019. Layer-wise rates: Howard, Ruder, ACL 2018.
    """
    groups: list[dict[str, Any]] = []
    for scale, parameters in _by_depth(supervised, training):
        for decays in (True, False):
            chosen = [parameter for parameter in parameters if (parameter.ndim > 1) == decays]
            if chosen:
                decay = training.weight_decay if decays else 0.0
                groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return _EagerAdamW(groups, lr=0.0, fused=True)


def moments_of(saved: Mapping[str, Any], optimiser: torch.optim.Optimizer) -> dict[int, dict[str, torch.Tensor]]:
    """The running moments in the `state_dict` of an optimiser, if they fit the weights.

    Raises:
        ValueError: A moment is of another shape, or is a number that none can be.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, torch.Tensor]] = saved["state"]
    for number, of_one in moments.items():
        if number not in range(len(parameters)):
            raise ValueError("the moments of the optimiser do not fit the weights")
        shapes = {"step": torch.Size([]), **dict.fromkeys(("exp_avg", "exp_avg_sq"), parameters[number].shape)}
        if {name: tensor.shape for name, tensor in of_one.items()} != shapes:
            raise ValueError("the moments of the optimiser do not fit the weights")
        is_least = min(float(of_one["step"]), float(of_one["exp_avg_sq"].min())) >= 0
        if not is_least or not all(bool(torch.isfinite(tensor).all()) for tensor in of_one.values()):
            raise ValueError("the optimiser has values that none can have")
    return moments


def _by_depth(supervised: SupervisedFCN, training: TrainingSettings) -> Iterator[tuple[float, list[nn.Parameter]]]:
    if not isinstance(supervised.network, FCN):
        yield 1.0, list(supervised.parameters())
        return
    encoder = supervised.network.encoder
    if training.freeze_encoder:
        encoder.requires_grad_(requires_grad=False)
    held = {id(parameter) for parameter in encoder.parameters()}
    if supervised.network.is_joined and supervised.network.restore is not None:
        joined = list(supervised.network.restore.parameters())
        held |= {id(parameter) for parameter in joined}
        yield _JOINED_RATE, joined
    yield 1.0, [parameter for parameter in supervised.parameters() if id(parameter) not in held]
    if training.freeze_encoder:
        return
    if training.layer_decay == 1:
        yield 1.0, list(encoder.parameters())
        return
    for depth, level in enumerate(reversed(list(encoder.levels)), start=1):
        yield training.layer_decay**depth, list(level.parameters())


def set_training_mode(supervised: SupervisedFCN, training: TrainingSettings) -> None:
    """Training mode, except for a frozen encoder and frozen normalisation statistics."""
    supervised.train()
    if training.freeze_encoder and isinstance(supervised.network, FCN):
        supervised.network.encoder.eval()
    if training.freeze_statistics:
        for module in supervised.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
