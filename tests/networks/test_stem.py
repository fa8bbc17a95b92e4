"""A stem: the first convolution halves or quarters a slice, so that nothing is computed at full size."""

import pytest
import torch

from medfcn.errors import SettingsError
from medfcn.networks.design import Design
from medfcn.networks.fcn import FCN, build_network, coarsest_stride
from medfcn.networks.presets import with_preset
from medfcn.settings import NetworkSettings


def _network(stem: int) -> FCN:
    torch.manual_seed(0)
    settings = NetworkSettings(stem_stride=stem, score_channels=5)  # type: ignore[arg-type]
    return build_network(Design.of(settings, widths=(4, 6, 8), channels_in=1, label_count=1))


@pytest.mark.parametrize(("stem", "strides"), [(1, (4, 2, 1)), (2, (8, 4, 2)), (4, (16, 8, 4))])
@pytest.mark.parametrize("size", [(1, 1), (37, 50), (64, 48)])
def test_logits_come_back_at_the_slices_size(stem: int, strides: tuple[int, ...], size: tuple[int, int]) -> None:
    network = _network(stem).eval()
    assert network.fused_strides == strides
    assert network(torch.zeros(1, 1, *size)).shape == (1, 1, *size)
    settings = NetworkSettings(stem_stride=stem, widths=(4, 6, 8))  # type: ignore[arg-type]
    assert coarsest_stride(settings) == strides[0]


@pytest.mark.parametrize("stem", [2, 4])
def test_no_pixel_is_missed(stem: int) -> None:
    network = _network(stem).double().eval()
    slices = torch.randn(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    stem_map = network.encoder.levels[0][0][0](slices)  # type: ignore[index]
    stem_map.square().sum().backward()
    assert slices.grad is not None
    assert (slices.grad != 0).all()
    assert stem_map.shape[-2:] == (32 // stem, 32 // stem)


@pytest.mark.parametrize("stem", [2, 4])
def test_every_parameter_gets_a_gradient(stem: int) -> None:
    network = _network(stem)
    network(torch.randn(4, 1, 40, 56, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_moving_the_slice_by_the_coarsest_stride_moves_the_logits() -> None:
    network = _network(2).eval()
    slices = torch.randn(1, 1, 160, 160, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        still, moved = network(slices), network(slices.roll(8, 3))
    inner = (..., slice(64, 96), slice(64, 96))
    assert torch.allclose(moved[inner], still.roll(8, 3)[inner], atol=1e-5)
    assert not torch.allclose(moved[inner], still[inner], atol=1e-4)


def test_a_stem_is_for_the_strided_encoder() -> None:
    with pytest.raises(SettingsError, match=r"network\.stem_stride: 2 is for the encoder 'strided', not for 'vgg16'"):
        with_preset(NetworkSettings(preset="fcn8s", stem_stride=2))
