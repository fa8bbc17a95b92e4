"""Tables, groups, lists of ids and the paths in them are read strictly."""

import os
import re
from pathlib import Path

import pytest

from medfcn.datasets import find_dataset, find_masks
from medfcn.datasets.tables import read_ids
from medfcn.errors import DatasetError, MissingFileError
from tests.datasets.layouts import decathlon, lacking, lay, line_of

OUTSIDE = ["../secret.nii", "/etc/passwd", "images/../../secret.nii", "link/secret.nii"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_that_leave_the_root_are_refused(path: str, tmp_path: Path) -> None:
    lay(tmp_path, "secret.nii", "d/images/a.nii", "d/labels/a.nii")
    root = tmp_path / "d"
    (root / "link").symlink_to(tmp_path)
    decathlon(root, [{"image": path, "label": "labels/a.nii"}])
    with pytest.raises(DatasetError, match="allow_outside=True") as caught:
        find_dataset(root)
    line_of(caught)
    (root / "t.csv").write_text(f"image,label\nimages/a.nii,{path}\n")
    with pytest.raises(DatasetError, match=r"t\.csv: line 2.*allow_outside=True"):
        find_dataset(root / "t.csv")
    if path != "/etc/passwd":
        assert len(find_dataset(root, allow_outside=True).cases) == 1


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_tables(name: str, tmp_path: Path) -> None:
    lay(tmp_path, "p1/scan.nii", "p1/seg.nii", "p2/scan.nii", "p2/seg.nii")
    rows = [["id", "image_ct", "label", "group", "fold"], ["x", "p1/scan.nii", "p1/seg.nii", "P1", "1"]]
    rows.append(["y", "p2/scan.nii", "p2/seg.nii", "P2", "2"])
    separator = "\t" if name.endswith("tsv") else ","
    (tmp_path / name).write_text("\ufeff" + "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n")
    dataset = find_dataset(tmp_path / name)
    assert dataset.layout == "table"
    assert [(case.id, case.group, case.fold) for case in dataset.cases] == [("x", "P1", "1"), ("y", "P2", "2")]
    assert dataset.channel_names == ("ct",)
    assert list(find_masks(tmp_path / name)) == ["x", "y"]


def test_a_row_that_lacks_something_is_a_problem_of_its_case(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{kind}/{name}.nii" for kind in ("ct", "pet", "seg") for name in "abc"))
    (tmp_path / "t.csv").write_text(
        "image_ct,image_pet,label,group\n"
        "ct/a.nii,pet/a.nii,seg/a.nii,P\nct/b.nii,,seg/b.nii,Q\nct/c.nii,pet/c.nii,,R\n"
        "ct/d.nii,pet/d.nii,seg/d.nii,S\n,,seg/e.nii,T\n"
    )
    dataset = find_dataset(tmp_path / "t.csv")
    assert [case.id for case in dataset.cases] == ["a"]
    assert lacking(dataset) == [
        ("CHANNEL_MISSING", "b", "ct/b.nii", "image_pet"),
        ("LABEL_MISSING", "c", "ct/c.nii", "label"),
        ("FILE_MISSING", "d", "ct/d.nii", "image"),
        ("FILE_MISSING", "d", "pet/d.nii", "image"),
        ("FILE_MISSING", "d", "seg/d.nii", "label"),
        ("IMAGE_MISSING", "e", "seg/e.nii", "image"),
        ("FILE_MISSING", "e", "seg/e.nii", "label"),
    ]
    assert dataset.problems[2].found == "named in t.csv: line 5 but does not exist"
    assert [case.group for case in dataset.incomplete] == ["Q", "R", "S", "T"]


def test_one_name_in_two_folders_asks_for_an_id(tmp_path: Path) -> None:
    lay(tmp_path, "p1/scan.nii", "p1/seg.nii", "p2/scan.nii", "p2/seg.nii")
    (tmp_path / "t.csv").write_text("image,label\np1/scan.nii,p1/seg.nii\np2/scan.nii,p2/seg.nii\n")
    with pytest.raises(DatasetError, match=r"scan: two cases.*p1/scan\.nii and p2/scan\.nii.*id column"):
        find_dataset(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "\n",
            "a,b\n",
            "image\nimages/a.nii\n",
            "label\nlabels/a.nii\n",
            "image,image_1,label\n",
            "image,label\n",
        ),
        "image,label\nimages/a.nii\n",
        "image,label\nimages/a.nii,labels/a.nii,extra\n",
        "image,image,label\nimages/a.nii,images/a.nii,labels/a.nii\n",
        "image,label\nimages/a.nii,\n",
        "image,label\nimages/b.nii,labels/a.nii\n",
        'image,label\n"images/a.nii,labels/a.nii\n',
        "image,label\n\0,labels/a.nii\n",
        "id,image,label\n../x,images/a.nii,labels/a.nii\n",
        "id,image,label\n.x,images/a.nii,labels/a.nii\n",
        "id,image,label\n" + "x" * 300 + ",images/a.nii,labels/a.nii\n",
        "id,image,label\na,images/a.nii,labels/a.nii\na,images/c.nii,labels/c.nii\n",
        "id,image,label,fold\na,images/a.nii,labels/a.nii,1\nc,images/c.nii,labels/c.nii,\n",
        "id,image,label,group,fold\na,images/a.nii,labels/a.nii,P,1\nc,images/c.nii,labels/c.nii,P,2\n",
        "image,label\n" + "x" * 200_000 + ",labels/a.nii\n",
        "Images,Labels\nimages/a.nii,labels/a.nii\n",
    ],
    ids=lambda text: repr(text)[:50],
)
def test_a_table_that_cannot_be_read_is_refused(text: str, tmp_path: Path) -> None:
    lay(tmp_path, "images/a.nii", "labels/a.nii", "images/c.nii", "labels/c.nii")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises((DatasetError, MissingFileError)) as caught:
        find_dataset(tmp_path / "t.csv")
    line_of(caught)


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("\n", "TABLE_EMPTY", ""),
        ("image,label\n", "TABLE_EMPTY", ""),
        ("id,image\na,images/a.nii\n", "TABLE_COLUMNS", "label"),
        ("id,label\na,labels/a.nii\n", "TABLE_COLUMNS", "image"),
        ("image,image,label\na,b,c\n", "TABLE_COLUMNS", "image"),
        ("image,label\nimages/a.nii\n", "TABLE_BROKEN", ""),
        ("image,label\n../a.nii,labels/a.nii\n", "PATH_OUTSIDE", "image"),
        ("image,label\nimages/a.nii,\0\n", "PATH_INVALID", "label"),
        ("id,image,label\n../x,images/a.nii,labels/a.nii\n", "ID_INVALID", "id"),
        ("id,image,label\na,images/a.nii,labels/a.nii\na,images/c.nii,labels/c.nii\n", "ID_DUPLICATE", "id"),
        ("image,label\nimages/a.nii,images/a.nii\n", "FILE_NAMED_TWICE", ""),
        ("image,label,fold\nimages/a.nii,labels/a.nii,1\nimages/c.nii,labels/c.nii,\n", "FOLD_INVALID", "fold"),
        ("image,label\nimages/b.nii,labels/a.nii\n", "CASES_INCOMPLETE", ""),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_refused_table_has_a_code_and_a_field_whatever_its_name(
    text: str, code: str, field: str, tmp_path: Path
) -> None:
    lay(tmp_path, "images/a.nii", "labels/a.nii", "images/c.nii", "labels/c.nii")
    for name in ("t.csv", "column_label_id_outside.csv"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DatasetError) as caught:
            find_dataset(tmp_path / name)
        assert (caught.value.code, caught.value.field) == (code, field)


def test_a_table_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"image,label\nM\xfcller.nii,a.nii\n")
    with pytest.raises(DatasetError, match="not UTF-8"):
        find_dataset(tmp_path / "t.csv")


def test_groups_come_from_a_file(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{folder}/{name}.nii" for folder in ("images", "labels") for name in ("a", "b", "c")))
    groups = tmp_path / "groups.csv"
    groups.write_text("id,group\na,P1\nb,P1\nc,P2\nnot here,P3\n")
    assert [case.group for case in find_dataset(tmp_path, groups=groups).cases] == ["P1", "P1", "P2"]
    lay(tmp_path, "images/without_label.nii")
    assert find_dataset(tmp_path, groups=groups).incomplete[0].group == "without_label"
    for text, words in (
        ("id,group\na,P1\nb,P1\n", "no group for c"),
        ("id,group\na,P1\na,P2\nb,P\nc,P\n", "no group or two"),
        ("id,patient\na,P1\n", "expected id, group"),
        ("id,group\na,\nb,P\nc,P\n", "no group or two"),
        ("id,group\na,P1\nb,p1\nc,P2\n", "'P1' \\(a\\) and 'p1' \\(b\\) look like one patient"),
        ("id,group\na,1\nb,01\nc,2\n", "'1' \\(a\\) and '01' \\(b\\) look like one patient"),
        ("id,group\na,1\nb,1.0\nc,2\n", "look like one patient"),
        ("id,group\na,M\u00fcller\nb,Mu\u0308ller\nc,P\n", "look like one patient"),
        ("id,group\na,P1\nb,P1\u200b\nc,P2\n", "look like one patient"),
    ):
        groups.write_text(text)
        with pytest.raises(DatasetError, match=words):
            find_dataset(tmp_path, groups=groups)
    with pytest.raises(MissingFileError):
        find_dataset(tmp_path, groups=tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        (("P1", "", "P2"), "no group for b; give every case one, or none"),
        (("P 1", "P2", "p  1"), "look like one patient"),
    ],
)
def test_a_group_for_some_or_two_that_look_alike_are_refused(
    groups: tuple[str, ...], found: str, tmp_path: Path
) -> None:
    lay(tmp_path, *(f"{folder}/{name}.nii" for folder in ("images", "labels") for name in "abc"))
    rows = [f"{case},images/{case}.nii,labels/{case}.nii,{group}" for case, group in zip("abc", groups, strict=True)]
    (tmp_path / "cases.csv").write_text("\n".join(["id,image,label,group", *rows]))
    with pytest.raises(DatasetError, match=found) as caught:
        find_dataset(tmp_path / "cases.csv")
    assert (caught.value.code, caught.value.field) == ("GROUP_INVALID", "group")


def test_a_message_of_the_csv_reader_stays_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"a"x\t,b\tc\n"a"\t')
    (tmp_path / "t.tsv").write_text('"a"x\tb\n')
    for name in ("t.csv", "t.tsv"):
        with pytest.raises(DatasetError) as caught:
            find_dataset(tmp_path / name)
        line_of(caught)


def test_ids_are_read_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text("case_1\n\n case 2 \n")
    assert read_ids(path) == ("case_1", "case 2")
    path.write_text("\n")
    with pytest.raises(DatasetError, match="contains no case id"):
        read_ids(path)
    with pytest.raises(MissingFileError):
        read_ids(tmp_path / "none.txt")
    with pytest.raises(DatasetError, match="not a file"):
        read_ids(tmp_path)


def test_the_pipe_of_a_shell_is_named_as_one_with_what_to_do() -> None:
    """`--groups <(…)` gives the number of an open file, which says nothing without its folder."""
    reader, writer = os.pipe()
    try:
        with pytest.raises(DatasetError) as caught:
            read_ids(Path(f"/dev/fd/{reader}"))
    finally:
        os.close(reader)
        os.close(writer)
    assert caught.value.code == "FILE_NOT_REGULAR"
    assert re.fullmatch(
        r"/dev/fd/\d+: a pipe \(FIFO\), not a file; write what comes out of it to a file, and give that",
        line_of(caught),
    )
