"""A volume on the network grid → logits on the same grid, slice by slice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medfcn.settings import View
from medfcn.slices.slicing import margin_before, neighbours, slice_volume, stack_slices

Precision = Literal["float32", "bfloat16"]
Network = Callable[[torch.Tensor], torch.Tensor]

WHOLE = 1.25
"""A slice up to this many times the window goes through in one piece, because the network takes any size."""
_GAUSSIAN = 8.0
"""Edge of a tile divided by the standard deviation of its weights, as in nnU-Net (Isensee et al., Nature Methods
2021)."""


@dataclass(frozen=True)
class Sliding:
    """How a network is slid through a volume.

    Attributes:
        window: `(H, W)` pixels the network was trained on.
        context: Slices the network sees at once, odd.
        batch_size: Slices or tiles at once.
        tile_overlap: Share of a tile that its neighbour covers too.
        device: Where the network is.
        precision: Arithmetic of the network.
        takes_any_size: True if the network takes slices of any size; False if only windows.
    """

    window: tuple[int, int]
    context: int = 1
    batch_size: int = 32
    tile_overlap: float = 0.5
    device: torch.device | str = "cpu"
    precision: Precision = "float32"
    takes_any_size: bool = True


def sliding_logits(
    volume: NDArray[np.float32], network: Network, view: View, sliding: Sliding
) -> NDArray[np.float32]:
    """Slide a 2D network through a volume.

    Slices go through in batches. A slice that is smaller than the training window is put in the middle of one, as in
    training: the network recognises the slice's border by the zeros around it. A slice that is much larger is cut
    into overlapping tiles, whose logits are blended with Gaussian weights.

    Args:
        volume: `(C, R, A, S)` on the network grid.
        network: Maps `(N, C·context, H, W)` slices to `(N, K, H, W)` logits.
        view: The plane of the slices.
        sliding: Window, batch size, device and so on.

    Returns:
        `(K, R, A, S)` logits.

    Raises:
        ValueError: The volume has no voxels.
    """
    window, batch_size = sliding.window, sliding.batch_size
    slices, inside = _padded(slice_volume(volume, view), window)
    count, channels, height, width = slices.shape
    whole = WHOLE if sliding.takes_any_size else 1
    tile = tuple(size if size <= whole * edge else edge for size, edge in zip((height, width), window, strict=True))
    rows, columns = (
        tile_starts(size, edge, sliding.tile_overlap) for size, edge in zip((height, width), tile, strict=True)
    )
    is_tiled = len(rows) * len(columns) > 1
    weight = gaussian_weights((tile[0], tile[1])) if is_tiled else None
    total: NDArray[np.float32] | None = None
    weights = np.zeros((height, width), dtype=np.float32)
    for row in rows:
        for column in columns:
            here = (slice(row, row + tile[0]), slice(column, column + tile[1]))
            part = np.ascontiguousarray(slices[:, :, here[0], here[1]])
            for start in range(0, count, batch_size):
                numbers = np.arange(start, min(start + batch_size, count))
                batch = part[neighbours(numbers, count, sliding.context)]
                batch = batch.reshape(len(numbers), sliding.context * channels, tile[0], tile[1])
                logits = _run(batch, network, sliding)
                if total is None:
                    total = np.zeros((count, logits.shape[1], height, width), dtype=np.float32)
                if weight is None:
                    total[numbers] = logits
                else:
                    total[numbers[0] : numbers[-1] + 1, :, here[0], here[1]] += logits * weight
            if weight is not None:
                weights[here] += weight
    if total is None:
        raise ValueError(f"inputs: a volume of shape {volume.shape} has no voxels; pass one that has")
    if is_tiled:
        total /= weights
    stacked: NDArray[np.float32] = np.ascontiguousarray(stack_slices(total[:, :, *inside], view))
    return stacked


def _padded(slices: NDArray[np.float32], window: tuple[int, int]) -> tuple[NDArray[np.float32], tuple[slice, slice]]:
    """`(N, C, H, W)` slices with zeros around them up to the window, and their place in it."""
    size = slices.shape[2:]
    before = [margin_before(length, edge) for length, edge in zip(size, window, strict=True)]
    inside = (slice(before[0], before[0] + size[0]), slice(before[1], before[1] + size[1]))
    if all(length >= edge for length, edge in zip(size, window, strict=True)) or 0 in slices.shape:
        return slices, inside
    edges = [max(length, edge) for length, edge in zip(size, window, strict=True)]
    padded = np.zeros((*slices.shape[:2], *edges), dtype=slices.dtype)
    padded[:, :, *inside] = slices
    return padded, inside


def _run(batch: NDArray[np.float32], network: Network, sliding: Sliding) -> NDArray[np.float32]:
    device = torch.device(sliding.device)
    tensor = torch.from_numpy(batch).to(device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=sliding.precision == "bfloat16"):
        logits = network(tensor)
    result: NDArray[np.float32] = logits.float().cpu().numpy()
    return result


class MirroredNetwork:
    """A network that sees mirrored slices, and whose logits are mirrored back.

    Args:
        network: Maps `(N, C, H, W)` slices to `(N, K, H, W)` logits.
        axes: Dimensions of the slices to mirror.
    """

    def __init__(self, network: Network, axes: tuple[int, ...]) -> None:
        self.network = network
        self.axes = axes

    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        """Logits of slices."""
        if not self.axes:
            return self.network(slices)
        return self.network(slices.flip(self.axes)).flip(self.axes)


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """Start of each tile along one edge: evenly spaced, with at least the wanted overlap, up to both ends.

    Example:
        >>> tile_starts(100, 40, 0.5), tile_starts(40, 40, 0.5)
        ([0, 20, 40, 60], [0])
    """
    if size <= tile:
        return [0]
    stride = max(1, round(tile * (1 - overlap)))
    count = -(-(size - tile) // stride) + 1
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


def gaussian_weights(tile: tuple[int, int]) -> NDArray[np.float32]:
    """Weights of shape `tile` that fall off from the middle; the largest is 1, and none is 0."""
    edges = []
    for size in tile:
        distance = np.arange(size) - (size - 1) / 2
        edges.append(np.exp(-0.5 * (distance * _GAUSSIAN / size) ** 2))
    weights = np.maximum(edges[0][:, None] * edges[1][None, :], 1e-4)
    result: NDArray[np.float32] = weights.astype(np.float32)
    return result
