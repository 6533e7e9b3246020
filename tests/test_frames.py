"""Frames come from pictures, web servers, videos and streams as they are there, and each failure names its source."""

from __future__ import annotations

import base64
import io
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from films import write_film
from gfocal.download import without_login
from gfocal.errors import UserError
from gfocal.frames import Kind, Source
from sites import Site, site

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as server:
        yield server


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_picture_file_is_one_frame(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    source = Source(str(tmp_path / "a.png"), "file")
    (frame,) = source.frames()
    assert (frame.name, frame.title, frame.index, frame.seconds) == (source.place, source.place, None, None)
    assert np.array_equal(frame.picture, PIXELS)
    assert (source.stem, source.count(), source.moving, source.live) == ("a", 1, False, False)


@pytest.mark.parametrize("kind", ["file", "address"])
def test_a_long_name_is_cut_for_what_is_written(kind: Kind) -> None:
    long = "é" * 123 + "x.png"
    source = Source(f"https://host/{long}" if kind == "address" else f"deep/{long}", kind)
    assert source.stem == "é" * 100
    assert Source("deep/" + "a" * 200 + ".png", "file").stem == "a" * 200
    assert Source("deep/x" + "é" * 120 + ".png", "file").stem == "x" + "é" * 99


# ---------------------------------------------------------------- web servers


def test_a_picture_on_a_server_is_one_frame(web: Site) -> None:
    web.pages["/deep/a%20b.png?width=3"] = png()
    source = Source(f"{web.url}/deep/a%20b.png?width=3", "address")
    (frame,) = source.frames()
    assert np.array_equal(frame.picture, PIXELS)
    assert frame.name == source.place
    assert source.stem == "a-b"


@pytest.mark.parametrize(
    ("path", "says"),
    [("/none.png", "status 404"), ("/text.png", "not a picture of a known kind"), ("/empty.png", "not a picture")],
)
def test_what_a_server_has_instead_of_a_picture_is_named(web: Site, path: str, says: str) -> None:
    web.pages |= {"/text.png": b"<!DOCTYPE html>", "/empty.png": b""}
    with pytest.raises(UserError, match=says) as error:
        list(Source(web.url + path, "address").frames())
    assert str(error.value).startswith(web.url + path)


def test_a_download_has_a_limit(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    web.pages["/a.png"] = png()
    monkeypatch.setattr("gfocal.frames.LARGEST_DOWNLOAD", len(png()))
    assert len(list(Source(f"{web.url}/a.png", "address").frames())) == 1
    monkeypatch.setattr("gfocal.frames.LARGEST_DOWNLOAD", len(png()) - 1)
    with pytest.raises(UserError, match=r"a\.png: more than [\d,]+ bytes"):
        list(Source(f"{web.url}/a.png", "address").frames())


def test_a_server_that_is_not_there_or_breaks_off_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"

        def half() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + png()[:100])
            connection.close()

        thread = threading.Thread(target=half)
        thread.start()
        with pytest.raises(UserError, match=r"a\.png: .*broke off after 100 bytes"):
            list(Source(url, "address").frames())
        thread.join()
    with pytest.raises(UserError, match=r"a\.png: cannot be downloaded \(.*refused"):
        list(Source(url, "address").frames())


def test_logins_are_told_to_the_server_and_to_nobody_else(web: Site) -> None:
    web.pages["/a.png"] = png()
    url = web.url.replace("://", "://me:s%40cret@")
    (frame,) = Source(f"{url}/a.png", "address").frames()
    assert frame.name == f"{web.url}/a.png"
    assert web.logins == ["Basic " + base64.b64encode(b"me:s@cret").decode()]
    with pytest.raises(UserError, match="status 404") as error:
        list(Source(f"{url}/none.png", "address").frames())
    assert "cret" not in str(error.value)
    assert without_login("http://host/a@b") == "http://host/a@b"


# ---------------------------------------------------------------- videos


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_the_frames_of_a_video_come_in_order_with_their_time(tmp_path: Path, name: str) -> None:
    source = Source(str(write_film(tmp_path / name)), "video")
    frames = list(source.frames())
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.title for frame in frames] == [f"{source.place}#{index}" for index in range(8)]
    assert [frame.seconds for frame in frames] == pytest.approx([index / 10 for index in range(8)], abs=0.002)
    assert {frame.rate for frame in frames} == {10.0}
    for index, frame in enumerate(frames):
        assert frame.picture.shape == (48, 64, 3)
        np.testing.assert_allclose(frame.picture.mean((0, 1)), (20 * index, 100, 200), atol=6)
    assert source.count() == 8


def moov_first(content: bytes) -> bytes:
    """Return an MP4 file that OpenCV has written as the web has them, with the index before the frames."""
    frames_at, index_at = content.index(b"mdat") - 4, content.index(b"moov") - 4
    index = bytearray(content[index_at:])
    table = index.index(b"stco")
    count = int.from_bytes(index[table + 8 : table + 12], "big")
    for at in range(table + 12, table + 12 + 4 * count, 4):
        index[at : at + 4] = (int.from_bytes(index[at : at + 4], "big") + len(index)).to_bytes(4, "big")
    return content[:frames_at] + bytes(index) + content[frames_at:index_at]


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mp4"])
def test_a_video_that_is_cut_off_gives_its_frames_and_then_says_so(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, frames=60)
    content = moov_first(path.read_bytes()) if name == "a.mp4" else path.read_bytes()
    path.write_bytes(content)
    assert len(list(Source(str(path), "video").frames())) == 60
    path.write_bytes(content[: int(0.6 * len(content))])
    frames = Source(str(path), "video").frames()
    seen: list[int | None] = []
    with pytest.raises(UserError, match=rf"{name}: gave \d+ of about 60 frames") as error:  # noqa: PT012
        for frame in frames:
            seen.append(frame.index)
    assert f"gave {len(seen)} of" in str(error.value)
    assert 10 < len(seen) < 50


def test_a_video_that_is_to_show_only_a_part_is_whole(web: Site, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", frames=60)
    content = bytearray(path.read_bytes())
    ticks = int.from_bytes(content[(at := content.index(b"mdhd") + 16) : at + 4], "big")
    start = content.index(b"elst") + 16
    content[start : start + 4] = (5 * ticks).to_bytes(4, "big")  # an edit list that leaves out 5 of 6 seconds
    path.write_bytes(content)
    web.pages["/a.mp4?x=1"] = bytes(content)
    for place in (str(path), f"{web.url}/a.mp4?x=1"):
        assert len(list(Source(place, "video").frames())) == 10


def test_of_a_video_some_frames_can_be_asked_for(tmp_path: Path) -> None:
    source = Source(str(write_film(tmp_path / "a.avi")), "video")
    assert [frame.index for frame in source.frames(every=3)] == [0, 3, 6]
    assert [frame.index for frame in source.frames(every=3, start=4)] == [6]
    assert [frame.index for frame in source.frames(start=8)] == []
    assert source.count(every=3) == 3
    assert [frame.seconds for frame in source.frames(every=3)] == pytest.approx([0, 0.3, 0.6], abs=0.002)


def test_a_video_on_a_server_is_read_like_a_file(web: Site, tmp_path: Path) -> None:
    web.pages["/a.avi"] = write_film(tmp_path / "a.avi").read_bytes()
    assert [frame.index for frame in Source(f"{web.url}/a.avi", "video").frames()] == list(range(8))


def test_the_frames_of_a_stream_come_until_it_ends(tmp_path: Path) -> None:
    content = write_film(tmp_path / "a.avi").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.sendall(content)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        source = Source(f"tcp://127.0.0.1:{listener.getsockname()[1]}", "live")
        frames = list(source.frames(every=2))
        thread.join()
    indices = [frame.index for frame in frames]
    assert set(indices) <= {0, 2, 4, 6}  # what comes while nobody asks is lost
    assert indices == sorted(indices, key=lambda index: index or 0)
    assert indices[-1] == 6
    seconds = [frame.seconds or 0 for frame in frames]
    assert seconds == sorted(seconds)
    assert (source.live, source.moving, source.count(), source.stem) == (True, True, None, "127.0.0.1")


def test_a_camera_on_a_server_is_read_as_a_stream_and_not_as_a_picture(web: Site) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="JPEG")
    part = b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"
    content = (part % (buffer.tell(), buffer.getvalue())) * 9
    for path, kind in (("/cam", "multipart/x-mixed-replace; boundary=part"), ("/clip", "video/mp4")):
        web.pages[path], web.kinds[path] = content, kind
        with pytest.raises(UserError, match=rf"{path}: a video \({kind.split(';')[0]}\), no picture: .*add \?\.mjpg"):
            list(Source(web.url + path, "address").frames())
    web.pages["/cam?.mjpg"], web.kinds["/cam?.mjpg"] = content, web.kinds["/cam"]
    *_, last = Source(f"{web.url}/cam?.mjpg", "live").frames()
    assert last.picture.shape == PIXELS.shape


@pytest.mark.parametrize(
    ("place", "kind"),
    [("bad.mp4", "video"), ("missing.avi", "video"), ("tcp://127.0.0.1:9", "live"), ("camera:99", "live")],
)
def test_what_is_no_video_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, kind: Kind) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.mp4").write_bytes(b"nonsense" * 99)
    source = Source(place, kind)
    with pytest.raises(UserError, match=f"{place}: cannot be opened as a video"):
        list(source.frames())
    assert source.count() is None


def test_nothing_is_printed_of_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nonsense" * 99)
    code = (
        "from gfocal.frames import Source\n"
        "for place, kind in (('camera:99', 'live'), ('bad.mp4', 'video'), ('tcp://127.0.0.1:9', 'live')):\n"
        "    try:\n        next(Source(place, kind).frames())\n    except ValueError:\n        pass"
    )
    # FFmpeg reads how much it is to say once a process, and earlier tests have started it
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_long_video_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    source = Source(str(write_film(tmp_path / "a.avi", frames=60, size=(240, 320))), "video")
    tracemalloc.start()
    try:
        count = sum(1 for _ in source.frames())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 60
    assert 240 * 320 * 3 < peak < 5 * 240 * 320 * 3
