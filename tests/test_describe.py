"""What `medfcn describe` says is what the code does: a program and the reference page rely on it."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

from click.testing import CliRunner

from medfcn.cli import main
from medfcn.commands.describe import STATUSES, description
from medfcn.datasets import bids, dicom_layout, find_dataset, folder_names, layouts
from medfcn.datasets.layouts import LAYOUTS
from medfcn.settings import Settings

FOUND = description(main)


def printed(*options: str) -> str:
    result = CliRunner().invoke(main, ["describe", *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_has_every_command_with_every_option() -> None:
    found = json.loads(printed("--json"))
    assert set(found["commands"]) == set(main.commands)
    for name, command in main.commands.items():
        options = found["commands"][name]["options"]
        stated = {each for option in options for each in option["names"]}
        known = {each for option in command.params for each in (*option.opts, *option.secondary_opts)}
        assert stated == {each for each in known if each.startswith("-")}
        assert all(option["help"] for option in options), name
    tolerance = next(each for each in found["commands"]["evaluate"]["options"] if each["names"] == ["--tolerance-mm"])
    assert (tolerance["default"], tolerance["type"]) == (1.0, "float range")
    boundary = next(each for each in found["commands"]["evaluate"]["options"] if each["names"] == ["--boundary"])
    assert boundary["choices"] == ["voxels", "elements"]


def test_every_setting_has_its_default_and_a_meaning() -> None:
    for table in dataclasses.fields(Settings):
        for each in dataclasses.fields(getattr(Settings(), table.name)):
            said = FOUND["settings"][table.name][each.name]
            assert said["help"], f"{table.name}.{each.name} has no docstring"
            value = getattr(getattr(Settings(), table.name), each.name)
            assert said["default"] == (list(value) if isinstance(value, tuple) else value)
    assert FOUND["settings"]["slices"]["context"]["type"] == "int | None"


def test_every_file_code_and_status_has_a_meaning() -> None:
    assert FOUND["files"]["model.safetensors"] == "The weights."
    assert all(FOUND["files"].values())
    assert FOUND["problem_codes"]["FILE_CUT_OFF"] == "The file ends too early."
    assert set(FOUND["exit_statuses"]) == {"0", "1", "2", "3", "130", "143"} == set(map(str, STATUSES))


def test_the_layouts_are_those_that_are_recognised(balls: Path) -> None:
    assert find_dataset(balls).layout in LAYOUTS
    sources = "".join(map(inspect.getsource, (layouts, bids, dicom_layout, folder_names)))
    named = re.findall(r"Place\([^)\"]*\"([\w ]+)\"", sources)
    named += re.findall(r"return FolderPair\(.*, \"(\w+)\"\)", sources)
    assert set(named) == set(LAYOUTS)


def test_markdown_has_whole_tables() -> None:
    lines = printed().splitlines()
    assert "### medfcn predict" in lines
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")]
    assert set(cells) <= {3, 4}
    assert not any(line.startswith("|") and "\t" in line for line in lines)
