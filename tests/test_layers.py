"""Imports point one way through the house; see the table in the README."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "medfcn"

# What each room may import of medfcn, besides itself. The modules at the bottom may import each other in this order.
BOTTOM = ("errors", "settings", "config", "files", "progress")
ALLOWED = {
    "volumes": BOTTOM,
    "slices": (*BOTTOM, "volumes"),
    "networks": (*BOTTOM, "volumes", "slices"),
    "inference": (*BOTTOM, "volumes", "slices", "networks"),
    "evaluation": (*BOTTOM, "volumes"),
    "training": (*BOTTOM, "volumes", "slices", "networks", "inference", "evaluation"),
    "tuning": (*BOTTOM, "volumes", "slices", "networks", "inference", "evaluation", "training"),
}
ALLOWED["commands"] = (*BOTTOM, *ALLOWED, "report", "demo")
BOTTOM_ALLOWED = {
    "errors": (),
    "settings": ("errors",),
    "config": ("errors", "settings"),
    "files": ("errors",),
    "progress": ("errors",),
}
TORCH_FREE = ("volumes", "evaluation", *BOTTOM)


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Every module a file imports, at its top, in functions, and under TYPE_CHECKING, with the line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                pytest.fail(f"{path}:{node.lineno}: relative import; write the whole name")
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def wrong_imports(room: str, imported: list[tuple[int, str]]) -> list[str]:
    allowed = ALLOWED.get(room, BOTTOM_ALLOWED.get(room))
    if allowed is None:  # the top level may import everything
        return []
    wrong = []
    for line, name in imported:
        parts = name.split(".")
        if parts[0] == "medfcn" and parts[1] != room and parts[1] not in allowed:
            wrong.append(f"line {line}: {room} imports {name}")
        if room in TORCH_FREE and parts[0] in ("torch", "monai"):
            wrong.append(f"line {line}: {room} imports {name}")
    return wrong


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_import_points_down_the_house(path: Path) -> None:
    assert wrong_imports(room_of(path), imports_of(path)) == []


def test_an_import_that_points_up_is_found() -> None:
    assert wrong_imports("volumes", [(3, "medfcn.slices.plan.Plan")]) == [
        "line 3: volumes imports medfcn.slices.plan.Plan"
    ]
    assert wrong_imports("evaluation", [(3, "torch.nn")])
    assert wrong_imports("inference", [(1, "medfcn.evaluation.evaluate")])
    assert not wrong_imports("training", [(1, "medfcn.evaluation.evaluate")])
    assert wrong_imports("training", [(1, "medfcn.commands.options.checked")])
    assert wrong_imports("commands", [(1, "medfcn.cli.main")])


def test_every_room_is_known() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert rooms == set(ALLOWED)


@pytest.mark.parametrize(
    ("library", "doors"),
    [
        ("nibabel", {"volumes/nifti.py"}),
        ("SimpleITK", {"volumes/others.py"}),
        ("click", {"cli.py", "commands/"}),
        ("rich", {"progress.py"}),
        ("optuna", {"tuning/study.py"}),
        ("sqlalchemy", {"tuning/study.py"}),
        ("safetensors", {"inference/weights.py"}),
    ],
)
def test_a_library_has_one_door(library: str, doors: set[str]) -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == library for _, name in imports_of(path))
    }
    rooms = tuple(door for door in doors if door.endswith("/"))  # whose modules may all use the library
    assert {next((room for room in rooms if user.startswith(room)), user) for user in users} == doors
