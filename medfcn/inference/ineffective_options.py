"""Options of a prediction that change nothing, each of which is said in a line."""

from collections.abc import Sequence

from medfcn.inference.card import Card
from medfcn.slices.appearance import AXES
from medfcn.slices.slicing import in_plane_axes
from medfcn.slices.views import parse_views
from medfcn.text import listed


def mirrors_of(cards: Sequence[Card], *, tta: bool | None) -> tuple[str, ...] | None:
    """The axes along which mirror images are averaged, as far as training mirrored them; None if not wanted.

    Args:
        cards: Those of the models that are averaged.
        tta: As requested; None follows the settings of each.
    """
    wanted = [card for card in cards if (card.settings.prediction.tta if tta is None else tta)]
    axes = set()
    for card in wanted:
        weights = card.view_weights or (1.0,) * len(card.plan.views)
        views = [view for view, weight in zip(card.plan.views, weights, strict=True) if weight > 0]
        axes |= {axis for view in views for axis in in_plane_axes(view) if axis in card.plan.mirror_axes}
    return tuple(AXES[axis] for axis in sorted(axes)) if wanted else None


def idle_tta(cards: Sequence[Card], *, tta: bool | None) -> tuple[str, ...]:
    """A line if mirror images are to be averaged, and there are none; the arguments are those of `mirrors_of`."""
    if mirrors_of(cards, tta=tta) != ():
        return ()
    return ("tta changes nothing: training showed no mirror images (augment.mirror), so none are averaged",)


def idle_views(cards: Sequence[Card], views: str | Sequence[str] | None) -> tuple[str, ...]:
    """A line if the requested views are all that the models have."""
    chosen = "all" if views is None else parse_views(views)
    if isinstance(chosen, str) or any(set(chosen) != set(card.plan.views) for card in cards):
        return ()
    return (f"views change nothing: {listed(chosen)} slices are all that was trained on",)


def requested_views(views: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The requested views by name; None if all are wanted."""
    chosen = "all" if views is None else parse_views(views)
    return None if isinstance(chosen, str) else tuple(chosen)
