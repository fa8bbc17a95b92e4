"""Folders that are not what a command takes: what they hold in a few words, and what to do about it."""

import re
from collections import Counter
from pathlib import Path
from typing import Literal

from medfcn.datasets.folder_names import folder_pair
from medfcn.datasets.listing import files_in, is_folder, list_volumes
from medfcn.errors import MedfcnError
from medfcn.runs.folder import RunFolder
from medfcn.text import counted, listed, shown
from medfcn.volumes.names import extension_of, is_hidden

Wanted = Literal["data set", "volumes", "masks"]
"""The thing that a command takes."""

_MASK = re.compile(r"[_\-. ](seg|segm|segmentation|mask|label|labels|gt|roi|manual|annotation)$", re.I)
"""Ends the name of a mask that lies beside its image."""
_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")


def misplaced(path: Path, wanted: Wanted) -> str:
    """Say what is there instead, and what to do; empty where nothing is recognised.

    Args:
        path: A folder, or a file, that holds nothing of what is wanted.
        wanted: What the command takes.
    """
    try:
        if not is_folder(path):
            return _archive([path])
        files = files_in(path)
        text = _run(path, wanted) or (_volumes(path) if wanted == "data set" else "")
        return text or _below(files, wanted) or _pictures(files) or _archive(files)
    except MedfcnError:
        return ""


def side_by_side(path: Path) -> str:
    """Say of a folder that images and their masks are in it; empty where no two names are of one case."""
    files = {name: file.name for name, file in sorted(list_volumes(path).volumes.items())}
    for mask in files:
        found = _MASK.search(mask)
        if found is None:
            continue
        case = mask[: found.start()]
        image = next((each for each in files if _is_image_of(each, case)), None)
        if case and image is not None:
            image_file, mask_file = files[image], files[mask]
            return (
                f"images and masks are in one folder ({image_file} beside {mask_file}); put them into images/ and "
                f"labels/, each under its case's name ({case}{extension_of(image_file)}), or list them in a CSV: a "
                f"line id,image,label, then {case},{image_file},{mask_file} and so on"
            )
    return ""


def _is_image_of(name: str, case: str) -> bool:
    return _MASK.search(name) is None and re.fullmatch(re.escape(case) + r"([_\-. ]\w+)?", name) is not None


def _run(path: Path, wanted: Wanted) -> str:
    if not RunFolder(path).is_any:
        return ""
    remedy = {
        "data set": "no data set; give the folder or table of the cases (`medfcn describe RUN` tells of a run)",
        "volumes": "no folder of volumes; give RUN first, then volumes: `medfcn predict RUN VOLUMES -o MASKS`",
        "masks": f"no folder of masks; its {RunFolder.validation}/ holds the validation masks and their scores",
    }
    return f"a run folder of `medfcn train`, {remedy[wanted]}"


def _volumes(path: Path) -> str:
    """Say of a folder of volumes what it lacks to be a data set."""
    names = list_volumes(path).names
    if not names:
        return ""
    return side_by_side(path) or (
        f"{counted(len(names), 'volume')} and no folder of masks; to train, put images into images/ and masks of the "
        "same names into labels/; `medfcn predict RUN VOLUMES -o MASKS` puts masks on volumes"
    )


def _below(files: list[Path], wanted: Wanted) -> str:
    """Say which folders further in hold what is wanted."""
    folders = [file for file in files if is_folder(file)]
    sets = [folder for folder in folders if _is_data_set(folder)]
    if len(sets) == 1 and wanted == "data set":
        return f"the data set is further in; give {shown(sets[0])}/ in it"
    holding = [f"{shown(folder)}/" for folder in folders if list_volumes(folder).names]
    if not holding:
        return ""
    if wanted != "data set":
        remedy = f"give {'that folder' if len(holding) == 1 else 'one of them'}"
        return f"no {wanted} in it, but in {listed(holding)}; {remedy}"
    if len(holding) == 2:
        return f"volumes are in {' and '.join(holding)}; name the folder of images images/, that of masks labels/"
    remedy = "masks of the same names belong into labels/, beside a folder images/"
    return f"volumes are in {holding[0]} alone; {remedy}" if len(holding) == 1 else ""


def _is_data_set(folder: Path) -> bool:
    try:
        return (folder / "dataset.json").is_file() or folder_pair(folder) is not None
    except MedfcnError:
        return False


def _pictures(files: list[Path]) -> str:
    """Say that there are pictures, here or in folders of patients."""
    inner = [file for folder in files if is_folder(folder) for file in files_in(folder)]
    kinds = Counter(_PICTURES[end] for file in (*files, *inner) if (end := file.suffix.lower()) in _PICTURES)
    if not kinds:
        return ""
    kind, count = kinds.most_common(1)[0]
    return (
        f"{counted(count, f'{kind} picture')} and no volumes; pictures do not say where they lie in the patient, nor "
        "how large a pixel is: give the DICOM series that they are from, or stack the slices of each patient into "
        "one .nii.gz with its spacing in mm"
    )


def _archive(files: list[Path]) -> str:
    found = [file for file in files if file.name.lower().endswith(_ARCHIVES) and not extension_of(file)]
    found = [file for file in found if not is_hidden(file) and not is_folder(file)]
    if not found:
        return ""
    verb = "is an archive; unpack it" if len(found) == 1 else "are archives; unpack them"
    return f"{listed(map(shown, found), limit=3)} {verb}, and give the folder"
