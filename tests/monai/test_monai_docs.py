"""Claims of `docs/how-to/monai.md`; `tests/test_docs_run.py` runs its examples."""

import re
import tomllib
from pathlib import Path

from medfcn.config import settings_from
from medfcn.networks.monai_nets import TESTED

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "how-to" / "monai.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_settings_are_settings() -> None:
    (toml,) = blocks("toml")
    assert settings_from(tomllib.loads(toml), source="docs/how-to/monai.md").network.monai == "BasicUNet"


def test_the_tested_networks_are_named() -> None:
    assert all(f"`{name}`" in TEXT for name in TESTED)
    assert (ROOT / "pipelines" / "monai_loop.py").is_file()
