"""A volume that lies in a file is hashed without being in memory."""

import numpy as np
import pytest

from medfcn.volumes import same_voxels
from medfcn.volumes.same_voxels import voxels_sha256
from medfcn.volumes.volume import Volume


@pytest.mark.parametrize(("order", "times"), [((0, 1, 2), 4), ((2, 1, 0), 1)])
def test_pages_are_let_go_after_each_part_where_slices_are_stored_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, order: tuple[int, int, int], times: int
) -> None:
    """20 slices are three parts; where each part needs pages of the whole file, they go at the end."""
    released: list[int] = []
    monkeypatch.setattr(same_voxels, "release", lambda array: released.append(array.size))
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(order)]
    stored = np.arange(3 * 4 * 20, dtype=np.int16).reshape((20, 4, 3) if order[0] else (3, 4, 20), order="F")
    voxels_sha256(Volume(stored, affine))
    assert released == [stored.size] * times
