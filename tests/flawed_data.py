"""Small data sets on disk with one flaw or many, for the tests of the doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gfocal.analysis.doctor import Report

HEIGHT, WIDTH = 60, 80
Content = dict[str, list[dict[str, Any]]]


def clean() -> dict[str, Content]:
    """Return two splits of three pictures each, with a box of either class in every picture."""
    splits: dict[str, Content] = {}
    for split in ("train", "val"):
        images = [
            {"id": number, "file_name": f"{split}{number}.png", "width": WIDTH, "height": HEIGHT} for number in range(3)
        ]
        boxes = [(number, label, [10 + 5 * number, 10, 20, 30]) for number in range(3) for label in (1, 2)]
        splits[split] = {
            "images": images,
            "annotations": [
                {"id": place + 1, "image_id": number, "category_id": label, "bbox": [box[0] + 10 * label, *box[1:]]}
                for place, (number, label, box) in enumerate(boxes)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
    return splits


def write(folder: Path, splits: dict[str, Content]) -> Path:
    """Write a data set: every picture of a noise of its own."""
    noise = np.random.default_rng(0)
    for split, content in splits.items():
        (folder / f"{split}.json").write_text(json.dumps(content))
        for image in content["images"]:
            pixels = noise.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / image["file_name"])
    lines = [f"{split}: {{images: ., annotations: {split}.json}}" for split in splits]
    (folder / "data.yaml").write_text("\n".join(lines))
    return folder


def add(content: Content, box: list[Any], *, image: int = 0, label: int = 1, **more: Any) -> None:
    content["annotations"].append({"id": 99, "image_id": image, "category_id": label, "bbox": box, **more})


def flawed(folder: Path, kind: str) -> Path:
    """Write a data set with one flaw of a kind."""
    splits = clean()
    train, val = splits["train"], splits["val"]
    first = train["annotations"][0]["bbox"]
    changes: dict[str, Any] = {
        "malformed": lambda: add(train, ["left", 2, 3, 4]),
        "class": lambda: add(train, [1, 2, 9, 9], label=7),
        "reversed": lambda: add(train, [40, 40, -9, 9]),
        "empty": lambda: add(train, [5, 5, 0, 20]),
        "thin": lambda: add(train, [5, 5, 20, 0.5]),
        "outside": lambda: add(train, [90, 5, 20, 20]),
        "partly-outside": lambda: add(train, [70, 5, 20, 20]),
        "duplicate": lambda: add(train, first),
        "conflict": lambda: add(train, first, label=2),
        "crowd": lambda: add(train, [1, 1, 40, 40], iscrowd=1),
        "no-boxes": lambda: train["images"].append(
            {"id": 9, "file_name": "bare.png", "width": WIDTH, "height": HEIGHT}
        ),
        "classes-differ": lambda: val["categories"].__setitem__(1, {"id": 3, "name": "dog"}),
        "class-missing": lambda: add(train, [3, 3, 30, 30], label=3),
        "class-unused": lambda: None,
    }
    if kind in ("class-missing", "class-unused"):
        for content in (train, val):
            content["categories"].append({"id": 3, "name": "bird"})
    changes.get(kind, lambda: None)()
    if kind == "classes-differ":
        for annotation in val["annotations"]:
            annotation["category_id"] = {1: 1, 2: 3}[annotation["category_id"]]
    write(folder, splits)
    if kind == "picture":
        path = folder / "train1.png"
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "size":
        Image.new("RGB", (WIDTH // 2, HEIGHT)).save(folder / "train1.png")
    elif kind in ("leak", "repeated"):
        Image.open(folder / "train1.png").save(folder / ("val2.png" if kind == "leak" else "train2.png"), dpi=(72, 72))
    return folder


def found(report: Report) -> dict[str, int]:
    return {finding.kind: finding.count for finding in report.findings}


def everything_wrong(folder: Path) -> Path:
    """Write a data set with flaws of many kinds at once."""
    splits = clean()
    for box in ([5, 5, 0, 20], [5, 5, 20, 0.5], [90, 5, 20, 20], [70, 5, 20, 20], [1e6, 5, 20, 20]):
        add(splits["train"], box, image=1)
    add(splits["val"], ["left", 2, 3, 4])
    splits["train"]["categories"].append({"id": 3, "name": "<b>bird</b> & co"})
    write(folder, splits)
    (folder / "train0.png").write_bytes(b"no picture")
    Image.open(folder / "train2.png").save(folder / "val2.png")
    return folder
