"""The report in a real browser, from disk: Chromium without a display and with WebGL2 in software.

Needs Chromium, its driver and selenium; skips, saying so, where one of them is not installed.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from medfcn.reporting.html import About, write_report
from medfcn.reporting.packing import packed_case
from medfcn.reporting.upright import CaseVolumes, upright_case
from medfcn.volumes import Volume
from tests.reporting.pages import case_volumes, table_of
from tests.reporting.test_html import hostile

OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--disable-background-networking --disable-component-update --disable-sync --no-first-run "
    "--window-size=1366,768 --disable-dev-shm-usage"
)

# What the graphics driver in software says of itself, and what reading pixels for a test provokes.
HARMLESS = ("GL Driver Message", "willReadFrequently")

FIRE = """
    const [id, kind, options] = arguments, target = document.getElementById(id);
    target.setPointerCapture = () => {};
    const kinds = { pointer: PointerEvent, wheel: WheelEvent };
    const maker = kinds[kind.slice(0, kind === "wheel" ? 5 : 7)] || Event;
    target.dispatchEvent(new maker(kind, { pointerId: 1, bubbles: true, cancelable: true, ...options }));
"""

SET = """
    const [id, value, kind] = arguments, control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event(kind));
"""

READY = "return typeof Viewer !== 'undefined' && Viewer.state().index !== null"


def first_of(*names):
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    chromium = first_of("chromium", "chromium-browser", "google-chrome", "chrome")
    driver = first_of("chromedriver", "chromium-driver")
    if not (chromium and driver):
        pytest.skip("Chromium and chromedriver are not both installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in OPTIONS.split():
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def cases():
    """Three cases of two labels, the last of them missed, with 1 × 1.2 × 3 mm voxels."""
    return {f"case_{number}": case_volumes(number, labels=2, miss=number == 2) for number in range(3)}


@pytest.fixture(scope="module")
def report_path(cases, tmp_path_factory):
    names = ("left", "right")
    path = tmp_path_factory.mktemp("report") / "a report with spaces & more.html"
    return write_report(path, table_of(cases, names), cases.__getitem__, about=About(title="Browser test"))


@pytest.fixture
def page(browser, report_path):
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get("about:blank")
    browser.get(report_path.as_uri())
    wait_for(browser, READY)
    yield browser
    assert complaints(browser) == []
    asked = {
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith(("data:", "about:"))} == {report_path.as_uri()}


def complaints(browser):
    entries = browser.get_log("browser")
    return [entry for entry in entries if not any(words in entry["message"] for words in HARMLESS)]


def text_of(browser, name):
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", name)


def wait_for(browser, condition, *, seconds=20):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds, poll_frequency=0.05).until(lambda driver: driver.execute_script(condition))


def pixels(browser, canvas):
    """The picture of a plane, `(rows, columns, 4)`."""
    flat, width = browser.execute_script(
        "const c = document.getElementById(arguments[0]); const p = c.getContext('2d');"
        "return [[...p.getImageData(0, 0, c.width, c.height).data], c.width]",
        canvas,
    )
    return np.array(flat, dtype=np.uint8).reshape(-1, width, 4)


def near(picture, colour, tolerance=30):
    """How many pixels have about this colour."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int((np.abs(picture[..., :3].astype(int) - wanted).max(axis=-1) < tolerance).sum())


def key(browser, letter):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(letter).perform()


def open_case(browser, name):
    browser.execute_script("document.querySelector(`#table a[title='${arguments[0]}']`).click()", name)
    index = browser.execute_script("return Viewer.page.cases.findIndex((c) => c.id === arguments[0])", name)
    wait_for(browser, f"return Viewer.state().index === {index}")


def test_the_viewer_draws_the_image_and_both_masks(page):
    open_case(page, "case_0")
    for plane in ("axial", "coronal", "sagittal"):
        picture = pixels(page, f"plane-{plane}")
        grey = picture[(picture[..., 0] == picture[..., 1]) & (picture[..., 1] == picture[..., 2])]
        assert len(np.unique(grey[:, 0])) > 60, "an image has many shades"
    axial = pixels(page, "plane-axial")
    # Two labels in Okabe and Ito's orange and sky blue.
    assert near(axial, "#E69F00") > 100
    assert near(axial, "#56B4E9") > 100


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_what_is_drawn_at_a_place_is_what_is_read_out_there(page, plane):
    open_case(page, "case_1")
    box = page.execute_script(
        "return document.getElementById(arguments[0]).getBoundingClientRect().toJSON()", f"plane-{plane}"
    )
    spots = [(x, y) for x in np.linspace(0.2, 0.8, 9) for y in np.linspace(0.2, 0.8, 7)]

    def seen_at(readout, *, reference, image):
        for kind, wanted in (("reference", reference), ("image", image)):
            page.execute_script(
                "const b = document.getElementById(arguments[0]); if (b.checked !== arguments[1]) b.click()",
                f"show-{kind}",
                wanted,
            )
        found = []
        for x, y in spots:
            place = {"clientX": box["left"] + x * box["width"], "clientY": box["top"] + y * box["height"]}
            page.execute_script(FIRE, f"plane-{plane}", "pointerdown", {**place, "button": 0})
            page.execute_script(FIRE, f"plane-{plane}", "pointerup", place)
            pixel = page.execute_script(
                """
                const pen = document.getElementById(arguments[0]).getContext("2d");
                return [...pen.getImageData(arguments[1], arguments[2], 1, 1).data];
                """,
                f"plane-{plane}",
                round(x * box["width"]),
                round(y * box["height"]),
            )
            found.append((pixel, text_of(page, readout)))
        return found

    for name, number in (("sagittal", 15), ("coronal", 9), ("axial", 6)):  # through the middle of the mask
        page.execute_script(SET, f"slice-{name}", number, "input")
    page.execute_script("document.getElementById('show-prediction').click()")
    page.execute_script(SET, "opacity", 100, "input")
    masks = seen_at("at-reference", reference=True, image=False)
    # An outline may run through the spot; all others must agree.
    agreeing = sum((max(pixel[:3]) - min(pixel[:3]) > 50) == (label != "background") for pixel, label in masks)
    assert agreeing >= 0.9 * len(spots)
    assert {label for _, label in masks} > {"background"}
    greys = seen_at("at-value", reference=False, image=True)
    pairs = [(pixel[0], float(value.split()[-1])) for pixel, value in greys if pixel[0] == pixel[1] == pixel[2]]
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.75


def test_what_was_missed_is_hatched(page):
    open_case(page, "case_2")
    key(page, "d")
    assert near(pixels(page, "plane-axial"), "#d55e00") > 800


def test_a_click_opens_a_case_and_n_and_p_step_from_case_to_case(page):
    assert page.execute_script("return document.getElementById('open-case').textContent") == "case_2"
    open_case(page, "case_0")
    before = pixels(page, "plane-axial")
    key(page, "n")
    wait_for(page, "return document.getElementById('open-case').textContent !== 'case_0'")
    wait_for(
        page, "return document.getElementById('open-case').textContent === Viewer.page.cases[Viewer.state().index].id"
    )
    assert not np.array_equal(pixels(page, "plane-axial"), before)
    key(page, "p")
    wait_for(page, "return Viewer.page.cases[Viewer.state().index].id === 'case_0'")
    np.testing.assert_array_equal(pixels(page, "plane-axial"), before)
    assert page.execute_script("return document.querySelectorAll('#table tr[aria-current]').length") >= 1


def test_a_chart_mark_opens_its_case(page):
    mark = page.find_element("css selector", "#distributions a[href='#case-1'] circle")
    page.execute_script(
        "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))", mark
    )
    wait_for(page, "return Viewer.state().index === 1")


def test_wheel_keys_and_slider_step_through_slices(page):
    open_case(page, "case_0")
    start = page.execute_script("return Viewer.state().cross")
    before = pixels(page, "plane-axial")
    page.execute_script(FIRE, "plane-axial", "wheel", {"deltaY": -100})
    assert page.execute_script("return Viewer.state().cross[2]") == start[2] + 2
    assert not np.array_equal(pixels(page, "plane-axial"), before)
    page.execute_script("document.getElementById('plane-axial').focus()")
    key(page, "\ue00f")  # page down
    assert page.execute_script("return Viewer.state().cross[2]") == start[2] + 1
    page.execute_script(SET, "slice-axial", start[2] + 1, "input")
    assert page.execute_script("return Viewer.state().cross") == start
    np.testing.assert_array_equal(pixels(page, "plane-axial"), before)


@pytest.mark.parametrize("letter", ["i", "r", "m", "d"])
def test_a_toggle_changes_the_picture_and_changes_it_back(page, letter):
    open_case(page, "case_0")
    before = pixels(page, "plane-axial")
    key(page, letter)
    assert not np.array_equal(pixels(page, "plane-axial"), before)
    key(page, letter)
    np.testing.assert_array_equal(pixels(page, "plane-axial"), before)


def test_a_hidden_label_is_gone_from_the_picture(page):
    open_case(page, "case_0")
    assert near(pixels(page, "plane-axial"), "#56B4E9") > 100
    page.execute_script("document.querySelectorAll('#labels input')[1].click()")
    assert near(pixels(page, "plane-axial"), "#56B4E9") < 10


def test_letters_typed_into_the_search_do_not_act_on_the_viewer(page):
    box = page.find_element("id", "find")
    state = page.execute_script("return JSON.stringify(Viewer.state())")
    box.send_keys("nprimde")
    assert page.execute_script("return JSON.stringify(Viewer.state())") == state
    assert page.execute_script("return document.getElementById('shown').textContent") == "0 of 3 cases"
    box.clear()


def test_the_crosshair_tells_world_and_voxel_of_where_it_was_put(page, cases):
    open_case(page, "case_1")
    volumes = cases["case_1"]
    box = page.execute_script("return document.getElementById('plane-coronal').getBoundingClientRect().toJSON()")
    place = {"clientX": box["left"] + 0.6 * box["width"], "clientY": box["top"] + 0.4 * box["height"], "button": 0}
    for kind in ("pointerdown", "pointerup"):
        page.execute_script(FIRE, "plane-coronal", kind, place)
    voxel = tuple(int(part) for part in text_of(page, "at-voxel").split(", "))
    world = [float(word) for word in text_of(page, "at-world").replace("−", "-").split()[1::2]]
    np.testing.assert_allclose(world, (volumes.image.affine @ [*voxel, 1])[:3], atol=0.051)
    names = ("background", "left", "right")
    assert text_of(page, "at-reference") == names[volumes.reference.array[voxel]]
    assert text_of(page, "at-prediction") == names[volumes.prediction.array[voxel]]
    image = packed_case(upright_case(volumes), most_bytes=10**6)["image"]
    value = float(np.clip(volumes.image.array[voxel], image["low"], image["high"]))
    step = (image["high"] - image["low"]) / 255
    assert float(text_of(page, "at-value").split()[-1]) == pytest.approx(value, abs=step + 0.01 * abs(value))


def test_a_length_is_as_long_in_every_plane(page):
    """3 mm slices of 1 × 1.2 mm voxels: a step of one voxel moves the crosshair in proportion."""
    open_case(page, "case_0")
    lines = page.execute_script(
        """
        const drawn = [], kind = CanvasRenderingContext2D.prototype, old = kind.drawImage;
        kind.drawImage = function (...a) { drawn.push([this.canvas.id, ...a.slice(1)]); return old.apply(this, a); };
        Viewer.reset();
        kind.drawImage = old;
        return drawn;
        """
    )
    boxes = {name: (width, height) for name, _, _, width, height in lines if name.startswith("plane-")}
    x, y, z = 24 * 1.0, 20 * 1.2, 12 * 3.0
    scale = boxes["plane-axial"][0] / x
    for plane, (across, up) in {"axial": (x, y), "coronal": (x, z), "sagittal": (y, z)}.items():
        np.testing.assert_allclose(boxes[f"plane-{plane}"], (across * scale, up * scale), rtol=1e-6)


def test_the_window_follows_numbers_and_a_right_drag(page):
    open_case(page, "case_0")
    before = pixels(page, "plane-axial")
    page.execute_script(SET, "width", 20, "change")
    low, high = page.execute_script("return Viewer.state().grey")
    assert high - low == pytest.approx(20)
    assert not np.array_equal(pixels(page, "plane-axial"), before)
    for kind, x in (("pointerdown", 50), ("pointermove", 90), ("pointerup", 90)):
        page.execute_script(FIRE, "plane-axial", kind, {"clientX": x, "clientY": 50, "button": 2})
    wider = page.execute_script("return Viewer.state().grey")
    assert wider[1] - wider[0] > 20
    key(page, "w")
    np.testing.assert_array_equal(pixels(page, "plane-axial"), before)


def test_surfaces_are_drawn_and_turn(page):
    open_case(page, "case_0")
    assert page.execute_script("return Viewer.hasSurfaces()")
    canvas = page.find_element("id", "surface")
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", canvas)

    def seen():
        from io import BytesIO

        image = pytest.importorskip("PIL.Image")
        return np.asarray(image.open(BytesIO(canvas.screenshot_as_png)).convert("RGB")).astype(int)

    wait_for(page, "return document.getElementById('surface-note').textContent.startsWith('Surfaces: drag')")
    page.execute_async_script("setTimeout(arguments[0], 400)")
    first = seen()
    assert (first.max(axis=-1) > 60).mean() > 0.03
    page.execute_script("document.getElementById('surface').focus()")
    for _ in range(8):
        key(page, "\ue012")  # left
    assert (np.abs(seen() - first).max(axis=-1) > 30).mean() > 0.01
    # Without masks nothing but the letters is left.
    key(page, "r")
    key(page, "m")
    assert (seen().max(axis=-1) > 60).mean() < 0.01
    key(page, "r")
    key(page, "m")


def test_a_surface_encloses_its_mask(page):
    """The mesh of a box of 10 × 8 × 6 voxels is closed and has about its volume."""
    volume = page.execute_script(
        """
        const shape = [14, 12, 10], mask = new Uint8Array(14 * 12 * 10);
        for (let z = 2; z < 8; z++) for (let y = 2; y < 10; y++) for (let x = 2; x < 12; x++)
          mask[x + 14 * (y + 12 * z)] = 1;
        const { vertices, triangles } = Surfaces.surfaceNet(mask, shape, [1, 2, 3], 1);
        const at = (i) => [0, 1, 2].map((k) => vertices[3 * i + k]);
        const edges = new Map();
        let volume = 0;
        for (let t = 0; t < triangles.length; t += 3) {
          const [a, b, c] = [0, 1, 2].map((k) => at(triangles[t + k]));
          volume += (a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
            + a[2] * (b[0] * c[1] - b[1] * c[0])) / 6;
          for (let k = 0; k < 3; k++) {
            const [p, q] = [triangles[t + k], triangles[t + (k + 1) % 3]];
            edges.set(`${p},${q}`, (edges.get(`${p},${q}`) || 0) + 1);
          }
        }
        const back = (edge) => edges.get(edge.split(",").reverse().join());
        const closed = [...edges].every(([edge, count]) => count === 1 && back(edge) === 1);
        return [volume, closed];
        """
    )
    assert volume[1]
    assert volume[0] == pytest.approx(10 * 8 * 6 * 6, rel=0.12)


def test_the_table_sorts_with_what_has_no_value_at_the_end(page):
    page.execute_script("document.querySelector(\"#table button[data-column='case']\").click()")
    order = "return [...document.querySelectorAll('#table tbody tr:not([hidden]) a')].map((a) => a.textContent)"
    assert page.execute_script(order) == ["case_0", "case_1", "case_2"]
    page.execute_script("document.querySelector(\"#table button[data-column='case']\").click()")
    assert page.execute_script(order) == ["case_2", "case_1", "case_0"]
    # Precision of a missed case has no value.
    for _ in range(2):
        page.execute_script("document.querySelector(\"#table button[data-column='2']\").click()")
        assert page.execute_script(order)[-1] == "case_2"


def test_the_page_fits_a_laptop_screen_and_a_narrow_one(page):
    for width in (1366, 1024, 700):
        page.set_window_size(width, 768)
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    page.set_window_size(1366, 768)


def test_every_control_has_a_name(page):
    unnamed = page.execute_script(
        """
        const words = (control) =>
          [control, ...(control.labels || [])].map((part) => part.textContent.trim()).join("");
        return [...document.querySelectorAll("button, input, select, canvas:not([aria-hidden]), a")]
          .filter((control) => !words(control) && !control.getAttribute("aria-label"))
          .map((control) => control.outerHTML);
        """
    )
    assert unnamed == []


def test_a_thinned_case_is_drawn_and_said_to_be(browser, tmp_path):
    random = np.random.default_rng(0)
    shape = (61, 47, 33)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[4:57, 5:40, 6:27] = 1
    image = Volume((random.normal(0, 1, shape) + 3 * mask).astype(np.float32), np.eye(4))
    volumes = CaseVolumes(image, Volume(mask, np.eye(4)), Volume(np.roll(mask, 1, 0), np.eye(4)))
    table = table_of({"large": volumes})
    import medfcn.reporting.html as html

    held, html._VOLUME_BYTES, least, html._LEAST_CASE_BYTES = (
        html._VOLUME_BYTES,
        20_000,
        html._LEAST_CASE_BYTES,
        20_000,
    )
    try:
        path = write_report(tmp_path / "report.html", table, lambda _: volumes)
    finally:
        html._VOLUME_BYTES, html._LEAST_CASE_BYTES = held, least
    browser.get(path.as_uri())
    wait_for(browser, READY)
    assert "reduced resolution" in browser.execute_script("return document.getElementById('case-notes').textContent")
    picture = pixels(browser, "plane-axial")
    assert near(picture, "#E69F00") > 100


def test_nothing_is_hatched_where_nobody_labelled(browser, tmp_path):
    volumes = case_volumes()
    upper = np.arange(12) >= 6
    for ignored, least, most in ((False, 200, 1e9), (True, 0, 0)):
        # Nothing is drawn in the upper half: what is found there is too much, unless nobody looked.
        reference = np.where(upper, 255 if ignored else 0, volumes.prediction.array).astype(np.uint8)
        case = CaseVolumes(volumes.image, volumes.reference.with_array(reference), volumes.prediction)
        path = write_report(tmp_path / f"{ignored}.html", table_of({"a": case_volumes()}), lambda _, case=case: case)
        browser.get(path.as_uri())
        wait_for(browser, READY)
        browser.execute_script(SET, "slice-axial", 7, "input")
        key(browser, "d")
        assert least <= near(pixels(browser, "plane-axial")[:, 120:], "#f0e442") <= most
        assert near(pixels(browser, "plane-axial"), "#56B4E9") > 50, "what is found is still outlined"
        assert text_of(browser, "at-reference") == ("ignored by the reference" if ignored else "background")
        assert complaints(browser) == []


def test_thirty_payloads_do_nothing_in_a_browser(browser, tmp_path):
    browser.get("about:blank")
    browser.get_log("browser")
    path = hostile(tmp_path)
    browser.get(path.as_uri())
    wait_for(browser, READY)
    for _ in range(30):
        key(browser, "n")
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    browser.execute_script("for (const link of document.querySelectorAll('a')) link.focus()")
    wait_for(browser, READY)
    browser.execute_async_script("setTimeout(arguments[0], 300)")
    assert browser.execute_script("return window.__pwned === undefined")
    assert browser.current_url.startswith(path.as_uri())
    assert complaints(browser) == []
    assert (
        browser.execute_script("return document.scripts.length")
        == browser.execute_script("return document.querySelectorAll('script[id]').length") + 4
    )


def test_uncertainty_is_laid_over_the_image_when_it_is_asked_for(browser, tmp_path):
    volumes = case_volumes()
    bits = np.zeros(volumes.reference.shape, dtype=np.float32)
    bits[4:16, 3:15, :] = 1.0
    cases = {
        "doubtful": dataclasses.replace(volumes, uncertainty=volumes.reference.with_array(bits)),
        "plain": case_volumes(1),
    }
    path = write_report(tmp_path / "doubt.html", table_of(cases, ("organ",)), cases.__getitem__)
    browser.get(path.as_uri())
    wait_for(browser, READY)
    open_case(browser, "doubtful")
    yellow = "#FDE725"
    before = near(pixels(browser, "plane-axial"), yellow, 70)
    key(browser, "u")
    assert browser.execute_script("return document.getElementById('show-uncertainty').checked")
    after = near(pixels(browser, "plane-axial"), yellow, 70)
    assert after > before + 1000
    assert text_of(browser, "at-uncertainty") == "1.00"
    open_case(browser, "plain")  # the switch stays, and there is nothing to show
    assert text_of(browser, "at-uncertainty") == "–"
    assert near(pixels(browser, "plane-axial"), yellow, 70) < after
    assert complaints(browser) == []
