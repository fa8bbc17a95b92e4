"""`check` sees what is wrong with a dataset, says it with a code, and repeats nothing of a header's text."""

import importlib
import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from medfcn.datasets import Case, CheckReport, check_cases, find_dataset
from medfcn.datasets.check import check
from medfcn.datasets.check_report import CaseFacts, ImageFacts, LabelFacts
from medfcn.files import write_json
from medfcn.progress import Silent
from medfcn.volumes import ReadOptions, Volume, read_volume
from medfcn.volumes.formats.nifti_labels import TableLabel
from medfcn.volumes.formats.seg_nrrd import write_seg_nrrd
from medfcn.volumes.privacy import looks_personal, personal_text_fields
from tests.volumes.hostile import AFFINE, BODY, GOOD, VOXELS, good, put

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def image(seed: int = 0) -> bytes:
    return good(voxels=np.random.default_rng(seed).integers(0, 100, VOXELS.shape).astype(np.int16))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three good cases."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        (tmp_path / "images" / f"case_{number}.nii").write_bytes(image(number))
        (tmp_path / "labels" / f"case_{number}.nii").write_bytes(GOOD)
    return tmp_path


def codes(report: CheckReport, case: str = "case_1") -> set[str]:
    return {problem.code for problem in report.problems if problem.case == case}


class Counted(Silent):
    """Progress that remembers how many of how many cases are done."""

    total = done = 0

    @contextmanager
    def task(self, name: str, total: int) -> Iterator["Counted"]:
        self.total = total
        yield self

    def advance(self, note: str = "") -> None:
        self.done += 1


def test_a_good_dataset_has_no_problems(root: Path) -> None:
    report = check(root)
    assert report.problems == ()
    assert report.bad_cases == frozenset()
    facts = report.cases[0]
    assert facts.images[0].shape == (6, 5, 4)
    assert facts.images[0].file == "images/case_0.nii"
    assert facts.label is not None
    expected = {value: int((value == VOXELS).sum()) for value in range(1, 5)}
    assert facts.label.voxels == expected
    assert facts.label.ml[1] == pytest.approx(expected[1] * 1.5 * 2 * 3 / 1000)
    assert "0 errors, 0 warnings" in report.to_text()


def test_the_report_is_the_same_for_any_number_of_threads(root: Path) -> None:
    (root / "images" / "case_1.nii").write_bytes(GOOD[:-1])
    first = check_cases(find_dataset(root), threads=1)
    assert first == check(root) == check_cases(find_dataset(root), threads=3)


@pytest.mark.parametrize(
    ("file", "content", "code", "severity"),
    [
        ("images", GOOD[:-1], "FILE_CUT_OFF", "error"),
        ("images", good(voxels=np.full((6, 5, 4), 7, dtype=np.int16)), "IMAGE_CONSTANT", "error"),
        ("images", put(image(9), "xyzt_units", 0), "READ_NOTE", "warning"),
        ("images", good(voxels=VOXELS[:, :, :3]), "LABEL_SHAPE_DIFFERS", "error"),
        ("labels", good(voxels=VOXELS[:, :3]), "LABEL_SHAPE_DIFFERS", "error"),
        ("labels", put(put(GOOD, "sform_code", 0), "qoffset", -9.0), "LABEL_GRID_DIFFERS", "error"),
        ("labels", put(put(GOOD, "sform_code", 0), "qoffset", -10.7), "LABEL_GRID_NEAR", "warning"),
        ("labels", put(put(GOOD, "sform_code", 0), "qoffset", -10.97), "", ""),
        ("labels", good(code=16, voxels=VOXELS * np.float32(0.9999)), "LABEL_ROUNDED", "warning"),
        ("labels", good(code=16, voxels=VOXELS * np.float32(0.5)), "LABEL_VALUES", "error"),
        ("labels", good(voxels=VOXELS * 0), "LABEL_EMPTY", "warning"),
        ("labels", good(voxels=VOXELS * -1), "LABEL_VALUES", "error"),
        ("images", put(image(9), "descrip", b"DOE^JANE"), "HEADER_TEXT", "warning"),
    ],
)
def test_each_problem_has_its_code(root: Path, file: str, content: bytes, code: str, severity: str) -> None:
    (root / file / "case_1.nii").write_bytes(content)
    report = check(root)
    found = [problem for problem in report.problems if problem.case == "case_1"]
    assert [(problem.code, problem.severity) for problem in found] == ([(code, severity)] if code else [])
    assert report.bad_cases == (frozenset({"case_1"}) if severity == "error" else frozenset())
    for problem in found:
        assert problem.file.startswith(("images/", "labels/"))
        assert problem.found
        assert str(root) not in problem.line


def test_what_is_missing_stands_beside_all_other_problems(root: Path) -> None:
    (root / "labels" / "case_0.nii").unlink()
    (root / "images" / "case_0.nii").write_bytes(GOOD[:-1])
    (root / "images" / "case_2.nii").write_bytes(GOOD[:-1])
    progress = Counted()
    good: list[str] = []
    report = check_cases(find_dataset(root), progress=progress, visit=lambda case, images, mask: good.append(case.id))
    assert [(problem.code, problem.case) for problem in report.errors] == [
        ("LABEL_MISSING", "case_0"),
        ("FILE_CUT_OFF", "case_0"),
        ("FILE_CUT_OFF", "case_2"),
    ]
    assert report.bad_cases == {"case_0", "case_2"}
    assert good == ["case_1"]
    assert (progress.total, progress.done) == (3, 3)
    assert [case.id for case in report.cases] == ["case_0", "case_1", "case_2"]
    line = "error LABEL_MISSING images/case_0.nii: no label of that name in labels/; add labels/case_0.nii.gz"
    assert line in report.to_text()
    assert report.to_json()["problems"][0]["code"] == "LABEL_MISSING"


def test_a_case_that_lacks_a_file_is_never_called_good(root: Path) -> None:
    """Its files may all be sound."""
    (root / "labels" / "case_0.nii").unlink()
    (root / "images" / "case_2.nii").unlink()
    good: list[str] = []
    check_cases(find_dataset(root), visit=lambda case, images, mask: good.append(case.id))
    assert good == ["case_1"]


def test_a_visitor_gets_every_good_case_and_no_file_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path, *, options: ReadOptions) -> Volume:
        read.append(path.name)
        return read_volume(path, options=options)

    monkeypatch.setattr(importlib.import_module("medfcn.datasets.check"), "read_volume", counted)
    seen = {}

    def visit(case: Case, images: tuple[Volume, ...], mask: Volume | None) -> None:
        assert mask is not None
        seen[case.id] = (float(images[0].array.max()), images[0].sha256, mask.sha256)

    report = check_cases(find_dataset(root), visit=visit)
    assert sorted(read) == ["case_0.nii", "case_1.nii", "case_2.nii"]
    for case in report.cases:
        assert case.label is not None
        assert seen[case.id] == (case.images[0].highest, case.images[0].sha256, case.label.sha256)


def test_names_that_no_label_has(root: Path) -> None:
    report = check(root, labels="a=1,ghost=9")
    assert [(problem.code, problem.severity) for problem in report.problems] == [("LABEL_ABSENT", "warning")]
    assert report.problems[0].found == "no case has ghost=9; the masks contain 1, 2, 3, 4"
    report = check(root, labels="a=1+9+7,b=2+3")
    assert [(problem.code, problem.severity) for problem in report.problems] == [("LABEL_VALUE_ABSENT", "warning")]
    assert report.problems[0].found == "no case has values 9, 7 of a=1+9+7; the masks contain 1, 2, 3, 4"
    report = check(root, labels="ghost=9")
    assert [problem.code for problem in report.errors] == ["LABELS_EMPTY"]
    assert (
        report.errors[0].found == "no case has a voxel of the requested labels, ghost=9; the masks contain 1, 2, 3, 4"
    )
    (root / "dataset.json").write_text('{"labels": {"background": 0, "a": 1, "b": 2}}')
    report = check(root)
    assert {problem.code for problem in report.errors} == {"LABEL_UNNAMED"}
    assert "unexpected label values 3, 4" in report.errors[0].found


def test_ignored_voxels_are_counted_apart(root: Path) -> None:
    """Four labels lie in the good mask; two of them are ignored here."""
    (root / "dataset.json").write_text('{"labels": {"background": 0, "a": 1, "b": 2, "c": 3, "ignore": 4}}')
    counts = {value: int((value == VOXELS).sum()) for value in range(1, 5)}
    for text, ignored in (("", (4,)), ("a=1+2+3", (4,)), ("a=1,ignore=3+4", (3, 4))):
        report = check(root, labels=text or None)
        assert report.problems == ()
        assert report.ignored == ignored
        facts = report.cases[0].label
        assert facts is not None
        assert facts.voxels == {value: count for value, count in counts.items() if value not in ignored}
        assert facts.ignored_voxels == sum(counts[value] for value in ignored)
        assert f"ignored: {facts.ignored_voxels}" in report.to_text()
        assert f"(ignored: {', '.join(map(str, ignored))})" in report.to_text()


def test_a_label_of_nothing_but_ignored_voxels_is_empty(root: Path) -> None:
    (root / "labels" / "case_1.nii").write_bytes(good(voxels=(VOXELS > 0) * np.int16(4)))
    report = check(root, labels="a=1+2+3,ignore=4")
    assert [(problem.code, problem.case) for problem in report.problems] == [("LABEL_EMPTY", "case_1")]


def test_channels_on_another_grid_are_errors(root: Path) -> None:
    for number in range(3):
        old = root / "images" / f"case_{number}.nii"
        shutil.copy(old, root / "images" / f"case_{number}_0000.nii")
        old.unlink()
        moved = put(put(image(10 + number), "sform_code", 0), "qoffset", -11.0 + 3.0 * (number == 1))
        (root / "images" / f"case_{number}_0001.nii").write_bytes(moved)
    report = check(root)
    assert [(problem.code, problem.case) for problem in report.errors] == [("CHANNEL_GRID_DIFFERS", "case_1")]
    assert "3 mm" in report.errors[0].found


def test_the_same_voxels_twice_are_an_error_between_groups(root: Path) -> None:
    """Another header and another compression do not hide them."""
    (root / "images" / "case_2.nii").write_bytes(put(image(0), "descrip", b"another text"))
    report = check(root)
    assert [(problem.code, problem.case) for problem in report.errors] == [("IMAGE_DUPLICATE", "case_2")]
    assert "images/case_0.nii" in report.errors[0].found
    first = read_volume(root / "images" / "case_0.nii")
    reverse = np.diag([1.0, 1, -1, 1])
    reverse[2, 3] = first.shape[2] - 1
    anew = Volume(first.array[..., ::-1].astype(np.float64), first.affine @ reverse)
    anew.save(root / "images" / "case_2.nii", overwrite=True)  # another type, upside down
    report = check(root)
    assert ("IMAGE_DUPLICATE", "case_2") in [(problem.code, problem.case) for problem in report.errors]
    (root / "groups.csv").write_text("id,group\ncase_0,P\ncase_1,Q\ncase_2,P\n")
    report = check(root, groups=root / "groups.csv")
    assert [problem.severity for problem in report.problems if problem.code == "IMAGE_DUPLICATE"] == ["warning"]
    assert not report.errors


def test_what_holds_for_many_files_is_said_once(root: Path) -> None:
    for number in range(3):
        (root / "images" / f"case_{number}.nii").write_bytes(put(image(number), "xyzt_units", 0))
    report = check(root)
    assert [problem.found for problem in report.problems] == [
        "unit of length not stated: millimetres assumed (3 files)"
    ]


def test_the_report_is_json(root: Path, tmp_path: Path) -> None:
    (root / "labels" / "case_1.nii").write_bytes(good(voxels=VOXELS[:, :3]))
    report = check(root)
    write_json(tmp_path / "report.json", report.to_json())
    value = json.loads((tmp_path / "report.json").read_text())
    assert value["errors"] == 1
    assert value["cases"][1]["label"]["displacement_voxels"] is None
    assert value["problems"][0]["code"] == "LABEL_SHAPE_DIFFERS"
    assert str(root) not in json.dumps(report.to_json()) + report.to_text()


CANARY = b"DOE^JANE 1974-03-02"


def test_patient_text_is_named_and_never_printed(root: Path) -> None:
    extension = struct.pack("<ii", 32, 6) + CANARY.ljust(24, b"\0")
    raw = good(extension=extension, voxels=np.arange(120, dtype=np.int16).reshape(VOXELS.shape))
    for name, width in (("descrip", 80), ("aux_file", 24), ("intent_name", 16)):
        raw = put(raw, name, CANARY[:width].ljust(width, b"\0"))
    raw = raw[:14] + CANARY[:18] + raw[32:]  # db_name
    (root / "images" / "case_1.nii").write_bytes(raw)
    report = check(root)
    problem = next(problem for problem in report.problems if problem.code == "HEADER_TEXT")
    assert problem.field == "descrip, aux_file, intent_name, db_name, extension 6 (comment)"
    for text in (report.to_text(), json.dumps(report.to_json()), repr(report)):
        assert "DOE" not in text
        assert "1974" not in text


@pytest.mark.parametrize("order", ["<", ">"])
def test_extensions_are_searched_in_either_byte_order(order: str, tmp_path: Path) -> None:
    extension = struct.pack(f"{order}ii", 16, 4) + b"harmless" + struct.pack(f"{order}ii", 32, 2) + bytes(24)
    (tmp_path / "a.nii").write_bytes(good(order=order, extension=extension))
    assert personal_text_fields(tmp_path / "a.nii") == ("extension 2 (DICOM)",)
    (tmp_path / "b.nii").write_bytes(b"nothing of the kind")
    assert personal_text_fields(tmp_path / "b.nii") == ()


def test_what_looks_personal() -> None:
    for text in (b"DOE^JANE", b"PatientName", b"20240131", b"31.01.1950", b"id: 77", b"MRN 5", b"1234567", b"dob=3"):
        assert looks_personal(text), text
    for text in (
        b"",
        b"FSL5.0",
        b"6.0.5:9e026117",
        b"TE=34;Time=140336.150;phase=1;mb=2",
        b"spm - 3D normalized",
        b"none",
    ):
        assert not looks_personal(text), text


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize("name", ["sts_mr_t1", "sts_petct"])
def test_real_datasets_pass(name: str) -> None:
    report = check(SHARED / name)
    assert report.errors == ()


def test_a_missing_half_of_a_pair_is_missing(root: Path) -> None:
    (root / "images" / "case_1.nii").unlink()
    header = put(put(GOOD, "magic", b"ni1\0"), "vox_offset", 0.0)[:348]
    (root / "images" / "case_1.hdr").write_bytes(header)
    assert codes(check(root)) == {"FILE_MISSING"}
    (root / "images" / "case_1.img").write_bytes(BODY)
    assert codes(check(root)) == set()


def test_an_image_in_place_of_a_mask_is_asked_about(root: Path) -> None:
    voxels = np.arange(VOXELS.size, dtype=np.int16).reshape(VOXELS.shape) % 200
    (root / "labels" / "case_1.nii").write_bytes(good(voxels=voxels))
    (found,) = [problem for problem in check(root).problems if problem.code == "LABEL_VALUES_MANY"]
    assert (found.severity, found.case, found.remedy) == (
        "warning",
        "case_1",
        "is it an image? if these are labels, name them with labels=",
    )
    assert not [problem for problem in check(root, labels="organ=any").problems if problem.code == found.code]


def test_of_many_cases_the_table_has_few_and_those_with_a_problem_first(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for number in range(23):
            voxels = VOXELS.astype(np.int16) % 3 if folder == "labels" else VOXELS.astype(np.int16) + 2000 + number
            (tmp_path / folder / f"case_{number:02}.nii").write_bytes(good(voxels=voxels))
    (tmp_path / "labels" / "case_22.nii").write_bytes(b"no mask")
    text = check(tmp_path).to_text()
    lines = text.splitlines()
    assert lines[1].startswith("case_22 ")
    assert lines[20].startswith("case_18 ")
    assert lines[21] == "and 3 more cases; --json prints all"
    assert "error " in text
    assert "e+0" not in text


def test_no_id_and_no_figure_is_cut_in_80_columns() -> None:
    """What all cases share stands once; where there is no room, labels have a table of their own."""

    def table(ids: list[str], highest: list[float], ignored: int, spacing: float = 1.5) -> list[str]:
        cases = []
        for name, top in zip(ids, highest, strict=True):
            edges = (1.5, 1.5 if name == ids[0] else spacing, 10.0)
            files = [ImageFacts("", (216, 256, 10), edges, "LPS", "", 0.0, top, "", "", ())]
            label = LabelFacts("", {1: 811, 2: 1575, 3: 1265}, {1: 1.0, 2: 2.0, 3: 3.0}, 0.0, "", (), ignored)
            cases.append(CaseFacts(name, name, None, tuple(files), label))
        return CheckReport("folders", ("image",), (), tuple(cases), ()).to_text().splitlines()

    ids = [f"patient{number:03}_frame01" for number in range(3)]
    lines = table(ids, [1000.0] * 3, 545186)
    assert [line.split()[:2] for line in lines[1:4]] == [[name, "216×256×10"] for name in ids]
    assert lines[1].endswith("  1: 811, 2: 1575, 3: 1265, ignored: 545186")
    assert {"spacing of all: 1.5×1.5×10 mm", "intensities of all: 0 to 1000", "axes: LPS 3"} <= set(lines)
    assert "less than half is labelled in 3 of 3 cases" in lines
    long = [f"{name}_after_contrast" for name in ids]
    lines = table(long, [1000.0, 900.0, 12345.0], 0, spacing=1.4375)
    assert lines[3].split() == [long[2], "216×256×10", "1.5×1.44×10", "0", "to", "12345"]
    assert lines[8].split("  ") == [long[2], "1: 811 (1), 2: 1575 (2), 3: 1265 (3)"]
    assert max(map(len, lines)) <= 80


def scribbled(value: int) -> bytes:
    """A mask with a stroke of one label, one of another, and `value` in all other voxels."""
    voxels = np.full(VOXELS.shape, value, dtype=np.int16)
    voxels[0, 0, :2] = 1, 2
    return good(voxels=voxels)


def test_a_value_that_fills_the_masks_is_asked_about_unless_it_is_ignored(root: Path) -> None:
    names = [path.name for path in (root / "labels").iterdir()]
    for name in names:
        (root / "labels" / name).write_bytes(scribbled(4))
    (found,) = [problem for problem in check(root).problems if problem.code == "IGNORE_UNSTATED"]
    count = VOXELS.size
    share = f"{100 * (count - 2) / count:.3g}"
    assert found.line == (
        f"warning IGNORE_UNSTATED dataset: value 4 is {share} % of the voxels in {len(names)} of {len(names)} masks; "
        "if nobody labelled these voxels, add ignore=4 to the labels (labels='organ=1,ignore=4')"
    )
    assert "IGNORE_UNSTATED" not in codes(check(root, labels="a=1,b=2,ignore=4"), "")
    # A single odd mask among whole ones is no data set of scribbles, and one value alone is a large organ.
    for name in names[1:]:
        (root / "labels" / name).write_bytes(good(voxels=np.full(VOXELS.shape, 4, dtype=np.int16)))
    assert "IGNORE_UNSTATED" not in codes(check(root), "")


def test_values_that_masks_of_3d_slicer_name_differently_are_said(root: Path) -> None:
    for number, names in enumerate((("liver", "tumour"), ("liver", "tumour"), ("tumour", "liver"))):
        (root / "labels" / f"case_{number}.nii").unlink()
        segments = [TableLabel(value, name, "#ff0000") for value, name in enumerate(names, start=1)]
        mask = VOXELS.astype(np.uint8) % 3
        write_seg_nrrd(root / "labels" / f"case_{number}.seg.nrrd", [mask], AFFINE, segments)
    (said,) = [problem for problem in check(root).warnings if problem.code == "LABELS_DIFFER"]
    assert said.found == "the value 1 is named 'liver' in 2 masks (case_0), 'tumour' in 1 mask (case_2)"
    report = check(root, labels="liver=1,tumour=2")
    assert {problem.case for problem in report.errors} == {"case_2"}
