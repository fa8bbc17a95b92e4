"""`medfcn networks`, run in process: what it prints, what it draws, and how it refuses."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from medfcn.cli import main
from medfcn.networks.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]


def networks(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["networks", *map(str, arguments)])


def only_line(result: Result) -> str:
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def overview() -> Result:
    return networks("--channels", 3, "--label-count", 20)


def test_every_preset_has_a_row_with_its_figures(overview: Result) -> None:
    assert (overview.exit_code, overview.stderr) == (0, "")
    rows = {line.split()[0]: line for line in overview.stdout.splitlines()[1 : 1 + len(PRESETS)]}
    assert list(rows) == list(PRESETS)
    assert re.fullmatch(r"fcn8s +134,489,759 +27\.8 G +1 2 4 8 16 32 +32 16 8 +468", rows["fcn8s"])
    assert rows["plain"].split()[-3:] == ["1", "1", "11"]
    assert "A slice of 3 × 256 × 256; 21 logits a pixel." in overview.stdout


def test_one_preset_is_shown_stage_by_stage() -> None:
    result = networks("--preset", "fcn8s", "--size", "250x180", "--width", 0.25)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^pool3 +3 × conv 3×3, +8 +64 × 32 × 24 .+\n +max-pool 2×2$", result.stdout, flags=re.MULTILINE)
    assert re.search(r"^fusion with pool4 +×2 transposed +16 .+\n +conv 4×4, \+$", result.stdout, flags=re.MULTILINE)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "A slice of 1 × 250 × 180, padded to 256 × 192; 1 logit a pixel" in result.stdout


def test_a_settings_file_is_shown_with_its_context_and_overridden_by_options(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[slices]\ncontext = 3\n[network]\npreset = "fcn16s"\nfusion = "concat"\nwidth = 0.5\n')
    common = ("--config", file, "--size", 64, "--channels", 2, "--json")
    (shown,) = json.loads(networks(*common).stdout)
    assert (shown["name"], shown["channels_in"], shown["fused_strides"]) == ("fcn16s", 6, [32, 16])
    assert [stage["join"] for stage in shown["stages"] if stage["part"] == "fusion"] == ["concat"]
    assert shown["stages"][0]["channels"] == 32
    (changed,) = json.loads(networks(*common, "--preset", "fcn8s", "--width", 0.25).stdout)
    assert (changed["name"], changed["stages"][0]["channels"]) == ("fcn8s", 16)


def test_json_holds_what_the_table_says() -> None:
    (shown,) = json.loads(networks("--preset", "auto", "--size", "35x48", "--json").stdout)
    assert (shown["size"], shown["padded"], shown["seen"]) == ([35, 48], [40, 48], [35, 48])
    assert (shown["receptive_field"], shown["finest_stride"], shown["encoder_strides"]) == (79, 1, [1, 2, 4, 8])
    for total in ("parameters", "multiply_adds"):
        assert shown[total] == sum(stage[total] for stage in shown["stages"]) > 0


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_picture_is_drawn_and_said_where(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"plain.{ending}"
    result = networks("--preset", "plain", "--size", 64, "--picture", path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith(f"picture: {path}\n")
    assert path.stat().st_size > 1000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_without_a_preset_the_list_is_printed_and_auto_is_drawn(tmp_path: Path) -> None:
    result = networks("--size", 32, "--picture", tmp_path / "any.svg", "--json")
    assert result.exit_code == 0, result.stderr
    assert [summary["name"] for summary in json.loads(result.stdout)] == list(PRESETS)
    assert result.stderr == f"picture: {tmp_path / 'any.svg'}\n"
    assert "<!-- auto -->" in (tmp_path / "any.svg").read_text()


def test_an_existing_picture_is_refused_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    path.write_text("precious")
    refused = networks("--preset", "plain", "--size", 64, "--picture", path)
    assert refused.exit_code == 1
    assert "already exists" in only_line(refused)
    assert path.read_text() == "precious"
    assert networks("--preset", "plain", "--size", 64, "--picture", path, "--overwrite").exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "256by256"], "write for example 256x192"),
        (["--size", "0"], "from 1 to 16384"),
        (["--picture", "plain.jpeg"], "does not end in .png, .svg or .pdf"),
        (["--label-count", 0], "0"),
        (["--channels", "one"], "one"),
        (["plain"], "plain"),
    ],
)
def test_misuse_of_the_command_line_ends_with_2(arguments: list[object], said: str) -> None:
    result = networks(*arguments)
    assert result.exit_code == 2
    assert said in only_line(result)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--preset", "fcn8"], 2, "did you mean 'fcn8s'?"),
        (["--width", 100], 2, "setting network.width: 100.0 is not a factor from 1/1024 to 16; change it"),
        (["--width", "nan"], 2, "setting network.width: nan is not"),
        (["--config", "nowhere.toml"], 1, "nowhere.toml: settings file not found"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    arguments: list[object], status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = networks(*arguments)
    assert result.exit_code == status
    assert "Traceback" not in result.stderr
    assert said in result.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_the_page_describes_every_preset() -> None:
    page = (ROOT / "docs" / "how-to" / "networks.md").read_text(encoding="utf-8")
    section = page.split("## Networks")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(PRESETS)
    for picture in re.findall(r"\(\.\./\.\./(benchmarks/\S+)\)", section):
        assert (ROOT / picture).stat().st_size < 80_000
