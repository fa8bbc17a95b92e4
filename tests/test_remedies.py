"""Every remedy that a message names exists: options of commands, commands, and settings."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import click

from medfcn.cli import main
from medfcn.settings import Settings

PACKAGE = Path(__file__).resolve().parents[1] / "medfcn"
OTHERS = {"--nproc-per-node"}
"""Options of other tools: torchrun."""


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
        if "nn.Module" not in text  # nor Python that is written
        for table, name in re.findall(r"\b(slices|network|augment|training|prediction)\.([a-z_]+)\b", text)
    ]
    assert len(named) > 20
    assert [(place, f"{table}.{name}") for place, table, name in named if name not in tables[table]] == []


def test_the_walk_finds_an_option_in_a_formatted_text() -> None:
    assert any("--max-bytes …" in text for _, text in texts())
    assert isinstance(main, click.Group)
