"""Rules of the house that a search of the source can check: names in one place, escapes at the exits, openings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from medfcn.labels.sidecar import MaskRecord
from medfcn.runs import folder
from medfcn.runs.folder import Entry, RunFolder

PACKAGE = Path(__file__).resolve().parents[1] / "medfcn"
SOURCES = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}

ESCAPES = ("text.py", "errors.py", "progress.py", "commands/exits.py", "reporting/html.py", "reporting/svg.py")
ESCAPES += ("evaluation/paper_table.py", "exporting/model_card.py")
"""Modules through which text leaves: those that may make it safe to print."""
MOST_PARAMETERS = 8
VERBS = ("check", "compare", "evaluate", "export", "load", "plan", "predict", "report", "train", "tune")


def names_of_files() -> set[str]:
    """The names of files and folders that medfcn writes into its outputs, as `runs/folder.py` states them."""
    entries = {
        name for value in vars(RunFolder).values() if isinstance(value, Entry) for name in value.name.split("/")
    }
    files = {value for name, value in vars(folder).items() if name.endswith("_FILE")}
    return {name for name in entries | files if "." in name}


def keys_of_records() -> set[str]:
    """The keys of `<case>.json`, without single words (which have other uses) and one key of `model.json` too."""
    keys = {field.encode_name for field in msgspec.structs.fields(MaskRecord)}
    return {key for key in keys if "_" in key} - {"intended_use"}


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every docstring, those under a variable or a field included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Every string with its line, docstrings apart; of an f-string its fixed parts."""
    tree = ast.parse(source)
    explanations = set(docstrings(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in explanations:
            yield node.lineno, node.value


def spelled_names(source: str, names: set[str]) -> list[str]:
    """Paths that contain one of the names. A sentence (a message or a help text) may say a name."""
    return [
        f"line {line}: {text!r}"
        for line, text in literals(source)
        if not re.search(r"\s", text) and names & set(re.split(r"[/\\]", text))
    ]


def spelled_keys(source: str, keys: set[str]) -> list[str]:
    return [f"line {line}: {text!r}" for line, text in literals(source) if text in keys]


def private_openings(source: str) -> list[str]:
    """Docstrings that begin with What, Whether or Of."""
    return [
        f"line {text.lineno}: {str(text.value).strip()[:40]!r}"
        for text in docstrings(ast.parse(source))
        if re.match(r"\s*(What|Whether|Of)\b", str(text.value))
    ]


def escapes(source: str) -> list[str]:
    return [
        f"line {number}"
        for number, line in enumerate(source.splitlines(), start=1)
        if re.search(r"\bprintable\(", line)
    ]


def long_signatures(source: str) -> list[str]:
    """Functions with more parameters than a reader can keep in mind, public verbs and click's callbacks apart."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len(given) - (bool(given) and given[0].arg in ("self", "cls", "ctx"))
            is_command = any("command(" in ast.unparse(decorator) for decorator in node.decorator_list)
            if count > MOST_PARAMETERS and node.name not in VERBS and not is_command:
                found.append(f"line {node.lineno}: {node.name} has {count}")
    return found


def offences(found: dict[str, list[str]]) -> list[str]:
    """The places that break a rule, with their modules."""
    return [f"{path}, {line}" for path, lines in sorted(found.items()) for line in lines]


def test_the_names_of_output_files_are_stated_in_one_module() -> None:
    names = names_of_files()
    assert {"model.json", "scores.csv", "study.db", "report.html"} <= names
    found = {path: spelled_names(source, names) for path, source in SOURCES.items() if path != "runs/folder.py"}
    assert offences(found) == []


def test_the_keys_of_the_record_beside_a_mask_are_stated_in_one_module() -> None:
    keys = keys_of_records()
    assert {"mask_sha256", "expected_dice", "volumes_ml"} <= keys
    found = {path: spelled_keys(source, keys) for path, source in SOURCES.items() if path != "labels/sidecar.py"}
    assert offences(found) == []


def test_text_is_made_safe_only_where_it_leaves() -> None:
    found = {path: escapes(source) for path, source in SOURCES.items() if path not in ESCAPES}
    assert offences(found) == []


def test_no_docstring_begins_with_what_whether_or_of() -> None:
    assert offences({path: private_openings(source) for path, source in SOURCES.items()}) == []


def test_no_function_has_more_than_eight_parameters_but_the_public_verbs() -> None:
    assert offences({path: long_signatures(source) for path, source in SOURCES.items()}) == []


def test_each_rule_finds_what_breaks_it() -> None:
    names, keys = names_of_files(), keys_of_records()
    assert spelled_names('card = run / "model.json"', names)
    assert spelled_names('path = f"{run}/state/training.json"', names)
    assert not spelled_names('"""The card, model.json."""\nhelp = "Write report.html."', names)
    assert spelled_keys('record["mask_sha256"]', keys)
    assert private_openings('x = 1\n"""What x is."""\ndef f():\n    """Whether."""')
    assert not private_openings('"""Offsets."""')
    assert long_signatures("def f(self, a, b, c, d, e, f, g, h, *, i): ...")
    assert not long_signatures("def f(self, a, b, c, d, e, f, g, h): ...\ndef train(a, b, c, d, e, f, g, h, i): ...")
    assert escapes("print(printable(name))")
