"""Slices and their targets, moved: whole pixels are copied, everything else is interpolated at the same positions.

A target is one index for each pixel, and stays one: the labels of the four pixels around a position vote, each with
the share of the pixel that it covers. That costs the same for one label and for a hundred.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import combinations
from typing import Any, Self

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

    def positions(
        self, window: tuple[int, int], region: Sequence[int], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each pixel of the window comes from: columns and rows in the region, in grid_sample's units.

        An affine map, and a deformation from coarse numbers, are sums of products of a number that depends on the row
        alone and one that depends on the column alone. So all of it is one product of two thin matrices.

        Returns:
            Two `(B, *window)`, from -1 to 1 within the region.
        """
        half_out, half_in = np.array(window) / 2, np.array(region) / 2
        bend = np.zeros((len(self.matrix), 2, 0, 0)) if self.bend is None else self.bend
        down, across = (_factors(edge, points) for edge, points in zip(window, bend.shape[2:], strict=True))
        by_row, by_column = bend.shape[2], bend.shape[3]  # the places of the two middle distances
        weights = np.pad(bend, ((0, 0), (0, 0), (0, 2), (0, 2)))
        matrix = (self.matrix * half_out[None, None, :] / half_in[None, :, None])[:, ::-1]  # columns first
        weights[:, :, by_row, -1] = matrix[:, :, 0]
        weights[:, :, -1, by_column] = matrix[:, :, 1]
        weights[:, :, -1, -1] = (self.shift / half_in)[:, ::-1]
        found = _product(down, weights, across, device)
        return found[:, 0], found[:, 1]


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
    if not movements.still.any():
        return _resampled(images, targets, movements, window, members)
    count = len(images)
    into = images.new_zeros((count, images.shape[1], *window))
    into_targets = targets.new_zeros((count, *window))
    pairs = [(_array(images), _array(into)), (_array(targets), _array(into_targets))]
    for index in np.flatnonzero(movements.still).tolist():
        here, there, mirrored = _whole_pixels(movements, index, window, images.shape[2:])
        for source, of_window in pairs:
            part = source[index][..., there[0], there[1]]
            of_window[index][..., here[0], here[1]] = _mirrored(part, mirrored)
    places = np.flatnonzero(~movements.still)
    if len(places):
        chosen = torch.from_numpy(places).to(images.device)
        sampled, voted = _resampled(images[chosen], targets[chosen], movements[places], window, members)
        into.index_copy_(0, chosen, sampled)
        into_targets.index_copy_(0, chosen, voted)
    return into, into_targets


def _resampled(
    images: torch.Tensor,
    targets: torch.Tensor,
    movements: Movements,
    window: tuple[int, int],
    members: NDArray[np.bool_] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `moved`, between pixels."""
    columns, rows = movements.positions(window, images.shape[2:], images.device)
    grid = torch.stack([columns, rows], dim=-1)
    sampled = functional.grid_sample(images, grid, mode="bilinear", align_corners=False)
    return sampled, _voted(targets, columns, rows, members)


def smooth_field(coarse: NDArray[np.float64], window: tuple[int, int], device: torch.device) -> torch.Tensor:
    """`(B, C, h, w)` numbers as a smooth `(B, C, *window)` field."""
    down, across = (_curves(edge, points) for edge, points in zip(window, coarse.shape[2:], strict=True))
    return _product(down, coarse, across, device)


def _product(
    down: NDArray[np.float64], numbers: NDArray[np.float64], across: NDArray[np.float64], device: torch.device
) -> torch.Tensor:
    """`down · numbers · acrossᵀ` for each of `(B, C, h, w)` numbers: `(B, C, H, W)` float32."""
    rows = torch.from_numpy((down @ numbers).astype(np.float32)).to(device)
    columns = torch.from_numpy(across.T.astype(np.float32)).to(device)
    # A product for each slice by itself, so that it does not depend on how many there are.
    found = torch.bmm(rows.flatten(0, 1), columns.expand(rows.shape[0] * rows.shape[1], -1, -1))
    return found.view(*rows.shape[:3], columns.shape[1])


@lru_cache(maxsize=16)
def _curves(edge: int, points: int) -> NDArray[np.float64]:
    """`(edge, points)`: how much each of some coarse numbers counts at each pixel, from the first to the last."""
    each = torch.eye(points, dtype=torch.float64)[None, :, :, None]
    curves = functional.interpolate(each, size=(edge, 1), mode="bicubic", align_corners=True)
    weights: NDArray[np.float64] = curves[0, :, :, 0].T.numpy()
    return weights


@lru_cache(maxsize=16)
def _factors(edge: int, points: int) -> NDArray[np.float64]:
    """`(edge, points + 2)`: `_curves`, then each pixel's distance from the middle in half edges, then ones."""
    curves = _curves(edge, points) if points else np.zeros((edge, 0))
    distance = (2 * np.arange(edge) + 1) / edge - 1
    return np.column_stack([curves, distance, np.ones(edge)])


def _array(tensor: torch.Tensor) -> torch.Tensor | NDArray[Any]:
    """A tensor of a CPU as an array, of which numpy takes parts in a fifth of the time (torch 2.13)."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def _whole_pixels(
    movements: Movements, index: int, window: tuple[int, int], region: Sequence[int]
) -> tuple[list[slice], list[slice], tuple[bool, bool]]:
    """The part of the window that shows a slice moved by whole pixels, the part of the region there, and its mirrors.

    The part of the window is where it lies after mirroring.
    """
    here, there = [], []
    mirrored = (movements.sign[index, 0] < 0, movements.sign[index, 1] < 0)
    for edge, outer, offset, is_mirrored in zip(
        window, region, movements.shift[index].tolist(), mirrored, strict=True
    ):
        start = (outer - edge) // 2 + round(offset)
        first, last = max(start, 0), max(min(start + edge, outer), 0)
        last = max(first, last)
        there.append(slice(first, last))
        here.append(
            slice(edge - (last - start), edge - (first - start))
            if is_mirrored
            else slice(first - start, last - start)
        )
    return here, there, mirrored


def _mirrored(part: Any, axes: tuple[bool, bool]) -> Any:
    """`(…, h, w)`, an array or a tensor, mirrored along its last two axes."""
    if isinstance(part, torch.Tensor):
        return part.flip([axis - 2 for axis in range(2) if axes[axis]])
    rows, columns = (slice(None, None, -1) if is_mirrored else slice(None) for is_mirrored in axes)
    return part[..., rows, columns]


def _voted(
    targets: torch.Tensor, columns: torch.Tensor, rows: torch.Tensor, members: NDArray[np.bool_] | None
) -> torch.Tensor:
    """`(B, H, W)` targets at positions, `(B, *window)`, from the four pixels around each.

    Where the four pixels are alike there is no vote: most of it is one look into a table.
    """
    count, height, width = targets.shape
    # A frame of background stands for everything beyond the region.
    framed = functional.pad(targets, (1, 1, 1, 1)).reshape(-1)
    column = (columns * (width / 2)).add_(width / 2 + 0.5).clamp_(0, width + 0.999)
    row = (rows * (height / 2)).add_(height / 2 + 0.5).clamp_(0, height + 0.999)
    left, top = column.to(torch.int32), row.to(torch.int32)
    slices = torch.arange(count, dtype=torch.int32, device=targets.device)[:, None, None] * (height + 2)
    corner = top.add(slices).mul_(width + 2).add_(left).reshape(-1)
    steps = (0, 1, width + 2, width + 3)
    around = [framed[step : len(framed) - steps[-1] + step] for step in steps]
    alike = (around[0] == around[1]) & (around[0] == around[2]) & (around[0] == around[3])
    voted = around[0].to(torch.int32).masked_fill_(~alike, -1).index_select(0, corner)
    between = places_of(voted < 0)
    voted = voted.to(targets.dtype)
    if len(between):
        at = corner[between]
        votes = [one[at] for one in around]
        right = (column - left).reshape(-1)[between]
        below = (row - top).reshape(-1)[between]
        shares = [down * across for down in (1 - below, below) for across in (1 - right, right)]
        voted[between] = _winner(votes, shares) if members is None else _best_row(votes, shares, members)
    return voted.reshape(columns.shape)


def places_of(mask: torch.Tensor) -> torch.Tensor:
    """`(M,)` indices at which a flat mask is true; on a CPU numpy finds them in a sixth of the time (torch 2.13)."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def _winner(votes: Sequence[torch.Tensor], shares: Sequence[torch.Tensor]) -> torch.Tensor:
    """The label of more than half of each pixel, else background; the largest share where some of it is ignored.

    Args:
        votes: Four `(M,)`, labels.
        shares: Four `(M,)`, the part of the pixel that each covers.
    """
    totals = [share.clone() for share in shares]
    for first, second in combinations(range(4), 2):
        same = votes[first] == votes[second]
        totals[first].add_(shares[second] * same)
        totals[second].add_(shares[first] * same)
    # The largest share wins, and of equal ones the smaller label.
    largest = reduce(torch.maximum, totals)
    label = [vote.masked_fill(total < largest, IGNORED) for vote, total in zip(votes, totals, strict=True)]
    wins = reduce(torch.minimum, label)
    ignored = [(vote == IGNORED) & (share > 0) for vote, share in zip(votes, shares, strict=True)]
    has_ignored = reduce(torch.logical_or, ignored)
    return wins.masked_fill_(~has_ignored & (largest <= 0.5), 0)


def _best_row(
    votes: Sequence[torch.Tensor], shares: Sequence[torch.Tensor], members: NDArray[np.bool_]
) -> torch.Tensor:
    """As `_winner`, for labels that overlap; see `overlaps.best_overlap`."""
    rows, covered = torch.stack(list(votes), dim=1), torch.stack(list(shares), dim=1)
    table = torch.tensor(members, dtype=covered.dtype, device=covered.device)
    ignored = rows == IGNORED
    unknown = (covered * ignored).sum(dim=1)
    held = table[rows.masked_fill(ignored, 0).long()]  # (M, 4, L)
    known = (1 - unknown).clamp_min(torch.finfo(covered.dtype).eps)
    evidence = 2 * (held * (covered * ~ignored)[:, :, None]).sum(dim=1) / known[:, None] - 1
    best = (evidence @ table.T).argmax(dim=1).to(rows.dtype)
    return torch.where(unknown > 0.5, torch.full_like(best, IGNORED), best)
