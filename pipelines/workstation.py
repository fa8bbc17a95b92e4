"""Masks for a folder of volumes on a workstation with several GPUs, or on many cores: a Dask cluster of its own.

    python pipelines/workstation.py RUN INPUT -o OUTPUT [--workers 4]

`medfcn predict --jobs N` does the same without Dask. This is for a machine that already uses Dask, and an example of
how a program of yours brings its own cluster: each worker takes a GPU, a killed one is started again.
"""

import click
import torch
from distributed import LocalCluster

import medfcn
from medfcn.cores import usable_cores
from medfcn.progress import for_terminal


@click.command()
@click.argument("run")
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, help="The folder of the masks.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes. [default: one for each GPU, else each core]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
def main(run: str, source: str, output: str, workers: int | None, device: str) -> None:
    """Predict masks for INPUT with the model of RUN, by a Dask cluster on this machine."""
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    cluster = LocalCluster(
        n_workers=workers or gpus or usable_cores(),
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
