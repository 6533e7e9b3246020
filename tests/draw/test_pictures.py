"""Drawings: what is drawn lies where it should, at every size of picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageColor

from gfocal.draw.pictures import PALETTE, class_colour, draw_detections, edge_profiles, text_colour
from gfocal.structures import Detections, EdgeDistributions, Truth

BINS = 17


def detections(boxes: list[list[float]], *, scores: list[float], stride: float, spread: float) -> Detections:
    """Boxes with softmax'd distributions around their edges, `spread` bins wide."""
    box = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    point = ((box[:, :2] + box[:, 2:]) / 2)[:, [0, 1, 0, 1]]
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    bins = torch.arange(BINS, dtype=torch.float32)
    distance = (box - point) * sign / stride
    probabilities = (-((bins - distance[..., None]) ** 2) / (2 * spread**2)).softmax(-1)
    positions = point[..., None] + sign[:, None] * bins * stride
    labels = torch.arange(len(box)) % 3
    return Detections(
        box, torch.tensor(scores), labels, ("cat", "dog", "hen"), edges=EdgeDistributions(probabilities, positions)
    )


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before.astype(int) != after.astype(int)).any(-1)


def test_only_the_neighbourhood_of_the_box_changes_and_the_input_stays_as_it_is() -> None:
    picture = np.full((700, 900, 3), 128, np.uint8)
    drawn = draw_detections(picture, detections([[300, 250, 500, 450]], scores=[0.9], stride=16, spread=0.3))
    assert drawn.size == (900, 700)
    assert (picture == 128).all()
    different = changed(picture, np.asarray(drawn))
    assert different[250, 300:500].all()
    assert different[250:450, 499].all()
    different[190:500, 250:560] = False
    assert not different.any()


@pytest.mark.parametrize(
    ("size", "drawn_size"),
    [
        ((1, 1), (640, 640)),
        ((150, 225), (675, 450)),
        ((480, 640), (640, 480)),
        ((2000, 3000), (3000, 2000)),
        ((4000, 10), (10, 4000)),
    ],
)
def test_small_pictures_grow_by_a_whole_number_and_no_size_fails(
    size: tuple[int, int], drawn_size: tuple[int, int]
) -> None:
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    box = [0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height]
    found = detections([box], scores=[0.9], stride=max(size) / 16, spread=1.0)
    truth = Truth(0, "t", size, found.boxes, found.labels, torch.zeros(1, dtype=torch.bool))
    drawn = draw_detections(picture, found, truth=truth)
    assert drawn.size == drawn_size
    assert np.asarray(drawn).any()


def test_threshold_keeps_what_reaches_it() -> None:
    picture = np.full((640, 640, 3), 128, np.uint8)
    found = detections([[50, 50, 200, 200], [400, 400, 600, 600]], scores=[0.5, 0.25], stride=8, spread=0.3)
    different = changed(picture, np.asarray(draw_detections(picture, found, threshold=0.5)))
    assert different[:320, :320].any()
    assert not different[320:, 320:].any()
    assert not changed(picture, np.asarray(draw_detections(picture, found, threshold=0.51))).any()


def test_no_detections_leave_the_picture_unchanged() -> None:
    picture = np.arange(640 * 640 * 3, dtype=np.uint32).astype(np.uint8).reshape(640, 640, 3)
    found = detections([], scores=[], stride=8, spread=1)
    assert (np.asarray(draw_detections(picture, found)) == picture).all()
    assert (np.asarray(draw_detections(picture, replace(found, edges=None))) == picture).all()


def test_edges_switch_off_and_detections_without_them_draw_the_same() -> None:
    picture = np.full((640, 640, 3), 128, np.uint8)
    found = detections([[200, 200, 400, 400]], scores=[0.9], stride=16, spread=1.0)
    without = np.asarray(draw_detections(picture, found, edges=False))
    assert (np.asarray(draw_detections(picture, replace(found, edges=None))) == without).all()
    assert changed(without, np.asarray(draw_detections(picture, found))).any()


def test_truth_is_a_thin_white_line() -> None:
    picture = np.full((640, 640, 3), 128, np.uint8)
    none = detections([], scores=[], stride=8, spread=1)
    box = torch.tensor([[100.0, 100.0, 300.0, 300.0]])
    truth = Truth(0, "t", (640, 640), box, torch.tensor([0]), torch.tensor([False]))
    drawn = np.asarray(draw_detections(picture, none, truth=truth))
    across = drawn[200, 95:106].tolist()
    assert [255, 255, 255] in across
    assert sum(colour != [128, 128, 128] for colour in across) <= 5


def test_an_inverted_box_and_a_name_of_several_lines_are_drawn() -> None:
    picture = np.full((640, 640, 3), 128, np.uint8)
    found = Detections(torch.tensor([[300.0, 300.0, 200.0, 250.0]]), torch.tensor([0.9]), torch.tensor([0]), ("a\nb",))
    assert changed(picture, np.asarray(draw_detections(picture, found))).any()


def test_labels_of_the_same_place_do_not_cover_each_other() -> None:
    picture = np.full((640, 640, 3), 128, np.uint8)
    boxes = [[200.0, 200.0, 400.0, 400.0]] * 3
    found = replace(detections(boxes, scores=[0.9, 0.8, 0.7], stride=8, spread=1), edges=None)
    drawn = np.asarray(draw_detections(picture, found))
    for label in range(3):
        fill = ImageColor.getrgb(class_colour(label))
        assert (drawn == fill).all(-1).sum() > 500


def test_profiles_straddle_their_edges_a_sharp_one_high_a_vague_one_wide() -> None:
    box = [160.0, 240.0, 320.0, 368.0]  # all four edges on a bin of stride 16
    sharp = detections([box], scores=[0.9], stride=16, spread=0.2)
    vague = detections([box], scores=[0.9], stride=16, spread=2.0)
    for edge in range(4):
        axis = edge % 2
        spike, hump = (edge_profiles(found, longest=640)[0][edge] for found in (sharp, vague))
        assert spike[:, axis].min() == pytest.approx(box[edge] - 16)
        assert spike[:, axis].max() == pytest.approx(box[edge] + 16)
        assert np.ptp(hump[:, axis]) > 3 * np.ptp(spike[:, axis])
        assert np.ptp(spike[:, 1 - axis]) > 4 * np.ptp(hump[:, 1 - axis])


@given(st.lists(st.floats(-6, 6), min_size=BINS, max_size=BINS), st.floats(1, 64))
@settings(max_examples=50, deadline=None)
def test_a_profile_peaks_at_its_most_probable_bin_and_stays_above_its_base(logits: list[float], stride: float) -> None:
    probabilities = torch.tensor(logits).softmax(0).expand(1, 4, BINS)
    template = detections([[200, 200, 300, 300]], scores=[0.9], stride=stride, spread=1)
    assert template.edges is not None
    found = replace(template, edges=replace(template.edges, probabilities=probabilities))
    left = edge_profiles(found, longest=640)[0][0]
    assert left[:, 1].max() == pytest.approx(250)
    assert 250 - left[:, 1].min() == pytest.approx(0.8 * 100 * float(probabilities.max()), rel=1e-4)
    top = float(found.edges.positions[0, 0, int(probabilities[0, 0].argmax())]) if found.edges else 0.0
    assert abs(np.interp(top, left[:, 0], left[:, 1]) - left[:, 1].min()) < 1e-3


def test_profiles_are_four_a_box_and_none_without_edges() -> None:
    found = detections([[0, 0, 9, 9], [5, 5, 50, 40]], scores=[0.9, 0.8], stride=4, spread=1)
    assert [len(four) for four in edge_profiles(found, longest=64)] == [4, 4]
    assert edge_profiles(replace(found, edges=None), longest=64) == []


def test_colours_are_stable_and_their_text_has_contrast() -> None:
    assert len(set(PALETTE)) == len(PALETTE)
    assert class_colour(3) == class_colour(3 + len(PALETTE)) == PALETTE[3]
    assert text_colour("#FFFFFF") == "#000000"
    assert text_colour("#000000") == "#FFFFFF"
    assert text_colour("#0072B2") == "#FFFFFF"
