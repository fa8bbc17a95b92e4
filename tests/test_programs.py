"""Programs as users: one JSON document, one JSON line an event, records of logging; and pipes that end early."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.errors import as_command
from medfcn.progress import JsonLines, Silent, for_terminal, reporting, warn

ROOT = Path(__file__).parents[1]
AT_ONCE = {"describe", "models", "networks"}


def test_every_command_has_json_and_every_long_one_progress() -> None:
    for name, found in main.commands.items():
        names = {option for parameter in found.params for option in parameter.opts}
        assert "--json" in names, name
        assert ("--progress" in names) is (name not in AT_ONCE), name


def stdout_of(*arguments: str, status: int = 0) -> tuple[object, str]:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == status, done.output
    return json.loads(done.stdout), done.stderr


def test_results_are_one_document_on_stdout(tmp_path: Path, balls: Path) -> None:
    scores, err = stdout_of(
        "evaluate", str(balls / "labels"), str(balls), "-o", str(tmp_path / "s"), "--no-report", "--json"
    )
    assert scores["summary"]["macro"]["dice"] == 1.0  # type: ignore[index]
    assert "95 % interval" in err  # the table is a note now
    sizes, _ = stdout_of("measure", str(balls / "labels"), "-o", str(tmp_path / "sizes"), "--json")
    assert len(sizes["volumes"]) == 8  # type: ignore[index]
    plan, _ = stdout_of("plan", str(balls), "--json")
    assert len(plan["training"]) + len(plan["validation"]) == 8  # type: ignore[index]
    found, _ = stdout_of("look", str(balls), "-o", str(tmp_path / "look.html"), "--json")
    assert found["page"] == str(tmp_path / "look.html")  # type: ignore[index]
    assert isinstance(stdout_of("models", "--json")[0], list)
    assert stdout_of("check", str(balls), "--json")[0]


def documented_keys(command: str) -> list[str]:
    """The keys of a command in the table of docs/how-to/programs.md, without what stands in brackets."""
    page = (ROOT / "docs" / "how-to" / "programs.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{command}\b[^|]* \| (.*) \|$", page, re.MULTILINE)
    return re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row.split("; with a name")[0]))


def test_the_page_has_the_keys_of_results(tmp_path: Path, balls: Path, ball_run: Path) -> None:
    image, masks = balls / "images" / "ball_7.nii.gz", balls / "labels"
    commands = [
        ["predict", ball_run, image, "-o", tmp_path / "masks"],
        ["evaluate", masks, balls, "-o", tmp_path / "scores", "--no-report"],
        ["measure", masks, "-o", tmp_path / "sizes"],
        ["check", balls],
        ["plan", balls],
        ["look", balls, "-o", tmp_path / "look.html"],
        ["models"],
        ["networks", "--preset", "auto"],
        ["describe", ball_run],
        ["export", ball_run, "-o", tmp_path / "one.medfcn"],
        ["train", balls, "-o", tmp_path / "run", "--steps", "2"],
    ]
    for words in commands:
        found, _ = stdout_of(*map(str, words), "--json")
        first = found[0] if isinstance(found, list) else found
        assert isinstance(first, dict)
        assert sorted(first) == sorted(documented_keys(words[0])), words[0]


def test_progress_is_a_json_object_a_line(tmp_path: Path, balls: Path) -> None:
    done = CliRunner().invoke(main, ["check", str(balls), "--progress", "json"])
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events[:1] + events[-1:]] == ["begin", "end"]
    assert events[-2] == {
        "event": "step",
        "task": "check",
        "done": 8,
        "total": 8,
        "note": events[-2]["note"],
        "seconds_left": 0.0,
    }
    failed = CliRunner().invoke(main, ["check", str(tmp_path / "nothing"), "--progress", "json"])
    error, line = failed.stderr.splitlines()
    assert failed.exit_code == 1
    assert json.loads(error)["event"] == "error"
    assert re.fullmatch("[A-Z_]+", json.loads(error)["code"])
    assert line == f"medfcn: {json.loads(error)['text']}"


def test_no_progress_is_none(balls: Path) -> None:
    assert CliRunner().invoke(main, ["check", str(balls), "--progress", "none"]).stderr == ""


def test_messages_are_records_of_logging(balls: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="medfcn"):
        medfcn.check(balls)
    assert ("medfcn.progress", logging.DEBUG) in {(record.name, record.levelno) for record in caplog.records}
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="medfcn"):
        JsonLines(sys.stderr).say("one 100% line")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("medfcn", "one 100% line")]


def test_a_library_call_prints_nothing_and_adds_no_handler(balls: Path) -> None:
    code = f"""
import logging, medfcn
medfcn.check({str(balls)!r})
import medfcn.progress
medfcn.progress.Silent().say("x")
assert not logging.getLogger("medfcn").handlers and not logging.getLogger().handlers
assert logging.getLogger("medfcn").level == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_reader_that_has_seen_enough_loses_no_result(tmp_path: Path, balls: Path) -> None:
    """The read end of stdout is closed before anything is printed."""
    command = [
        sys.executable,
        "-m",
        "medfcn",
        "evaluate",
        str(balls / "labels"),
        str(balls),
        "-o",
        str(tmp_path / "s"),
    ]
    process = subprocess.Popen(
        [*command, "--table", str(tmp_path / "t.md"), "--no-report", "--progress", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stream:
        assert stream.read() == b""
    assert process.wait() == 0
    assert (tmp_path / "t.md").is_file()


def test_the_default_table_has_a_line_for_each_label_and_fits_80_columns(tmp_path: Path, balls: Path) -> None:
    command = ["evaluate", str(balls / "labels"), str(balls), "--no-report"]
    brief = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "a")]).stdout.splitlines()
    assert [brief[place].split()[0] for place in (0, 1, -1)] == ["label", "1", "Dice"]
    assert max(map(len, brief)) <= 80
    whole = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "b"), "--all-metrics", "--classes"]).stdout
    assert "ASSD mm" in whole
    assert max(map(len, whole.splitlines())) <= 80


LONG = "a_label_with_a_name_of_many_words_and_more_than_forty_letters"


@pytest.mark.parametrize(
    "command",
    [
        "evaluate {0}/labels {0} -o {1}/a --no-report --labels {2}=1 --all-metrics --classes --lesions",
        "evaluate {0}/labels {0} -o {1}/b --no-report --labels {2}=1 --compare {0} --by site --cohort {1}/c.csv",
        "check {0} --labels {2}=1",
        "plan {0} --labels {2}=1",
        "networks",
        "networks --preset resnet50_8s",
    ],
    ids=["evaluate", "compare", "check", "plan", "networks", "network"],
)
def test_what_commands_print_fits_80_columns(tmp_path: Path, long_names: Path, command: str) -> None:
    names = [path.name.removesuffix(".nii.gz") for path in sorted((long_names / "labels").iterdir())]
    rows = [f"{name},the hospital at the {end} of the town" for name, end in zip(names, "abcde", strict=False)]
    (tmp_path / "c.csv").write_text("id,site\n" + "\n".join(rows) + "\n")
    done = CliRunner().invoke(main, command.format(long_names, tmp_path, LONG).split())
    assert done.exit_code == 0, done.output
    assert [line for line in done.stdout.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []


@pytest.fixture
def long_names(tmp_path: Path, balls: Path) -> Path:
    """The phantoms under names that are longer than half a line."""
    root = shutil.copytree(balls, tmp_path / "long")
    for path in [*root.glob("images/*"), *root.glob("labels/*")]:
        path.rename(path.with_name(f"hospital_north_scanner_2_examination_before_treatment_{path.name}"))
    return root


SHELLS = {
    "bash": 'eval "$(_MEDFCN_COMPLETE=bash_source medfcn)"; COMP_WORDS=(medfcn pre); COMP_CWORD=1; '
    "_medfcn_completion medfcn; echo ${COMPREPLY[@]}",
    "zsh": 'autoload -U compinit; compinit -u -D; eval "$(_MEDFCN_COMPLETE=zsh_source medfcn)"; '
    "whence _medfcn_completion >/dev/null && "
    'COMP_WORDS="medfcn pre" COMP_CWORD=1 _MEDFCN_COMPLETE=zsh_complete medfcn',
    "fish": "_MEDFCN_COMPLETE=fish_source medfcn | source; complete -C 'medfcn pre'",
}


@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_shells_complete_commands(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    program = Path(sys.executable).with_name("medfcn")
    if not program.is_file():
        pytest.skip("the command is not installed beside this Python")
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    home = {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = {"zsh": ["-f"], "fish": ["--no-config"], "bash": ["--norc"]}[shell]
    done = subprocess.run(
        [shell, *arguments, "-c", SHELLS[shell]], capture_output=True, text=True, env=home, timeout=600
    )
    assert "predict" in done.stdout, done.stderr


def test_no_progress_hides_no_warning(balls: Path, tmp_path: Path) -> None:
    command = ["train", str(balls), "-o", str(tmp_path / "run"), "--labels", "organ=1,other=7", "--steps", "1"]
    result = CliRunner().invoke(main, [*command, "--no-report", "--progress", "none"])
    assert result.exit_code == 0
    assert "no case has other=7" in result.stderr
    assert "step 1 of 1" not in result.stderr


def test_a_reporter_of_ones_own_is_told_of_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []

    class Own(Silent):
        def say(self, message: str) -> None:
            lines.append(message)

    own = reporting(Own())
    own.say("two cases look alike; give --group-by stem")
    warn(own, "already exists (--overwrite, overwrite=True)")
    assert lines == ["two cases look alike; give group_by='stem'", "already exists (overwrite=True)"]
    assert reporting(own) is own
    with as_command("train"):
        warn(for_terminal("none"), "already exists (--overwrite, overwrite=True)")
        for_terminal("none").say("a step")
    assert capsys.readouterr().err == "already exists (--overwrite)\n"


def test_results_are_printed_as_their_text(balls: Path, tmp_path: Path) -> None:
    table = medfcn.evaluate(balls / "labels", balls, labels="organ=1")
    for result in (table, medfcn.check(balls), medfcn.measure(balls / "labels", None, tmp_path / "sizes")):
        assert str(result) == result.to_text()
        assert type(result).__name__ not in str(result)
