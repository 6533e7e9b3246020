"""Detections as a first draft of annotations, in the files that labelling tools read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from gfocal.files import whole_or_absent
from gfocal.structures import Detections

Size = tuple[int, int]

_DOUBTS = ("quality", "edge_std", "edge_interval", "edge_band", "outer_box", "inner_box")


def label_studio_config(class_names: Sequence[str]) -> str:
    """Return the labelling configuration of a Label Studio project that takes what `to_label_studio` returns.

    >>> print(label_studio_config(["cat"]))
    <View>
      <Image name="image" value="$image"/>
      <RectangleLabels name="label" toName="image">
        <Label value="cat"/>
      </RectangleLabels>
    </View>
    """
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in class_names)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
        f"{labels}\n  </RectangleLabels>\n</View>"
    )


def to_label_studio(image: str, size: Size, found: Detections, *, model: str = "gfocal") -> dict[str, Any]:
    """Return a task of Label Studio with the detections as its prediction, for a JSON list of tasks to import.

    image: where Label Studio finds the picture, a URL or `/data/local-files/?d=...`. size: (height, width) of the
    picture. model: what the prediction is signed with. Each box has its score, and in `meta` what `Detections.to_dict`
    tells of its edges, in pixels; the lowest score is the task's, so that sorting by it shows doubtful ones first.

    >>> import torch
    >>> found = Detections(torch.tensor([[5.0, 10, 15, 30]]), torch.tensor([0.5]), torch.tensor([0]), ("cat",))
    >>> task = to_label_studio("http://host/a.png", (40, 20), found)
    >>> task["predictions"][0]["result"][0]["value"]
    {'x': 25.0, 'y': 25.0, 'width': 50.0, 'height': 50.0, 'rotation': 0, 'rectanglelabels': ['cat']}
    """
    height, width = size
    result: list[dict[str, Any]] = []
    for number, row in enumerate(found.to_dict()["boxes"], start=1):
        left, top, right, bottom = _shares(row["box"], size)
        value = {"x": 100 * left, "y": 100 * top, "width": 100 * (right - left), "height": 100 * (bottom - top)}
        result.append(
            {
                "id": f"box{number}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {**value, "rotation": 0, "rectanglelabels": [row["label"]]},
                "score": row["score"],
                "meta": _doubts(row),
            }
        )
    prediction: dict[str, Any] = {"model_version": model, "result": result}
    if result:
        prediction["score"] = min(row["score"] for row in result)
    return {"data": {"image": image}, "predictions": [prediction]}


def to_fiftyone(size: Size, found: Detections) -> list[dict[str, Any]]:
    """Return the detections of a picture as rows of a FiftyOne image detection dataset.

    size: (height, width) of the picture. Boxes are x, y, width, height as shares of it; what `Detections.to_dict` tells
    of the edges, in pixels, stands among the attributes.

    >>> import torch
    >>> found = Detections(torch.tensor([[5.0, 10, 15, 30]]), torch.tensor([0.5]), torch.tensor([0]), ("cat",))
    >>> to_fiftyone((40, 20), found)
    [{'label': 'cat', 'bounding_box': [0.25, 0.25, 0.5, 0.5], 'confidence': 0.5, 'attributes': {}}]
    """
    rows: list[dict[str, Any]] = []
    for row in found.to_dict()["boxes"]:
        left, top, right, bottom = _shares(row["box"], size)
        rows.append(
            {
                "label": row["label"],
                "bounding_box": [left, top, right - left, bottom - top],
                "confidence": row["score"],
                "attributes": _doubts(row),
            }
        )
    return rows


def write_label_studio(path: Path, pictures: Iterable[tuple[str, Size, Detections]], *, model: str = "gfocal") -> None:
    """Write a file of tasks for Label Studio to import, whole or not at all; pictures: as of `to_label_studio`.

    >>> write_label_studio(Path("tasks.json"), [("/data/a.png", (40, 20), found)])  # doctest: +SKIP
    """
    _write(path, [to_label_studio(image, size, found, model=model) for image, size, found in pictures])


def write_fiftyone(folder: Path, pictures: Mapping[str, tuple[Size, Detections]], class_names: Sequence[str]) -> None:
    """Write `labels.json` of a FiftyOneImageDetectionDataset, whose pictures lie in the sub-folder `data`.

    pictures: size and detections by the name of the file without its ending, by which FiftyOne finds it.

    >>> write_fiftyone(Path("drafts"), {"a": ((40, 20), found)}, ["cat"])  # doctest: +SKIP
    """
    labels = {name: to_fiftyone(size, found) for name, (size, found) in pictures.items()}
    _write(folder / "labels.json", {"classes": list(class_names), "labels": labels})


def _shares(box: Sequence[float], size: Size) -> tuple[float, float, float, float]:
    """Return a box as shares of its picture."""
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be (height, width), each at least 1, got {size}")
    left, top, right, bottom = box
    return left / width, top / height, right / width, bottom / height


def _doubts(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _DOUBTS if name in row}


def _write(path: Path, values: object) -> None:
    with whole_or_absent(path) as scratch:
        scratch.write_text(json.dumps(values), encoding="utf-8")
