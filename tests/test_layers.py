"""Imports point one way through the house; see the table in the README."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "medfcn"

# The rooms from the bottom of the house to its top. A room may import those before it, less those it must not know.
BOTTOM = ("text", "errors", "libraries", "systems", "allocator", "memory")
BOTTOM += ("memory_errors", "library_memory", "threads", "scratch", "cores", "settings", "config")
BOTTOM += ("files", "png", "byte_range", "decoding", "progress", "calls")
ROOMS = ("volumes", "labels", "runs", "datasets", "slices", "networks", "monai", "inference", "evaluation")
ROOMS += ("exporting", "training", "reporting", "tuning", "verbs", "commands")
KNOWS_NOTHING_OF = {
    "runs": ("volumes",),
    "slices": ("datasets", "runs"),
    "networks": ("datasets", "runs"),
    "evaluation": ("slices", "networks", "monai", "inference"),
    "tuning": ("reporting",),
}
ALLOWED = {
    room: (*BOTTOM, *(below for below in ROOMS[:place] if below not in KNOWS_NOTHING_OF.get(room, ())))
    for place, room in enumerate(ROOMS)
}
ALLOWED["commands"] += ("demo",)
BOTTOM_ALLOWED = {room: BOTTOM[:place] for place, room in enumerate(BOTTOM)}
TORCH_FREE = ("volumes", "labels", "datasets", "runs", "evaluation", *BOTTOM)


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
    assert wrong_imports("training", [(1, "medfcn.commands.options.flag")])
    assert wrong_imports("commands", [(1, "medfcn.cli.main")])


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles_of(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, by Tarjan's algorithm (SIAM J. Comput. 1(2), 1972)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        stack.append(module)
        for other in sorted(imports.get(module, ())):
            if other not in numbers:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], numbers[other])
        if lowest[module] == numbers[module]:
            circle = stack[stack.index(module) :]
            del stack[-len(circle) :]
            if len(circle) > 1 or module in imports.get(module, ()):
                circles.append(sorted(circle))

    for module in sorted(imports):
        if module not in numbers:
            visit(module)
    return circles


def module_imports() -> dict[str, set[str]]:
    """Which modules each module imports: lazily and for type checkers too.

    `from medfcn.volumes import Volume` counts as an import of the package `medfcn.volumes`, whose own imports are
    those of its `__init__.py`.
    """
    paths = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    return {
        module: {
            target
            for _, name in imports_of(path)
            for target in (name if name in paths else name.rpartition(".")[0],)
            if target in paths and target != "medfcn"
        }
        for module, path in paths.items()
    }


def test_no_module_imports_itself_through_others() -> None:
    assert circles_of(module_imports()) == []


def test_a_circle_of_imports_is_found() -> None:
    circle = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles_of(circle) == [["a", "b", "c"]]
    assert circles_of({"a": {"b"}, "b": set()}) == []


def test_every_room_is_known() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert rooms == set(ALLOWED)


@pytest.mark.parametrize(
    ("library", "doors"),
    [
        ("nibabel", {"volumes/formats/nifti.py"}),
        ("SimpleITK", {"volumes/formats/itk.py"}),
        ("pydicom", {"volumes/formats/dicom/", "exporting/dicom_seg.py"}),
        ("highdicom", {"exporting/dicom_seg.py"}),
        ("click", {"cli.py", "commands/"}),
        ("rich", {"progress.py"}),
        ("optuna", {"tuning/study.py"}),
        ("sqlalchemy", {"tuning/study.py"}),
        ("distributed", {"runs/cluster.py"}),
        ("tensorboardX", {"runs/tensorboard.py"}),
        ("mlflow", {"runs/mlflow.py"}),
        ("wandb", {"runs/wandb.py"}),
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
