"""Reports for tests, and texts that must stay text."""

import re
from html.parser import HTMLParser

import numpy as np

from medfcn.evaluation.score_table import ScoreTable
from medfcn.evaluation.scores import score_case
from medfcn.labels import LabelEntry, LabelMap
from medfcn.reporting.upright import CaseVolumes
from medfcn.volumes import Volume

AFFINE = np.array([[-1.0, 0, 0, 40], [0, 1.2, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])

PAYLOADS = (
    "<script>window.__pwned=1</script>",
    "</script><script>window.__pwned=1</script>",
    "</title><script>window.__pwned=1</script>",
    "</style><script>window.__pwned=1</script>",
    "--><script>window.__pwned=1</script><!--",
    "<!--<script>",
    "]]><script>window.__pwned=1</script>",
    "<img src=x onerror=window.__pwned=1>",
    "<svg onload=window.__pwned=1>",
    "<svg><script>window.__pwned=1</script></svg>",
    "\"><img src=x onerror='window.__pwned=1'>",
    "' onmouseover='window.__pwned=1' x='",
    '" onfocus="window.__pwned=1" autofocus tabindex="1',
    "javascript:window.__pwned=1",
    "<a href='javascript:window.__pwned=1'>x</a>",
    "<iframe srcdoc='<script>parent.__pwned=1</script>'></iframe>",
    "<iframe src='https://example.org/'></iframe>",
    "<link rel=stylesheet href='https://example.org/a.css'>",
    "<meta http-equiv=refresh content='0;url=https://example.org/'>",
    "<base href='https://example.org/'>",
    "<form action='https://example.org/'><input name=a></form>",
    "<object data='https://example.org/'></object>",
    "<style>*{background:url(https://example.org/)}</style>",
    "{{ 7*7 }}{% raw %}{{ self }}",
    "{{ ''.__class__.__mro__ }}",
    "\\u003cscript\\u003ewindow.__pwned=1\\u003c/script\\u003e",
    "\u2028window.__pwned=1\u2029//",
    "\u202etxt.exe\u202c\x1b[2J\x00",
    "&lt;script&gt;window.__pwned=1&lt;/script&gt;&#60;b&#62;",
    "`${window.__pwned=1}`",
)


def case_volumes(number=0, *, shape=(24, 20, 12), affine=AFFINE, miss=False, labels=1):
    """A bright box in noise, and a prediction one voxel beside it."""
    random = np.random.default_rng(number)
    reference, prediction = np.zeros((2, *shape), dtype=np.uint8)
    reference[6:14, 5:13, 3:8] = 1
    if labels > 1:
        reference[10:14, 5:13, 3:8] = 2
    if not miss:
        prediction[1:] = reference[:-1]
    image = (random.normal(100, 20, shape) + 90 * (reference > 0)).astype(np.float32)
    return CaseVolumes(*(Volume(array, affine) for array in (image, reference, prediction)))


def label_map(names):
    return LabelMap(tuple(LabelEntry(name, (place,), place) for place, name in enumerate(names, start=1)))


def table_of(cases, names=("organ",)):
    """The scores of cases by id."""
    labels = label_map(names)
    rows = []
    for case, volumes in cases.items():
        rows += score_case(volumes.prediction, volumes.reference, labels, case=case)
    return ScoreTable(tuple(rows))


class Page(HTMLParser):
    """Elements, their attributes, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.source = text
        self.elements, self.raw, self.words = [], [], []
        self._open = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._open = (tag, dict(attributes))
            self.raw.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        if self._open and tag == self._open[0]:
            self._open = None

    def handle_data(self, text):
        if self._open:
            self.raw[-1][2] += text
        else:
            self.words.append(text)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


ELEMENTS = re.findall(
    r"\w+",
    """
    html head meta title style body header main footer nav section div p h1 h2 h3 small strong b a ul li table thead
    tbody tr th td details summary label input select option button span svg g path rect line circle polyline text
    image canvas fieldset legend dl dt dd noscript figure figcaption code script
    """,
)


def active_parts(page):
    """Elements that could run, load or lead elsewhere; a report may have none."""
    found = []
    for tag, attributes in page.elements:
        if tag not in ELEMENTS:
            found.append(tag)
        for name, value in attributes.items():
            if name.startswith("on") or name in ("style", "srcdoc", "action", "formaction", "src", "data", "ping"):
                found.append(f"{tag} {name}={value}")
            if name in ("href", "xlink:href") and not (value or "").startswith(("#", "data:image/png;base64,")):
                found.append(f"{tag} {name}={value}")
            if tag == "meta" and name == "http-equiv" and value != "Content-Security-Policy":
                found.append(f"meta {value}")
    found += [
        f"script {attributes}"
        for tag, attributes, _ in page.raw
        if tag == "script" and attributes.keys() - {"type", "id"}
    ]
    return found
