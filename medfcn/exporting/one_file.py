"""`medfcn export RUN -o model.medfcn`: a run as one file, which `predict`, `load` and `--init` take in its place."""

from importlib.metadata import version
from pathlib import Path

from medfcn.byte_range import ByteRange
from medfcn.decoding import decode_csv
from medfcn.errors import ModelError
from medfcn.exporting.model_card import numbers_of
from medfcn.exporting.phantom import ANY_SIZE
from medfcn.exporting.source import Source
from medfcn.files import atomic_write, csv_bytes, json_bytes, make_folder
from medfcn.inference.card import read_card
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.model import Model
from medfcn.runs.cases import IMAGE_HASHES, LABEL_HASH, USES_OF_IMAGES, VOXEL_HASHES
from medfcn.runs.folder import RunFolder
from medfcn.runs.models import MODEL_CARD, models_in_archive
from medfcn.runs.one_file import archive_bytes
from medfcn.volumes import Volume


def write_one_file(path: Path, source: Source) -> None:
    """Write a model into one file, once it predicts a phantom to the last bit as the run does.

    The weights are those of the run, byte for byte, so masks of both have the same record. What names a case is left
    out: of its cases only the hashes of the images stay, and of the scores only figures.

    Args:
        path: The file.
        source: The run.

    Raises:
        ModelError: The file would predict something else.
        WriteError: The disk is full, or the folder may not be written to.
    """
    files: dict[str, bytes] = {}
    folders = [""]
    if len(source.files) > 1:
        folders = [f"fold_{number:03}/" for number in range(1, len(source.files) + 1)]  # they sort as they are
    for folder, model in zip(folders, source.files, strict=True):
        files[folder + RunFolder.card] = _without_ids(model.card)
        files[folder + RunFolder.weights] = model.weights.read()
        if (cases := model.cases) is not None:
            files[folder + RunFolder.cases] = _hashes_of(cases)
    make_folder(path.parent)
    with atomic_write(path) as file:
        file.write(archive_bytes({MODEL_CARD: source.text.encode(), **files}, medfcn=version("medfcn")))
        file.flush()
        _require_equal(source, Path(file.name))


def _without_ids(place: ByteRange) -> bytes:
    """A card without the names of cases; it decides the same masks."""
    card = read_card(place).to_json()
    training = {name: value for name, value in card["training"].items() if name != "partly_labelled"}
    return json_bytes(card | {"training": training, "validation": numbers_of(card["validation"])})


def _hashes_of(cases: ByteRange) -> bytes:
    """The hashes of the images that a network saw, by which a mask of one is known; nothing else of `cases.csv`."""
    remedy = "copy the run again"
    rows = decode_csv(cases.read(), ["use"], source=cases.name, error=ModelError, remedy=remedy)
    kinds = (IMAGE_HASHES, VOXEL_HASHES)
    names = [name for name in (rows[0] if rows else ()) if name.startswith(kinds) and name != LABEL_HASH]
    hashes = sorted((row["use"], *(row[name] for name in names)) for row in rows if row["use"] in USES_OF_IMAGES)
    return csv_bytes(["use", *names], hashes)


def _require_equal(source: Source, path: Path) -> None:
    """Refuse a file that predicts something else of the phantom than the run.

    Raises:
        ModelError: It does.
    """
    networks = [Model.load(files, device="cpu", transforms=source.transforms) for files in models_in_archive(path)]
    theirs = Ensemble(networks)
    for phantom in source.phantoms:
        if _bytes_of(source.loaded, phantom.volumes) != _bytes_of(theirs, phantom.volumes):
            raise ModelError(
                "the exported file predicts something else than the run on a phantom of "
                f"{'×'.join(map(str, phantom.mask.shape))} voxels; nothing was written"
            )


def _bytes_of(model: Ensemble, volumes: list[Volume]) -> list[bytes]:
    """The mask and the probabilities of a case."""
    found = model.predict_case(list(volumes), keep_probabilities=True, options=ANY_SIZE)
    return [array.tobytes() for array in (found.mask.array, found.probabilities) if array is not None]
