"""Images in the place of masks: one line for all of them, where each alone would be a failure of its own."""

from collections.abc import Mapping

from medfcn.errors import DatasetError, MedfcnError
from medfcn.labels.image_like import is_no_mask


def refuse_images(side: str, found: Mapping[str, MedfcnError | bool | None]) -> None:
    """Refuse masks that are all images.

    Args:
        side: What they were given as: `predictions`, `references` or `masks`.
        found: Of each case, the error with which its mask was read, or True if its voxels are those of an image.

    Raises:
        DatasetError: Every one is no mask.
    """
    wrong = [one is True or (isinstance(one, MedfcnError) and is_no_mask(one)) for one in found.values()]
    if not wrong or not all(wrong):
        return
    case, first = next(iter(found.items()))
    why = f"{case}: its voxels are those of an image"
    if isinstance(first, MedfcnError):
        why = str(first).partition(";")[0]
    remedy = "PREDICTIONS are the masks to be scored, REFERENCES those that a reader drew"
    if side == "masks":
        remedy = "MASKS are named first, then IMAGES"
    raise DatasetError(f"{side}: none is a mask ({why}); {remedy}", code="LABEL_VALUES", field=side)
