from __future__ import annotations

import itertools

import pytest
import torch

from gfocal.nn.fpn import FPN


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (4, 2)])
def test_five_levels_of_one_width_each_half_the_one_before(height: int, width: int) -> None:
    fpn = FPN([8, 16, 32], 24)
    features = [torch.randn(2, 8 << i, height * 4 >> i, width * 4 >> i) for i in range(3)]
    levels = fpn(features)
    assert [level.shape[1] for level in levels] == [24] * 5
    sizes = [tuple(level.shape[2:]) for level in levels]
    assert sizes[:3] == [tuple(feature.shape[2:]) for feature in features]
    for (h, w), (next_h, next_w) in itertools.pairwise(sizes[2:]):
        assert (next_h, next_w) == (-(-h // 2), -(-w // 2))


def test_coarse_features_flow_down_and_extra_levels_stand_on_p5() -> None:
    fpn = FPN([4, 4, 4], 6)
    c3, c4, c5 = (torch.randn(1, 4, 8 >> i, 12 >> i) for i in range(3))
    p3, p4, p5, p6, p7 = fpn([c3, c4, c5])
    m5 = fpn.lateral[2](c5)
    m4 = fpn.lateral[1](c4) + m5.repeat_interleave(2, 2).repeat_interleave(2, 3)
    m3 = fpn.lateral[0](c3) + m4.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for level, merged, conv in zip((p3, p4, p5), (m3, m4, m5), fpn.output, strict=True):
        torch.testing.assert_close(level, conv(merged))
    torch.testing.assert_close(p6, fpn.extra[0](p5))
    torch.testing.assert_close(p7, fpn.extra[1](p6))


def test_features_are_left_as_they_are() -> None:
    features = [torch.randn(1, 4, 8 >> i, 8 >> i) for i in range(3)]
    before = [feature.clone() for feature in features]
    FPN([4, 4, 4], 6)(features)
    assert all(torch.equal(a, b) for a, b in zip(features, before, strict=True))


def test_levels_of_odd_size_meet() -> None:
    levels = FPN([4, 4, 4], 6)([torch.randn(1, 4, 7, 9), torch.randn(1, 4, 4, 5), torch.randn(1, 4, 2, 3)])
    assert [tuple(level.shape[2:]) for level in levels] == [(7, 9), (4, 5), (2, 3), (1, 2), (1, 1)]


def test_the_number_of_extra_levels_is_free() -> None:
    fpn = FPN([4, 4, 4], 6, extra_levels=0)
    assert len(fpn([torch.randn(1, 4, 8 >> i, 8 >> i) for i in range(3)])) == 3


def test_another_number_of_features_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        FPN([4, 4, 4], 6)([torch.randn(1, 4, 8, 8)])


def test_weights_start_from_xavier_and_biases_from_0() -> None:
    fpn = FPN([64, 64, 64], 64)
    for conv in (*fpn.lateral, *fpn.output, *fpn.extra):
        assert (conv.bias == 0).all()
        fan = 64 * conv.kernel_size[0] ** 2
        # uniform in ±sqrt(6 / (fan in + fan out)), whose deviation is the limit over sqrt(3)
        assert conv.weight.std().item() == pytest.approx((6 / (2 * fan)) ** 0.5 / 3**0.5, rel=0.05)


def test_extra_levels_can_stand_on_the_backbones_last_feature() -> None:
    fpn = FPN([4, 5, 7], 6, extra_from="input")
    features = [torch.randn(1, width, 8 >> i, 12 >> i) for i, width in enumerate((4, 5, 7))]
    *_, p6, p7 = fpn(features)
    assert fpn.extra[0].in_channels == 7
    torch.testing.assert_close(p6, fpn.extra[0](features[-1]))
    torch.testing.assert_close(p7, fpn.extra[1](p6))


@pytest.mark.parametrize("extra_from", ["input", "output"])
def test_a_relu_stands_between_extra_levels_and_not_before_the_first(extra_from: str) -> None:
    fpn = FPN([4, 4, 4], 6, extra_from=extra_from, relu=True)
    features = [torch.randn(1, 4, 8 >> i, 12 >> i) for i in range(3)]
    *_, p5, p6, p7 = fpn(features)
    torch.testing.assert_close(p6, fpn.extra[0](features[-1] if extra_from == "input" else p5))
    torch.testing.assert_close(p7, fpn.extra[1](p6.relu()))
    assert (p6 < 0).any()


def test_the_widths_of_the_levels_are_told() -> None:
    assert FPN([4, 4, 4], 6).out_channels == [6] * 5
    assert FPN([4, 4, 4], 6, extra_levels=0, extra_from="input").out_channels == [6] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_a_level_of_one_cell_learn(dtype: torch.dtype) -> None:
    """Pictures of 64 pixels: P6 is one cell, of which P7 is made."""
    fpn = FPN([8, 16, 32], 64)
    features = [torch.randn(2, 8 << i, 8 >> i, 8 >> i) for i in range(3)]
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        levels = fpn(features)
    levels[-1].float().sum().backward()
    weight = fpn.extra[1].weight
    assert weight.grad is not None
    # only the middle of the kernel meets the cell
    wanted = torch.zeros_like(weight)
    wanted[:, :, 1, 1] = levels[-2].detach().float().sum((0, 2, 3))
    torch.testing.assert_close(weight.grad, wanted, atol=0.05, rtol=0.05)
