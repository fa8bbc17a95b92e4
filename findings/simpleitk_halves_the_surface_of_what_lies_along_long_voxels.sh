#!/usr/bin/env bash
# SimpleITK finds half the surface, and a rod rounder than a ball, where voxels are longer along one axis.
#
# Guess: GetPerimeter of LabelShapeStatisticsImageFilter is the surface in mm2 to about 10 %, whatever the voxel size: it
# heeds the spacing.
# What happens (SimpleITK 2.5.7): a box of 60 x 6 x 6 mm has 88 % of its surface in voxels of 1 mm, and 50 % in voxels of 5
# x 0.5 x 0.5 mm. GetRoundness, which is made of it, is 0.61 and 1.07; a ball has 1, and nothing can have more. A cube of 30
# mm goes from 91 % to 75 %. Nothing warns. Balls are right to 2 % at all of these sizes, so that a test on them finds
# nothing.
# Why it matters: CT and MR are mostly in such voxels. Vessels and tumours along the body have too small a surface, and one rod
# differs between two voxel sizes by more than a rod differs from a ball. Resample to cubes before measuring.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 SimpleITK==2.5.7 2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys

import numpy as np
import SimpleITK

print("Python", sys.version.split()[0], "SimpleITK", SimpleITK.Version.VersionString())


def measured(mask, spacing):
    image = SimpleITK.GetImageFromArray(np.pad(mask, 3).astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    shapes = SimpleITK.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOn()
    shapes.Execute(image)
    return shapes.GetPhysicalSize(1), shapes.GetPerimeter(1), shapes.GetRoundness(1)


def box(edges, spacing):
    a, b, c = edges
    mask = np.ones([round(edge / step) for edge, step in zip(edges, spacing, strict=True)])
    return mask, a * b * c, 2 * (a * b + a * c + b * c)


def ball(radius, spacing):
    half = [int(radius / step) + 1 for step in spacing]
    axes = [np.arange(-n, n + 1) * step for n, step in zip(half, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius**2, 4 / 3 * math.pi * radius**3, 4 * math.pi * radius**2


CUBES, LONG = (1.0, 1.0, 1.0), (5.0, 0.5, 0.5)
EXPECTED = {  # part of the right surface, and the roundness
    ("rod of 60 x 6 x 6 mm", CUBES): (0.88, 0.61),
    ("rod of 60 x 6 x 6 mm", LONG): (0.50, 1.07),
    ("cube of 30 mm", CUBES): (0.91, 0.89),
    ("cube of 30 mm", LONG): (0.75, 1.07),
    ("ball of 40 mm", CUBES): (1.00, 1.00),
    ("ball of 40 mm", LONG): (0.98, 1.01),
}
shapes = {"rod": (box, (60.0, 6.0, 6.0)), "cube": (box, (30.0, 30.0, 30.0)), "ball": (ball, 20.0)}
for (name, spacing), (part, roundness) in EXPECTED.items():
    make, size = shapes[name.split()[0]]
    mask, volume, surface = make(size, spacing)
    found_volume, found_surface, found_roundness = measured(mask, spacing)
    print(
        f"{name:21} voxels of {' x '.join(map(str, spacing))} mm: volume {found_volume / volume:.2f} of the right one,"
        f" surface {found_surface / surface:.2f}, roundness {found_roundness:.2f}"
    )
    assert abs(found_volume / volume - 1) < 0.03, f"changed: volume, {name}, {spacing}"
    assert abs(found_surface / surface - part) < 0.015, f"changed: surface, {name}, {spacing}"
    assert abs(found_roundness - roundness) < 0.015, f"changed: roundness, {name}, {spacing}"
print("as described")
PYTHON
