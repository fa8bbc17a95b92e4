"""Compare a wheel with NOTICE: `python .ci/notice.py medfcn-*.whl`. Exit status 1 if they differ."""

import fnmatch
import re
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

NOTICE = Path(__file__).resolve().parents[1] / "NOTICE"


def patterns() -> list[str]:
    """The files that NOTICE names, with * for some or many."""
    line = r"^((?:medfcn|sample_data)/\S+) +(?:Apache-2.0|CC-BY-SA-4.0) "
    return re.findall(line, NOTICE.read_text("utf-8"), re.MULTILINE)


def differences(files: Iterable[str]) -> list[str]:
    """A line for each file that NOTICE does not name, and for each name without a file."""
    names, known = sorted(files), [pattern.replace("**/", "*") for pattern in patterns()]
    unnamed = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in known)]
    unused = [pattern for pattern in known if not fnmatch.filter(names, pattern)]
    return [f"{name}: is not in NOTICE" for name in unnamed] + [
        f"{pattern}: is in NOTICE alone" for pattern in unused
    ]


def shipped(wheel: Path) -> list[str]:
    """The files of a wheel, as NOTICE calls them."""
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    return [re.sub(r"^medfcn-[^/]*\.data/data/share/medfcn/", "", name) for name in names]


if __name__ == "__main__":
    found = differences(shipped(Path(sys.argv[1])))
    print("\n".join(found) or "NOTICE names all that is shipped")
    sys.exit(bool(found))
