"""Seeded faults in the code that places voxels, each of which the tests must catch.

    python tests/mutants.py                 every fault, about ten minutes on one core
    python tests/mutants.py --only grid     those whose file or name holds a word
    python tests/mutants.py --check         only whether every fault still fits the code

Each fault is put into a temporary copy of the package, one at a time, and the tests of that file's room are run
against the copy. Exit status 1: a fault survived, and a test is missing. 2: the code has changed and a fault no
longer fits it, or the tests fail without any fault.
"""

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GRID = ("tests/slices/test_grid.py", "tests/slices/test_preprocess.py")
SLICING = ("tests/slices/test_slicing.py", "tests/networks/test_sliding.py")
PREPROCESS = ("tests/slices/test_preprocess.py", "tests/monai/test_transforms.py", "tests/inference/test_model.py")
TRANSFORMS = ("tests/monai/test_transforms.py",)
INFERER = ("tests/networks/test_sliding.py",)
MODEL = ("tests/inference/test_model.py",)
VOLUMES = (
    *("tests/volumes/test_geometry.py", "tests/volumes/test_volume.py", "tests/slices/test_grid.py"),
    "tests/inference/test_model.py",
)

HURRY = """from hypothesis import Phase, settings

settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None)
settings.load_profile("mutants")
"""
"""A first counterexample is enough, and need not be made small."""
_LONGEST_SECONDS = 600


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file`, `old` (which must stand there exactly once) becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _in(file: str, tests: tuple[str, ...], *faults: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(name, f"medfcn/{file}", old, new, tests) for name, old, new in faults]


MUTANTS = [
    *_in(
        "slices/grid.py",
        GRID,
        ("centre of the new grid half a voxel off", "+ (0.5 - size_to / 2)", "+ (0.0 - size_to / 2)"),
        ("corners aligned instead of centres", "+ (0.5 - size_to / 2)", "+ 0"),
        ("centre of the old grid half a voxel off", "ratio + (size_from / 2 - 0.5)", "ratio + (size_from / 2)"),
        ("positions divided by the ratio", "np.clip(from_centre * ratio", "np.clip(from_centre / ratio"),
        ("first voxel never reached", "- 0.5), 0, size_from - 1)", "- 0.5), min(1, size_from - 1), size_from - 1)"),
        ("not held beyond the end", "- 0.5), 0, size_from - 1)", "- 0.5), 0, size_from)"),
        ("spacings swapped", "_taps(old, new, to / of)", "_taps(old, new, of / to)"),
        ("ratio of shapes", "_taps(old, new, to / of)", "_taps(old, new, old / new)"),
        ("an axis is left where only its size agrees", "None if old == new and of == to", "None if old == new"),
        (
            "a volume is left where only sizes agree",
            "if sizes == shape and spacing_from == spacing_to:",
            "if sizes == shape:",
        ),
        ("weights the wrong way round", "(place - below).astype", "(1 - place + below).astype"),
        ("nearest neighbour", "(place - below).astype", "np.rint(place - below).astype"),
        ("upper tap is the lower one", "np.minimum(below + 1, size_from - 1)", "np.minimum(below, size_from - 1)"),
        ("every slab is the first", "slab = volume[rows]", "slab = volume[: rows.stop - rows.start]"),
        ("every part of a slab of masks is the first", "slice(part, stop)", "slice(part - start, stop - start)"),
        ("every slab of masks starts the volume", "yield rows, slab", "yield slice(0, rows.stop - rows.start), slab"),
        ("every slab is weighted as the first", "first.weight[rows]", "first.weight[: rows.stop - rows.start]"),
        (
            "matrix tells the inverse ratio",
            "ratio = self.spacing_mm[world] / self.spacing_native_mm[world]",
            "ratio = self.spacing_native_mm[world] / self.spacing_mm[world]",
        ),
        ("matrix transposed", "matrix[axis, world] = sign * ratio", "matrix[world, axis] = sign * ratio"),
        ("matrix knows no flips", "-1 if self.flips[world] else 1", "1"),
        ("offset of flipped axes one off", "(size - 1 - start) if", "(size - start) if"),
        ("offset of flipped axes dropped", "(size - 1 - start) if self.flips[world] else start", "start"),
        ("offset half a voxel off", "* ratio + (size / 2 - 0.5)", "* ratio + (size / 2)"),
        ("left taken for right", 'orientation[axes[0]] == "L"', 'orientation[axes[0]] == "R"'),
        ("posterior taken for anterior", 'orientation[axes[1]] == "P"', 'orientation[axes[1]] == "A"'),
        ("inferior taken for superior", 'orientation[axes[2]] == "I"', 'orientation[axes[2]] == "S"'),
        (
            "first two axes swapped",
            "axes = (found[0][0], found[1][0], found[2][0])",
            "axes = (found[1][0], found[0][0], found[2][0])",
        ),
        (
            "spacing not re-ordered",
            "native = (spacing_mm[axes[0]], spacing_mm[axes[1]], spacing_mm[axes[2]])",
            "native = spacing_mm",
        ),
        ("shape not re-ordered", "sizes = (shape[axes[0]], shape[axes[1]], shape[axes[2]])", "sizes = shape"),
        ("size grows with the spacing", "round(size * own / wanted)", "round(size * wanted / own)"),
        ("size rounded down", "round(size * own / wanted)", "int(size * own / wanted)"),
        ("any spacing is near enough", "< 2 * _KEEP_VOXELS", "< 200 * _KEEP_VOXELS"),
        ("no flip on the way there", "return _flip(turned, grid)", "return turned"),
        ("no flip on the way back", "np.transpose(_flip(array, grid), (", "np.transpose(array, ("),
        ("flip of the wrong axes", "array.ndim - 3 + axis for axis", "array.ndim - 1 - axis for axis"),
        (
            "axes of the way there inverted",
            "(leading + axis for axis in grid.axes)",
            "(leading + int(axis) for axis in np.argsort(grid.axes))",
        ),
        ("axes of the way back inverted", "back = np.argsort(grid.axes)", "back = grid.axes"),
        (
            "spacings swapped on the way back",
            "array.astype(np.float32, copy=False), sizes, grid.spacing_mm, grid.spacing_native_mm",
            "array.astype(np.float32, copy=False), sizes, grid.spacing_native_mm, grid.spacing_mm",
        ),
        (
            "spacings swapped for labels",
            "_resample_labels(turned, grid.shape, grid.spacing_native_mm, grid.spacing_mm)",
            "_resample_labels(turned, grid.shape, grid.spacing_mm, grid.spacing_native_mm)",
        ),
        ("ties to the larger label", "larger = share > best", "larger = share >= best"),
    ),
    *_in(
        "slices/slicing.py",
        SLICING,
        ("views swapped", '"sagittal": 0, "coronal": 1', '"sagittal": 1, "coronal": 0'),
        (
            "axes swapped instead of moved",
            "np.moveaxis(array, 1 + VIEW_AXIS[view], 0)",
            "np.swapaxes(array, 1 + VIEW_AXIS[view], 0)",
        ),
        (
            "stacked in reverse",
            "np.moveaxis(slices, 0, 1 + VIEW_AXIS[view])",
            "np.moveaxis(slices[::-1], 0, 1 + VIEW_AXIS[view])",
        ),
        (
            "neighbours one off",
            "np.arange(context) - context // 2",
            "np.arange(context) - (context - 1) // 2 + (context > 1)",
        ),
        ("neighbours in reverse", "np.arange(context) - context // 2", "context // 2 - np.arange(context)"),
        (
            "neighbours wrap round the start",
            "np.clip(index[:, None] + offsets, 0, count - 1)",
            "np.clip(index[:, None] + offsets, -count, count - 1)",
        ),
    ),
    *_in(
        "monai/transforms.py",
        TRANSFORMS,
        ("affine of the native grid kept", "affine @ grid.native_voxel", "affine.copy()"),
        ("matrices the wrong way round", "affine @ grid.native_voxel", "grid.native_voxel @ affine"),
        ("matrix inverted", "affine @ grid.native_voxel", "affine @ np.linalg.inv(grid.native_voxel)"),
        ("spacing in reverse", "spacing_mm(affine), self.spacing_mm", "spacing_mm(affine)[::-1], self.spacing_mm"),
        (
            "spacing taken from the rows",
            "spacing_mm(affine), self.spacing_mm",
            "spacing_mm(affine.T), self.spacing_mm",
        ),
        (
            "affine transposed on return",
            'np.array(trace["affine"], dtype=np.float64)',
            'np.array(trace["affine"], dtype=np.float64).T',
        ),
        ("mode of the trace ignored", '_mode(trace["mode"])', '"bilinear"'),
        ("nearest only for whole numbers", 'if mode != "nearest":', 'if array.dtype.kind == "f":'),
        ("neighbours in reverse", "around.reshape(count, ", "around[:, ::-1].reshape(count, "),
        ("first neighbour taken on return", "context // 2 * channels :]", "0 * channels :]"),
        ("prediction taken for the input", "and np.array_equal(slices, with_neighbours(middle, context))", ""),
        ("nearest voxel one off", "np.floor(from_centre + size / 2))", "np.floor(from_centre + size / 2 + 1))"),
        ("nearest forgets the direction", "ratios = 1 / ratios", "ratios = +ratios"),
    ),
    *_in(
        "monai/case_transforms.py",
        ("tests/monai/test_case_transforms.py",),
        ("mask interpolated on its way back", "nearest_interp=is_mask", "nearest_interp=False"),
        ("affine of the file not compared", "if not np.allclose(", "if False and not np.allclose("),
        ("shape of the file not compared", "if tuple(back.shape[1:]) != original.shape:", "if False:"),
        ("grids of image and label not compared", "require_same_grid(volumes[0], moved)", "pass"),
        ("invented label values rounded", "if not np.array_equal(rounded, array) or array.min() < 0:", "if False:"),
    ),
    *_in(
        "monai/recorded.py",
        ("tests/monai/test_recorded.py",),
        ("state of what is built not compared", "    if not same:", "    if False:"),
        ("any class of MONAI is built", "if self.name in RECORDED else None", "if self.name else None"),
    ),
    *_in(
        "monai/loading.py",
        ("tests/monai/test_loading.py", "tests/monai/test_transforms.py"),
        ("affine transposed", "torch.from_numpy(np.array(affine))", "torch.from_numpy(np.array(affine).T)"),
        ("grids not compared", "require_same_grid(first, volume)", "require_same_grid(volume, volume)"),
        ("label keeps its own affine", "_tensor(array, first.affine,", "_tensor(array, volumes[0].affine,"),
    ),
    *_in(
        "slices/preprocess.py",
        PREPROCESS,
        ("channels not compared", "require_same_grid(aligned[0], channel)", "require_same_grid(channel, channel)"),
        ("every channel is the first", "result[channel] = normalise(values", "result[channel] = normalise(image[0]"),
    ),
    *_in(
        "networks/sliding.py",
        INFERER,
        (
            "tile's corner transposed",
            "slice(row, row + height), slice(column, column + width)",
            "slice(column, column + height), slice(row, row + width)",
        ),
        ("slices of a batch in reverse", "total[place] = logits", "total[place] = logits[::-1]"),
        (
            "stacked along another view",
            "stack_slices(total, view)",
            'stack_slices(total, "axial")',
        ),
        (
            "weights replaced instead of added",
            "weights[row : row + height, column : column + width] += weight",
            "weights[row : row + height, column : column + width] = weight",
        ),
        (
            "tiles stop a pixel short",
            "round(index * (size - tile) / (count - 1))",
            "round(index * (size - tile - 1) / (count - 1))",
        ),
        (
            "neighbours of the slice before",
            "neighbours(shown[start:stop], count, sliding.context)",
            "neighbours(np.maximum(shown[start:stop] - 1, 0), count, sliding.context)",
        ),
        (
            "channels and neighbours mixed",
            "stack = stack[numbers - numbers.min()]",
            "stack = stack[numbers - numbers.min()].swapaxes(1, 2)",
        ),
        ("tile weights transposed", "edges[0][:, None] * edges[1][None, :]", "edges[1][:, None] * edges[0][None, :]"),
        ("tile weights off centre", "np.arange(size) - (size - 1) / 2", "np.arange(size) - size / 2"),
    ),
    *_in(
        "networks/sliding.py",
        MODEL,
        (
            "logits of mirror images not mirrored back",
            "slices.flip(self.axes)).flip(self.axes)",
            "slices.flip(self.axes))",
        ),
    ),
    *_in(
        "inference/slice_inferer.py",
        MODEL,
        ("mirror images of other axes", "(*axes, 2 + axis)", "(*axes, 3 - axis)"),
    ),
    *_in(
        "volumes/geometry.py",
        VOLUMES,
        (
            "spacing of the rows",
            "lengths = np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))",
            "lengths = np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=1))",
        ),
        ("left and right swapped", '(("L", "R"),', '(("R", "L"),'),
        (
            "all axes run forwards",
            "[1 if cosines[best[1][axis], axis] >= 0 else -1",
            "[1 if cosines[best[1][axis], axis] >= -2 else -1",
        ),
        ("assignment transposed", "cosines[world[axis], axis] ** 2", "cosines[axis, world[axis]] ** 2"),
        ("only the first corner compared", "max(size - 1.0, 0.0)", "min(size - 1.0, 0.0)"),
        (
            "displacement in mm taken for voxels",
            "np.linalg.solve(np.asarray(affine_a, dtype=np.float64)[:3, :3], shift)",
            "shift",
        ),
    ),
    *_in(
        "volumes/volume.py",
        VOLUMES,
        ("any label is near enough", "if voxels < NEAR_GRID_VOXELS:", "if voxels < 50 * NEAR_GRID_VOXELS:"),
    ),
    *_in(
        "volumes/formats/nifti_transforms.py",
        VOLUMES,
        ("sign in the rotation", "scale * (b * c - a * d)", "scale * (b * c + a * d)"),
        ("handedness ignored", "[1.0, 1.0, -1.0 if handedness < 0 else 1.0]", "[1.0, 1.0, 1.0]"),
        (
            "rotation transposed",
            "rotation_of(self.quaternion, a) * edges",
            "rotation_of(self.quaternion, a).T * edges",
        ),
        (
            "edges along the rows",
            "rotation_of(self.quaternion, a) * edges",
            "rotation_of(self.quaternion, a) * edges[:, None]",
        ),
        ("offset dropped", "        affine[:3, 3] = self.offset\n", ""),
        ("origin not scaled to mm", "scaled[:3] *= millimetres", "scaled[:3, :3] *= millimetres"),
        ("quaternion of the inverse", "(-1.0 if a < 0 else 1.0)", "(1.0 if a < 0 else -1.0)"),
    ),
    *_in(
        "volumes/formats/nifti_header.py",
        VOLUMES,
        ("microns taken for kilometres", "2: 1.0, 3: 0.001}", "2: 1.0, 3: 1000.0}"),
        ("metres taken for millimetres", "1: 1000.0, 2: 1.0", "1: 1.0, 2: 1.0"),
    ),
    *_in(
        "volumes/formats/nifti.py",
        VOLUMES,
        (
            "voxels read in C order",
            'array.reshape(header.shape, order="F")',
            'array.reshape(header.shape, order="C")',
        ),
    ),
    *_in(
        "volumes/formats/nifti_writing.py",
        VOLUMES,
        ("voxels written in C order", 'slab.ravel(order="F")', 'slab.ravel(order="C")'),
        (
            "inverse written",
            'record["srow"] = affine[:3]',
            'record["srow"] = np.linalg.inv(affine)[:3]',
        ),
        (
            "offset of the qform negated",
            'with_qform["qoffset"] = affine[:3, 3]',
            'with_qform["qoffset"] = -affine[:3, 3]',
        ),
        (
            "spacing written in reverse",
            "[handedness, *spacing, 1, 1, 1, 1]",
            "[handedness, *spacing[::-1], 1, 1, 1, 1]",
        ),
        ("handedness not written", "[handedness, *spacing, 1, 1, 1, 1]", "[1.0, *spacing, 1, 1, 1, 1]"),
        (
            "the file's own geometry dropped",
            "geometry is not None and geometry.describes",
            "False and geometry.describes",
        ),
    ),
]


def main() -> int:
    """Try every fault, say what became of it, and count the survivors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="WORD", help="faults whose file or name holds this")
    parser.add_argument("--check", action="store_true", help="only check that every fault fits the code")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in f"{mutant.file} {mutant.name}"]
    unfit = [mutant for mutant in chosen if (ROOT / mutant.file).read_text().count(mutant.old) != 1]
    for mutant in unfit:
        print(f"{mutant.file}: {mutant.name}: its text does not stand there exactly once: {mutant.old!r}")
    if unfit or not chosen or options.check:
        print(f"{len(chosen) - len(unfit)} of {len(chosen)} faults fit the code")
        return 2 if unfit or not chosen else 0
    with tempfile.TemporaryDirectory() as folder:
        return _try_all(chosen, Path(folder))


def _try_all(chosen: list[Mutant], copy: Path) -> int:
    for name in ("medfcn", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "conftest.py").write_text(HURRY)
    _prepare(copy)
    for tests in dict.fromkeys(mutant.tests for mutant in chosen):
        code, output = _pytest(copy, tests)
        if code != 0:
            print(f"{' '.join(tests)} fail without any fault:\n{output[-2000:]}")
            return 2
    survivors = []
    for number, mutant in enumerate(chosen, start=1):
        began = time.monotonic()
        file = copy / mutant.file
        sound = file.read_text()
        file.write_text(sound.replace(mutant.old, mutant.new))
        code, output = _pytest(copy, mutant.tests)
        file.write_text(sound)
        if code not in (0, 1):  # 1: a test failed; anything else says that no test could
            print(f"{mutant.file}: {mutant.name}: pytest ended with {code}:\n{output[-2000:]}")
            return 2
        if code == 0:
            survivors.append(mutant)
        by = next((line.split(" ")[1] for line in output.splitlines() if line.startswith("FAILED ")), "")
        verdict = "caught" if code else "SURVIVED"
        seconds = time.monotonic() - began
        print(f"{number:3} {verdict:9} {seconds:5.1f} s  {mutant.file}: {mutant.name}  {by}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults caught")
    return 1 if survivors else 0


def _prepare(copy: Path) -> None:
    """Load once what does not change, so that each fault costs a fork and its tests instead of ten seconds."""
    os.chdir(copy)
    sys.path[0] = str(copy)
    # Without bytecode: a fault of the same length, written within a second, would not be noticed.
    sys.dont_write_bytecode = True
    for name in (
        "hypothesis",
        "monai.inferers",
        "monai.losses",
        "monai.transforms",
        "nibabel",
        "pytest",
        "SimpleITK",
    ):
        importlib.import_module(name)
    if any(name.partition(".")[0] in ("medfcn", "tests") for name in sys.modules):
        raise RuntimeError("medfcn was loaded before any fault could be put into it")


def _pytest(copy: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Exit status and output of the tests, in a process of their own that has loaded nothing of medfcn yet."""
    log = copy / "output.txt"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            signal.alarm(_LONGEST_SECONDS)
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            code = _pytest_here(copy, tests)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), log.read_text()


def _pytest_here(copy: Path, tests: tuple[str, ...]) -> int:
    import medfcn

    if not str(medfcn.__file__).startswith(str(copy)):
        print(f"the tests would not run against the copy but against {medfcn.__file__}")
        return 71
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", "--tb=line", "--assert=plain"]
    return int(pytest.main([*options, *tests]))


if __name__ == "__main__":
    sys.exit(main())
