"""The sliding of a 2D network through volumes as a MONAI `Inferer`, for MONAI training and prediction loops."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import Inferer
from monai.utils import convert_to_dst_type

from medfcn.networks.sliding import Sliding, sliding_logits
from medfcn.settings import Precision, View


class SlidingVolumeInferer(Inferer):
    """Slides a 2D network through volumes; see `medfcn.networks.sliding.sliding_logits`.

    Args:
        view: The plane of the slices.
        window: `(H, W)` pixels the network was trained on.
        context: Slices the network sees at once, odd.
        batch_size: Slices or tiles at once.
        tile_overlap: Share of a tile that its neighbour covers too.
        device: Where the network is; `None` takes the device of the volumes.
        precision: Arithmetic of the network.

    Example:
        >>> inferer = SlidingVolumeInferer("axial", window=(8, 8))
        >>> inferer(torch.ones(1, 1, 5, 6, 7), lambda slices: 3 * slices).shape
        torch.Size([1, 1, 5, 6, 7])
    """

    def __init__(
        self,
        view: View,
        *,
        window: tuple[int, int],
        context: int = 1,
        batch_size: int = 32,
        tile_overlap: float = 0.5,
        device: torch.device | str | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.view = view
        self.device = device
        self.sliding = Sliding(window, context, batch_size, tile_overlap, "cpu", precision)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Logits of volumes.

        Args:
            inputs: `(B, C, R, A, S)` on the network grid.
            network: Maps `(N, C·context, H, W)` slices to `(N, K, H, W)` logits.
            *args: Passed to `network`.
            **kwargs: Passed to `network`.

        Returns:
            `(B, K, R, A, S)` float32 logits on the device of `inputs`, a `MetaTensor` where `inputs` is one.
        """
        sliding = replace(self.sliding, device=self.device or inputs.device)
        logits = [
            sliding_logits(volume, lambda slices: network(slices, *args, **kwargs), self.view, sliding)
            for volume in inputs.detach().cpu().numpy()
        ]
        result: torch.Tensor = convert_to_dst_type(torch.from_numpy(np.stack(logits)), inputs, dtype=torch.float32)[0]
        return result
