"""Every command and every block of code of the documentation runs, page by page, on phantoms."""

from pathlib import Path
from typing import Any

import matplotlib
import pytest

from tests.documents import PAGES, outputs_of, parts_of, run_block
from tests.places import make_place, make_shared

OF_THEIR_OWN = {
    "docs/how-to/bids.md": "tests/test_bids_docs.py makes its trees",
    "docs/how-to/dicom.md": "tests/test_dicom_docs.py makes its series",
    "docs/how-to/viewers.md": "tests/test_viewers_docs.py makes its masks",
    "benchmarks/README.md": "its scripts take hours",
}
"""Pages with a test of their own, or none."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shared")
    make_shared(root)
    return root


@pytest.mark.parametrize(
    "page", [name for name, path in PAGES.items() if parts_of(path) and name not in OF_THEIR_OWN]
)
def test_the_blocks_of_a_page_run_in_order(
    page: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib.use("Agg")
    for number, blocks in enumerate(parts_of(PAGES[page])):
        place = tmp_path / str(number)
        place.mkdir()
        make_place(blocks[0].place, place, shared, outputs_of(blocks))
        monkeypatch.chdir(place)
        names: dict[str, Any] = {}
        for block in blocks:
            run_block(block, names, page)
