"""A video is there when its last picture was written, and not before."""

from __future__ import annotations

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


@pytest.mark.parametrize("endless", [False, True])
def test_what_is_interrupted_is_absent_unless_that_is_its_end(tmp_path: Path, endless: bool) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"of an earlier run")

    def interrupted() -> None:
        with new_video(path, size=RED.shape[:2], rate=10, endless=endless) as write:
            write(RED)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == (["a.mp4"] if endless else [])
    assert len(frames(path)) == (1 if endless else 0)


def test_a_video_of_no_size_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(UserError, match=r"a\.mp4: OpenCV cannot write"),
        new_video(tmp_path / "a.mp4", size=(0, 0), rate=10),
    ):
        pytest.fail("the body must not run")
    assert list(tmp_path.iterdir()) == []
