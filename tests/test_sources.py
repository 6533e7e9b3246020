"""Names stand for the same sources in the same order in every run, found one after the other."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from films import write_film
from gfocal.errors import UserError
from gfocal.sources import Sources, picture_files


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures, videos and other things, which the test runs in."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.jpg", "in/a.PNG", "in/c/d/e.webp", "in/notes.txt", "in/.hidden.jpg", "in/.git/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"not read")
    write_film(tmp_path / "in" / "c" / "clip.avi")
    return tmp_path


def places(*names: str, leave_out: Path | None = None) -> list[tuple[str, str]]:
    return [(source.place, source.kind) for source in Sources(names, leave_out)]


FOUND = [("in/a.PNG", "file"), ("in/b.jpg", "file"), ("in/c/clip.avi", "video"), ("in/c/d/e.webp", "file")]


@pytest.mark.usefixtures("here")
def test_folders_are_searched_by_name_and_only_for_what_is_wanted() -> None:
    assert places("in") == FOUND


@pytest.mark.usefixtures("here")
def test_what_is_named_twice_comes_once() -> None:
    assert places("in/b.jpg", "in", "in/**", "in/a.PNG") == [FOUND[1], FOUND[0], *FOUND[2:]]
    assert places("0", "camera:0") == [("camera:0", "live")]


@pytest.mark.usefixtures("here")
def test_a_file_that_is_named_is_taken_whatever_it_is_called() -> None:
    assert places("in/notes.txt", "in/c/clip.avi") == [("in/notes.txt", "file"), ("in/c/clip.avi", "video")]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("in/*", ["in/a.PNG", "in/b.jpg"]),
        ("in/**", ["in/a.PNG", "in/b.jpg", "in/c/clip.avi", "in/c/d/e.webp"]),
        ("in/**/*.avi", ["in/c/clip.avi"]),
        ("in/[ab].*", ["in/a.PNG", "in/b.jpg"]),
    ],
)
def test_globs_match_pictures_and_videos_once(pattern: str, found: list[str]) -> None:
    assert [place for place, _ in places(pattern)] == found


def test_a_file_whose_name_looks_like_something_else_is_a_file(here: Path) -> None:
    for name in ("photo[1].jpg", "0"):
        (here / name).write_bytes(b"")
    assert places("photo[1].jpg", "0") == [("photo[1].jpg", "file"), ("0", "file")]


@pytest.mark.parametrize(
    ("name", "place", "kind"),
    [
        ("0", "camera:0", "live"),
        ("camera:1", "camera:1", "live"),
        ("rtsp://10.0.0.7/door", "rtsp://10.0.0.7/door", "live"),
        ("https://host/a.jpg?x=1", "https://host/a.jpg?x=1", "address"),
        ("http://host/photo", "http://host/photo", "address"),
        ("https://host/a.MP4?x=1", "https://host/a.MP4?x=1", "video"),
        ("https://host/a.m3u8?x=1", "https://host/a.m3u8?x=1", "live"),
        ("http://host/cam.MJPG", "http://host/cam.MJPG", "live"),
        ("http://host/cam.cgi?.mjpg", "http://host/cam.cgi?.mjpg", "live"),
    ],
)
def test_cameras_and_addresses_are_told_apart(name: str, place: str, kind: str) -> None:
    assert places(name) == [(place, kind)]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.jpg", "missing.jpg: no such file"),
        ("in/*.gif", "matches no picture and no video"),
        ("in/.git", "holds no picture"),
        ("ftp://me:secret@host/a.jpg", "ftp://host/a.jpg: addresses of this kind"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(here: Path, name: str, says: str) -> None:
    (here / "in/.git/x.jpg").unlink()
    with pytest.raises(UserError, match=says):
        places(name)


def test_the_folder_for_results_is_not_searched_on_the_way(here: Path) -> None:
    assert places("in", leave_out=Path("in/c")) == FOUND[:2]
    assert places("in", leave_out=here / "in" / "c" / "d") == FOUND[:3]
    assert places("in/c", leave_out=Path("in/c")) == FOUND[2:]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_to_files_are_followed_and_links_to_folders_lead_nowhere(here: Path) -> None:
    (here / "in" / "z.jpg").symlink_to(here / "in" / "b.jpg")
    (here / "in" / "loop").symlink_to(here / "in")
    assert places("in") == [*FOUND, ("in/z.jpg", "file")]
    assert next(place for place, _ in places("in/loop")) == "in/loop/a.PNG"


@pytest.mark.usefixtures("here")
def test_frames_are_counted_as_far_as_is_known() -> None:
    assert Sources(["in"]).count() == 3 + 8
    assert Sources(["in"]).count(every=3) == 3 + 3
    assert Sources(["in", "camera:0"]).count() is None
    with pytest.raises(UserError, match=r"missing\.jpg"):
        Sources(["camera:0", "missing.jpg"]).count()


def test_all_frames_can_be_gone_through(here: Path) -> None:
    (here / "two").mkdir()
    Image.new("RGB", (4, 3)).save(here / "two" / "a.png")
    write_film(here / "two" / "b.mp4", frames=3)
    assert [frame.title for frame in Sources(["two"]).frames()] == [
        "two/a.png",
        *(f"two/b.mp4#{index}" for index in range(3)),
    ]


def test_many_folders_need_no_more_memory_than_the_largest(tmp_path: Path) -> None:
    for folder in range(10):
        (tmp_path / str(folder)).mkdir()
        for index in range(100):
            (tmp_path / str(folder) / f"picture-{index:06d}.jpg").touch()

    def peak(name: Path) -> tuple[int, int]:
        tracemalloc.start()
        try:
            count = sum(1 for _ in Sources([str(name)]))
            return count, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(tmp_path / "0")  # what is loaded once
    (one, least), (all_of_them, most) = peak(tmp_path / "0"), peak(tmp_path)
    assert (one, all_of_them) == (100, 1000)
    assert most < 2 * least


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """Make a folder one that this process may not read, even where it may all."""
    mode, user = folder.stat().st_mode, os.geteuid()
    here = Path.cwd()
    here.chmod(0o755)
    folder.chmod(0)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)


@pytest.mark.skipif(os.name == "nt", reason="rights are others there")
def test_a_sub_folder_that_cannot_be_read_is_told_in_its_turn(here: Path) -> None:
    with unreadable(here / "in" / "c"):
        assert places("in") == [*FOUND[:2], ("in/c", "closed")]
        assert Sources(["in"]).count() == 3
        *_, closed = Sources(["in"])
        for tell in (lambda: list(closed.frames()), lambda: picture_files([Path("in")]), lambda: places("in/c")):
            with pytest.raises(UserError, match="in/c: the folder cannot be read"):
                tell()


@pytest.mark.usefixtures("here")
def test_picture_files_leave_videos_out() -> None:
    assert picture_files([Path("in")]) == [Path(place) for place, kind in FOUND if kind == "file"]
    with pytest.raises(UserError, match="only videos"):
        picture_files([Path("in/c/clip.avi")])


@pytest.mark.usefixtures("here")
def test_a_glob_leaves_out_the_folder_of_the_results() -> None:
    assert [place for place, _ in places("in/**", leave_out=Path("in/c"))] == ["in/a.PNG", "in/b.jpg"]


def test_a_video_whose_name_is_not_utf8_is_refused_and_a_picture_is_not(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xe9")
    write_film(tmp_path / "clip.avi")
    os.rename(tmp_path / "clip.avi", tmp_path / f"{name}.avi")
    Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.png")
    video, picture = Sources([str(tmp_path)])
    with pytest.raises(UserError, match="must be UTF-8"):
        next(video.frames())
    assert next(picture.frames()).picture.shape == (6, 8, 3)
