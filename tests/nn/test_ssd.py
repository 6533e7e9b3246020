"""SSD's own layers: VGG-16 as a map, levels that halve on and on, and the norm of the first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gfocal.nn.backbone import create_backbone, feature_channels, feature_strides
from gfocal.nn.ssd import VGG16, L2Norm, MultiboxLayers

NARROW = 1 / 16


@pytest.mark.parametrize(("height", "width", "fine"), [(512, 512, (64, 64)), (300, 180, (38, 23)), (64, 40, (8, 5))])
def test_vgg_gives_maps_of_stride_8_and_16_rounded_up(height: int, width: int, fine: tuple[int, int]) -> None:
    with torch.device("meta"):
        first, second = VGG16(width=NARROW)(torch.zeros(1, 3, height, width))
    assert tuple(first.shape[2:]) == fine  # pooling keeps a last odd row and column
    assert tuple(second.shape[2:]) == tuple(-(-side // 2) for side in fine)
    assert (first.shape[1], second.shape[1]) == (32, 64)


def test_layers_have_the_numbers_of_torchvision() -> None:
    import torchvision

    with torch.device("meta"):
        ours = VGG16().state_dict()
        theirs = torchvision.models.vgg16().features.state_dict()
    for key, value in theirs.items():
        assert ours[f"features.{key}"].shape == value.shape
    # the fully connected layers as convolutions
    further = ours.keys() - {f"features.{key}" for key in theirs}
    assert {key.split(".")[1] for key in further} == {"31", "33"}
    assert ours["features.31.weight"].shape == (1024, 512, 3, 3)
    assert ours["features.33.weight"].shape == (1024, 1024, 1, 1)


def test_its_features_are_conv4_3_and_fc7_after_their_relu() -> None:
    vgg = VGG16(width=NARROW)
    images = torch.randn(1, 3, 64, 64)
    fine, coarse = vgg(images)
    assert (fine >= 0).all()
    assert (coarse >= 0).all()
    x = images
    for layer in vgg.features[:23]:
        x = layer(x)
    torch.testing.assert_close(fine, x)
    torch.testing.assert_close(coarse, vgg.features[23:](x))
    assert isinstance(vgg.features[30], nn.MaxPool2d)
    assert vgg.features[30].stride == 1
    assert vgg.features[31].dilation == (6, 6)


def test_seven_levels_halve_until_one_cell_is_left() -> None:
    neck = MultiboxLayers([32, 64], width=NARROW)
    levels = neck([torch.randn(1, 32, 64, 64), torch.randn(1, 64, 32, 32)])
    assert [tuple(level.shape[2:]) for level in levels] == [(side, side) for side in (64, 32, 16, 8, 4, 2, 1)]
    assert [level.shape[1] for level in levels] == neck.out_channels == [32, 64, 32, 16, 16, 16, 16]
    assert all((level >= 0).all() for level in levels[2:])


def test_the_levels_have_the_channels_of_the_paper() -> None:
    with torch.device("meta"):
        assert MultiboxLayers([512, 1024]).out_channels == [512, 1024, 512, 256, 256, 256, 256]


def test_the_norm_scales_every_location_to_a_learnt_length() -> None:
    norm = L2Norm(8)
    assert (norm.weight == 20).all()
    x = torch.randn(2, 8, 3, 4) * torch.rand(2, 1, 3, 4) * 1000
    torch.testing.assert_close(norm(x).norm(dim=1), torch.full((2, 3, 4), 20.0))
    torch.testing.assert_close(norm(5 * x), norm(x))
    with torch.no_grad():
        norm.weight.copy_(torch.arange(8.0))
    torch.testing.assert_close(norm(x), torch.arange(8.0)[:, None, None] * x / x.norm(dim=1, keepdim=True))


def test_nothing_stays_nothing_and_halves_do_not_overflow() -> None:
    norm = L2Norm(8)
    assert (norm(torch.zeros(1, 8, 2, 2)) == 0).all()
    large = torch.full((1, 8, 2, 2), 60_000.0, dtype=torch.float16)
    result = norm(large)
    assert result.dtype == torch.float16
    torch.testing.assert_close(result.float(), torch.full((1, 8, 2, 2), 20 / 8**0.5), rtol=1e-3, atol=0)


def test_as_a_backbone_it_tells_its_channels_and_strides() -> None:
    with torch.device("meta"):
        backbone = create_backbone("ssd_vgg16")
    assert feature_channels(backbone) == [512, 1024]
    assert feature_strides(backbone) == [8, 16]
    assert feature_channels(create_backbone("ssd_vgg16", width=NARROW)) == [32, 64]
