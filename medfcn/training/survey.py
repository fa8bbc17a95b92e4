"""The first pass over a data set: every case is read and checked once, and its volumes are kept while they fit."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfcn.datasets import Case, Dataset
from medfcn.datasets.channels import DroppedChannel
from medfcn.datasets.check import check_cases
from medfcn.datasets.check_report import CheckReport
from medfcn.errors import DatasetError
from medfcn.labels import LabelMap, read_mask
from medfcn.labels.partial_labels import Drawn, drawn_labels, unions_of, without_others
from medfcn.labels.sparse_labels import share_text
from medfcn.labels.structures import with_values
from medfcn.memory import require_memory
from medfcn.progress import Progress, warn
from medfcn.slices.fingerprint import CaseFingerprint, fingerprint_case
from medfcn.text import counted, listed
from medfcn.volumes import ReadOptions, Volume, require_same_grid
from medfcn.volumes.reading import read_channels

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import CaseTransforms

_KEPT_BYTES = 256 * 2**20
"""Voxels that are kept in memory after the first pass; the other cases are read a second time."""
_CHANNEL_BYTES, _MASK_BYTES, _OVERLAPPING_BYTES = 12, 14, 4
"""Memory that a case takes for each voxel while its slices are prepared: of a channel, of the mask, and of a label
that overlaps others. 24 bytes a voxel were measured with one channel and one label."""
_SHOWN = 5
"""Problems spelled out in one error message."""


@dataclass(frozen=True)
class ReadCase:
    """One case, read and checked.

    Attributes:
        id: The case.
        images: One volume for each channel.
        mask: The reference, with the values of its file.
        labelled: Names of the labels that were drawn; empty where all were.
    """

    id: str
    images: tuple[Volume, ...]
    mask: Volume
    labelled: tuple[str, ...] = ()

    @property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of the image files in order, then of the label file."""
        return (*(image.sha256 for image in self.images), self.mask.sha256)

    @property
    def bytes(self) -> int:
        """The memory that the voxels take."""
        return sum(volume.array.nbytes for volume in (*self.images, self.mask))

    def without_channels(self, places: Sequence[int]) -> "ReadCase":
        """The case with its other channels alone."""
        kept = tuple(image for place, image in enumerate(self.images) if place not in places)
        return replace(self, images=kept)

    def moved_by(self, transforms: "CaseTransforms | None") -> "ReadCase":
        """The case after the user's own transforms, which leave the hashes of its files as they are."""
        if transforms is None:
            return self
        moved = transforms(self.images, self.mask)
        return replace(self, images=moved.images, mask=moved.mask or self.mask)

    def reference(self, labels: LabelMap) -> NDArray[np.uint8]:
        """`(I, J, K)` indices: 0 for background, k for the k-th label (or overlap), `IGNORED` for unlabelled voxels.

        Where only some labels were drawn, everything else is 0.

        Raises:
            LabelError: The mask has a value that `labels` does not allow, or a name of a drawn label is no label's.
        """
        drawn = drawn_labels(self.labelled, labels, case=self.id)
        return without_others(labels.reference_codec.encode(self.mask.array), drawn)


@dataclass(frozen=True)
class Survey:
    """Result of the first pass over all cases.

    Attributes:
        dataset: Where the cases are stored.
        labels: The labels to segment.
        options: How volumes are read.
        cases: The cases that can be used.
        fingerprints: By case id.
        hashes: By case id, as in `ReadCase`.
        voxels: By case id, the hash of the voxels of each channel.
        problems: Case id and one line for each case that cannot be used.
        memory: The cases whose volumes are still in memory, by id.
        transforms: The user's own transforms between reading and slicing.
        dropped: The channels that are left out, because they have one value in every case. Nothing else here has
            them any more.
        unstated_ignore: What to do about a value that fills most masks and is not said to be ignored; empty without.
    """

    dataset: Dataset
    labels: LabelMap
    options: ReadOptions
    cases: tuple[Case, ...]
    fingerprints: Mapping[str, CaseFingerprint]
    hashes: Mapping[str, tuple[str, ...]]
    voxels: Mapping[str, tuple[str, ...]]
    problems: tuple[tuple[str, str], ...]
    memory: Mapping[str, ReadCase] = field(default_factory=dict, repr=False)
    transforms: "CaseTransforms | None" = None
    dropped: tuple[DroppedChannel, ...] = ()
    unstated_ignore: str = ""

    @property
    def label_voxels(self) -> dict[str, tuple[int, ...]]:
        """By case id, the voxels of each label."""
        return {case_id: figures.label_voxels for case_id, figures in self.fingerprints.items()}

    @cached_property
    def drawn(self) -> dict[str, Drawn]:
        """By case id, the labels that were drawn, of the cases of which only some were."""
        found = {case.id: drawn_labels(case.labelled, self.labels, case=case.id) for case in self.cases}
        return {case_id: drawn for case_id, drawn in found.items() if drawn}

    @property
    def unions(self) -> tuple[Drawn, ...]:
        """The different sets of drawn labels; see `medfcn.labels.partial_labels.union_table`."""
        return unions_of(self.drawn.values())

    def partly_drawn(self, case_ids: Iterable[str]) -> str:
        """Which labels were drawn in how many of some cases, in words; empty if all were in each."""
        among = list(case_ids)
        sets = [self.drawn.get(case_id, ()) for case_id in among]
        names = self.labels.names
        return "; ".join(
            f"{listed(names[place - 1] for place in union)} alone drawn in {sets.count(union)} of {len(among)} cases"
            for union in unions_of(sets)
        )

    def partly_labelled(self, case_ids: Iterable[str]) -> str:
        """How much is labelled of those cases of which it is less than half, in words; empty if there are none."""
        among = [self.fingerprints[case_id] for case_id in case_ids]
        partly = [case for case in among if case.is_partly_labelled]
        if not partly:
            return ""
        voxels = sum(math.prod(case.shape) for case in partly)
        labelled = voxels - sum(case.ignored_voxels for case in partly)
        return f"less than half is labelled in {len(partly)} of {len(among)} cases, {share_text(labelled, voxels)}"

    def of_labelled(self, case_ids: Iterable[str]) -> str:
        """Words after a Dice of these cases: none if at least half is labelled in each."""
        partly = self.partly_labelled(case_ids)
        return f" of the labelled voxels alone ({partly})" if partly else ""

    def without_volumes(self) -> "Survey":
        """The same without voxels, for other processes."""
        return replace(self, memory={})

    def read(self, case_id: str) -> ReadCase:
        """A case's volumes, from memory or from its files.

        Raises:
            MedfcnError: A file cannot be trusted any more.
        """
        kept = self.memory.get(case_id)
        return kept or read_case(next(case for case in self.cases if case.id == case_id), self.labels, self.options)


def read_case(case: Case, labels: LabelMap, options: ReadOptions) -> ReadCase:
    """Read a case's channels and label, and check that they are on one grid.

    Args:
        case: Where its files are.
        labels: The labels to segment.
        options: What is opted in to.

    Raises:
        MedfcnError: A file cannot be trusted, or grids differ.
    """
    if case.label is None:
        raise DatasetError(f"{case.id}: no label; add it, or leave the case out", code="LABEL_MISSING")
    read = (volume for path in case.images for volume in read_channels(path, case.stacked, options=options))
    first, *others = (volume for place, volume in enumerate(read) if place not in case.dropped)
    others.append(read_mask(case.label, labels=labels, options=options))
    *channels, mask = (volume.reordered_to(first) for volume in others)
    for volume in (*channels, mask):
        require_same_grid(first, volume)
    return ReadCase(case.id, (first, *channels), mask, case.labelled)


def prepared_bytes(voxels: int, channels: int, labels: LabelMap | None) -> int:
    """Bytes that a case takes while its slices are prepared.

    Args:
        voxels: Of the volume, or of its network grid if that has more.
        channels: Its volumes.
        labels: The labels to segment, where they are known.
    """
    overlapping = len(labels.entries) if labels is not None and labels.members is not None else 0
    return voxels * (_CHANNEL_BYTES * channels + _MASK_BYTES + _OVERLAPPING_BYTES * overlapping)


def survey(
    dataset: Dataset,
    labels: LabelMap | None,
    options: ReadOptions,
    *,
    skip_bad: bool,
    progress: Progress,
    transforms: "CaseTransforms | None" = None,
) -> Survey:
    """Read every case once, before anything is written.

    Args:
        dataset: The cases.
        labels: The labels to segment; None takes the names of the data set, else all values in its masks.
        options: How volumes are read.
        skip_bad: Leave out cases that cannot be used, instead of stopping.
        progress: Where each problem is reported.
        transforms: The user's own transforms between reading and slicing.

    Raises:
        DatasetError: A case cannot be used and `skip_bad` is false, or no case can.
        VolumeError: The transforms fail on a case, or cannot be undone for its mask.
    """
    dataset = dataset.of_volume(options.volume_index)
    named = labels or dataset.labels
    chosen = None if named is None else named.ignoring(dataset.ignored)
    if chosen is not None and chosen.overlapping:
        progress.say(chosen.overlap_text)
    kept = _FirstPass(chosen, transforms, free=_KEPT_BYTES)
    is_open = labels is None and chosen is not None and chosen.structures
    report = check_cases(
        dataset, labels=None if is_open else chosen, options=options, progress=progress, visit=kept.visit
    )
    if chosen is None:
        if not _values_in_masks(report, dataset):  # perhaps because masks were refused
            _judge(report, [], skip_bad=skip_bad, progress=progress, limit=1)
        chosen = _labels_in_masks(report, dataset)
        refused = {case.id for case in report.cases if case.label is None}
        if any(case.label is not None and case.id in refused for case in dataset.cases):
            # Once the labels are known, such a mask may be unambiguous; see `read_mask`.
            return survey(dataset, chosen, options, skip_bad=skip_bad, progress=progress, transforms=transforms)
    elif chosen.structures:
        chosen = with_values(chosen, _values_in_masks(report, dataset))
        if chosen.overlapping:
            progress.say(chosen.overlap_text)
    voxels = {case.id: tuple(image.voxels_sha256 for image in case.images) for case in report.cases}
    if report.dropped:
        kept.drop(report.dropped)
        voxels = {case_id: _without(of_case, report.dropped) for case_id, of_case in voxels.items()}
    names = dataset.channel_names
    dropped = tuple(DroppedChannel(place, names[place]) for place in report.dropped)
    dataset = dataset.without_channels(report.dropped)
    unlabelled = [case.id for case in dataset.cases if case.label is None]
    problems = _judge(report, unlabelled, skip_bad=skip_bad, progress=progress)
    good = tuple(case for case in dataset.cases if case.id in kept.hashes and case.id not in dict(problems))
    unstated = "; ".join(one.remedy for one in report.warnings if one.code == "IGNORE_UNSTATED")
    found = Survey(
        dataset,
        chosen,
        options,
        good,
        kept.fingerprints,
        kept.hashes,
        voxels,
        problems,
        kept.memory,
        transforms,
        dropped,
        unstated,
    )
    if found.drawn:
        progress.say(
            f"{found.partly_drawn([case.id for case in good])}; elsewhere there is background or another label"
        )
    for case in good:
        if case.id not in kept.fingerprints:
            kept.fingerprints[case.id] = _fingerprint(found.read(case.id), chosen, transforms)
    if transforms is not None and good:
        first = found.read(good[0].id)
        transforms.require_usable(first.images, first.mask)
    return found


@dataclass
class _FirstPass:
    """The hashes and figures of the cases that were read, and their volumes while these fit.

    Attributes:
        labels: The labels to segment, where they are known before the pass.
        transforms: The user's own transforms between reading and slicing.
        free: Bytes of volumes that may still be kept.
        fingerprints: By case id; none of cases whose labels, or channels, are not known yet.
        hashes: Of the files of each case.
        memory: The cases whose volumes are kept.
    """

    labels: LabelMap | None
    transforms: "CaseTransforms | None"
    free: int
    fingerprints: dict[str, CaseFingerprint] = field(default_factory=dict)
    hashes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    memory: dict[str, ReadCase] = field(default_factory=dict)

    def visit(self, case: Case, images: tuple[Volume, ...], mask: Volume | None) -> None:
        """Keep what is needed of a case that was just read."""
        if mask is None:
            return
        read = ReadCase(case.id, images, mask, case.labelled)
        # Later, a case that does not fit could not be left out.
        require_memory(prepared_bytes(mask.array.size, len(images), self.labels), "its slices")
        self.hashes[case.id] = read.hashes
        if read.bytes <= self.free:
            self.memory[case.id] = read
            self.free -= read.bytes
        has_constant = any(image.is_constant for image in images)  # perhaps of a channel that is left out
        # Which structures overlap is seen in the masks, so their labels are known after the pass.
        if self.labels is not None and not self.labels.structures and not has_constant:
            self.fingerprints[case.id] = _fingerprint(read, self.labels, self.transforms)

    def drop(self, places: Sequence[int]) -> None:
        """Leave out some channels."""
        # The first channel decides the order of a case's axes, so without it the others are read again.
        kept = {} if 0 in places else self.memory
        self.memory = {case_id: read.without_channels(places) for case_id, read in kept.items()}
        self.hashes = {case_id: _without(of_case, places) for case_id, of_case in self.hashes.items()}
        self.fingerprints = {}


def _without(hashes: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    """The hashes of a case without those of some channels."""
    return tuple(sha256 for place, sha256 in enumerate(hashes) if place not in places)


def _fingerprint(read: ReadCase, labels: LabelMap, transforms: "CaseTransforms | None") -> CaseFingerprint:
    read = read.moved_by(transforms)
    return fingerprint_case(read.id, read.images, read.reference(labels), len(labels.entries), members=labels.members)


def _judge(
    report: CheckReport, unlabelled: Sequence[str], *, skip_bad: bool, progress: Progress, limit: int = _SHOWN
) -> tuple[tuple[str, str], ...]:
    """Case id and one line for each case that cannot be used, if it may be left out.

    Raises:
        DatasetError: It may not, or the whole data set cannot be used.
    """
    for problem in report.errors:
        if not problem.case:
            raise DatasetError(f"{problem.found}; {problem.remedy}", code=problem.code, field=problem.field)
    for problem in report.warnings[:_SHOWN]:
        warn(progress, problem.line)
    if len(report.warnings) > _SHOWN:
        warn(progress, f"and {counted(len(report.warnings) - _SHOWN, 'more warning')}: see `medfcn check`")
    count = len(report.cases)
    lines = {case_id: f"{case_id}: no label; add it, or leave the case out" for case_id in unlabelled}
    codes = dict.fromkeys(unlabelled, "LABEL_MISSING")
    for problem in report.errors:
        where = f" {problem.file}:" if problem.file else ""
        lines.setdefault(problem.case, f"{problem.case}:{where} {problem.found}; {problem.remedy}")
        codes.setdefault(problem.case, problem.code)
    if lines and skip_bad and len(lines) < count:
        for line in lines.values():
            warn(progress, f"left out: {line}")
    elif lines:
        advice = "fix them, or leave them out (--skip-bad, skip_bad=True)" if len(lines) < count else "fix them"
        raise DatasetError(
            f"{len(lines)} of {count} cases cannot be used: {listed(lines.values(), limit=limit, separator='; ')}; "
            f"{advice} (`medfcn check` names all)",
            code=next(iter(codes.values())),
        )
    return tuple(lines.items())


def _values_in_masks(report: CheckReport, dataset: Dataset) -> list[int]:
    """The values in the masks of the complete cases."""
    complete = {case.id for case in dataset.cases}
    masks = [case.label for case in report.cases if case.label is not None and case.id in complete]
    return sorted({value for mask in masks for value in mask.voxels})


def _labels_in_masks(report: CheckReport, dataset: Dataset) -> LabelMap:
    """A label for each value in the masks of the complete cases."""
    values = _values_in_masks(report, dataset)
    if not values:
        raise DatasetError("no label contains any value but 0; check the label files", code="LABELS_EMPTY")
    return LabelMap.from_names({value: f"label_{value}" for value in values}).ignoring(dataset.ignored)
