"""Textures of pictures: fields of one number a pixel, the same to the byte on any machine."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from gfocal.data.shapes import Plane, below, between, direction

Size = tuple[int, int]
Bytes = npt.NDArray[np.uint8]


def texture(rng: np.random.Generator, size: Size, *, names: tuple[str, ...]) -> Plane:
    """Return a texture of `size` in 0..1, of a kind drawn from `names`."""
    return _TEXTURES[names[below(rng, len(names))]](rng, size)


def random_bytes(rng: np.random.Generator, size: Size) -> Bytes:
    """Return random bytes; the words of the generator itself, since its ranged draws are many times slower."""
    count = size[0] * size[1]
    words = np.asarray(rng.bit_generator.random_raw(-(-count // 8)), dtype="<u8")
    return np.reshape(np.frombuffer(words, dtype=np.uint8, count=count), size)


def enlarge(grid: Bytes, size: Size) -> Bytes:
    """Return `grid` at a larger `size` (height, width), bilinear and bit-exact."""
    return np.asarray(cv2.resize(grid, size[::-1], interpolation=cv2.INTER_LINEAR_EXACT), dtype=np.uint8)


def _spline(rng: np.random.Generator, size: Size, *, cells: float, octaves: int = 0) -> Plane:
    """Return smooth noise in 0..1 with about `cells` bumps along the longer side and `octaves` of finer ones.

    Each bilinear doubling cuts the corners of the one before: a quadratic B-spline in the limit.
    """
    height, width = size
    cell = max(height, width) / cells
    grid = random_bytes(rng, (int(height / cell) + 2, int(width / cell) + 2))
    while grid.shape[0] * 2 <= height and grid.shape[1] * 2 <= width:
        grid = enlarge(grid, (grid.shape[0] * 2, grid.shape[1] * 2))
        if octaves > 0:
            octaves -= 1
            grid += (random_bytes(rng, (grid.shape[0], grid.shape[1])) >> 2) - (grid >> 2)
    return _unit(enlarge(grid, size))


def _unit(grid: Bytes) -> Plane:
    return grid.astype(np.float32) * np.float32(1 / 255)


def _plain(rng: np.random.Generator, size: Size) -> Plane:
    return np.zeros((1, 1), dtype=np.float32)


def _noise(rng: np.random.Generator, size: Size) -> Plane:
    return _spline(rng, size, cells=between(rng, 1.5, 4.0), octaves=2)


def _grain(rng: np.random.Generator, size: Size) -> Plane:
    cell = 1 + below(rng, 3)
    return _unit(enlarge(random_bytes(rng, (size[0] // cell + 1, size[1] // cell + 1)), size))


def _gradient(rng: np.random.Generator, size: Size) -> Plane:
    x, y = direction(rng)
    span = abs(x) * size[1] + abs(y) * size[0]
    return _slope(size, across=x / span, down=y / span) + np.float32(0.5)


def _stripes(rng: np.random.Generator, size: Size) -> Plane:
    (x, y), period = direction(rng), between(rng, 5.0, 0.3 * max(size) + 5.0)
    phase = _slope(size, across=x / period, down=y / period)
    if rng.random() < 0.5:
        phase += _spline(rng, size, cells=between(rng, 1.5, 3.0)) * np.float32(between(rng, 0.3, 2.0))
    return _wave(phase, hardness=between(rng, 1.0, 6.0))


def _checks(rng: np.random.Generator, size: Size) -> Plane:
    (x, y), period, hardness = direction(rng), between(rng, 8.0, 0.4 * max(size) + 8.0), between(rng, 1.5, 6.0)
    one = _wave(_slope(size, across=x / period, down=y / period), hardness=hardness)
    other = _wave(_slope(size, across=-y / period, down=x / period), hardness=hardness)
    return one + other - one * other * np.float32(2)


def _ripples(rng: np.random.Generator, size: Size) -> Plane:
    height, width = size
    x = np.arange(width, dtype=np.float32) - np.float32(between(rng, 0.0, float(width)))
    y = np.arange(height, dtype=np.float32) - np.float32(between(rng, 0.0, float(height)))
    radius = np.sqrt(np.square(x)[None, :] + np.square(y)[:, None])
    return _wave(radius * np.float32(1 / between(rng, 0.3 * max(size), 2.0 * max(size))), hardness=1.0)


def _slope(size: Size, *, across: float, down: float) -> Plane:
    """Return the plane that rises by `across` a column and by `down` a row, 0 in the middle."""
    x = (np.arange(size[1]) + (0.5 - size[1] / 2)) * across
    y = (np.arange(size[0]) + (0.5 - size[0] / 2)) * down
    return x.astype(np.float32)[None, :] + y.astype(np.float32)[:, None]


def _wave(phase: Plane, *, hardness: float) -> Plane:
    """Return a wave in 0..1 of period 1, from a triangle at `hardness` 1 towards a square; overwrites `phase`."""
    phase -= np.floor(phase)
    phase -= np.float32(0.5)
    np.abs(phase, out=phase)
    phase *= np.float32(2 * hardness)
    phase += np.float32(0.5 - 0.5 * hardness)
    return phase.clip(0, 1, out=phase)


_TEXTURES: dict[str, Callable[[np.random.Generator, Size], Plane]] = {
    "plain": _plain,
    "noise": _noise,
    "grain": _grain,
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "ripples": _ripples,
}
