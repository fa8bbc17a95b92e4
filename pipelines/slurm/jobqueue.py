"""Masks for a folder of volumes by workers that SLURM starts one by one, as there is work for them (dask-jobqueue).

    python pipelines/slurm/jobqueue.py RUN INPUT -o OUTPUT --workers 20 --memory 4GB --time 04:00:00 [--queue cpu]

Run it where jobs can be submitted from, and where it may run as long as the prediction. Each job is one worker
process of one thread. `processes=1` says so: without it, dask-jobqueue makes several of a job, which would share its
memory and its GPU. Jobs end after 30 minutes unless `--time` says more.
"""

from typing import Any

import click
from dask_jobqueue import SLURMCluster

import medfcn
from medfcn.progress import for_terminal


def cluster_of(memory: str, time: str, queue: str | None, gpus: int) -> Any:
    """A cluster without workers; `job_script()` shows what each will be submitted as."""
    return SLURMCluster(
        cores=1,
        processes=1,
        memory=memory,
        walltime=time,
        queue=queue,
        nanny=True,
        job_extra_directives=[f"--gpus={gpus}"] if gpus else [],
        job_script_prologue=["export OMP_NUM_THREADS=1"],
        scheduler_options={"dashboard_address": ":0"},
    )


@click.command()
@click.argument("run")
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, help="The folder of the masks.")
@click.option("--workers", type=click.IntRange(min=1), default=8, show_default=True, help="The most jobs at a time.")
@click.option("--memory", default="4GB", show_default=True, help="Memory of each job.")
@click.option("--time", default="04:00:00", show_default=True, help="The longest time of each job.")
@click.option("--queue", help="Partition. [default: SLURM's]")
@click.option("--gpus", type=click.IntRange(min=0), default=0, show_default=True, help="GPUs of each job.")
def main(
    run: str, source: str, output: str, workers: int, memory: str, time: str, queue: str | None, gpus: int
) -> None:
    """Predict masks for INPUT with the model of RUN, on nodes that SLURM chooses."""
    with cluster_of(memory, time, queue, gpus) as cluster:
        cluster.adapt(minimum=1, maximum=workers)
        result = medfcn.predict(
            run, source, output, cluster=cluster.scheduler_address, resume=True, progress=for_terminal()
        )
    print(f"{len(result.predicted)} masks, {len(result.failures)} failed: {result.output}")


if __name__ == "__main__":
    main()
