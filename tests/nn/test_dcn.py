from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfocal.nn.dcn import DEFORMABLE, DeformConv2d, ModulatedDeformConv2d

GEOMETRIES = [
    {},
    {"stride": 2},
    {"stride": 2, "padding": 1},
    {"padding": 2, "dilation": 2},
    {"groups": 2, "padding": 1},
]


def plain_conv(**geometry: int) -> nn.Conv2d:
    return nn.Conv2d(4, 6, 3, bias=geometry.pop("bias", False), **geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_fresh_version_1_changes_no_output(geometry: dict[str, int]) -> None:
    conv = plain_conv(**geometry)
    x = torch.randn(2, 4, 13, 11)
    torch.testing.assert_close(DeformConv2d(conv)(x), conv(x))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_fresh_version_2_gives_half(geometry: dict[str, int]) -> None:
    conv = plain_conv(**geometry)
    x = torch.randn(2, 4, 13, 11)
    torch.testing.assert_close(ModulatedDeformConv2d(conv)(x), conv(x) / 2)


@pytest.mark.parametrize("version", [1, 2])
def test_weights_are_taken_over_under_their_names(version: int) -> None:
    conv = plain_conv(bias=True)
    deformable = DEFORMABLE[version](conv)
    assert deformable.weight is conv.weight
    assert deformable.bias is conv.bias
    assert set(deformable.state_dict()) == {"weight", "bias", "conv_offset.weight", "conv_offset.bias"}
    assert deformable.conv_offset.out_channels == {1: 18, 2: 27}[version]


def sampled(x: Tensor, y_at: float, x_at: float) -> Tensor:
    """Return the bilinear sample of (c, h, w) at a place, 0 outside."""
    padded = F.pad(x, (1, 1, 1, 1))
    top, left = int(torch.tensor(y_at).floor()), int(torch.tensor(x_at).floor())
    total = torch.zeros(x.shape[0])
    for row in (top, top + 1):
        for column in (left, left + 1):
            if -1 <= row <= x.shape[1] and -1 <= column <= x.shape[2]:
                weight = (1 - abs(y_at - row)) * (1 - abs(x_at - column))
                total += weight * padded[:, row + 1, column + 1]
    return total


@pytest.mark.parametrize("version", [1, 2])
def test_taps_are_read_where_the_offsets_say_and_weighted_by_the_masks(version: int) -> None:
    """Offsets are (y, x) for one tap after the other, row by row; the masks follow behind all offsets."""
    conv = plain_conv(padding=1)
    layer = DEFORMABLE[version](conv)
    x = torch.randn(1, 4, 5, 6)
    values = torch.randn(layer.conv_offset.out_channels) * 0.7
    with torch.no_grad():
        layer.conv_offset.bias.copy_(values)
    actual = layer(x)[0]
    masks = values[18:].sigmoid() if version == 2 else torch.ones(9)
    for row in range(5):
        for column in range(6):
            expected = torch.zeros(6)
            for tap in range(9):
                i, j = tap // 3, tap % 3
                place = row - 1 + i + float(values[2 * tap]), column - 1 + j + float(values[2 * tap + 1])
                expected += masks[tap] * conv.weight[:, :, i, j] @ sampled(x[0], *place)
            torch.testing.assert_close(actual[:, row, column], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("version", [1, 2])
def test_weights_and_offsets_learn(version: int) -> None:
    layer = DEFORMABLE[version](plain_conv(padding=1))
    layer(torch.randn(1, 4, 8, 8)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("version", [1, 2])
def test_half_precision_autocast_stays_close(version: int) -> None:
    layer = DEFORMABLE[version](plain_conv(padding=1))
    x = torch.randn(1, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    torch.testing.assert_close(half.float(), layer(x), atol=0.05, rtol=0.05)
