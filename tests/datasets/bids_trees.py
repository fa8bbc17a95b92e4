"""BIDS data sets of phantoms: subjects with two sessions, and a derivative with their labels."""

import json
from pathlib import Path

import nibabel
import numpy as np

from tests.conftest import draw_ball

AFFINE = np.diag([-1.0, -1.0, 1.5, 1.0])


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def describe(root: Path, name: str, **more: object) -> Path:
    content = {"Name": name, "BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["Nobody"], **more}
    put(root / "README.md", f"# {name}\n\nPhantoms drawn from formulas; nobody was scanned.\n")
    return put(root / "dataset_description.json", json.dumps(content))


def scan(root: Path, name: str, number: int, *, kind: str = "anat", label: bool = False, shape=(26, 22, 12)) -> Path:
    """Write the image or the label of a phantom under a BIDS name."""
    image, mask = draw_ball(number, shape)
    subject, *rest = name.split("_")
    session = [part for part in rest if part.startswith("ses-")]
    path = root.joinpath(subject, *session, kind, f"{name}.nii.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    array = mask if label else image
    volume = nibabel.Nifti1Image(array, AFFINE)
    volume.header.set_xyzt_units("mm")
    nibabel.save(volume, path)
    return path


def bids_tree_of(
    root: Path, *, subjects: int = 8, sessions: int = 2, derivative: str = "manual", shape=(26, 22, 12)
) -> Path:
    """`sub-01` … with `ses-1` … each: a T1w, and its `dseg` in a derivative with a table of names."""
    describe(root, "phantoms", DatasetType="raw")
    rows = ["participant_id\tsex\tsite"]
    derived = root / "derivatives" / derivative
    for number in range(1, subjects + 1):
        subject = f"sub-{number:02d}"
        rows.append(f"{subject}\t{'MF'[number % 2]}\t{'ab'[number % 2]}")
        for session in range(1, sessions + 1):
            seed = 10 * number + session
            scan(root, f"{subject}_ses-{session}_T1w", seed, shape=shape)
            put(
                root / subject / f"ses-{session}" / "anat" / f"{subject}_ses-{session}_T1w.json",
                json.dumps({"Modality": "MR"}),
            )
            scan(derived, f"{subject}_ses-{session}_desc-manual_dseg", seed, label=True, shape=shape)
    put(root / "participants.tsv", "\n".join(rows) + "\n")
    describe(derived, derivative, DatasetType="derivative", GeneratedBy=[{"Name": "by hand"}])
    put(derived / "dseg.tsv", "index\tname\tcolor\n1\tball\t#FF0000\n")
    return root
