"""Volumes that seem to be of patients whom a model was trained on: another frame, visit or side of one."""

import re
from collections.abc import Mapping, Sequence

from medfcn.datasets import Case
from medfcn.datasets.patients import shared_stems
from medfcn.runs.cases import TRAINING, ListedCase, cases_listed
from medfcn.runs.models import ModelFiles

_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+(?=_|$)")


def of_training_patients(models: Sequence[ModelFiles], cases: Sequence[Case]) -> frozenset[str]:
    """The ids of the cases that seem to be of a training patient of some models; training cases are among them.

    A run folder lists its cases with their patients. A case is of one of these if its id is listed with that patient,
    if the data set states so, or if the ids share a stem (`P3_left`, `P3_right`) or a subject of BIDS. A model in one
    file lists no ids.

    Args:
        models: The files of each network.
        cases: Those to predict.
    """
    found: set[str] = set()
    for model in models:
        found |= _of_model(cases_listed(model.cases), cases)
    return frozenset(found)


def _of_model(listed: Sequence[ListedCase], cases: Sequence[Case]) -> set[str]:
    trained = {one.case: one.patient for one in listed if one.use == TRAINING}
    patients = set(trained.values())
    patient_of = {one.case: one.patient for one in listed}
    found = {case.id for case in cases if patient_of.get(case.id) in patients or case.group in patients}
    groups = {case.group for case in cases if case.id in found}
    found |= {case.id for case in cases if case.group in groups}
    # What the run lists says more than a stem; and where its ids share stems without a patient, each is a patient.
    if patients != set(trained) or not shared_stems(trained):
        found |= _alike([case.id for case in cases if case.id not in patient_of], trained)
    return found


def _alike(unlisted: Sequence[str], trained: Mapping[str, str]) -> set[str]:
    """Those of some ids that share a stem, or a subject of BIDS, with ids of training cases."""
    stems = shared_stems([*unlisted, *trained]).values()
    alike = {name for members in stems if any(name in trained for name in members) for name in members}
    subjects = {subject[0] for name in trained if (subject := _SUBJECT.match(name))}
    alike |= {name for name in unlisted if (subject := _SUBJECT.match(name)) and subject[0] in subjects}
    return alike.intersection(unlisted)
