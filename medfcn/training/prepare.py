"""A data set → everything a training needs: checked cases, a split, a plan, and slices on disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medfcn.config import override
from medfcn.datasets import Case, Dataset, check_cases
from medfcn.datasets.check_report import CheckReport
from medfcn.errors import DatasetError, MedfcnError, SettingsError
from medfcn.evaluation.overlap import count_labels
from medfcn.files import write_json
from medfcn.labels import IGNORED, LabelMap, read_mask
from medfcn.networks.design import MonaiDesign, head_of, planned_design
from medfcn.networks.fcn import coarsest_stride
from medfcn.networks.monai_nets import require_window
from medfcn.progress import Progress
from medfcn.settings import Settings, View
from medfcn.slices.fingerprint import CaseFingerprint, fingerprint_case
from medfcn.slices.grid import to_native_grid, to_network_grid
from medfcn.slices.overlaps import overlaps_to_native, overlaps_to_network
from medfcn.slices.plan import Plan
from medfcn.slices.planning import make_plan
from medfcn.slices.preprocess import grid_of, network_image
from medfcn.slices.slicing import slice_volume
from medfcn.slices.store import SliceStore, StoredCase, open_case, store_key, write_case
from medfcn.training.folds import Split, split_by_group
from medfcn.volumes import ReadOptions, Volume, read_volume, require_same_grid

_CEILINGS_FILE = "ceilings.json"
_SHOWN = 5
"""Problems spelled out in one error message."""


@dataclass(frozen=True)
class ReadCase:
    """One case, read and found good.

    Attributes:
        images: One volume per channel.
        labels: `(I, J, K)` uint8: 0 for background, k for the k-th label (or part, where labels overlap), `IGNORED`
            where nobody labelled.
        hashes: SHA-256 of the image files in order, then of the label file.
    """

    images: tuple[Volume, ...]
    labels: NDArray[np.uint8]
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """What reading every case once has shown.

    Attributes:
        dataset: Where the cases lie.
        labels: What is to be segmented.
        options: How volumes are read.
        cases: The good ones.
        fingerprints: By case id.
        hashes: By case id.
        problems: Case id and one line for each that cannot be used.
    """

    dataset: Dataset
    labels: LabelMap
    options: ReadOptions
    cases: tuple[Case, ...]
    fingerprints: Mapping[str, CaseFingerprint]
    hashes: Mapping[str, tuple[str, ...]]
    problems: tuple[tuple[str, str], ...]


def read_case(case: Case, labels: LabelMap, options: ReadOptions) -> ReadCase:
    """Read a case's channels and label, and make sure that they belong together.

    Args:
        case: Where its files are.
        labels: What is to be segmented.
        options: What has been opted in to.

    Raises:
        MedfcnError: A file cannot be trusted, or grids differ.
    """
    if case.label is None:
        raise DatasetError(f"{case.id}: no label; add it, or leave the case out")
    images = tuple(read_volume(path, options=options) for path in case.images)
    for image in images[1:]:
        require_same_grid(images[0], image)
    mask = read_mask(case.label, labels=labels, options=options)
    require_same_grid(images[0], mask)
    encoded = labels.encode(mask.array, name=case.id)
    return ReadCase(images=images, labels=encoded, hashes=(*(image.sha256 for image in images), mask.sha256))


def leave_out(dataset: Dataset, ids: Sequence[str]) -> Dataset:
    """`dataset` without some cases, such as those held out for a test.

    Raises:
        DatasetError: One of the ids is not in it, which would otherwise let a misspelt test case be trained on.
    """
    known = {case.id for case in dataset.all_cases}
    unknown = sorted(set(ids) - known)
    if unknown:
        raise DatasetError(
            f"{len(unknown)} of the cases to leave out are not in the data set, first {unknown[0]}; correct the ids"
        )
    return dataset.keep(known - set(ids))


def survey(
    dataset: Dataset, labels: LabelMap | None, options: ReadOptions, *, skip_bad: bool, progress: Progress
) -> Survey:
    """Read every case once, before anything is written.

    Args:
        dataset: The cases.
        labels: What to segment; None takes the names of the data set, else the values found.
        options: How volumes are read.
        skip_bad: Leave out cases that cannot be used, instead of stopping.
        progress: Where each problem is told.

    Raises:
        DatasetError: A case cannot be used and `skip_bad` is false, or none can.
    """
    chosen = (labels or _labels_of(dataset, options)).ignoring(dataset.ignored)
    if chosen.overlapping:
        progress.say(chosen.overlap_text)
    fingerprints: dict[str, CaseFingerprint] = {}
    hashes: dict[str, tuple[str, ...]] = {}

    def note(case: Case, images: tuple[Volume, ...], mask: Volume | None) -> None:
        if mask is not None:
            encoded = chosen.encode(mask.array, name=case.id)
            fingerprints[case.id] = fingerprint_case(
                case.id, images, encoded, len(chosen.names), members=chosen.members
            )
            hashes[case.id] = (*(image.sha256 for image in images), mask.sha256)

    report = check_cases(dataset, labels=chosen, options=options, progress=progress, visit=note)
    unlabelled = [case.id for case in dataset.cases if case.label is None]
    problems = _judge(report, unlabelled, skip_bad=skip_bad, progress=progress)
    bad = {case_id for case_id, _ in problems}
    good = tuple(case for case in dataset.cases if case.id in fingerprints and case.id not in bad)
    return Survey(dataset, chosen, options, good, fingerprints, hashes, problems)


def _judge(
    report: CheckReport, unlabelled: Sequence[str], *, skip_bad: bool, progress: Progress
) -> tuple[tuple[str, str], ...]:
    """Case id and one line for each case that cannot be used, where that may be passed over.

    Raises:
        DatasetError: It may not, or the whole data set cannot be used.
    """
    for problem in report.errors:
        if not problem.case:
            raise DatasetError(f"{problem.found}; {problem.remedy}")
    for problem in report.warnings[:_SHOWN]:
        progress.say(problem.line)
    if len(report.warnings) > _SHOWN:
        progress.say(f"and {len(report.warnings) - _SHOWN} more warnings: see `medfcn check`")
    count = len(report.cases)
    lines = {case_id: f"{case_id}: no label; add it, or leave the case out" for case_id in unlabelled}
    for problem in report.errors:
        where = f" {problem.file}:" if problem.file else ""
        lines.setdefault(problem.case, f"{problem.case}:{where} {problem.found}; {problem.remedy}")
    if lines and skip_bad and len(lines) < count:
        for line in lines.values():
            progress.say(f"left out: {line}")
    elif lines:
        shown = "; ".join(list(lines.values())[:_SHOWN])
        more = f"; and {len(lines) - _SHOWN} more, see `medfcn check`" if len(lines) > _SHOWN else ""
        advice = "mend them, or leave them out (--skip-bad, skip_bad=True)" if len(lines) < count else "mend them"
        raise DatasetError(f"{len(lines)} of {count} cases cannot be used: {shown}{more}; {advice}")
    return tuple(lines.items())


def _labels_of(dataset: Dataset, options: ReadOptions) -> LabelMap:
    """The labels a data set names, else the values in its masks."""
    named = dataset.labels
    if named is not None:
        return named
    found: set[int] = set()
    for case in dataset.cases:
        if case.label is not None:
            try:
                found |= {int(value) for value in np.unique(read_mask(case.label, options=options).array)}
            except MedfcnError:
                continue  # told with its case, when the case is read
    values = sorted(found.difference({0}, dataset.ignored))
    if not values:
        raise DatasetError("no label holds any value but 0; check the label files")
    return LabelMap.from_names({value: f"label_{value}" for value in values})


@dataclass(frozen=True)
class Prepared:
    """Everything a training needs.

    Attributes:
        survey: The cases and what they are like.
        split: Which are trained on.
        plan: How volumes become slices.
        store: The training cases' slices.
        ceilings: Best Dice that the network grid allows, by training case; see `ceiling`.
    """

    survey: Survey
    split: Split
    plan: Plan
    store: SliceStore
    ceilings: Mapping[str, float]

    def cases(self, ids: Sequence[str]) -> tuple[Case, ...]:
        """The cases of some ids, in that order."""
        by_id = {case.id: case for case in self.survey.cases}
        return tuple(by_id[case_id] for case_id in ids)


def require_possible(settings: Settings, labels: LabelMap) -> None:
    """Refuse settings that labels which overlap cannot be trained with.

    Raises:
        SettingsError: The head is softmax, or only the largest part of each label is to be kept.
    """
    head_of(settings.network, len(labels.entries), overlapping=labels.overlapping)
    if labels.overlapping and settings.prediction.largest_part == "always":
        raise SettingsError(
            "setting prediction.largest_part: 'always' takes parts away from one label at a time, and these labels "
            "overlap; take never or auto"
        )


def plan_training(found: Survey, settings: Settings, *, seed: int, like: Plan | None = None) -> tuple[Split, Plan]:
    """Split the cases and plan from those that are trained on; `like` is the plan of a run to start from.

    Raises:
        SettingsError: The settings are not for such labels.
    """
    split = split_by_group(found.cases, validation_share=settings.training.validation_share, seed=seed)
    return split, plan_split(found, split, settings, like=like)


def plan_split(found: Survey, split: Split, settings: Settings, *, like: Plan | None = None) -> Plan:
    """Plan from the cases of a split that are trained on.

    Raises:
        SettingsError: The settings are not for such labels.
    """
    require_possible(settings, found.labels)
    training = [found.fingerprints[case_id] for case_id in split.training]
    plan = make_plan(training, settings, stride=coarsest_stride(settings.network), like=like)
    design = planned_design(settings.network, plan, found.labels)
    if isinstance(design, MonaiDesign):
        require_window(design, plan.window)
    return plan


def as_planned(settings: Settings, plan: Plan) -> Settings:
    """`settings` with what the plan chose for the network, so that the network can be built again from them."""
    if settings.network.encoder != "strided":
        return settings
    return override(settings, "network", stem_stride=plan.stem_stride)


def prepare(found: Survey, split: Split, plan: Plan, folder: Path, progress: Progress) -> Prepared:
    """Bring the training cases' slices to the network grid and keep them in `folder`."""
    by_id = {case.id: case for case in found.cases}
    members = found.labels.members
    stored: list[StoredCase] = []
    ceilings: dict[str, float] = {}
    known = _known_ceilings(folder / _CEILINGS_FILE)
    with progress.task("prepare", len(split.training)) as task:
        for case_id, keys in _keys(found, split, plan).items():
            along = [open_case(folder, key, case_id, view) for view, key in keys.items()]
            first = next(iter(keys.values()))
            if None in along or first not in known:
                read = read_case(by_id[case_id], found.labels, found.options)
                image, label = _on_network_grid(read, plan, members)
                for view, key in keys.items():
                    write_case(folder, key, slice_volume(image, view), slice_volume(label, view)[:, 0])
                known[first] = ceiling(read, plan, len(found.labels.entries), members=members)
                along = [open_case(folder, key, case_id, view) for view, key in keys.items()]
            ceilings[case_id] = known[first]
            kept = [case for case in along if case is not None]
            if len(kept) < len(keys):
                raise DatasetError(f"{case_id}: its prepared slices vanished from the run folder; start again")
            stored += kept
            task.advance(case_id)
    write_json(folder / _CEILINGS_FILE, known)
    return Prepared(found, split, plan, SliceStore(tuple(stored)), ceilings)


def reopen(found: Survey, split: Split, plan: Plan, folder: Path) -> Prepared:
    """What another process has prepared in `folder`, without the ceilings.

    Raises:
        DatasetError: A case is not there.
    """
    stored = []
    for case_id, keys in _keys(found, split, plan).items():
        for view, key in keys.items():
            case = open_case(folder, key, case_id, view)
            if case is None:
                raise DatasetError(
                    f"{case_id}: its prepared slices are not seen in {folder} from here; put the run folder on a "
                    "file system that all machines share"
                )
            stored.append(case)
    return Prepared(found, split, plan, SliceStore(tuple(stored)), {})


def _keys(found: Survey, split: Split, plan: Plan) -> dict[str, dict[View, str]]:
    """The store's key of each training case's slices along each view."""
    made = plan.to_json()
    what = {name: made[name] for name in ("spacing_mm", "intensities")} | {"labels": found.labels.to_json()}
    return {
        case_id: {view: store_key(found.hashes[case_id], what | {"view": view}) for view in plan.views}
        for case_id in split.training
    }


def _known_ceilings(path: Path) -> dict[str, float]:
    """The ceilings of slices that a stopped training prepared, by the key of their first view."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): float(number) for key, number in value.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _on_network_grid(
    case: ReadCase, plan: Plan, members: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A case's channels and its labels, both `(C, R, A, S)`."""
    grid = grid_of(case.images[0], plan)
    if members is None:
        label = to_network_grid(case.labels[None], grid)
    else:
        label = overlaps_to_network(case.labels, grid, members)[None]
    return network_image(case.images, plan), label


def ceiling(case: ReadCase, plan: Plan, label_count: int, *, members: NDArray[np.bool_] | None = None) -> float:
    """The best mean Dice that a plan's network grid allows on a case: that of reference → network grid → back.

    What the reference ignores is left out, on either grid: a network may find anything there.

    Args:
        case: With its reference.
        plan: How volumes become slices.
        label_count: Foreground labels.
        members: For labels that overlap, which of them hold in each part.

    Returns:
        1 where nothing is resampled, or where the case holds no label.
    """
    grid = grid_of(case.images[0], plan)
    if grid.spacing_mm == grid.spacing_native_mm:
        return 1.0
    if members is not None:
        back = overlaps_to_native(overlaps_to_network(case.labels, grid, members), grid, members)
        return _mean_dice(case.labels, back, label_count, members)
    moved = to_network_grid(case.labels, grid)
    shares = np.stack(
        [to_native_grid((moved == value).astype(np.float32), grid) for value in range(1, label_count + 1)]
    )
    if (moved == IGNORED).any():
        known = to_native_grid((moved != IGNORED).astype(np.float32), grid)
        shares /= np.maximum(known, np.finfo(np.float32).eps)
    returned = np.where(shares.max(axis=0) >= 0.5, shares.argmax(axis=0) + 1, 0).astype(np.uint8)
    return _mean_dice(case.labels, returned, label_count, None)


def _mean_dice(
    reference: NDArray[np.uint8], returned: NDArray[np.uint8], label_count: int, members: NDArray[np.bool_] | None
) -> float:
    dices = [counts.dice for counts in count_labels(reference, returned, labels=label_count, members=members)]
    held = [dice for dice in dices if not np.isnan(dice)]
    return float(np.mean(held)) if held else 1.0


def ceiling_text(ceilings: Mapping[str, float]) -> str:
    """Mean and worst ceiling in words."""
    values = list(ceilings.values())
    return f"{np.mean(values):.4f} in the mean, {min(values):.4f} at worst" if values else "unknown"
