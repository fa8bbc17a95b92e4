"""`import medfcn` does nothing, and `medfcn --help` needs nothing heavy."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"

HEAVY = ("torch", "monai", "numpy", "nibabel", "SimpleITK", "matplotlib", "scipy", "skimage", "optuna")

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
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=600)


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


def test_the_names_of_training_and_prediction_load_no_monai() -> None:
    """A training loads it when it prepares slices; a prediction without transforms never does."""
    done = run("-c", "import sys, medfcn; medfcn.train, medfcn.predict, medfcn.load; print('monai' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


START = """
import atexit, sys
atexit.register(lambda: print(*sorted({{name for name in {watched} if name in sys.modules}}), file=sys.__stderr__))
sys.argv = ["medfcn", *{arguments}]
from medfcn.cli import main
main()
"""


def test_a_prediction_loads_nothing_of_training(tmp_path: Path) -> None:
    """Its start is that of torch: the components of a small mask need no other library."""
    volume = SAMPLES / "test" / "images" / "sample_13.nii.gz"
    words = ["predict", "hippocampus-mr", str(volume), "-o", str(tmp_path / "masks")]
    watched = (
        *HEAVY,
        "medfcn.training",
        "medfcn.evaluation",
        "medfcn.reporting",
        "torch._dynamo",
        "sympy",
    )
    done = run("-c", START.format(watched=watched, arguments=words))
    assert (done.stderr.splitlines()[-1], done.returncode) == ("numpy torch", 0)


@pytest.mark.parametrize("has_run_before", [True, False])
def test_garbage_is_looked_for_again_once_libraries_are_loaded(has_run_before: bool) -> None:
    code = f"""
import gc, sys
from medfcn.libraries import loading
gc.enable() if {has_run_before} else gc.disable()
with loading():
    print(gc.isenabled())
    import decimal
print(gc.isenabled(), gc.get_freeze_count())
with loading(for_good=True):
    pass  # nothing was loaded
print(gc.get_freeze_count())
with loading(for_good=True):
    import fractions
frozen = gc.get_freeze_count()
with loading():
    import statistics
print(frozen > 0, gc.get_freeze_count() > frozen, gc.isenabled())
"""
    done = run("-c", code)
    assert done.stdout.splitlines() == ["False", f"{has_run_before} 0", "0", f"True True {has_run_before}"]


def test_objects_of_a_host_that_froze_its_own_stay_as_they_are() -> None:
    code = """
import gc
from medfcn.libraries import loading
gc.freeze()
own = gc.get_freeze_count()
with loading():
    import fractions
print(gc.get_freeze_count() <= own)
"""
    assert run("-c", code).stdout == "True\n"


def test_module_runs_as_a_command() -> None:
    done = run("-m", "medfcn", "--help")
    assert done.returncode == 0
    assert "train" in done.stdout


def test_every_verb_of_the_command_line_is_a_public_call() -> None:
    """Drawing, the demo, the reference and the BIDS App are no verbs; --compare, --report and loading runs are."""
    import medfcn
    from medfcn.cli import main

    verbs = {*main.commands} - {"networks", "demo", "describe", "bids-app"} | {"compare", "report", "load"}
    assert verbs <= set(medfcn.__all__)
    for verb in verbs:
        call = getattr(medfcn, verb)
        assert callable(call)
        assert not inspect.ismodule(call)
        assert len(inspect.getdoc(call) or "") > 100
        assert "Args:" in (call.__doc__ or "")


@pytest.mark.parametrize("verb", ["measure", "plan", "predict", "train", "tune"])
def test_the_help_of_a_call_lists_every_option_once(verb: str) -> None:
    import medfcn
    from medfcn.cli import main

    call = getattr(medfcn, verb)
    names = list(inspect.signature(call).parameters)
    explained = re.findall(r"^    (\w+): ", call.__doc__.split("Raises:")[0], flags=re.MULTILINE)
    assert sorted(explained) == sorted(names)
    reading = {"volume", "series", "bids", "max_bytes", "nonfinite", "assume_grid", "xform", "around", "box"}
    of_process = {"allocator", "memory", "json", "progress", "all_metrics"}
    options = {option.name for option in main.commands[verb].params} - reading - of_process
    assert options <= set(names)
    assert set(names) - options <= {"options", "progress", "started", "stop", "space", "transforms", "given"}


def test_a_mistyped_option_of_a_call_is_a_type_error() -> None:
    import medfcn

    with pytest.raises(TypeError, match="unexpected keyword argument 'stepz'"):
        medfcn.train("dataset", "run", stepz=3)  # type: ignore[call-arg]


def test_every_public_name_is_there_and_no_other_is() -> None:
    import medfcn

    for name in medfcn.__all__:
        assert getattr(medfcn, name) is not None
    assert medfcn.__version__
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        _ = medfcn.segment
