"""Skip fusion: maps of several strides → one, at the finest."""

import torch
from torch import nn

from medfcn.networks.blocks import ConvBlock, normalisation
from medfcn.networks.design import Design
from medfcn.networks.upsampling import Upsample


class SkipFusion(nn.Module):
    """Brings a coarse map to the size of a finer one, joins the two, and refines the result.

    The caller gives the target size; nothing is cropped by a constant that was guessed from rounding.

    Args:
        channels_in: Channels of the coarse map.
        channels_out: Channels after the upsampling, and after the refining convolutions.
        skip_channels: Channels of the finer map; None where there is none and the coarse map is only upsampled.
        design: Of the network. With `decoder_widths`, a normalisation and ReLU follow the upsampling; score maps are
            fused as they are.

    Attributes:
        channels: Channels of the result.
    """

    def __init__(self, channels_in: int, channels_out: int, *, skip_channels: int | None, design: Design) -> None:
        super().__init__()
        norm = design.normalisation
        self.concatenates = skip_channels is not None and design.fusion == "concat"
        self.upsample = Upsample(channels_in, channels_out, method=design.upsampling)
        self.activate: nn.Module = nn.Identity()
        if design.decoder_widths:
            self.activate = nn.Sequential(normalisation(norm, channels_out), nn.ReLU(inplace=True))
        joined = channels_out + (skip_channels or 0) if self.concatenates else channels_out
        refined: list[nn.Module] = []
        for index in range(design.refinements):
            refined.append(ConvBlock(joined if index == 0 else channels_out, channels_out, norm))
            if design.decoder_dropout:
                refined.append(nn.Dropout2d(design.decoder_dropout))
        self.refine = nn.Sequential(*refined)
        self.channels = channels_out if refined else joined

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
        """`(N, channels_in, h, w)`, and `(N, skip_channels, *size)` or None, to `(N, channels, *size)`."""
        raised = self.activate(self.upsample(coarse, size))
        if fine is not None:
            raised = torch.cat([raised, fine], dim=1) if self.concatenates else raised + fine
        fused: torch.Tensor = self.refine(raised)
        return fused
