"""Masks made again from the records beside them, byte for byte.

Everything but the files comes from a record: models and volumes are found by its hashes, wherever they lie now.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medfcn.datasets import Case
from medfcn.datasets.by_hash import find_by_hash
from medfcn.errors import MedfcnError, MissingFileError, ModelError, SettingsError
from medfcn.inference.batch import Outcome, PredictionRun
from medfcn.inference.card import Card, read_card
from medfcn.inference.case import READ_STRICTLY
from medfcn.inference.devices import MOST_THREADS, choose_device
from medfcn.inference.engines import require_possible
from medfcn.inference.ineffective_options import mirrors_of
from medfcn.inference.model import Model
from medfcn.inference.postprocessing import rules_of
from medfcn.inference.predict import Given, predict_masks
from medfcn.inference.request import PredictRequest, Sidecars
from medfcn.inference.tables import write_tables
from medfcn.labels.sidecar import MaskRecord
from medfcn.progress import Progress, reporting, warn
from medfcn.runs.arithmetic import Arithmetic, Wanted
from medfcn.runs.models import ModelFiles, Runs, models_below
from medfcn.slices.views import parse_views
from medfcn.text import listed
from medfcn.volumes import ReadOptions

_DECIDED = ("probabilities", "tta", "views", "cases", "colours", "seg_nrrd", "uncertainty", "shard", "finish")
"""Options that a record decides, or that divide cases which the records choose."""


@dataclass(frozen=True)
class Remake:
    """Masks of one origin but for their volumes.

    Attributes:
        request: A request that makes them.
        given: Their cases, and the hashes of the masks.
    """

    request: PredictRequest
    given: Given


def remake_masks(request: PredictRequest) -> PredictionRun:
    """Make the masks of `request.again` again, byte for byte.

    A mask that comes out with other bytes is a failure of its case, and is not kept. A missing volume is one too,
    unless all are missing.

    Raises:
        MissingFileError: No model has the weights of a record, or no volume has the hash of any.
        ModelError: A model has the weights and another card.
        SettingsError: A record is none, an option is given that a record decides, or the record is of an engine or a
            precision that is not here.
    """
    results: list[PredictionRun] = []
    for remake in _remakes_of(request, reporting(request.progress)):
        results.append(predict_masks(remake.request, replace(remake.given, is_more=bool(results))))
    return results[0] if len(results) == 1 else _together(results)


def _together(results: Sequence[PredictionRun]) -> PredictionRun:
    """The result of several predictions into one folder, whose tables get the rows of all."""
    first = results[0]
    inputs = {case: files for result in results for case, files in sorted(result.inputs.items())}
    failed = dict(pair for result in results for pair in result.failures)
    outcomes = [
        Outcome(case, "failed" if case in failed else "kept", failed.get(case, "")) for case in sorted(inputs)
    ]
    having = [outcome.case for outcome in outcomes if outcome.case not in failed]
    records = {case: MaskRecord.beside(first.output / f"{case}.nii.gz") for case in having}
    review = write_tables(first.output, outcomes, {case: one for case, one in records.items() if one is not None})

    def all_of(name: str) -> tuple[Any, ...]:
        return tuple(sorted(item for result in results for item in getattr(result, name)))

    return PredictionRun(
        first.output,
        predicted=all_of("predicted"),
        skipped=all_of("skipped"),
        failures=all_of("failures"),
        flags=all_of("flags"),
        review=review,
        inputs=inputs,
        others=all_of("others"),
        training_cases=all_of("training_cases"),
        chosen_cases=all_of("chosen_cases"),
        training_patients=all_of("training_patients"),
    )


def read_records(sidecars: Sidecars) -> dict[str, MaskRecord]:
    """The records of masks to be made again, by the path of the file.

    Args:
        sidecars: `<case>.json` files, or folders of them.

    Raises:
        MissingFileError: There is no such file or folder, or no record in it.
        SettingsError: A file is no record, or has no hash of a mask; or two are of one case.
    """
    found: dict[str, MaskRecord] = {}
    for given in [sidecars] if isinstance(sidecars, str | Path) else sidecars:
        place = Path(given)
        if not place.exists():
            raise MissingFileError(f"{place}: no such file; give the <case>.json beside a mask, or the masks' folder")
        inside = (
            [path for path in sorted(place.glob("*.json")) if MaskRecord.is_in(path)] if place.is_dir() else [place]
        )
        if not inside:
            raise MissingFileError(f"{place}: contains no <case>.json of a mask; give the folder of the masks")
        found |= {str(path): _record_in(path) for path in inside}
    cases: dict[str, str] = {}
    for path, record in found.items():
        if (other := cases.setdefault(record.case, path)) != path:
            raise SettingsError(f"{path}: is of the case {record.case}, as {other} is; give one", field="again")
    return found


def _record_in(path: Path) -> MaskRecord:
    record = MaskRecord.beside(path.with_suffix(".nii.gz"))
    if record is None or not (record.mask_sha256 and record.input_sha256 and record.model_sha256):
        raise SettingsError(
            f"{path}: is no record of a mask that medfcn predict wrote; give the <case>.json beside one",
            field="again",
        )
    if record.case != Path(record.case).name or record.case.startswith("."):
        raise SettingsError(f"{path}: case {record.case!r} cannot be the name of a file; correct it", field="case")
    return record


def _remakes_of(request: PredictRequest, progress: Progress) -> tuple[Remake, ...]:
    """The requests that make masks again, with the errors of `remake_masks`."""
    records = read_records(request.again or ())
    _refuse_decided(request)
    groups: dict[object, dict[str, MaskRecord]] = defaultdict(dict)
    for path, record in records.items():
        _require_possible(path, record, request)
        groups[_origin_of(record)][path] = record
    _require_one_arithmetic(records)
    _say_other(records.values(), request, progress)
    hashes = {digest for record in records.values() for digest in record.input_sha256}
    files = find_by_hash(request.source, hashes, likely=[record.case for record in records.values()])
    first = next(iter(records))
    if all(_missing(record, files) for record in records.values()):
        raise MissingFileError(f"{first}: {_missing(records[first], files)}", code="FILE_MISSING", field="source")
    models = _Models(request.runs, request)
    return tuple(_remake(request, group, files, models) for group in groups.values())


def _refuse_decided(request: PredictRequest) -> None:
    given = [name for name in _DECIDED if getattr(request, name) not in (None, False)]
    if request.options != READ_STRICTLY:
        given.append("options")
    if given:
        raise SettingsError(
            f"again: {listed(given)} given too, which the records beside the masks decide; leave it out",
            field=given[0],
        )


def _require_possible(path: str, record: MaskRecord, request: PredictRequest) -> None:
    """Refuse a record of a mask that this request cannot make."""
    arithmetic = Arithmetic.of_record(record, source=path)
    request.wanted.refuse_other(arithmetic, path)
    require_possible(arithmetic, choose_device(Wanted(arithmetic.engine).device(request.device)))
    if not 1 <= (record.threads or 1) <= MOST_THREADS:
        raise ModelError(
            f"{path}: threads is {record.threads}; expected 1 to {MOST_THREADS}; take the record that was written "
            "with the mask",
            field="threads",
        )
    if request.threads not in (1, record.threads or 1):
        raise SettingsError(
            f"{path}: made with {record.threads} threads, and {request.threads} are given; leave them out, the "
            "record decides",
            field="threads",
        )


def _require_one_arithmetic(records: Mapping[str, MaskRecord]) -> None:
    """Refuse records of several engines or precisions, because an output folder has one."""
    found = sorted({str(Arithmetic.of_record(record, source=path)) for path, record in records.items()})
    if len(found) > 1:
        raise SettingsError(
            f"again: the records are of {listed(found, separator=' and of ')}; give those of one, and the others "
            "with an output of their own",
            field="again",
        )


def _say_other(known: Collection[MaskRecord], request: PredictRequest, progress: Progress) -> None:
    """Say what is other here than where the masks were made, and can change a voxel."""
    here = {
        "the version": ({record.medfcn for record in known}, version("medfcn")),
        "the device": ({record.device for record in known}, choose_device(request.device).type),
    }
    for what, (then, now) in here.items():
        if other := sorted(value for value in then if value not in (None, now)):
            warn(
                progress, f"{what} is {now} here and was {listed(other)}: a mask that comes out otherwise is refused"
            )
    threads = sorted({record.threads for record in known if record.threads not in (None, 1)}, key=str)
    if threads:
        progress.say(f"{listed(threads)} threads, as recorded")


def _origin_of(record: MaskRecord) -> object:
    """Everything that must be the same for masks that are made together."""
    reading = tuple(sorted((record.reading or {}).items()))
    how = (
        record.threshold,
        record.threads,
        record.tta,
        record.mirrors,
        record.views,
        bool(record.probabilities_sha256),
    )
    further = (record.probabilities_sha256, record.seg_nrrd_sha256, record.uncertainty_sha256)
    looks = (record.label_table, str(record.colours), *map(bool, further))
    return record.model_sha256, record.card_sha256, str(reading), how, looks


class _Models:
    """The models below some folders, by their weights."""

    def __init__(self, runs: Runs, request: PredictRequest) -> None:
        self._runs, self._request = runs, request
        self._by_weights: dict[str, list[ModelFiles]] = defaultdict(list)
        for files in models_below(runs):
            try:
                self._by_weights[read_card(files.card).weights_sha256].append(files)
            except (MedfcnError, OSError):  # another one may be the right one
                continue

    def of(self, record: MaskRecord) -> tuple[tuple[ModelFiles, Card], ...]:
        """The models of a record with their cards, cut down to its views, in its order."""
        cards = record.card_sha256 or (None,) * len(record.model_sha256)
        return tuple(
            self._one(record, weights, card) for weights, card in zip(record.model_sha256, cards, strict=False)
        )

    def _one(self, record: MaskRecord, weights: str, card: str | None) -> tuple[ModelFiles, Card]:
        found = self._by_weights.get(weights, [])
        if not found:
            raise MissingFileError(
                f"{record.case}: no model has the weights {weights[:12]}… of its record; give the folder of that run",
                code="FILE_MISSING",
                field="runs",
            )
        for files in found:
            model = Model.load(files, device=self._request.device, transforms=self._request.transforms)
            views = None if record.views is None else parse_views(record.views)
            seen = model if views is None or isinstance(views, str) else model.with_views(views)
            if card in (None, seen.card.decision_sha256):
                return files, seen.card
        raise ModelError(
            f"{record.case}: the model with the weights {weights[:12]}… has another {found[0].card.name} than its "
            "record; give the run as it was",
            field="runs",
        )


def _remake(
    request: PredictRequest, group: Mapping[str, MaskRecord], files: Mapping[str, Path], models: _Models
) -> Remake:
    """The request of masks of one origin."""
    first = next(iter(group.values()))
    found = models.of(first)
    cards = [card for _, card in found]
    tta = None if mirrors_of(cards, tta=None) == first.mirrors else (first.tta or first.mirrors is not None)
    _refuse_edited(next(iter(group)), first, cards, tta=tta)
    remedy = "use the medfcn that wrote it"
    arithmetic = Arithmetic.of_record(first, source=first.case)
    options = ReadOptions.of_record(first.reading or {}, source=next(iter(group)), error=SettingsError, remedy=remedy)
    return Remake(
        replace(
            request,
            runs=tuple(one for one, _ in found),
            tta=tta,
            views=first.views,
            probabilities=bool(first.probabilities_sha256),
            engine=arithmetic.engine,
            precision=arithmetic.precision,
            fold_norm=arithmetic.folded if arithmetic.can_be_folded else None,
            threads=first.threads or 1,
            label_table=bool(first.label_table),
            colours=first.colours,
            uncertainty=bool(first.uncertainty_sha256),
            seg_nrrd=bool(first.seg_nrrd_sha256),
            options=options,
            again=None,
        ),
        Given(
            tuple(_case_of(record, files) for record in group.values()),
            {record.case: record.mask_sha256 for record in group.values()},
        ),
    )


def _refuse_edited(path: str, record: MaskRecord, cards: Sequence[Card], *, tta: bool | None) -> None:
    """Refuse a record that says otherwise than its models how they decide.

    Raises:
        SettingsError: It does, and was edited, most likely.
    """
    own, mirrors = rules_of(cards).threshold, mirrors_of(cards, tta=tta)
    decided: dict[str, tuple[object, object]] = {
        "threshold": (record.threshold, own),
        "tta": (record.tta, bool(mirrors)),
    }
    if record.mirrors is not None:
        decided["mirrors"] = (list(record.mirrors), list(mirrors or ()))
    for name, (said, used) in decided.items():
        if said not in (None, used):
            raise SettingsError(
                f"{path}: {name} is {said}, and the model of that mask has {used}; take the record that was written "
                "with the mask",
                field=name,
            )


def _missing(record: MaskRecord, files: Mapping[str, Path]) -> str:
    """A line on a volume of a record that is missing, and what to do; empty if none is."""
    for digest in record.input_sha256:
        if digest not in files:
            return f"no volume has the hash {digest[:12]}… of its record; give the folder of that volume"
    return ""


def _case_of(record: MaskRecord, files: Mapping[str, Path]) -> Case:
    """The case of a record; if a volume is missing without any, and with what it lacks: one failure of a folder."""
    lacks = _missing(record, files)
    images = () if lacks else tuple(files[digest] for digest in record.input_sha256)
    return Case(record.case, images, None, record.case, lacks=lacks)
