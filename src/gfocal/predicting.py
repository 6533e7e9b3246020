"""Detections of files on disk: found, drawn and told as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gfocal.data.pictures import read_picture
from gfocal.draw.pictures import draw_detections
from gfocal.errors import UserError
from gfocal.files import whole_or_absent
from gfocal.model import Model
from gfocal.structures import Detections

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Endings of the files that are taken from a folder; a file named itself may have any."""


def picture_files(paths: Sequence[Path]) -> list[Path]:
    """Return the picture files that paths stand for: files themselves, folders searched with their sub-folders.

    UserError for a path that is missing, and a folder without a picture.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"{path}: the folder holds no picture ({', '.join(sorted(SUFFIXES))})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return files


def draw_to_folder(
    model: Model,
    files: Sequence[Path],
    out: Path,
    *,
    threshold: float,
    size: tuple[int, int] | None = None,
    precision: str | None = None,
    edges: bool = True,
) -> Iterator[tuple[Path, npt.NDArray[np.uint8], Detections]]:
    """Yield each file with its picture and detections, after its drawing has been written to `out` as PNG.

    threshold: lowest score. edges: whether the edge distributions are drawn. Drawings of files of one name from
    several folders get a number. UserError where a file cannot be read, or `out` not written to.
    """
    taken: dict[str, int] = {}
    for file in files:
        picture = read_picture(file)
        found = model.predict(picture, size=size, precision=precision, threshold=threshold)
        number = taken[file.stem] = taken.get(file.stem, 0) + 1
        name = file.stem if number == 1 else f"{file.stem}-{number}"
        drawing = draw_detections(picture, found, edges=edges, threshold=threshold)
        with whole_or_absent(out / f"{name}.png") as scratch:
            drawing.save(scratch, format="PNG")
        yield file, picture, found


def to_json(file: Path, picture: npt.NDArray[np.uint8], found: Detections) -> str:
    """Return one line of JSON: file, height, width, and each box with its score, class and edge uncertainty.

    `box` is xyxy in pixels; `edge_std` the standard deviation of its left, top, right and bottom edge in pixels.
    """
    boxes: list[dict[str, Any]] = [
        {
            "label": name,
            "score": round(score, 4),
            "box": [round(value, 2) for value in box],
        }
        for name, score, box in zip(found.names, found.scores.tolist(), found.boxes.tolist(), strict=True)
    ]
    if found.edges is not None:
        for row, stds in zip(boxes, found.edges.std.tolist(), strict=True):
            row["edge_std"] = [round(value, 2) for value in stds]
    if found.quality is not None:
        for row, quality in zip(boxes, found.quality.tolist(), strict=True):
            row["quality"] = round(quality, 4)
    height, width = picture.shape[:2]
    return json.dumps({"file": str(file), "height": height, "width": width, "boxes": boxes})
