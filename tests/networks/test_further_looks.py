"""Further looks in steps that do not depend on what the slices show: they do what `TurnedNetwork` does."""

import pytest
import torch
from torch.nn import functional

from medfcn.networks.design import Head
from medfcn.networks.further_looks import corner_of, looked_again
from medfcn.networks.turned import TurnedNetwork

ANGLES = (20.0, -20.0, 75.0)


def _network(head: Head) -> torch.nn.Module:
    """A network that finds something in some places."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(2, 3, 5, padding=2).requires_grad_(False)
    layer.bias.copy_(torch.tensor([-1.2, -1.5, -1.3] if head == "sigmoid" else [0.6, -0.4, -0.3]))
    return layer


@pytest.mark.parametrize("is_exporting", [True, False], ids=["as exported", "as called"])
@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_slices_of_one_place_are_looked_at_as_in_prediction(
    head: Head, is_exporting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: is_exporting)
    network, random = _network(head), torch.Generator().manual_seed(1)
    likely = torch.sigmoid if head == "sigmoid" else lambda logits: torch.softmax(logits, dim=1)
    for count, height, width in ((3, 32, 48), (1, 37, 50), (2, 41, 33)):
        slices = torch.randn(count, 2, height, width, generator=random)
        ours = TurnedNetwork(network, angles=ANGLES, part=(24, 28), head=head)(slices)
        filled = functional.pad(slices, (0, 64 - width, 0, 48 - height))
        # Behind the slices a label is found everywhere: that is not to count.
        first = torch.full((count, 3, 48, 64), 9.0)
        first[:, 0] = -9
        first[..., :height, :width] = network(slices)
        size = torch.tensor((height, width))
        theirs = looked_again(network, filled, first, size, angles=ANGLES, part=(24, 28), head=head)
        assert (likely(theirs)[..., :height, :width] - likely(ours)).abs().max() < 1e-5
        assert (likely(first)[..., :height, :width] - likely(ours)).abs().max() > 0.1


@pytest.mark.parametrize("is_exporting", [True, False], ids=["as exported", "as called"])
@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_where_nothing_was_found_the_first_look_stays(
    head: Head, is_exporting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: is_exporting)
    slices, first = torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(0)), -torch.ones(2, 3, 32, 32)
    first[:, 0] += head == "softmax"
    how = {"angles": ANGLES, "part": (16, 16), "head": head}
    assert torch.equal(looked_again(_network(head), slices, first, torch.tensor((32, 32)), **how), first)


def test_the_part_stays_inside_of_the_slices_and_half_pixels_go_to_even_places() -> None:
    found, size = torch.zeros(48, 64, dtype=torch.int64), torch.tensor((40, 60))
    assert corner_of(found, (16, 20), size).tolist() == [0, 0]
    for place, corner in (((39, 59), [24, 40]), ((2, 3), [0, 0]), ((20, 30), [12, 20]), ((21, 31), [14, 22])):
        one = found.clone()
        one[place] = 3  # its middle lies half a pixel further: the corner would be at 12.5 and 20.5, 13.5 and 21.5
        assert corner_of(one, (16, 20), size).tolist() == corner
