"""Layers that directly follow each other, folded into one: in prediction both are one multiplication and addition.

Batch normalisation goes into the convolution before it, and a head of 1×1 pixels into the transposed convolution that
brings its logits to full size. A folded network gives the same logits up to rounding in float32, and takes less time:
its maps are read and written once less for each convolution, and with many labels the step to full size has fewer
kernels.

Source:
    Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko, Quantization and training of neural networks for
    efficient integer-arithmetic-only inference, CVPR 2018, section 3.2.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medfcn.networks.fcn import FCN
from medfcn.networks.network import SliceNetwork, channels_last
from medfcn.networks.resnet import ResidualBlock


def folded(network: SliceNetwork) -> SliceNetwork:
    """A copy of a network in evaluation mode, without the batch normalisations that directly follow a convolution.

    Others stay: those after a layer that several places share, and those that use the statistics of the batch. A head
    is folded into the step to full size where it gives more maps than it takes.
    """
    twin = copy.deepcopy(network).eval()
    uses = Counter(id(module) for _, module in twin.named_modules(remove_duplicate=False))
    for parent in list(twin.modules()):
        for first, second in _neighbours(parent):
            convolution, norm = parent.get_submodule(first), parent.get_submodule(second)
            if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            if norm.running_mean is not None and uses[id(convolution)] == uses[id(norm)] == 1:
                parent.add_module(first, fuse_conv_bn_eval(convolution, norm))
                parent.add_module(second, nn.Identity())
    if isinstance(twin, FCN):
        _join_head(twin)
    return channels_last(twin.requires_grad_(False))


class _WithOnes(nn.Module):
    """Adds a channel of ones to a map; what a convolution takes outside of it is zero there, too."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(N, C, h, w)` to `(N, C + 1, h, w)`."""
        return functional.pad(features, (0, 0, 0, 0, 0, 1), value=1.0)


def _join_head(network: FCN) -> None:
    """Fold the head into the transposed convolution after it, if that takes fewer kernels.

    The head's bias becomes the kernel of a channel of ones, so that the border stays as it is: there, some taps of
    the transposed convolution meet no logits, and no bias either.
    """
    head, restore = network.head, network.restore
    layer = None if restore is None else restore.learned
    if not isinstance(head, nn.Conv2d) or not isinstance(layer, nn.ConvTranspose2d) or head.kernel_size != (1, 1):
        return
    if head.bias is None or head.in_channels + 1 >= head.out_channels:
        return
    with torch.no_grad():
        mixing = torch.cat([head.weight[..., 0, 0], head.bias[:, None]], dim=1).double()
        kernels = torch.einsum("kc,kjhw->cjhw", mixing, layer.weight.double())
        layer.weight = nn.Parameter(kernels.to(layer.weight.dtype))
    layer.in_channels = head.in_channels + 1
    network.head = _WithOnes()


def _neighbours(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of the layers of a module of which the second gets what the first gives, and nothing else does."""
    if isinstance(parent, nn.Sequential):
        yield from pairwise(parent._modules)  # named_children() leaves out a layer that is there twice
    elif isinstance(parent, ResidualBlock):
        yield from parent.layers
