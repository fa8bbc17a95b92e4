"""Every command of the page on BIDS runs, on data sets made for it."""

from pathlib import Path

import pytest

from tests.datasets.bids_trees import bids_tree_of, describe, scan
from tests.documents import commands_of, run_with_links
from tests.inference.models import saved, tiny_model

COMMANDS = commands_of("docs/how-to/bids.md")

_MASKS, _DERIVED, _APP = (
    next(line for line in COMMANDS if line.startswith(start))
    for start in (
        "medfcn predict RUN tree -o masks",
        "medfcn predict RUN tree -o tree3",
        "medfcn bids-app tree OUT participant",
    )
)
EARLIER = {line: [_MASKS] for line in COMMANDS if line.startswith("medfcn evaluate masks")}
EARLIER |= {line: [_DERIVED] for line in COMMANDS if line.split()[2].startswith("tree3/")}
EARLIER |= {line: [_APP] for line in COMMANDS if line.endswith(" group")}
"""Commands that must have run before another one."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data sets that the page names."""
    root = tmp_path_factory.mktemp("page")
    saved(tiny_model(labels="ball=1"), root / "RUN")
    bids_tree_of(root / "tree")
    tree = bids_tree_of(root / "tree2", subjects=4)
    for number in range(1, 5):
        for session in (1, 2):
            name = f"sub-{number:02d}_ses-{session}"
            scan(tree, f"{name}_FLAIR", number)
            scan(tree / "derivatives" / "auto", f"{name}_desc-auto_dseg", number, label=True)
    describe(tree / "derivatives" / "auto", "auto", DatasetType="derivative", GeneratedBy=[{"Name": "another tool"}])
    return root


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_runs(line: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_with_links(line, place, before=EARLIER.get(line, ()))
    # The example works on a part of the subjects, and the table says which masks are not there yet.
    assert result.exit_code == (3 if line.endswith(" group") else 0), result.output
