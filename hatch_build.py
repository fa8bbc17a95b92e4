"""The README as an index of packages can show it: hatchling calls this when it builds the metadata.

An index has neither the files beside the README nor an address of them, so a link to one would lead nowhere, and a
picture would be a broken frame. Links become their text, and a picture becomes a line that says what it shows.
"""

import re
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # a test reads `for_an_index` where hatchling is not installed
    MetadataHookInterface = object


def for_an_index(readme: str) -> str:
    """A README without pictures of files and without links to files; links to addresses stay.

    Example:
        >>> for_an_index("![A heart](heart.png) in [the guide](docs/guide.md), [here](https://example.org)")
        '*Picture in the sources: A heart.* in the guide, [here](https://example.org)'
    """
    elsewhere = r"\((?!https?://)[^)]*\)"
    shown = re.sub(rf"!\[([^\]]*)\]{elsewhere}", r"*Picture in the sources: \1.*", readme)
    return re.sub(rf"(?<!!)\[([^\]]*)\]{elsewhere}", r"\1", shown)


class ReadmeHook(MetadataHookInterface):  # type: ignore[misc]
    """Fills in the field `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the metadata of the project."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_an_index(text)}
