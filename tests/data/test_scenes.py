from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config

from gfocal.data.scenes import Scenes, _visible
from gfocal.data.shapes import CLASS_NAMES, NO_CLASS, Figure, bar, cloud, compose, coverage, distance
from gfocal.errors import UserError
from gfocal.structures import Truth

SIDE = 240  # pixels of the blank sheet on which single figures are drawn
labels = st.integers(0, len(CLASS_NAMES) - 1)
seeds = st.integers(0, 2**32 - 1)
longest = st.sampled_from([12.0, 20.0, 37.5, 70.0, 115.0])


def figure_of(label: int, seed: int, size: float) -> Figure:
    rng = np.random.default_rng(seed)
    figure = compose(rng, label, longest=size)
    return replace(figure, centre=(SIDE / 2 + float(rng.random()), SIDE / 2 + float(rng.random())))


def line(start: float, stop: float, count: int) -> npt.NDArray[np.float32]:
    return np.linspace(start, stop, count, dtype=np.float32)


def digest(scenes: Scenes, indices: list[int]) -> str:
    total = hashlib.sha256()
    for index in indices:
        truth = scenes.truth(index)
        assert truth.softness is not None
        for part in (truth.boxes, truth.labels, truth.crowd, truth.softness):
            total.update(part.numpy().tobytes())
        total.update(scenes.picture(index).tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def many() -> list[Truth]:
    """Many truths, made without the checks of types that the calls of small functions would multiply."""
    config.update("jaxtyping_disable", True)
    truths = [Scenes(400, seed=11).truth(index) for index in range(400)]
    config.update("jaxtyping_disable", False)
    return truths


def test_a_scene_is_the_same_to_the_byte_everywhere() -> None:
    square = "aaf32592ad91efe91c721d163394fb463b89e23852600d1c1e8290437661aa3b"
    wide = "1471ab76136ae10554a9c2b1da52668e9bb510809e81fd59ddc4513c11310c51"
    assert digest(Scenes(8), list(range(8))) == square
    assert digest(Scenes(8, seed=7, size=(65, 130)), [7]) == wide


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_scene_depends_on_neither_order_nor_process_nor_length() -> None:
    scenes = Scenes(6, seed=3)
    first = [scenes.picture(index) for index in range(6)]
    again = [Scenes(900, seed=3).picture(index) for index in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    code = (
        "import hashlib; from gfocal.data.scenes import Scenes; scenes = Scenes(6, seed=3);"
        "print(hashlib.sha256(scenes.truth(4).boxes.numpy().tobytes() + scenes.picture(4).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    copied = pickle.loads(pickle.dumps(scenes))
    here = hashlib.sha256(copied.truth(4).boxes.numpy().tobytes() + copied.picture(4).tobytes())
    assert other.stdout.strip() == here.hexdigest()


def test_seeds_and_indices_give_different_scenes() -> None:
    pictures = [Scenes(3, seed=seed).picture(index) for seed in range(3) for index in range(3)]
    assert len({picture.tobytes() for picture in pictures}) == 9


def test_truth_is_complete_and_inside_the_picture(many: list[Truth]) -> None:
    assert Scenes(1).class_names == CLASS_NAMES
    assert len(set(CLASS_NAMES)) == len(CLASS_NAMES) >= 8
    for index, truth in enumerate(many):
        assert (truth.image_id, truth.name, truth.size) == (index, f"scene-11-{index:06d}", (192, 192))
        assert (truth.boxes.dtype, truth.labels.dtype, truth.crowd.dtype) == (torch.float32, torch.int64, torch.bool)
        count = len(truth.boxes)
        assert 1 <= count <= 8
        assert truth.boxes.shape == (count, 4)
        assert truth.labels.shape == truth.crowd.shape == (count,)
        assert not truth.crowd.any()
        assert 0 <= int(truth.labels.min()) <= int(truth.labels.max()) < len(CLASS_NAMES)
        assert bool((truth.boxes >= 0).all() & (truth.boxes <= 192).all())
        sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
        assert float(sides.min()) >= 2
        assert float(sides.amax(1).min()) >= 12
        assert float(sides.max()) <= 0.6 * 192 + 2


def test_edges_are_crisp_or_fade_over_a_known_width(many: list[Truth]) -> None:
    softness = torch.cat([truth.softness for truth in many if truth.softness is not None])
    boxes = torch.cat([truth.boxes for truth in many])
    assert softness.shape == boxes.shape
    assert softness.dtype == torch.float32
    limit = (0.35 * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)).clamp(max=16)
    crisp = softness == 1
    assert bool((crisp | ((softness >= 2) & (softness <= limit + 1e-4))).all())
    assert 0.45 < float(crisp.float().mean()) < 0.55
    assert float(softness.max()) > 12


def test_all_classes_and_numbers_of_objects_occur(many: list[Truth]) -> None:
    counts = torch.cat([truth.labels for truth in many]).bincount(minlength=len(CLASS_NAMES))
    assert int(counts.min()) > 0.5 * int(counts.sum()) / len(CLASS_NAMES)
    assert {len(truth.boxes) for truth in many} == set(range(1, 9))


@pytest.mark.parametrize("size", [(64, 64), (64, 200), (301, 97)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    scenes = Scenes(12, seed=4, size=size)
    for index in range(12):
        picture, truth = scenes.picture(index), scenes.truth(index)
        assert (picture.shape, picture.dtype, truth.size) == ((*size, 3), np.uint8, size)
        assert picture.flags.c_contiguous
        assert float(picture.std()) > 3
        height, width = size
        assert float(truth.boxes.min()) >= 0
        assert bool((truth.boxes <= torch.tensor([width, height] * 2)).all())


@pytest.mark.usefixtures("unchecked_shapes")
def test_pictures_show_what_truth_says(many: list[Truth]) -> None:
    """The colour steps at the left of a crisp disc, on its middle row, and not a few pixels before."""
    scenes = Scenes(400, seed=11)
    at, before = [], []
    for index, truth in enumerate(many):
        assert truth.softness is not None
        rows = (truth.labels == CLASS_NAMES.index("disc")) & (truth.softness[:, 0] == 1) & (truth.boxes[:, 0] > 10)
        if not rows.any():
            continue
        picture = scenes.picture(index).astype(int)
        for x1, y1, _, y2 in truth.boxes[rows].tolist():
            row = picture[int((y1 + y2) / 2)]
            at.append(np.abs(row[int(x1) + 2] - row[int(x1) - 2]).max())
            before.append(np.abs(row[int(x1) - 3] - row[int(x1) - 7]).max())
    assert len(at) > 20
    assert np.median(at) > 2.5 * np.median(before)


@settings(max_examples=60, deadline=None)
@given(labels, seeds, longest)
def test_boxes_are_the_exact_extent_of_the_contour(label: int, seed: int, size: float) -> None:
    figure = figure_of(label, seed, size)
    x1, y1, x2, y2 = figure.box
    step = (max(x2 - x1, y2 - y1) + 2) / 400
    xs, ys = line(x1 - 1, x2 + 1, 401), line(y1 - 1, y2 + 1, 401)
    inside = distance(figure, (xs, ys)) < 0
    found = [xs[inside.any(0)].min(), ys[inside.any(1)].min(), xs[inside.any(0)].max(), ys[inside.any(1)].max()]
    # A sharp tip is at most MIN_RADIUS round, so a line of samples may miss a little more than a step of it.
    assert np.abs(np.array(found) - figure.box).max() < 1.1 * step + 0.02
    assert max(x2 - x1, y2 - y1) >= size - 1e-9


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distance_outside_is_that_of_the_nearest_contour_point(label: int, seed: int) -> None:
    figure = figure_of(label, seed, 80.0)
    x1, y1, x2, y2 = figure.box
    xs, ys = line(x1 - 20, x2 + 20, 500), line(y1 - 20, y2 + 20, 500)
    plane = distance(figure, (xs, ys))
    inside = plane < 0
    edge = np.zeros_like(inside)
    edge[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    edge[1:] |= inside[1:] != inside[:-1]
    rows, columns = np.nonzero(edge)
    picks = np.random.default_rng(seed).choice(np.flatnonzero(plane > 0), 150)
    py, px = np.unravel_index(picks, plane.shape)
    true = np.hypot(xs[px][:, None] - xs[columns], ys[py][:, None] - ys[rows]).min(1)
    step = max(xs[1] - xs[0], ys[1] - ys[0])
    assert np.abs(true - plane[py, px]).max() < 1.5 * step


def on_row(figure: Figure, side: int) -> tuple[Figure, int]:
    """Return the figure moved so that the extreme point of a side lies on a middle of pixels, and its row or column."""
    x1, y1, x2, y2 = figure.box
    inward = 0.01 if side < 2 else -0.01
    fixed = np.array([figure.box[side] + inward], dtype=np.float32)
    sweep = line(y1, y2, 20001) if side % 2 == 0 else line(x1, x2, 20001)
    plane = distance(figure, (fixed, sweep) if side % 2 == 0 else (sweep, fixed)).ravel()
    touching = sweep[plane <= plane.min() + 1e-4]
    extreme = float(touching[len(touching) // 2])
    place = int(extreme)
    x, y = figure.centre
    shift = place + 0.5 - extreme
    return replace(figure, centre=(x, y + shift) if side % 2 == 0 else (x + shift, y)), place


@settings(max_examples=80, deadline=None)
@given(labels, seeds, longest, st.integers(0, 3))
def test_each_edge_crosses_half_at_the_box_and_fades_over_its_softness(
    label: int, seed: int, size: float, side: int
) -> None:
    figure, place = on_row(figure_of(label, seed, size), side)
    alpha = coverage(figure, (0, 0, SIDE, SIDE))
    profile = (alpha[place] if side % 2 == 0 else alpha[:, place]).astype(np.float64)
    edge, softness = figure.box[side], figure.softness[side]
    outward = (np.arange(SIDE) + 0.5 - edge) * (-1 if side < 2 else 1)
    fading = np.abs(outward) < softness / 2 + 0.02
    # The profile itself, and with it the place where it crosses a half, and its width.
    expected = np.clip(0.5 - outward / softness, 0, 1)
    assert np.abs(profile - expected)[fading].max() < 0.05
    assert np.all(profile[outward > softness / 2 + 0.02] < 0.2)
    # Beyond its radius a figure may be at the other side of a thin stroke already.
    assert np.all(profile[(-outward > softness / 2 + 0.02) & (-outward < figure.radius)] > 0.9)
    nearest = np.argsort(np.abs(outward))[:2]
    (a, b), (p, q) = outward[nearest], profile[nearest]
    assert abs(a + (0.5 - p) * (b - a) / (q - p)) < 0.6


@pytest.mark.parametrize("make", [lambda rng: bar(rng, length=90.0, width=4.0), lambda rng: cloud(rng, longest=50.0)])
def test_occluders_are_no_objects_and_may_lie_across_the_border(
    make: Callable[[np.random.Generator], Figure],
) -> None:
    for seed in range(20):
        figure = replace(make(np.random.default_rng(seed)), centre=(3.0, 100.0))
        assert figure.label == NO_CLASS
        left, top, right, bottom = figure.window((SIDE, SIDE))
        assert 0 <= left < right <= SIDE
        assert 0 <= top < bottom <= SIDE
        assert coverage(figure, (left, top, right, bottom)).max() == 1


def test_hidden_objects_are_left_out() -> None:
    small, large = (figure_of(CLASS_NAMES.index("rectangle"), 0, size) for size in (20.0, 100.0))
    assert _visible([large, small]) == [large, small]
    assert _visible([small, large]) == [large]
    lump = replace(cloud(np.random.default_rng(0), longest=150.0), centre=small.centre)
    assert _visible([small, lump]) == [small]
    assert _visible([small, large, lump])[0] == large


@pytest.mark.usefixtures("unchecked_shapes")
def test_at_least_a_share_of_every_object_shows() -> None:
    scenes = Scenes(120, seed=9)
    for index in range(120):
        covered = np.zeros((192, 192), dtype=bool)
        for figure in reversed(scenes._layout(scenes._rng(index))):
            inside = np.zeros_like(covered)
            left, top, right, bottom = window = figure.window((192, 192))
            inside[top:bottom, left:right] = coverage(figure, window) > 0.5
            if figure.label != NO_CLASS:
                # The rule is 0.5, but it samples the figure, and bars do not count as hiding.
                assert (inside & covered).sum() < 0.7 * inside.sum()
            covered |= inside


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "length is 0"),
        ({"length": 5, "seed": -1}, "seed is -1"),
        ({"length": 5, "size": (63, 100)}, r"size is \(63, 100\)"),
        ({"length": 5, "size": (100, 63)}, r"size is \(100, 63\)"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Scenes(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 4, 1000])
def test_an_index_outside_is_an_index_error(index: int) -> None:
    scenes = Scenes(4)
    assert len(scenes) == 4
    with pytest.raises(IndexError, match=str(index)):
        scenes.truth(index)
    with pytest.raises(IndexError, match=str(index)):
        scenes.picture(index)
