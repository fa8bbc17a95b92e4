"""The cases on which a training scores its network: read once, and sent through each network once.

An `Outputs` keeps the probabilities of one network, so that everything that is chosen from them (the view weights,
the threshold, the labels of which one component is kept) needs neither the network nor a file again.
"""

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medfcn.evaluation import evaluate
from medfcn.evaluation.overlap import count_labels
from medfcn.files import atomic_write, make_folder
from medfcn.inference.case import decided_part, native_rows
from medfcn.inference.confidence import DoubtMeter
from medfcn.inference.model import Model
from medfcn.inference.native import Decided, SlabCollector
from medfcn.inference.probabilities import mean_of_views
from medfcn.labels import IGNORED, LabelMap
from medfcn.labels.partial_labels import Drawn, drawn_labels, without_others
from medfcn.settings import View
from medfcn.slices.plan import Plan
from medfcn.slices.preprocess import grid_of, network_image
from medfcn.slices.store import require_whole
from medfcn.training.survey import ReadCase, Survey
from medfcn.volumes import Volume

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import CaseTransforms, Transformed

_KEPT_BYTES = 16 * 2**30
"""Disk space for the probabilities of one network; if more is needed, the network runs again."""
_FREE_SHARE = 0.5
"""Largest share of the free disk space that they may take."""


@dataclass(frozen=True)
class ScoredCase:
    """A case with everything that is needed to score a network on it; large arrays are memory-mapped.

    Attributes:
        id: The case.
        image: `(C, R, A, S)` input of the network.
        mask: The reference, with the values of its file.
        blank: An empty volume on the image's grid, which the mask is predicted on.
        moved: Where the user's own transforms lead from the file to these grids; None without any.
        on_file: The reference on the grid of its file; None if that is `mask`.
        labelled: Names of the labels that were drawn; empty where all were.
    """

    id: str
    image: NDArray[np.float32]
    mask: Volume
    blank: Volume
    moved: "Transformed | None" = None
    on_file: Volume | None = None
    labelled: tuple[str, ...] = ()

    @classmethod
    def of(cls, read: ReadCase, plan: Plan, folder: Path, transforms: "CaseTransforms | None" = None) -> "ScoredCase":
        """Bring a case to the network grid; its arrays are put into `folder`."""
        if transforms is not None:
            moved = transforms(read.images, read.mask)
            after = dataclasses.replace(read, images=moved.images, mask=moved.mask or read.mask)
            case = cls.of(after, plan, folder)
            file = _on_disk(read.mask.array, folder / f"{read.id}.file.npy")
            return dataclasses.replace(case, moved=moved.without_voxels(), on_file=read.mask.with_array(file))
        image = _on_disk(network_image(read.images, plan), folder / f"{read.id}.image.npy")
        mask = dataclasses.replace(read.mask, array=_on_disk(read.mask.array, folder / f"{read.id}.mask.npy"))
        empty = np.broadcast_to(np.uint8(0), read.images[0].shape)  # takes no memory
        return cls(read.id, image, mask, read.images[0].with_array(empty), labelled=read.labelled)

    def as_predicted(
        self, indices: NDArray[np.uint8], labels: LabelMap, transforms: "CaseTransforms | None"
    ) -> Volume:
        """A mask as a user would get it, on the grid of the file, from `(I, J, K)` indices."""
        if self.moved is None or transforms is None:
            return self.blank.with_array(labels.decode(indices))
        return self.moved.original.with_array(labels.decode(transforms.undo(indices, self.moved)))

    def reference(self, labels: LabelMap) -> NDArray[np.uint8]:
        """`(I, J, K)` indices of the labels, or overlaps; see `ReadCase.reference`."""
        return without_others(labels.encode(self.mask.array, name=self.id), self.drawn(labels))

    def drawn(self, labels: LabelMap) -> Drawn:
        """The labels that were drawn; empty where all were."""
        return drawn_labels(self.labelled, labels, case=self.id)


def _on_disk(array: NDArray[Any], path: Path) -> NDArray[Any]:
    _keep(array, path)
    mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _keep(array: NDArray[Any], path: Path) -> None:
    with atomic_write(path, durable=False) as file:
        np.save(file, array, allow_pickle=False)


class Outputs:
    """The probabilities that one network gives for some cases.

    Each is computed when it is first needed, and kept on disk where it fits.

    Args:
        model: The network; must not change as long as this is used.
        folder: Where to keep them; a folder of that name is replaced.
        cases: All cases that will be asked for.
    """

    def __init__(self, model: Model, folder: Path, cases: Sequence[ScoredCase]) -> None:
        self.model = model
        self.folder = folder
        values = sum(math.prod(case.image.shape[1:]) for case in cases)
        total = 4 * values * len(model.card.labels.entries) * len(model.card.plan.views)
        self._is_keeping = total <= min(_KEPT_BYTES, _FREE_SHARE * shutil.disk_usage(folder.parent).free)
        self.remove()
        make_folder(folder)

    def of(self, case: ScoredCase, view: View) -> NDArray[np.float32]:
        """`(L, R, A, S)` probabilities of a case along a view, on the network grid."""
        path = self.folder / f"{case.id}.{view}.npy"
        if path.is_file():
            try:
                kept: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
                return kept
            except (ValueError, EOFError):  # cut off
                path.unlink()
        likely = self.model.view_probabilities(case.image, view)
        if self._is_keeping:
            _keep(likely, path)
        return likely

    def remove(self) -> None:
        """Remove what is kept on disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


Visit = Callable[[slice, NDArray[np.float32]], None]
"""Called with a range of rows and their `(L, rows, A, S)` probabilities, on the native grid in R, A, S order."""


def decide_case(
    model: Model,
    outputs: Outputs,
    case: ScoredCase,
    *,
    meter: DoubtMeter | None = None,
    visit: Visit | None = None,
    certainty: bool = False,
) -> Decided:
    """The mask of a case with all components.

    Args:
        model: Its card has the view weights and the threshold; need not be that of `outputs`.
        outputs: Of the network.
        case: The case.
        meter: Gets every slab of the native grid.
        visit: Gets every slab too.
        certainty: Also return the certainty of each voxel; labels must not overlap.
    """
    require_whole(case.id, case.image, case.mask.array)
    slabs = SlabCollector(
        grid_of(case.blank, model.card.plan),
        len(model.card.labels.entries),
        model.rules.threshold,
        certainty=certainty,
    )
    likely = mean_of_views(model.card, lambda view: outputs.of(case, view))
    for place, parts in native_rows([model], [likely], case.blank):
        mean, indices, foreground = decided_part([model], parts, meter)
        slabs.add(place, mean, indices, foreground)
        if visit is not None:
            visit(place[0], mean)
    return slabs.collected()


@dataclass(frozen=True)
class CaseDices:
    """The Dice of a validation.

    Attributes:
        dice: Mean over cases and labels; labels that are empty in both masks are left out. None if no reference
            contains a label: an empty mask is then the best one, so a mean would say nothing.
        of_labels: Mean over the cases, of each label in their order; nan for one that is empty in all of them.
    """

    dice: float | None
    of_labels: tuple[float, ...] = ()


def dices_of_cases(outputs: Outputs, cases: Sequence[ScoredCase], *, before_each: Callable[[], None]) -> CaseDices:
    """Score a network on whole cases.

    Args:
        outputs: Of the network.
        cases: The cases to score.
        before_each: Called before each case; an error that it raises ends the validation.
    """
    dices: list[list[float]] = []
    model, labels, is_scored = outputs.model, outputs.model.card.labels, False
    for case in cases:
        before_each()
        require_whole(case.id, case.mask.array)
        reference = case.reference(labels)
        is_scored = is_scored or bool(((reference > 0) & (reference != IGNORED)).any())
        dices.append(dices_of(reference, decide_case(model, outputs, case).indices, labels, case.drawn(labels)))
    of_labels = ([dice for dice in of_label if not math.isnan(dice)] for of_label in zip(*dices, strict=True))
    return CaseDices(
        mean_of(dice for of_case in dices for dice in of_case) if is_scored else None,
        tuple(float(np.mean(held)) if held else math.nan for held in of_labels),
    )


def dices_of(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], labels: LabelMap, drawn: Drawn = ()
) -> list[float]:
    """The Dice of each label of two masks.

    Args:
        reference: `(I, J, K)` indices of labels or overlaps; ignored voxels are not counted.
        prediction: The same of the network, on the same grid.
        labels: The labels.
        drawn: Indices of the labels that were drawn; empty for all.

    Returns:
        0 to 1 for each label; nan where both masks are empty, and of a label that was not drawn.
    """
    counts = count_labels(reference, prediction, labels=len(labels.entries), members=labels.members)
    is_known = [not drawn or place in drawn for place in range(1, len(counts) + 1)]
    return [of_label.dice if known else math.nan for of_label, known in zip(counts, is_known, strict=True)]


def mean_of(scores: Iterable[float]) -> float:
    """The mean of the scores that are numbers; 0 if none is."""
    held = [score for score in scores if not math.isnan(score)]
    return float(np.mean(held)) if held else 0.0


def case_seconds(found: Survey, cases: Sequence[ScoredCase]) -> float:
    """Seconds to read the largest of some cases and to score a mask of it, for which its reference stands in."""
    largest = max(cases, key=lambda case: case.mask.array.size)
    began = time.monotonic()
    reference = largest.on_file or largest.mask
    found.without_volumes().read(largest.id)  # from the disk, as the report will
    evaluate({largest.id: reference}, {largest.id: reference}, labels=found.labels)
    return time.monotonic() - began
