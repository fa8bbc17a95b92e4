"""The sliding-volume inferer as MONAI knows inferers, for networks and loops of one's own.

medfcn itself calls `medfcn.inference.sliding`, because importing MONAI takes longer than the masks of thirty small
volumes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import Inferer

from medfcn.inference.sliding import Precision, sliding_logits
from medfcn.settings import View


class SlidingVolumeInferer(Inferer):
    """Slides a 2D network through volumes; see `sliding_logits`.

    Args:
        view: The plane of the slices.
        window: `(H, W)` pixels the network was trained on.
        context: Slices the network sees at once, odd.
        batch_size: Slices or tiles at once.
        tile_overlap: Share of a tile that its neighbour covers too.
        device: Where the network is.
        precision: Arithmetic of the network.
    """

    def __init__(
        self,
        view: View,
        *,
        window: tuple[int, int],
        context: int = 1,
        batch_size: int = 32,
        tile_overlap: float = 0.5,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.view = view
        self.window = window
        self.context = context
        self.batch_size = batch_size
        self.tile_overlap = tile_overlap
        self.device = torch.device(device)
        self.precision = precision

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
            `(B, K, R, A, S)` float32 logits, on the CPU.
        """
        logits = [
            sliding_logits(
                volume,
                lambda slices: network(slices, *args, **kwargs),
                self.view,
                window=self.window,
                context=self.context,
                batch_size=self.batch_size,
                tile_overlap=self.tile_overlap,
                device=self.device,
                precision=self.precision,
            )
            for volume in inputs.detach().cpu().numpy()
        ]
        return torch.from_numpy(np.stack(logits))
