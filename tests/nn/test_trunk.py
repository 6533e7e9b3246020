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


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_norms_and_biases_are_free(*, norm: bool, bias: bool) -> None:
    trunk = Trunk(32, depth=2, norm=norm, bias=bias)
    feature = torch.randn(1, 32, 3, 4)
    expected = feature
    for layer in trunk.cls:
        assert (layer.conv.bias is not None) == bias
        assert hasattr(layer, "norm") == norm
        if bias:
            assert (layer.conv.bias == 0).all()
            nn.init.normal_(layer.conv.bias)
        expected = layer.conv(expected)
        expected = (layer.norm(expected) if norm else expected).relu()
    torch.testing.assert_close(trunk(feature, 0)[0], expected)


def test_without_norms_any_width_will_do() -> None:
    assert Trunk(5, depth=1, norm=False)(torch.randn(1, 5, 2, 2), 0)[0].shape == (1, 5, 2, 2)
