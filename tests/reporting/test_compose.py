"""Reports composed from folders: of predictions, of a run's validation, of masks without references."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from medfcn.errors import DatasetError, MissingFileError, OutputExistsError
from medfcn.evaluation import evaluate, write_scores
from medfcn.labels import LabelMap, read_mask
from medfcn.reporting import predict_report, report, shown_cases, train_report
from medfcn.reporting.provenance import log_of_run
from medfcn.reporting.shown_cases import images_beside
from medfcn.volumes import Volume
from tests.reporting.pages import AFFINE, Page, active_parts, case_volumes


def held(page):
    return {a["id"]: json.loads(text) for tag, a, text in page.raw if tag == "script" and "id" in a}


@pytest.fixture
def dataset(tmp_path):
    """Three cases; references hold 1 and 2."""
    folder = tmp_path / "dataset"
    for number in range(3):
        volumes = case_volumes(number, labels=2)
        for kind, volume in (("images", volumes.image), ("labels", volumes.reference)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            volume.save(folder / kind / f"case_{number}.nii.gz")
    return folder


def save_masks(folder, cases, *, sidecar=None):
    """Merged masks, as medfcn writes them."""
    folder.mkdir(parents=True)
    for number in cases:
        prediction = case_volumes(number).prediction
        prediction.save(folder / f"case_{number}.nii.gz")
        if sidecar is not None:
            (folder / f"case_{number}.json").write_text(json.dumps(sidecar))
    return folder


LABELS = LabelMap.parse("organ=1+2")
SIDECAR = {
    "labels": LABELS.to_json(),
    "medfcn": "0.1.0",
    "model_sha256": ["f" * 64],
    "volumes_ml": {"organ": 1.5},
    "flags": ["odd"],
}


def test_a_report_finds_images_and_reads_both_masks_as_scored(dataset, tmp_path):
    masks = save_masks(tmp_path / "masks", (0, 1), sidecar=SIDECAR)
    path = report(masks, dataset, tmp_path / "report.html")
    text = path.read_text("utf-8")
    page = Page(text)
    data = held(page)
    assert [case["id"] for case in data["page-data"]["cases"]] == ["case_2", "case_0", "case_1"]
    assert [label["name"] for label in data["page-data"]["labels"]] == ["organ"]
    assert all(data[f"case-data-{index}"]["image"] for index in range(3))
    assert data["case-data-0"]["prediction"] is None
    assert "Missed in 1 of 3 cases: case_2 (no mask file)" in page.text
    assert "f" * 64 in page.text
    assert active_parts(page) == []
    assert str(tmp_path) not in text


def test_a_report_of_values_found_names_them_as_the_table_does(dataset, tmp_path):
    path = report(dataset / "labels", dataset / "labels", tmp_path / "report.html")
    page = Page(path.read_text("utf-8"))
    assert [label["name"] for label in held(page)["page-data"]["labels"]] == ["1", "2"]
    assert held(page)["case-data-0"]["reference"] == held(page)["case-data-0"]["prediction"]
    assert held(page)["case-data-0"]["image"], "the images beside labels/ are found"


@pytest.mark.parametrize("labels", ["organ=1+2,ignore=255", None])
def test_nothing_that_nobody_labelled_is_shown_as_an_error(dataset, tmp_path, labels):
    masks = save_masks(tmp_path / "masks", (0, 1, 2))
    (dataset / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1, "ignore": 255}}))
    for number in range(3):
        path = dataset / "labels" / f"case_{number}.nii.gz"
        reference, found = read_mask(path), read_mask(masks / path.name).array
        half = np.where(np.arange(reference.shape[2]) < 6, found, 255).astype(np.uint8)
        reference.with_array(half).save(path, overwrite=True)
    table = evaluate(masks, dataset / "labels", labels=labels)
    assert {row.dice for row in table.rows} == {1.0}
    page = Page(
        report(masks, dataset / "labels", tmp_path / "report.html", labels=labels, table=table).read_text("utf-8")
    )
    for name, part in held(page).items():
        if name != "page-data":
            assert [at["area"] for at in part["worst"]] == [0, 0, 0]
            assert part["notes"][0].startswith("The reference ignores 50 % of the voxels")
    assert page.text.count("no difference") == 9


def test_scores_that_are_there_are_not_made_again(dataset, tmp_path):
    masks = save_masks(tmp_path / "masks", (0, 1, 2))
    table = evaluate(masks, dataset, labels=LABELS)
    kept = type(table)(table.rows[:2], table.definitions, ("a note",))
    page = Page(report(masks, dataset, tmp_path / "report.html", labels=LABELS, table=kept).read_text("utf-8"))
    assert len(held(page)["page-data"]["cases"]) == 2
    assert "a note" in page.text


def test_an_unreadable_image_is_named_and_does_not_stop_the_report(dataset, tmp_path):
    masks = save_masks(tmp_path / "masks", (0, 1, 2), sidecar=SIDECAR)
    (dataset / "images" / "case_1.nii.gz").write_bytes(b"no volume")
    page = Page(report(masks, dataset, tmp_path / "report.html").read_text("utf-8"))
    notes = [part["notes"] for name, part in held(page).items() if name != "page-data" and part["notes"]]
    assert len(notes) == 1
    assert notes[0][0].startswith("the image is not shown: case_1")


def test_an_existing_report_is_refused_before_any_work(dataset, tmp_path):
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(OutputExistsError):
        report(tmp_path / "nowhere", dataset, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "old"


@pytest.fixture
def run(dataset, tmp_path):
    """A finished run whose validation cases are 0 and 1."""
    folder = tmp_path / "run"
    masks = save_masks(folder / "validation", (0, 1))
    table = evaluate(
        {case: masks / f"{case}.nii.gz" for case in ("case_0", "case_1")},
        {case: dataset / "labels" / f"{case}.nii.gz" for case in ("case_0", "case_1")},
        labels=LABELS,
    )
    write_scores(table, masks)
    card = {
        "labels": LABELS.to_json(),
        "weights_sha256": "e" * 64,
        "settings": {"training": {"seed": 7, "rates": [0.1, 0.2]}},
        "plan": {"reasons": [{"why": "<b>"}]},
        "versions": {"torch": "2.13"},
        "training": {"steps": 60},
    }
    (folder / "model.json").write_text(json.dumps(card))
    (folder / "log.csv").write_text("step,loss,validation_dice\n30,0.9,\n60,0.5,0.8\n")
    return folder


def test_a_run_reports_its_validation_with_curves_and_settings(run, dataset):
    path = train_report(run, dataset)
    assert path == run / "report.html"
    page = Page(path.read_text("utf-8"))
    assert [case["id"] for case in held(page)["page-data"]["cases"]] == ["case_0", "case_1"]
    assert all(
        held(page)[f"case-data-{index}"][kind] for index in (0, 1) for kind in ("image", "reference", "prediction")
    )
    for words in ("Training loss", "Validation Dice", "e" * 64, "training.seed", "0.1, 0.2", "reasons.1.why", "<b>"):
        assert words in page.text or any(words in str(a) for _, a in page.elements), words
    with pytest.raises(OutputExistsError):
        train_report(run, dataset)
    train_report(run, dataset, overwrite=True)


def test_a_validation_case_that_lost_a_file_is_named_and_others_do_not_matter(run, dataset):
    (dataset / "labels" / "case_2.nii.gz").unlink()
    train_report(run, dataset)
    (dataset / "images" / "case_1.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 cases are not complete: case_1: no image of that name"):
        train_report(run, dataset, overwrite=True)


def test_a_run_without_validation_or_with_another_dataset_is_refused(run, tmp_path):
    other = tmp_path / "other"
    for kind, volume in (("images", case_volumes().image), ("labels", case_volumes().reference)):
        (other / kind).mkdir(parents=True)
        volume.save(other / kind / "stranger.nii.gz")
    with pytest.raises(DatasetError, match="none of the validation cases"):
        train_report(run, other, output=tmp_path / "a.html")
    (run / "model.json").unlink()
    with pytest.raises(MissingFileError, match=r"model\.json"):
        train_report(run, other, output=tmp_path / "a.html")


@pytest.fixture
def reads(monkeypatch):
    """The file names of all volumes that are read, in order."""
    names = []
    for name in ("read_mask", "as_volume"):
        read = getattr(shown_cases, name)

        def counted(source, *arguments, read=read, **options):
            names.append(Path(source).name)
            return read(source, *arguments, **options)

        monkeypatch.setattr(shown_cases, name, counted)
    return names


def test_a_report_reads_each_file_once(dataset, tmp_path, reads):
    masks = save_masks(tmp_path / "masks", (0, 1, 2), sidecar=SIDECAR)
    report(masks, dataset, tmp_path / "report.html", table=evaluate(masks, dataset))
    assert sorted(reads) == sorted(3 * [f"case_{number}.nii.gz" for number in range(3)])
    reads.clear()
    for path in masks.glob("*.json"):
        path.unlink()
    predict_report(masks, dataset / "images")  # volumes in ml are measured in the same pass
    assert sorted(reads) == sorted(2 * [f"case_{number}.nii.gz" for number in range(3)])


def test_the_report_of_a_validation_reads_each_file_once(run, dataset, reads):
    train_report(run, dataset)
    assert sorted(reads) == sorted(3 * ["case_0.nii.gz", "case_1.nii.gz"])


def test_masks_without_references_get_a_lighter_report(dataset, tmp_path):
    masks = save_masks(tmp_path / "masks", (0, 1), sidecar=SIDECAR)
    (masks / "failures.csv").write_text("case,error\ncase_2,case_2: too odd\n")
    page = Page(predict_report(masks, dataset / "images").read_text("utf-8"))
    assert (masks / "report.html").is_file()
    data = held(page)
    assert not data["page-data"]["hasReference"]
    assert data["case-data-0"]["reference"] is None
    assert data["case-data-0"]["image"]
    assert "case_2: case_2: too odd" in page.text
    assert "odd" in page.text
    assert "Dice" not in page.text
    assert active_parts(page) == []


def table_cells(page, heading):
    """The column of the table of cases under a heading: what it is sorted by."""
    headings = [a["data-column"] for tag, a in page.elements if tag == "button" and "data-column" in a]
    cells = [a["data-sort"] for tag, a in page.elements if tag == "td" and "data-sort" in a]
    width = sum(name.isdecimal() for name in headings)
    names = re.findall(r'data-column="\d+">([^<]+)<', page.source)
    assert heading in names
    return cells[names.index(heading) :: width]


def test_what_is_expected_of_masks_stands_in_both_reports(dataset, tmp_path):
    masks = save_masks(tmp_path / "masks", (0, 1, 2), sidecar=SIDECAR)
    for case, dice in (("case_0", 0.875), ("case_1", None)):
        told = {"expected_dice": {"organ": dice}, "review": {"organ": dice is None}}
        (masks / f"{case}.json").write_text(json.dumps(SIDECAR | told))
    page = Page(predict_report(masks, dataset / "images").read_text("utf-8"))
    assert table_cells(page, "Expected Dice") == ["0.875", "", ""]
    assert "0.875" in page.text
    page = Page(report(masks, dataset, tmp_path / "scored.html").read_text("utf-8"))
    table = evaluate(masks, dataset)
    dices = {row.case: f"{row.dice:.9g}" for row in table.rows}
    order = [case["id"] for case in held(page)["page-data"]["cases"]]
    assert table_cells(page, "Dice") == [dices[case] for case in order]
    assert table_cells(page, "Expected Dice") == ["0.875" if case == "case_0" else "" for case in order]
    # Of other labels than those that are scored it says nothing.
    page = Page(report(masks, dataset, tmp_path / "other.html", labels="organ=1+2,more=3").read_text("utf-8"))
    assert "Expected Dice" not in page.text


@pytest.mark.parametrize("dice", [7, 1e999, "high", [0.5], -(10**400)])
def test_an_expected_dice_that_is_none_is_not_shown(dataset, tmp_path, dice):
    sidecar = SIDECAR | {"expected_dice": {"organ": dice}, "review": {"organ": False}}
    masks = save_masks(tmp_path / "masks", (0,), sidecar=sidecar)
    page = Page(predict_report(masks, dataset / "images").read_text("utf-8"))
    assert "Expected Dice" not in page.text


def test_one_mask_gets_a_page_beside_it(dataset, tmp_path):
    masks = save_masks(tmp_path / "masks", (0,))
    mask = (masks / "case_0.nii.gz").rename(tmp_path / "mine.nii.gz")
    path = predict_report(mask, dataset / "images" / "case_0.nii.gz")
    assert path == tmp_path / "mine.html"
    page = Page(path.read_text("utf-8"))
    volume = read_mask(mask)
    assert f"{np.count_nonzero(volume.array) * volume.voxel_ml:.2f}" in page.text
    assert held(page)["case-data-0"]["image"]


def test_a_mask_of_values_nobody_names_is_shown_whole(tmp_path):
    mask = np.zeros((8, 8, 8), dtype=np.uint8)
    mask[2:4], mask[5] = 1, 3
    (tmp_path / "masks").mkdir()
    Volume(mask, AFFINE).save(tmp_path / "masks" / "a.nii.gz")
    Volume(mask * 10.0, AFFINE).save(tmp_path / "a.nii.gz")
    page = Page(predict_report(tmp_path / "masks", tmp_path / "a.nii.gz").read_text("utf-8"))
    assert [label["name"] for label in held(page)["page-data"]["labels"]] == ["mask"]


def test_the_images_of_chosen_cases_can_be_given_with_them(dataset, tmp_path):
    masks = save_masks(tmp_path / "masks", (0, 1, 2), sidecar=SIDECAR)
    chosen = {"case_1": dataset / "labels" / "case_1.nii.gz"}
    assert images_beside(chosen) == {}
    assert images_beside(tmp_path / "masks") == {}
    images = images_beside(dataset / "labels")
    page = Page(report(masks, chosen, tmp_path / "report.html", images=images).read_text("utf-8"))
    assert [case["id"] for case in held(page)["page-data"]["cases"]] == ["case_1"]
    assert held(page)["case-data-0"]["image"]


@pytest.mark.parametrize(
    "card", ["[]", "{", '{"settings": [[[1]]], "plan": 3, "training": null}', '{"versions": {"a": 1e999}}']
)
def test_a_run_whose_card_is_odd_still_has_its_report(dataset, tmp_path, card):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.json").write_text(card)
    (tmp_path / "run" / "log.csv").write_bytes(b"step,loss\n1,\xff\n")
    report(dataset / "labels", dataset, tmp_path / "report.html", run=tmp_path / "run")
    with pytest.raises(MissingFileError, match="no such run folder"):
        report(dataset / "labels", dataset, tmp_path / "other.html", run=tmp_path / "none")


def test_the_sample_volumes_have_a_report(tmp_path):
    sample = Path(__file__).resolve().parents[2] / "sample_data" / "test"
    page = Page(report(sample / "labels", sample, tmp_path / "report.html").read_text("utf-8"))
    assert len(held(page)["page-data"]["cases"]) == 4
    assert active_parts(page) == []


@pytest.mark.parametrize("step", ["-1", "0", "nan", "", "=1"])
def test_rows_of_a_log_that_no_training_wrote_are_not_drawn(step: str, tmp_path: Path) -> None:
    """A chart of the steps -1 to -1 ended in a math domain error."""
    (tmp_path / "log.csv").write_text(f"step,loss\n{step},0.5\n4,0.25\n")
    assert log_of_run(tmp_path) == {"step": [4.0], "loss": [0.25]}
