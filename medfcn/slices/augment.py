"""Random changes to a batch of training slices, on the device of the network.

One resampling applies rotation, scale, shear, shift, mirroring and a smooth deformation to images and targets
together; intensity changes follow on the images alone. The random numbers follow from the seed and the step. They are
drawn on the CPU and for the whole batch, so that every device and every number of processes sees the same slices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from medfcn.labels import IGNORED
from medfcn.settings import AugmentSettings, View
from medfcn.slices.slicing import in_plane_axes

_CHANNEL = 0x5EED
"""Keeps the random numbers of augmentation apart from those of the sampler, which has the same seed and step."""


@dataclass(frozen=True)
class Augmenter:
    """Applies `settings` to batches.

    Attributes:
        settings: The largest strength of each change.
        window: `(H, W)` of the result.
        label_count: Foreground labels in the targets.
        mirror_axes: Axes of the network grid (0 is R, 1 is A, 2 is S) that are mirrored where they lie in a slice.
        seed: That of the whole training.
        members: `(A + 1, L)` for labels that overlap: the labels that a target of 0 … A stands for.
    """

    settings: AugmentSettings
    window: tuple[int, int]
    label_count: int
    mirror_axes: tuple[int, ...]
    seed: int
    members: NDArray[np.bool_] | None = None

    def __call__(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        *,
        step: int,
        views: Sequence[View],
        share: range | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One augmented batch, or a share of it.

        Args:
            images: `(B, C, H', W')` float32, larger than the window by the sampler's margin.
            targets: `(B, H', W')` integers: 0 for background, k for the k-th label (or row of `members`), `IGNORED`
                (255).
            step: The step of the training; the random numbers follow from it.
            views: The plane of each slice of the whole batch; it decides along which of its axes a slice is mirrored.
            share: The places of these slices in the batch; None for all.

        Returns:
            `(B, C, *window)` float32 images and `(B, *window)` int64 targets. A pixel gets the label that more than
            half of it has. If some of it is ignored, the largest share decides (ties to the smaller value). For
            labels that overlap, each label counts if more than half of the known share of the pixel has it, and the
            pixel gets the row of `members` that agrees best; it is ignored if more than half of it is.
        """
        random = np.random.Generator(np.random.Philox(key=[self.seed ^ _CHANNEL, step]))
        mine = slice(None) if share is None else slice(share.start, share.stop)
        grid = self._sampling_grid(random, images, views, mine)
        if self.members is None:
            images, moved_targets = self._move(images, targets, grid)
        else:
            images, moved_targets = _move_overlapping(images, targets, grid, self.members)
        return self._change_intensity(random, images, len(views), mine), moved_targets

    def _move(
        self, images: torch.Tensor, targets: torch.Tensor, grid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and targets at the positions of `grid`, `(B, *window, 2)`.

        The mask of each label is interpolated as one more channel: its value is the label's share of a pixel.
        """
        ignores = bool((targets == IGNORED).any())
        values = [*range(1, self.label_count + 1), *([IGNORED] if ignores else [])]
        labels = torch.tensor(values, device=images.device)
        masks = (targets[:, None] == labels[None, :, None, None]).to(images.dtype)
        moved = functional.grid_sample(torch.cat([images, masks], 1), grid, mode="bilinear", align_corners=False)
        images, masks = moved[:, : images.shape[1]], moved[:, images.shape[1] :]
        share, best = masks[:, : self.label_count].max(dim=1)
        moved_targets = torch.where(share > 0.5, best + 1, 0)
        if ignores:
            ignored, background = masks[:, -1], 1 - masks.sum(dim=1)
            largest = torch.where(share > background, best + 1, 0)
            largest = torch.where(ignored > torch.maximum(share, background), IGNORED, largest)
            moved_targets = torch.where(ignored > 0, largest, moved_targets)
        return images, moved_targets

    def _sampling_grid(
        self, random: np.random.Generator, images: torch.Tensor, views: Sequence[View], mine: slice
    ) -> torch.Tensor:
        """`(B, *window, 2)` positions in the batch's region, in grid_sample's units.

        Each slice has an affine map from the window to the region, and half of the moved ones also a smooth
        deformation. Numbers are drawn for every slice, whichever use them.
        """
        count, region = len(views), images.shape[2:]
        settings = self.settings
        # Slices that are not moved keep their pixels, as volumes in prediction do; between pixels there is blur.
        moves = random.random(count) >= settings.still_share
        angle = np.deg2rad(random.uniform(-1, 1, count) * settings.rotation_degrees)
        angle *= moves & (random.random(count) < 2 / 3)
        scale = np.exp(random.uniform(-1, 1, (count, 2)) * np.log1p(settings.scale) * [[1.0, 0.3]])
        scale = np.where(moves[:, None] & (random.random((count, 1)) < 2 / 3), scale, 1.0)
        shear = random.uniform(-1, 1, count) * settings.shear * moves
        shift = random.uniform(-1, 1, (count, 2)) * settings.shift
        shift = np.where(moves[:, None], shift, np.round(shift * self.window) / self.window)
        sign = np.ones((count, 2))
        for place in range(2):
            allowed = np.isin([in_plane_axes(view)[place] for view in views], self.mirror_axes)
            if allowed.any():
                sign[:, place] = np.where((random.random(count) < 0.5) & allowed, -1.0, 1.0)
        cosine, sine = np.cos(angle), np.sin(angle)
        # In pixels, H first: rotation · shear · scale · mirror, then into grid_sample's [-1, 1], W first.
        turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
        skew = np.tile(np.eye(2), (count, 1, 1))
        skew[:, 0, 1] = shear
        size = np.stack([scale[:, 0] * scale[:, 1], scale[:, 0] / scale[:, 1]], -1) * sign
        matrix = turn @ skew * size[:, None, :]
        half_out, half_in = np.array(self.window) / 2, np.array(region) / 2
        matrix = matrix * half_out[None, None, :] / half_in[None, :, None]
        theta = np.zeros((count, 2, 3), dtype=np.float32)
        theta[:, :, :2] = matrix[:, ::-1, ::-1]
        theta[:, :, 2] = (shift * half_out / half_in * 2)[:, ::-1]
        grid = functional.affine_grid(
            torch.from_numpy(theta[mine]).to(images.device), [len(images), 1, *self.window], align_corners=False
        )
        if settings.elastic > 0:
            bends = moves & (random.random(count) < 0.5)
            bend = random.normal(0, settings.elastic, (count, 2, 5, 5)) * bends[:, None, None, None]
            grid = grid + _smooth_field(bend[mine], self.window, images.device).permute(0, 2, 3, 1)
        return grid

    def _change_intensity(
        self, random: np.random.Generator, images: torch.Tensor, count: int, mine: slice
    ) -> torch.Tensor:
        """Blur, coarser pixels, bias field, contrast, brightness, gamma, noise: each for some of `count` slices."""
        settings = self.settings

        def per_slice(values: NDArray[np.float64]) -> torch.Tensor:
            return torch.from_numpy(values[mine].astype(np.float32)).to(images.device)[:, None, None, None]

        if settings.blur_pixels > 0:
            sigma = random.uniform(0.3, 1.0) * settings.blur_pixels
            chosen = (random.random(count) < 0.2)[mine]
            images = _change_some(images, chosen, lambda some: _blurred(some, sigma))
        if settings.low_resolution > 0:
            factor = 1 + random.uniform(0, 1) * settings.low_resolution
            chosen = (random.random(count) < 0.125)[mine]
            images = _change_some(images, chosen, lambda some: _coarsened(some, factor))
        if settings.bias_field > 0:
            field = random.normal(0, settings.bias_field, (count, 1, 3, 3)) * (random.random((count, 1, 1, 1)) < 0.3)
            images = images + _smooth_field(field[mine], self.window, images.device) * (images.abs() + 1)
        contrast = np.exp(random.uniform(-1, 1, count) * np.log1p(settings.contrast))
        brightness = random.uniform(-1, 1, count) * settings.brightness
        images = images * per_slice(contrast) + per_slice(brightness)
        if settings.gamma > 0:
            gamma = np.exp(random.uniform(-1, 1, count) * settings.gamma * (random.random(count) < 0.3))
            low = images.amin(dim=(1, 2, 3), keepdim=True)
            span = images.amax(dim=(1, 2, 3), keepdim=True) - low + 1e-6
            images = ((images - low) / span).clamp_min(0).pow(per_slice(gamma)) * span + low
        if settings.noise > 0:
            level = random.uniform(0, settings.noise, count) * (random.random(count) < 0.5)
            generator = torch.Generator().manual_seed(int(random.integers(2**62)))
            # torch draws the batch's numbers from first to last; those of a share are at its places.
            noise = torch.randn((count, *images.shape[1:]), generator=generator)[mine].to(images.device)
            images = images + noise * per_slice(level)
        return images


def _move_overlapping(
    images: torch.Tensor, targets: torch.Tensor, grid: torch.Tensor, members: NDArray[np.bool_]
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `Augmenter._move`, for labels that overlap; see `overlaps.best_overlap`."""
    table = torch.tensor(members, dtype=images.dtype, device=images.device)
    ignored = targets == IGNORED
    masks = table[targets.masked_fill(ignored, 0).long()].movedim(-1, 1)
    given = torch.cat([images, masks, ignored[:, None].to(images.dtype)], 1)
    moved = functional.grid_sample(given, grid, mode="bilinear", align_corners=False)
    channels = images.shape[1]
    images, shares, unknown = moved[:, :channels], moved[:, channels:-1], moved[:, -1]
    known = (1 - unknown).clamp_min(torch.finfo(images.dtype).eps)
    evidence = 2 * shares / known[:, None] - 1
    best = torch.einsum("blhw,al->bahw", evidence, table).argmax(dim=1)
    return images, torch.where(unknown > 0.5, IGNORED, best)


def _smooth_field(coarse: NDArray[np.float64], window: tuple[int, int], device: torch.device) -> torch.Tensor:
    """`(B, C, h, w)` random numbers as a smooth `(B, C, *window)` field."""
    points = torch.from_numpy(coarse.astype(np.float32)).to(device)
    return functional.interpolate(points, size=window, mode="bicubic", align_corners=True)


def _change_some(
    images: torch.Tensor, chosen: NDArray[np.bool_], change: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """`(B, C, H, W)` images, of which the chosen ones are changed."""
    if not chosen.any():
        return images
    index = torch.from_numpy(np.flatnonzero(chosen)).to(images.device)
    return images.index_copy(0, index, change(images[index]))


def _blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """`(B, C, H, W)` images after Gaussian blur: one pass along the rows, one along the columns."""
    radius = max(1, round(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = torch.from_numpy((taps / taps.sum()).astype(np.float32)).to(images.device)
    flat = functional.pad(images.reshape(-1, 1, *images.shape[2:]), (radius,) * 4, mode="replicate")
    flat = functional.conv2d(flat, kernel.reshape(1, 1, -1, 1))
    flat = functional.conv2d(flat, kernel.reshape(1, 1, 1, -1))
    return flat.reshape(images.shape)


def _coarsened(images: torch.Tensor, factor: float) -> torch.Tensor:
    """`(B, C, H, W)` images as pixels larger by a factor would show them."""
    height, width = images.shape[2:]
    coarse = (max(1, round(height / factor)), max(1, round(width / factor)))
    fewer = functional.interpolate(images, size=coarse, mode="bilinear", antialias=True)
    return functional.interpolate(fewer, size=(height, width), mode="bilinear")
