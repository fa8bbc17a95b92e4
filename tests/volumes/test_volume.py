"""A volume goes to a file and back, and nothing of it changes; a mask takes its image's geometry and no more."""

import gzip
import hashlib
import os
import pickle
import re
import struct
import threading
from fractions import Fraction
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from test_geometry import ORIENTATIONS, affines, rotation

from medfcn.errors import GeometryError, GeometryMismatchError, OutputExistsError, VolumeError, WriteError
from medfcn.labels import read_mask
from medfcn.labels.whole_numbers import label_counts
from medfcn.volumes import ReadOptions, Volume, as_volume, read_volume
from medfcn.volumes.formats import nifti_writing
from medfcn.volumes.formats.nifti_header import parse_header
from medfcn.volumes.formats.stored import scaled
from medfcn.volumes.geometry import corner_displacement_voxels
from tests.volumes.hostile import ACCEPT, GOOD, OFFSETS, OFFSETS_2, VOXELS, corpus, good, packed, put, write

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
GEOMETRY = ("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow")
COUNTS = {"dim": 8, "pixdim": 8, "quatern": 3, "qoffset": 3, "srow": 12}
ASSUME = ReadOptions(assume_grid=True, nonfinite=0.0)


def geometry_of(raw: bytes) -> dict[str, bytes]:
    """The bytes of a header's geometry fields, found without medfcn."""
    table, order = (OFFSETS, "<") if raw[0] == 0x5C or raw[3] == 0x5C else (OFFSETS_2, "<")
    return {
        name: raw[table[name][0] :][: struct.calcsize(order + table[name][1]) * COUNTS.get(name, 1)]
        for name in GEOMETRY
    }


def content_of(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


ACCEPTED = [
    hostile for hostile in corpus() if hostile.expected == ACCEPT and hostile.opened.lower().endswith((".nii", ".gz"))
]


@pytest.mark.parametrize("hostile", ACCEPTED, ids=lambda hostile: hostile.name)
def test_mask_has_its_images_geometry_byte_for_byte(hostile: object, tmp_path: Path) -> None:
    path = write(hostile, tmp_path)  # type: ignore[arg-type]
    image = read_volume(path)
    mask = image.with_array(np.arange(image.array.size).reshape(image.shape) % 3)
    written = mask.save(tmp_path / "mask.nii.gz")
    assert geometry_of(content_of(written)) == geometry_of(content_of(path))
    again = read_volume(written)
    np.testing.assert_array_equal(again.array, mask.array)
    np.testing.assert_array_equal(again.affine, image.affine)
    assert again.array.dtype == np.uint8


@pytest.mark.skipif(not (SHARED / "odd_nifti").is_dir(), reason="the shared odd NIfTI files are not here")
def test_mask_of_an_odd_file_has_its_geometry_byte_for_byte(tmp_path: Path) -> None:
    done = 0
    for path in sorted((SHARED / "odd_nifti").iterdir()):
        try:
            image = read_volume(path, options=ASSUME)
        except (VolumeError, FileNotFoundError):
            continue
        header = path.with_name(path.name.replace(".img", ".hdr"))
        written = image.with_array(image.array > image.array.mean()).save(tmp_path / f"{done}.nii.gz")
        assert geometry_of(content_of(written)) == geometry_of(content_of(header)), path.name
        loaded = nibabel.load(written)
        np.testing.assert_allclose(loaded.affine, nibabel.load(header).affine, rtol=1e-6)
        done += 1
    assert done >= 18


def test_trailing_dimensions_of_one_are_restored(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(put(GOOD, "dim", 6, 6, 5, 4, 1, 1, 1, 1))
    image = read_volume(tmp_path / "a.nii")
    assert image.shape == (6, 5, 4)
    written = image.with_array(image.array > 1).save(tmp_path / "m.nii.gz")
    assert nibabel.load(written).shape == (6, 5, 4, 1, 1, 1)


def test_mask_keeps_a_big_endian_header(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(good(order=">"))
    written = read_volume(tmp_path / "a.nii").with_array(VOXELS.astype(np.uint16) * 300).save(tmp_path / "m.nii")
    assert written.read_bytes()[:4] == b"\0\0\x01\x5c"
    np.testing.assert_array_equal(np.asarray(nibabel.load(written).dataobj), VOXELS * 300)


CANARY = "DOE^JANE 1974-03-02 MRN1234567"


@pytest.mark.parametrize("version", [1, 2])
def test_no_text_of_a_header_reaches_a_mask(version: int, tmp_path: Path) -> None:
    """Canaries in every text field, in an extension, in the gzip header and in the folders above."""
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    extension = struct.pack("<ii", 64, 6) + CANARY.encode().ljust(56, b"\0")
    raw = bytearray(good(version=version, extension=extension))
    fields = {1: ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16)), 2: ((240, 80), (320, 24), (508, 16))}[version]
    for start, length in fields:
        raw[start : start + length] = CANARY.encode()[:length].ljust(length, b"\0")
    image_path = folder / "case.nii.gz"
    with image_path.open("wb") as file, gzip.GzipFile(f"{CANARY}.nii", "wb", fileobj=file, mtime=1e9) as stream:
        stream.write(bytes(raw))
    image = read_volume(image_path)
    for name, volume in (("mask.nii.gz", image.with_array(image.array > 1)), ("copy.nii.gz", image)):
        written = volume.save(tmp_path / name)
        for text in (written.read_bytes(), content_of(written)):
            for canary in (b"DOE", b"JANE", b"1974", b"1234567"):
                assert canary not in text
    assert "DOE" not in repr(image) + str(image.notes) + image.name
    assert not image.to_nibabel().header.extensions
    assert CANARY[:8].encode() not in image.to_nibabel().header.binaryblock


def test_masks_are_equal_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(GOOD)
    mask = read_volume(tmp_path / "a.nii").with_array(VOXELS > 1)
    first = mask.save(tmp_path / "first.nii.gz").read_bytes()
    os.utime(tmp_path / "a.nii", (1, 1))
    assert mask.save(tmp_path / "a_longer_name.nii.gz").read_bytes() == first
    assert mask.with_array(np.ascontiguousarray(mask.array)).save(tmp_path / "c.nii.gz").read_bytes() == first
    assert mask.with_array(mask.array.astype(np.int64)).save(tmp_path / "d.nii.gz").read_bytes() == first
    assert first[4:8] == bytes(4)  # no time
    assert not first[3] & 8  # no name


@pytest.mark.parametrize(
    ("least", "most", "name"),
    [
        *[(0, 0, "uint8"), (0, 1, "uint8"), (0, 255, "uint8"), (0, 256, "uint16"), (0, 65535, "uint16")],
        *[(0, 65536, "uint32"), (0, 2**32, "uint64"), (-1, 0, "int8"), (-128, 127, "int8"), (-129, 0, "int16")],
        *[(-1, 128, "int16"), (-1, 32768, "int32"), (-(2**31) - 1, 0, "int64")],
    ],
)
def test_integers_take_the_smallest_type(least: int, most: int, name: str, tmp_path: Path) -> None:
    array = np.array([[[least, most]]], dtype=np.int64)
    written = Volume(array, np.eye(4)).save(tmp_path / "a.nii")
    assert nibabel.load(written).get_data_dtype() == np.dtype(name)
    np.testing.assert_array_equal(read_volume(written).array, array)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    affines(),
    arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, np.bool_]),
        st.tuples(*[st.integers(1, 6)] * 3),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    st.sampled_from([".nii", ".nii.gz"]),
)
def test_any_volume_comes_back_as_it_was(
    tmp_path: Path, affine: NDArray[np.float64], array: NDArray[np.generic], extension: str
) -> None:
    volume = Volume(array, affine, name="a")
    path = volume.save(tmp_path / f"a{extension}", overwrite=True)
    again = read_volume(path)
    np.testing.assert_array_equal(again.array, array)
    # The header holds float32.
    np.testing.assert_allclose(again.affine, affine, rtol=2e-7, atol=1e-6)
    header = nibabel.load(path).header
    assert int(header["sform_code"]) == 2
    if int(header["qform_code"]):
        assert corner_displacement_voxels(affine, header.get_qform(), array.shape) < 0.06
    once_more = again.save(tmp_path / f"b{extension}", overwrite=True)
    assert content_of(once_more) == content_of(path)


@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_every_orientation_is_written_as_both_transforms(turn: float, tmp_path: Path) -> None:
    for matrix in ORIENTATIONS:
        affine = np.eye(4)
        affine[:3, :3] = rotation(turn, -turn, turn / 2) @ matrix * [0.9, 1.4, 3.0]
        affine[:3, 3] = 10.0, -20.0, 30.0
        path = Volume(np.zeros((9, 8, 7)), affine).save(tmp_path / "a.nii", overwrite=True)
        header = nibabel.load(path).header
        assert (int(header["qform_code"]), int(header["sform_code"])) == (2, 2)
        np.testing.assert_allclose(header.get_qform(), affine, atol=1e-4)
        np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)


def test_a_sheared_grid_is_written_without_a_qform(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.3
    path = Volume(np.ones((2, 3, 4)), affine).save(tmp_path / "a.nii.gz")
    assert int(nibabel.load(path).header["qform_code"]) == 0
    np.testing.assert_allclose(read_volume(path).affine, affine, rtol=1e-7)


def test_a_long_axis_is_written_as_nifti_2(tmp_path: Path) -> None:
    array = np.zeros((40_000, 1, 1), dtype=np.uint8)
    array[39_999] = 1
    path = Volume(array, np.eye(4)).save(tmp_path / "a.nii")
    assert isinstance(nibabel.load(path), nibabel.Nifti2Image)
    np.testing.assert_array_equal(read_volume(path).array, array)


def test_what_stands_for_a_volume_becomes_the_same_volume(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(GOOD)
    image = nibabel.load(tmp_path / "a.nii")
    from_path = as_volume(tmp_path / "a.nii")
    for other in (
        as_volume(str(tmp_path / "a.nii")),
        as_volume(image),
        as_volume(from_path),
        as_volume(from_path.to_nibabel()),
    ):
        np.testing.assert_array_equal(other.array, from_path.array)
        np.testing.assert_array_equal(other.affine, from_path.affine)
        assert other.header is not None
        assert from_path.header is not None
        assert other.header == from_path.header
    from_array = as_volume((VOXELS, from_path.affine))
    np.testing.assert_array_equal(from_array.array, from_path.array)
    assert from_path.name == "a"
    assert from_path.sha256 == hashlib.sha256(GOOD).hexdigest()
    for nonsense in (3, None, [1], b"a.nii", object()):
        with pytest.raises(VolumeError):
            as_volume(nonsense)


def test_a_nibabel_image_made_in_memory_is_accepted() -> None:
    image = nibabel.Nifti1Image(VOXELS.astype(np.float32), np.diag([-2.0, 2.0, 3.0, 1.0]))
    volume = as_volume(image)
    assert volume.orientation == "LAS"
    np.testing.assert_array_equal(volume.array, VOXELS)
    image.set_sform(np.diag([5.0, 5.0, 5.0, 1.0]), 2)
    moved = as_volume(image.slicer[1:, :, :])
    assert moved.shape == (5, 5, 4)
    mgh = nibabel.MGHImage(VOXELS.astype(np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
    assert as_volume(mgh).spacing_mm == (1.0, 2.0, 3.0)


def test_a_nibabel_image_with_a_bad_header_is_refused() -> None:
    image = nibabel.Nifti1Image(VOXELS, np.eye(4))
    image.set_qform(np.diag([1.0, 1.0, 1.0, 1.0]), 1)
    moved = np.eye(4)
    moved[0, 3] = 9.0
    image.header.set_sform(moved, 1)
    image.header.set_qform(np.eye(4), 1)
    bad = nibabel.Nifti1Image(VOXELS, None, image.header)
    with pytest.raises(GeometryError, match="qform and sform disagree by 9 mm"):
        as_volume(bad)
    with pytest.raises(VolumeError, match="NaN or infinite"):
        as_volume(nibabel.Nifti1Image(np.full((2, 2, 2), np.nan), np.eye(4)))


def test_a_volume_cannot_be_changed() -> None:
    array = np.zeros((2, 2, 2))
    volume = Volume(array, np.eye(4))
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 2.0
    with pytest.raises(AttributeError):
        volume.name = "b"  # type: ignore[misc]
    array[0, 0, 0] = 1.0  # the caller's own array stays its own


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2)), np.zeros((2, 2, 2, 2)), np.zeros((0, 2, 2)), np.ones((2, 2, 2)) * 1j]
)
def test_what_is_no_volume_is_refused(array: NDArray[np.generic]) -> None:
    with pytest.raises(VolumeError):
        Volume(array, np.eye(4))


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(GeometryMismatchError, match=r"case_1: .*\(2, 2, 3\).*\(2, 2, 2\)"):
        Volume(np.zeros((2, 2, 2)), np.eye(4), name="case_1").with_array(np.zeros((2, 2, 3)))


def test_a_cropped_volume_does_not_take_the_old_header(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(GOOD)
    volume = read_volume(tmp_path / "a.nii")
    shifted = volume.affine.copy()
    shifted[:3, 3] += 40.0
    for other in (
        Volume(volume.array, shifted, header=volume.header),
        Volume(volume.array[1:], volume.affine, header=volume.header),
    ):
        again = read_volume(other.save(tmp_path / "b.nii", overwrite=True))
        assert again.shape == other.shape
        np.testing.assert_allclose(again.affine, other.affine, rtol=1e-6)


def test_a_cropped_big_endian_volume_is_written_in_one_byte_order(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(good(order=">"))
    volume = read_volume(tmp_path / "a.nii")
    other = Volume(volume.array[1:].astype(np.uint16) * 300, volume.affine, header=volume.header)
    written = other.save(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(read_volume(written).array, other.array)
    np.testing.assert_array_equal(np.asarray(nibabel.load(written).dataobj), other.array)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "i4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_nibabel_image_holds_the_same_voxels(dtype: str, order: str, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(good(order=order))
    volume = read_volume(tmp_path / "a.nii").with_array(VOXELS.astype(dtype))
    image = volume.to_nibabel()
    np.testing.assert_array_equal(np.asarray(image.dataobj), VOXELS.astype(dtype))
    np.testing.assert_array_equal(image.affine, volume.affine)
    nibabel.save(image, tmp_path / "b.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii").array, VOXELS.astype(dtype))


def test_an_output_in_the_way_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"precious")
    volume = Volume(np.zeros((2, 2, 2)), np.eye(4))
    with pytest.raises(OutputExistsError):
        volume.save(path)
    assert path.read_bytes() == b"precious"
    volume.save(path, overwrite=True)
    assert read_volume(path).shape == (2, 2, 2)
    for name in ("a.nrrd", "a.img", "a.txt", "a"):
        with pytest.raises(VolumeError, match=r"ends in \.nii\.gz"):
            volume.save(tmp_path / name)


def test_a_disk_that_gives_other_bytes_back_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is read back before it takes its name; an older file stays."""
    path = tmp_path / "a.nii.gz"
    Volume(np.zeros((2, 2, 2)), np.eye(4)).save(path)
    before = path.read_bytes()
    volume = Volume(np.ones((20, 20, 20), dtype=np.uint8), np.eye(4))
    original = nifti_writing._verify

    def damage(part: Path, *rest: object) -> None:
        raw = bytearray(part.read_bytes())
        raw[len(raw) // 2] ^= 4
        part.write_bytes(raw)
        original(part, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(nifti_writing, "_verify", damage)
    with pytest.raises(OSError, match=r"a\.nii\.gz"):
        volume.save(path, overwrite=True)
    with pytest.raises(OSError, match=r"b\.nii"):
        volume.save(tmp_path / "b.nii")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 64), dtype=np.uint8)
    errors: list[BaseException] = []

    def save() -> None:
        try:
            Volume(noise, np.eye(4)).save(tmp_path / "a.nii.gz")
        except OSError as error:
            errors.append(error)

    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))
        save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(errors) == 1
    assert re.search(r"a\.nii\.gz: .* \d+ bytes were to be written, and \d+ bytes are free there", str(errors[0]))
    assert ".part" not in str(errors[0])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"absent/a\.nii\.gz"):
        Volume(np.zeros((2, 2, 2)), np.eye(4)).save(tmp_path / "absent" / "a.nii.gz")


def test_volumes_are_read_by_many_threads_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(packed(GOOD))
    found: list[bool] = []

    def read() -> None:
        found.append(all(np.array_equal(read_mask(tmp_path / "a.nii.gz").array, VOXELS) for _ in range(50)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(-0.003, 0.003), st.floats(-0.003, 0.003), st.sampled_from([(-1, -1, 1), (1, -1, -1), (-1, 1, -1)]))
def test_a_slightly_tilted_scan_is_not_refused_for_float32(
    tmp_path: Path, first: float, second: float, signs: tuple[int, int, int]
) -> None:
    """Near half a turn float32 quaternions are coarse: honest files must pass, a real shift must not."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(first, second, 0.0) @ np.diag(signs) * [0.5, 0.5, 1.0]
    header = nibabel.Nifti1Header()
    header.set_data_shape((512, 512, 2))
    header.set_data_dtype(np.uint8)
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    parsed = parse_header(header.binaryblock, options=ReadOptions())
    np.testing.assert_allclose(parsed.affine, affine, atol=1e-6)
    header["qoffset_x"] += 0.5
    with pytest.raises(GeometryError, match="disagree"):
        parse_header(header.binaryblock, options=ReadOptions())


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]),
    st.sampled_from([1.0, 1.0, 1.0, 2.0, -1.0, 0.1]),
    st.sampled_from([0.0, -1024.0, 1.0, -128.0, 32768.0, -65536.0, 0.5, -1e6]),
    st.data(),
)
def test_scaling_is_that_of_the_standard(name: str, slope: float, inter: float, data: st.DataObject) -> None:
    """slope * stored + inter, to the precision of the type it is given in; exact where it stays whole."""
    dtype = np.dtype(name)
    numbers = st.integers(-(2**31), 2**31).map(lambda number: int(dtype.type(number)))
    elements = numbers if dtype.kind == "f" else None
    raw = data.draw(arrays(dtype, (2, 3, 2), elements=elements))
    exact = [Fraction(int(number)) * Fraction(slope) + Fraction(inter) for number in raw.ravel()]
    found = scaled(raw.copy(order="F"), slope, inter)
    if found.dtype.kind in "iu":
        assert [int(number) for number in found.ravel()] == exact
        assert found.dtype.itemsize == dtype.itemsize
        return
    assert slope != 1.0 or inter != 0.0 or dtype.kind == "f"
    expected = np.array([float(number) for number in exact]).reshape(raw.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if found.dtype == np.float32 else 1e-12, atol=1e-3)


def test_ct_stored_from_zero_stays_int16(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(put(good(code=512, voxels=VOXELS.astype("u2")), "scl_inter", -1024.0))
    volume = read_volume(tmp_path / "a.nii")
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, VOXELS - 1024)


def test_numpy_gets_the_voxels() -> None:
    volume = Volume(VOXELS, np.eye(4))
    assert np.asarray(volume) is volume.array
    assert np.asarray(volume, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.mean(volume), VOXELS.mean())
    mine = np.array(volume)
    mine[0, 0, 0] = 9  # a copy, so the volume stays as it was
    np.testing.assert_array_equal(volume.array, VOXELS)
    with pytest.raises((ValueError, TypeError), match="copy"):  # numpy 1 has no such argument
        np.asarray(volume, dtype=np.float64, copy=False)


def test_a_volume_survives_pickling(tmp_path: Path) -> None:
    """Worker processes are given volumes."""
    (tmp_path / "a.nii").write_bytes(GOOD)
    volume = read_volume(tmp_path / "a.nii")
    again = pickle.loads(pickle.dumps(volume))
    np.testing.assert_array_equal(again.array, volume.array)
    assert (again.header, again.name, again.sha256) == (volume.header, volume.name, volume.sha256)
    assert not again.array.flags.writeable


def test_a_qform_too_coarse_to_agree_is_not_written(tmp_path: Path) -> None:
    """Near half a turn a float32 quaternion may lie half a voxel off at the edge of a scan."""
    coarse = 0
    for tilt in np.linspace(1e-4, 2e-3, 60):
        affine = np.eye(4)
        affine[:3, :3] = rotation(tilt, -tilt / 3, 0.0) @ np.diag([-0.5, -0.5, 1.0])
        volume = Volume(np.zeros((512, 512, 1), dtype=np.uint8), affine)
        header = nibabel.load(volume.save(tmp_path / "a.nii", overwrite=True)).header
        coarse += int(header["qform_code"]) == 0
        if int(header["qform_code"]):
            assert corner_displacement_voxels(affine, header.get_qform(), volume.shape) < 0.06
    assert 0 < coarse < 60


def test_a_large_volume_of_one_value_takes_one_voxel_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "zeros.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full((256, 256, 200), 7, dtype=np.int16), np.eye(4)), path)
    volume = read_volume(path)
    assert volume.array.strides == (0, 0, 0)
    assert (volume.shape, volume.array.dtype, int(volume.array.max())) == ((256, 256, 200), np.int16, 7)
    mask = read_mask(path)
    assert mask.array.strides == (0, 0, 0)
    assert label_counts(mask.array) == {7: 256 * 256 * 200}
    again = volume.save(tmp_path / "again.nii.gz")
    assert np.array_equal(np.asanyarray(nibabel.load(again).dataobj), np.full((256, 256, 200), 7))


@pytest.mark.parametrize("place", [(0, 0, 0), (17, 200, 3), (255, 255, 199)])
def test_one_other_voxel_makes_it_a_volume_like_any(place: tuple[int, int, int], tmp_path: Path) -> None:
    array = np.full((256, 256, 200), 7, dtype=np.int16)
    array[place] = 8
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "speck.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "speck.nii.gz").array, array)
