"""What the README says to type works, and is what the checks run."""

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from medfcn.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]
COMMANDS = [line.split("#")[0].strip() for line in LINES if line.startswith("medfcn ")]


def test_the_two_set_up_commands_stand_first() -> None:
    assert "&& .venv/bin/medfcn demo" in LINES[0]
    assert "&& .venv/bin/pytest" in LINES[1]
    assert all("-c constraints.txt" in line for line in LINES[:2])


def test_the_checks_call_the_same_test_command() -> None:
    assert LINES[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line: str) -> None:
    words = shlex.split(line)[1:]
    command = main.commands[words[0]]
    context = command.make_context(words[0], words[1:], resilient_parsing=False)
    assert isinstance(context, click.Context)


def test_the_first_page_shows_every_command() -> None:
    start = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^medfcn ([a-z-]+)", start, re.MULTILINE)) == set(main.commands)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 60


def test_the_readme_says_research_use_only() -> None:
    assert "Research use only; not a medical device" in README


def test_every_room_of_the_package_is_described() -> None:
    for path in (ROOT / "medfcn").iterdir():
        if path.is_dir() and (path / "__init__.py").is_file():
            assert f"`medfcn/{path.name}/`" in MAP, path.name


def test_every_module_that_the_map_names_is_there() -> None:
    named = re.findall(r"`((?:medfcn/)?[a-z_/]+\.py)`", MAP)
    assert len(named) > 15
    missing = [name for name in named if not any((root / name).is_file() for root in (ROOT, ROOT / "medfcn"))]
    assert missing == []


def test_every_link_in_the_documents_leads_to_a_file() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_citation_is_of_this_version() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {stated['version']}" in citation
    assert (
        f"license: {stated['license'].split(' AND ')[0]}" in citation
    )  # that of the code; a list would mean a choice
    assert f"  - name: {stated['authors'][0]['name']}" in citation
