"""Detections of files on disk: found, drawn and told as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    """Return one line of JSON: file, height, width, and `boxes` as `Detections.to_dict` tells them.

    >>> import torch
    >>> found = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), ("cat",))
    >>> to_json(Path("a.png"), np.zeros((4, 6, 3), np.uint8), found)
    '{"file": "a.png", "height": 4, "width": 6, "boxes": []}'
    """
    height, width = picture.shape[:2]
    return json.dumps({"file": str(file), "height": height, "width": width, **found.to_dict()})
