"""Every reader under random damage, and what was found so, each in a test of its own."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest

from medfcn.config import read_settings
from medfcn.datasets.patients import shared_stems
from medfcn.errors import DatasetError, MedfcnError, SettingsError
from medfcn.evaluation import Definitions, evaluate, read_scores, write_scores
from medfcn.inference.model import Model
from medfcn.slices.store import open_case, write_case
from medfcn.training.state import State
from medfcn.volumes import Volume
from tests.fuzz_readers import KEY, Reader, fuzz, readers
from tests.inference.models import saved, tiny_model
from tests.limits import limits

MASK = Volume(np.ones((4, 4, 3), np.uint8), np.eye(4))


def test_only_medfcn_errors_come_of_damaged_files(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fuzz(60.0, 0, tmp_path, count=600)
    assert sum(map(sum, found.values())) == 600
    assert found.keys() == {reader.name for reader in readers()}
    assert all(refused for name, (_, refused) in found.items() if name != "training cases")


@pytest.mark.parametrize("number", range(len(readers())), ids=lambda number: f"{number}-{readers()[number].name}")
def test_the_good_files_are_read(number: int, tmp_path: Path) -> None:
    reader: Reader = readers()[number]
    for name, content in reader.files.items():
        (tmp_path / name).write_bytes(content)
    reader.read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 20_000,
        b"[training]\nlearning_rate = " + b"9" * 5000,
        b"[training]\nlearning_rate = " + b"9" * 2_000_000,
        b"a = 1979-99-99",
        b"\xff",
    ],
    ids=["brackets", "digits", "megabytes", "date", "bytes"],
)
def test_settings_that_no_parser_takes_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    with limits("a.toml"), pytest.raises(SettingsError, match=r"a\.toml: (not a|more than) ") as caught:
        read_settings(tmp_path / "a.toml")
    assert caught.value.code == "NOT_TOML"


def test_a_key_of_a_card_that_is_a_book_is_refused_at_once(tmp_path: Path) -> None:
    card = saved(tiny_model(), tmp_path / "run") / "model.json"
    card.write_bytes(card.read_bytes().replace(b'"validation_share"', b'"' + b"v" * 2_000_000 + b'"'))
    with limits("model.json"), pytest.raises(MedfcnError, match="unknown key") as caught:
        Model.load(tmp_path / "run", device="cpu")
    assert len(str(caught.value)) < 1000


def test_ids_that_name_no_file_have_no_stem() -> None:
    long = "P1_right" + "1e999" * 7000
    with limits("ids"):
        assert shared_stems(["P1_left", "P1_right", long, long + "_left"]) == {"P1": ("P1_left", "P1_right")}


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"9, 9),", b"9, 9 ,"), (b"'<f4'", b"',f4'"), (b"'<f4'", b"'<\xff4'")],
    ids=["open", "type", "byte"],
)
def test_prepared_slices_whose_header_numpy_cannot_parse_are_damaged(old: bytes, new: bytes, tmp_path: Path) -> None:
    write_case(tmp_path, KEY, np.ones((3, 1, 9, 9), np.float32), np.ones((3, 9, 9), np.uint8))
    path = tmp_path / f"{KEY}.images.npy"
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    next(reader.sign for reader in readers() if reader.name == "slices" and reader.sign)(tmp_path)
    with pytest.raises(DatasetError, match="its prepared slices are damaged"):
        open_case(tmp_path, KEY, "a", "axial")


@pytest.mark.parametrize(
    ("column", "value"),
    [("lesions", "inf"), ("lesions_found", "-1"), ("true_positives", "9" * 400), ("dice", "inf"), ("hd_mm", "-inf")],
    ids=["lesions", "negative", "count", "dice", "distance"],
)
def test_scores_that_no_mask_has_are_refused(column: str, value: str, tmp_path: Path) -> None:
    write_scores(evaluate({"a": MASK}, {"a": MASK}), tmp_path / "out")
    path = tmp_path / "out" / "scores.csv"
    names, row = (line.split(",") for line in path.read_text().splitlines())
    row[names.index(column)] = value
    path.write_text(f"{','.join(names)}\n{','.join(row)}\n")
    with pytest.raises(DatasetError, match=rf"scores\.csv line 2: {column} is .* that a score can have"):
        read_scores(tmp_path / "out")


def test_scores_with_a_part_of_their_lesions_are_summed_without_them(tmp_path: Path) -> None:
    masks = {"a": MASK, "b": MASK}
    table = evaluate(masks, masks, definitions=Definitions(lesions=True))
    rows = (dataclasses.replace(table.rows[0], lesions_found=float("nan")), table.rows[1])
    counts = dataclasses.replace(table, rows=rows).summary().labels[0].lesions
    assert counts is not None
    assert (counts.reference, counts.found, counts.false) == (1, 1, 0)


@pytest.mark.parametrize("end", [b"0.", b"(b.", b"R.", b"\x80\x02]e."], ids=["pop", "build", "call", "append"])
def test_a_pickle_whose_stack_is_empty_is_no_checkpoint(end: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x02" + end)
    with pytest.raises(ValueError):
        State.load(tmp_path / "a.pt")
