"""Compares two installs of medfcn: do they make the same weights, masks and scores, byte for byte?

    python benchmarks/same_bytes.py DATA LABELS OUTPUT --before FOLDER --after FOLDER [--steps 300] [--predict IMAGES]

`--before` and `--after` are folders that contain the package `medfcn`: a checkout, or the result of `pip install
--target FOLDER --no-deps .`. Each trains on DATA with one thread and the same seed, then predicts IMAGES. The exit
status is 1 if a file differs.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from measured import run_measured, training_words, two_installs

COMPARED = ("model.safetensors", "validation/*.nii.gz", "validation/scores.csv", "masks/*.nii.gz")


def make(package: Path, arguments: argparse.Namespace, folder: Path) -> float:
    """Train and predict with one install; CPU seconds of the training."""
    command = [sys.executable, "-m", "medfcn"]
    variables = {"PYTHONPATH": str(package.resolve()), "PYTHONSAFEPATH": "1"}
    used = run_measured([*command, *training_words(arguments, folder)], folder.with_suffix(".log"), **variables)
    if arguments.predict:
        masks = ["-o", str(folder / "masks"), "--overwrite"]
        run_measured(
            [*command, "predict", str(folder), arguments.predict, *masks], folder.with_suffix(".log"), **variables
        )
    return used.cpu_seconds


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in COMPARED
        for path in sorted(folder.glob(pattern))
    }


def main() -> None:
    parser = two_installs(__doc__, steps=300)
    parser.add_argument("--predict", metavar="IMAGES", help="a folder of volumes to predict")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    seconds = {
        name: make(getattr(arguments, name), arguments, arguments.output / name) for name in ("before", "after")
    }
    before, after = (hashes(arguments.output / name) for name in ("before", "after"))
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    print(f"{len(before)} files, {len(differing)} differ: {', '.join(differing) or 'none'}")
    print(f"CPU seconds of the training: {seconds['before']:.1f} before, {seconds['after']:.1f} after")
    sys.exit(bool(differing) or not before)


if __name__ == "__main__":
    main()
