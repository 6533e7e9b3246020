from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gfocal.ops import box_iou_pairwise, boxes_to_ltrb, generalized_box_iou_pairwise, ltrb_to_boxes
from gfocal.ops.boxes import centerness

coordinate = st.floats(-1000, 1000, width=32)
side = st.floats(0, 500, width=32)


@st.composite
def box(draw: st.DrawFn) -> Tensor:
    x, y, width, height = draw(coordinate), draw(coordinate), draw(side), draw(side)
    return torch.tensor([x, y, x + width, y + height], dtype=torch.float64)


# ---------------------------------------------------------------- distances


def test_distances_are_counted_in_strides_from_the_point_outwards() -> None:
    points = torch.tensor([[16.0, 8.0], [0.0, 0.0]])
    boxes = torch.tensor([[8.0, 4.0, 40.0, 24.0], [8.0, -8.0, 16.0, 8.0]])
    ltrb = boxes_to_ltrb(points, boxes, torch.tensor([8.0, 4.0]))
    torch.testing.assert_close(ltrb, torch.tensor([[1.0, 0.5, 3.0, 2.0], [-2.0, 2.0, 4.0, 2.0]]))


@given(given_box=box(), x=coordinate, y=coordinate, stride=st.sampled_from([1.0, 8.0, 12.0, 128.0]))
def test_boxes_survive_the_way_to_distances_and_back(given_box: Tensor, x: float, y: float, stride: float) -> None:
    points = torch.tensor([[x, y]], dtype=torch.float64)
    strides = torch.tensor([stride], dtype=torch.float64)
    ltrb = boxes_to_ltrb(points, given_box[None], strides)
    torch.testing.assert_close(ltrb_to_boxes(points, ltrb, strides), given_box[None])


def test_extra_dimensions_and_none_at_all_are_kept() -> None:
    points, boxes, strides = torch.rand(2, 3, 2), torch.rand(2, 3, 4), torch.rand(2, 3) + 1
    assert boxes_to_ltrb(points, boxes, strides).shape == (2, 3, 4)
    assert ltrb_to_boxes(points[:0], boxes[:0], strides[:0]).shape == (0, 3, 4)


def test_half_precision_neither_overflows_nor_vanishes() -> None:
    a, b = torch.tensor([[0.0, 0, 400, 400]]), torch.tensor([[0.0, 0, 400, 200]])
    for measure in (box_iou_pairwise, generalized_box_iou_pairwise):
        torch.testing.assert_close(measure(a.half(), b.half()), measure(a, b))
    assert centerness(torch.zeros(1, 4, dtype=torch.float16)).item() == 0


# ---------------------------------------------------------------- centerness


def test_centerness_of_known_points() -> None:
    ltrb = torch.tensor([[2.0, 3.0, 2.0, 3.0], [1.0, 1.0, 3.0, 1.0], [1.0, 2.0, 4.0, 8.0], [0.0, 2.0, 4.0, 2.0]])
    # in the middle, then a third across, then a quarter both ways, then on an edge
    expected = torch.tensor([1.0, (1 / 3) ** 0.5, (1 / 4 * 2 / 8) ** 0.5, 0.0])
    torch.testing.assert_close(centerness(ltrb), expected)


@given(given_box=box(), x=st.floats(0, 1), y=st.floats(0, 1), unit=st.sampled_from([0.125, 1.0, 64.0]))
def test_centerness_has_no_unit_and_falls_from_the_middle_to_the_edges(
    given_box: Tensor, x: float, y: float, unit: float
) -> None:
    given_box[2:] += 1
    sides = given_box[2:] - given_box[:2]
    share = torch.tensor([x, y], dtype=torch.float64)
    ltrb = torch.cat([share * sides, (1 - share) * sides])
    value = centerness(ltrb)
    assert 0 <= value <= 1 + 1e-9
    torch.testing.assert_close(centerness(ltrb / unit), value)
    torch.testing.assert_close(centerness(ltrb[[2, 3, 0, 1]]), value)  # a mirror does not matter
    middle = torch.cat([sides, sides]) / 2
    for step in (0.0, 0.25, 0.5):  # on the way to the middle it grows
        nearer = centerness(ltrb + step * (middle - ltrb))
        assert nearer >= value - 1e-9
    torch.testing.assert_close(centerness(middle), torch.tensor(1.0, dtype=torch.float64))


def test_points_outside_and_boxes_without_area_have_a_centerness_of_0() -> None:
    ltrb = torch.tensor([[-1.0, 2.0, 5.0, 2.0], [1.0, 1.0, 1.0, -3.0], [0.0, 0.0, 0.0, 0.0], [-2.0, -2.0, -2.0, -2.0]])
    assert centerness(ltrb).tolist() == [0.0] * 4
    assert centerness(torch.zeros(0, 4)).shape == (0,)
    assert centerness(torch.rand(2, 3, 4)).shape == (2, 3)


# ---------------------------------------------------------------- overlaps


def test_iou_of_known_boxes() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
    b = torch.tensor([[1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 4.0, 2.0], [1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 6.0]])
    torch.testing.assert_close(box_iou_pairwise(a, b), torch.tensor([1 / 7, 0.0, 4 / 16, 0.0]))


def test_generalized_iou_of_known_boxes() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
    b = torch.tensor([[1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 4.0, 2.0], [1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 6.0]])
    expected = torch.tensor([1 / 7 - 2 / 9, 0.0, 4 / 16, 0 - (36 - 2) / 36])
    torch.testing.assert_close(generalized_box_iou_pairwise(a, b), expected)


@given(a=box(), b=box())
def test_overlaps_stay_in_range_and_are_symmetric(a: Tensor, b: Tensor) -> None:
    iou, giou = box_iou_pairwise(a, b), generalized_box_iou_pairwise(a, b)
    assert 0 <= iou <= 1 + 1e-9
    assert -1 - 1e-9 <= giou <= iou + 1e-9
    torch.testing.assert_close(iou, box_iou_pairwise(b, a))
    torch.testing.assert_close(giou, generalized_box_iou_pairwise(b, a))


@given(a=box(), b=box())
def test_overlaps_agree_with_torchvision(a: Tensor, b: Tensor) -> None:
    # boxes under 1e-3 a side are where the lower bound of the union acts
    a[2:] += 1e-2
    b[2:] += 1e-2
    expected = torchvision.ops.box_iou(a[None], b[None])[0, 0]
    torch.testing.assert_close(box_iou_pairwise(a, b), expected)
    expected = torchvision.ops.generalized_box_iou(a[None], b[None])[0, 0]
    torch.testing.assert_close(generalized_box_iou_pairwise(a, b), expected)


@given(a=box(), shift=st.floats(0.1, 100))
def test_a_box_with_itself_is_1_and_apart_is_below_0(a: Tensor, shift: float) -> None:
    a[2:] += 1
    torch.testing.assert_close(box_iou_pairwise(a, a), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(generalized_box_iou_pairwise(a, a), torch.tensor(1.0, dtype=torch.float64))
    apart = a + torch.tensor([1, 0, 1, 0]) * (a[2] - a[0] + shift)
    assert box_iou_pairwise(a, apart) == 0
    assert generalized_box_iou_pairwise(a, apart) < 0


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 5.0]),
        ([5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 9.0, 9.0]),
        ([5.0, 5.0, 5.0, 5.0], [7.0, 5.0, 7.0, 5.0]),
        ([0.0, 3.0, 9.0, 3.0], [2.0, 3.0, 4.0, 3.0]),
        ([9.0, 9.0, 1.0, 1.0], [0.0, 0.0, 5.0, 5.0]),
    ],
)
def test_boxes_without_area_give_numbers_and_finite_gradients(a: list[float], b: list[float]) -> None:
    first = torch.tensor([a], requires_grad=True)
    second = torch.tensor([b])
    iou, giou = box_iou_pairwise(first, second), generalized_box_iou_pairwise(first, second)
    assert iou.item() == 0 or a[0] > a[2]
    assert giou.isfinite().all()
    (gradient,) = torch.autograd.grad((iou + giou).sum(), first)
    assert gradient.isfinite().all()


def test_no_box_has_no_overlap() -> None:
    none = torch.zeros(0, 4)
    assert box_iou_pairwise(none, none).shape == (0,)
    assert generalized_box_iou_pairwise(none, none).shape == (0,)


def test_gradients_agree_with_finite_differences() -> None:
    corner = torch.rand(6, 2, dtype=torch.float64) * 3
    a = torch.cat([corner, corner + 1 + torch.rand(6, 2)], dim=1).requires_grad_()
    b = (a.detach() + torch.randn(6, 4, dtype=torch.float64) * 0.2).requires_grad_()
    assert torch.autograd.gradcheck(box_iou_pairwise, (a, b))
    assert torch.autograd.gradcheck(generalized_box_iou_pairwise, (a, b))
