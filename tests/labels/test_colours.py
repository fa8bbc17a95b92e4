"""Names and colours of labels in every table, as the readers of each table see them."""

import gzip
import re
import struct
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

import medfcn
from medfcn.errors import SettingsError
from medfcn.exporting.dicom_source import name_in_object
from medfcn.files import csv_field
from medfcn.labels import LabelMap, read_mask
from medfcn.labels.colours import PALETTE, colours_of, label_table, palette_colour
from medfcn.labels.segments import write_segments
from medfcn.labels.tables import itk_snap_table, slicer_table, write_label_tables
from medfcn.volumes import Volume, read_volume
from medfcn.volumes.formats.nifti_labels import TableLabel, label_extension
from medfcn.volumes.formats.seg_nrrd import write_seg_nrrd
from medfcn.volumes.privacy import personal_text_fields

LABELS = LabelMap.parse("left kidney=1,tumour=2,cyst & ]]> <x>=70")
OVERLAPPING = LabelMap.parse("whole=1+2,core=2")
GRID = np.array([[0, -1.5, 0, 12.0], [-1.2, 0, 0, 5.0], [0, 0, 3.0, -7.0], [0, 0, 0, 1]])


def a_mask(labels: LabelMap) -> Volume:
    random = np.random.default_rng(1)
    indices = random.integers(0, len(labels.overlaps) + 1, (7, 6, 5))
    return Volume(labels.decode(indices), GRID)


def itk_snap_labels(text: str) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """A parser of the columns that ITK-SNAP documents in its own header."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+\"(.*)\"\s*", line)
        assert match, line
        red, green, blue = (int(match[place]) for place in (2, 3, 4))
        found[int(match[1])] = (match[8], (red, green, blue))
    return found


def test_the_table_of_itk_snap_has_the_documented_columns() -> None:
    found = itk_snap_labels(itk_snap_table(label_table(LABELS)))
    assert found.pop(0) == ("Clear Label", (0, 0, 0))
    assert found == {label.value: (label.name, label.rgb) for label in label_table(LABELS)}


def test_the_table_of_slicer_has_a_row_for_each_value() -> None:
    lines = [line.split() for line in slicer_table(label_table(LABELS)).splitlines() if not line.startswith("#")]
    assert [len(line) for line in lines] == [6] * 4
    assert [(line[0], line[1]) for line in lines[:3]] == [("0", "background"), ("1", "left_kidney"), ("2", "tumour")]
    assert [tuple(map(int, line[2:5])) for line in lines[1:]] == [label.rgb for label in label_table(LABELS)]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("labels", [LABELS, OVERLAPPING], ids=["apart", "overlapping"])
def test_a_mask_s_header_has_a_label_table_that_readers_take(labels: LabelMap, ending: str, tmp_path: Path) -> None:
    mask, table = a_mask(labels), label_table(labels)
    plain, path = mask.save(tmp_path / f"plain{ending}"), mask.save(tmp_path / f"mask{ending}", labels=table)
    image = nibabel.load(path)  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(image.dataobj), mask.array)
    assert image.header["intent_code"] == 1002
    (extension,) = image.header.extensions
    assert extension.get_code() == 0
    root = ElementTree.fromstring(extension.content.rstrip(b"\0"))
    rows = root.findall("./VolumeInformation/LabelTable/Label")
    assert [(int(row.attrib["Key"]), row.text) for row in rows] == [(label.value, label.name) for label in table]
    colours = [tuple(round(255 * float(row.attrib[part])) for part in ("Red", "Green", "Blue")) for row in rows]
    assert colours == [label.rgb for label in table]
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T, mask.array)
    assert np.array_equal(read_mask(path, labels=labels).array, mask.array)
    # But for the table, the intent and the place of the voxels, the headers are the same, byte for byte.
    old, new = (
        gzip.decompress(one.read_bytes()) if ending == ".nii.gz" else one.read_bytes() for one in (plain, path)
    )
    assert struct.unpack_from("<h", old, 68) == (0,)
    differing = {place for place in range(348) if old[place] != new[place]}
    assert differing <= {68, 69, *range(108, 112)}
    assert len(new) % 16 == len(old) % 16
    assert np.allclose(read_volume(path).affine, GRID)


def test_a_mask_that_is_stored_big_endian_has_its_table_so(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), dtype=np.int16), np.diag([1, 1, 2, 1]))  # type: ignore[attr-defined]
    swapped = nibabel.Nifti1Image(image.dataobj, image.affine, image.header.as_byteswapped(">"))  # type: ignore[attr-defined]
    nibabel.save(swapped, tmp_path / "image.nii")  # type: ignore[attr-defined]
    source = read_volume(tmp_path / "image.nii")
    mask = source.with_array(np.ones(source.shape, dtype=np.uint8))
    path = mask.save(tmp_path / "mask.nii", labels=label_table(LABELS))
    again = nibabel.load(path)  # type: ignore[attr-defined]
    assert again.header.endianness == ">"
    assert len(again.header.extensions) == 1
    assert np.asarray(again.dataobj).all()


@pytest.mark.parametrize("labels", [LABELS, OVERLAPPING], ids=["apart", "overlapping"])
def test_a_segmentation_of_slicer_has_names_colours_and_place(labels: LabelMap, tmp_path: Path) -> None:
    slicerio = pytest.importorskip("slicerio", reason="slicerio is not installed (the extra `test` has it)")
    mask, path = a_mask(labels), tmp_path / "a.seg.nrrd"
    write_segments(path, mask, labels, {"core": "#102030"} if labels is OVERLAPPING else None)
    found = slicerio.read_segmentation(str(path))
    assert slicerio.segment_names(found) == [*labels.names]
    assert np.allclose(found["ijkToLPS"], np.diag([-1, -1, 1, 1]) @ GRID)
    indices = labels.written_codec.encode(mask.array)
    for index, name in enumerate(labels.names, start=1):
        inside = slicerio.segment_mask(found, slicerio.segment_from_name(found, name))
        assert np.array_equal(inside, labels.mask_of(indices, index))
    colours = [tuple(round(255 * part) for part in segment["color"]) for segment in found["segments"]]
    if labels is OVERLAPPING:
        assert colours == [TableLabel(1, "", "#E69F00").rgb, (16, 32, 48)]
    else:
        assert colours == [label.rgb for label in label_table(labels)]
    before = path.read_bytes()
    write_segments(path, mask, labels, {"core": "#102030"} if labels is OVERLAPPING else None)
    assert path.read_bytes() == before
    if labels is LABELS:
        assert np.array_equal(read_mask(path, labels=labels).array, mask.array)


def seen(colour: str, kind: str) -> np.ndarray:
    """A colour as somebody sees it who lacks a kind of cone (Viénot, Brettel, Mollon 1999; Machado et al. 2009)."""
    matrices = {
        "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    }
    linear = (np.array(TableLabel(1, "", colour).rgb) / 255) ** 2.2
    return np.asarray(np.clip(np.array(matrices[kind]) @ linear, 0, 1) ** (1 / 2.2) * 255)


@pytest.mark.parametrize("kind", ["deuteranopia", "protanopia", "tritanopia"])
def test_the_colours_differ_for_every_kind_of_colour_vision(kind: str) -> None:
    nearest = min(
        float(np.linalg.norm(seen(one, kind) - seen(other, kind))) for one, other in combinations(PALETTE, 2)
    )
    assert nearest > 25
    assert np.linalg.norm(seen("#FF0000", "deuteranopia") - seen("#A05000", "deuteranopia")) < 80  # the ruler works


def test_a_label_table_does_not_look_like_a_patient_s_text(tmp_path: Path) -> None:
    labels = LabelMap.parse(",".join(f"structure {value}={value}" for value in range(1, 105)))
    table = label_table(labels, {"structure 3": "#010203"})
    mask = Volume(np.arange(105, dtype=np.uint8).reshape(3, 5, 7), GRID)
    assert personal_text_fields(mask.save(tmp_path / "a.nii.gz", labels=table)) == ()


def test_forty_labels_have_forty_colours() -> None:
    assert len({palette_colour(place) for place in range(40)}) == 40


def test_colours_can_be_chosen() -> None:
    chosen = colours_of("tumour=#abcdef", LABELS)
    assert [label.colour for label in label_table(LABELS, chosen)] == ["#E69F00", "#ABCDEF", "#009E73"]
    by_part = label_table(OVERLAPPING, {"core": "#ABCDEF"})
    assert [label.colour for label in by_part] == ["#E69F00", "#ABCDEF"]
    for text, said in (("tumour=red", "is not NAME=#RRGGBB"), ("tumor=#000000", "did you mean 'tumour'")):
        with pytest.raises(SettingsError, match=said):
            colours_of(text, LABELS)


def test_a_table_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("mine")
    for _ in range(2):
        write_label_tables(label_table(LABELS), itk_snap=tmp_path / "labels.txt", slicer=tmp_path / "labels.ctbl")
    assert (tmp_path / "labels.txt").read_text() == "mine"
    write_label_tables(label_table(OVERLAPPING), itk_snap=tmp_path / "labels.txt", slicer=tmp_path / "labels.ctbl")
    assert "whole" in (tmp_path / "labels.ctbl").read_text()


def test_predict_puts_both_tables_beside_its_masks(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    medfcn.predict(ball_run, balls / "images", tmp_path / "masks", label_table=False, colours="ball=#112233")
    found = itk_snap_labels((tmp_path / "masks" / "labels.txt").read_text())
    assert found == {0: ("Clear Label", (0, 0, 0)), 1: ("ball", (0x11, 0x22, 0x33))}
    assert "1 ball 17 34 51 255" in (tmp_path / "masks" / "labels.ctbl").read_text().splitlines()
    one = balls / "images" / "ball_7.nii.gz"
    medfcn.predict(ball_run, one, tmp_path / "one" / "mask.nii.gz")
    assert not list((tmp_path / "one").glob("labels.*"))


def test_a_name_with_a_line_break_is_the_same_in_every_table(tmp_path: Path) -> None:
    label = TableLabel(1, "left\r\n\tkidney", "#E69F00")
    assert itk_snap_labels(itk_snap_table([label]))[1][0] == csv_field(label.name) == "left kidney"
    assert "1 left_kidney 230 159 0 255" in slicer_table([label]).splitlines()
    assert b"<![CDATA[left kidney]]>" in label_extension([label], "<")
    affine = np.eye(4)
    write_seg_nrrd(tmp_path / "mask.seg.nrrd", [np.ones((2, 2, 2), np.uint8)], affine, [label])
    assert b"Segment0_Name:=left kidney\n" in (tmp_path / "mask.seg.nrrd").read_bytes()
    assert name_in_object(label.name) == "left kidney"
