"""The Decathlon's hippocampus, end to end through the public API: split by person, train, predict, evaluate.

    python pipelines/hippocampus.py -o runs/hippocampus                 downloads the official archive (27 MB)
    python pipelines/hippocampus.py --data FOLDER -o runs/hippocampus   uses a folder with the volumes

Data: Antonelli et al., Nature Communications 13, 4128, 2022; CC BY-SA 4.0; medicaldecathlon.com.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import click

import medfcn
from medfcn.datasets import find_dataset
from medfcn.evaluation import write_scores
from medfcn.files import write_csv
from medfcn.progress import for_terminal
from medfcn.runs.outputs import refuse_existing

TASK = "Task04_Hippocampus"


def person_of(case_id: str) -> int:
    """The number k of the person: `hippocampus_<2k-1>` and `hippocampus_<2k>` are the two sides of person k."""
    return (int(re.sub(r"\D", "", case_id)) + 1) // 2


def held_out(case_ids: Iterable[str], *, at_least: int = 40) -> list[str]:
    """The ids of the test volumes: of whole persons, shuffled with seed 0, until there are enough volumes."""
    volumes: dict[int, list[str]] = defaultdict(list)
    for case_id in case_ids:
        volumes[person_of(case_id)].append(case_id)
    persons = sorted(volumes)
    random.Random(0).shuffle(persons)
    chosen: list[str] = []
    while persons and len(chosen) < at_least:
        chosen += volumes[persons.pop(0)]
    return sorted(chosen)


def download(folder: Path) -> Path:
    """Fetch and unpack the official archive; MONAI verifies its checksum."""
    from monai.apps import DecathlonDataset, download_and_extract

    archive = folder / f"{TASK}.tar"
    download_and_extract(DecathlonDataset.resource[TASK], archive, folder, DecathlonDataset.md5[TASK])
    return folder / TASK


@click.command()
@click.option(
    "--data",
    metavar="FOLDER",
    help="Folder of the volumes, in any layout that medfcn reads. [default: download]",
)
@click.option("-o", "--output", default="runs/hippocampus", show_default=True, help="The folder to make.")
@click.option("--budget", default="10m", show_default=True, help="Wall time of the training.")
@click.option("--context", type=int, help="Number of slices in the network's input. [default: as `medfcn train`]")
@click.option("--threads", type=int, help="CPU threads. [default: all cores]")
@click.option("--seed", default=0, show_default=True, help="Random seed of the training; the split stays the same.")
def main(data: str | None, output: str, budget: str, context: int | None, threads: int | None, seed: int) -> None:
    """Train on most of the people, and score the masks of the others."""
    folder, progress = Path(output), for_terminal()
    refuse_existing(folder, overwrite=False)
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(data) if data else download(folder / "data")
    cases = {case.id: case for case in find_dataset(root).cases}
    test = held_out(cases)
    write_csv(folder / "groups.csv", ("id", "group"), [(case_id, person_of(case_id)) for case_id in cases])
    (folder / "test.txt").write_text("\n".join(test) + "\n")
    run = medfcn.train(
        root,
        folder / "run",
        labels="hippocampus=1+2",
        groups=folder / "groups.csv",
        leave_out=test,
        budget=budget,
        context=context,
        threads=threads,
        seed=seed,
        progress=progress,
    )
    images = cases[test[0]].images[0].parent
    medfcn.predict(run.folder, images, folder / "masks", cases=test, progress=progress)
    references = {case_id: case.label for case_id, case in cases.items() if case_id in set(test) and case.label}
    table = medfcn.evaluate(folder / "masks", references, groups=folder / "groups.csv")
    write_scores(table, folder / "scores")
    click.echo(table.to_text())
    click.echo(
        f"trained in {run.seconds:.0f} s, {run.cpu_seconds:.0f} CPU s; scores of {len(test)} unseen volumes: "
        f"{folder / 'scores'}"
    )


if __name__ == "__main__":
    main()
