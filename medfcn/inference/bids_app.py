"""The levels of a BIDS App: masks of participants into one derivative, then its tables.

Source:
    Gorgolewski et al., BIDS Apps, PLoS Comput. Biol. 13(3), 2017: `app bids_dir output_dir participant|group`.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from medfcn.datasets import Case, find_inputs
from medfcn.datasets.bids_files import is_bids
from medfcn.errors import DatasetError, MissingFileError
from medfcn.inference.batch import Outcome, PredictionRun
from medfcn.inference.naming import BidsNames, own_name
from medfcn.inference.predict import predict_masks
from medfcn.inference.request import PredictRequest
from medfcn.inference.tables import write_tables
from medfcn.labels.sidecar import CHANGED, MaskRecord
from medfcn.runs.folder import LOGS_FOLDER
from medfcn.text import counted, listed, shown
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions


@dataclass(frozen=True, kw_only=True)
class BidsCases:
    """The cases of a BIDS App.

    Attributes:
        root: The BIDS data set.
        options: How volumes are read, and which files are meant.
        participants: Labels of subjects, with or without `sub-`; empty for all.
        sessions: Labels of sessions, with or without `ses-`; empty for all.
    """

    root: Path
    options: ReadOptions = DEFAULT_OPTIONS
    participants: Collection[str] = ()
    sessions: Collection[str] = ()

    def find(self) -> tuple[Case, ...]:
        """The cases.

        Raises:
            MissingFileError: There is no such folder.
            DatasetError: It is no BIDS data set, or has no such subject or session.
        """
        if not self.root.is_dir():
            raise MissingFileError(f"{self.root}: no such folder; give the root of a BIDS data set")
        if not is_bids(self.root):
            raise DatasetError(
                f"{self.root}: is no BIDS data set; give the folder of sub-<label>/", code="DATASET_LAYOUT"
            )
        cases = find_inputs(self.root, bids=self.options.bids)
        for key, wanted, option in (
            ("sub", self.participants, "participant_label"),
            ("ses", self.sessions, "session_label"),
        ):
            cases = _with(cases, key, [label.removeprefix(f"{key}-") for label in wanted], option, self.root)
        return cases


def _with(cases: tuple[Case, ...], key: str, labels: Collection[str], option: str, root: Path) -> tuple[Case, ...]:
    """The cases with one of some labels; all of them where none is given."""
    if not labels:
        return cases
    names = {case.id: own_name(case) for case in cases}
    values = {case: "" if name is None else name.entities.get(key, "") for case, name in names.items()}
    absent = sorted(set(labels) - set(values.values()))
    if absent:
        known = listed(sorted({value for value in values.values() if value}), limit=20)
        raise DatasetError(
            f"{shown(root)}: no {key}-{absent[0]}; there are {known or 'none'}", code="CASES_UNKNOWN", field=option
        )
    return tuple(case for case in cases if values[case.id] in labels)


def participant_level(request: PredictRequest, cases: BidsCases) -> PredictionRun:
    """Predict the masks of some participants into a derivative, in which those of others may be already.

    Masks that the same model made of the same images are kept. Several commands may work on one derivative at once.

    Raises:
        MedfcnError: As `medfcn.predict`; or there is no such participant.
    """
    ids = [case.id for case in cases.find()]
    whole = replace(request, source=cases.root, format="bids", resume=True, cases=ids, options=cases.options)
    return predict_masks(whole, has_tables=False)


def group_level(cases: BidsCases, output: Path) -> tuple[int, tuple[str, ...]]:
    """Write the tables of a derivative from the records beside its masks.

    Returns:
        The number of masks, and the ids of the cases without one, which `failures.csv` lists.

    Raises:
        MissingFileError: There is no mask.
        DatasetError: As `BidsCases.find`.
    """
    names, found = BidsNames(output), cases.find()
    named = {case.id: case for case in found}
    masks = {name: output / names.mask(case) for name, case in named.items()}
    records = {name: MaskRecord.of_file(mask) if mask.is_file() else None for name, mask in masks.items()}
    changed = [name for name, record in records.items() if record is not None and CHANGED in record.notes]
    records.update(dict.fromkeys(changed))  # the sizes and the confidence that were recorded are of another mask
    without = tuple(sorted(name for name, record in records.items() if record is None))
    if len(without) == len(named):
        raise MissingFileError(
            f"{output}: no mask of these {counted(len(named), 'case')} is in it; run the participant level first",
            code="MASKS_MISSING",
            field="output",
        )
    reasons = {name: named[name].lacks or "no mask: the participant level has not made it" for name in without}
    reasons |= dict.fromkeys(changed, f"{CHANGED}; the participant level makes it again")
    outcomes = [Outcome(name, "failed" if name in reasons else "kept", reasons.get(name, "")) for name in named]
    having = {name: record for name, record in records.items() if record is not None}
    (output / LOGS_FOLDER).mkdir(exist_ok=True)
    write_tables(output / LOGS_FOLDER, outcomes, having)
    return len(having), without
