"""Build the documentation site, strictly: `python docs/build.py`, then open `build/site/index.html`.

The pages are the README, everything in `docs/`, the benchmarks and the changelog, as they are; a notebook is its text
and its code. Two are made from the code: `medfcn describe`, and the docstrings of the public calls. A link to a page
of the project leads to its page of the site; a link to another file leads to a copy of it. Zensical (`pip install
'medfcn[docs]'`) stops on a link or an anchor that leads nowhere. Nothing on the site comes from another machine.
"""

import argparse
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import medfcn
from medfcn.cli import main
from medfcn.commands.describe import description, reference_page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "benchmarks/README.md": "benchmarks.md", "CHANGELOG.md": "changelog.md"}
DOCS = ROOT / "docs"
STYLE = "site.css"
PATHS = (path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
PAGES |= {f"docs/{path}": path for path in sorted(PATHS)}
NOTEBOOKS = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.ipynb"))
PAGES |= {f"docs/{path}": path.removesuffix("ipynb") + "md" for path in NOTEBOOKS}
_LINK = re.compile(r"(?<=\]\()([^)#\s]*)(#[^)]*)?(?=\))")
_FENCE = re.compile(r"^(```.*?^```)", re.DOTALL | re.MULTILINE)


def gather(folder: Path) -> None:
    """Write every page of the site, and every file that one links to, into an empty folder."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source.endswith(".ipynb"):
            text = notebook_page(text, Path(source).name)
        parts = _FENCE.split(text)  # code keeps what looks like a link
        parts[::2] = [_LINK.sub(functools.partial(_moved, source, folder), part) for part in parts[::2]]
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text("".join(parts), encoding="utf-8")
    shutil.copy(DOCS / STYLE, folder / STYLE)
    (folder / "reference.md").write_text(reference_page(description(main)), encoding="utf-8")
    names = (getattr(medfcn, name) for name in medfcn.__all__)
    calls = "\n".join(f"::: {call.__module__}.{call.__name__}\n" for call in names)
    (folder / "python.md").write_text(
        f"# Python\n\nThe commands are functions of `medfcn`.\n\n{calls}", encoding="utf-8"
    )


def notebook_page(text: str, name: str) -> str:
    """A notebook as a page: its texts and its code."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    title, *rest = parts
    return "\n\n".join([title, f"The notebook is [`{name}`]({name}).", *rest]) + "\n"


def _moved(source: str, folder: Path, link: re.Match[str]) -> str:
    """Where a link of a page leads on the site; the file is copied there if it is no page."""
    target, anchor = link[1], link[2] or ""
    if not target or re.match(r"[a-z]+:", target):
        return link[0]
    path = os.path.normpath(Path(source).parent / target)
    if (ROOT / path).is_dir():
        path = f"{path}/README.md"
    if path not in PAGES or path == source:
        (folder / "files" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / "files" / path)
    place = f"files/{path}" if path == source else PAGES.get(path, f"files/{path}")
    return Path(os.path.relpath(place, Path(PAGES[source]).parent)).as_posix() + anchor


def build() -> int:
    """Gather the pages and build the site; the exit status of Zensical."""
    pages = ROOT / "build" / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    gather(pages)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(ROOT / "zensical.toml")]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    sys.exit(build())
