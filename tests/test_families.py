"""The constants of the five families, as the reference has them (github.com/implus/GFocalV2 at bfcc2b9)."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from gfocal.assign.atss import ATSS
from gfocal.assign.fcos import FCOS
from gfocal.assign.fovea import Fovea
from gfocal.assign.max_iou import MaxIoU
from gfocal.classification import Focal, Softmax
from gfocal.coding import Deltas, Distances, Logarithms
from gfocal.families import FAMILIES, STRIDES, Family, Regression, atss, fcos, foveabox, retinanet, ssd
from gfocal.nn.fpn import FPN
from gfocal.nn.ssd import MultiboxLayers

BASELINES: dict[str, Family] = {
    "atss": atss(coding="deltas"),
    "fcos": fcos(),
    "retinanet": retinanet(coding="deltas"),
    "foveabox": foveabox(coding="logarithms"),
    "ssd": ssd(),
}
SPREAD: dict[str, Family] = {"atss": atss(), "fcos": fcos(), "retinanet": retinanet(), "foveabox": foveabox()}


def levels(family: Family, side: int = 512) -> list[torch.Tensor]:
    return [torch.zeros(1, 1, -(-side // stride), -(-side // stride)) for stride in family.priors.strides]


# ---------------------------------------------------------------- where they look


@pytest.mark.parametrize(
    ("name", "strides", "anchors", "offset"),
    [
        ("atss", STRIDES, [1] * 5, 0.0),
        ("fcos", STRIDES, [1] * 5, 0.5),
        ("retinanet", STRIDES, [9] * 5, 0.0),
        ("foveabox", STRIDES, [1] * 5, 0.5),
        ("ssd", (8, 16, 32, 64, 128, 256, 512), [4, 6, 6, 6, 6, 4, 4], 0.5),
    ],
)
def test_levels_anchors_and_points(name: str, strides: tuple[int, ...], anchors: list[int], offset: float) -> None:
    family = BASELINES[name]
    assert family.priors.strides == strides
    assert [len(sides) for sides in family.priors.sides] == anchors
    priors = family.priors(levels(family))
    start = 0
    for grid in priors.grids:
        first, second = priors.points[start].tolist(), priors.points[start + grid.anchors * (grid.width > 1)].tolist()
        assert first == [offset * grid.stride] * 2
        if grid.width > 1:
            assert second == [(1 + offset) * grid.stride, offset * grid.stride]
        start += grid.num_priors
    assert start == len(priors)


def test_ssd_looks_at_as_many_places_as_the_paper_says() -> None:
    assert len(ssd().priors(levels(ssd()))) == 24_564  # Liu et al. 2016, Table 7


def test_atss_has_a_square_of_8_strides() -> None:
    for sides, stride in zip(atss().priors.sides, STRIDES, strict=True):
        assert sides.tolist() == [[8 * stride, 8 * stride]]


def test_retinanet_has_three_sizes_of_three_shapes_ratio_outside() -> None:
    for sides, stride in zip(BASELINES["retinanet"].priors.sides, STRIDES, strict=True):
        expected = [
            [4 * stride * octave / math.sqrt(ratio), 4 * stride * octave * math.sqrt(ratio)]
            for ratio in (0.5, 1.0, 2.0)
            for octave in (1, 2 ** (1 / 3), 2 ** (2 / 3))
        ]
        torch.testing.assert_close(sides, torch.tensor(expected))


def test_ssd_has_two_squares_and_shapes_of_the_smaller() -> None:
    smallest, largest = (20, 51, 133, 215, 296, 378, 460), (51, 133, 215, 296, 378, 460, 542)
    for level, sides in enumerate(ssd().priors.sides):
        low, high = smallest[level], largest[level]
        ratios = (2,) if len(sides) == 4 else (2, 3)
        expected = [[low, low], [math.sqrt(low * high)] * 2]
        for ratio in ratios:
            wide, narrow = low * math.sqrt(ratio), low / math.sqrt(ratio)
            expected += [[wide, narrow], [narrow, wide]]
        torch.testing.assert_close(sides, torch.tensor(expected, dtype=torch.float32))


# ---------------------------------------------------------------- who learns what


def test_assigners_and_their_constants() -> None:
    assert isinstance(atss().assigner, ATSS)
    assert atss().assigner.topk == 9
    assert isinstance(fcos().assigner, FCOS)
    assert fcos().assigner.limits == (64, 128, 256, 512, math.inf)
    assert fcos().assigner.radius == 1.5
    for family in (retinanet(), BASELINES["retinanet"]):
        assert isinstance(family.assigner, MaxIoU)
        assert (family.assigner.positive, family.assigner.negative, family.assigner.all_best) == (0.5, 0.4, True)
    assert isinstance(ssd().assigner, MaxIoU)
    assert (ssd().assigner.positive, ssd().assigner.negative, ssd().assigner.all_best) == (0.5, 0.5, False)
    for family in (foveabox(), BASELINES["foveabox"]):
        assert isinstance(family.assigner, Fovea)
        assert family.assigner.ranges == ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
        assert family.assigner.shrink == 0.4


def test_classifications_and_their_constants() -> None:
    for name, alpha, gamma in (
        ("atss", 0.25, 2.0),
        ("fcos", 0.25, 2.0),
        ("retinanet", 0.25, 2.0),
        ("foveabox", 0.4, 1.5),
    ):
        for family in (BASELINES[name], SPREAD[name]):
            assert isinstance(family.classification, Focal)
            assert (family.classification.alpha, family.classification.gamma) == (alpha, gamma)
    assert isinstance(ssd().classification, Softmax)
    assert ssd().classification.negatives == 3


def test_codings_and_their_constants() -> None:
    for name, stds in (("atss", (0.1, 0.1, 0.2, 0.2)), ("retinanet", (1.0,) * 4), ("ssd", (0.1, 0.1, 0.2, 0.2))):
        coding = BASELINES[name].coding
        assert isinstance(coding, Deltas)
        assert coding.stds == stds
    assert isinstance(fcos().coding, Distances)
    coding = BASELINES["foveabox"].coding
    assert isinstance(coding, Logarithms)
    # base lengths of 16 to 256 pixels on strides of 8 to 128
    assert (coding.base, coding.reach) == (2.0, 16.0)
    assert all(isinstance(family.coding, Distances) for family in SPREAD.values())


def test_a_family_of_distances_keeps_what_is_its_own() -> None:
    """Its assigner, classification and counts stay; the head is that of GFL (github.com/implus/GFocalV2/issues/3)."""
    for name in ("retinanet", "foveabox"):
        mine, gfl = SPREAD[name], atss()
        assert type(mine.assigner) is type(BASELINES[name].assigner)
        assert mine.counts is BASELINES[name].counts
        assert (mine.scaled, mine.shared) == (gfl.scaled, gfl.shared) == (True, True)
        assert mine.trunk is gfl.trunk
        assert [len(sides) for sides in mine.priors.sides] == [1] * 5


# ---------------------------------------------------------------- losses


ONE = Regression(torch.tensor([[0.5, -2.0, 0.05, 0.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
OTHER = Regression(torch.tensor([[0.0, 1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 10.0, 5.0]]))
HALF = 0.5  # 1 - GIoU of these boxes, one the upper half of the other


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (BASELINES["atss"], 2 * HALF),
        (SPREAD["atss"], 2 * HALF),
        (SPREAD["retinanet"], 2 * HALF),
        (SPREAD["foveabox"], 2 * HALF),
        (BASELINES["fcos"], HALF),
        (BASELINES["retinanet"], 0.5 + 3.0 + 0.05),
        (BASELINES["foveabox"], (0.5 - 0.055) + (3.0 - 0.055) + 0.05**2 / 2 / 0.11),
        (BASELINES["ssd"], 0.5**2 / 2 + (3.0 - 0.5) + 0.05**2 / 2),
    ],
)
def test_box_losses_by_hand(family: Family, expected: float) -> None:
    torch.testing.assert_close(family.box_loss(ONE, OTHER), torch.tensor([expected]))


def test_what_losses_are_divided_by() -> None:
    positives = torch.tensor([3.0, 0.0, 5.0])
    for name in ("atss", "retinanet", "ssd"):  # a picture counts as one at least
        assert tuple(BASELINES[name].counts(positives)) == (9, 9)
    for name in ("fcos", "foveabox"):  # positives and pictures; boxes by positives alone
        assert tuple(BASELINES[name].counts(positives)) == (11, 8)
        assert tuple(BASELINES[name].counts(torch.zeros(2))) == (2, 0)


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("name", "from_input", "relu"),
    [("atss", False, False), ("fcos", False, True), ("retinanet", True, False), ("foveabox", True, False)],
)
def test_pyramids(name: str, from_input: bool, relu: bool) -> None:
    for family in (BASELINES[name], SPREAD[name]):
        neck = family.neck([8, 16, 32], 64)
        assert isinstance(neck, FPN)
        assert (neck.from_input, neck.relu) == (from_input, relu)
        assert neck.out_channels == [64] * 5


@pytest.mark.parametrize(
    ("family", "norm", "bias"),
    [
        (BASELINES["atss"], True, False),
        (BASELINES["fcos"], True, True),
        (BASELINES["retinanet"], False, True),
        (BASELINES["foveabox"], False, True),
        (SPREAD["retinanet"], True, False),
        (SPREAD["foveabox"], True, False),
    ],
)
def test_towers(family: Family, norm: bool, bias: bool) -> None:
    (layer,) = family.trunk(64, 1).cls
    assert hasattr(layer, "norm") == norm
    assert (layer.conv.bias is not None) == bias


def test_ssd_has_its_own_levels_and_no_towers() -> None:
    neck = ssd().neck([512, 1024], 256)
    assert isinstance(neck, MultiboxLayers)
    assert neck.out_channels == [512, 1024, 512, 256, 256, 256, 256]
    trunk = ssd().trunk(256, 4)
    assert not list(trunk.parameters())
    feature = torch.randn(1, 5, 2, 2)
    assert all(torch.equal(out, feature) for out in trunk(feature, 0))
    assert (ssd().scaled, ssd().shared) == (False, False)


@pytest.mark.parametrize("name", FAMILIES)
def test_scales_are_where_the_reference_has_them(name: str) -> None:
    assert BASELINES[name].scaled == (name in ("atss", "fcos"))
    assert all(family.scaled for family in SPREAD.values())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (partial(atss, topk=0), "topk must be at least 1"),
        (partial(atss, anchor_scale=0.0), "anchor_scale must be greater than 0"),
        (partial(fcos, radius=-1.0), "radius must be greater than 0"),
        (partial(foveabox, shrink=0.0), "shrink must be greater than 0"),
    ],
)
def test_impossible_options_are_refused(make: partial[Family], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
