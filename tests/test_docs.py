"""The documentation: every page is on the site, every link leads somewhere, what is to be typed exists."""

import importlib
import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

import medfcn
from medfcn.cli import main
from tests.documents import DOCS, blocks_of, builder
from tests.scripts import module_at

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]
FENCES = [(page, block) for page in DOCUMENTS for block in blocks_of(page)]
ONLY_PARSED = sorted(
    {
        line
        for page, block in FENCES
        if block.kind in ("sh", "bash", "")
        and (block.why_not or block.kind != "sh" or page.parent.name == "benchmarks")
        for line in block.lines
        if line.startswith("medfcn ") and line.split()[1] in main.commands
    }
)
"""The commands that `tests/test_docs_run.py` does not run."""
OPTION = r"(?<![\w-])--[a-z][\w-]+"
PARAMETERS = [option for each in (main, *main.commands.values()) for option in each.params]
OPTIONS = {"--help", "--version"} | {name for each in PARAMETERS for name in (*each.opts, *each.secondary_opts)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    builder().gather(folder)
    return folder


def places_in(entries: object) -> set[str]:
    """The pages that a navigation names."""
    if isinstance(entries, str):
        return {entries}
    parts = entries.values() if isinstance(entries, dict) else entries
    return set().union(*(places_in(part) for part in parts)) if isinstance(parts, list) or parts else set()


def pages_of(site: Path) -> list[Path]:
    """Every page, and none of the files that pages link to."""
    return [page for page in sorted(site.rglob("*.md")) if page.relative_to(site).parts[0] != "files"]


def test_every_page_is_in_the_navigation(site: Path) -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert places_in(nav) == {page.relative_to(site).as_posix() for page in pages_of(site)}


def test_every_link_of_the_site_leads_to_a_file_of_it(site: Path) -> None:
    links = 0
    for page in pages_of(site):
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).is_file(), f"{page.name}: {target}"
                links += 1
    assert links > 10


def test_every_public_name_is_on_the_python_page(site: Path) -> None:
    page = (site / "python.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^::: medfcn\.", page, re.MULTILINE)) == len(medfcn.__all__)
    assert "::: medfcn.evaluation.evaluate.evaluate\n" in page


@pytest.mark.parametrize("line", ONLY_PARSED)
def test_every_command_that_is_not_run_parses(line: str) -> None:
    words = shlex.split(line)
    context = main.commands[words[1]].make_context(words[1], words[2:], resilient_parsing=False)
    assert isinstance(context, click.Context)


OF_OTHERS = re.compile(
    r"(python|pip|torchrun|tensorboard|mlflow|bids-validator-deno|\.venv|sbatch|dask|--nnodes|--nproc|--rdzv)"
)
"""Code that begins so is of another tool."""


def test_every_option_that_a_page_names_exists() -> None:
    unknown = []
    for page in DOCUMENTS[:-1]:  # the scripts in benchmarks/ have options of their own
        codes = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
        named = [name for code in codes if not OF_OTHERS.match(code) for name in re.findall(OPTION, code)]
        unknown += [(page.name, name) for name in named if name not in OPTIONS]
    assert unknown == []


@pytest.mark.parametrize("number", [number for number, (_, block) in enumerate(FENCES) if block.kind == "python"])
def test_every_python_block_compiles_and_imports_what_is_there(number: int) -> None:
    page, block = FENCES[number]
    code = block.code
    compile(code, page.name, "exec")
    for module, names in re.findall(r"^from (medfcn[\w.]*) import ([\w, ]+)$", code, re.MULTILINE):
        found = importlib.import_module(module)
        assert all(hasattr(found, name.strip()) for name in names.split(",")), (page, module, names)


def test_the_figures_are_those_that_their_script_draws() -> None:
    figures = module_at(DOCS / "figures.py")
    assert (figures.PICTURES / "errors.svg").read_text(encoding="utf-8") == figures.errors_svg()


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_results_and_needs_no_magic(path: Path) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    assert book["nbformat"] == 4
    for cell in book["cells"]:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")
        assert not re.search(r"^[%!]", "".join(cell["source"]), re.MULTILINE) or cell["cell_type"] == "markdown"
