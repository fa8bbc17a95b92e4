"""CPU seconds of whole `medfcn predict` commands, start-up included, for two installs of medfcn in turn.

    python benchmarks/prediction.py DATA OUTPUT --base SITE [--new SITE] [--only SET ...] [--rounds 5]
        [--precision bfloat16]

DATA is the folder that contains `hippocampus/`; SITE a folder that contains the package `medfcn`, made by `pip
install --target SITE --no-deps .`, or a checkout. Without `--new` it is this checkout. The sets:

`small`         one hippocampus, beside `import torch` alone
`hippocampus`   60 volumes, by a model that the base trained for 30 steps
`ct`            one phantom of 512×512×134, by a network with random weights, whose mask is in thousands of pieces
`ct_trained`    the same, by a network that the base trained for 60 steps on thin phantoms like it
`cube_1`, `cube_104`    128×128×128 voxels, by networks with random weights for one label and for 104

Both installs read one run folder, with one thread and one process each; base, new, base, new. The number of voxels
that differ between their masks is printed. The last column is what a command of the new install takes beside the
network's own forward time in the same process, start-up left out.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median

import nibabel
import numpy as np
from measured import processor, run_measured
from streaming import made_model, made_volume

VOLUMES, TRAINED, STEPS, SLICES = 60, 20, 30, 134
PHANTOMS, PHANTOM_STEPS = range(10, 16), 60
"""Slices of the phantoms of a training, and its steps."""
CUBES = {"cube_1": 1, "cube_104": 104}
"""Labels of the networks of cubes."""
CUBE_EDGE = 128
SETS = ("small", "hippocampus", "ct", "ct_trained", *CUBES)

# Runs `medfcn predict`, and notes its CPU seconds from when all is loaded on, and those inside of the network.
DRIVER = """
import json, sys, time
from medfcn.cli import main
from medfcn.libraries import loading
with loading(for_good=True):
    import scipy.ndimage
    import medfcn.verbs.predicting
    from medfcn.networks import sliding
    import torch
inside, run = [0.0], sliding._run

def timed(batch, network, how):
    def forward(slices):
        began = time.thread_time()
        try:
            return network(slices)
        finally:
            inside[0] += time.thread_time() - began
    return run(batch, forward, how)

sliding._run = timed
began = time.process_time()
try:
    main(sys.argv[2:])
except SystemExit:
    pass
with open(sys.argv[1], "w") as file:
    json.dump({"command": time.process_time() - began, "network": inside[0]}, file)
"""


def prepared(name: str, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """A run folder, and what it is to predict."""
    output, base = arguments.output, {"PYTHONPATH": str(arguments.base.resolve()), "PYTHONSAFEPATH": "1"}
    run, volumes = output / "hippocampus_run", output / "volumes"
    source = arguments.data / "hippocampus"
    files = sorted(path.name for path in (source / "images").iterdir())
    for kind, folder, chosen in (
        ("images", output / "train" / "images", files[:TRAINED]),
        ("labels", output / "train" / "labels", files[:TRAINED]),
        ("images", volumes, files[TRAINED : TRAINED + VOLUMES]),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for file in chosen:
            if not (folder / file).exists():
                (folder / file).symlink_to((source / kind / file).resolve())
    if not (run / "model.json").is_file():
        words = ["train", str(output / "train"), "-o", str(run), "--labels", "hippocampus=1+2"]
        words += ["--steps", str(STEPS), "--threads", "1", "--overwrite"]
        run_measured([sys.executable, "-m", "medfcn", *words], output / "log.txt", **base)
    if name == "ct":
        return read_by_both(made_model(1, output / "ct_run"), run), made_volume(
            512, SLICES, output / f"{SLICES}.nii.gz"
        )
    if name == "ct_trained":
        return trained_on_phantoms(output, base), made_volume(512, SLICES, output / f"{SLICES}.nii.gz")
    if name in CUBES:
        made = made_model(CUBES[name], output / f"{name}_run", edge=CUBE_EDGE)
        return read_by_both(made, run), made_volume(CUBE_EDGE, CUBE_EDGE, output / "cube.nii.gz")
    return run, volumes if name == "hippocampus" else volumes / files[TRAINED]


def trained_on_phantoms(output: Path, base: dict[str, str]) -> Path:
    """A run of the base on thin phantoms, of which the brightest organ is the label."""
    run, folder = output / "phantom_run", output / "phantoms"
    if not (run / "model.json").is_file():
        for slices in PHANTOMS:
            file = f"p{slices}.nii.gz"
            made_volume(512, slices, folder / "images" / file, reference=folder / "labels" / file)
        words = ["train", str(folder), "-o", str(run), "--steps", str(PHANTOM_STEPS), "--threads", "1", "--overwrite"]
        run_measured([sys.executable, "-m", "medfcn", *words], output / "log.txt", **base)
    return run


def read_by_both(run: Path, of_base: Path) -> Path:
    """A made model, with a card that the base can read: what is not of the network is that of a run of the base."""
    made, card = (json.loads((folder / "model.json").read_text()) for folder in (run, of_base))
    for intensity in made["plan"]["intensities"]:
        intensity.pop("background", None)
    card |= {name: made[name] for name in ("labels", "channels", "plan", "one_part", "weights_sha256", "unseen")}
    network = made["settings"]["network"] | {"stem_stride": made["plan"]["stem_stride"]}
    card["settings"]["network"] = {name: network[name] for name in card["settings"]["network"] if name in network}
    (run / "model.json").write_text(json.dumps(card))
    return run


def differing(one: Path, other: Path) -> str:
    """Voxels that differ between the masks of two folders, in words."""
    different = total = 0
    for mask in sorted(one.glob("*.nii.gz")):
        ours, theirs = (np.asarray(nibabel.load(folder / mask.name).dataobj) for folder in (one, other))
        different += int(np.count_nonzero(ours != theirs))
        total += ours.size
    return f"{different:,} of {total:,}"


def compare(name: str, arguments: argparse.Namespace) -> str:
    """The row of a set."""
    run, source = prepared(name, arguments)
    seconds: dict[str, list[float]] = {"base": [], "new": []}
    torch_alone: list[float] = []
    log = arguments.output / "log.txt"
    choices = {"base": [], "new": ["--jobs", "1", "--precision", arguments.precision]}  # the base has no other way
    masks = {site: arguments.output / f"{name}_{site}_{arguments.precision}" for site in seconds}
    for _ in range(arguments.rounds):
        for site, done in seconds.items():
            words = ["predict", str(run), str(source), "-o", str(masks[site])]
            done.append(
                run_measured(
                    [sys.executable, "-m", "medfcn", *words, "--threads", "1", "--overwrite", *choices[site]],
                    log,
                    PYTHONPATH=str(getattr(arguments, site).resolve()),
                    PYTHONSAFEPATH="1",
                ).cpu_seconds
            )
        if name == "small":
            torch_alone.append(run_measured([sys.executable, "-c", "import torch"], log).cpu_seconds)
    shares = []
    for _ in range(min(3, arguments.rounds)):
        result = arguments.output / "network.json"
        words = ["predict", str(run), str(source), "-o", str(masks["new"]), "--threads", "1", *choices["new"]]
        run_measured(
            [sys.executable, "-c", DRIVER, str(result), *words, "--overwrite"],
            log,
            PYTHONPATH=str(arguments.new.resolve()),
            PYTHONSAFEPATH="1",
        )
        found = json.loads(result.read_text())
        shares.append(found["command"] / found["network"])
        print(f"# {name}: {found['command']:.2f} CPU s, of which network {found['network']:.2f}", flush=True)
    base, new = (median(done) for done in seconds.values())
    ratios = [after / before for before, after in zip(*seconds.values(), strict=True)]
    torch_text = f"{new / median(torch_alone):.2f}" if torch_alone else "–"
    different = differing(masks["base"], masks["new"])
    beside_base = f"{new / base:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    cells = (name, f"{base:.2f}", f"{new:.2f}", beside_base, torch_text, f"{median(shares):.2f}", different)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--base", type=Path, required=True, help="a folder that contains the package of the base")
    parser.add_argument("--new", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--only", nargs="+", choices=SETS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    print(f"{processor()}; medians of {arguments.rounds} rounds, base and new in turn, one thread\n")
    print("| set | base, CPU s | new | new / base (range) | × `import torch` | × network | voxels that differ |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.only or SETS:
        print(compare(name, arguments), flush=True)


if __name__ == "__main__":
    main()
