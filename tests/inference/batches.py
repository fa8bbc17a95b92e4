"""A folder of volumes for batches: small, quickly predicted, some of them no volumes."""

from collections.abc import Collection
from pathlib import Path

from medfcn.runs.folder import TIMING_FILE
from medfcn.verbs import predict
from tests.inference.models import blobs, saved, tiny_model, write_image

Batch = tuple[Path, Path, dict[str, bytes]]
"""A run, volumes, and the output of one process."""


def a_batch(folder: Path, count: int, bad: Collection[str]) -> Batch:
    """Make a run and volumes, and predict them in one process."""
    run = saved(tiny_model(), folder / "run")
    for number in range(count):
        write_image(folder / "images" / f"case_{number:02d}.nii.gz", blobs((20, 18, 5), seed=number))
    for name in bad:
        (folder / "images" / f"{name}.nii.gz").write_bytes(b"no volume")
    predict(run, folder / "images", folder / "clean", device="cpu", jobs=1)
    return run, folder / "images", content(folder / "clean")


def content(folder: Path, *, without: str = "") -> dict[str, bytes]:
    """Every file but the one that differs from run to run, and those in an inner folder that is left out."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes()
        for name, path in found.items()
        if name.name != TIMING_FILE and name.parts[0] != without
    }
