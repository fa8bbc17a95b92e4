"""Patients of whom several cases come, where only the names of the cases say so, such as `P3_left` and `P3_right`."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medfcn.datasets.cases import Dataset
from medfcn.datasets.column_names import patients_in
from medfcn.datasets.problems import Problem
from medfcn.datasets.tables import read_table
from medfcn.errors import DatasetError, SettingsError
from medfcn.text import counted, listed

_CODE = "PATIENTS_UNSTATED"
_LONG = r"frame|frm|fr|phase|ph|time(?:point)?|tp|sess?(?:ion)?|vis(?:it)?|run|scan|exam|day|week|wk|month|year"
"""Words for a frame, phase, time, session, visit, run or scan, which a number follows."""
_OFTEN = r"[tvmdw]"
"""Letters that stand for such a word: time, visit, month, day, week."""
_SELDOM = r"[sfry]"
"""Letters that may stand for such a word (session, frame, run, year), or for a subject, file, reader or room."""
_SIDE = r"left|right|l|r|lt|rt|lh|rh|od|os|sin|dex"
_ALONE = (
    r"pre|post|pre-?op|post-?op|baseline|bl|follow-?up|fu|ed|es|diastole|systole|insp(?:iration)?|exp(?:iration)?"
    r"|inhale|exhale|arterial|venous|portal|delayed|test|retest"
)
"""Names of times and phases, which need no number."""
_DATE = (
    r"(?:19|20)\d\d(?P<by>[-_.]?)(?:0[1-9]|1[0-2])(?P=by)(?:0[1-9]|[12]\d|3[01])(?:[-_t]?\d{4,6})?"
    r"|(?:0[1-9]|[12]\d|3[01])(?P<sep>[-_.])(?:0[1-9]|1[0-2])(?P=sep)(?:19|20)\d\d"
)
_NUMBER = r"(?:\d+[a-z]?|[a-d]|[ivx]+)"
_BIDS = r"(?:ses|run|acq|rec|dir|echo|hemi|time|phase)-[a-z0-9]+"
_AFTER = r"\d+-?(?:days?|weeks?|wks?|months?|mo|years?|yrs?)"
_CERTAIN = re.compile(
    rf"(?:[ _.\-]+(?:(?:{_LONG})-?{_NUMBER}|(?:{_OFTEN})-?\d+[a-z]?|{_AFTER}|{_BIDS}"
    rf"|(?:(?:{_LONG}|side|date)[ _.\-]?)?(?:(?:{_ALONE})-?\d*|{_SIDE}|{_DATE}))"
    rf"|(?<=\d)(?:(?:{_LONG})-?\d+|t\d+|[lr]|left|right|pre|post))$",
    re.IGNORECASE,
)
"""The last token of an id, if it names a frame, phase, time, session, visit, run, side, scan or date."""
_LIKELY = re.compile(rf"(?:[ _.\-]+(?:(?:{_LONG})[ _.]\d+|(?:{_SELDOM})-?\d+)|(?<=\d)[sfv]\d+)$", re.IGNORECASE)
"""A token that names one if what is in front of it names a patient: `site1_scan_001` is plain numbering."""
_PATIENT = re.compile(
    r"(?:^|[ _.\-])(?!t[12]$)(?:[a-z]{0,3}|subj(?:ect)?|patient|participant|person|volunteer|control|case)[-_ ]?\d+$",
    re.IGNORECASE,
)
_LONGEST_ID = 255
"""Letters; longer ids, which name no file, have no stem: a search for one takes the square of their length."""
_LAST = re.compile(r"[ _.\-]+(?!\d+$)[^ _.\-]*$")


def shared_stems(ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The ids that seem to be of one patient, by the stem that they share.

    A stem is what is left of an id without trailing tokens that name a frame, phase, time, session, visit, run, side,
    scan or date. At least two ids share it. Plain numbering has no stems. A token that all ids end in is passed over.
    A stem without a digit that all ids share names the data set.

    Example:
        >>> shared_stems(["P3_left", "P3_right", "P4_left"])
        {'P3': ('P3_left', 'P3_right')}
        >>> shared_stems(["sub-01_ses-1_run-1", "sub-01_ses-2_run-1", "hippocampus_001", "hippocampus_002"])
        {'sub-01': ('sub-01_ses-1_run-1', 'sub-01_ses-2_run-1')}
    """
    names = sorted(name for name in ids if len(name) <= _LONGEST_ID)
    stems = dict(zip(names, _without_common_end(names), strict=True))
    cuts = {name: _cuts(stem) for name, stem in stems.items()}
    counts = Counter(stem for name, found in cuts.items() for stem in {stems[name], *found})
    most = len(names) if len(names) > 2 else 3
    groups: dict[str, list[str]] = {}
    for name, found in cuts.items():
        valid = [stem for stem in found if any(map(str.isdigit, stem)) or counts[stem] < most]
        groups.setdefault(valid[-1] if valid else stems[name], []).append(name)
    return {stem: tuple(found) for stem, found in groups.items() if len(found) > 1}


def _cuts(name: str) -> list[str]:
    """The rest of an id, as one token after the other is cut off."""
    cuts: list[str] = []
    while found := _CERTAIN.search(name) or _LIKELY.search(name):
        stem = name[: found.start()]
        if not any(map(str.isalnum, stem)) or (found.re is _LIKELY and not _PATIENT.search(stem)):
            break
        cuts.append(stem)
        name = stem
    return cuts


def _without_common_end(names: Sequence[str]) -> list[str]:
    """The ids without the last tokens that all of them have, such as `_T1w`."""
    shorter = list(names)
    while len(shorter) > 1:
        ends = [_LAST.search(name) for name in shorter]
        if len({end and end[0] for end in ends}) > 1 or not all(end and end.start() for end in ends):
            break
        shorter = [name[: end.start()] for name, end in zip(shorter, ends, strict=True) if end]
    return shorter if len(set(shorter)) == len(names) else list(names)


def unstated_patients(dataset: Dataset) -> Mapping[str, tuple[str, ...]]:
    """The cases that seem to be of one patient, by what they share, of a data set that does not state its patients.

    They share the value of a column that is not read, such as `patient`; else the stem of their ids.
    """
    if dataset.has_groups:
        return {}
    return patients_in(dataset.columns)[1] or shared_stems(
        case.id for case in (*dataset.all_cases, *dataset.left_out)
    )


def patients_problem(dataset: Dataset) -> Problem | None:
    """The problem of a data set with unstated patients."""
    stems = unstated_patients(dataset)
    if not stems:
        return None
    if column := patients_in(dataset.columns)[0]:
        remedy = "call the column group, or give --group-by none if each case is a patient"
        return Problem(_CODE, "warning", "", "", column, column_text(column, stems), remedy)
    remedy = (
        "give --group-by stem (or --groups FILE) to keep each patient together, or --group-by none if each case is a "
        "patient"
    )
    return Problem(_CODE, "warning", "", "", "id", stems_text(stems), remedy)


def stems_text(stems: Mapping[str, Sequence[str]]) -> str:
    """Shared stems in words.

    Example:
        >>> stems_text(shared_stems(["P3_left", "P3_right"]))
        '2 cases seem to be of 1 patient by their ids: P3_left, P3_right (P3)'
    """
    few = listed((f"{listed(ids, limit=3)} ({stem})" for stem, ids in stems.items()), limit=2, separator="; ")
    count = sum(map(len, stems.values()))
    return f"{count} cases seem to be of {counted(len(stems), 'patient')} by their ids: {few}"


def column_text(column: str, patients: Mapping[str, Sequence[str]]) -> str:
    """Patients in a column that is not read, in words.

    Example:
        >>> column_text("patient", {"P3": ("a", "b")})
        '2 cases are of 1 patient by the column patient, which is not read: a, b (P3)'
    """
    few = listed((f"{listed(ids, limit=3)} ({name})" for name, ids in patients.items()), limit=2, separator="; ")
    count = sum(map(len, patients.values()))
    of_all = f"{count} cases are of {counted(len(patients), 'patient')}"
    return f"{of_all} by the column {column}, which is not read: {few}"


def require_stated_patients(dataset: Dataset) -> None:
    """Refuse a data set whose patients are not stated, though its ids share stems.

    Raises:
        DatasetError: It names the first patients and the options.
    """
    problem = patients_problem(dataset)
    if problem is not None:
        raise DatasetError(f"{problem.found}; {problem.remedy}", code=_CODE, field="group_by")


def check_grouping(how: str) -> None:
    """Refuse a grouping that cannot be.

    Raises:
        SettingsError: It is neither `stem`, `none` nor a regular expression.
    """
    try:
        re.compile(how)
    except re.error as error:
        raise SettingsError(
            f"group_by {how!r} is not a regular expression ({error}); give stem, none, or an expression such as "
            "'(patient[0-9]+)_'",
            field="group_by",
        ) from error


def chosen_grouping(
    groups: str | os.PathLike[str] | None, group_by: str | None
) -> tuple[str | os.PathLike[str] | None, str | None]:
    """The table of groups, and the rule by which groups follow from ids, of which at most one is given.

    `groups` may also be such a rule: `stem`, `none` or a regular expression that does not look like a file.

    Raises:
        SettingsError: Both are given, or the rule is no regular expression.

    Example:
        >>> chosen_grouping("patients.csv", None), chosen_grouping("stem", None)
        (('patients.csv', None), (None, 'stem'))
    """
    if groups is not None and group_by is not None:
        raise SettingsError(
            "groups and group_by are given together; give one of them", code="OPTIONS_TOGETHER", field="groups"
        )
    if isinstance(groups, str) and not Path(groups).suffix[1:].isalpha() and "/" not in groups:
        is_rule = groups in ("stem", "none") or bool(set(groups) & set("([{^$*+?|\\"))
        if is_rule and not os.path.exists(groups):  # noqa: PTH110 - an expression need not be a valid path
            groups, group_by = None, groups
    if group_by is not None:
        check_grouping(group_by)
    return groups, group_by


def grouped_by(dataset: Dataset, how: str) -> Dataset:
    """The data set with groups that follow from the ids; see `groups_from_ids`. Its own groups are replaced."""
    return dataset.with_groups(groups_from_ids([case.id for case in (*dataset.all_cases, *dataset.left_out)], how))


def require_distinct(groups: Mapping[str, str], *, source: str) -> None:
    """Refuse patients whose names a person would take for one: it would be on both sides of a split.

    Args:
        groups: The patient of each case.
        source: What states them, for the message.

    Raises:
        DatasetError: Two names differ only in letters of either case, blanks, signs that cannot be seen, the form of
            Unicode, leading zeros, or an ending such as `.0`.

    Example:
        >>> require_distinct({"a": "P7", "b": "P12", "c": "P7"}, source="groups.csv")
        >>> require_distinct({"a": "P7", "b": "p07"}, source="groups.csv")
        Traceback (most recent call last):
            ...
        medfcn.errors.DatasetError: groups.csv: 'P7' (a) and 'p07' (b) look like one patient, whose cases would be \
split; write each patient in one way, or tell them apart with groups=FILE
    """
    seen: dict[str, tuple[str, str]] = {}
    for case, name in groups.items():
        other, first = seen.setdefault(_plain(name), (name, case))
        if other != name:
            raise DatasetError(
                f"{source}: {other!a} ({first}) and {name!a} ({case}) look like one patient, whose cases would be "
                "split; write each patient in one way, or tell them apart with --groups FILE",
                code="GROUP_INVALID",
                field="group",
            )


def _plain(name: str) -> str:
    """A patient's name without what a person, a spreadsheet or pandas changes in it."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    text = re.sub(r"(?<=\d)\.0+$", "", " ".join(seen.split()).casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def idle_grouping(dataset: Dataset) -> Problem | None:
    """The warning of a grouping by which each case is a group of its own, as without it."""
    cases = (*dataset.all_cases, *dataset.left_out)
    if len(cases) < 2 or len({case.group for case in cases}) < len(cases):
        return None
    found = f"the grouping changes nothing: each of the {len(cases)} cases is a group (a patient) of its own"
    remedy = "look at the groups, or at the expression, or leave the option out"
    return Problem("GROUPS_ALONE", "warning", "", "", "group", found, remedy)


def groups_from_ids(ids: Iterable[str], how: str) -> dict[str, str]:
    """Groups that follow from ids, by id.

    Args:
        ids: The ids of all cases.
        how: `stem` groups the ids that share a stem; `none` makes each case a patient; else a regular expression,
            whose first group (else the whole match) is the patient.

    Returns:
        The groups of cases; a case that is not in it is a group of its own.

    Raises:
        SettingsError: `how` is not a regular expression.
        DatasetError: An id does not match.
    """
    check_grouping(how)
    if how == "stem":
        return {name: stem for stem, names in shared_stems(ids).items() for name in names}
    return {} if how == "none" else {name: _matched(how, name) for name in ids}


def _matched(how: str, name: str) -> str:
    found = re.search(how, name)
    group = "" if found is None else found[1 if found.re.groups else 0] or ""
    if not group:
        raise DatasetError(
            f"{name}: --group-by {how} does not match this id; change the expression, or give --groups FILE",
            code="GROUP_INVALID",
            field="group_by",
        )
    return group


def groups_from_table(path: str | os.PathLike[str], ids: Iterable[str]) -> dict[str, str]:
    """The groups in a table with the columns `id` and `group`, by id.

    Args:
        path: The CSV or TSV.
        ids: The cases that need a group.

    Raises:
        MissingFileError: There is no such file.
        DatasetError: An id has no group, or two; or two groups look like one.
    """
    ids = tuple(ids)
    table = read_table(Path(path), "id", "group")
    groups: dict[str, str] = {}
    for line, row in table.rows:
        name, group = row["id"], row["group"].strip()
        if not group or groups.setdefault(name, group) != group:
            found = f"line {line}: {name} has no group or two"
            raise DatasetError(f"{table.name}: {found}; give it one", code="GROUP_INVALID", field="group")
    missing = [name for name in ids if name not in groups]
    if missing:
        found = f"no group for {listed(missing, limit=3)}"
        raise DatasetError(f"{table.name}: {found}; add a line for each case", code="GROUP_INVALID", field="group")
    require_distinct({name: groups[name] for name in ids}, source=table.name)
    return groups
