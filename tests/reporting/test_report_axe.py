"""Reports for readers with a keyboard, a screen reader, or a dark desktop: checked by axe-core, and charts are saved.

Needs Chromium, its driver, selenium and axe-core (in axe-playwright-python, which is not imported); skips, saying so,
where one of them is not installed.
"""

import csv
import io
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from medfcn.reporting.histograms import count_chart, intensity_chart, quantiles_of
from medfcn.reporting.html import About, write_prediction_report, write_report
from medfcn.reporting.sections import PredictedCase
from tests.reporting.pages import case_volumes, table_of
from tests.reporting.test_report_browser import READY, browser, complaints, wait_for  # noqa: F401

SAVED = """
    const kept = [], make = URL.createObjectURL, [label, done] = arguments;
    URL.createObjectURL = (blob) => { kept.push(blob); return make.call(URL, blob); };
    HTMLAnchorElement.prototype.click = function () { this.dataset.kept = ""; window.savedName = this.download; };
    document.querySelector(`.save button[aria-label="${label}"]`).click();
    URL.createObjectURL = make;
    delete HTMLAnchorElement.prototype.click;
    kept[0].text().then((text) => done([window.savedName, text]));
"""


@pytest.fixture(scope="module")
def axe():
    found = find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-core is not installed: pip install axe-playwright-python")
    return Path(found.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Six cases of two labels, one of them missed, with curves of a training."""
    cases = {f"case_{number}": case_volumes(number, labels=2, miss=number == 2) for number in range(6)}
    log = {"step": [10.0, 20.0, 30.0], "loss": [0.9, 0.5, 0.3], "validation_dice": [0.1, 0.5, 0.7]}
    about = About(title="A study", log=log, facts={"Model": {"seed": 0}})
    path = tmp_path_factory.mktemp("axe") / "report.html"
    return write_report(path, table_of(cases, ("left", "right")), cases.__getitem__, about=about)


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """The lighter page, without references."""
    cases = {f"case_{number}": case_volumes(number) for number in range(3)}
    path = tmp_path_factory.mktemp("axe") / "look.html"
    rows = {case: PredictedCase(case, {"organ": 0.3}, ("review",) if case == "case_1" else ()) for case in cases}
    quantiles = [quantiles_of(volumes.image) for volumes in cases.values()]
    charts = (intensity_chart(quantiles, "intensity"), count_chart({"RAS": 2, "LPS": 1}, "stored as"))
    findings = ("1 case looks unlike the others",)
    about = About(title="Look", mask="Label", order="unusual ones first", findings=findings, charts=charts)
    return write_prediction_report(path, list(cases), ["organ"], cases.__getitem__, rows.__getitem__, about=about)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["report", "looked"])
def test_axe_finds_nothing_serious(browser, axe, request, kind, scheme):  # noqa: F811
    browser.get(request.getfixturevalue(kind).as_uri())
    wait_for(browser, READY)
    browser.execute_script(
        "const choice = document.getElementById('colours'); choice.value = arguments[0];"
        "choice.dispatchEvent(new Event('change'));"
        "for (const part of document.querySelectorAll('details')) part.open = true;",
        scheme,
    )
    # The driver's scripts are not the page's: its content-security policy does not hold them back.
    browser.execute_script(axe + "; window.axe = axe;")
    found = browser.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document).then((result) => done(result.violations.map((one) => "
        "[one.id, one.impact, one.nodes.map((node) => node.target.join(' ') + ': ' + node.failureSummary)])))"
    )
    assert [(name, nodes[:3]) for name, impact, nodes in found if impact in ("serious", "critical")] == []


def test_the_colours_are_those_of_the_system_until_they_are_chosen(browser, report):  # noqa: F811
    ground = "return getComputedStyle(document.body).backgroundColor"
    choose = (
        "const c = document.getElementById('colours'); c.value = arguments[0]; c.dispatchEvent(new Event('change'))"
    )
    browser.get(report.as_uri())
    wait_for(browser, READY)
    try:
        seen = {}
        for system in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": system}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            for choice in ("system", "light", "dark"):
                browser.execute_script(choose, choice)
                seen[system, choice] = browser.execute_script(ground)
        white, black = seen["light", "system"], seen["dark", "system"]
        assert white != black
        assert {choice: seen["light", choice] for choice in ("light", "dark")} == {"light": white, "dark": black}
        assert {choice: seen["dark", choice] for choice in ("light", "dark")} == {"light": white, "dark": black}
        browser.get(report.as_uri())
        wait_for(browser, READY)
        assert browser.execute_script(ground) == black, "the choice is remembered"
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert browser.execute_script(ground) == white, "paper is light"
    finally:
        browser.execute_script(choose, "system")
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_a_chart_is_saved_as_svg_that_needs_no_style_sheet_and_as_csv(browser, report):  # noqa: F811
    browser.get(report.as_uri())
    wait_for(browser, READY)
    name, text = browser.execute_async_script(SAVED, "Save Dice as SVG")
    assert name == "a-study-dice.svg"
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    circles = root.findall(f".//{space}circle")
    assert len(circles) == 10  # the missed case is a cross for each label
    assert {circle.get("fill") for circle in circles} == {"rgb(0, 114, 178)"}
    assert not root.findall(f".//{space}a")
    name, text = browser.execute_async_script(SAVED, "Save Dice as CSV")
    assert name == "a-study-dice.csv"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 12
    assert {row["label"] for row in rows} == {"left", "right"}
    assert [float(row["Dice"]) for row in rows if row["case"] == "case_2"] == [0.0, 0.0]
    name, text = browser.execute_async_script(SAVED, "Save Training loss against Step as CSV")
    assert list(csv.reader(io.StringIO(text))) == [
        ["Step", "Training loss"],
        ["10", "0.9"],
        ["20", "0.5"],
        ["30", "0.3"],
    ]
    assert complaints(browser) == []


def test_the_summary_is_saved_as_csv_and_latex_and_the_cases_as_csv(browser, report):  # noqa: F811
    browser.get(report.as_uri())
    wait_for(browser, READY)
    _, text = browser.execute_async_script(SAVED, "Save summary as CSV")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {(row["label"], row["metric"]) for row in rows} >= {("left", "dice"), ("right", "hd95_mm")}
    name, text = browser.execute_async_script(SAVED, "Save summary as LaTeX")
    assert name == "a-study-summary.tex"
    assert text.startswith("\\begin{table}")
    _, text = browser.execute_async_script(SAVED, "Save cases as CSV")
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == 13
    assert {len(row) for row in rows} == {len(rows[0])}


@pytest.mark.parametrize("kind", ["report", "looked"])
@pytest.mark.parametrize(("width", "media"), [(700, ""), (900, ""), (1160, ""), (1600, ""), (688, "print")])
def test_nothing_is_cut_off_and_no_titles_overlap(browser, request, kind, width, media):  # noqa: F811
    """On a screen, and on A4 paper, which has 182 mm between its margins."""
    browser.set_window_size(width, 900)
    try:
        browser.get(request.getfixturevalue(kind).as_uri())
        wait_for(browser, READY)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
        browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true;")
        found = browser.execute_script(
            """
            const page = document.documentElement, found = [], mayScroll = arguments[0];
            if (page.scrollWidth > innerWidth) found.push(`the page is ${page.scrollWidth} wide`);
            for (const table of document.querySelectorAll(".wide, .scroll"))
              if (!mayScroll && table.scrollWidth > table.clientWidth + 1)
                found.push(`cut: ${table.getAttribute("aria-label")}`);
            for (const drawing of document.querySelectorAll("svg.chart, svg.strip")) {
              const room = drawing.getBoundingClientRect(), words = [...drawing.querySelectorAll("text")];
              const boxes = words.map((word) => word.getBoundingClientRect());
              boxes.forEach((box, at) => {
                const out = [
                  room.left - box.left, box.right - room.right, room.top - box.top, box.bottom - room.bottom,
                ];
                if (Math.max(...out) > 1)
                  found.push(`outside: ${words[at].textContent}`);
                boxes.slice(at + 1).forEach((other, next) => {
                  const across = Math.min(box.right - other.left, other.right - box.left);
                  if (across > 1 && Math.min(box.bottom - other.top, other.bottom - box.top) > 3)
                    found.push(`overlap: ${words[at].textContent} | ${words[at + 1 + next].textContent}`);
                });
              });
            }
            return found;
            """,
            width < 900 and not media,
        )
        assert found == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        browser.set_window_size(1366, 768)
