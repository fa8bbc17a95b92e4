"""The data that pages of the documentation speak of: phantoms in the places that the pages name."""

import csv
import shutil
from collections.abc import Callable, Sequence, Set
from pathlib import Path

import nibabel
import numpy as np
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.settings import NetworkSettings, Settings
from tests.conftest import draw_ball, write_case

ROOT = Path(__file__).resolve().parents[1]
NARROW = "[network]\nwidth = 0.0625\n"
TINY = f'{NARROW}preset = "fcn8s"\n'
_AT_LEFT = np.array([[0.0, 0, 0, 40], [0, 0, 0, -60], [0, 0, 0, -50], [0, 0, 0, 0]])
SMALL = Settings(network=NetworkSettings(width=0.25))


def make_place(name: str, root: Path, shared: Path, made: Set[str] = frozenset()) -> None:
    """Lay out the data of a page.

    Args:
        name: The place.
        root: The folder in which the page is run.
        shared: A trained network and its masks, from `make_shared`.
        made: What the page makes itself.
    """
    (root / "narrow.toml").write_text(NARROW)
    (root / "tiny.toml").write_text(TINY)
    _PLACES[name](root, shared)
    for path in made:
        shutil.rmtree(root / path, ignore_errors=True)


def make_shared(root: Path) -> None:
    """What costs most and never changes: a network, and masks of it."""
    _cases(root / "dataset", [f"case_{number:03d}" for number in range(1, 9)])
    _cases(root / "new", ["image", "new_2", "new_3"], first=20)
    (root / "new" / "images").rename(root / "new_volumes")
    (root / "new" / "labels").rename(root / "references")
    medfcn.train(
        root / "dataset",
        root / "runs/hippocampus",
        labels="hippocampus=1+2",
        settings=SMALL,
        steps=10,
        device="cpu",
        threads=1,
        report=False,
    )
    for folder in ("masks", "other_masks"):
        _medfcn("predict", root / "runs/hippocampus", root / "new_volumes", "-o", root / folder)


def _medfcn(*words: object) -> None:
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output


def _cases(folder: Path, ids: Sequence[str], *, first: int = 0) -> None:
    """A ball in two halves, labels 1 and 2, for each id."""
    for number, case in enumerate(ids, start=first):
        image, mask = draw_ball(number)
        mask[mask.shape[0] // 2 :] *= 2
        write_case(folder, case, image, mask)


def _table(path: Path, *rows: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _common(root: Path, shared: Path) -> None:
    for path in ("dataset", "new_volumes", "references", "runs/hippocampus", "masks", "other_masks"):
        shutil.copytree(shared / path, root / path)
    shutil.copy(shared / "new_volumes/image.nii.gz", root)
    for case in ("case_017", "volume"):
        shutil.copy(shared / "new_volumes/new_2.nii.gz", root / f"{case}.nii.gz")
    _table(root / "pairs.csv", ["before", "after"], ["image", "new_2"])
    (root / "data.md").write_text("Phantoms, in the public domain.\n")


def _portable(root: Path, shared: Path) -> None:
    _common(root, shared)
    shutil.copytree(root / "runs/hippocampus", root / "MODEL")
    shutil.copytree(root / "new_volumes", root / "volumes")
    image, _ = draw_ball(3, (110, 80, 60))
    nibabel.save(nibabel.Nifti1Image(image, np.diag([-1.0, 1.0, 1.5, 1.0]) + _AT_LEFT), root / "head.nii.gz")  # type: ignore[attr-defined]


def _hearts(root: Path, shared: Path) -> None:
    ids = [f"patient{patient:03d}_frame{frame:02d}" for patient in range(1, 9) for frame in (1, 12)]
    _cases(root / "hearts", ids)
    _table(root / "groups.csv", ["id", "group"], *([case, case.split("_")[0]] for case in ids))
    _table(
        root / "cohort.csv", ["id", "scanner"], *([case, "AB"[number % 4 // 2]] for number, case in enumerate(ids))
    )
    (root / "test.txt").write_text("patient007\npatient008\n")


def _scribbles(root: Path, shared: Path) -> None:
    for number in range(8):
        image, mask = draw_ball(number)
        drawn = np.full_like(mask, 255)
        drawn[::6, :, 1::5] = mask[::6, :, 1::5]
        write_case(root / "scribbles", f"case_{number}", image, drawn)
    _cases(root / "whole", ["new_1", "new_2"], first=30)
    shutil.copytree(root / "whole/images", root / "new_volumes")
    for number in (30, 31):
        image, mask = draw_ball(number)
        write_case(root / "single", f"new_{number - 29}", image, mask)
    shutil.copytree(root / "single/labels", root / "references")


def _petct(root: Path, shared: Path) -> None:
    for folder, ids in (("petct", [f"p{number:02d}" for number in range(1, 7)]), ("new", ["p99"])):
        for number, case in enumerate(ids):
            image, mask = draw_ball(number)
            write_case(root / folder, f"{case}_0000", (image - 1000).astype(np.int16), mask)
            write_case(root / folder, f"{case}_0001", image, mask)
            labels = root / folder / "labels"
            (labels / f"{case}_0000.nii.gz").rename(labels / f"{case}.nii.gz")
            (labels / f"{case}_0001.nii.gz").unlink()
    (root / "new/images").rename(root / "new_petct")
    for place, kind in enumerate(("ct", "pet")):
        (root / "scans").mkdir(exist_ok=True)
        shutil.copy(root / f"petct/images/p01_{place:04d}.nii.gz", root / f"scans/p01_{kind}.nii.gz")


def _samples(root: Path, shared: Path) -> None:
    (root / "sample_data").symlink_to(ROOT / "sample_data")


_PLACES: dict[str, Callable[[Path, Path], None]] = {
    "common": _common,
    "hearts": _hearts,
    "scribbles": _scribbles,
    "petct": _petct,
    "portable": _portable,
    "samples": _samples,
}
