"""Reports: one file, complete or absent, safe to open, with every box and distribution in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from gfocal.draw.report import ReportPicture, write_report
from gfocal.errors import UserError
from gfocal.structures import Detections, EdgeDistributions, Truth

BINS = 9
NAMES = ("cat", "dog & <i>hen</i>", "</script><script>alert(1)</script>")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def found(scores: list[float], *, size: float = 100) -> Detections:
    """Boxes in a row across a picture `size` pixels wide, with distributions."""
    count = len(scores)
    left = torch.arange(count) * size / max(count, 1)
    boxes = torch.stack([left, left * 0 + 0.3 * size, left + 0.8 * size / max(count, 1), left * 0 + 0.7 * size], 1)
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    bins = torch.arange(BINS, dtype=torch.float32)
    positions = boxes[..., None] + sign[:, None] * (bins - 4) * size / 50
    spread = torch.linspace(0.3, 2, 4)[:, None]
    probabilities = (-((bins - 4) ** 2) / (2 * spread**2)).softmax(-1).expand(count, 4, BINS)
    labels = torch.arange(count) % len(NAMES)
    edges = EdgeDistributions(probabilities, positions)
    return Detections(boxes, torch.tensor(scores), labels, NAMES, torch.full((count,), 0.625), edges)


def report(path: Path, *pictures: ReportPicture) -> str:
    write_report(path, title="A <title>", pictures=pictures, summary={"AP": "0.5", "<b>": "1 & 2"})
    return path.read_text(encoding="utf-8")


def picture(
    detections: Detections, *, name: str = "one.jpg", truth: Truth | None = None, side: int = 100
) -> ReportPicture:
    grey = np.full((side, side, 3), 90, np.uint8)
    return ReportPicture(name, grey, detections, truth)


def embedded(page: str) -> list[list[dict[str, object]]]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


class _Tags(HTMLParser):
    """Collects the tags of a page with their attributes, and checks that those that close also opened."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    assert not parser.open
    return parser.tags


def count(page: str, tag: str, classes: str) -> int:
    return sum(name == tag and classes in (given.get("class") or "").split() for name, given in tags(page))


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    page = report(tmp_path / "r.html", picture(found([0.9, 0.5])))
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert set(re.findall(r"https?://[^\"'\s]*", page)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in page
    assert not re.search(r"url\(", page)
    for _, given in tags(page):
        assert all((given.get(name) or "data:").startswith("data:") for name in ("src", "href", "srcset"))


def test_names_and_scores_are_there_and_escaped(tmp_path: Path) -> None:
    shown = picture(found([0.91, 0.52, 0.13]), name="<script>alert('name')</script>.jpg")
    page = report(tmp_path / "r.html", shown)
    for text in ("cat</b> 0.91", "dog &amp; &lt;i&gt;hen&lt;/i&gt;</b> 0.52", "alert(1)&lt;/script&gt;</b> 0.13"):
        assert text in page
    assert page.count("<script") == 2  # the data and the page's own script
    assert "A &lt;title&gt;</h1>" in page
    assert "<dt>&lt;b&gt;</dt><dd>1 &amp; 2</dd>" in page
    assert [box["name"] for box in embedded(page)[0]] == list(NAMES)


def test_every_box_has_four_distributions_as_path_and_as_numbers(tmp_path: Path) -> None:
    detections = found([0.9, 0.5, 0.1])
    page = report(tmp_path / "r.html", picture(detections), picture(replace(detections, edges=None, quality=None)))
    assert count(page, "g", "box") == 6
    assert count(page, "path", "edge") == 3 * 4 + 2  # two are the legend's
    first, second = embedded(page)
    assert [box["edges"] for box in second] == [None] * 3
    assert [box["quality"] for box in first + second] == [0.625] * 3 + [None] * 3
    assert detections.edges is not None
    low, high = detections.edges.interval(0.9)
    for row, box in enumerate(first):
        edges = box["edges"]
        assert isinstance(edges, list)
        for index, edge in enumerate(edges):
            places = [edge["start"] + edge["step"] * bin for bin in range(BINS)]
            assert places == pytest.approx(detections.edges.positions[row, index].tolist(), abs=1e-2)
            assert edge["probabilities"] == pytest.approx(
                detections.edges.probabilities[row, index].tolist(), abs=5.1e-5
            )
            assert edge["mean"] == pytest.approx(float(detections.edges.mean[row, index]), abs=6e-3)
            assert edge["std"] == pytest.approx(float(detections.edges.std[row, index]), abs=6e-3)
            assert edge["entropy"] == pytest.approx(float(detections.edges.entropy[row, index]), abs=6e-4)
            assert edge["interval"] == pytest.approx([float(low[row, index]), float(high[row, index])], abs=6e-3)


def test_boxes_below_the_first_threshold_are_hidden_without_scripts_too(tmp_path: Path) -> None:
    page = report(tmp_path / "r.html", picture(found([0.9, 0.31, 0.29, 0.06])))
    assert count(page, "g", "below") == count(page, "span", "below") == 2
    assert "2 of 4 boxes" in page


def test_only_the_fifty_best_above_a_score_are_kept(tmp_path: Path) -> None:
    scores = [0.04, 0.05] + [0.2 + index / 100 for index in range(60)]
    page = report(tmp_path / "r.html", picture(found(scores)), picture(found([0.04, 0.06])))
    many, few = embedded(page)
    assert [box["score"] for box in many] == pytest.approx([0.79 - index / 100 for index in range(50)])
    assert [box["score"] for box in few] == pytest.approx([0.06])


def test_no_detections_and_no_pictures_make_a_page(tmp_path: Path) -> None:
    page = report(tmp_path / "r.html", picture(found([])))
    assert embedded(page) == [[]]
    assert "0 of 0 boxes" in page
    assert embedded(report(tmp_path / "r.html")) == []


@pytest.mark.parametrize("side", [1, 64, 3000])
def test_pictures_of_any_size_are_embedded_and_large_ones_reduced(tmp_path: Path, side: int) -> None:
    page = report(tmp_path / "r.html", picture(found([0.9], size=side), side=side))
    assert f'viewBox="0 0 {side} {side}"' in page
    assert len(page) < 200_000


def test_truth_is_drawn_and_its_switch_is_there_only_with_it(tmp_path: Path) -> None:
    boxes = torch.tensor([[1.5, 2.0, 30.0, 40.0], [5.0, 5.0, 9.0, 9.0]])
    truth = Truth(0, "t", (100, 100), boxes, torch.tensor([0, 1]), torch.tensor([False, False]))
    page = report(tmp_path / "r.html", picture(found([]), truth=truth))
    assert '<rect x="1.5" y="2" width="28.5" height="38"/>' in page
    assert "<label hidden>" not in page
    assert "<label hidden>" in report(tmp_path / "r.html", picture(found([])))


def test_class_rows_show_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    rows = [("a<b", 0.4567, 12), ("none", float("nan"), 0)]
    write_report(path, title="t", pictures=[], summary={}, class_rows=rows)
    page = path.read_text(encoding="utf-8")
    assert re.search(r"a&lt;b</th><td[^>]*>0\.457</td>.*?>12</td>", page)
    assert ">nan<" not in page
    assert count(page, "span", "bar") == 1


def test_a_report_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    assert report(path) != "old"
    assert [item.name for item in tmp_path.iterdir()] == ["r.html"]


def test_a_name_that_is_no_utf8_can_be_written(tmp_path: Path) -> None:
    assert "bad?.jpg" in report(tmp_path / "r.html", picture(found([0.9]), name="bad\udcff.jpg"))


def test_the_folder_of_a_report_is_made(tmp_path: Path) -> None:
    assert report(tmp_path / "deep" / "er" / "r.html")


def test_a_failing_write_names_the_path_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UserError, match=re.escape(str(folder))):
        report(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert not list(folder.iterdir())


ACT = """<script>
addEventListener("load", () => {
  const note = (id, text) => { const p = document.createElement("p"); p.id = id; p.textContent = text;
    document.body.append(p); };
  const visible = (box) => getComputedStyle(box).display !== "none";
  const shown = () => [...document.querySelectorAll(".box")].filter(visible).length;
  const panel = document.getElementById("panel");
  const slider = document.getElementById("threshold");
  const press = (key) => (document.activeElement || document.body).dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true }));
  note("start", `${shown()} ${panel.hidden}`);
  const [first, second] = document.querySelectorAll(".box");
  second.focus();
  press("Enter");
  note("pressed", `${panel.hidden} ${second.getAttribute("aria-pressed")} ${panel.querySelectorAll(".plot").length}`);
  note("figures", panel.textContent);
  press("Escape");
  note("closed", `${panel.hidden} ${second.getAttribute("aria-pressed")}`);
  document.querySelector(".stage").scrollIntoView();
  const line = first.querySelector(".line").getBoundingClientRect();
  document.querySelector(".stage").dispatchEvent(new MouseEvent("click",
    { bubbles: true, clientX: line.x + line.width / 2, clientY: line.y + line.height / 2 }));
  note("clicked", first.getAttribute("aria-pressed"));
  slider.value = 0.95;
  slider.dispatchEvent(new Event("input"));
  note("filtered", `${shown()} ${panel.hidden}`);
  slider.value = 0.05;
  slider.dispatchEvent(new Event("input"));
  note("all", `${shown()}`);
});
</script></body>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_boxes_can_be_filtered_and_chosen_in_a_browser(tmp_path: Path) -> None:
    page = report(tmp_path / "r.html", picture(found([0.9, 0.5, 0.1])))
    (tmp_path / "act.html").write_text(page.replace("</body>", ACT), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "act.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    notes = dict(re.findall(r'<p id="(\w+)">(.*?)</p>', done.stdout, re.DOTALL))
    assert notes["start"] == "2 true"
    assert notes["pressed"] == "false true 4"
    assert all(text in notes["figures"] for text in ("Score0.500", "Predicted quality0.625", "Left", "90 %", "nats"))
    assert notes["closed"] == "true false"
    assert notes["clicked"] == "true"
    assert notes["filtered"] == "0 true"
    assert notes["all"] == "3"
