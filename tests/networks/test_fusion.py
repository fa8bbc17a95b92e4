"""Maps of two strides are joined at a size that is told, never guessed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medfcn.networks.design import Design
from medfcn.networks.fusion import SkipFusion
from medfcn.settings import NetworkSettings, Upsampling
from tests.networks.designs import noise


def fusion(
    channels_in: int, channels_out: int, skip: int | None, *, activated: bool = False, **parts: object
) -> SkipFusion:
    torch.manual_seed(0)
    chosen = NetworkSettings(refinements=0, decoder_widths=(4,) if activated else (), **parts)  # type: ignore[arg-type]
    return SkipFusion(channels_in, channels_out, skip_channels=skip, design=Design.of(chosen, widths=(4, 4)))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["add", "concat"]))
@settings(max_examples=40, deadline=None)
def test_the_fused_map_has_the_size_of_the_finer_one(height: int, width: int, how: str) -> None:
    part = fusion(3, 3, 3, fusion=how)
    coarse = torch.ones(1, 3, -(-height // 2), -(-width // 2))
    fused = part(coarse, torch.ones(1, 3, height, width), (height, width))
    assert fused.shape == (1, part.channels, height, width)


def test_addition_adds_and_keeps_the_channels() -> None:
    part = fusion(4, 4, 4, fusion="add")
    coarse, fine = noise(2, 4, 5, 4), noise(2, 4, 9, 7, seed=1)
    assert part.channels == 4
    assert torch.equal(part(coarse, fine, (9, 7)), part.upsample(coarse, (9, 7)) + fine)


def test_concatenation_keeps_both_maps_whole() -> None:
    part = fusion(4, 3, 6, fusion="concat")
    coarse, fine = noise(2, 4, 5, 4), noise(2, 6, 9, 7, seed=1)
    fused = part(coarse, fine, (9, 7))
    assert part.channels == fused.shape[1] == 9
    assert torch.equal(fused[:, :3], part.upsample(coarse, (9, 7)))
    assert torch.equal(fused[:, 3:], fine)


def test_without_a_finer_map_the_coarse_one_is_only_raised() -> None:
    for how in ("add", "concat"):
        part = fusion(4, 2, None, fusion=how)
        coarse = noise(1, 4, 5, 5)
        assert part.channels == 2
        assert torch.equal(part(coarse, None, (10, 10)), part.upsample(coarse, (10, 10)))


@pytest.mark.parametrize("how", ["add", "concat"])
@pytest.mark.parametrize("count", [1, 2])
def test_refining_brings_the_fused_map_to_the_channels_of_the_step(how: str, count: int) -> None:
    chosen = NetworkSettings(fusion=how, refinements=count, decoder_dropout=0.5)  # type: ignore[arg-type]
    part = SkipFusion(4, 5, skip_channels=5, design=Design.of(chosen, widths=(4, 4)))
    assert part.channels == 5
    assert part(noise(1, 4, 4, 4), noise(1, 5, 8, 8), (8, 8)).shape == (1, 5, 8, 8)
    kinds = [type(module).__name__ for module in part.refine]
    assert kinds == ["ConvBlock", "Dropout2d"] * count


@pytest.mark.parametrize("method", ["transposed", "transposed_3x3", "nearest_conv", "dilated", "bilinear"])
def test_decoders_of_features_are_activated_and_score_maps_are_not(method: Upsampling) -> None:
    coarse = noise(2, 4, 6, 6)
    assert fusion(4, 4, None, activated=True, upsampling=method)(coarse, None, (12, 12)).min() == 0
    assert fusion(4, 4, None, activated=False, upsampling=method)(coarse, None, (12, 12)).min() < 0
