from __future__ import annotations

import pytest
import torch
from torch import nn

from gfocal.nn.trunk import Trunk


def test_each_tower_is_convolution_group_norm_and_relu_depth_times() -> None:
    trunk = Trunk(64, depth=3)
    for tower in (trunk.cls, trunk.box):
        assert len(tower) == 3
        for block in tower:
            assert [type(layer) for layer in block] == [nn.Conv2d, nn.GroupNorm, nn.ReLU]
            assert block.conv.bias is None
            assert block.norm.num_groups == 32
            assert block.conv.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_the_towers_share_nothing_and_the_levels_everything() -> None:
    trunk = Trunk(32, depth=2)
    feature = torch.randn(2, 32, 4, 5)
    cls_feature, box_feature = trunk(feature, 0)
    assert cls_feature.shape == box_feature.shape == feature.shape
    assert not torch.equal(cls_feature, box_feature)
    for level in range(1, 5):
        for first, other in zip((cls_feature, box_feature), trunk(feature, level), strict=True):
            assert torch.equal(first, other)


def test_one_tower_learns_without_the_other() -> None:
    trunk = Trunk(32, depth=2)
    cls_feature, _ = trunk(torch.randn(2, 32, 4, 5), 0)
    cls_feature.sum().backward()
    assert all(p.grad is not None for p in trunk.cls.parameters())
    assert all(p.grad is None for p in trunk.box.parameters())


def test_without_convolutions_features_pass_through() -> None:
    feature = torch.randn(1, 32, 2, 2)
    for result in Trunk(32, depth=0)(feature, 0):
        assert torch.equal(result, feature)


def test_a_width_that_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="num_channels"):
        Trunk(48)
