"""Every metric written down as its definition says, one voxel at a time: slow, and shares no code with medfcn."""

from functools import lru_cache
from itertools import product

import numpy as np
from skimage.measure import marching_cubes, mesh_surface_area

NAN, INF = float("nan"), float("inf")


def overlap(reference, prediction):
    drawn = {tuple(index) for index in np.argwhere(reference)}
    found = {tuple(index) for index in np.argwhere(prediction)}
    both = len(drawn & found)
    return {
        "dice": 2 * both / (len(drawn) + len(found)) if drawn or found else NAN,
        "iou": both / len(drawn | found) if drawn or found else NAN,
        "precision": both / len(found) if found else NAN,
        "recall": both / len(drawn) if drawn else NAN,
    }


def voxel_boundary(mask):
    """Foreground voxels with a face neighbour that is background or outside, each of size 1."""
    inside = {tuple(int(i) for i in index) for index in np.argwhere(mask)}
    steps = [
        tuple(sign * (axis == other) for other in range(mask.ndim)) for axis in range(mask.ndim) for sign in (1, -1)
    ]
    edge = [
        voxel
        for voxel in sorted(inside)
        if any(tuple(a + b for a, b in zip(voxel, step, strict=True)) not in inside for step in steps)
    ]
    return np.array(edge, dtype=float).reshape(-1, mask.ndim), np.ones(len(edge))


def element_boundary(mask, spacing):
    """Corners between voxels whose neighbourhood is mixed, and how large the surface through it is."""
    inside = {tuple(int(i) for i in index) for index in np.argwhere(mask)}
    around = list(product((-1, 0), repeat=mask.ndim))
    points, sizes = [], []
    corners = sorted({tuple(v - d for v, d in zip(voxel, step, strict=True)) for voxel in inside for step in around})
    for corner in corners:
        cell = tuple(tuple(c + d for c, d in zip(corner, step, strict=True)) in inside for step in around)
        if not all(cell):
            points.append(corner)
            sizes.append(element_size(cell, tuple(spacing)))
    return np.array(points, dtype=float).reshape(-1, mask.ndim), np.array(sizes)


@lru_cache(maxsize=100_000)
def element_size(cell, spacing):
    if len(spacing) == 1:
        return 1.0
    if len(spacing) == 2:
        return contour_length(np.array(cell).reshape(2, 2), *spacing)
    grid = np.array(cell, dtype=float).reshape(2, 2, 2)
    areas = []
    for cube in (grid, 1 - grid):
        points, faces, _, _ = marching_cubes(cube, 0.5, spacing=spacing, method="lorensen", allow_degenerate=True)
        triangles = points[faces].astype(np.float64)
        middles = np.round(triangles / np.array(spacing) * 2) / 2 * np.array(spacing)  # points come as float32
        areas.append(mesh_surface_area(middles.reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)))
    return float(min(areas))


def contour_length(cell, height, width):
    count = int(cell.sum())
    diagonal = np.hypot(height, width) / 2
    if count == 2 and cell[0, 0] == cell[1, 1]:
        return 2 * diagonal
    if count == 2:
        return width if cell[0, 0] == cell[0, 1] else height
    return diagonal


def directed(points, others, spacing):
    if not len(points) or not len(others):
        return np.full(len(points), INF)
    steps = (points[:, None, :] - others[None, :, :]) * np.array(spacing)
    return np.sqrt((steps**2).sum(axis=-1)).min(axis=1)


def surface(reference, prediction, spacing, *, boundary, tolerance):
    kept = [axis for axis, length in enumerate(reference.shape) if length != 1]
    shape = [reference.shape[axis] for axis in kept]
    same = bool((reference == prediction).all())
    if not kept:
        score = NAN if same else INF
        return {**dict.fromkeys(("hd", "hd95", "hd95_pooled", "assd", "masd"), score), "nsd": NAN if same else 0.0}
    reference, prediction = reference.reshape(shape), prediction.reshape(shape)
    spacing = tuple(spacing[axis] for axis in kept)
    take = (
        (lambda mask: voxel_boundary(mask))
        if boundary == "voxels"
        else (lambda mask: element_boundary(mask, spacing))
    )
    (drawn, drawn_sizes), (found, found_sizes) = take(reference), take(prediction)
    if not len(drawn) and not len(found):
        return dict.fromkeys(("hd", "hd95", "hd95_pooled", "assd", "masd", "nsd"), NAN)
    if not len(drawn) or not len(found):
        return {**dict.fromkeys(("hd", "hd95", "hd95_pooled", "assd", "masd"), INF), "nsd": 0.0}
    a, b = directed(drawn, found, spacing), directed(found, drawn, spacing)
    sizes = np.concatenate([drawn_sizes, found_sizes])
    both = np.concatenate([a, b])
    return {
        "hd": max(a.max(), b.max()),
        "hd95": max(percentile95(a, drawn_sizes, boundary), percentile95(b, found_sizes, boundary)),
        "hd95_pooled": percentile95(both, sizes, boundary),
        "assd": (both * sizes).sum() / sizes.sum(),
        "masd": ((a * drawn_sizes).sum() / drawn_sizes.sum() + (b * found_sizes).sum() / found_sizes.sum()) / 2,
        "nsd": sizes[both <= tolerance].sum() / sizes.sum(),
    }


def percentile95(distances, sizes, boundary):
    if boundary == "voxels":
        return float(np.percentile(distances, 95))
    order = np.lexsort((sizes, distances))
    share = np.cumsum(sizes[order]) / sizes.sum()
    return float(distances[order][np.argmax(share >= 0.95 - 1e-12)])
