"""A video is there when its last picture was written, and not before."""

from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfocal.draw.videos import new_video
from gfocal.errors import UserError

RED = np.full((48, 64, 3), (200, 30, 10), dtype=np.uint8)


def frames(path: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(read[1][..., ::-1])
    return found


def test_what_was_written_can_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.mp4"
    with new_video(path, size=RED.shape[:2], rate=12.5) as write:
        for _ in range(5):
            write(RED)
            assert not path.exists()
    assert len(frames(path)) == 5
    np.testing.assert_allclose(frames(path)[4].mean((0, 1)), RED[0, 0], atol=6)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == 12.5
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_an_odd_size_loses_no_more_than_its_last_row_and_column(tmp_path: Path) -> None:
    with new_video(tmp_path / "a.mp4", size=(47, 63), rate=10) as write:
        write(RED[:47, :63])
    assert frames(tmp_path / "a.mp4")[0].shape == (46, 62, 3)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("endless", [False, True])
def test_what_is_interrupted_is_absent_unless_that_is_its_end(
    tmp_path: Path, endless: bool, stop: type[BaseException]
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"of an earlier run")

    def interrupted() -> None:
        with new_video(path, size=RED.shape[:2], rate=10, endless=endless) as write:
            write(RED)
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == (["a.mp4"] if endless else [])
    assert len(frames(path)) == (1 if endless else 0)


@pytest.mark.parametrize(("size", "seen"), [((1, 1), (2, 2)), ((9000, 10), (8190, 8)), ((10, 20000), (4, 8190))])
def test_a_size_that_the_codec_does_not_take_is_resized(
    tmp_path: Path, size: tuple[int, int], seen: tuple[int, int]
) -> None:
    with new_video(tmp_path / "a.mp4", size=size, rate=10) as write:
        write(np.zeros((*size, 3), dtype=np.uint8))
    assert [frame.shape[:2] for frame in frames(tmp_path / "a.mp4")] == [seen]


def test_a_picture_of_another_size_is_resized(tmp_path: Path) -> None:
    with new_video(tmp_path / "a.mp4", size=RED.shape[:2], rate=10) as write:
        write(RED)
        write(RED[:20, :30])
    assert [frame.shape for frame in frames(tmp_path / "a.mp4")] == [RED.shape] * 2
    np.testing.assert_allclose(frames(tmp_path / "a.mp4")[1].mean((0, 1)), RED[0, 0], atol=6)


@pytest.mark.parametrize(
    ("rate", "kept"),
    [(0.0001, 0.01), (30000 / 1001, 29.97), (99.999, 100.0), (123.4567, 123.46), (999.123, 999.1), (90000.0, 1000.0)],
)
def test_any_rate_becomes_one_that_the_codec_takes(tmp_path: Path, rate: float, kept: float) -> None:
    with new_video(tmp_path / "a.mp4", size=RED.shape[:2], rate=rate) as write:
        write(RED)
        write(RED)
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(kept)


def test_a_full_disk_is_told_and_leaves_no_broken_video(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)

    def fill() -> None:
        with new_video(tmp_path / "a.mp4", size=(48, 64), rate=10) as write:
            for picture in noise:
                write(picture)

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"a\.mp4: only \d+ of 20 frames could be written.*--no-draw"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    fill()
    assert len(frames(tmp_path / "a.mp4")) == 20


def test_an_opencv_without_the_codec_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfocal.draw.videos.CODEC", "none")
    with (
        pytest.raises(UserError, match=r"a\.mp4: OpenCV cannot write.*--no-draw"),
        new_video(tmp_path / "a.mp4", size=(48, 64), rate=10),
    ):
        pytest.fail("the body must not run")
    assert list(tmp_path.iterdir()) == []
