"""Masks for a folder of volumes on a workstation with several GPUs, or on many cores: a Dask cluster of its own.

    python pipelines/workstation.py RUN INPUT -o OUTPUT [--workers 4] [--dry-run]

`medfcn predict --jobs N` does the same without Dask. This is for a machine that already uses Dask, and an example of
how a program of yours brings its own cluster: each worker takes a GPU, a killed one is started again.
`--dry-run` loads the model, finds the volumes and says what would be done; it writes and starts nothing.
"""

import click
import torch
from distributed import LocalCluster

import medfcn
from medfcn.cores import usable_cores
from medfcn.datasets import find_inputs
from medfcn.progress import for_terminal


def place_of(number: int, gpus: int) -> str:
    """The place where a worker predicts, in words; its number counts from 0."""
    return f"worker {number + 1} on GPU {number % gpus}" if gpus else f"worker {number + 1} on the CPU"


@click.command()
@click.argument("run")
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, help="The folder of the masks.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes. [default: one for each GPU, else each core]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def main(run: str, source: str, output: str, workers: int | None, device: str, dry_run: bool) -> None:
    """Predict masks for INPUT with the model of RUN, by a Dask cluster on this machine."""
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    count = workers or gpus or usable_cores()
    if dry_run:
        model = medfcn.load(run, device="cpu")
        use = model.card.use
        cases = find_inputs(source, channels=use.count, optional=use.dropped_places)
        print(f"{model}\n{len(cases)} cases, from {cases[0].id} to {cases[-1].id}; masks go to {output}")
        print(f"{count} workers: {'; '.join(place_of(number, gpus) for number in range(count))}")
        return
    cluster = LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        host="127.0.0.1",
        memory_limit=0,  # a volume that does not fit is one case's failure; Dask would kill the worker
    )
    with cluster:
        result = medfcn.predict(
            run,
            source,
            output,
            cluster=cluster.scheduler_address,
            device=device,
            resume=True,
            progress=for_terminal(),
        )
    print(f"{len(result.predicted)} masks, {len(result.failures)} failed: {result.output}")


if __name__ == "__main__":
    main()
