"""Further looks at the part of a slice around what was found: where they look, what they change, what they leave."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from medfcn.networks.design import Head
from medfcn.networks.further_looks import ways_of
from medfcn.networks.sliding import slab_ends
from medfcn.networks.turned import TurnedNetwork

Answer = Callable[[torch.Tensor], torch.Tensor]


def _disc(middle: tuple[float, float], radius: float, size: tuple[int, int] = (48, 64)) -> torch.Tensor:
    """`(H, W)`: above 0 inside of a disc, smooth."""
    rows, columns = torch.meshgrid(*(torch.arange(edge) for edge in size), indexing="ij")
    return radius - ((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2).sqrt()


def _two_logits(slices: torch.Tensor) -> torch.Tensor:
    """Background and one label, from the brightness of each pixel alone."""
    return torch.cat([-slices, slices], dim=1)


LOOKS: list[tuple[Head, Answer]] = [("sigmoid", lambda slices: slices), ("softmax", _two_logits)]


class _Seen:
    """A network that keeps what it is shown."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.shown: list[torch.Tensor] = []

    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        self.shown.append(slices)
        return self.answer(slices)


@pytest.mark.parametrize(("head", "answer"), LOOKS, ids=[head for head, _ in LOOKS])
def test_a_network_that_does_not_mind_turns_says_the_same(head: Head, answer: Answer) -> None:
    slices = torch.stack([_disc((20, 40), 9), _disc((26, 38), 6)])[:, None]
    turned = TurnedNetwork(answer, angles=(20.0, -20.0), part=(32, 32), head=head)
    before, after = answer(slices), turned(slices)
    likely = torch.sigmoid if head == "sigmoid" else lambda logits: torch.softmax(logits, dim=1)
    assert after.shape == before.shape
    assert (likely(before) - likely(after)).abs().max() < 0.05  # half a pixel between two of them
    assert torch.equal(before[:, :, :3], after[:, :, :3])  # far from both discs


def test_it_looks_again_at_what_the_slices_show_together() -> None:
    discs = [_disc((20, 40), 9), torch.full((48, 64), -9.0), _disc((24, 36), 9)]
    slices = torch.stack(discs)[:, None]
    network = _Seen(lambda slices: slices)
    after = TurnedNetwork(network, angles=(15.0, -30.0, 90.0), part=(24, 32), head="sigmoid")(slices)
    assert [tuple(seen.shape) for seen in network.shown] == [(3, 1, 48, 64), *[(3, 1, 24, 32)] * 3]
    assert not (after[1] > 0).any()
    for seen in network.shown[1:]:  # the middle of both discs is that of what is looked at
        found = (seen[:, 0] > 0).nonzero()[:, 1:].float().mean(dim=0)
        assert (found - torch.tensor([11.5, 15.5])).abs().max() < 1


def test_slices_that_come_at_once_are_looked_at_as_if_they_came_in_groups() -> None:
    """A GPU gets a whole batch, a CPU some slices of it: the parts are in the same places."""
    slices = torch.stack([_disc((12 + 3 * place, 20 + 4 * place), 7) for place in range(7)])[:, None]
    slices = torch.cat([slices[:3], torch.full((2, 1, 48, 64), -9.0), slices[3:]])
    network = _Seen(lambda slices: slices)
    at_once = TurnedNetwork(network, angles=(20.0, -20.0), part=(24, 24), head="sigmoid", together=2)(slices)
    assert [len(seen) for seen in network.shown] == [9, 7, 7]  # one call for each look; nothing was found in two
    alone = TurnedNetwork(lambda slices: slices, angles=(20.0, -20.0), part=(24, 24), head="sigmoid", together=2)
    for start, stop in slab_ends(9, 9, 2):
        assert torch.equal(at_once[start:stop], alone(slices[start:stop]))
    whole = TurnedNetwork(lambda slices: slices, angles=(20.0, -20.0), part=(24, 24), head="sigmoid")(slices)
    assert not torch.equal(whole, at_once)


def test_nothing_is_looked_at_again_where_nothing_was_found() -> None:
    slices, network = torch.full((2, 1, 48, 64), -9.0), _Seen(lambda slices: slices)
    assert torch.equal(TurnedNetwork(network, angles=(20.0,), part=(24, 24), head="sigmoid")(slices), slices)
    assert len(network.shown) == 1


def test_a_slice_in_which_the_first_look_found_nothing_can_be_mended() -> None:
    def answer(slices: torch.Tensor) -> torch.Tensor:
        given = slices.clone()
        if len(network.shown) == 1:
            given[1] = -1.0
        return given

    slices, network = 9 * torch.stack([_disc((20, 40), 9)] * 2)[:, None].sign(), _Seen(answer)
    after = TurnedNetwork(network, angles=(20.0, -20.0), part=(32, 32), head="sigmoid")(slices)
    assert float(((after[1] > 0) == (slices[1] > 0)).float().mean()) > 0.99


def test_a_part_is_turned_the_way_that_is_said_and_its_answer_back() -> None:
    """A bar that lies along the columns stands after 90°; its own answer lies again."""
    slices = torch.full((1, 1, 40, 40), -5.0)
    slices[:, :, 18:22, 8:32] = 5.0
    network = _Seen(lambda slices: slices)
    after = TurnedNetwork(network, angles=(90.0,), part=(32, 32), head="sigmoid")(slices)
    standing = network.shown[1][0, 0] > 0
    assert (standing.any(dim=1).sum(), standing.any(dim=0).sum()) == (24, 4)
    assert torch.equal(after > 0, slices > 0)


def test_an_error_that_depends_on_how_the_organ_lies_is_averaged() -> None:
    """A network that misses the right side of whatever it sees as long as that lies as it did."""

    def answer(slices: torch.Tensor) -> torch.Tensor:
        missed = slices.clone()
        if len(looks.shown) == 1:
            missed[:, :, :, slices.shape[3] // 2 :] = -2.0
        return missed

    slices = 3 * _disc((24, 32), 10)[None, None].sign()
    looks = _Seen(answer)
    after = TurnedNetwork(looks, angles=(20.0, -20.0), part=(40, 40), head="sigmoid")(slices)
    first = slices.clone()
    first[:, :, :, 32:] = -2.0
    wrong = [float(((found > 0) != (slices > 0)).float().mean()) for found in (first, after)]
    assert wrong[1] < wrong[0] / 3


@pytest.mark.parametrize("middle", [(2, 3), (46, 61)], ids=["first corner", "last corner"])
def test_a_part_at_the_border_stays_inside_of_the_slice(middle: tuple[int, int]) -> None:
    slices = _disc(middle, 8)[None, None]
    network = _Seen(lambda slices: slices)
    after = TurnedNetwork(network, angles=(20.0,), part=(32, 200), head="sigmoid")(slices)
    assert tuple(network.shown[1].shape) == (1, 1, 32, 64)
    assert torch.isfinite(after).all()
    near = np.s_[:, :, 16:32, 16:48]
    assert torch.equal(after[near] > 0, slices[near] > 0)


def test_looks_are_the_same_each_time_and_leave_their_input() -> None:
    slices = torch.stack([_disc((20, 40), 9), _disc((26, 22), 6)])[:, None]
    kept = slices.clone()
    turned = TurnedNetwork(_two_logits, angles=(20.0, -20.0), part=(32, 32), head="softmax")
    with torch.inference_mode():
        assert torch.equal(turned(slices), turned(slices))
    assert torch.equal(slices, kept)


def test_the_way_of_each_angle_is_made_once_for_parts_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[int, int], float]] = []

    def counted(part: tuple[int, int], angle: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append((part, angle))
        return ways_of(part, angle, device)

    monkeypatch.setattr("medfcn.networks.turned.ways_of", counted)
    network = TurnedNetwork(lambda slices: slices, angles=(20.0, -20.0), part=(24, 48), head="sigmoid")
    wide, narrow = (_disc((20, 20), 8, size)[None, None] for size in ((48, 64), (48, 40)))
    answers = [network(slices) for slices in (wide, wide, narrow, wide)]
    assert asked == [((24, columns), angle) for columns in (48, 40, 48) for angle in (20.0, -20.0)]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[3])
