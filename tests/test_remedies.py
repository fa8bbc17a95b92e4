"""Every remedy that a message names exists: options of commands, commands, and settings."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import medfcn
from medfcn.cli import main
from medfcn.errors import MedfcnError, as_command
from medfcn.evaluation.definitions import Definitions
from medfcn.settings import Settings
from medfcn.text import CALLED, for_library
from medfcn.volumes.options import ReadOptions

PACKAGE = Path(__file__).resolve().parents[1] / "medfcn"
OTHERS = {"--nproc-per-node"}
"""Options of other tools: torchrun."""
OF_COMMANDS = {"--json", "--all-metrics", "--memory"}
"""Options that no call has, so that none is told of them: about what is printed, and the memory that is taken."""


def texts() -> Iterator[tuple[str, str]]:
    """Each text in the package that is no docstring, with its place; the values in a formatted one are `…`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        in_parts = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
        } - {id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)}
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            place = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield (
                    place,
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values),
                )
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in in_parts | docstrings
            ):
                yield place, node.value


def test_every_option_that_a_message_names_exists() -> None:
    commands = [main, *main.commands.values()]
    known = {name for each in commands for option in each.params for name in (*option.opts, *option.secondary_opts)}
    known |= {"--help", "--version", *OTHERS}
    named = [(place, name) for place, text in texts() for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]+", text)]
    assert len(named) > 100
    assert [(place, name) for place, name in named if name not in known] == []


def test_every_command_that_a_message_names_exists() -> None:
    named = [(place, name) for place, text in texts() for name in re.findall(r"`medfcn ([a-z]+)", text)]
    assert len(named) > 4
    assert [(place, name) for place, name in named if name not in main.commands] == []


def test_every_setting_that_a_message_names_exists() -> None:
    tables = {
        table.name: {item.name for item in dataclasses.fields(table.type)} for table in dataclasses.fields(Settings)
    }
    named = [
        (place, table, name)
        for place, text in texts()
        if " " in text  # a sentence, not a module
        if "nn.Module" not in text and "import torch" not in text  # nor Python that is written
        for table, name in re.findall(r"\b(slices|network|augment|training|prediction)\.([a-z_]+)\b", text)
    ]
    assert len(named) > 20
    assert [(place, f"{table}.{name}") for place, table, name in named if name not in tables[table]] == []


def test_every_option_that_a_message_of_the_library_names_is_an_argument_in_a_call() -> None:
    """A script meets `labels=`, not `--labels`; texts that only commands print and whole commands are their own."""
    left = [
        (place, name)
        for place, text in texts()
        if not place.startswith(("commands/", "cli.py", "text.py"))
        for name in re.findall(
            r"(?<![\w-])--[a-z][a-z0-9_-]+", re.sub(r"medfcn [a-z][a-z-]* [^;()`]*", "", for_library(text))
        )
        if name not in OTHERS | OF_COMMANDS
    ]
    assert left == []


def test_every_argument_that_stands_for_an_option_exists() -> None:
    calls = [medfcn.train, medfcn.tune, medfcn.predict, medfcn.evaluate, medfcn.compare, medfcn.export, medfcn.load]
    known = {name for call in calls for name in inspect.signature(call).parameters}
    inner = {item.name for kind in (ReadOptions, Definitions) for item in dataclasses.fields(kind)}
    for option, called in CALLED.items():
        outer, _, rest = called.partition("=")
        assert outer in known, option
        if "(" in rest:
            assert rest.partition("(")[2].partition("=")[0] in inner, option


@pytest.mark.parametrize(
    ("typed", "called"),
    [
        ("go on with the same command and --resume", "go on with the same call and resume=True"),
        ("pass --nonfinite fill:0, or fix it", "pass options=ReadOptions(nonfinite=0), or fix it"),
        ("such as --labels organ=1,ignore=255", "such as labels='organ=1,ignore=255'"),
        (
            "say where with --around X,Y,Z or --box",
            "say where with options=ReadOptions(around_mm=(X,Y,Z)) or options=ReadOptions(box_mm=…)",
        ),
        ("begin with --shard 1/4", "begin with shard='1/4'"),
        ("give --groups FILE (--group-by stem)", "give groups=FILE (group_by='stem')"),
        ("give all: medfcn train DATASET -o RUN --resume", "give all: medfcn train DATASET -o RUN --resume"),
        ("a/--labels: not a table", "a/--labels: not a table"),
    ],
)
def test_a_call_reads_arguments_where_a_command_reads_options(typed: str, called: str) -> None:
    assert for_library(typed) == called == for_library(called)
    assert str(MedfcnError(typed)) == called
    with as_command("train"):
        assert str(MedfcnError(typed)) == typed


def test_the_walk_finds_an_option_in_a_formatted_text() -> None:
    assert any("--max-bytes …" in text for _, text in texts())
    assert isinstance(main, click.Group)
