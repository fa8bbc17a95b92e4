"""All surface metrics of a pair together, against MONAI, MedPy, surface-distance and SimpleITK, like with like.

Every tool computes HD, HD95, ASSD and NSD of one pair (MedPy has no NSD). Each measurement is a process of its own:
the masks are read, one tiny pair is scored to load everything, then CPU seconds (user + system) and the growth of
the peak memory are taken. Tools take turns, round after round; the median of the rounds counts. On a shared machine
only the ratios mean something.

    python benchmarks/surface_metrics.py                    # MedPy and surface-distance if they are installed
    python benchmarks/surface_metrics.py --cases hippocampus ct --tools medfcn-voxels monai --rounds 5
    python benchmarks/surface_metrics.py --adversarial      # noise, filled, concentric: chosen way, tree, transform
    python benchmarks/surface_metrics.py --labels           # 20 labels against one
    python benchmarks/surface_metrics.py --folder PREDICTIONS REFERENCES
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SPACING = {"hippocampus": (1.0, 1.0, 1.0), "organ": (1.0, 1.0, 1.5), "ct": (0.8, 0.8, 1.5)}
VOXEL_TOOLS = ("medfcn-voxels", "monai", "medpy", "simpleitk")
ELEMENT_TOOLS = ("medfcn-elements", "surface-distance")
NEEDS = {"monai": "monai", "medpy": "medpy", "simpleitk": "SimpleITK", "surface-distance": "surface_distance"}


# --- the pairs ---------------------------------------------------------------------------------------------------


def make_pair(name):
    random = np.random.default_rng(0)
    if name == "hippocampus":
        reference = hippocampus()
        return reference, disturbed(reference, random)
    if name == "organ":
        shape = (256, 256, 128)
        return ellipsoid(shape, (120, 130, 60), (60, 50, 40)), ellipsoid(shape, (122, 131, 61), (61, 48, 41))
    reference, prediction = np.zeros((2, 512, 512, 300), dtype=bool)
    for _ in range(68):
        radii = random.uniform(8, 34, size=3)
        centre = [random.uniform(r + 4, length - r - 4) for r, length in zip(radii, reference.shape, strict=True)]
        put(reference, centre, radii)
        put(prediction, centre + random.normal(0, 1.5, size=3), radii * random.uniform(0.92, 1.08, size=3))
    return reference, prediction


def hippocampus():
    path = SHARED / "hippocampus" / "labels" / "hippocampus_001.nii.gz"
    if path.exists():
        from medfcn.labels import read_mask

        return np.ascontiguousarray(read_mask(path).array > 0)
    return ellipsoid((35, 51, 35), (17, 25, 17), (8, 18, 6))


def disturbed(mask, random):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(random.normal(size=mask.shape), 1.5)
    return gaussian_filter(mask.astype(float), 1.0) + 0.9 * noise > 0.5


def ellipsoid(shape, centre, radii):
    mask = np.zeros(shape, dtype=bool)
    put(mask, centre, radii)
    return mask


def put(mask, centre, radii):
    box = tuple(
        slice(max(int(c - r) - 1, 0), min(int(c + r) + 2, length))
        for c, r, length in zip(centre, radii, mask.shape, strict=True)
    )
    axes = np.ogrid[box]
    mask[box] |= sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)) <= 1


# --- the tools: a function of two masks and the spacing, giving HD, HD95, ASSD, NSD(1 mm) --------------------------


def medfcn_voxels(reference, prediction, spacing):
    from medfcn.evaluation import surface_distances

    found = surface_distances(reference, prediction, spacing)
    return found.hausdorff_mm(), found.hausdorff_mm(percentile=95), found.assd_mm(), found.nsd(tolerance_mm=1.0)


def medfcn_elements(reference, prediction, spacing):
    from medfcn.evaluation import surface_distances

    found = surface_distances(reference, prediction, spacing, boundary="elements")
    return found.hausdorff_mm(), found.hausdorff_mm(percentile=95), found.masd_mm(), found.nsd(tolerance_mm=1.0)


def monai(reference, prediction, spacing):
    import monai.metrics as metrics
    import torch

    torch.set_num_threads(1)
    masks = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
    options = {"include_background": True, "spacing": list(spacing)}
    return (
        float(metrics.compute_hausdorff_distance(*masks, **options)),
        float(metrics.compute_hausdorff_distance(*masks, percentile=95, **options)),
        float(metrics.compute_average_surface_distance(*masks, symmetric=True, **options)),
        float(metrics.compute_surface_dice(*masks, class_thresholds=[1.0], **options)),
    )


def medpy(reference, prediction, spacing):
    from medpy.metric import binary

    pair = (prediction, reference, spacing)
    return binary.hd(*pair), binary.hd95(*pair), binary.assd(*pair), float("nan")


def surface_distance(reference, prediction, spacing):
    import surface_distance as peer

    found = peer.compute_surface_distances(reference, prediction, spacing)
    return (
        peer.compute_robust_hausdorff(found, 100),
        peer.compute_robust_hausdorff(found, 95),
        float(np.mean(peer.compute_average_surface_distance(found))),
        peer.compute_surface_dice_at_tolerance(found, 1.0),
    )


def simpleitk(reference, prediction, spacing):
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (reference, prediction)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    edges = [sitk.BinaryContour(image, fullyConnected=False, foregroundValue=1) for image in images]
    # A view dies with its image, so the images are kept.
    transforms = [
        sitk.Abs(sitk.SignedMaurerDistanceMap(edge, squaredDistance=False, useImageSpacing=True)) for edge in edges
    ]
    far = [sitk.GetArrayViewFromImage(transform) for transform in transforms]
    on = [sitk.GetArrayViewFromImage(edge) == 1 for edge in edges]
    forth, back = far[1][on[0]], far[0][on[1]]
    both = np.concatenate([forth, back])
    hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
    return float(both.max()), float(hd95), float(both.mean()), float((both <= 1.0).mean())


TOOLS = {
    "medfcn-voxels": medfcn_voxels,
    "medfcn-elements": medfcn_elements,
    "monai": monai,
    "medpy": medpy,
    "surface-distance": surface_distance,
    "simpleitk": simpleitk,
}


# --- measuring ---------------------------------------------------------------------------------------------------


def measure_here(tool, folder, case):
    """In a process of its own: CPU seconds and peak megabytes of one tool on one pair, as a line of JSON."""
    warnings.filterwarnings("ignore")
    reference, prediction = (np.load(folder / f"{case}_{side}.npy") for side in ("reference", "prediction"))
    warm = np.zeros((6, 6, 6), dtype=bool)
    warm[2:4, 2:4, 2:4] = True
    TOOLS[tool](warm, np.roll(warm, 1, axis=0), SPACING[case])
    repeats = 20 if reference.size < 10**6 else 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    for _ in range(repeats):
        scores = TOOLS[tool](reference, prediction, SPACING[case])
    seconds = (time.process_time() - start) / repeats
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": seconds, "megabytes": peak / 1024, "scores": [float(score) for score in scores]}))


def measure(tool, folder, case):
    command = [sys.executable, __file__, "--one", tool, str(folder), case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tool} on {case} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare_tools(cases, tools, rounds):
    tools = [tool for tool in tools if importlib.util.find_spec(NEEDS.get(tool, "medfcn"))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in cases:
            for side, mask in zip(("reference", "prediction"), make_pair(case), strict=True):
                np.save(folder / f"{case}_{side}.npy", mask)
            results = {tool: [] for tool in tools}
            for _ in range(rounds):
                for tool in tools:
                    results[tool].append(measure(tool, folder, case))
            print_case(case, results)


def print_case(case, results):
    print(f"\n{case}: CPU seconds and peak MB, median of rounds; x is the time against medfcn's, same boundary")
    for mine, tools in (("medfcn-voxels", VOXEL_TOOLS), ("medfcn-elements", ELEMENT_TOOLS)):
        for tool in tools:
            if tool not in results:
                continue
            seconds = statistics.median(result["seconds"] for result in results[tool])
            megabytes = statistics.median(result["megabytes"] for result in results[tool])
            own = (
                statistics.median(result["seconds"] for result in results[mine]) if mine in results else float("nan")
            )
            scores = " ".join(f"{score:.4f}" for score in results[tool][0]["scores"])
            print(f"  {tool:17} {seconds:9.4f} s {megabytes:7.0f} MB {seconds / own:7.1f} x   {scores}", flush=True)


# --- what is hard, many labels, a folder ---------------------------------------------------------------------------


def adversarial_pairs():
    random = np.random.default_rng(0)
    shape = (160, 160, 160)
    radius = np.sqrt(((np.indices(shape) - 80) ** 2).sum(axis=0))
    filled = np.ones(shape, dtype=bool)
    return {
        "noise, half full": (random.random(shape) < 0.5, random.random(shape) < 0.5),
        "noise, 1 % full": (random.random(shape) < 0.01, random.random(shape) < 0.01),
        "filled, half filled": (filled, np.indices(shape)[0] < 80),
        "filled, a dot": (filled, radius < 2),
        "concentric, 20 in 70": (radius < 70, radius < 20),
        "concentric, 60 in 70": (radius < 70, radius < 60),
        "concentric shells": (radius.astype(int) % 8 < 2, radius.astype(int) % 8 >= 6),
        "checkerboards": (np.indices(shape).sum(axis=0) % 2 == 0, np.indices(shape).sum(axis=0) % 2 == 1),
    }


def compare_ways(rounds):
    from medfcn.evaluation import nearest, surface_distances

    settings = {
        "chosen": {},
        "tree": {"_STEP_COST": 1e12, "_TRANSFORM_VOXEL_COST": 1e12},
        "transform": {"_STEP_COST": 1e12, "_TRANSFORM_VOXEL_COST": 0.0},
    }
    usual = {name: getattr(nearest, name) for name in ("_STEP_COST", "_TRANSFORM_VOXEL_COST")}
    for name, (reference, prediction) in adversarial_pairs().items():
        seconds = {way: [] for way in settings}
        for _ in range(rounds):
            for way, values in settings.items():
                for constant, value in {**usual, **values}.items():
                    setattr(nearest, constant, value)
                start = time.process_time()
                surface_distances(reference, prediction, (1.0, 1.0, 1.5))
                seconds[way].append(time.process_time() - start)
        median = {way: statistics.median(values) for way, values in seconds.items()}
        ratio = median["chosen"] / min(median["tree"], median["transform"])
        shown = "  ".join(f"{way} {value:.2f} s" for way, value in median.items())
        print(f"{name:22} {shown}  chosen / better {ratio:.2f}", flush=True)


def compare_labels(rounds):
    from medfcn.evaluation import count_labels, label_surface_distances

    shape, grid = (512, 512, 300), 20
    many = np.zeros(shape, dtype=np.uint8)
    random = np.random.default_rng(0)
    for label in range(1, grid + 1):
        part = ellipsoid(shape, [random.uniform(60, length - 60) for length in shape], random.uniform(15, 50, size=3))
        many[part] = label
    moved = np.roll(many, 2, axis=1)
    one = [(mask > 0).astype(np.uint8) for mask in (many, moved)]
    for name, work in {
        "counting, 1 label": lambda: count_labels(*one, labels=1),
        "counting, 20 labels": lambda: count_labels(many, moved, labels=grid),
        "voxel distances, 1 label": lambda: label_surface_distances(*one, (1, 1, 1), labels=1),
        "voxel distances, 20 labels": lambda: label_surface_distances(many, moved, (1, 1, 1), labels=grid),
        "element distances, 1 label": lambda: label_surface_distances(*one, (1, 1, 1), labels=1, boundary="elements"),
        "element distances, 20 labels": lambda: label_surface_distances(
            many, moved, (1, 1, 1), labels=grid, boundary="elements"
        ),
    }.items():
        seconds, elements = [], 0
        for _ in range(rounds):
            start = time.process_time()
            result = work()
            seconds.append(time.process_time() - start)
            elements = sum(getattr(found, "reference_mm", np.empty(0)).size for found in result)
        print(f"{name:30} {statistics.median(seconds):.3f} s  {elements or '':>8}", flush=True)


def measure_folder(predictions, references, rounds):
    from medfcn.evaluation import evaluate

    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        table = evaluate(predictions, references)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{len(table.cases)} cases, {len(table.labels)} labels: {wall:.2f} s wall, {cpu:.2f} s CPU", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(SPACING), default=list(SPACING))
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--adversarial", action="store_true")
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--folder", nargs=2, metavar=("PREDICTIONS", "REFERENCES"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        measure_here(chosen.one[0], Path(chosen.one[1]), chosen.one[2])
    elif chosen.adversarial:
        compare_ways(chosen.rounds)
    elif chosen.labels:
        compare_labels(chosen.rounds)
    elif chosen.folder:
        measure_folder(*chosen.folder, chosen.rounds)
    else:
        compare_tools(chosen.cases, chosen.tools, chosen.rounds)


if __name__ == "__main__":
    main()
