"""The end of a command's process: nothing is lost, though its libraries are not taken apart."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from medfcn.systems import gnu_c_library

WORDS = ("medfcn", "--version")


def ended(code: str = "", words: tuple[str, ...] = WORDS) -> subprocess.CompletedProcess[str]:
    """A process that runs some lines, and then a command as the command line does."""
    lines = (
        f"{textwrap.dedent(code)}\nimport sys\nfrom medfcn.__main__ import run\nsys.argv = {list(words)!r}\nrun()\n"
    )
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(("words", "status"), [(WORDS, 0), (("medfcn", "check", "--nothing"), 2)])
def test_the_status_and_all_text_stay(words: tuple[str, ...], status: int) -> None:
    done = ended(words=words)
    assert done.returncode == status
    assert (done.stdout or done.stderr).strip()


def test_what_is_registered_for_the_end_runs_once() -> None:
    done = ended("import atexit\natexit.register(print, 'last')")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "last"
    assert done.stdout.count("last") == 1


def test_a_thread_is_waited_for() -> None:
    code = """
        import threading, time
        def work():
            threading.main_thread().join()
            print("worked")
        threading.Thread(target=work).start()
        """
    done = ended(code)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "worked"


@pytest.mark.parametrize(
    "call",
    [
        "import runpy; runpy.run_module('medfcn', run_name='__main__')",
        "from medfcn.__main__ import run\n    (lambda: run())()",
    ],
    ids=["a module", "a call"],
)
def test_a_program_that_runs_a_command_goes_on_after_it(call: str) -> None:
    lines = f"import sys\nsys.argv = {list(WORDS)!r}\ntry:\n    {call}\nexcept SystemExit:\n    print('went on')\n"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.splitlines()[-1:] == ["went on"]


def test_a_profile_of_a_command_is_written(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "cProfile", "-o", str(tmp_path / "profile"), "-m", *WORDS]
    subprocess.run(words, capture_output=True, timeout=100, check=True)
    assert (tmp_path / "profile").stat().st_size


def test_text_that_cannot_be_written_is_an_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs a full device")
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "medfcn", "--version"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100, check=False)
    assert done.returncode != 0


def test_libraries_are_not_taken_apart() -> None:
    if gnu_c_library() is None:
        pytest.skip("Linux with glibc")
    code = """
        class Kept:
            def __del__(self, write=__import__("os").write):
                write(1, b"taken apart")
        kept = Kept()
        """
    assert "taken apart" not in ended(code).stdout
