"""Every kind of picture file is read as the same uint8 RGB array, and every broken one is a one-line UserError."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gfocal.data.pictures import LARGEST_PICTURE, read_picture, to_rgb, value_text
from gfocal.errors import UserError

EXIF_ORIENTATION = 0x0112


def noise(height: int = 24, width: int = 36, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int = 24, width: int = 36) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 5, y * 8, 255 - x * 3], -1).astype(np.uint8)


def saved(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def message(path: Path | str, size: tuple[int, int] | None = None) -> str:
    """Return the text of the UserError that reading must raise: one line that names the file."""
    with pytest.raises(UserError) as caught:
        read_picture(path, size=size)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def check_form(array: np.ndarray, height: int, width: int) -> None:
    assert array.shape == (height, width, 3)
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable


def png_header(width: int, height: int, data: bytes = b"") -> bytes:
    """Return an RGB PNG that claims width x height pixels, whatever it holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", data or zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_rgb_comes_back_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    pixels = noise()
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a picture.{suffix}", Image.fromarray(pixels), **options)
    array = read_picture(path)
    check_form(array, 24, 36)
    assert np.array_equal(array, pixels)
    assert np.array_equal(read_picture(str(path), size=(24, 36)), pixels)
    array[0, 0] = 7  # it belongs to the caller


def test_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(smooth()), quality=95)
    array = read_picture(path)
    check_form(array, 24, 36)
    assert np.abs(array.astype(int) - smooth()).mean() < 4
    with Image.open(path) as picture:
        assert np.array_equal(array, np.asarray(picture))
        assert np.array_equal(array, to_rgb(picture))


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = noise()[..., 0]
    array = read_picture(saved(tmp_path / "grey.png", Image.fromarray(grey)))
    check_form(array, 24, 36)
    assert np.array_equal(array, np.stack([grey] * 3, -1))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped(tmp_path: Path, mode: str) -> None:
    pixels = noise()
    picture = Image.fromarray(pixels).convert(mode)
    picture.putalpha(Image.fromarray(noise(seed=1)[..., 0]))
    array = read_picture(saved(tmp_path / "alpha.png", picture))
    check_form(array, 24, 36)
    wanted = pixels if mode == "RGBA" else np.stack([np.asarray(Image.fromarray(pixels).convert("L"))] * 3, -1)
    assert np.array_equal(array, wanted)


@pytest.mark.parametrize(
    ("suffix", "transparency"),
    [("png", None), ("png", 3), ("png", bytes(range(256))), ("gif", None), ("gif", 3)],
)
def test_palette(tmp_path: Path, suffix: str, transparency: int | bytes | None) -> None:
    picture = Image.fromarray(noise()).quantize(200)
    options = {} if transparency is None else {"transparency": transparency}
    array = read_picture(saved(tmp_path / f"palette.{suffix}", picture, **options))
    check_form(array, 24, 36)
    assert np.array_equal(array, np.asarray(picture.convert("RGB")))


def test_cmyk(tmp_path: Path) -> None:
    colours = np.array([[[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]], dtype=np.uint8)
    pixels = colours.repeat(16, 0).repeat(16, 1)
    tiff = read_picture(saved(tmp_path / "cmyk.tiff", Image.fromarray(pixels).convert("CMYK")))
    jpeg = read_picture(saved(tmp_path / "cmyk.jpg", Image.fromarray(pixels).convert("CMYK"), quality=95))
    check_form(jpeg, 16, 80)
    assert np.array_equal(tiff, pixels)
    assert np.abs(jpeg.astype(int) - pixels).mean() < 8


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_grey_uses_its_whole_range(tmp_path: Path, suffix: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(128, 512)
    array = read_picture(saved(tmp_path / f"deep.{suffix}", Image.fromarray(values)))
    check_form(array, 128, 512)
    assert np.array_equal(array[..., 0], np.rint(values / 257).astype(np.uint8))
    assert np.array_equal(array[..., 0], array[..., 2])
    assert (array.min(), array.max()) == (0, 255)


def test_thirty_two_bit_integers_are_read_as_sixteen_or_refused(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 64, dtype=np.int32).reshape(32, 32)
    array = read_picture(saved(tmp_path / "deep.tiff", Image.fromarray(values)))
    assert np.array_equal(array[..., 1], np.rint(values / 257).astype(np.uint8))
    assert "from 0 to 130944" in message(saved(tmp_path / "deeper.tiff", Image.fromarray(values * 2)))
    assert "from -1 to" in message(saved(tmp_path / "below.tiff", Image.fromarray(values - 1)))
    assert "floating" in message(saved(tmp_path / "float.tiff", Image.fromarray(values.astype(np.float32))))


def test_one_bit(tmp_path: Path) -> None:
    bits = noise()[..., 0] > 127
    for suffix in ("png", "tiff"):
        array = read_picture(saved(tmp_path / f"bits.{suffix}", Image.fromarray(bits)))
        check_form(array, 24, 36)
        assert np.array_equal(array[..., 0], np.where(bits, 255, 0))


def test_smallest_picture(tmp_path: Path) -> None:
    path = saved(tmp_path / "one.png", Image.fromarray(noise(1, 1)))
    assert np.array_equal(read_picture(path, size=(1, 1)), noise(1, 1))


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return stored pixels turned upright, from the definition of the tag: which edge row 0 and column 0 are."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    pixels = pixels[::-1] if upside_down else pixels
    return pixels[:, ::-1] if mirrored else pixels


def oriented(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    options = {"compression": "tiff_lzw"} if path.suffix == ".tif" else {}
    return saved(path, Image.fromarray(pixels), exif=exif, **options)


@pytest.mark.parametrize("suffix", ["png", "tiff", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    pixels = noise()
    path = oriented(tmp_path / f"turned.{suffix}", pixels, orientation)
    upright = turned(pixels, orientation)
    array = read_picture(path)
    check_form(array, *upright.shape[:2])
    assert np.array_equal(array, upright)
    assert np.array_equal(read_picture(path, size=upright.shape[:2]), upright)
    with Image.open(path) as picture:
        assert np.array_equal(to_rgb(picture), upright)


@pytest.mark.parametrize("suffix", ["png", "tiff", "tif"])
@pytest.mark.parametrize("orientation", range(5, 9))
def test_a_picture_annotated_as_stored_stays_as_stored(tmp_path: Path, orientation: int, suffix: str) -> None:
    pixels = noise()
    path = oriented(tmp_path / f"turned.{suffix}", pixels, orientation)
    array = read_picture(path, size=(24, 36))
    check_form(array, 24, 36)
    assert np.array_equal(array, pixels)


def test_orientation_of_a_square_picture_is_applied(tmp_path: Path) -> None:
    pixels = noise(20, 20)
    path = oriented(tmp_path / "square.png", pixels, 6)
    assert np.array_equal(read_picture(path, size=(20, 20)), turned(pixels, 6))


def test_orientation_of_jpeg_and_deep_grey(tmp_path: Path) -> None:
    path = oriented(tmp_path / "turned.jpg", smooth(), 6)
    assert np.abs(read_picture(path).astype(int) - turned(smooth(), 6)).mean() < 5
    values = (noise()[..., 0].astype(np.uint16) * 257)[..., None]
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 8
    deep = saved(tmp_path / "deep.png", Image.fromarray(values[..., 0]), exif=exif)
    assert np.array_equal(read_picture(deep)[..., :1], turned(values // 257, 8))


@pytest.mark.parametrize("orientation", [0, 9, 400])
def test_unknown_orientation_is_upright(tmp_path: Path, orientation: int) -> None:
    assert np.array_equal(read_picture(oriented(tmp_path / "a.png", noise(), orientation)), noise())


def test_damaged_exif_does_not_hinder_reading(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(smooth()), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_picture(path).shape == (24, 36, 3)
    path = saved(tmp_path / "b.jpg", Image.fromarray(smooth()), exif=b"Exif\0\0nonsense")
    assert read_picture(path).shape == (24, 36, 3)


def test_missing_folder_empty_and_other_files(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "missing.jpg")
    with pytest.raises(UserError, match=r"…x+: no such file") as caught:
        read_picture(tmp_path / ("x" * 5000))
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "folder" in message(tmp_path)
    (tmp_path / "empty.jpg").touch()
    assert "0 bytes" in message(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("This is no picture.\n" * 20)
    assert "not a picture" in message(tmp_path / "text.jpg")
    (tmp_path / "page.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert "EPS" in message(tmp_path / "page.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "regular file" in message(tmp_path / "pipe.jpg")


def test_path_that_cannot_be_printed_stays_on_one_line(tmp_path: Path) -> None:
    for name in ("two\nlines.jpg", "nul\0.jpg", "lone\udc80.jpg"):
        with pytest.raises(UserError) as caught:
            read_picture(tmp_path / name)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_truncated_jpeg_is_refused(tmp_path: Path, share: float, progressive: bool) -> None:
    whole = saved(tmp_path / "whole.jpg", Image.fromarray(noise(200, 300)), progressive=progressive).read_bytes()
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "cannot be read" in message(path)
    path.write_bytes(whole[:-2])
    assert "cannot be read" in message(path)


def test_truncated_pil_image_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(noise(200, 300)).save(file, "JPEG")
    with (
        pytest.raises(UserError, match="the picture: cannot be read"),
        Image.open(io.BytesIO(file.getvalue()[:-500])) as picture,
    ):
        to_rgb(picture)


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (13_378, 13_378), (2**31 - 1, 2**31 - 1)])
def test_bomb_is_refused_from_its_header(
    tmp_path: Path, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(width, height))
    for limit in (Image.MAX_IMAGE_PIXELS, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        start = time.perf_counter()
        assert f"{LARGEST_PICTURE:,} pixels" in message(tmp_path / "bomb.png")
        assert time.perf_counter() - start < 0.5


def test_large_picture_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "large.png", Image.fromarray(noise()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow warns from here on and refuses from twice as much
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(path).close()
    assert np.array_equal(read_picture(path), noise())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    message(path)


def test_threads_that_read_leave_the_filters_of_warnings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    changed_in: list[str] = []
    catch = warnings.catch_warnings

    def watched() -> warnings.catch_warnings[None]:
        changed_in.append(threading.current_thread().name)
        return catch()

    monkeypatch.setattr(warnings, "catch_warnings", watched)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(read_picture, tmp_path / "a.png").result().shape == (8, 8, 3)
    assert changed_in == []
    read_picture(tmp_path / "a.png")
    assert changed_in == ["MainThread"]


def test_size_mismatch_states_both_sizes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise()))
    text = message(path, size=(24, 37))
    assert "36 x 24" in text
    assert "37 x 24" in text
    message(path, size=(36, 24))
    message(oriented(tmp_path / "turned.png", noise(), 3), size=(36, 24))


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tiff", "tif", "bmp", "webp"])
def test_no_damage_escapes_as_another_error(tmp_path: Path, suffix: str) -> None:
    path = oriented(tmp_path / f"a.{suffix}", noise(16, 20), 6) if suffix != "gif" else tmp_path / "a.gif"
    if suffix == "gif":
        Image.fromarray(noise(16, 20)).save(path)
    whole = path.read_bytes()

    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8), st.integers(1, 999))
    def damage(changes: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(whole)
        for place, value in changes:
            data[place] = value
        path.write_bytes(bytes(data[: len(data) if cut > 500 else len(data) * cut // 500]) or b"x")
        try:
            array = read_picture(path)
        except UserError as error:
            assert str(error).isprintable()
        else:
            check_form(array, *array.shape[:2])

    damage()


def test_to_rgb_of_pillow_modes() -> None:
    pixels = noise()
    assert np.array_equal(to_rgb(Image.fromarray(pixels)), pixels)
    palette = Image.fromarray(pixels).quantize(50)
    palette.info["transparency"] = bytes(range(50))
    for picture in (palette, *(Image.fromarray(pixels).convert(m) for m in ("1", "L", "LA", "RGBA", "CMYK", "HSV"))):
        check_form(to_rgb(picture), 24, 36)
    with pytest.raises(UserError, match="no pixel"):
        to_rgb(Image.new("RGB", (4, 0)))


def test_to_rgb_does_not_change_the_pillow_image() -> None:
    picture = Image.fromarray(noise())
    to_rgb(picture)[:] = 0
    assert np.array_equal(np.asarray(picture), noise())


def test_to_rgb_of_arrays() -> None:
    pixels = noise()
    assert to_rgb(pixels) is pixels
    assert np.array_equal(to_rgb(pixels[::-1, ::-1]), pixels[::-1, ::-1])
    check_form(to_rgb(pixels[::2, 1:, ::-1]), 12, 35)
    frozen = noise()
    frozen.flags.writeable = False
    check_form(to_rgb(frozen), 24, 36)


@pytest.mark.parametrize(
    "array",
    [
        noise()[..., 0],
        noise().transpose(2, 0, 1),
        noise().astype(np.float32),
        noise().astype(np.int64),
        np.dstack([noise(), noise()[..., :1]]),
        noise()[:0],
        noise()[:, :0],
        noise()[None],
        np.zeros(()),
        np.array(["a"]),
    ],
)
def test_to_rgb_refuses_other_arrays(array: np.ndarray) -> None:
    with pytest.raises(UserError, match="uint8 RGB") as caught:
        to_rgb(array)
    assert str(array.shape) in str(caught.value)
    assert str(array.dtype) in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | st.text(),
        lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
        max_leaves=12,
    )
)
def test_value_text_is_one_short_line(value: object) -> None:
    text = value_text(value)
    assert text.isprintable()
    assert len(text) <= 100
