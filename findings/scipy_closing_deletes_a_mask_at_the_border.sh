#!/usr/bin/env bash
# scipy's binary_closing deletes the voxels of a mask that lie at the border of the volume.
#
# Guess: closing (dilation, then erosion) fills gaps and never removes a voxel of the mask, as its definition says.
# What happens (scipy 1.17.1): the erosion takes what lies outside of the array for background, so that a mask loses as many
# layers at the border as there are iterations. With border_value=1 it loses none, and voxels are added at every face of the
# volume, far from the mask too. scikit-image and SimpleITK keep the mask and add nothing there.
# Why it matters: closing is a usual last step on predicted masks. Organs that leave the field of view lose their outermost
# slices: two with iterations=2, which is 1 cm in slices of 5 mm. In the middle of the volume all is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 scikit-image==0.26.0 SimpleITK==2.5.7 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import scipy
import SimpleITK
import skimage
from scipy import ndimage

print("Python", sys.version.split()[0], "scipy", scipy.__version__, "scikit-image", skimage.__version__)
print("SimpleITK", SimpleITK.Version.VersionString())
cross = ndimage.iterate_structure(ndimage.generate_binary_structure(3, 1), 2)


def by_scipy(mask):
    return ndimage.binary_closing(mask, iterations=2)


def by_scipy_with_border(mask):
    return ndimage.binary_closing(mask, iterations=2, border_value=1)


def by_skimage(mask):
    return skimage.morphology.closing(mask, cross)


def by_simpleitk(mask):
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    closed = SimpleITK.BinaryMorphologicalClosing(image, (2, 2, 2), SimpleITK.sitkCross)
    return SimpleITK.GetArrayFromImage(closed) > 0


EXPECTED = {  # layers of 10 x 10 voxels that are lost at the border, and whether voxels are added far from the mask
    by_scipy: (2, False),
    by_scipy_with_border: (0, True),
    by_skimage: (0, False),
    by_simpleitk: (0, False),
}
inside, border = np.zeros((2, 20, 20, 20), dtype=bool)
inside[7:13, 5:15, 5:15] = True
border[:6, 5:15, 5:15] = True
for close, (layers, adds) in EXPECTED.items():
    lost = [int((mask & ~close(mask)).sum()) for mask in (inside, border)]
    added = int((close(border) & ~border)[10:].sum())
    print(f"{close.__name__:20} voxels lost of 600: {lost[0]} inside, {lost[1]} at the border; added far away: {added}")
    assert lost == [0, 100 * layers], f"changed: {close.__name__}"
    assert bool(added) == adds, f"changed: {close.__name__}, far away"
print("as described")
PYTHON
