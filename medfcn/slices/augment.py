"""Random changes to a batch of training slices, on the device of the network.

One resampling applies rotation, scale, shear, shift, mirroring and a smooth deformation to images and targets
together (`movement.py`); intensity changes follow on the images alone. Each change is computed only for the slices
that it was drawn for. The random numbers follow from the seed and the step. They are drawn on the CPU and for the
whole batch, so that every device and every number of processes sees the same slices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from medfcn.settings import AugmentSettings, View
from medfcn.slices.movement import Movements, moved, smooth_field
from medfcn.slices.plan import Movement
from medfcn.slices.slicing import in_plane_axes

CHANGES: Mapping[Movement, Mapping[str, float]] = {
    "small": {"rotation_degrees": 10.0, "scale": 0.1, "shear": 0.05, "shift": 0.05, "elastic": 0.01},
    "usual": {},
    "strong": {
        "still_share": 0.0,
        "rotation_degrees": 45.0,
        "scale": 0.35,
        "elastic": 0.04,
        "gamma": 0.5,
        "contrast": 0.4,
        "brightness": 0.35,
    },
}
"""The values of each `augment.movement` that are not the usual ones."""
_CHANNEL = 0x5EED
"""Keeps the random numbers of augmentation apart from those of the sampler, which has the same seed and step."""


@dataclass(frozen=True)
class Augmenter:
    """Applies `settings` to batches.

    Attributes:
        settings: The largest strength of each change.
        window: `(H, W)` of the result.
        mirror_axes: Axes of the network grid (0 is R, 1 is A, 2 is S) that are mirrored where they lie in a slice.
        seed: That of the whole training.
        members: `(A + 1, L)` for labels that overlap: the labels that a target of 0 … A stands for.
    """

    settings: AugmentSettings
    window: tuple[int, int]
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
            `(B, C, *window)` float32 images and `(B, *window)` targets of the type that was given. A pixel gets the
            label that more than half of it has. If some of it is ignored, the largest share decides (ties to the
            smaller value). For labels that overlap, each label counts if more than half of the known share of the
            pixel has it, and the pixel gets the row of `members` that agrees best; it is ignored if more than half
            of it is.
        """
        random = np.random.Generator(np.random.Philox(key=[self.seed ^ _CHANNEL, step]))
        mine = slice(None) if share is None else slice(share.start, share.stop)
        movements = self._draw(random, views, images.shape[2:])[mine]
        images, targets = moved(images, targets, movements, self.window, self.members)
        return self._change_intensity(random, images, len(views), mine), targets

    def _draw(self, random: np.random.Generator, views: Sequence[View], region: Sequence[int]) -> Movements:
        """The movement of each slice of a batch. Numbers are drawn for every slice, whichever use them.

        Each slice has an affine map from the window to the region, and half of the moved ones also a smooth
        deformation.
        """
        count = len(views)
        settings = self.settings
        # Slices that are not moved keep their pixels, as volumes in prediction do; between pixels there is blur.
        moves = random.random(count) >= settings.still_share
        angle = np.deg2rad(random.uniform(-1, 1, count) * settings.rotation_degrees)
        angle *= moves & (random.random(count) < 2 / 3)
        scale = np.exp(random.uniform(-1, 1, (count, 2)) * np.log1p(settings.scale) * [[1.0, 0.3]])
        scale = np.where(moves[:, None] & (random.random((count, 1)) < 2 / 3), scale, 1.0)
        shear = random.uniform(-1, 1, count) * settings.shear * moves
        shift = random.uniform(-1, 1, (count, 2)) * settings.shift * self.window
        shift = np.where(moves[:, None], shift, np.round(shift))
        sign = np.ones((count, 2))
        is_mirrored = {view: [axis in self.mirror_axes for axis in in_plane_axes(view)] for view in set(views)}
        for place in range(2):
            allowed = np.array([is_mirrored[view][place] for view in views])
            if allowed.any():
                sign[:, place] = np.where((random.random(count) < 0.5) & allowed, -1.0, 1.0)
        cosine, sine = np.cos(angle), np.sin(angle)
        # In pixels, H first: rotation · shear · scale · mirror.
        turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
        skew = np.tile(np.eye(2), (count, 1, 1))
        skew[:, 0, 1] = shear
        size = np.stack([scale[:, 0] * scale[:, 1], scale[:, 0] / scale[:, 1]], -1) * sign
        bend = None
        if settings.elastic > 0:
            bends = moves & (random.random(count) < 0.5)
            bend = random.normal(0, settings.elastic, (count, 2, 5, 5)) * bends[:, None, None, None]
        # Half a pixel lies between a window and a region of which one has an odd edge.
        is_even = all((edge - inner) % 2 == 0 for edge, inner in zip(region, self.window, strict=True))
        return Movements(turn @ skew * size[:, None, :], shift, sign, ~moves & is_even, bend)

    def _change_intensity(
        self, random: np.random.Generator, images: torch.Tensor, count: int, mine: slice
    ) -> torch.Tensor:
        """Blur, coarser pixels, bias field, contrast, brightness, gamma, noise: each for some of `count` slices.

        The images are changed in place.
        """
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
            field = random.normal(0, settings.bias_field, (count, 1, 3, 3))
            chosen = (random.random(count) < 0.3)[mine]
            images = _change_some(images, chosen, lambda some: _shaded(some, field[mine][chosen]))
        contrast = np.exp(random.uniform(-1, 1, count) * np.log1p(settings.contrast))
        brightness = random.uniform(-1, 1, count) * settings.brightness
        images = images.mul_(per_slice(contrast)).add_(per_slice(brightness))
        if settings.gamma > 0:
            gamma = random.uniform(-1, 1, count) * settings.gamma
            chosen = (random.random(count) < 0.3)[mine]
            powers = per_slice(np.exp(gamma))
            images = _change_some(images, chosen, lambda some: _curved(some, powers[_places(chosen, some.device)]))
        if settings.noise > 0:
            level = random.uniform(0, settings.noise, count) * (random.random(count) < 0.5)
            # A seed for each slice: so none draws for another, and a share is as in the whole batch.
            seeds = random.integers(2**62, size=count)
            generator = torch.Generator()
            for image, seed, strength in zip(images, seeds[mine].tolist(), level[mine].tolist(), strict=True):
                if strength > 0:
                    noise = torch.randn(image.shape, generator=generator.manual_seed(seed))
                    image.add_(noise.to(images.device), alpha=strength)
        return images


def _change_some(
    images: torch.Tensor, chosen: NDArray[np.bool_], change: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """`(B, C, H, W)` images, of which the chosen ones are changed."""
    if not chosen.any():
        return images
    index = _places(chosen, images.device)
    return images.index_copy_(0, index, change(images[index]))


def _places(chosen: NDArray[np.bool_], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(chosen)).to(device)


def _shaded(images: torch.Tensor, field: NDArray[np.float64]) -> torch.Tensor:
    """`(B, C, H, W)` images after a smooth change of brightness, from `(B, 1, h, w)` coarse numbers."""
    smooth = smooth_field(field, (images.shape[2], images.shape[3]), images.device)
    return images + smooth * (images.abs() + 1)


def _curved(images: torch.Tensor, powers: torch.Tensor) -> torch.Tensor:
    """`(B, C, H, W)` images whose intensities, between a slice's least and largest, are raised to a power."""
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    span = images.amax(dim=(1, 2, 3), keepdim=True) - low + 1e-6
    return ((images - low) / span).clamp_min(0).pow(powers) * span + low


def _blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """`(B, C, H, W)` images after Gaussian blur: one pass along the rows, one along the columns."""
    radius = max(1, round(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    height, width = images.shape[2:]
    # Sums of shifted images: for each number of slices, a convolution would first have a program made (torch 2.13).
    framed = functional.pad(images, (radius,) * 4, mode="replicate")
    by_rows = _weighted([framed[:, :, place : place + height] for place in range(len(taps))], taps)
    return _weighted([by_rows[..., place : place + width] for place in range(len(taps))], taps)


def _weighted(parts: Sequence[torch.Tensor], weights: NDArray[np.float64]) -> torch.Tensor:
    """The sum of tensors of one shape, each times its weight."""
    total = parts[0] * float(weights[0])
    for part, weight in zip(parts[1:], weights[1:].tolist(), strict=True):
        total.add_(part, alpha=weight)
    return total


def _coarsened(images: torch.Tensor, factor: float) -> torch.Tensor:
    """`(B, C, H, W)` images as pixels larger by a factor would show them."""
    height, width = images.shape[2:]
    coarse = (max(1, round(height / factor)), max(1, round(width / factor)))
    fewer = functional.interpolate(images, size=coarse, mode="bilinear", antialias=True)
    return functional.interpolate(fewer, size=(height, width), mode="bilinear")
