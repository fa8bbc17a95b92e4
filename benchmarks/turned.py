"""How often `medfcn look` finds a case that is turned or mirrored, and how often it asks about one that is not.

    python benchmarks/turned.py DATASET [--cases 20] [--group-by stem]

Of each chosen case in turn, image and mask are turned or mirrored together, as a faulty export does; the others stay.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medfcn.datasets import find_dataset
from medfcn.datasets.cases import Case
from medfcn.slices.likeness import Shape, cube_of, label_cubes_of, turned
from medfcn.volumes import Volume, read_volume

FAULTS: dict[str, Callable[[NDArray], NDArray]] = {
    "turned by 90°": lambda array: np.rot90(array, 1, (0, 1)),
    "turned by 180°": lambda array: np.rot90(array, 2, (0, 1)),
    "turned by 270°": lambda array: np.rot90(array, 3, (0, 1)),
    "mirrored along the first axis": lambda array: array[::-1],
    "mirrored along the second axis": lambda array: array[:, ::-1],
    "mirrored along the third axis": lambda array: array[:, :, ::-1],
    "first and second axis swapped": lambda array: array.swapaxes(0, 1),
    "second and third axis turned by 180°": lambda array: np.rot90(array, 2, (1, 2)),
}


def shape_of(case: Case, fault: Callable[[NDArray], NDArray] = lambda array: array) -> Shape:
    image, mask = (read_volume(path) for path in (case.images[0], case.label))
    wrong = [Volume(np.ascontiguousarray(fault(volume.array)), image.affine) for volume in (image, mask)]
    return Shape(cube_of(wrong[0]), label_cubes_of(wrong[1]), case.group)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--group-by", default="none")
    choices = parser.parse_args()
    cases = find_dataset(choices.dataset, group_by=choices.group_by).cases
    start = time.process_time()
    usual = {case.id: shape_of(case) for case in cases}
    read = time.process_time()
    asked = turned(usual)
    print(f"{len(usual)} cases: read in {read - start:.1f} CPU s, compared in {time.process_time() - read:.1f} CPU s")
    print(f"asked about as they are: {len(asked)} {asked or ''}")
    chosen = [cases[place] for place in np.linspace(0, len(cases) - 1, choices.cases).round().astype(int)]
    for name, fault in FAULTS.items():
        found = [turned(usual | {case.id: shape_of(case, fault)}) for case in chosen]
        hits = sum(case.id in those for case, those in zip(chosen, found, strict=True))
        false = sum(len(those.keys() - {case.id}) for case, those in zip(chosen, found, strict=True))
        print(f"{name}: {hits} of {len(chosen)} found, {false} others asked about")


if __name__ == "__main__":
    main()
