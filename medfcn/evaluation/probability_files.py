"""The volumes that `predict` wrote with a mask: probabilities and uncertainty of its labels."""

from collections.abc import Sequence
from pathlib import Path

from medfcn.datasets.bids_files import PROBABILITIES, SEGMENTATIONS, BidsFile
from medfcn.files import sha256_of
from medfcn.labels.sidecar import MaskRecord
from medfcn.runs.folder import DISAGREEMENT, ENTROPY, PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER
from medfcn.volumes.names import stem_of


def probabilities_beside(mask: Path, record: MaskRecord) -> tuple[Path, ...]:
    """The file of each label's probabilities, in the labels' order; none if one is missing or is not this mask's."""
    hashes = record.probabilities_sha256
    if not hashes or len(hashes) != len(_stems(mask, record)):
        return ()
    flat = [mask.parent / PROBABILITIES_FOLDER / f"{stem}.nii.gz" for stem in _stems(mask, record)]
    own = _bids_name(mask)
    if own is None or all(path.is_file() for path in flat):
        return _of_these_hashes(flat, hashes)
    # Names of BIDS have words of the labels' names, so the hashes tell which label a file is of.
    found = {
        sha256_of(path): path
        for path in sorted(mask.parent.glob("*.nii.gz"))
        if (name := BidsFile.at(path)) and name.suffix == PROBABILITIES and name.id == own.id
    }
    return tuple(found[sha256] for sha256 in hashes) if found.keys() >= set(hashes) else ()


def uncertainty_beside(mask: Path, record: MaskRecord, what: str) -> tuple[Path, ...]:
    """The file of each label's entropy or disagreement (`what`); none if one is missing or is not this mask's."""
    stems = _stems(mask, record)
    # The record has the hashes of all entropies, then those of all disagreements.
    place = (ENTROPY, DISAGREEMENT).index(what) * len(stems)
    hashes = (record.uncertainty_sha256 or ())[place : place + len(stems)]
    return _of_these_hashes([mask.parent / UNCERTAINTY_FOLDER / f"{stem}_{what}.nii.gz" for stem in stems], hashes)


def _bids_name(mask: Path) -> BidsFile | None:
    own = BidsFile.at(mask)
    return own if own is not None and own.suffix in SEGMENTATIONS else None


def _stems(mask: Path, record: MaskRecord) -> list[str]:
    entries = record.labels.entries if record.labels is not None else ()
    return [f"{stem_of(mask)}_{entry.written}" if len(entries) > 1 else stem_of(mask) for entry in entries]


def _of_these_hashes(paths: Sequence[Path], hashes: Sequence[str]) -> tuple[Path, ...]:
    if not paths or len(hashes) != len(paths) or not all(path.is_file() for path in paths):
        return ()
    return tuple(paths) if [sha256_of(path) for path in paths] == list(hashes) else ()
