"""Ids that a person and another file system can tell apart."""

from collections.abc import Sequence
from pathlib import Path

from medfcn.errors import DatasetError
from medfcn.volumes.names import twin_key


def check_unique(ids: Sequence[tuple[str, Path]], *, remedy: str) -> None:
    """Refuse ids that are equal, or look equal.

    Raises:
        DatasetError: Naming both files.
    """
    seen: dict[str, tuple[str, Path]] = {}
    for name, path in ids:
        other, other_path = seen.setdefault(twin_key(name), (name, path))
        if other_path is path:
            continue
        where = " and ".join("/".join(file.parts[-2:]) for file in (other_path, path))
        code, found = "ID_DUPLICATE", f"two cases have this id ({where}); {remedy}"
        if other != name:
            how = "look alike but are spelled with different Unicode characters"
            code, found = "ID_LOOKS_ALIKE", f"two ids {how} ({where}: {other!a} and {name!a}); rename one"
        raise DatasetError(f"{name}: {found}", code=code, field="id")
