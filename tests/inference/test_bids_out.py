"""Masks as a BIDS derivative, and the command line of a BIDS App."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from medfcn.cli import main
from medfcn.datasets import Case, find_inputs, find_masks
from medfcn.datasets.bids_tables import read_names
from medfcn.errors import MedfcnError
from medfcn.inference.naming import BidsNames
from medfcn.verbs import predict
from tests.datasets.bids_trees import bids_tree_of, scan
from tests.inference.models import saved, tiny_model

SHAPE = (14, 13, 4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_model(labels="ball=1,left lung=2"), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight subjects with two sessions each; never written to by a test."""
    return bids_tree_of(tmp_path_factory.mktemp("bids") / "tree", shape=SHAPE)


@pytest.fixture(scope="module")
def flat(run: Path, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same masks as plain files."""
    folder = tmp_path_factory.mktemp("flat") / "masks"
    predict(run, tree, folder, probabilities=True)
    return folder


def into(run: Path, tree: Path, output: Path, **choices: Any) -> Path:
    predict(run, tree, output, format="bids", **choices)
    return output


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def app(*words: object) -> Result:
    return CliRunner().invoke(main, ["bids-app", *map(str, words)])


def validated(root: Path) -> list[tuple[str, str]]:
    """Code and place of each error that the BIDS validator reports, of derivatives too."""
    name = "bids-validator-deno"
    validator = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if validator is None:
        pytest.skip("the BIDS validator is not installed: pip install bids-validator-deno")
    done = subprocess.run(
        [validator, str(root), "--recursive", "--format", "json"], capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)
    parts = [found, *found.get("derivativesSummary", {}).values()]
    assert sum(part["summary"]["totalFiles"] for part in parts) > 20
    return [
        (issue["code"], issue.get("location", ""))
        for part in parts
        for issue in part["issues"]["issues"]
        if issue["severity"] == "error"
    ]


def test_a_derivative_has_the_masks_under_the_names_of_bids(
    run: Path, tree: Path, flat: Path, tmp_path: Path
) -> None:
    output = into(run, tree, tmp_path / "out", probabilities=True)
    stem = "sub-01/ses-2/anat/sub-01_ses-2"
    found = files_in(output)
    assert {f"{stem}_desc-medfcn_dseg.nii.gz", f"{stem}_desc-medfcn_dseg.json"} <= set(found)
    assert {f"{stem}_label-{name}_desc-medfcn_probseg.nii.gz" for name in ("ball", "leftlung")} <= set(found)
    assert sum(name.endswith("_dseg.nii.gz") for name in found) == 16
    assert not [name for name in found if name.endswith(".csv") and not name.startswith("logs/")]
    for case, mask in find_masks(output).items():
        assert Path(mask).read_bytes() == (flat / f"{case}.nii.gz").read_bytes()
    assert (output / "logs" / "volumes.csv").read_bytes() == (flat / "volumes.csv").read_bytes()
    about = json.loads((output / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "medfcn"
    assert about["SourceDatasets"]
    assert read_names(output / "dseg.tsv") == {1: "ball", 2: "left lung"}
    assert (output / "dseg.tsv").read_text().splitlines()[0] == "index\tname\tcolor"


def test_a_tree_with_its_derivative_passes_the_validator(run: Path, tree: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tree, tmp_path / "tree")
    output = into(run, root, root / "derivatives" / "medfcn", probabilities=True, report=True)
    assert json.loads((output / "dataset_description.json").read_text())["DatasetLinks"] == {"source": "../.."}
    record = json.loads((output / "sub-01/ses-1/anat/sub-01_ses-1_desc-medfcn_dseg.json").read_text())
    assert record["Sources"] == ["bids:source:sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"]
    assert (output / "logs" / "report.html").is_file()
    assert len(find_inputs(root)) == 16  # what was predicted is no input and no label
    assert validated(root) == []
    assert validated(output) == []


def test_entities_are_kept_with_their_zeros(run: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("sub-007_ses-01_acq-mprage_run-02_T1w", "sub-007_ses-01_acq-mprage_run-2_T1w"):
        scan(tree, name, 1, shape=SHAPE)
    masks = [name for name in files_in(into(run, tree, tmp_path / "out")) if name.endswith("_dseg.nii.gz")]
    assert masks == [
        f"sub-007/ses-01/anat/sub-007_ses-01_acq-mprage_run-{number}_desc-medfcn_dseg.nii.gz"
        for number in ("02", "2")
    ]


def test_a_volume_of_a_task_is_beside_its_kind(run: Path, tmp_path: Path) -> None:
    scan(tmp_path / "tree", "sub-1_task-rest_sbref", 1, kind="func", shape=SHAPE)
    assert "sub-1/func/sub-1_task-rest_desc-medfcn_dseg.nii.gz" in files_in(
        into(run, tmp_path / "tree", tmp_path / "o")
    )


def test_resume_keeps_and_makes_what_is_missing(run: Path, tree: Path, tmp_path: Path) -> None:
    output = into(run, tree, tmp_path / "out")
    before = {name: (output / name).read_bytes() for name in files_in(output) if "timing" not in name}
    (output / "sub-03" / "ses-1" / "anat" / "sub-03_ses-1_desc-medfcn_dseg.nii.gz").unlink()
    with pytest.raises(MedfcnError, match="already exists"):
        into(run, tree, output)
    again = predict(run, tree, output, format="bids", resume=True)
    assert (again.predicted, len(again.skipped)) == (("sub-03_ses-1",), 15)
    assert {name: (output / name).read_bytes() for name in files_in(output) if "timing" not in name} == before
    assert len(predict(run, tree, output, format="bids", overwrite=True).predicted) == 16


def test_shards_fill_one_derivative(run: Path, tree: Path, flat: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        into(run, tree, output, shard=shard)
    assert len(find_masks(output)) == 16
    assert (output / "logs" / "volumes.csv").read_bytes() == (flat / "volumes.csv").read_bytes()


def test_a_case_that_fails_is_in_the_table(run: Path, tree: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tree, tmp_path / "tree")
    (root / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_T1w.nii.gz").write_bytes(b"no volume")
    (root / "sub-09").symlink_to("nowhere")
    result = predict(run, root, tmp_path / "out", format="bids")
    assert [case for case, _ in result.failures] == ["sub-02_ses-1", "sub-09"]
    assert "datalad get" in (tmp_path / "out" / "logs" / "failures.csv").read_text()


def test_masks_of_a_derivative_are_made_again(run: Path, tree: Path, tmp_path: Path) -> None:
    output = into(run, tree, tmp_path / "out", cases=["sub-01_ses-1"])
    record = output / "sub-01/ses-1/anat/sub-01_ses-1_desc-medfcn_dseg.json"
    predict(run, tree, tmp_path / "again", again=[record])
    mask = (tmp_path / "again" / "sub-01_ses-1.nii.gz").read_bytes()
    assert mask == record.with_name("sub-01_ses-1_desc-medfcn_dseg.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"uncertainty": True}, "BIDS has no name for uncertainty"),
        ({"seg_nrrd": True}, "BIDS has no name for seg_nrrd"),
        ({"again": ["x.json"]}, "leave format= out"),
    ],
)
def test_what_bids_has_no_name_for_is_refused(
    run: Path, tree: Path, tmp_path: Path, choices: dict[str, Any], words: str
) -> None:
    with pytest.raises(MedfcnError, match=words):
        into(run, tree, tmp_path / "out", **choices)
    assert not (tmp_path / "out").exists()


def test_other_inputs_and_outputs_are_refused(run: Path, tree: Path, balls: Path, tmp_path: Path) -> None:
    with pytest.raises(MedfcnError, match="ball_0 is no name of BIDS"):
        into(run, balls, tmp_path / "out")
    with pytest.raises(MedfcnError, match="a BIDS derivative is a folder"):
        into(run, tree / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("other", ["anat/sub-2_T2w", "dwi/sub-2_dwi"])
def test_the_two_cases_that_would_get_one_mask_are_named(other: str) -> None:
    names = ("anat/sub-1_T1w", "anat/sub-2_T1w", other)
    cases = [Case(Path(name).name, (Path(f"{name}.nii.gz"),), None, name) for name in names]
    with pytest.raises(MedfcnError, match=f"sub-2_T1w and {Path(other).name} would get one mask, sub-2_desc-medfcn"):
        BidsNames(Path("out")).named(cases)


def test_a_link_in_a_derivative_is_not_followed(run: Path, tree: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = into(run, tree, tmp_path / "out", cases=["sub-01_ses-1"])
    (output / "sub-02").symlink_to(elsewhere)
    with pytest.raises(MedfcnError, match="is a link to somewhere else"):
        into(run, tree, output, resume=True)
    assert not list(elsewhere.iterdir())


def test_an_app_works_on_participants_and_then_on_the_group(
    run: Path, tree: Path, flat: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = app(tree, output, "participant", "--model", run, "--participant-label", "01", "sub-02")
    assert done.exit_code == 0, done.output
    assert sorted(find_masks(output)) == [f"sub-0{number}_ses-{session}" for number in (1, 2) for session in (1, 2)]
    half = app(tree, output, "group")
    assert half.exit_code == 3
    assert f"tables of 4 masks: {output}/logs" in half.output
    assert "12 of 16 cases have no mask; see failures.csv" in half.output
    assert len((output / "logs" / "failures.csv").read_text().splitlines()) == 13
    words = ("--model", run, "--skip-bids-validation")
    assert app(tree, output, "participant", *words, "--session_label", "1").exit_code == 0
    assert "12 kept" not in (kept := app(tree, output, "participant", *words).output)
    assert "10 kept" in kept
    assert app(tree, output, "group").exit_code == 0
    assert (output / "logs" / "volumes.csv").read_bytes() == (flat / "volumes.csv").read_bytes()
    assert not (output / "logs" / "failures.csv").exists()
    find_masks(output)["sub-01_ses-1"].with_name("sub-01_ses-1_desc-medfcn_dseg.json").unlink()
    assert "1 of 16 cases has no mask; see failures.csv" in app(tree, output, "group").output
    lost, other, edited = (find_masks(output)[f"sub-0{number}_ses-1"] for number in (2, 3, 4))
    lost.unlink(), edited.write_bytes(other.read_bytes())
    assert "3 of 16 cases have no mask; see failures.csv" in app(tree, output, "group").output
    failures, volumes = ((output / "logs" / f"{name}.csv").read_text() for name in ("failures", "volumes"))
    assert "sub-04_ses-1,the mask is not the one that its .json describes" in failures
    assert "sub-04_ses-1" not in volumes


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("participant",), 2, "participant needs a model"),
        (("participant", "--model", "RUN", "--participant-label", "99"), 1, "no sub-99; there are 01, 02"),
        (("participant", "--model", "RUN", "--session-label", "9"), 1, "no ses-9; there are 1, 2"),
        (("group",), 1, "no mask of these 16 cases is in it"),
        (("subject",), 2, "'subject' is not one of 'participant', 'group'"),
    ],
)
def test_an_app_says_what_it_cannot_do(
    run: Path, tree: Path, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    done = app(tree, tmp_path / "out", *(run if word == "RUN" else word for word in words))
    assert done.exit_code == status
    assert said in done.output


def test_masks_of_a_derivative_are_scored_against_the_labels_of_its_source(
    run: Path, tree: Path, tmp_path: Path
) -> None:
    output = into(run, tree, tmp_path / "out")
    scores = str(tmp_path / "scores")
    done = CliRunner().invoke(main, ["evaluate", str(output), str(tree), "-o", scores, "--all-metrics"])
    assert done.exit_code == 0, done.output
    with (tmp_path / "scores" / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "ball"]
    assert [row["case"] for row in rows] == sorted(find_masks(tree))
    assert {row["status"] for row in rows} <= {"ok", "missed"}
    assert (tmp_path / "scores" / "report.html").is_file()
