"""The page of `gfocal explain`: how long 50 pictures of 100 boxes take to write, and until the page answers."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gfocal.draw.explain.material import Explained
from gfocal.draw.explain.page import write_page
from gfocal.structures import Detections, EdgeDistributions

NAMES = tuple(f"class {label}" for label in range(80))
BINS = 17


def explained(index: int, *, boxes: int, candidates: int, size: tuple[int, int]) -> Explained:
    """Return a smooth noisy picture, as photographs are, with boxes anywhere."""
    generator = torch.Generator().manual_seed(index)
    height, width = size
    total = boxes + candidates
    corners = torch.rand(total, 2, generator=generator) * torch.tensor([width * 0.8, height * 0.8])
    places = torch.cat([corners, corners + 20 + torch.rand(total, 2, generator=generator) * height * 0.2], 1)
    scores = torch.rand(total, generator=generator).sort(descending=True).values
    labels = torch.randint(0, len(NAMES), (total,), generator=generator)
    probabilities = (torch.randn(total, 4, BINS, generator=generator) * 3).softmax(-1)
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None]
    positions = places[..., None] + sign * (torch.arange(BINS) - BINS // 2) * 4
    before = Detections(places, scores, labels, NAMES, scores, EdgeDistributions(probabilities, positions))
    rng = np.random.default_rng(index)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    picture = np.clip(picture + rng.integers(-12, 12, picture.shape), 0, 255).astype(np.uint8)
    classes = torch.rand(total, len(NAMES), generator=generator)
    return Explained(f"{index:03d}.jpg", picture, before, before[:boxes], torch.arange(boxes), classes)


def answers(page: Path) -> Iterator[tuple[str, float]]:
    """Yield what a reader waits for in headless Chromium, and for how many seconds."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        window = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        window.goto(page.as_uri(), wait_until="commit")
        window.wait_for_selector("#boxes li")
        window.keyboard.press("ArrowRight")
        window.wait_for_selector("#panel:not([hidden]) .one-edge")
        yield "opened, a box chosen and its edges shown", time.perf_counter() - start
        for name, act in (
            ("next picture", lambda: window.keyboard.press("n")),
            ("filter by score", lambda: window.locator("#score-low").fill("0.5")),
            ("before suppression", lambda: window.check("input[value=before]")),
        ):
            start = time.perf_counter()
            act()
            window.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
            yield name, time.perf_counter() - start
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--boxes", type=int, default=100, help="after suppression, a picture")
    parser.add_argument("--candidates", type=int, default=200, help="more before it")
    options = parser.parse_args()
    pictures = [
        explained(index, boxes=options.boxes, candidates=options.candidates, size=(960, 1280))
        for index in range(options.pictures)
    ]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        start = time.perf_counter()
        write_page(page, pictures, title="benchmark", class_names=NAMES)
        spent = time.perf_counter() - start
        print(f"{options.pictures} pictures of {options.boxes} boxes, {options.candidates} more before suppression")
        print(f"  written in {spent:.1f} s, {page.stat().st_size / 1e6:.1f} MB")
        for name, seconds in answers(page):
            print(f"  {name}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
