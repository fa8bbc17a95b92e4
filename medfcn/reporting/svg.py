"""SVG elements, built as an XML tree, so that no text can become markup."""

from xml.etree import ElementTree

from medfcn.text import printable

Element = ElementTree.Element


def svg_root(kind: str, title: str, width: float, height: float, *, digits: int = 0) -> Element:
    """An empty `<svg>`.

    Args:
        kind: Its class in the style sheet.
        title: Its name for screen readers.
        width: In pixels.
        height: In pixels.
        digits: Decimals of its coordinates.
    """
    attributes = {"viewBox": f"0 0 {width:.{digits}f} {height:.{digits}f}", "class": kind, "role": "img"}
    size = {"width": f"{width:.0f}", "height": f"{height:.0f}"}
    return Element("svg", {**attributes, "aria-label": title, **size})


def add(parent: Element, name: str, kind: str = "", words: str = "", **attributes: str | float) -> Element:
    """Add an element.

    Args:
        parent: The element around it.
        name: Its name.
        kind: Its class in the style sheet.
        words: Its text.
        attributes: Its attributes, with `_` for `-`; numbers get one decimal.

    Example:
        >>> root = svg_root("chart", "scores", 20, 10)
        >>> svg_text(add(root, "text", "tick", "a < b", x=1.25, aria_label="c"))
        '<text class="tick" x="1.2" aria-label="c">a &lt; b</text>'
    """
    values = {"class": kind} if kind else {}
    for key, value in attributes.items():
        values[key.replace("_", "-")] = value if isinstance(value, str) else f"{value:.1f}"
    element = ElementTree.SubElement(parent, name, values)
    element.text = words or None
    return element


def svg_text(root: Element) -> str:
    """An element as text; characters that could steer a browser, such as marks for the direction, are spelled out."""
    return printable(ElementTree.tostring(root, encoding="unicode"))
