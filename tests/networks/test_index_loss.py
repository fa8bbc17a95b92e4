"""The gradient that is written out is that of the plain formula: ignored, weighted, or cut into pieces."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medfcn.labels import IGNORED
from medfcn.networks import index_loss, losses
from medfcn.networks.losses import LossName, LossOptions, SegmentationLoss

NAMES: tuple[LossName, ...] = ("ce_dice", "ce", "dice")
assert set(NAMES) <= set(get_args(LossName))


def _nothing(targets: torch.Tensor, random: torch.Generator) -> None:
    pass


def _some(targets: torch.Tensor, random: torch.Generator) -> None:
    targets[torch.rand(targets.shape, generator=random) < 0.3] = IGNORED


def _a_slice(targets: torch.Tensor, random: torch.Generator) -> None:
    targets[1] = IGNORED


def _all_but_strokes(targets: torch.Tensor, random: torch.Generator) -> None:
    strokes = torch.rand(targets.shape, generator=random) < 0.1
    targets[~strokes] = IGNORED


def _everything(targets: torch.Tensor, random: torch.Generator) -> None:
    targets[:] = IGNORED


IGNORING: dict[str, Callable[[torch.Tensor, torch.Generator], None]] = {
    "nothing": _nothing,
    "some voxels": _some,
    "a slice": _a_slice,
    "all but strokes": _all_but_strokes,
    "everything": _everything,
}


def _batch(seed: int, labels: int, ignoring: str) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(3, labels + 1, 5, 7, generator=random, dtype=torch.float64)
    targets = torch.randint(0, labels + 1, (3, 5, 7), generator=random).to(torch.uint8)
    targets[2] = 0
    IGNORING[ignoring](targets, random)
    return logits, targets


def _both_ways(
    loss: SegmentationLoss, logits: list[torch.Tensor], targets: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
    """The loss and its gradients, by index and by torch's own derivative of the plain formula."""
    found = []
    for by_index in (True, False):
        leaves = [scores.clone().requires_grad_() for scores in logits]
        with monkeypatch.context() as patch:
            if not by_index:
                patch.setattr(SegmentationLoss, "_is_by_index", lambda self, logits: False)
            value = loss.deep(leaves, targets)
        assert ("_IndexLoss" in _names_behind(value)) == by_index
        value.backward()
        found.append((value.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]))
    return found


def _names_behind(value: torch.Tensor) -> str:
    names, waiting = "", [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            names += f"{type(node).__name__} "
            waiting += [before for before, _ in node.next_functions]
    return names


@pytest.mark.parametrize("ignoring", IGNORING)
@pytest.mark.parametrize("dice_over", ["batch", "slice"])
@pytest.mark.parametrize("weighted", [False, True], ids=["even", "weighted"])
@pytest.mark.parametrize("labels", [1, 3, 20])
def test_value_and_gradient_are_those_of_the_plain_formula(
    labels: int, weighted: bool, dice_over: Any, ignoring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_loss, "_PIECE", 100)  # several pieces, the last one shorter
    weights = tuple(0.5 + index % 3 for index in range(labels + 1)) if weighted else None
    for seed, name in enumerate(NAMES):
        logits, targets = _batch(seed, labels, ignoring)
        options = LossOptions(name, dice_over=dice_over, class_weights=weights, dice_weight=0.7)
        loss = SegmentationLoss(options, head="softmax").double()
        for layout in (torch.contiguous_format, torch.channels_last):
            here = [logits.contiguous(memory_format=layout)]
            (value, gradients), (expected, wanted) = _both_ways(loss, here, targets, monkeypatch)
            assert torch.allclose(value, expected, rtol=1e-9, atol=1e-12)
            for gradient, other in zip(gradients, wanted, strict=True):
                assert torch.allclose(gradient, other, rtol=1e-9, atol=1e-12)


def test_so_it_is_at_every_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    first, targets = _batch(0, 4, "some voxels")
    deep = [first, _batch(1, 4, "nothing")[0], _batch(2, 4, "nothing")[0]]
    loss = SegmentationLoss(LossOptions(), head="softmax")
    (value, gradients), (expected, wanted) = _both_ways(loss, deep, targets, monkeypatch)
    assert torch.allclose(value, expected, rtol=1e-9)
    assert len(gradients) == len(wanted) == 3
    for gradient, other in zip(gradients, wanted, strict=True):
        assert torch.allclose(gradient, other, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 9999), st.floats(30, 1000))
@settings(max_examples=20, deadline=None)
def test_a_class_that_is_all_but_ruled_out_costs_its_distance(seed: int, size: float) -> None:
    """Float32 has no probability of exp(-1000), and the loss and its gradient are finite all the same."""
    logits, targets = _batch(seed, 3, "nothing")
    leaf = (logits.float() * size).requires_grad_()
    value = SegmentationLoss(LossOptions("ce"), head="softmax")(leaf, targets)
    value.backward()
    expected = torch.nn.functional.cross_entropy(leaf.detach().double(), targets.long())
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


def test_only_a_map_as_large_as_the_scores_is_kept() -> None:
    """Of the masks of each class, the plain formula keeps several."""
    logits = torch.randn(2, 21, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    targets = torch.randint(0, 21, (2, 16, 16))
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        SegmentationLoss(LossOptions(), head="softmax")(logits, targets)
    assert sum(kept) == logits.numel()


def test_other_losses_and_heads_take_the_plain_formula() -> None:
    logits, targets = _batch(0, 3, "nothing")
    for options, head in (
        (LossOptions("focal"), "softmax"),
        (LossOptions("ce", label_smoothing=0.1), "softmax"),
        (LossOptions(), "sigmoid"),
    ):
        scores = logits[:, 1:] if head == "sigmoid" else logits
        value = losses.SegmentationLoss(options, head=head)(scores.clone().requires_grad_(), targets)  # type: ignore[arg-type]
        assert "_IndexLoss" not in _names_behind(value)
