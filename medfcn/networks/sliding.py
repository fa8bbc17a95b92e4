"""A volume on the network grid → logits on the same grid, slice by slice."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from medfcn.networks.memory import require_maps
from medfcn.settings import Precision, View
from medfcn.slices.slicing import VIEW_AXIS, margin_before, neighbours, spread, stack_slices

Network = Callable[[torch.Tensor], torch.Tensor]

REACH = 1.25
"""A slice up to this many times the window is as one of training to the network, and counts so in its memory."""
WHOLE_PIXELS = 1 << 19
"""A slice of more pixels goes through in tiles, however large the window: its maps would take most of a gigabyte."""
_TWOS_PIXELS = 1 << 14
"""Slices of so many pixels go through in powers of two if they are larger than the window; see `in_twos`."""
_LARGEST_TWO = 16
_TURNED_EDGE = 128
"""Slices of such edges are worth a copy of their own."""
_FEW_SLICES = 8
"""So many slices along the fastest axis are copied there by torch in a third of numpy's time; more are not."""
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
        whole: A slice whose edges are up to so many times those of the window goes through in one piece, if it has no
            more than 2¹⁹ pixels; 1 for a network that takes only windows.
        slab: Slices of a batch that go through the network, and whose logits are in memory, at once; None takes all.
            The last digits of a logit can depend on it (torch 2.13.0 with oneDNN chooses its way by the size of a
            batch), so it follows from the model and the slices alone, never from the memory that is free.
        is_even: The batches of a volume have about as many slices each, or powers of two of them (see `in_twos`);
            else they are full but for the last one. oneDNN makes a program of each layer for each number of slices.
        slice_bytes: Bytes that the network's maps of a slice take; 0 if that is not known. They are asked for before
            each batch: in a limited address space torch 2.13.0 with oneDNN ends the process where a transposed
            convolution finds none for its code, and in a control group the system does.
        apart: Slices from one that the network sees to the next, at most; 1 shows it all. See `spread`.
    """

    window: tuple[int, int]
    context: int = 1
    batch_size: int = 32
    tile_overlap: float = 0.5
    device: torch.device | str = "cpu"
    precision: Precision = "float32"
    whole: float = REACH
    slab: int | None = None
    is_even: bool = True
    slice_bytes: int = 0
    apart: int = 1


@dataclass(frozen=True)
class Slabs:
    """The slices that go through a network at once; the same on every machine and device.

    Attributes:
        batch_size: Slices of a batch.
        most: Slices of a slab, as far as the network's maps of them take memory.
        pixels: Pixels of all slices of a slab, as far as their logits do.
        map_pixels: Pixels of their tiles, as far as the maps of tiles that are larger than those of training do.
    """

    batch_size: int
    most: int
    pixels: int
    map_pixels: int

    def of(self, size: tuple[int, int], tile: tuple[int, int]) -> int:
        """Slices of a slab, of `(H, W)` pixels each, which go through in tiles of a size; see `slab_ends`."""
        by_pixels = min(self.pixels // math.prod(size), self.map_pixels // math.prod(tile))
        return min(self.batch_size, max(2, min(self.most, by_pixels)))


class Slices(Protocol):
    """The slices of a volume along a view, made when they are asked for."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, C, H, W)`: N slices."""

    def part(self, start: int, stop: int) -> NDArray[np.float32]:
        """`(stop - start, C, H, W)` slices from `start` to before `stop`."""


class ArraySlices:
    """The slices of an array.

    Args:
        volume: `(C, R, A, S)` on the network grid.
        view: The plane of the slices.
    """

    def __init__(self, volume: NDArray[np.float32], view: View) -> None:
        self._slices = np.moveaxis(volume, 1 + VIEW_AXIS[view], 0)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, C, H, W)`: N slices."""
        count, channels, height, width = self._slices.shape
        return count, channels, height, width

    def part(self, start: int, stop: int) -> NDArray[np.float32]:
        """`(stop - start, C, H, W)` slices from `start` to before `stop`."""
        return self._slices[start:stop]


def sliding_logits(
    volume: NDArray[np.float32], network: Network, view: View, sliding: Sliding
) -> NDArray[np.float32]:
    """Slide a 2D network through a volume.

    Args:
        volume: `(C, R, A, S)` on the network grid.
        network: Maps `(N, C·context, H, W)` slices to `(N, K, H, W)` logits.
        view: The plane of the slices.
        sliding: Window, batch size, device and so on; no slice may be left out.

    Returns:
        `(K, R, A, S)` logits.

    Raises:
        ValueError: The volume has no voxels.
    """
    total: NDArray[np.float32] | None = None
    slices = ArraySlices(volume, view)
    for place, (logits,) in logits_in_slabs(slices, [network], sliding):
        if total is None:
            total = np.empty((slices.shape[0], *logits.shape[1:]), dtype=np.float32)
        total[place] = logits
    if total is None:
        raise ValueError(f"inputs: a volume of shape {volume.shape} has no voxels; pass one that has")
    stacked: NDArray[np.float32] = np.ascontiguousarray(stack_slices(total, view))
    return stacked


def logits_in_slabs(
    slices: Slices, networks: Sequence[Network], sliding: Sliding
) -> Iterator[tuple[slice, list[NDArray[np.float32]]]]:
    """Slide 2D networks through the slices of a volume, a slab of slices at a time.

    Slices go through in batches. A slice that is smaller than the training window is put in the middle of one, as in
    training: the network recognises the slice's border by the zeros around it. A slice that is much larger is cut
    into overlapping tiles, whose logits are blended with Gaussian weights.

    Args:
        slices: The slices.
        networks: Each maps `(N, C·context, H, W)` slices to `(N, K, H, W)` logits.
        sliding: Window, batch size, device and so on.

    Yields:
        A range of the slices that are seen, and their `(n, K, H, W)` logits by each network; nothing for a volume
        without voxels.
    """
    count, channels, *size = slices.shape
    if 0 in slices.shape:
        return
    edges = [max(length, edge) for length, edge in zip(size, sliding.window, strict=True)]
    before = [margin_before(length, edge) for length, edge in zip(size, sliding.window, strict=True)]
    inside = tuple(slice(first, first + length) for first, length in zip(before, size, strict=True))
    tiles = _Tiles.of((edges[0], edges[1]), sliding)
    recent = _Recent(slices, (edges[0], edges[1]), inside)
    shown = spread(count, sliding.apart)
    for start, stop in _ends(len(shown), sliding, tiles.tile):
        numbers = neighbours(shown[start:stop], count, sliding.context)
        stack = recent.part(int(numbers.min()), int(numbers.max()) + 1)
        if sliding.context > 1 or sliding.apart > 1:
            stack = stack[numbers - numbers.min()]
        seen = stack.reshape(stop - start, sliding.context * channels, *edges)
        yield slice(start, stop), [tiles.logits(seen, network, sliding)[:, :, *inside] for network in networks]


def stacked(slices: NDArray[np.float32], view: View) -> NDArray[np.float32]:
    """As `stack_slices`; large axial slices in the order of an array, which all further work takes."""
    found: NDArray[np.float32] = stack_slices(slices, view)
    is_slow = len(slices) <= _FEW_SLICES and min(slices.shape[-2:]) >= _TURNED_EDGE
    if view == "axial" and is_slow and slices.flags.writeable and min(slices.strides) >= 0:
        return torch.from_numpy(found).contiguous().numpy()
    return found


def slab_ends(count: int, batch_size: int, slab: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each slab: batches that are cut into slabs of about the wanted size.

    No slab is a single slice unless its batch is: torch 2.13.0 takes another way for one image.

    Example:
        >>> list(slab_ends(9, 7, 2))
        [(0, 3), (3, 5), (5, 7), (7, 9)]
    """
    for start in range(0, count, batch_size):
        size = min(batch_size, count - start)
        pieces = max(1, size // max(2, slab))
        ends = [start + -(-size * piece // pieces) for piece in range(pieces + 1)]
        yield from pairwise(ends)


def in_twos(count: int, most: int) -> Iterator[tuple[int, int]]:
    """Begin and end of slabs of 2, 4, 8 … slices, and of 3 at the end of an odd number; none is a single slice.

    Args:
        count: Slices, at least 2.
        most: Slices of a slab; a power of two.

    Example:
        >>> list(in_twos(27, 16))
        [(0, 16), (16, 24), (24, 27)]
    """
    start, size = 0, most
    while start < count:
        left = count - start
        while size > 2 and (size > left or size == left - 1):
            size //= 2
        stop = count if left == 3 else start + size
        yield start, stop
        start = stop


def _ends(count: int, sliding: Sliding, tile: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Begin and end of each slab of some slices, which go through the network in tiles of a size.

    oneDNN makes some 20 programs, 2 MB, for each size and number of slices, and keeps those of the last 50. They lie
    between the arrays of a process, whose memory rises for as long as new ones are made. Slices of the window's size
    share their programs. Slices that are larger have any size, so their numbers are few.
    """
    most = sliding.batch_size
    if not sliding.is_even:
        return slab_ends(count, most, sliding.slab or most)
    slab = sliding.slab or 0
    is_large = tile != sliding.window and math.prod(tile) >= _TWOS_PIXELS
    if is_large and slab >= _LARGEST_TWO and count > 1 and torch.device(sliding.device).type == "cpu":
        return in_twos(count, _LARGEST_TWO)
    return slab_ends(count, -(-count // -(-count // most)), slab or most)


class _Recent:
    """The last slices that were read, with zeros around them up to the window: neighbours need them again."""

    def __init__(self, slices: Slices, edges: tuple[int, int], inside: tuple[slice, ...]) -> None:
        self._slices, self._edges, self._inside = slices, edges, inside
        self._start = 0
        self._stack = np.empty((0, slices.shape[1], *edges), dtype=np.float32)

    def part(self, start: int, stop: int) -> NDArray[np.float32]:
        """`(stop - start, C, H, W)`; `start` never falls."""
        kept = self._stack[start - self._start :]
        new = np.zeros((stop - start, *self._stack.shape[1:]), dtype=np.float32)
        new[: len(kept)] = kept
        _fill(new[len(kept) :, :, *self._inside], self._slices.part(start + len(kept), stop))
        self._start, self._stack = start, new
        return new


def _fill(into: NDArray[np.float32], values: NDArray[np.float32]) -> None:
    """Copy `(n, C, H, W)` slices; numpy (2.4) takes four times as long as torch where their axes are turned."""
    is_turned = min(values.shape[-2:]) >= _TURNED_EDGE and values.strides[-1] > values.strides[-2] > 0
    if not (is_turned and min(values.strides) >= 0 and values.flags.writeable):
        into[...] = values
        return
    for plane, turned in zip(into, values, strict=True):
        for channel, of_channel in zip(plane, turned, strict=True):
            torch.from_numpy(channel).copy_(torch.from_numpy(of_channel))


@dataclass(frozen=True)
class _Tiles:
    """The tiles of a slice.

    Attributes:
        size: Rows and columns of the slice.
        tile: Rows and columns of a tile.
        starts: Row and column at which each tile starts.
        weight: The weight of each pixel of a tile; None for a slice in one piece.
        weights: The sum of these at each pixel of the slice.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    starts: tuple[tuple[int, int], ...]
    weight: NDArray[np.float32] | None
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, size: tuple[int, int], sliding: Sliding) -> Self:
        """The tiles of a slice that is at least as large as the window."""
        height, width = tile_of(size, sliding.window, sliding.whole)
        rows, columns = (
            tile_starts(length, edge, sliding.tile_overlap)
            for length, edge in zip(size, (height, width), strict=True)
        )
        starts = tuple((row, column) for row in rows for column in columns)
        weight = gaussian_weights((height, width)) if len(starts) > 1 else None
        weights = np.zeros(size, dtype=np.float32)
        if weight is not None:
            for row, column in starts:
                weights[row : row + height, column : column + width] += weight
        return cls(size, (height, width), starts, weight, weights)

    def logits(self, seen: NDArray[np.float32], network: Network, sliding: Sliding) -> NDArray[np.float32]:
        """`(n, K, H, W)` logits of `(n, C·context, H, W)` slices."""
        if self.weight is None:
            return _run(seen, network, sliding)
        height, width = self.tile
        places = [(slice(row, row + height), slice(column, column + width)) for row, column in self.starts]
        parts = (_run(np.ascontiguousarray(seen[:, :, *place]), network, sliding) for place in places)
        total = np.zeros(0, dtype=np.float32)
        for place, logits in zip(places, parts, strict=True):
            if not total.size:
                total = np.zeros((*logits.shape[:2], *self.size), dtype=np.float32)
            total[:, :, *place] += logits * self.weight
        total /= self.weights
        return total


def _run(batch: NDArray[np.float32], network: Network, sliding: Sliding) -> NDArray[np.float32]:
    device = torch.device(sliding.device)
    if device.type == "cpu" and sliding.slice_bytes:
        require_maps(len(batch), sliding.slice_bytes)
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


def tile_of(size: tuple[int, int], window: tuple[int, int], whole: float) -> tuple[int, int]:
    """Rows and columns of what goes through the network at once: the edges of the slice, or of the window.

    Args:
        size: Rows and columns of the slice.
        window: Those of the window; no edge is longer than the slice's.
        whole: See `Sliding`.

    Example:
        >>> tile_of((300, 500), (128, 128), 4.0), tile_of((300, 600), (128, 128), 4.0)
        ((300, 500), (300, 128))
    """
    most = whole if math.prod(size) <= WHOLE_PIXELS else min(whole, REACH)
    height, width = (length if length <= most * edge else edge for length, edge in zip(size, window, strict=True))
    return height, width


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
