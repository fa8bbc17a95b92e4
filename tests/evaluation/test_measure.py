"""The sizes of existing masks: those of `predict`, and those of any tool."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.errors import DatasetError, OutputExistsError
from medfcn.evaluation.changes import read_pairs
from medfcn.runs.folder import CHANGES_FILE, FAILURES_FILE, VOLUMES_FILE
from medfcn.verbs import predict
from medfcn.volumes import Volume
from tests.inference.models import blobs, saved, tiny_model, write_image

GRID = np.diag([-1.0, -1.0, 2.0, 1.0])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two channels, and the masks of a model whose labels overlap; never written to."""
    folder = tmp_path_factory.mktemp("predicted")
    model = tiny_model(labels="whole=1+2,core=2", intensities=tiny_model().card.plan.intensities * 2)
    run = saved(model, folder / "run")
    for number in range(3):
        for channel in range(2):
            path = folder / "images" / f"case_{number}_{channel:04d}.nii.gz"
            write_image(path, blobs((15, 13, 6), seed=10 * number + channel))
    write_image(folder / "images" / "blank_0000.nii.gz", np.zeros((9, 8, 4), dtype=np.int16))
    write_image(folder / "images" / "blank_0001.nii.gz", blobs((9, 8, 4)))
    predict(run, folder / "images", folder / "masks", device="cpu")
    return folder


def test_masks_of_predict_have_the_table_that_predict_wrote(predicted: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["measure", str(predicted / "masks"), str(predicted / "images"), "-o", str(tmp_path / "sizes")]
    )
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "sizes" / VOLUMES_FILE).read_bytes() == (predicted / "masks" / VOLUMES_FILE).read_bytes()
    assert [path.name for path in (tmp_path / "sizes").iterdir()] == [VOLUMES_FILE]


def test_without_images_there_are_sizes_only(predicted: Path) -> None:
    found = medfcn.measure(predicted / "masks")
    assert {(row.mean, row.spread) for row in found.rows} == {(None, None)}
    with_images = medfcn.measure(predicted / "masks", predicted / "images")
    assert [row.voxels for row in found.rows] == [row.voxels for row in with_images.rows]
    assert [row.input_sha256 for row in found.rows] == [row.input_sha256 for row in with_images.rows]


def test_a_mask_that_was_edited_keeps_nothing_of_its_record(predicted: Path, tmp_path: Path) -> None:
    for path in (predicted / "masks").glob("case_0.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    mask = medfcn.read_volume(tmp_path / "case_0.nii.gz")
    mask.with_array(np.zeros(mask.shape, dtype=np.uint8)).save(tmp_path / "case_0.nii.gz", overwrite=True)
    found = medfcn.measure(tmp_path)
    assert found.notes[1:] == ("case_0: the mask is not the one that its .json describes: it was edited since",)
    assert {(row.model_sha256, row.version, row.voxels) for row in found.rows} == {("", None, 0)}


def test_channels_of_a_data_set_have_its_names(tmp_path: Path) -> None:
    mask = np.ones((6, 5, 4), dtype=np.uint8)
    for place, number in (("images", "_0000"), ("images", "_0001"), ("labels", "")):
        (tmp_path / place).mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(mask, GRID), tmp_path / place / f"a{number}.nii.gz")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "CT", "1": "PET"}}')
    found = medfcn.measure(tmp_path / "labels", tmp_path)
    assert found.notes == (
        "mean and spread are of channel 1 of 2 (CT), in the units of its file; volumes.csv has the others: "
        "mean_2 and spread_2 (PET)",
    )


def test_masks_of_another_tool_have_a_row_for_each_value_of_any_mask() -> None:
    first, second, image = np.zeros((3, 6, 5, 4), dtype=np.uint8)
    first[0, 0, 0], first[1:3, 0, 0], second[0] = 7, 2, 7
    image[1:3, 0, 0] = 5
    found = medfcn.measure({"a": (first, GRID), "b": (second, GRID)}, {"a": (image, GRID)})
    assert [(row.case, row.label, row.voxels, row.mean) for row in found.rows] == [
        ("a", "2", 2, 5.0),
        ("a", "7", 1, 0.0),
        ("b", "2", 0, None),
        ("b", "7", 20, None),
    ]
    assert found.rows[0].volume_ml == pytest.approx(0.004)
    assert found.notes == ("no image of 1 mask, without intensities: b",)
    both = medfcn.measure({"a": (first, GRID)}, {"a": [(image, GRID), (2 * image, GRID)]})
    assert both.notes == (
        "mean and spread are of channel 1 of 2, in the units of its file; volumes.csv has the others: "
        "mean_2 and spread_2",
    )
    assert both.notes[0] in " ".join(both.to_text().split())
    merged = medfcn.measure({"a": (first, GRID)}, labels="organ=2+7")
    assert [(row.label, row.voxels) for row in merged.rows] == [("organ", 3)]


def test_one_bad_mask_stops_no_folder(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    write_image(masks / "good.nii.gz", np.ones((4, 4, 4), dtype=np.uint8))
    write_image(masks / "turned.nii.gz", np.ones((4, 4, 4), dtype=np.uint8))
    (masks / "bad.nii.gz").write_bytes(b"no mask")
    write_image(tmp_path / "images" / "turned.nii.gz", blobs((5, 4, 4)))
    words = ["measure", str(masks), str(tmp_path / "images"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 3
    assert [row["case"] for row in rows_of(tmp_path / "out" / FAILURES_FILE)] == ["bad", "turned"]
    assert [row["case"] for row in rows_of(tmp_path / "out" / VOLUMES_FILE)] == ["good"]
    with pytest.raises(OutputExistsError):
        medfcn.measure(masks, None, tmp_path / "out")
    again = medfcn.measure(masks, None, tmp_path / "out", cases=["good", "turned"], overwrite=True)
    assert not again.failures
    assert not (tmp_path / "out" / FAILURES_FILE).exists()


def test_pairs_give_the_change_in_ml_and_per_cent(tmp_path: Path) -> None:
    sizes = {"p1_a": 10, "p1_b": 25, "p2_a": 0, "p2_b": 5}
    for case, count in sizes.items():
        mask = np.zeros((5, 5, 5), dtype=np.uint8)
        mask.ravel()[:count] = 1
        Volume(mask, GRID).save(tmp_path / f"{case}.nii.gz")
    (tmp_path / "pairs.csv").write_text("before,after\np1_a,p1_b\np1_b,p1_a\np2_a,p2_b\n")
    found = medfcn.measure(tmp_path, None, tmp_path / "out", labels="organ=1", pairs=tmp_path / "pairs.csv")
    assert [(change.before, change.change_ml, change.change_percent) for change in found.changes[:2]] == [
        ("p1_a", pytest.approx(0.03), pytest.approx(150.0)),
        ("p1_b", pytest.approx(-0.03), pytest.approx(-60.0)),
    ]
    rows = rows_of(tmp_path / "out" / CHANGES_FILE)
    assert (rows[2]["change_ml"], rows[2]["change_percent"]) == ("0.01", "")
    assert medfcn.measure(tmp_path, labels="organ=1", pairs=[("p1_a", "p1_b")]).changes == found.changes[:1]
    with pytest.raises(DatasetError, match="1 of the cases has no mask: p9"):
        medfcn.measure(tmp_path, labels="organ=1", pairs=[("p1_a", "p9")])
    with pytest.raises(DatasetError, match="paired with itself"):
        medfcn.measure(tmp_path, labels="organ=1", pairs=[("p1_a", "p1_a")])


@pytest.mark.parametrize("times", [("10", "9", "2"), ("2024-05-31", "2024-05-30", "2019-12-31")])
def test_times_of_a_patient_are_paired_in_their_order(times: tuple[str, ...], tmp_path: Path) -> None:
    rows = [f"{name},p,{time}" for name, time in zip("cba", times, strict=True)]
    (tmp_path / "times.csv").write_text("\n".join(["id,group,time", *rows, f"x,alone,{times[0]}"]))
    assert read_pairs(tmp_path / "times.csv") == (("a", "b"), ("b", "c"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,group\na,b\n", "expected before, after"),
        ("id,group,time\na,p,early\n", "time 'early' is neither a number nor a date"),
        ("id,group,time\na,p,nan\n", "time 'nan' is neither"),
        ("id,group,time\na,p,12.5\nb,p,2024-05-31\n", "line 3: time '2024-05-31' is a date, and '12.5' is a number"),
        ("id,group,time\na,p,2024-05-31\nb,q,20240601\n", "is a number, and '2024-05-31' is a date"),
        ("id,group,time\na,p,1\nb,p,1\n", "a and b of p have the same time"),
        ("id,group,time\na,p,1\nb,p,2\na,p,3\n", "line 4: a has no group, or is given twice; give it one line"),
        ("id,group,time\na,,1\nb,,2\n", "line 2: a has no group"),
        ("id,group,time\na,P1,1\nb,p1,2\n", "'P1' \\(a\\) and 'p1' \\(b\\) look like one patient"),
    ],
)
def test_pairs_that_cannot_be_are_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(DatasetError, match=said):
        read_pairs(tmp_path / "pairs.csv")
