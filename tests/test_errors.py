"""Every code that the package raises is explained, and every code that is explained is raised."""

import ast
import pickle
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import medfcn
from medfcn import errors
from medfcn.cli import main
from medfcn.errors import MedfcnError, MissingFileError, OutputExistsError, SettingsError, VolumeError, naming
from medfcn.text import for_command

PACKAGE = Path(errors.__file__).parent
# Words in capitals that are no codes: variables of torchrun, types of MetaImage and of contours, terms of a page.
NO_CODES = re.compile(
    r"MET_\w+|CLOSED\w+|\w*RANK|\w*WORLD_SIZE|TORCHELASTIC_RUN_ID|CHUNK_VOXELS|EXPECTED_DICE|\w+_THREADS"
)


def explained() -> dict[str, str]:
    """The table in the docstring of `medfcn.errors`: one code and one sentence in each line."""
    assert errors.__doc__ is not None
    return dict(re.findall(r"^ +([A-Z][A-Z0-9_]+) +(\S.*\.)$", errors.__doc__, re.MULTILINE))


def raised() -> dict[str, str]:
    """Every code as it stands in the code, with the file it is in; `_GRID_NEAR` is put behind a role."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|(_[A-Z]{3,})+|SHAPE|FAILED", node.value):
                found[node.value] = str(path.relative_to(PACKAGE))
    return {code: file for code, file in found.items() if not NO_CODES.fullmatch(code)}


def test_every_code_is_explained() -> None:
    table = explained()
    missing = {
        code: file
        for code, file in raised().items()
        if code not in table and not (code.startswith("_") and any(other.endswith(code) for other in table))
    }
    assert missing == {}, "write a line for each in the docstring of medfcn/errors.py"


def test_no_code_is_explained_that_nothing_raises() -> None:
    found = raised()
    endings = tuple(code for code in found if code.startswith("_"))
    assert [code for code in explained() if code not in found and not code.endswith(endings)] == []


def test_a_name_is_put_in_front_once() -> None:
    with pytest.raises(VolumeError) as caught, naming("a.nii"), naming("a.nii"):
        raise VolumeError("dim[1] is 0", code="SHAPE", field="dim[1]")
    assert (str(caught.value), caught.value.code, caught.value.field) == ("a.nii: dim[1] is 0", "SHAPE", "dim[1]")


def test_an_error_survives_pickling() -> None:
    """Worker processes raise them."""
    error = pickle.loads(pickle.dumps(SettingsError("a", code="SETTING_UNKNOWN", field="b")))
    assert (str(error), error.code, error.field) == ("a", "SETTING_UNKNOWN", "b")


def test_every_class_has_a_code_of_its_own() -> None:
    kinds = [MedfcnError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    mine = [kind for kind in kinds if kind.__module__ == errors.__name__]
    assert len({kind.default_code for kind in mine}) == len(mine) > 10


def test_a_script_and_a_command_each_read_their_own_form_of_a_remedy(tmp_path: Path) -> None:
    taken = tmp_path / "look.html"
    taken.write_text("mine")
    with pytest.raises(OutputExistsError) as caught:
        medfcn.look(tmp_path, taken)
    assert "replace it (overwrite=True)" in str(caught.value)
    assert "--overwrite" not in str(pickle.loads(pickle.dumps(caught.value)))
    result = CliRunner().invoke(main, ["look", str(tmp_path), "-o", str(taken)])
    assert "replace it (--overwrite)" in result.stderr
    assert "overwrite=True" not in result.stderr
    error = MissingFileError("run: name its place (medfcn train --resume run DATASET, moved_to=DATASET)")
    assert str(error) == "run: name its place (moved_to=DATASET)"
    assert for_command(error.args[0]) == "run: name its place (medfcn train --resume run DATASET)"
