"""Drawings bear a mark, and the pictures and videos of a user do not."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from films import write_film
from gfocal.draw.marking import is_drawing, mark_video, save_picture


def test_drawings_are_told_from_what_is_none(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 6), "red")
    picture.save(tmp_path / "own.png")
    write_film(tmp_path / "own.mp4")
    (tmp_path / "empty.png").touch()
    assert not any(is_drawing(tmp_path / name) for name in ("own.png", "own.mp4", "empty.png", "none.png", "."))
    save_picture(picture, tmp_path / "own.png")
    mark_video(tmp_path / "own.mp4")
    assert is_drawing(tmp_path / "own.png")
    assert is_drawing(tmp_path / "own.mp4")
    assert Image.open(tmp_path / "own.png").getpixel((0, 0)) == (255, 0, 0)
