"""`medfcn describe`: everything that a program, or a page of reference, needs to know about medfcn."""

import ast
import dataclasses
import inspect
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, cast, get_args, get_type_hints

import click

from medfcn import errors, settings
from medfcn.commands.exits import BY_SIGNAL, FAILED, MISUSE, SOME_FAILED, command, show
from medfcn.commands.options import flag
from medfcn.runs.folder import Entry, RunFolder

STATUSES = {
    0: "All done.",
    FAILED: "The run failed, or every case did.",
    MISUSE: "The command line is wrong; nothing was done.",
    SOME_FAILED: "Finished, but some cases failed; failures.csv names them.",
    BY_SIGNAL + 2: "Interrupted (Ctrl-C).",
    BY_SIGNAL + 15: "Ended by SIGTERM.",
}
"""Exit statuses of every command."""


@command()
@click.argument("run", required=False)
@flag("--json", "JSON for a program, instead of Markdown.")
def describe(run: str | None, json: bool) -> None:
    """Describe every command, setting, file, problem code and exit status, as Markdown or JSON.

    With RUN (a run folder, a .medfcn file or the name of a model), write the methods paragraph of a paper instead:
    data, split, slices, training, scores and versions, from the run's own record.
    """
    if run is None:
        found = description(cast(click.Group, click.get_current_context().find_root().command))
        show(*(_json(found) if json else reference_page(found)).split("\n"))
        return
    from medfcn.reporting.methods import methods_paragraph

    methods = methods_paragraph(run)
    show(*(_json({"run": run, "methods": methods}) if json else methods).split("\n"))


def description(main: click.Group) -> dict[str, Any]:
    """All facts, from the code itself: from click, from the settings' docstrings, from the table of codes.

    Args:
        main: The command line.

    Returns:
        Values for a JSON file: `version`, `commands`, `settings`, `layouts`, `formats`, `presets`, `files`,
        `problem_codes` and `exit_statuses`.
    """
    from medfcn.datasets.layouts import LAYOUTS
    from medfcn.volumes.names import NIFTI_EXTENSIONS, OTHER_EXTENSIONS

    return {
        "version": version("medfcn"),
        "commands": {name: _command(found) for name, found in sorted(main.commands.items())},
        "settings": {
            table.name: _settings_of(cast(type, table.type)) for table in dataclasses.fields(settings.Settings)
        },
        "layouts": dict(LAYOUTS),
        "formats": [*NIFTI_EXTENSIONS, *OTHER_EXTENSIONS],
        "presets": list(get_args(settings.Preset)),
        "files": _files(),
        "problem_codes": _codes(),
        "exit_statuses": {str(status): meaning for status, meaning in STATUSES.items()},
    }


def reference_page(found: dict[str, Any]) -> str:
    """The facts of `description` as one page of Markdown."""
    return "\n".join(_markdown(found))


def _command(found: click.Command) -> dict[str, Any]:
    context = click.Context(found)
    return {
        "help": inspect.cleandoc(found.help or "").replace("\b\n", ""),
        "arguments": [
            {"name": each.human_readable_name, "required": each.required, "several": each.nargs != 1}
            for each in found.params
            if isinstance(each, click.Argument)
        ],
        "options": [_option(each, context) for each in found.params if isinstance(each, click.Option)],
    }


def _option(option: click.Option, context: click.Context) -> dict[str, Any]:
    default = option.get_default(context)
    kind = option.type
    facts: dict[str, Any] = {
        "names": [*option.opts, *option.secondary_opts],
        "type": "flag" if option.is_flag else kind.name,
        "metavar": None if option.is_flag else option.make_metavar(context),
        "default": default if isinstance(default, bool | int | float | str) else None,
        "required": option.required,
        "several": option.multiple,
        "help": option.help or "",
    }
    if isinstance(kind, click.Choice):
        facts["choices"] = [str(choice) for choice in kind.choices]
    return facts


def _settings_of(table: type) -> dict[str, Any]:
    """The settings of a table by name: type, default and meaning."""
    hints, meanings = get_type_hints(table), _meanings(table)
    return {
        each.name: {
            "type": _type_text(hints[each.name]),
            "default": _plain(getattr(table(), each.name)),
            "help": meanings.get(each.name, ""),
        }
        for each in dataclasses.fields(table)
    }


def _meanings(described: type) -> dict[str, str]:
    """The text below each field of a class."""
    body: list[ast.stmt] = getattr(ast.parse(inspect.getsource(described)).body[0], "body", [])
    found = {}
    for field, below in itertools.pairwise(body):
        target = field.target if isinstance(field, ast.AnnAssign) else getattr(field, "targets", [None])[0]
        text = getattr(getattr(below, "value", None), "value", None)
        if isinstance(target, ast.Name) and isinstance(below, ast.Expr) and isinstance(text, str):
            found[target.id] = _one_paragraph(text)
    return found


def _type_text(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"typing\.|\bLiteral\[([^\]]*)\]", lambda found: found[1] or "", text).replace("NoneType", "None")


def _files() -> dict[str, str]:
    """Each file and folder that medfcn writes into a run folder, with its meaning."""
    meanings = _meanings(RunFolder)
    entries = {name: entry.name for name, entry in vars(RunFolder).items() if isinstance(entry, Entry)}
    return {file: meanings.get(name, "") for name, file in entries.items()}


def _codes() -> dict[str, str]:
    """The table of codes in the docstring of `medfcn.errors`."""
    return dict(re.findall(r"^ +([A-Z][A-Z0-9_]+) +(\S.*\.)$", errors.__doc__ or "", re.MULTILINE))


def _one_paragraph(text: str) -> str:
    return " ".join(text.split())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


def _json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False)


def _markdown(found: dict[str, Any]) -> Iterator[str]:
    yield f"# Reference of medfcn {found['version']}"
    yield "\n## Commands"
    for name, each in found["commands"].items():
        arguments = "".join(f" {argument['name']}" for argument in each["arguments"])
        yield f"\n### medfcn {name}\n\n```\nmedfcn {name}{arguments} [OPTIONS]\n```\n\n{each['help']}\n"
        yield from _table(
            ("option", "default", "meaning"),
            [
                (f"`{', '.join(option['names'])}`{_shown_kind(option)}", _shown(option["default"]), option["help"])
                for option in each["options"]
            ],
        )
    yield "\n## Settings\n\nIn a TOML file for `--config`, by table.\n"
    for name, table in found["settings"].items():
        yield f"\n### [{name}]\n"
        rows = [(f"`{key}`", f"`{_shown(each['default']) or 'None'}`", each["help"]) for key, each in table.items()]
        yield from _table(("setting", "default", "meaning"), rows)
    for title, heading, key in (
        ("Layouts of data sets", ("layout", "what it is"), "layouts"),
        ("Files in a run folder", ("file", "what it is"), "files"),
        ("Problem codes", ("code", "what it says"), "problem_codes"),
        ("Exit statuses", ("status", "meaning"), "exit_statuses"),
    ):
        yield f"\n## {title}\n"
        yield from _table(heading, [(f"`{name}`", meaning) for name, meaning in found[key].items()])
    yield "\n## Formats\n"
    yield ", ".join(f"`{extension}`" for extension in found["formats"])


def _shown_kind(option: dict[str, Any]) -> str:
    if option["type"] == "flag":
        return ""
    return f" {'|'.join(option['choices'])}" if "choices" in option else f" {option['metavar']}"


def _shown(value: Any) -> str:
    return "" if value is None or value is False else str(value)


def _table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for row in (heading, ("---",) * len(heading), *rows):
        yield "| " + " | ".join(_one_paragraph(field).replace("|", "\\|") for field in row) + " |"
