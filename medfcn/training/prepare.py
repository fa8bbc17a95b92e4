"""A surveyed data set becomes a plan, slices on disk, and validation cases that are ready to be scored."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from medfcn.config import override
from medfcn.decoding import read_json
from medfcn.errors import DatasetError, SettingsError, TrainingError
from medfcn.evaluation.overlap import count_labels
from medfcn.files import write_json
from medfcn.labels import IGNORED, LabelMap
from medfcn.library_memory import loading_monai
from medfcn.memory import is_room, require_memory
from medfcn.networks.design import MonaiDesign, head_of, planned_design
from medfcn.networks.fcn import coarsest_stride, joinable_channels, require_joinable
from medfcn.networks.monai_nets import require_window
from medfcn.networks.own_statistics import require_statistics
from medfcn.networks.targets import refuse_unions
from medfcn.progress import Progress, warn
from medfcn.settings import AugmentSettings, Settings, View
from medfcn.slices.augment import CHANGES
from medfcn.slices.case_slices import CaseSlices, PlainSlicer, to_network
from medfcn.slices.grid import GridMap, to_native_grid
from medfcn.slices.overlaps import overlaps_to_native
from medfcn.slices.plan import Plan
from medfcn.slices.planning import make_plan
from medfcn.slices.preprocess import grid_of
from medfcn.slices.store import StoredCase, open_case, store_key, write_case
from medfcn.text import counted
from medfcn.training.folds import Split, split_cases
from medfcn.training.survey import Survey, prepared_bytes
from medfcn.training.validation import ScoredCase
from medfcn.volumes import Volume

_CEILINGS_FILE = "ceilings.json"
_Dice = Annotated[float, msgspec.Meta(ge=0, le=1)]
_MONAI_FILE = "monai.json"
_MONAI_ROOM_BYTES = 600 << 20
"""For MONAI, and for the training beside it."""
_Slicer = Callable[[Sequence[Volume], NDArray[np.uint8]], CaseSlices]


@dataclass(frozen=True)
class Prepared:
    """Everything a training needs.

    Attributes:
        survey: The cases and their figures.
        split: The use of each case.
        plan: How volumes become slices.
        state: A folder for files that are needed until the training is finished.
        stored: The slices of the training cases, each case once for every view.
        ceilings: Best Dice that the network grid allows, by training case; see `ceiling`.
        validation: The validation cases; none in processes that do not validate.
        monai: The version of MONAI that prepared the slices; empty if none did.
    """

    survey: Survey
    split: Split
    plan: Plan
    state: Path
    stored: tuple[StoredCase, ...]
    ceilings: Mapping[str, float] = field(default_factory=dict)
    validation: tuple[ScoredCase, ...] = ()
    monai: str = ""


def require_possible(settings: Settings, labels: LabelMap, *, unions: int = 0) -> None:
    """Refuse settings with which overlapping labels, or cases that are drawn in part, cannot be trained.

    Args:
        settings: Those of the training.
        labels: To segment.
        unions: Different sets of drawn labels; 0 where all labels are drawn in every case.

    Raises:
        SettingsError: The head is softmax, only the largest component of each label is to be kept, or the loss has no
            form for a union of labels.
    """
    if unions:
        refuse_unions(settings.training.loss, overlapping=labels.overlapping)
        if len(labels.entries) + unions >= IGNORED:
            raise SettingsError(
                f"{counted(unions, 'different set')} of drawn labels beside {counted(len(labels.entries), 'label')}; "
                f"at most {IGNORED - 1} fit together: train fewer labels at once",
                field="labelled",
            )
    head_of(settings.network, len(labels.entries), overlapping=labels.overlapping)
    if labels.overlapping and settings.prediction.largest_part == "always":
        raise SettingsError(
            "setting prediction.largest_part: 'always' removes components from one label at a time, and these labels "
            "overlap; take never or auto",
            field="prediction.largest_part",
        )


def plan_training(found: Survey, settings: Settings, *, seed: int, like: Plan | None = None) -> tuple[Split, Plan]:
    """Split the cases, and plan from the training cases; `like` is the plan of a run to start from.

    Raises:
        SettingsError: The settings do not fit the labels.
    """
    split = split_cases(found, validation_share=settings.training.validation_share, seed=seed)
    return split, plan_split(found, split, settings, like=like)


def plan_split(found: Survey, split: Split, settings: Settings, *, like: Plan | None = None) -> Plan:
    """Plan from the training cases of a split.

    Raises:
        SettingsError: The settings do not fit the labels, or each other.
    """
    require_possible(settings, found.labels, unions=len(found.unions))
    training = [found.fingerprints[case_id] for case_id in split.training]
    channels = () if found.dataset.layout == "table" else found.dataset.channel_names
    network = settings.network
    plan = make_plan(
        *(training, settings),
        stride=coarsest_stride(network),
        joinable=joinable_channels(network),
        like=like,
        channels=channels,
    )
    design = planned_design(settings.network, plan, found.labels)
    if isinstance(design, MonaiDesign):
        require_window(design, plan.window)
    elif network.restoring == "joined":
        require_joinable(design)
    if not isinstance(settings.slices.own_statistics, str):
        require_statistics(design, settings.slices.own_statistics)
    return plan


def as_planned(settings: Settings, plan: Plan) -> Settings:
    """`settings` with the plan's choices for the network and the slices, as they are trained with."""
    settings = as_moved(settings, plan)
    if settings.network.encoder != "strided":
        return settings
    return override(settings, "network", stem_stride=plan.stem_stride)


def as_moved(settings: Settings, plan: Plan) -> Settings:
    """`settings` with the plan's choice of how much slices are changed, where they leave it open."""
    chosen, usual, augment = CHANGES[plan.movement], AugmentSettings(), settings.augment
    open_ = {name: value for name, value in chosen.items() if getattr(augment, name) == getattr(usual, name)}
    return override(settings, "augment", **open_) if open_ else settings


def prepare(
    found: Survey, split: Split, plan: Plan, folder: Path, progress: Progress, *, state: Path | None = None
) -> Prepared:
    """Bring every case to the network grid: slices to train on, volumes to validate on.

    Args:
        found: The cases.
        split: The use of each.
        plan: How volumes become slices.
        folder: Where slices are kept; those that are already there are used.
        progress: Where progress is reported.
        state: Where everything else is kept; `folder` unless given.

    Raises:
        DatasetError: A case changed since it was surveyed, or cannot be prepared.
    """
    state = state or folder
    stored: list[StoredCase] = []
    ceilings: dict[str, float] = {}
    known = _known_ceilings(folder / _CEILINGS_FILE)
    monai, slicer = _monai_of(found, split, plan, folder, progress), None
    with progress.task("prepare", len(split.training) + len(split.validation)) as task:
        for case_id, keys in _keys(found, split, plan, monai).items():
            first = next(iter(keys.values()))
            along = _open_sound(folder, case_id, keys, progress) if first in known else None
            if along is None:
                if slicer is None:
                    monai, slicer = _slicer(found, plan, folder, monai)
                known[first] = _store(found, case_id, plan, slicer, folder, keys)
                along = _open(folder, case_id, keys)
            if along is None:
                raise DatasetError(
                    f"{case_id}: its prepared slices vanished from the run folder; start again", code="SLICES_LOST"
                )
            ceilings[case_id] = known[first]
            stored += along
            task.advance(case_id)
        write_json(folder / _CEILINGS_FILE, known)
        validation = []
        for case_id in split.validation:
            validation.append(ScoredCase.of(found.read(case_id), plan, state, found.transforms))
            task.advance(case_id)
    return Prepared(found, split, plan, state, tuple(stored), ceilings, tuple(validation), monai)


def reopen(found: Survey, split: Split, plan: Plan, folder: Path) -> Prepared:
    """The slices that another process has prepared in `folder`.

    Raises:
        DatasetError: A case is not there.
    """
    stored = []
    for case_id, keys in _keys(found, split, plan, _recorded_monai(folder)).items():
        along = _open(folder, case_id, keys)
        if along is None:
            raise DatasetError(
                f"{case_id}: its prepared slices are not visible in {folder} from here; put the run folder on a file "
                "system that all machines share",
                code="SLICES_LOST",
            )
        stored += along
    return Prepared(found, split, plan, folder, tuple(stored))


def _monai_of(found: Survey, split: Split, plan: Plan, folder: Path, progress: Progress) -> str:
    """The version of MONAI whose slices are used: the recorded one, or the installed one if slices are missing.

    It matters only for the user's own transforms, which another version could compute in another way.
    """
    recorded, installed = _recorded_monai(folder), version("monai")
    if found.transforms is None or recorded == installed:
        return recorded
    keys = _keys(found, split, plan, recorded)
    if recorded and all(_open_sound(folder, case_id, keys[case_id], progress) for case_id in split.training):
        warn(progress, f"the slices were prepared with MONAI {recorded}; {installed} is installed and continues")
        return recorded
    return installed


def _recorded_monai(folder: Path) -> str:
    """The version of MONAI that prepared the slices in a folder; empty if none is recorded."""
    try:
        return read_json(folder / _MONAI_FILE, str, error=TrainingError, remedy="it is made again")
    except (OSError, TrainingError):
        return ""


def _keys(found: Survey, split: Split, plan: Plan, monai: str) -> dict[str, dict[View, str]]:
    """The store's key of each training case's slices along each view."""
    planned = plan.to_json()
    what = {name: planned[name] for name in ("spacing_mm", "intensities")} | {"labels": found.labels.to_json()}
    if found.transforms is not None:
        what |= {"transforms": found.transforms.sha256, "monai": monai}
    # As before where every label is drawn, so that the slices of a stopped training are found again.
    drawn = {case_id: {"drawn": list(of_case)} for case_id, of_case in found.drawn.items()}
    return {
        case_id: {
            view: store_key(found.hashes[case_id], what | {"view": view} | drawn.get(case_id, {}))
            for view in plan.views
        }
        for case_id in split.training
    }


def _open(folder: Path, case_id: str, keys: Mapping[View, str]) -> list[StoredCase] | None:
    """A case's slices along each view; None if one is missing."""
    along = [open_case(folder, key, case_id, view) for view, key in keys.items()]
    kept = [case for case in along if case is not None]
    return kept if len(kept) == len(keys) else None


def _open_sound(folder: Path, case_id: str, keys: Mapping[View, str], progress: Progress) -> list[StoredCase] | None:
    """As `_open`; None, and a line, if one is damaged."""
    try:
        return _open(folder, case_id, keys)
    except DatasetError as error:
        warn(progress, f"{str(error).rpartition('; ')[0]}; they are prepared anew")
        return None


def _known_ceilings(path: Path) -> dict[str, float]:
    """The ceilings of slices that a stopped training prepared, by the key of their first view."""
    try:
        return read_json(path, dict[str, _Dice], error=TrainingError, remedy="it is made again")
    except (OSError, TrainingError):
        return {}


def _slicer(found: Survey, plan: Plan, folder: Path, recorded: str) -> tuple[str, _Slicer]:
    """The function that prepares the slices, and the version of MONAI.

    That is a `Compose` of MONAI. Where memory is too short to load it, the functions of its transforms do by
    themselves; what they make is equal to the bit.
    """
    if not is_room(_MONAI_ROOM_BYTES) and found.transforms is None:
        return recorded, PlainSlicer(plan, found.labels.members)
    # Loaded here: `import medfcn`, planning and prediction do without MONAI.
    with loading_monai():
        from medfcn.monai.preparing import Slicer

    monai = version("monai")
    write_json(folder / _MONAI_FILE, monai)
    return monai, Slicer(plan, found.labels.members)


def _store(found: Survey, case_id: str, plan: Plan, slicer: _Slicer, folder: Path, keys: Mapping[View, str]) -> float:
    """Keep a training case's slices; its ceiling."""
    read, labels = found.read(case_id).moved_by(found.transforms), found.labels
    grid = grid_of(read.images[0], plan)
    voxels = max(math.prod(grid.native_shape), math.prod(grid.shape))
    require_memory(prepared_bytes(voxels, len(read.images), labels), f"{case_id}: its slices")
    reference = read.reference(labels)
    slices = slicer(read.images, reference)
    for view, key in keys.items():
        write_case(folder, key, *slices.along[view])
    return _ceiling(reference, slices.label, grid, labels)


def ceilings_of(found: Survey, split: Split, plan: Plan) -> dict[str, float]:
    """The ceiling of each training case."""
    ceilings = {}
    for case_id in split.training:
        read = found.read(case_id).moved_by(found.transforms)
        ceilings[case_id] = ceiling(read.reference(found.labels), grid_of(read.images[0], plan), found.labels)
    return ceilings


def ceiling(reference: NDArray[np.uint8], grid: GridMap, labels: LabelMap) -> float:
    """The best mean Dice that a network grid allows on a case: that of reference → network grid → back.

    Voxels that the reference ignores are left out, on either grid: a network may predict anything there.

    Args:
        reference: `(I, J, K)` indices of labels, or overlaps.
        grid: The map to the network grid.
        labels: The labels to segment.

    Returns:
        1 if nothing is resampled, or if the case contains no label.
    """
    if grid.spacing_mm == grid.spacing_native_mm:
        return 1.0
    return _ceiling(reference, to_network(reference, grid, labels.members), grid, labels)


def _ceiling(reference: NDArray[np.uint8], moved: NDArray[np.uint8], grid: GridMap, labels: LabelMap) -> float:
    """As `ceiling`, of a reference that is on the network grid already."""
    if grid.spacing_mm == grid.spacing_native_mm:
        return 1.0
    count = len(labels.entries)
    if labels.members is not None:
        returned = overlaps_to_native(moved, grid, labels.members)
    else:
        returned = _returned(moved, grid, count)
    counts = count_labels(reference, returned, labels=count, members=labels.members)
    dices = [of_label.dice for of_label in counts if not np.isnan(of_label.dice)]
    return float(np.mean(dices)) if dices else 1.0


def _returned(moved: NDArray[np.uint8], grid: GridMap, count: int) -> NDArray[np.uint8]:
    """`(I, J, K)` indices of a volume's own grid: for each voxel the label with the largest share of at least a half.

    Labels go one after the other, so that many take no more memory than one.
    """
    known = to_native_grid((moved != IGNORED).astype(np.float32), grid) if (moved == IGNORED).any() else None
    best = np.full(grid.native_shape, np.nextafter(np.float32(0.5), np.float32(0)))
    returned = np.zeros(grid.native_shape, dtype=np.uint8)
    for value in range(1, count + 1):
        share = to_native_grid((moved == value).astype(np.float32), grid)
        if known is not None:
            share /= np.maximum(known, np.finfo(np.float32).eps)
        np.copyto(returned, value, where=share > best)
        np.maximum(best, share, out=best)
    return returned


def ceiling_text(ceilings: Mapping[str, float]) -> str:
    """Mean and worst ceiling in words."""
    values = list(ceilings.values())
    return f"{np.mean(values):.4f} in the mean, {min(values):.4f} at worst" if values else "unknown"
