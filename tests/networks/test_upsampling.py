"""Upsampling starts as linear interpolation, and reaches every pixel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from medfcn.networks.phases import _Narrow
from medfcn.networks.upsampling import Upsample, bilinear_kernel, first_pixels
from medfcn.settings import Upsampling
from tests.networks.designs import noise

LEARNED: tuple[Upsampling, ...] = ("transposed", "transposed_3x3", "nearest_conv", "dilated")
ALL: tuple[Upsampling, ...] = (*LEARNED, "bilinear")


def interpolated(coarse: torch.Tensor, factor: int) -> torch.Tensor:
    return functional.interpolate(coarse, scale_factor=factor, mode="bilinear", align_corners=False)


def raised(coarse: torch.Tensor, method: Upsampling, factor: int = 2) -> torch.Tensor:
    channels, size = coarse.shape[1], (coarse.shape[2] * factor, coarse.shape[3] * factor)
    with torch.no_grad():
        return Upsample(channels, channels, method=method, factor=factor)(coarse, size)


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_a_transposed_convolution_starts_as_bilinear_interpolation(factor: int) -> None:
    coarse = noise(2, 3, 5, 4)
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    assert torch.allclose(raised(coarse, "transposed", factor)[inner], interpolated(coarse, factor)[inner], atol=1e-5)


def test_repeated_pixels_and_a_convolution_start_as_bilinear_interpolation() -> None:
    coarse = noise(2, 3, 7, 6)
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(raised(coarse, "nearest_conv")[inner], interpolated(coarse, 2)[inner], atol=1e-6)


def test_a_3x3_transposed_convolution_starts_as_linear_interpolation_from_the_first_pixel_on() -> None:
    """Its fine pixels 0, 2, 4 … are the coarse ones, those between are means: corners aligned with corners."""
    coarse = noise(2, 3, 7, 6)
    aligned = functional.interpolate(coarse, size=(13, 11), mode="bilinear", align_corners=True)
    assert torch.allclose(raised(coarse, "transposed_3x3")[..., :13, :11], aligned, atol=1e-6)


def test_a_dilated_convolution_starts_as_linear_interpolation_between_pixels_three_apart() -> None:
    row = noise(1, 1, 1, 16).expand(1, 1, 16, 16)  # alike in every row
    fine = raised(row, "dilated")[0, 0, 16]
    values = row[0, 0, 0]
    for pixel in range(6, 26):
        position = (pixel - 0.5) / 2
        left = pixel // 2 - 1 if pixel % 2 == 0 else pixel // 2 - 2
        share = (position - left) / 3
        assert 0 < share < 1
        wanted = (1 - share) * values[left] + share * values[left + 3]
        assert float(fine[pixel]) == pytest.approx(float(wanted), abs=1e-5), pixel


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-5, 5))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("method", LEARNED)
def test_every_learned_upsampling_starts_exact_on_slopes(
    method: Upsampling, down: float, across: float, offset: float
) -> None:
    """What is linear stays linear; the fine pixel p lies at (p − ½)/2, with corners aligned at p/2."""
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    coarse = (down * rows + across * columns + offset)[None, None]
    shift = 0.0 if method == "transposed_3x3" else 0.5
    rows, columns = torch.meshgrid((torch.arange(24) - shift) / 2, (torch.arange(20) - shift) / 2, indexing="ij")
    inner = (slice(6, -6), slice(6, -6))
    wanted = down * rows + across * columns + offset
    assert torch.allclose(raised(coarse, method)[0, 0][inner], wanted[inner], atol=1e-4)


@pytest.mark.parametrize("method", LEARNED)
def test_channels_start_apart(method: Upsampling) -> None:
    coarse = torch.zeros(1, 3, 8, 8)
    coarse[:, 1] = noise(1, 8, 8)
    fine = raised(coarse, method)
    assert fine[:, 1].abs().max() > 0
    assert fine[:, 0].abs().max() == fine[:, 2].abs().max() == 0


def taps_of_each_pixel(dilation: int, *, kernel: int, stride: int) -> torch.Tensor:
    """How many taps reach each fine pixel of the interior."""
    layer = nn.ConvTranspose2d(1, 1, kernel, stride=stride, dilation=dilation, bias=False)
    nn.init.ones_(layer.weight)
    with torch.no_grad():
        reached = layer(torch.ones(1, 1, 16, 16))[0, 0]
    edge = dilation * kernel
    return reached[edge:, edge:][: 4 * stride, : 4 * stride].round()


def test_a_dilation_coprime_with_the_stride_reaches_every_pixel_alike() -> None:
    layer = Upsample(1, 1, method="dilated").learned
    assert isinstance(layer, nn.ConvTranspose2d)
    assert (layer.kernel_size, layer.stride, layer.dilation) == ((4, 4), (2, 2), (3, 3))
    assert set(taps_of_each_pixel(3, kernel=4, stride=2).flatten().tolist()) == {4.0}


def test_a_dilation_of_two_would_leave_three_quarters_of_the_pixels_out() -> None:
    reached = taps_of_each_pixel(2, kernel=4, stride=2)
    assert float((reached == 0).float().mean()) == pytest.approx(0.75)


@pytest.mark.parametrize("method", LEARNED)
def test_a_gradient_reaches_every_tap_and_every_coarse_pixel(method: Upsampling) -> None:
    part = Upsample(2, 3, method=method)
    coarse = noise(1, 2, 9, 9).requires_grad_()
    (part(coarse, (18, 18)) * noise(1, 3, 18, 18, seed=1)).sum().backward()
    assert coarse.grad is not None
    assert (coarse.grad != 0).all()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


@given(
    method=st.sampled_from(ALL),
    factor=st.sampled_from([2, 4, 8]),
    coarse=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    cut=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
@settings(max_examples=60, deadline=None)
def test_the_fine_map_has_the_size_it_was_told(
    method: Upsampling, factor: int, coarse: tuple[int, int], cut: tuple[int, int], channels: tuple[int, int]
) -> None:
    part = Upsample(*channels, method=method, factor=factor)
    size = (coarse[0] * factor - cut[0], coarse[1] * factor - cut[1])
    whole = part(torch.ones(2, channels[0], *coarse), (coarse[0] * factor, coarse[1] * factor))
    fine = part(torch.ones(2, channels[0], *coarse), size)
    assert fine.shape == (2, channels[1], *size)
    assert torch.equal(fine, whole[..., : size[0], : size[1]])


def test_fixed_interpolation_has_nothing_to_learn() -> None:
    assert not list(Upsample(3, 3, method="bilinear").parameters())
    coarse = noise(1, 3, 4, 5)
    assert torch.equal(raised(coarse, "bilinear", 8), interpolated(coarse, 8))


@pytest.mark.parametrize("method", ALL)
def test_upsampling_to_other_channels_keeps_the_power_of_the_features(method: Upsampling) -> None:
    """He's start: after ReLU the mean square is about what it was, so that many steps neither fade nor blow up."""
    torch.manual_seed(0)
    features = functional.relu(noise(2, 64, 12, 12))
    with torch.no_grad():
        fine = functional.relu(Upsample(64, 48, method=method)(features, (24, 24)))[..., 6:-6, 6:-6]
    assert 0.4 < float(fine.square().mean() / features.square().mean()) < 2.5


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
def test_the_bilinear_kernel_shares_each_pixel_out_whole(stride: int) -> None:
    kernel = bilinear_kernel(stride)
    assert kernel.shape == (2 * stride, 2 * stride)
    assert float(kernel.sum()) == pytest.approx(stride**2)
    assert torch.equal(kernel, kernel.T)
    assert torch.equal(kernel, kernel.flip(0, 1))


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("channels", [(1, 1), (3, 7), (5, 9)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_training_raises_maps_as_a_prediction_does(factor: int, channels: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(3)
    upsample = Upsample(*channels, method="transposed", factor=factor, bias=bias)
    given, size = torch.randn(2, channels[0], 5, 6), (5 * factor, 6 * factor - 1)
    found = []
    for is_training in (True, False):
        upsample.train(is_training).zero_grad()
        coarse = given.clone().requires_grad_()
        fine = upsample(coarse, size)
        (fine * torch.arange(fine.numel()).view(fine.shape).cos()).sum().backward()
        parameters = [parameter.grad.clone() for parameter in upsample.parameters() if parameter.grad is not None]
        assert coarse.grad is not None
        assert len(parameters) == 1 + bias
        found.append((fine.detach(), coarse.grad, *parameters))
    for here, there in zip(*found, strict=True):
        assert torch.allclose(here, there, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "bias"), [((3, 7), False), ((4, 4), False), ((2, 2), False), ((3, 7), True), ((16, 40), True)]
)
def test_a_training_in_bfloat16_raises_maps_as_one_in_float32_does(channels: tuple[int, int], bias: bool) -> None:
    """Few channels to the digits of bfloat16; many labels, which have a bias, to those of float32."""
    torch.manual_seed(3)
    upsample = Upsample(*channels, method="transposed", bias=bias).train()
    given, found = torch.randn(2, channels[0], 5, 6).bfloat16(), []
    for is_half in (True, False):
        upsample.zero_grad()
        coarse = given.clone().requires_grad_() if is_half else given.float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            fine = upsample(coarse, (10, 12)).float()
        (fine * torch.arange(fine.numel()).view(fine.shape).cos()).sum().backward()
        assert coarse.grad is not None
        gradients = [parameter.grad.clone() for parameter in upsample.parameters() if parameter.grad is not None]
        assert len(gradients) == 1 + bias
        found.append((fine.detach(), *gradients, coarse.grad.float()))
    for here, there in zip(*found, strict=True):
        digits = 1e-5 if bias and here.shape != given.shape else 0.02
        assert (here - there).abs().max() <= digits * there.abs().max()


@pytest.mark.parametrize("bias", [False, True])
def test_a_raised_map_of_a_training_may_be_changed_in_place(bias: bool) -> None:
    upsample = Upsample(1, 1, method="transposed", bias=bias)
    functional.relu(upsample(noise(1, 1, 3, 4).requires_grad_(), (6, 8)), inplace=True).sum().backward()
    assert all(parameter.grad is not None for parameter in upsample.parameters())


@pytest.mark.parametrize(("channels", "factor"), [((4, 4), 2), ((2, 2), 2), ((3, 3), 2), ((2, 2), 4)])
def test_few_channels_in_bfloat16_have_the_gradients_of_the_layer(channels: tuple[int, int], factor: int) -> None:
    """Fine pixels are copied by two, four or eight bytes at once; gradients with other layouts are taken too."""
    torch.manual_seed(3)
    layer = nn.ConvTranspose2d(*channels, 2 * factor, factor, factor // 2, bias=False)
    given = torch.randn(2, channels[0], 5, 6).bfloat16()
    weight = layer.weight.detach().bfloat16()
    outer = torch.randn(2, channels[1], 5 * factor, 6 * factor).bfloat16()
    for laid in (outer, outer.contiguous(memory_format=torch.channels_last)):
        found = []
        for is_ours in (True, False):
            coarse, kernels = given.clone().requires_grad_(), weight.clone().requires_grad_()
            if is_ours:
                fine = _Narrow.apply(coarse, kernels, factor)
            else:
                fine = functional.conv_transpose2d(coarse, kernels, stride=factor, padding=factor // 2)
            fine.backward(laid)
            assert coarse.grad is not None
            assert kernels.grad is not None
            found.append((fine.detach().float(), coarse.grad.float(), kernels.grad.float()))
        for here, there in zip(*found, strict=True):
            assert (here - there).abs().max() <= 0.01 * there.abs().max()


@pytest.mark.parametrize("size", [(5, 9), (6, 7), (5, 7)])
def test_maps_that_are_cut_have_the_gradient_of_a_cut_and_channels_last(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 6, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = []
    for cut in (lambda given: first_pixels(given, size), lambda given: given[..., : size[0], : size[1]].float()):
        given = maps.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
        shown = cut(given)
        assert shown.dtype == torch.float32
        (gradient,) = torch.autograd.grad((shown * torch.arange(shown.numel()).view(shown.shape).cos()).sum(), given)
        found.append((shown.detach(), gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][1].is_contiguous(memory_format=torch.channels_last)
