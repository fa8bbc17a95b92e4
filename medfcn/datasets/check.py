"""`medfcn check`: every case of a dataset read as training would read it, and every problem named.

Reading is all of the work; nothing is written. A problem has a stable code (`problems.py`), so that scripts can
look for it, and names the case, the file, the field, what was found and what to do.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medfcn.datasets.cases import Case, Dataset
from medfcn.datasets.check_report import CaseFacts, CheckReport, ImageFacts, LabelFacts
from medfcn.datasets.find import find_dataset
from medfcn.datasets.problems import Problem, problem_of
from medfcn.errors import GeometryMismatchError, LabelError, MedfcnError
from medfcn.labels import LabelEntry, LabelMap, read_mask
from medfcn.labels.whole_numbers import label_counts
from medfcn.progress import Progress, Silent
from medfcn.volumes.geometry import SAME_GRID_VOXELS
from medfcn.volumes.names import NIFTI_EXTENSIONS, extension_of
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions
from medfcn.volumes.privacy import personal_text_fields
from medfcn.volumes.reading import read_volume
from medfcn.volumes.volume import Volume, require_same_grid

Visit = Callable[[Case, tuple[Volume, ...], Volume | None], None]
"""Called with a case, its images (one a channel) and its mask, while they are in memory; see `check_cases`."""


def check(
    dataset: str | os.PathLike[str],
    *,
    labels: str | LabelMap | None = None,
    groups: str | os.PathLike[str] | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every case of a data set as training would, and name every problem.

    Nothing is written. `medfcn check` shows `report.to_text()`, and with `--json` `report.to_json()`.

    Args:
        dataset: A folder, a `dataset.json` or a table, as `find_dataset` reads it.
        labels: The labels to look for, such as `hippocampus=1+2`; without them those that the data set names, else
            every value in the masks.
        groups: A CSV with the columns `id` and `group`.
        options: What to opt in to when reading volumes that are otherwise refused.
        allow_outside: Accept paths in a table or `dataset.json` that lead out of its folder.
        progress: Where progress is reported.

    Raises:
        MissingFileError: The data set is not there.
        DatasetError: It cannot be read as a data set, or no case is complete.
        SettingsError: The labels contradict each other.
    """
    chosen = LabelMap.parse(labels) if isinstance(labels, str) else labels
    found = find_dataset(dataset, groups=groups, allow_outside=allow_outside)
    return check_cases(found, labels=chosen, options=options, progress=progress, threads=2)


def check_cases(
    dataset: Dataset,
    *,
    labels: LabelMap | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
    visit: Visit | None = None,
    threads: int = 1,
) -> CheckReport:
    """Read each case once, and name every problem: what `find_dataset` misses, then what is wrong in the files.

    The files of an incomplete case are read too, so that one run names everything there is to fix.

    A caller that needs the voxels takes them from this pass instead of reading the files again: `visit` gets each
    case that has no error of its own, with its images and its mask. The volumes are dropped when `visit` returns, so
    at most `threads` cases are in memory. The SHA-256 of every file is in the report (`report.cases`). Problems
    between cases (such as the same image twice) are known only at the end: look at `report.bad_cases` before you use
    what `visit` collected.

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
    labels = dataset.labels if labels is None else labels.ignoring(dataset.ignored)
    ignored = labels.ignored if labels else dataset.ignored
    incomplete = frozenset(case.id for case in dataset.incomplete)
    checker = _Checker(dataset, labels, options, visit, incomplete, ignored)
    cases = dataset.all_cases
    results: list[tuple[CaseFacts, list[Problem]]] = []
    with (
        (progress or Silent()).task("check", len(cases)) as task,
        ThreadPoolExecutor(max_workers=max(1, threads)) as pool,
    ):
        for result in pool.map(checker.case, cases):
            results.append(result)
            task.advance()
    facts = tuple(result[0] for result in results)
    problems = [*dataset.problems, *(problem for result in results for problem in result[1])]
    problems += _duplicates(facts) + _across_cases(facts, labels)
    problems = _said_once(problems)
    problems.sort(key=lambda problem: problem.severity != "error")
    names = labels.names if labels else ()
    return CheckReport(dataset.layout, dataset.channel_names, names, facts, tuple(problems), ignored)


@dataclass(frozen=True)
class _Checker:
    """Reads one case after another with the same settings."""

    dataset: Dataset
    labels: LabelMap | None
    options: ReadOptions
    visit: Visit | None
    incomplete: frozenset[str]
    ignored: tuple[int, ...]

    def case(self, case: Case) -> tuple[CaseFacts, list[Problem]]:
        """What is in a case, and what is wrong with it."""
        problems: list[Problem] = []
        volumes: list[Volume] = []
        images: list[ImageFacts] = []
        for file in case.images:
            image = self._read(case, file, "image", problems)
            if image is None:
                continue
            images.append(self._image_facts(case, file, image, problems))
            if volumes:
                self._displacement(case, file, volumes[0], image, "channel", problems)
            volumes.append(image)
        label: LabelFacts | None = None
        mask: Volume | None = None
        if case.label is not None:
            mask = self._read(case, case.label, "label", problems)
            if mask is not None:
                label = self._label_facts(case, case.label, mask, volumes[0] if volumes else None, problems)
        is_good = case.id not in self.incomplete and all(problem.severity != "error" for problem in problems)
        if self.visit is not None and is_good:
            self.visit(case, tuple(volumes), mask)
        return CaseFacts(case.id, case.group, case.fold, tuple(images), label), problems

    def _read(self, case: Case, file: Path, role: str, problems: list[Problem]) -> Volume | None:
        relative = self.dataset.relative(file)
        if extension_of(file) in NIFTI_EXTENSIONS:
            named = personal_text_fields(file)
            if named:
                remedy = "nothing of it is written by medfcn; clear it before you share the file"
                self._warn(
                    problems,
                    "HEADER_TEXT",
                    case,
                    relative,
                    ", ".join(named),
                    "text that looks like patient data",
                    remedy,
                )
        try:
            if role == "image":
                volume = read_volume(file, options=self.options)
            else:
                volume = read_mask(file, labels=self.labels, options=self.options)
        except MedfcnError as error:
            problems.append(problem_of(error, case=case.id, file=relative, role=role))
            return None
        for note in volume.notes:
            code = "LABEL_ROUNDED" if "rounded" in note else "READ_NOTE"
            self._warn(problems, code, case, relative, role, note, "")
        return volume

    def _image_facts(self, case: Case, file: Path, image: Volume, problems: list[Problem]) -> ImageFacts:
        relative = self.dataset.relative(file)
        lowest, highest = float(image.array.min()), float(image.array.max())
        if lowest == highest:
            found, remedy = f"every voxel is {lowest:g}", "is it the right file? take the case out"
            problems.append(Problem("IMAGE_CONSTANT", "error", case.id, relative, "voxels", found, remedy))
        return ImageFacts(
            file=relative,
            shape=image.shape,
            spacing_mm=image.spacing_mm,
            orientation=image.orientation,
            voxel_type=image.array.dtype.name,
            lowest=lowest,
            highest=highest,
            sha256=image.sha256,
            voxels_sha256=voxels_sha256(image.array),
            notes=image.notes,
        )

    def _label_facts(
        self, case: Case, file: Path, mask: Volume, image: Volume | None, problems: list[Problem]
    ) -> LabelFacts:
        relative = self.dataset.relative(file)
        counts = {value: count for value, count in label_counts(mask.array).items() if value != 0}
        unlabelled = sum(counts.pop(value, 0) for value in self.ignored)
        displacement = None
        if image is not None:
            displacement = self._displacement(case, file, image, mask, "label", problems)
        if self.labels is not None:
            try:
                self.labels.encode(np.array([[sorted(counts) or [0]]]), name=case.id)
            except LabelError as error:
                problems.append(problem_of(error, case=case.id, file=relative, role="label"))
        wanted = counts if self.labels is None else _named(counts, self.labels)
        if not wanted:
            found = "no foreground voxel"
            self._warn(
                problems, "LABEL_EMPTY", case, relative, "voxels", found, "fine if nothing is there to be seen"
            )
        return LabelFacts(
            file=relative,
            voxels=counts,
            ml={value: count * mask.voxel_ml for value, count in counts.items()},
            displacement_voxels=displacement,
            sha256=mask.sha256,
            notes=mask.notes,
            ignored_voxels=unlabelled,
        )

    def _displacement(
        self, case: Case, file: Path, image: Volume, other: Volume, role: str, problems: list[Problem]
    ) -> float | None:
        relative = self.dataset.relative(file)
        try:
            voxels = require_same_grid(image, other)
        except GeometryMismatchError as error:
            problems.append(problem_of(error, case=case.id, file=relative, role=role))
            return None
        if voxels >= SAME_GRID_VOXELS:
            found = f"its corners lie {voxels:.3g} voxels from the image's"
            remedy = "accepted; re-export it on the image's grid if that matters"
            self._warn(problems, f"{role.upper()}_GRID_NEAR", case, relative, "affine", found, remedy)
        return voxels

    @staticmethod
    def _warn(problems: list[Problem], code: str, case: Case, file: str, field: str, found: str, remedy: str) -> None:
        problems.append(Problem(code, "warning", case.id, file, field, found, remedy))


def voxels_sha256(array: NDArray[Any]) -> str:
    """A hash of voxels alone: equal for equal numbers of one type on one shape, whatever the header says."""
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape}".encode())
    for k in range(array.shape[2]):
        digest.update(np.asfortranarray(array[:, :, k]).T.data)
    return digest.hexdigest()


def _named(counts: dict[int, int], labels: LabelMap) -> set[int]:
    return set(counts).intersection(labels.named_values)


def _duplicates(cases: Sequence[CaseFacts]) -> list[Problem]:
    """The same voxels under two names: harmless in one group, a leak between groups."""
    seen: dict[str, tuple[CaseFacts, ImageFacts]] = {}
    problems = []
    for case in cases:
        for image in case.images:
            if image.lowest == image.highest:
                continue
            other_case, other = seen.setdefault(image.voxels_sha256, (case, image))
            if other is image:
                continue
            severity: Literal["error", "warning"] = "error" if other_case.group != case.group else "warning"
            found = f"the same voxels as {other.file} ({other_case.id})"
            remedy = "take one out, or put both in one group"
            problems.append(Problem("IMAGE_DUPLICATE", severity, case.id, image.file, "voxels", found, remedy))
    return problems


def _across_cases(cases: Sequence[CaseFacts], labels: LabelMap | None) -> list[Problem]:
    """What can only be seen of all cases together."""
    read = [case.label for case in cases if case.label is not None]
    if not read:
        return []
    present = {value for label in read for value in label.voxels}
    held = f"the masks hold {', '.join(map(str, sorted(present)[:8])) or 'nothing but 0'}"
    problems = []
    for entry in labels.entries if labels else ():
        if present.isdisjoint(entry.values):
            found, remedy = f"no case has {_asked(entry)}; {held}", "check the name and its values"
            problems.append(Problem("LABEL_ABSENT", "warning", "", "", "labels", found, remedy))
        elif absent := [str(value) for value in entry.values if value not in present]:
            which = f"value{'s' * (len(absent) > 1)} {', '.join(absent[:8])}"
            found, remedy = f"no case has {which} of {_asked(entry)}; {held}", "check the label's values"
            problems.append(Problem("LABEL_VALUE_ABSENT", "warning", "", "", "labels", found, remedy))
    wanted = present if labels is None else labels.named_values & present
    if not wanted:
        found, remedy = "no case has a foreground voxel", "check the labels, or name them with --labels"
        if present and labels:
            asked = ", ".join(map(_asked, labels.entries[:8]))
            found, remedy = f"no case has a voxel of the labels asked for, {asked}; {held}", "correct --labels"
        problems.append(Problem("LABELS_EMPTY", "error", "", "", "labels", found, remedy))
    return problems


def _asked(entry: LabelEntry) -> str:
    """A label as `--labels` names it."""
    return f"{entry.name}={'+'.join(map(str, entry.values[:8]))}"


def _said_once(problems: Sequence[Problem]) -> list[Problem]:
    """What holds for many files in the same words is said once, with their number."""
    kept: list[Problem] = []
    repeated: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.code == "READ_NOTE":
            repeated.setdefault(problem.found, []).append(problem)
        else:
            kept.append(problem)
    for found, group in repeated.items():
        if len(group) == 1:
            kept.append(group[0])
            continue
        first = group[0]
        kept.append(
            Problem(first.code, "warning", "", "", first.field, f"{found} ({len(group)} files)", first.remedy)
        )
    return kept
