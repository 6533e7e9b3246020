"""The page of `gfocal explain` in a real browser: choosing, filtering, before and after suppression; nothing asked."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from explained import NAMES, small
from gfocal.draw.explain.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

FILE = "<img src=x onerror=window.bad=1>.jpg"


@dataclass
class Opened:
    """A page in the browser, and what must not happen in it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def chosen(self) -> str | None:
        """The class of the chosen box, None where none is."""
        return self.text("#panel-name") if self.page.is_visible("#panel") else None

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the picture, 400 x 300, lies in the window."""
        stage = self.page.locator("#stage").bounding_box()
        scale = min(stage["width"] / 400, stage["height"] / 300)
        left, top = (stage["width"] - 400 * scale) / 2, (stage["height"] - 300 * scale) / 2
        return stage["x"] + left + x * scale, stage["y"] + top + y * scale

    def slide(self, name: str, value: float) -> None:
        self.page.locator(f"#{name}").fill(str(value))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(path, [small(FILE), small("two.jpg", truth=False)], title="A <title>", class_names=NAMES)
    return path


@pytest.fixture
def window(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """The page in a window as the test's parameter says; afterwards it must have been quiet and have asked nothing."""
    options = {"viewport": {"width": 1280, "height": 900}} | getattr(request, "param", {})
    context = browser.new_context(**options)
    opened = Opened(context.new_page())
    opened.page.on("console", lambda message: opened.complaints.append(message.text))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("request", lambda asked: opened.requests.append(asked.url))
    opened.page.goto(file.as_uri())
    yield opened
    bad = opened.page.evaluate("window.bad")
    context.close()
    assert bad is None
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1


PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


def test_names_that_hold_html_are_text(window: Opened) -> None:
    assert window.text("h1") == "A <title>"
    assert window.text("#caption") == FILE
    assert NAMES[1] in window.text("#boxes")
    window.slide("score-low", 0)
    assert NAMES[2] in window.text("#boxes")
    assert NAMES[2] in window.page.inner_text("#class")
    window.page.click("#boxes li:nth-child(2)")
    assert window.chosen() == NAMES[1]
    assert window.count("script") == 6  # data, boxes and pictures of two, and the page's own


def test_a_click_chooses_the_smallest_box_and_a_further_one_the_next(window: Opened) -> None:
    assert window.chosen() is None
    window.page.mouse.click(*window.at(120, 140))
    assert window.chosen() == NAMES[1]
    window.page.wait_for_timeout(600)  # or it would be a double click
    window.page.mouse.click(*window.at(120, 140))
    assert window.chosen() == "cat"
    assert window.page.get_attribute("#boxes li:first-child", "aria-selected") == "true"
    window.page.mouse.click(*window.at(390, 290))
    assert window.chosen() is None


def test_the_chosen_box_tells_its_figures(window: Opened) -> None:
    window.page.click("#boxes li:first-child")
    figures = window.text("#panel-figures")
    for text in ("0.900", "0.700", "40.0, 60.0, 200.0, 240.0", "0.914"):
        assert text in figures
    assert window.count(".one-edge .plot svg") == 4
    assert re.findall(r"\d\.\d{3}", window.text("#panel-classes")) == ["0.900", "0.200", "0.010"]
    assert "−2.0" in window.text(".one-edge:nth-child(1)")  # the left edge lies at 40, in truth at 42


def test_bands_are_those_of_the_distributions(window: Opened) -> None:
    window.page.click("#boxes li:first-child")
    edges = small().after.edges
    assert edges is not None
    labels = [window.page.get_attribute(f".one-edge:nth-child({n}) svg", "aria-label") for n in range(1, 5)]
    for mass, name in ((0.5, "50 %"), (0.9, "90 %")):
        low, high = edges.interval(mass)
        for edge, label in enumerate(labels):
            found = re.search(rf"{name}: (-?[\d.]+) – (-?[\d.]+)", label)
            assert found is not None
            assert [float(found[1]), float(found[2])] == pytest.approx(
                [float(low[0, edge]), float(high[0, edge])], abs=0.06
            )
    for edge, label in enumerate(labels):
        assert f"entropy {float(edges.entropy[0, edge]):.2f} nats" in label
        assert f"± {float(edges.std[0, edge]):.1f} px" in label


def test_keys_go_through_boxes_and_pictures(window: Opened) -> None:
    window.page.focus("#stage")
    window.page.keyboard.press("ArrowRight")
    assert window.chosen() == "cat"
    window.page.keyboard.press("ArrowRight")
    assert window.chosen() == NAMES[1]
    window.page.keyboard.press("ArrowLeft")
    assert window.chosen() == "cat"
    assert "cat, score 0.90, box 1 of 2" in window.page.text_content("#says")
    window.page.keyboard.press("Escape")
    assert window.chosen() is None
    window.page.keyboard.press("n")
    assert window.text("#caption") == "two.jpg"
    assert window.text("#place") == "2 / 2"
    window.page.keyboard.press("p")
    assert window.text("#caption") == FILE


def test_tab_reaches_every_control_and_shows_where_it_is(window: Opened) -> None:
    reached = []
    for _ in range(25):
        window.page.keyboard.press("Tab")
        reached.append(window.page.evaluate("document.activeElement.id || document.activeElement.name"))
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        if reached[-1] in ("stage", "boxes", "reset", "next"):
            assert window.page.evaluate(outline) != "none", reached[-1]
    wanted = {"previous", "next", "when", "score-low", "score-high", "entropy-low", "class", "stage", "strip", "boxes"}
    assert wanted <= set(reached)


def test_filters_by_score_class_and_entropy(window: Opened) -> None:
    assert window.text("#count") == "2 of 3"  # the third scores less than what is shown at first
    window.slide("score-low", 0.05)
    assert window.text("#count") == "3 of 3"
    window.slide("score-high", 0.8)
    assert window.text("#count") == "2 of 3"
    window.page.click("#reset")
    window.page.select_option("#class", label="cat")
    assert window.text("#count") == "1 of 3"
    window.page.select_option("#class", value="-1")
    window.slide("entropy-low", 2)  # the cat's bottom edge has 2.49 nats, no edge of the dog so many
    assert window.text("#boxes").startswith("cat")
    assert window.text("#count") == "1 of 3"
    window.slide("entropy-low", 0)
    window.slide("entropy-high", 2)
    assert window.text("#boxes").startswith("dog")
    assert window.text("#filters-on") == "1"


def test_a_box_that_the_filters_hide_is_let_go(window: Opened) -> None:
    window.page.click("#boxes li:nth-child(2)")
    assert window.chosen() == NAMES[1]
    window.slide("score-low", 0.8)
    assert window.chosen() is None


def test_before_suppression_the_box_that_gave_way_is_there(window: Opened) -> None:
    window.page.check("input[value=before]")
    assert window.text("#count") == "3 of 4"
    assert "gave way" in window.text("#boxes li:nth-child(2)")
    window.page.click("#boxes li:nth-child(2)")
    assert "0.700" in window.text("#panel-figures")
    assert "Gave way to the better box" in window.text("#rivals-name")
    window.page.click("#panel-rivals button")  # the box that it gave way to
    assert "0.900" in window.text("#panel-figures")
    assert "Gave way to this box (1)" in window.text("#rivals-name")
    window.page.keyboard.press("Escape")
    window.page.check("input[value=after]")
    assert window.text("#count") == "2 of 3"


def test_without_truth_nothing_is_said_of_it(window: Opened) -> None:
    window.page.keyboard.press("n")
    window.page.click("#boxes li:first-child")
    assert "IoU" not in window.text("#panel")
    assert "true edge" not in window.text("#panel")


def test_a_near_view_shows_the_box_and_the_whole_is_one_key_away(window: Opened) -> None:
    window.page.click("#boxes li:nth-child(2)")
    window.page.click("#zoom-box")
    assert window.page.evaluate("document.getElementById('stage').classList.contains('near')")
    window.page.keyboard.press("0")
    assert not window.page.evaluate("document.getElementById('stage').classList.contains('near')")


def test_boxes_are_drawn_in_the_colours_of_their_classes(window: Opened) -> None:
    window.page.uncheck("#show-edges")
    window.page.uncheck("#show-labels")
    window.page.uncheck("#show-truth")
    window.page.wait_for_timeout(100)
    pixels = """(places) => {
      const canvas = document.getElementById("canvas");
      const frame = canvas.getBoundingClientRect();
      const scale = canvas.width / frame.width;
      const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return places.map(([x, y]) => {
        const start = 4 * (Math.round((y - frame.top) * scale) * canvas.width + Math.round((x - frame.left) * scale));
        return [...all.slice(start, start + 3)];
      });
    }"""
    side, empty = window.page.evaluate(pixels, [window.at(40, 150), window.at(300, 250)])
    assert side == pytest.approx([0xE6, 0x9F, 0x00], abs=6)  # the left side of the cat's box
    assert empty == pytest.approx([90] * 3, abs=3)


@pytest.mark.parametrize("window", [PHONE], indirect=True)
def test_a_phone_has_all_of_it_without_scrolling_sideways(window: Opened) -> None:
    wide = "document.documentElement.scrollWidth"
    assert window.page.evaluate(wide) <= 360
    window.page.click("summary")
    window.page.touchscreen.tap(*window.at(120, 140))
    assert window.chosen() == NAMES[1]
    assert window.page.evaluate(wide) <= 360
    sizes = "[...document.querySelectorAll('.turn button, .zoom button')].map((b) => b.getBoundingClientRect().width)"
    assert min(window.page.evaluate(sizes)) >= 32


@pytest.mark.parametrize("window", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True)
def test_text_is_readable_in_light_and_dark(window: Opened, request: pytest.FixtureRequest) -> None:
    window.page.click("#boxes li:first-child")
    contrast = """(selector) => {
      const level = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map((value) => value / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
      const text = document.querySelector(selector);
      let ground = text;
      while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
      const [a, b] = [getComputedStyle(text).color, getComputedStyle(ground).backgroundColor].map(level).sort();
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }"""
    for selector in ("h1", "#panel-name", "#panel dt", ".one-edge p", ".ticks span", "figcaption", "#reset", "#count"):
        assert window.page.evaluate(contrast, selector) >= 4.5, selector  # WCAG 2.2, 1.4.3
    dark = request.node.callspec.params["window"]["color_scheme"] == "dark"
    ground = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", ground)[0]) < 60) == dark


def test_a_page_of_a_detector_without_distributions_and_one_without_pictures(browser: Any, tmp_path: Path) -> None:
    plain = small()
    plain = replace(
        plain,
        before=replace(plain.before, edges=None, quality=None),
        after=replace(plain.after, edges=None, quality=None),
        class_scores=None,
        truth=None,
    )
    none = replace(plain, before=plain.before[:0], after=plain.after[:0], source=torch.zeros(0, dtype=torch.long))
    complaints: list[str] = []
    page = browser.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    write_page(tmp_path / "plain.html", [plain, none], title="plain", class_names=NAMES)
    page.goto((tmp_path / "plain.html").as_uri())
    page.click("#boxes li:first-child")
    assert "no distributions" in page.inner_text("#panel-edges")
    assert not page.is_visible("#entropy")
    page.keyboard.press("n")
    assert page.inner_text("#count") == "0 of 0"
    write_page(tmp_path / "empty.html", [], title="none", class_names=NAMES)
    page.goto((tmp_path / "empty.html").as_uri())
    assert page.is_visible("#nothing")
    page.close()
    assert complaints == []
