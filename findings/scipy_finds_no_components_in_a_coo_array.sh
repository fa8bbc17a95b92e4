#!/usr/bin/env bash
# scipy 1.11.1 finds 0 connected components in a graph whose indices are 64-bit, and returns as if it had looked.
#
# Guess: connected_components takes any graph that coo_array takes, or raises an error.
# What happens: with 64-bit indices, which numpy makes by itself, the count is 0 and every node has the label -9999. A
# ValueError inside of scipy is printed as ignored and never reaches the caller. With 32-bit indices all is right.
# Why it matters: parts of a volume that is labelled slab by slab are joined by such a graph. With a count of 0 nothing
# is joined, or every voxel gets one label, and a script goes on. (Python 3.11: there are no wheels of scipy 1.11.1 for newer ones.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/look.py" <<'PYTHON'
import sys

import numpy as np
import scipy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

right = 3, [0, 0, 1, 1, 2]
for kind in (np.int32, np.int64):
    one, other = np.array([0, 2], dtype=kind), np.array([1, 3], dtype=kind)
    graph = coo_array((np.ones(2, dtype=bool), (one, other)), shape=(5, 5))
    count, labels = connected_components(graph, directed=False)
    print("scipy", scipy.__version__, kind.__name__, "indices:", count, "components,", labels.tolist())
    is_wrong = kind is np.int64 and sys.argv[1] == "wrong"
    assert (count, labels.tolist()) == ((0, [-9999] * 5) if is_wrong else right)
PYTHON
for of_version in 1.11.1:wrong 1.13.1:right; do
  "$folder/venv/bin/pip" install -q numpy==1.26.4 "scipy==${of_version%:*}"
  "$folder/venv/bin/python" "$folder/look.py" "${of_version#*:}" 2> "$folder/errors"
  grep -c "Exception ignored" "$folder/errors" || true
done
