"""The pages of the documentation as blocks of code, and how tests run them: in order, in a place of their own.

A comment before a block says what a reader does not see:

    <!-- not run: it needs a cluster -->     the block is parsed only
    <!-- place: petct -->                    what follows speaks of this data, a function of `tests/places.py`
"""

import re
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from click.testing import CliRunner, Result

from medfcn.cli import main
from medfcn.config import settings_from
from tests.scripts import module_at

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {
    page.relative_to(ROOT).as_posix(): page
    for page in (
        ROOT / "README.md",
        *sorted(DOCS.rglob("*.md")),
        *sorted(DOCS.rglob("*.ipynb")),
        ROOT / "benchmarks" / "README.md",
    )
}
_PARTS = re.compile(r"^<!-- (place|not run): (.*?) -->$|^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_OUTPUT = re.compile(r"(?:-o|--output) (\S+)|medfcn\.train\(\S+ \"(\S+)\"|medfcn\.predict\(\S+ \S+ \"(\S+)\"")
_FEWER = {"--folds": "2", "--trials": "2"}


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        kind: Its language: `sh`, `python`, `toml`; others are shown and not run.
        code: Its lines.
        why_not: The reason why it is not run; empty where it is.
        place: The data that it speaks of.
        part: Blocks of one part of a page are run in one folder; a place begins a part.
    """

    kind: str
    code: str
    why_not: str
    place: str
    part: int

    @property
    def lines(self) -> list[str]:
        """The commands of a shell block, without comments and continued lines joined."""
        joined = self.code.replace("\\\n", " ").splitlines()
        return [line for line in (each.split(" #")[0].strip() for each in joined) if line and line[0] != "#"]


def builder() -> ModuleType:
    """The script that builds the site, as a module."""
    return module_at(DOCS / "build.py")


def text_of(page: Path) -> str:
    """A page as it is on the site; a notebook speaks of the samples."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    return f"<!-- place: samples -->\n{builder().notebook_page(text, page.name)}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found: list[Block] = []
    place, part, why_not = "common", 0, ""
    for mark, words, kind, code in _PARTS.findall(text_of(page)):
        if mark == "not run":
            why_not = words
        elif mark:
            place, part = words, part + 1
        else:
            found.append(Block(kind, code, why_not, place, part))
            why_not = ""
    return found


def commands_of(page: str) -> list[str]:
    """The commands of a page, in order; the page by its path from the root."""
    return [line for block in blocks_of(PAGES[page]) if block.kind == "sh" for line in block.lines]


def parts_of(page: Path) -> list[list[Block]]:
    """The blocks that are run, by the part of the page."""
    run = [block for block in blocks_of(page) if block.kind in ("sh", "python", "toml") and not block.why_not]
    return [[block for block in run if block.part == part] for part in sorted({block.part for block in run})]


def outputs_of(blocks: Sequence[Block]) -> set[str]:
    """What the blocks make, as far as their text tells."""
    return {name for block in blocks for pair in _OUTPUT.findall(block.code) for name in pair if name}


def run_block(block: Block, names: dict[str, Any], page: str) -> None:
    """Run one block in the current folder.

    Args:
        block: Not one that says why not.
        names: What the Python blocks before it defined, and this one will.
        page: For messages.
    """
    if block.kind == "toml":
        settings_from(tomllib.loads(block.code), source=page)
    elif block.kind == "python":
        exec(compile(_shortened(block.code), page, "exec"), names)
    elif block.kind == "sh":
        for line in block.lines:
            words = _quick(shlex.split(line))
            assert words[0] == "medfcn", f"{page}: {line!r} is no command of medfcn; say why it is not run"
            result = CliRunner().invoke(main, words[1:])
            assert result.exit_code == 0, f"{page}: {line}\n{result.output}"


def run_with_links(line: str, place: Path, *, before: Sequence[str] = ()) -> Result:
    """Run one command in the current folder, which gets links to what there is in a place.

    Args:
        line: The command; a training has two steps of a small network.
        place: The data, and the model `RUN`, of which a training finds nothing.
        before: Commands that must have run before it.
    """
    words = shlex.split(line)[1:]
    for path in place.iterdir():
        if path.name != "RUN" or words[0] != "train":
            Path(path.name).symlink_to(path)
    for each in before:
        assert CliRunner().invoke(main, shlex.split(each)[1:]).exit_code == 0
    if words[0] == "train":
        words += ["--steps", "2", "--preset", "compact"]
    return CliRunner().invoke(main, words)


def _shortened(code: str) -> str:
    return re.sub(r"steps ?= ?\d+|budget=\"\w+\"|epochs=\d+", "steps=2", code)


def _quick(words: list[str]) -> list[str]:
    """The command with few steps, folds and trials, and a small network where the page names none."""
    if words[1] not in ("train", "tune"):
        return words
    quick, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in ("--budget", "--steps", "--epochs"):
            skip = True
        elif word in _FEWER:
            quick += [word, _FEWER[word]]
            skip = True
        else:
            quick.append(word)
    quick += ["--steps", "4", "--threads", "1"]
    if words[1] == "tune" and "--trials" not in words:
        quick += ["--trials", "2"]
    if {"--config", "--resume", "--more", "--init", "--encoder-weights"} & {*words}:
        return quick
    return [*quick, "--config", "narrow.toml" if "--preset" in words else "tiny.toml"]
