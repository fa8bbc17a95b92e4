"""Skip fusion: maps of several strides → one, at the finest."""

import torch
from torch import nn

from medfcn.networks.blocks import ConvBlock, normalisation
from medfcn.networks.upsampling import Upsample
from medfcn.settings import NetworkSettings


class SkipFusion(nn.Module):
    """Brings a coarse map to the size of a finer one, joins the two, and refines what comes of it.

    The target size is told, never guessed from rounding on the way down, so nothing is ever cropped by a constant.

    Args:
        channels_in: Of the coarse map.
        channels_out: After the upsampling, and after the refining convolutions.
        skip_channels: Of the finer map; None where there is none and the coarse map is only upsampled.
        activated: Whether a normalisation and ReLU follow the upsampling, as in decoders of features; score maps
            are fused as they are.
        settings: Of a preset, with nothing left open.

    Attributes:
        channels: Of the map that comes out.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        skip_channels: int | None,
        activated: bool,
        settings: NetworkSettings,
    ) -> None:
        super().__init__()
        norm = settings.normalisation or "none"
        self.concatenates = skip_channels is not None and settings.fusion == "concat"
        self.upsample = Upsample(channels_in, channels_out, method=settings.upsampling or "transposed")
        self.activate: nn.Module = nn.Identity()
        if activated:
            self.activate = nn.Sequential(normalisation(norm, channels_out), nn.ReLU(inplace=True))
        joined = channels_out + (skip_channels or 0) if self.concatenates else channels_out
        refined: list[nn.Module] = []
        for index in range(settings.refinements or 0):
            refined.append(ConvBlock(joined if index == 0 else channels_out, channels_out, norm))
            if settings.decoder_dropout:
                refined.append(nn.Dropout2d(settings.decoder_dropout))
        self.refine = nn.Sequential(*refined)
        self.channels = channels_out if refined else joined

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
        """`(N, channels_in, h, w)`, and `(N, skip_channels, *size)` or None, to `(N, channels, *size)`."""
        raised = self.activate(self.upsample(coarse, size))
        if fine is not None:
            raised = torch.cat([raised, fine], dim=1) if self.concatenates else raised + fine
        fused: torch.Tensor = self.refine(raised)
        return fused
