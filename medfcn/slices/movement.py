"""Slices and their targets, moved: whole pixels are copied, everything else is interpolated at the same positions.

A target is one index for each pixel, and stays one: the labels of the four pixels around a position vote, each with
the share of the pixel that it covers. That costs the same for one label and for a hundred.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from medfcn.labels import IGNORED


@dataclass(frozen=True)
class Movements:
    """Where each slice of a batch is moved.

    A pixel of the window, at `x` from its middle, shows the position `matrix · x + shift` from the region's middle,
    plus the deformation there.

    Attributes:
        matrix: `(B, 2, 2)` in pixels, rows first.
        shift: `(B, 2)` pixels.
        sign: `(B, 2)`: -1 where the axis is mirrored, else 1; a part of `matrix`.
        still: `(B,)`: slices that are mirrored and shifted by whole pixels, and nothing else.
        bend: `(B, 2, h, w)` coarse numbers of the smooth deformation, columns first, as a share of half the region;
            None for none.
    """

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]
    sign: NDArray[np.float64]
    still: NDArray[np.bool_]
    bend: NDArray[np.float64] | None

    def __getitem__(self, chosen: slice | NDArray[np.intp]) -> Self:
        """The movements of some slices."""
        bend = None if self.bend is None else self.bend[chosen]
        return type(self)(self.matrix[chosen], self.shift[chosen], self.sign[chosen], self.still[chosen], bend)

    def positions(self, window: tuple[int, int], region: Sequence[int], device: torch.device) -> torch.Tensor:
        """`(B, *window, 2)` positions in the region, in grid_sample's units: [-1, 1], columns first."""
        half_out, half_in = np.array(window) / 2, np.array(region) / 2
        theta = np.zeros((len(self.matrix), 2, 3), dtype=np.float32)
        theta[:, :, :2] = (self.matrix * half_out[None, None, :] / half_in[None, :, None])[:, ::-1, ::-1]
        theta[:, :, 2] = (self.shift / half_in)[:, ::-1]
        size = [len(theta), 1, *window]
        grid = functional.affine_grid(torch.from_numpy(theta).to(device), size, align_corners=False)
        if self.bend is not None and self.bend.any():
            bent = np.flatnonzero(self.bend.any(axis=(1, 2, 3)))
            field = smooth_field(self.bend[bent], window, device).permute(0, 2, 3, 1)
            grid.index_add_(0, torch.from_numpy(bent).to(device), field)
        return grid


def moved(
    images: torch.Tensor,
    targets: torch.Tensor,
    movements: Movements,
    window: tuple[int, int],
    members: NDArray[np.bool_] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move a batch of slices.

    Args:
        images: `(B, C, H', W')` of the region.
        targets: `(B, H', W')` integers: 0 for background and beyond the region, k for the k-th label (or row of
            `members`), `IGNORED`.
        movements: One for each slice.
        window: `(H, W)` of the result.
        members: As in `Augmenter`; None if each target is a label of its own.

    Returns:
        `(B, C, *window)` images and `(B, *window)` targets, new tensors of the types that were given; see
        `Augmenter.__call__` for the rule of the targets.
    """
    count = len(images)
    into = images.new_zeros((count, images.shape[1], *window))
    into_targets = targets.new_zeros((count, *window))
    for index in np.flatnonzero(movements.still):
        _copy(images[index], into[index], movements.shift[index], movements.sign[index])
        _copy(targets[index], into_targets[index], movements.shift[index], movements.sign[index])
    places = np.flatnonzero(~movements.still)
    if len(places):
        chosen = torch.from_numpy(places).to(images.device)
        grid = movements[places].positions(window, images.shape[2:], images.device)
        sampled = functional.grid_sample(images[chosen], grid, mode="bilinear", align_corners=False)
        into.index_copy_(0, chosen, sampled)
        into_targets.index_copy_(0, chosen, _voted(targets[chosen], grid, members))
    return into, into_targets


def smooth_field(coarse: NDArray[np.float64], window: tuple[int, int], device: torch.device) -> torch.Tensor:
    """`(B, C, h, w)` numbers as a smooth `(B, C, *window)` field."""
    points = torch.from_numpy(coarse.astype(np.float32)).to(device)
    return functional.interpolate(points, size=window, mode="bicubic", align_corners=True)


def _copy(source: torch.Tensor, into: torch.Tensor, shift: NDArray[np.float64], sign: NDArray[np.float64]) -> None:
    """Copy the window of one slice into a zeroed tensor, shifted by whole pixels, and mirror it."""
    here, there = [], []
    for edge, outer, offset in zip(into.shape[-2:], source.shape[-2:], shift, strict=True):
        start = (outer - edge) // 2 + round(float(offset))
        first, last = max(start, 0), max(min(start + edge, outer), 0)
        there.append(slice(first, max(first, last)))
        here.append(slice(first - start, max(first, last) - start))
    part = source[..., there[0], there[1]]
    mirrored = [axis for axis, value in zip((-2, -1), sign, strict=True) if value < 0]
    into[..., here[0], here[1]] = part
    if mirrored:
        into.copy_(into.flip(mirrored))


def _voted(targets: torch.Tensor, grid: torch.Tensor, members: NDArray[np.bool_] | None) -> torch.Tensor:
    """`(B, H, W)` targets at the positions of `grid`, `(B, *window, 2)`, from the four pixels around each."""
    count, height, width = targets.shape
    # A frame of background stands for everything beyond the region.
    framed = functional.pad(targets, (1, 1, 1, 1)).reshape(-1)
    column = ((grid[..., 0] + 1) * (width / 2) + 0.5).clamp_(0, width + 0.999)
    row = ((grid[..., 1] + 1) * (height / 2) + 0.5).clamp_(0, height + 0.999)
    left, top = column.to(torch.int32), row.to(torch.int32)
    slices = torch.arange(count, dtype=torch.int32, device=targets.device)[:, None, None] * (height + 2)
    corner = ((slices + top) * (width + 2) + left).reshape(-1)
    steps = (0, 1, width + 2, width + 3)
    around = [framed[corner + step] for step in steps]
    voted = around[0].clone()
    mixed = (around[0] != around[1]) | (around[0] != around[2]) | (around[0] != around[3])
    between = mixed.nonzero()[:, 0]
    if len(between):
        votes = torch.stack([one[between] for one in around], dim=1)
        right = (column - left).reshape(-1)[between]
        below = (row - top).reshape(-1)[between]
        across, down = torch.stack([1 - right, right], 1), torch.stack([1 - below, below], 1)
        shares = (down[:, :, None] * across[:, None, :]).reshape(-1, 4)
        voted[between] = _winner(votes, shares) if members is None else _best_row(votes, shares, members)
    return voted.reshape(count, *grid.shape[1:3])


def _winner(votes: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The label of more than half of each pixel, else background; the largest share where some of it is ignored.

    Args:
        votes: `(M, 4)` labels.
        shares: `(M, 4)`, the part of the pixel that each covers.
    """
    same = votes[:, :, None] == votes[:, None, :]
    total = (same * shares[:, None, :]).sum(dim=2)
    ignored = votes == IGNORED
    # The largest share wins, and of equal ones the smaller label.
    largest = total.amax(dim=1, keepdim=True)
    wins = torch.where(total >= largest, votes, IGNORED).amin(dim=1)
    has_ignored = (ignored & (shares > 0)).any(dim=1)
    is_background = ~has_ignored & (largest[:, 0] <= 0.5)
    return torch.where(is_background, torch.zeros_like(wins), wins)


def _best_row(votes: torch.Tensor, shares: torch.Tensor, members: NDArray[np.bool_]) -> torch.Tensor:
    """As `_winner`, for labels that overlap; see `overlaps.best_overlap`."""
    table = torch.tensor(members, dtype=shares.dtype, device=shares.device)
    ignored = votes == IGNORED
    unknown = (shares * ignored).sum(dim=1)
    held = table[votes.masked_fill(ignored, 0).long()]  # (M, 4, L)
    known = (1 - unknown).clamp_min(torch.finfo(shares.dtype).eps)
    evidence = 2 * (held * (shares * ~ignored)[:, :, None]).sum(dim=1) / known[:, None] - 1
    best = (evidence @ table.T).argmax(dim=1).to(votes.dtype)
    return torch.where(unknown > 0.5, torch.full_like(best, IGNORED), best)
