"""Statistics of the volume itself in batch normalisation: which slices they come from, and what they change."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from medfcn.errors import SettingsError
from medfcn.networks.design import AnyDesign, Design, MonaiDesign
from medfcn.networks.fcn import FCN, build_network
from medfcn.networks.own_statistics import require_statistics, some_slices, with_own_statistics
from medfcn.networks.presets import with_preset
from medfcn.networks.sliding import ArraySlices
from medfcn.settings import NetworkSettings


def _network() -> FCN:
    """A network in evaluation mode, whose statistics are those of some batches."""
    torch.manual_seed(0)
    design = Design.of(NetworkSettings(score_channels=4), widths=(4, 6), channels_in=3, label_count=1)
    network = build_network(design).train()
    network.head.weight.data.mul_(20)  # type: ignore[union-attr, operator]
    with torch.no_grad():
        for _ in range(40):
            network(torch.randn(4, 3, 16, 24))
    return network.eval()


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_a_volume_of_another_contrast_gives_the_same_logits_by_its_own_statistics() -> None:
    """What the intensities are multiplied by then does not matter; with half of the statistics it matters less."""
    network = _network()
    usual = torch.randn(6, 3, 16, 24)
    other = 3 * usual
    with torch.no_grad():
        expected = with_own_statistics(network, usual, 1.0)(usual)
        errors = [
            float((with_own_statistics(network, other, share)(other) - expected).abs().mean())
            for share in (0.0, 0.5, 1.0)
        ]
    assert errors[0] > errors[1] > 20 * errors[2]


def test_statistics_are_those_of_a_training_batch() -> None:
    network, seen = _network(), 2 + torch.randn(6, 3, 16, 24)
    with torch.no_grad():
        fitted = with_own_statistics(network, seen, 1.0)(seen)
        in_training = network.train()(seen)
    np.testing.assert_allclose(fitted, in_training, atol=0.02)  # the variance is that of a sample


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_statistics_is_taken_and_the_network_stays(share: float) -> None:
    network, seen = _network(), 2 + torch.randn(6, 3, 16, 24)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fitted, whole = with_own_statistics(network, seen, share), with_own_statistics(network, seen, 1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module.training for module in (*fitted.modules(), *network.modules()))
    for mixed, trained, own in zip(_norms(fitted), _norms(network), _norms(whole), strict=True):
        for name in ("running_mean", "running_var"):
            expected = (1 - share) * getattr(trained, name) + share * getattr(own, name)
            torch.testing.assert_close(getattr(mixed, name), expected)
    assert not torch.allclose(_norms(whole)[0].running_mean, _norms(network)[0].running_mean)  # type: ignore[arg-type]


def _numbered(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """`(1, R, A, S)` of which each voxel is the number of its axial slice, from 1."""
    return np.broadcast_to(np.arange(1, shape[2] + 1, dtype=np.float32), (1, *shape)).copy()


def test_slices_come_from_all_over_a_volume_with_their_neighbours() -> None:
    slices = ArraySlices(_numbered((4, 6, 20)), "axial")
    found = some_slices(slices, (4, 6), count=4, context=3)
    assert found.shape == (4, 3, 4, 6)
    assert found[:, :, 2, 3].tolist() == [[2, 3, 4], [7, 8, 9], [12, 13, 14], [17, 18, 19]]
    alone = some_slices(ArraySlices(_numbered((4, 6, 1)), "axial"), (4, 6), count=4, context=3)
    assert alone[:, :, 2, 3].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_small_slice_lies_in_the_middle_of_a_window_and_of_a_large_one_the_middle_is_taken() -> None:
    volume = np.arange(1, 1 + 5 * 30, dtype=np.float32).reshape(1, 5, 30, 1)
    found = some_slices(ArraySlices(volume, "axial"), (8, 16), count=2, context=1)
    assert found.shape == (2, 1, 8, 16)
    assert np.array_equal(found[0, 0, 1:6], volume[0, :, 7:23, 0])
    assert not found[0, 0, [0, 6, 7]].any()
    whole = some_slices(ArraySlices(volume, "axial"), (8, 24), count=2, context=1)
    assert whole.shape == (2, 1, 8, 30)  # as prediction shows it, in one piece
    assert some_slices(ArraySlices(volume, "axial"), (8, 24), count=2, context=1, whole=1.0).shape == (
        2,
        1,
        8,
        24,
    )


def _design(**parts: Any) -> AnyDesign:
    settings = with_preset(NetworkSettings(**parts))
    if settings.monai is not None:
        return MonaiDesign.of(settings, channels_in=1)
    return Design.of(settings, widths=(8, 16), channels_in=1, label_count=1)


@pytest.mark.parametrize(
    ("parts", "kind", "remedy"),
    [
        *(({"normalisation": kind}, rf"network\.normalisation is '{kind}'", r"network\.normalisation = 'batch'")
          for kind in ("instance", "group", "none")),
        ({"monai": "BasicUNet"}, "MONAI's BasicUNet", r"norm = 'batch' in network\.monai_arguments"),
    ],
    ids=["instance", "group", "none", "monai"],
)  # fmt: skip
def test_a_share_is_refused_where_no_layer_keeps_statistics(parts: dict[str, Any], kind: str, remedy: str) -> None:
    expected = rf"^setting slices\.own_statistics: 0\.5, and .* \({kind}\).*; expected 'auto' or 'never'; .*{remedy}"
    with pytest.raises(SettingsError, match=expected):
        require_statistics(_design(**parts), 0.5)


@pytest.mark.parametrize(
    "parts", [{}, {"normalisation": "batch"}, {"monai": "BasicUNet", "monai_arguments": {"norm": "batch"}}], ids=str
)
def test_a_share_is_taken_where_a_layer_keeps_statistics(parts: dict[str, Any]) -> None:
    require_statistics(_design(**parts), 0.5)
