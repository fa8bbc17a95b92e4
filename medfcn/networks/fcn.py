"""The fully convolutional network: encoder → scores at several strides → skip fusion → logits.

Source:
    Long, Shelhamer, Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015; here the fusion
    goes on to stride 1, because an organ in a slice may be a few pixels wide.
"""

import torch
from torch import nn
from torch.nn import functional

from medfcn.config import NetworkSettings
from medfcn.networks.encoders import Encoder
from medfcn.networks.fusion import SkipFusion


class FCN(nn.Module):
    """A 2D fully convolutional network with skip fusion.

    Args:
        encoder: Gives feature maps, finest first, and tells their `channels` and `strides`.
        channels_out: Logits a pixel: one for a single label, labels + 1 for several.
        score_channels: Channels of the score maps.
        settings: How score maps are upsampled.
    """

    def __init__(self, encoder: Encoder, *, channels_out: int, settings: NetworkSettings) -> None:
        super().__init__()
        width = settings.score_channels
        self.encoder = encoder
        self.scores = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in encoder.channels)
        self.fusions = nn.ModuleList(
            SkipFusion(width, upsampling=settings.upsampling) for _ in range(len(encoder.channels) - 1)
        )
        self.head = nn.Conv2d(width, channels_out, 1)

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices.

        Args:
            slices: `(N, C, H, W)`, any H and W from 1.

        Returns:
            `(N, channels_out, H, W)` float32 logits.
        """
        height, width = slices.shape[-2:]
        features = self.encoder(pad_to_multiple(slices, self.encoder.strides[-1]))
        fused = self.scores[-1](features[-1])
        for level in range(len(self.fusions) - 1, -1, -1):
            fused = self.fusions[level](fused, self.scores[level](features[level]))
        logits: torch.Tensor = self.head(fused)
        return logits[..., :height, :width].float()


def channels_last(network: FCN) -> FCN:
    """`network` with its weights laid out as convolutions like them best, on CPUs and GPUs alike."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch 2.13 leaves it out of its types
    return network


def pad_to_multiple(slices: torch.Tensor, multiple: int) -> torch.Tensor:
    """`slices` with zeros at the far ends, so that H and W are multiples of `multiple` and at least twice it.

    Example:
        >>> pad_to_multiple(torch.ones(1, 1, 5, 9), 4).shape
        torch.Size([1, 1, 8, 12])
    """
    height, width = slices.shape[-2:]
    target_height = max(-(-height // multiple), 2 if multiple > 1 else 1) * multiple
    target_width = max(-(-width // multiple), 2 if multiple > 1 else 1) * multiple
    if (target_height, target_width) == (height, width):
        return slices
    return functional.pad(slices, (0, target_width - width, 0, target_height - height))


def build_network(settings: NetworkSettings, *, widths: tuple[int, ...], channels_in: int, label_count: int) -> FCN:
    """The network of some settings, started at random (He) for a number of labels.

    Args:
        settings: Its parts.
        widths: Channels of each encoder level, as the plan has them.
        channels_in: Image channels times slices seen at once.
        label_count: Foreground labels: one gives a single logit, several give one each and one for the background.
    """
    encoder = Encoder(channels_in, widths, dropout=settings.dropout)
    channels_out = 1 if label_count == 1 else label_count + 1
    network = FCN(encoder, channels_out=channels_out, settings=settings)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # Small first logits: the first steps do not have to undo a confident random guess.
    with torch.no_grad():
        network.head.weight.mul_(0.1)
    return network
