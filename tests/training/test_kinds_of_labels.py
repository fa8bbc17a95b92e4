"""Runs on ranges of values and on one file for each structure: the card reads back, and predictions are scored."""

from pathlib import Path

import medfcn
from medfcn.inference.card import read_card
from medfcn.labels.sidecar import MaskRecord
from medfcn.labels.values import Span
from medfcn.runs.folder import RunFolder
from tests.structures import lay_out, organs


def test_a_run_on_a_range_writes_its_first_value(balls: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    medfcn.train(balls, run, labels={"ball": "1-42", "ignore": "200-255"}, steps=2, device="cpu", threads=1)
    card = read_card(RunFolder(run).card)
    assert (card.labels.entries[0].values, card.labels.entries[0].written) == ((Span(1, 42),), 1)
    assert card.labels.ignored == (Span(200, 255),)
    medfcn.predict(run, balls / "images" / "ball_0.nii.gz", tmp_path / "out")
    record = MaskRecord.beside(tmp_path / "out" / "ball_0.nii.gz")
    assert record is not None
    assert record.labels == card.labels
    assert not medfcn.evaluate(tmp_path / "out", balls / "labels").failures
    again = medfcn.train(balls, run, labels="ball=1-42,ignore=200-255", steps=2, device="cpu", threads=1, resume=True)
    assert again.folder == run


def test_a_run_on_structures_that_overlap(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "data", "segmentations", {f"p{case}": organs(case, overlap=1) for case in range(4)})
    run = tmp_path / "run"
    choice = "liver,others=spleen+kidney"
    medfcn.train(root, run, labels=choice, steps=2, views="axial", device="cpu", threads=1)
    labels = read_card(RunFolder(run).card).labels
    assert [entry.structures for entry in labels.entries] == [("liver",), ("spleen", "kidney")]
    assert [overlap.written for overlap in labels.overlaps] == [1, 2, 7]
    medfcn.predict(run, root, tmp_path / "out")
    table = medfcn.evaluate(tmp_path / "out", root)
    assert not table.failures
    assert table.labels == ("liver", "others")
    medfcn.train(root, run, labels=choice, steps=2, views="axial", device="cpu", threads=1, resume=True)
    assert (run / "report.html").is_file()
