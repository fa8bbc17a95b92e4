"""`import medfcn` does nothing, and `medfcn --help` needs nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "monai", "nibabel", "SimpleITK", "matplotlib", "scipy", "skimage", "optuna")

WATCH = """
import os, sys, warnings, random, signal
before = (dict(os.environ), list(warnings.filters), warnings.showwarning, random.getstate(), list(sys.path),
          signal.getsignal(signal.SIGTERM), os.getcwd())
import medfcn
after = (dict(os.environ), list(warnings.filters), warnings.showwarning, random.getstate(), list(sys.path),
         signal.getsignal(signal.SIGTERM), os.getcwd())
changed = [index for index, (old, new) in enumerate(zip(before, after)) if old != new]
loaded = [name for name in {heavy} if name in sys.modules]
print(changed, loaded)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120)


def test_import_changes_nothing_prints_nothing_and_loads_nothing_heavy() -> None:
    done = run("-c", WATCH.format(heavy=HEAVY))
    assert (done.stdout, done.stderr, done.returncode) == ("[] []\n", "", 0)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["predict", "-h"], ["networks", "-h"], ["tune", "-h"], ["--version"]],
)
def test_help_loads_neither_torch_nor_monai(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["medfcn", *{arguments}]
from medfcn.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = run("-c", code)
    assert done.stderr == "[]\n"
    assert done.stdout


def test_neither_training_nor_prediction_loads_monai() -> None:
    """It would take longer than the masks of thirty small volumes."""
    done = run("-c", "import sys, medfcn; medfcn.train, medfcn.predict, medfcn.load; print('monai' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_module_runs_as_a_command() -> None:
    done = run("-m", "medfcn", "--help")
    assert done.returncode == 0
    assert "train" in done.stdout


def test_every_public_name_is_there_and_no_other_is() -> None:
    import medfcn

    for name in medfcn.__all__:
        assert getattr(medfcn, name) is not None
    assert medfcn.__version__
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        _ = medfcn.segment
