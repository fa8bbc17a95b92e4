"""The model in the box, `hippocampus-mr`: trained on the Decathlon's hippocampus, with figures out of the fold.

    python pipelines/box_model.py DATA -o runs/box

DATA is a folder with volumes of the Decathlon's hippocampus, in any layout that medfcn reads; two volumes are of one
person, as there. The network is trained on all of them. Its figures come from networks of the same length, each
scored on the people that it was not trained on. `runs/box/hippocampus-mr.medfcn` goes to `medfcn/box/`.

Data: Antonelli et al., Nature Communications 13, 4128, 2022; CC BY-SA 4.0; medicaldecathlon.com.
"""

import sys
from pathlib import Path

import click

import medfcn
from medfcn.datasets import find_dataset
from medfcn.files import write_csv
from medfcn.progress import for_terminal
from medfcn.runs.outputs import refuse_existing

sys.path.insert(0, str(Path(__file__).parent))
from hippocampus import person_of

NAME = "hippocampus-mr"
LABELS = "hippocampus=1+2"
ABOUT = """\
The hippocampus (its two parts merged) on T1-weighted MR of adults, in boxes of about 35 × 50 × 35 mm around it.

Licence of these weights: [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/), as of the data.

Attribution: trained with medfcn on {cases} volumes of Task04_Hippocampus of the Medical Segmentation Decathlon (M.
Antonelli et al., *The Medical Segmentation Decathlon*, Nature Communications 13, 4128, 2022; medicaldecathlon.com),
whose images and references are of Vanderbilt University Medical Center.

The scores are of {folds} other networks of the same length ({steps} steps), each on the people that it was not
trained on. The network in this file was trained on people of all these groups.

**It knows boxes around a hippocampus, never a whole head.** Say where the hippocampus is with `--around X,Y,Z`.
"""


@click.command()
@click.argument("data")
@click.option("-o", "--output", default="runs/box", show_default=True, help="The folder to make.")
@click.option("--steps", default=600, show_default=True, help="Length of each training.")
@click.option("--folds", default=3, show_default=True, help="Number of folds.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
def main(data: str, output: str, steps: int, folds: int, threads: int) -> None:
    """Train, score out of the fold, and export."""
    folder, progress = Path(output), for_terminal()
    refuse_existing(folder, overwrite=False)
    folder.mkdir(parents=True, exist_ok=True)
    cases = [case.id for case in find_dataset(data).cases]
    groups = folder / "groups.csv"
    write_csv(groups, ("id", "group"), [(case, person_of(case)) for case in cases])
    for name, count in (("folds", folds), ("run", None)):
        medfcn.train(
            data,
            folder / name,
            labels=LABELS,
            groups=groups,
            folds=count,
            steps=steps,
            threads=threads,
            report=False,
            progress=progress,
        )
    (folder / "about.md").write_text(ABOUT.format(cases=len(cases), folds=folds, steps=steps), encoding="utf-8")
    made = medfcn.export(
        folder / "run",
        folder / f"{NAME}.medfcn",
        about=folder / "about.md",
        scores=folder / "folds" / "validation",
        progress=progress,
    )
    click.echo(f"{made}: {made.stat().st_size} bytes")


if __name__ == "__main__":
    main()
