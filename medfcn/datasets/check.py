"""Reads every case of a data set as training would, and names every problem.

Nothing is written. A problem has a stable code for scripts (`problems.py`), and names the case, the file, the field,
what is wrong and what to do.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medfcn.datasets.across_cases import across_cases, duplicates, shared_voxels
from medfcn.datasets.case_folders import rare_structures_problem
from medfcn.datasets.cases import Case, Dataset, MaskFile, label_files
from medfcn.datasets.channels import constant_channels, dropped_problem
from medfcn.datasets.check_report import CaseFacts, CheckReport, ImageFacts, LabelFacts
from medfcn.datasets.crossed import MOST_CASES, Glance, exchanged_problems, glance_at
from medfcn.datasets.find import find_dataset
from medfcn.datasets.partial_labels import look_at_drawn
from medfcn.datasets.patients import patients_problem, unstated_patients
from medfcn.datasets.problems import CaseProblems, Problem, relative_to
from medfcn.errors import GeometryMismatchError, LabelError, MedfcnError, MemoryShortError
from medfcn.labels import LabelMap
from medfcn.labels.image_like import MANY_VALUES
from medfcn.labels.label_map import LabelsLike
from medfcn.labels.masks import ROUNDED, read_mask
from medfcn.labels.structures import value_names, with_values
from medfcn.labels.values import Values, ValueSet
from medfcn.labels.whole_numbers import label_counts
from medfcn.memory_errors import one_memory_error
from medfcn.progress import Progress, reporting
from medfcn.text import listed
from medfcn.threads import in_threads
from medfcn.volumes.geometry import SAME_GRID_VOXELS
from medfcn.volumes.names import NIFTI_EXTENSIONS, extension_of
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions
from medfcn.volumes.privacy import personal_text_fields
from medfcn.volumes.reading import read_channels, read_volume
from medfcn.volumes.same_voxels import voxels_sha256
from medfcn.volumes.volume import Volume, require_same_grid

Visit = Callable[[Case, tuple[Volume, ...], Volume | None], None]
"""Called with a case, its images (one a channel) and its mask, while they are in memory; see `check_cases`."""


def check(
    dataset: str | os.PathLike[str],
    *,
    labels: LabelsLike | None = None,
    groups: str | os.PathLike[str] | None = None,
    group_by: str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every case of a data set as training would, and name every problem.

    Nothing is written. `medfcn check` shows `report.to_text()`, and with `--json` `report.to_json()`.

    Args:
        dataset: A folder, a `dataset.json` or a table, as `find_dataset` reads it.
        labels: The labels to look for, such as `hippocampus=1+2` or `{"lesion": "1-42"}`; without them those that the
            data set names, else every value in the masks.
        groups: A CSV with the columns `id` and `group`.
        group_by: Instead of it, `stem`, `none` or a regular expression on the ids; see `patients.groups_from_ids`.
        options: What to opt in to when reading volumes that are otherwise refused.
        allow_outside: Accept paths in a table or `dataset.json` that lead out of its folder.
        progress: Where progress is reported.

    Raises:
        MissingFileError: The data set is not there.
        DatasetError: It cannot be read as a data set, or no case is complete.
        SettingsError: The labels contradict each other.
    """
    found = find_dataset(
        dataset, groups=groups, group_by=group_by, allow_outside=allow_outside, unlabelled=True, bids=options.bids
    )
    return check_cases(found, labels=found.labels_of(labels), options=options, progress=progress, threads=2)


def check_cases(
    dataset: Dataset,
    *,
    labels: LabelMap | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
    visit: Visit | None = None,
    threads: int = 1,
) -> CheckReport:
    """Read each case once, and report every problem: the files that are missing, then what is wrong in the others.

    The files of an incomplete case are read too, so that one run names everything there is to fix.

    A caller that needs the voxels takes them from this pass instead of reading the files again: `visit` gets each
    case that has no error of its own, with its images and its mask. A case with a constant image is visited too:
    whether its channel is left out (`report.dropped`), or the case is bad, is known only at the end. The volumes are
    dropped when `visit` returns, so at most `threads` cases are in memory. The SHA-256 of every file is in the report
    (`report.cases`). Problems between cases (such as the same image twice) are known only at the end: look at
    `report.bad_cases` before you use what `visit` collected.

    Args:
        dataset: From `find_dataset`.
        labels: The labels to look for; without them those that the data set names, else every value in the masks:
            `visit` then gets masks with any whole numbers, and `report.cases` has the values of each mask.
        options: What to opt in to when reading.
        progress: Where progress is reported.
        visit: See above. Called by the thread that read the case: in the order of the ids with one thread, by
            several threads at once with more.
        threads: Number of cases that are read at a time.

    Returns:
        The same report for any number of threads.

    Example:
        The largest intensity of each case, with every file read once::

            highest = {}

            def visit(case, images, mask):
                highest[case.id] = max(image.array.max() for image in images)

            report = check_cases(find_dataset("dataset"), visit=visit)
    """
    dataset = dataset.of_volume(options.volume_index)
    rare = rare_structures_problem(dataset) if labels is None else None
    labels = dataset.labels if labels is None else labels.ignoring(dataset.ignored)
    ignored = labels.ignored if labels else dataset.ignored
    readers = _read_cases(dataset, labels, ignored, options, reporting(progress), visit=visit, threads=threads)
    facts = tuple(reader.facts for reader in readers)
    dropped = constant_channels(facts, dataset.channel_names, {case.id for case in dataset.cases})
    if labels is None and any(case.labelled for case in dataset.all_cases):
        unnamed = LabelMap.from_names({value: f"label_{value}" for value in sorted(_values_in(facts)) or [1]})
        for reader in readers:
            reader.look_at_drawn(unnamed, reader.label.voxels if reader.label else {})
    for reader in readers:
        reader.refuse_constant([channel.place for channel in dropped], len(dataset.channel_names))
    glances = [reader.glance for reader in readers if reader.glance is not None and not reader.has_error]
    values: Mapping[int, str] = {}
    if labels is not None and labels.structures:
        labels = with_values(labels, _values_in(facts))
        values = value_names(labels)
    of_all = [dropped_problem(dropped, len(dataset.channel_names) - len(dropped))] if dropped else []
    of_all += [*dataset.problems, *filter(None, (patients_problem(dataset), rare)), *shared_voxels(labels, values)]
    problems = of_all + [problem for reader in readers for problem in reader.problems.found]
    bad = {problem.case for problem in problems if problem.severity == "error"}
    # Of two equal images the one of a case that cannot be used anyway is blamed.
    duplicated = duplicates(sorted(facts, key=lambda case: case.id in bad))
    problems = _once(problems + duplicated + across_cases(facts, labels, values) + exchanged_problems(glances))
    problems.sort(key=lambda problem: problem.severity != "error")
    names = labels.names if labels else ()
    return CheckReport(
        dataset.layout,
        dataset.channel_names,
        names,
        facts,
        tuple(problems),
        ignored,
        unstated_patients=unstated_patients(dataset),
        splits=dataset.splits_text,
        value_names=values,
        dropped=tuple(channel.place for channel in dropped),
        states_groups=dataset.has_groups,
    )


def _read_cases(
    dataset: Dataset,
    labels: LabelMap | None,
    ignored: Values,
    options: ReadOptions,
    progress: Progress,
    *,
    visit: Visit | None,
    threads: int,
) -> list["_CaseReader"]:
    """Read every case, some at a time; one for which memory is short is a problem of that case."""
    incomplete = {case.id for case in dataset.incomplete}

    compared = {case.id for case in dataset.cases[:MOST_CASES]}

    def reader_of(case: Case) -> _CaseReader:
        problems = CaseProblems(case.id, dataset.root)
        return _CaseReader(case, problems, labels, ignored, options, is_compared=case.id in compared)

    def look(case: Case) -> _CaseReader:
        reader = reader_of(case)
        with one_memory_error(case.id):
            images, mask = reader.read_all()
            if visit is not None and case.id not in incomplete and not reader.has_error:
                visit(case, images, mask)
        return reader

    cases = dataset.all_cases
    readers: list[_CaseReader] = []
    with progress.task("check", len(cases)) as task:
        outcomes = in_threads(look, cases, threads=threads, advance=lambda case: task.advance())
    for case, outcome in zip(cases, outcomes, strict=True):
        reader = reader_of(case) if isinstance(outcome, MemoryShortError) else outcome
        if isinstance(outcome, MemoryShortError):
            reader.problems.refuse(outcome, next(iter(case.images), dataset.root), "image")
        readers.append(reader)
    return readers


def _values_in(facts: Iterable[CaseFacts]) -> set[int]:
    """The values in the masks of some cases."""
    return {value for case in facts if case.label for value in case.label.voxels}


@dataclass
class _CaseReader:
    """Reads one case, and keeps what was seen of it; of its voxels no more than a glance, if its mask is compared."""

    case: Case
    problems: CaseProblems
    labels: LabelMap | None
    ignored: Values
    options: ReadOptions
    images: list[ImageFacts] = field(default_factory=list)
    label: LabelFacts | None = None
    is_compared: bool = False
    glance: Glance | None = None

    @property
    def facts(self) -> CaseFacts:
        return CaseFacts(self.case.id, self.case.group, self.case.fold, tuple(self.images), self.label)

    @property
    def has_error(self) -> bool:
        return any(problem.severity == "error" for problem in self.problems.found)

    def read_all(self) -> tuple[tuple[Volume, ...], Volume | None]:
        """Read the images, then the label, those that can be read; look at each while it is in memory."""
        volumes: list[Volume] = []
        for file in self.case.images:
            stacked = self.case.stacked
            read = read_volume if stacked == 1 else partial(read_channels, count=stacked)
            for image in self._read(file, "image", read):
                self._look_at_image(file, image)
                image, _ = self._on_grid(file, next(iter(volumes), None), image, "channel")
                volumes.append(image)
        label, mask = self.case.label, None
        if label is not None:
            masks = self._read(label, "label", read_mask, labels=self.labels)
            if masks:
                where = Path(label)
                mask, displacement = self._on_grid(where, next(iter(volumes), None), masks[0], "label")
                self._look_at_label(where, mask, displacement)
                if self.is_compared and displacement is not None:
                    self.glance = glance_at(self.case.id, volumes, mask, ValueSet(self.ignored))
        return tuple(volumes), mask

    def _read(
        self, source: MaskFile, role: str, read: Callable[..., Volume | tuple[Volume, ...]], **choices: Any
    ) -> tuple[Volume, ...]:
        """The volumes of a file; none where it is refused."""
        for one in label_files(source):
            personal = personal_text_fields(one) if extension_of(one) in NIFTI_EXTENSIONS else ()
            if personal:
                remedy = "nothing of it is written by medfcn; clear it before you share the file"
                self.problems.warn("HEADER_TEXT", one, listed(personal), "text that looks like patient data", remedy)
        file = Path(source)
        try:
            volumes = read(source, options=self.options, **choices)
        except MemoryShortError:
            raise
        except MedfcnError as error:
            self.problems.refuse(error, file, role)
            return ()
        volumes = volumes if isinstance(volumes, tuple) else (volumes,)
        self._warn_of(dict.fromkeys(note for volume in volumes for note in volume.notes), file, role)
        return volumes

    def _warn_of(self, notes: Iterable[str], file: Path, role: str) -> None:
        for note in notes:
            code = "LABEL_ROUNDED" if note.startswith(ROUNDED) else "READ_NOTE"
            self.problems.warn(code, file, role, note, "")

    def _look_at_image(self, file: Path, image: Volume) -> None:
        lowest, highest = float(image.array.min()), float(image.array.max())
        facts = ImageFacts(
            file=relative_to(self.problems.root, file),
            shape=image.shape,
            spacing_mm=image.spacing_mm,
            orientation=image.orientation,
            voxel_type=image.array.dtype.name,
            lowest=lowest,
            highest=highest,
            sha256=image.sha256,
            voxels_sha256=voxels_sha256(image),
            notes=image.notes,
        )
        self.images.append(facts)

    def refuse_constant(self, dropped: Collection[int], channels: int) -> None:
        """Refuse the images of one value, except those of dropped channels.

        Args:
            dropped: The numbers of these.
            channels: Number of channels of a complete case.
        """
        is_whole, remedy = len(self.images) == channels, "is it the right file? take the case out"
        self.problems.found[:0] = [
            Problem("IMAGE_CONSTANT", "error", self.case.id, image.file, "voxels", found, remedy)
            for place, image in enumerate(self.images)
            if image.is_constant and not (is_whole and place in dropped)
            for found in [f"every voxel is {image.lowest:g}"]
        ]

    def _look_at_label(self, file: Path, mask: Volume, displacement: float | None) -> None:
        counts = {value: count for value, count in label_counts(mask.array).items() if value != 0}
        unlabelled = sum(counts.pop(value) for value in set(counts) & ValueSet(self.ignored))
        if self.labels is not None and not self.labels.structures:
            try:
                self.labels.encode(np.array([[sorted(counts) or [0]]]), name=self.case.id)
            except LabelError as error:
                self.problems.refuse(error, file, "label")
        if self.labels is not None:
            self.look_at_drawn(self.labels, counts, file)
        if not (counts if self.labels is None or self.labels.structures else set(counts) & self.labels.named_values):
            remedy = "fine if there is nothing to be seen"
            self.problems.warn("LABEL_EMPTY", file, "voxels", "no foreground voxel", remedy)
        elif self.labels is None and len(counts) > MANY_VALUES:
            remedy = "is it an image? if these are labels, name them with --labels"
            self.problems.warn("LABEL_VALUES_MANY", file, "voxels", f"{len(counts)} different values", remedy)
        self.label = LabelFacts(
            file=relative_to(self.problems.root, file),
            voxels=counts,
            ml={value: count * mask.voxel_ml for value, count in counts.items()},
            displacement_voxels=displacement,
            sha256=mask.sha256,
            notes=mask.notes,
            ignored_voxels=unlabelled,
        )

    def look_at_drawn(self, labels: LabelMap, counts: Mapping[int, int], file: Path | None = None) -> None:
        """Compare the labels that are named as drawn with those that there are, and with the values of the mask."""
        if self.case.labelled and self.case.label is not None:
            look_at_drawn(self.case, labels, counts, self.problems, file or Path(self.case.label))

    def _on_grid(self, file: Path, image: Volume | None, other: Volume, role: str) -> tuple[Volume, float | None]:
        """A volume in the order of the first image, and the distance of their corners in voxels, if there is one."""
        if image is None:
            return other, None
        count, other = len(other.notes), other.reordered_to(image)
        self._warn_of(other.notes[count:], file, role)
        try:
            voxels = require_same_grid(image, other)
        except GeometryMismatchError as error:
            self.problems.refuse(error, file, role)
            return other, None
        if voxels >= SAME_GRID_VOXELS:
            found = f"its corners are {voxels:.3g} voxels from the image's"
            remedy = "accepted; re-export it on the image's grid if that matters"
            self.problems.warn(f"{role.upper()}_GRID_NEAR", file, "affine", found, remedy)
        return other, voxels


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """The same note on many files becomes one problem, with their number."""
    counts = Counter(problem.found for problem in problems if problem.code == "READ_NOTE")

    def merged(problem: Problem) -> Problem:
        count = counts[problem.found] if problem.code == "READ_NOTE" else 1
        if count == 1:
            return problem
        return replace(problem, case="", file="", field="", found=f"{problem.found} ({count} files)")

    return list(dict.fromkeys(map(merged, problems)))
