"""Every command of the page on BIDS runs, on data sets made for it."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from medfcn.cli import main
from tests.datasets.bids_trees import bids_tree_of, describe, scan
from tests.inference.models import saved, tiny_model

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "how-to" / "bids.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]

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
    for path in place.iterdir():
        if path.name != "RUN" or " train " not in line:
            (tmp_path / path.name).symlink_to(path)
    for before in EARLIER.get(line, ()):
        assert CliRunner().invoke(main, shlex.split(before)[1:]).exit_code == 0
    words = shlex.split(line)[1:]
    if words[0] == "train":
        words += ["--steps", "2", "--preset", "compact"]
    result = CliRunner().invoke(main, words)
    # The example works on a part of the subjects, and the table says which masks are not there yet.
    assert result.exit_code == (3 if words[-1] == "group" else 0), result.output
