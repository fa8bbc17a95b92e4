"""`medfcn export --format bundle`: a MONAI Bundle, which MONAI runs without medfcn."""

import io
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import torch

from medfcn.errors import ModelError
from medfcn.exporting.bundle_files import (
    INFERENCE_FILE,
    METADATA_FILE,
    SCHEMA_FILE,
    inference_config,
    metadata,
    refuse_existing_bundle,
    schema,
)
from medfcn.exporting.one_view import ANYWHERE, exportable, require_alike, template
from medfcn.exporting.plain_network import plain_looks, plain_network
from medfcn.exporting.source import Source
from medfcn.files import json_bytes, make_folder, write_bytes, write_error
from medfcn.libraries import require_installed
from medfcn.memory_errors import raise_shortage
from medfcn.networks.graph import quiet_export
from medfcn.systems import sync_folder
from medfcn.volumes import read_volume

_SCRIPTS = "scripts"


def write_bundle(folder: Path, source: Source, *, overwrite: bool) -> None:
    """Write a bundle, once MONAI has run it on a phantom and its masks are those of the run.

    Args:
        folder: The bundle's folder.
        source: The run.
        overwrite: Replace an older bundle.

    Raises:
        ModelError: The run needs more than the bundle can do, or both predict differently.
        MissingFileError: A library is not installed.
        OutputExistsError: The folder exists, and is no bundle that may be replaced.
        WriteError: The disk is full, or the folder may not be written to.
    """
    refuse_existing_bundle(folder, overwrite=overwrite)
    require_installed("bundle")
    contents = bundle_contents(source)
    make_folder(folder.parent)
    try:
        begun = Path(mkdtemp(dir=folder.parent, prefix=f".{folder.name[:80]}."))
        try:
            for name, content in contents.items():
                (begun / name).parent.mkdir(exist_ok=True)
                write_bytes(begun / name, content)
            _require_verified(begun)
            _require_alike(source, begun)
            begun.chmod(0o755)
            _put(begun, folder)
        finally:
            shutil.rmtree(begun, ignore_errors=True)
    except OSError as error:
        raise write_error(error, folder) from error


def bundle_contents(source: Source) -> dict[str, bytes]:
    """The files of a bundle by their paths in it.

    Raises:
        ModelError: The run needs more than a bundle can do.
    """
    model = exportable(source, "a MONAI Bundle")
    plain, looks = plain_network(model.network), plain_looks(model.card.plan, model.head)
    weights = io.BytesIO()
    torch.save({name: value.cpu().contiguous() for name, value in plain.weights.items()}, weights)
    return {
        METADATA_FILE: json_bytes(metadata(source, model)),
        INFERENCE_FILE: json_bytes(inference_config(model)),
        SCHEMA_FILE: json_bytes(schema()),
        "docs/README.md": source.text.encode(),
        "models/model.pt": weights.getvalue(),
        f"{_SCRIPTS}/__init__.py": b"",
        f"{_SCRIPTS}/network.py": plain.source.encode(),
        **{f"{_SCRIPTS}/{name}.py": text.encode() for name, text in looks.items()},
        f"{_SCRIPTS}/steps.py": template("bundle_steps.txt").encode(),
    }


def _put(begun: Path, folder: Path) -> None:
    """Give a finished bundle its name; an older one of that name is removed when the new one is there."""
    for inner in (*begun.iterdir(), begun):
        sync_folder(inner)
    if not folder.exists():
        begun.rename(folder)
    else:
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name[:80]}.", ignore_cleanup_errors=True) as old:
            folder.rename(Path(old) / "replaced")
            begun.rename(folder)
    sync_folder(folder.parent)


def _require_verified(folder: Path) -> None:
    """Refuse metadata that MONAI does not accept.

    Raises:
        ModelError: It does not.
    """
    from monai.bundle import verify_metadata

    with quiet_export(logging.CRITICAL):
        try:
            verify_metadata(meta_file=str(folder / METADATA_FILE), filepath=str(folder / SCHEMA_FILE))
        except ValueError as error:
            raise ModelError(f"MONAI does not accept the metadata of the bundle: {error}") from error


def _require_alike(source: Source, folder: Path) -> None:
    """Refuse a bundle with which MONAI makes other masks of the phantom than the run."""
    with TemporaryDirectory() as place:
        data, masks, cases = Path(place) / "data", Path(place) / "masks", {}
        data.mkdir()
        for number, phantom in enumerate(source.phantoms):
            names = [f"phantom{number}_{channel:04}" for channel in range(len(phantom.volumes))]
            cases[names[0] if len(names) == 1 else names[0][:-5]] = phantom
            for volume, name in zip(phantom.volumes, names, strict=True):
                volume.save(data / f"{name}.nii.gz")
        run_bundle(folder, data, masks, steps=ANYWHERE)
        for case, phantom in cases.items():
            require_alike(phantom, read_volume(masks / f"{case}.nii.gz").array, "MONAI's")


def run_bundle(folder: Path, data: Path, masks: Path, *, steps: Mapping[str, Any] | None = None) -> None:
    """Run a bundle as `python -m monai.bundle run` does, in this process.

    Args:
        folder: The bundle.
        data: The folder of the volumes.
        masks: The folder for the masks.
        steps: Facts for its steps in place of those in its configuration.

    Raises:
        ModelError: MONAI cannot run it.
    """
    from monai.bundle import ConfigWorkflow

    places: dict[str, Any] = {"bundle_root": str(folder), "dataset_dir": str(data), "output_dir": str(masks)}
    places |= {f"steps#{name}": value for name, value in (steps or {}).items()}
    with quiet_export(logging.CRITICAL), _own_scripts():
        try:
            workflow = ConfigWorkflow(
                config_file=str(folder / INFERENCE_FILE),
                meta_file=str(folder / METADATA_FILE),
                logging_file=False,
                workflow_type="inference",
                device="cpu",
                **places,
            )
            workflow.initialize()
            workflow.run()
        except Exception as error:  # whatever MONAI or ignite raises
            raise_shortage(error)
            raise ModelError(f"MONAI cannot run the bundle: {error}", field="format") from error


@contextmanager
def _own_scripts() -> Iterator[None]:
    """Let `scripts` be that of a bundle, and afterwards what it was."""

    def named() -> list[str]:
        return [name for name in sys.modules if name == _SCRIPTS or name.startswith(f"{_SCRIPTS}.")]

    before, path = {name: sys.modules.pop(name) for name in named()}, list(sys.path)
    try:
        yield
    finally:
        for name in named():
            del sys.modules[name]
        sys.modules.update(before)
        sys.path[:] = path
