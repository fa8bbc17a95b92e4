"""Does uncertainty rank wrong voxels above right ones near a border? Areas under the curve, over held-out cases.

    python benchmarks/uncertain_voxels.py RUN IMAGES LABELS HELD_OUT [--mirrors] [--views axial]

HELD_OUT is a file of ids, one a line, of which RUN (or several runs with commas between, an ensemble) makes masks and
uncertainty; each label is compared with its reference. *Near* is at most 3 mm from the reference's border, from the
mask's, or from either: from the middle of a voxel to that of one on the other side. Areas are the mean of the cases'
own, and that of all voxels together. Smoothed are the entropy, and the mean probabilities before it, in 3D.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata

import medfcn
from medfcn.datasets.tables import read_ids
from medfcn.inference.uncertainty import entropy_bits

Floats = NDArray[np.float32]
NEAR_MM = 3.0
SMOOTHED_MM = (2.0, 4.0, 8.0)


def area(score: Floats, is_wrong: NDArray[np.bool_]) -> float:
    """The share of pairs of a wrong and a right voxel in which the wrong one has more; even ones count half."""
    wrong, right = int(is_wrong.sum()), int((~is_wrong).sum())
    if not wrong or not right:
        return float("nan")
    ranks = float(rankdata(score)[is_wrong].sum())
    return (ranks - wrong * (wrong + 1) / 2) / (wrong * right)


def near_border(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.bool_]:
    """Voxels at most `NEAR_MM` from one on the other side of a mask's border."""
    if not mask.any() or mask.all():
        return np.zeros(mask.shape, dtype=bool)
    found = [ndimage.distance_transform_edt(side, sampling=spacing) for side in (mask, ~mask)]
    inside: NDArray[np.bool_] = np.maximum(*found) <= NEAR_MM
    return inside


def scores_of(likely: Floats, entropy: Floats, apart: Floats, spacing: tuple[float, ...]) -> dict[str, Floats]:
    """What may rank the voxels, by name; from mean probabilities, entropy and disagreement of a label."""
    scores = {"entropy": entropy, "disagreement": apart}
    for mm in SMOOTHED_MM:
        widths = [mm / edge for edge in spacing]
        scores[f"entropy smoothed by {mm:g} mm"] = ndimage.gaussian_filter(entropy, widths)
        smooth = np.clip(ndimage.gaussian_filter(likely, widths), 0, 1)
        scores[f"entropy of probabilities smoothed by {mm:g} mm"] = entropy_bits(smooth)
    return scores


class Voxels:
    """The voxels near a border, of all cases: what ranks them, and which are wrong."""

    def __init__(self) -> None:
        self.scores: dict[str, list[Floats]] = {}
        self.wrong: list[NDArray[np.bool_]] = []

    def add(self, scores: dict[str, Floats], is_wrong: NDArray[np.bool_], inside: NDArray[np.bool_]) -> None:
        self.wrong.append(is_wrong[inside])
        for name, score in scores.items():
            self.scores.setdefault(name, []).append(score[inside])

    def lines(self) -> Iterator[str]:
        for name, parts in self.scores.items():
            own = [area(part, wrong) for part, wrong in zip(parts, self.wrong, strict=True)]
            pooled = area(np.concatenate(parts), np.concatenate(self.wrong))
            yield f"{name}: mean of cases {np.nanmean(own):.3f}, all voxels {pooled:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    for name in ("images", "labels", "held_out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--mirrors", action="store_true")
    parser.add_argument("--views", nargs="+")
    given = parser.parse_args()
    model = medfcn.load(given.run.split(","), device="cpu", views=given.views)
    bands: dict[tuple[str, str], Voxels] = defaultdict(Voxels)
    for case in read_ids(given.held_out):
        reference = medfcn.read_volume(given.labels / f"{case}.nii.gz")
        image = given.images / f"{case}.nii.gz"
        found = model.predict_case(image, tta=given.mirrors, keep_probabilities=True, uncertainty=True)
        maps, spacing = found.uncertainty, reference.spacing_mm
        for entry, *values in zip(
            model.card.labels.entries, found.probabilities, maps.entropy, maps.disagreement, strict=True
        ):
            drawn, mask = np.isin(reference.array, entry.values), found.mask.array == entry.written
            scores = scores_of(*values, spacing)
            near = {"the reference's": near_border(drawn, spacing), "the mask's": near_border(mask, spacing)}
            near["either"] = near["the reference's"] | near["the mask's"]
            dice = 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum())
            print(f"{case}, {entry.name}: Dice {dice:.3f}", end="")
            for border, inside in near.items():
                voxels = bands[entry.name, border]
                voxels.add(scores, drawn != mask, inside)
                own = area(voxels.scores["entropy"][-1], voxels.wrong[-1])
                print(f"; {border} border: {voxels.wrong[-1].mean():.2f} wrong, area {own:.3f}", end="")
            print(flush=True)
    for (label, border), voxels in bands.items():
        for line in voxels.lines():
            print(f"{label}, {border} border, {line}")


if __name__ == "__main__":
    main()
