"""A zoomed preparation leads to a factor of the size that it leads to otherwise."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfocal.data.preparing import Prepare, normalize
from gfocal.data.resizing import resize, resized_size

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIDES = st.integers(1, 300)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(SIDES, SIDES, st.integers(1, 500), st.integers(1, 500), st.sampled_from([0.1, 0.3, 0.75, 1.0, 1.25, 2.0]))
def test_zoom_is_a_factor_on_the_size_without_it(height: int, width: int, short: int, long: int, zoom: float) -> None:
    prepare = Prepare(min(short, long), long, MEAN, STD, zoom=zoom)
    prepared = prepare(noise(height, width))
    plain = resized_size((height, width), short=prepare.short, long=long)
    assert prepared.image.shape == (3, *prepared.size)
    assert prepared.scale == (prepared.size[1] / width, prepared.size[0] / height)
    for side, old in zip(prepared.size, plain, strict=True):
        assert side == 1 or abs(side - old * zoom) <= 0.5 + 1e-9
        assert side >= 1
    assert zoom != 1.0 or prepared.size == plain


def test_zoom_enlarges_what_would_not_be_enlarged() -> None:
    picture = noise(40, 60)
    prepared = Prepare(320, 448, MEAN, STD, upscale=False, zoom=1.25)(picture)
    assert prepared.size == (50, 75)
    assert prepared.scale == (1.25, 1.25)
    assert torch.equal(prepared.image, normalize(resize(picture, (50, 75)), mean=MEAN, std=STD))


def test_zoom_does_not_cut_at_the_longest_side() -> None:
    assert Prepare(100, 150, MEAN, STD, zoom=2.0)(noise(80, 120)).size == (200, 300)
