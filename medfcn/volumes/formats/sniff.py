"""The kind of a file, recognised from its first bytes."""

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip data; unpack it first"),
    (b"version https://git-lfs", "a git-LFS pointer: its content was not fetched; run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer: its content was not fetched; run `git annex get`"),
    (b"../.git/annex/", "a git-annex pointer: its content was not fetched; run `git annex get`"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"BZh", "bzip2 data; unpack it and save it as .nii.gz"),
    (b"\xfd7zXZ\x00", "xz data; unpack it and save it as .nii.gz"),
    (b"\x28\xb5\x2f\xfd", "zstandard data; unpack it and save it as .nii.gz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 or MINC-2 file; convert it to .nii.gz"),
    (b"CDF\x01", "a MINC-1 or netCDF file; convert it to .nii.gz"),
    (b"\x93NUMPY", "a numpy array without an affine; save it as .nii.gz"),
    (b"NRRD000", "an NRRD file; name it .nrrd"),
    (b"ObjectType", "a MetaImage header; name it .mha or .mhd"),
    (b"\x00\x00\x00\x01\x00\x00", "an MGH file; convert it to .nii.gz"),
    (b"\x89PNG", "a PNG picture; give a volume"),
    (b"\xff\xd8\xff", "a JPEG picture; give a volume"),
    (b"GIF8", "a GIF picture; give a volume"),
    (b"II*\x00", "a TIFF picture; give a volume"),
    (b"MM\x00*", "a TIFF picture; give a volume"),
    (b"%PDF", "a PDF document; give a volume"),
    (b"Rar!", "a rar archive; unpack it first"),
    (b"\x80\x04", "a Python pickle; give a volume"),
    (b"\x80\x05", "a Python pickle; give a volume"),
)


def describe_bytes(head: bytes) -> str:
    """Say in a few words what a file with these first bytes is.

    Args:
        head: The first bytes of a file; 512 are enough.

    Example:
        >>> describe_bytes(b"<!DOCTYPE html><html>")
        'an HTML page (a failed download?); download the file again'
        >>> describe_bytes(b"")
        'an empty file; copy or download it again'
    """
    if not head:
        return "an empty file; copy or download it again"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[128:132] == b"DICM":
        return "a DICOM file; convert the series to .nii.gz"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if len(head) >= 8 and not any(head):
        return "nothing but zero bytes (an interrupted copy?); copy it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")) or b"<html" in start:
        return "an HTML page (a failed download?); download the file again"
    if start.startswith((b"<?xml", b"<")):
        return "an XML file (an error message of a download?); download the file again"
    if start.startswith((b"{", b"[")) and _is_text(head):
        return "a JSON or text file; give a volume"
    if _is_text(head):
        return "a text file; give a volume"
    return "of no known kind (its first number is neither 348 nor 540); re-export the file"


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\r\n\x0c" for byte in head)
