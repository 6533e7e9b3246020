from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from gfocal.errors import UserError
from gfocal.nn.backbone import (
    StaticBatchNorm2d,
    create_backbone,
    feature_channels,
    freeze_norms,
    freeze_stages,
    make_deformable,
    stride_in_first,
    take_pictures,
)
from gfocal.nn.dcn import DeformConv2d


@pytest.fixture
def backbone() -> nn.Module:
    return create_backbone("resnet18", width=0.25)


def test_features_have_strides_8_16_and_32_and_the_widths_that_are_told(backbone: nn.Module) -> None:
    features = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(feature.shape[2:]) for feature in features] == [(8, 12), (4, 6), (2, 3)]
    assert [feature.shape[1] for feature in features] == feature_channels(backbone) == [32, 64, 128]


@pytest.mark.parametrize(("width", "channels"), [(0.25, [32, 64, 128]), (1.0, [128, 256, 512])])
def test_the_width_scales_the_channels_of_a_resnet(width: float, channels: list[int]) -> None:
    with torch.device("meta"):
        assert feature_channels(create_backbone("resnet18", width=width)) == channels


def test_a_name_that_timm_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match="'resnet999' is not a timm model"):
        create_backbone("resnet999")


def test_only_resnets_can_be_scaled() -> None:
    with pytest.raises(UserError, match="mobilenetv3_small_050"):
        create_backbone("mobilenetv3_small_050", width=0.5)


def test_channels_too_few_for_the_kernels_of_cpus_are_refused() -> None:
    with pytest.raises(UserError, match=r"backbone.width is 0.125: must be at least 0.25 for resnet18"):
        create_backbone("resnet18", width=0.125)


def test_weights_that_do_not_exist_are_refused_with_a_way_out() -> None:
    with pytest.raises(UserError, match=r"resnet18\.no_such_weights.*random weights"):
        create_backbone("resnet18.no_such_weights", pretrained=True)


# ---------------------------------------------------------------- norms


def some_norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(5, eps=1e-3)
    for value in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(value)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return norm


def test_a_static_norm_is_the_norm_at_test_in_training_too() -> None:
    norm = some_norm()
    static = StaticBatchNorm2d(copy.deepcopy(norm))
    x = torch.randn(3, 5, 4, 4) * 3 + 1
    expected = norm.eval()(x)
    torch.testing.assert_close(static.eval()(x), expected)
    torch.testing.assert_close(static.train()(x), expected)
    row = x[0, 2, 1, 3].item()
    mean, var = norm.running_mean[2].item(), norm.running_var[2].item()  # type: ignore[index]
    by_hand = (row - mean) / math.sqrt(var + 1e-3) * norm.weight[2].item() + norm.bias[2].item()
    assert static(x)[0, 2, 1, 3].item() == pytest.approx(by_hand, rel=1e-4)


def test_a_static_norm_keeps_statistics_and_names_and_learns_its_affine_part() -> None:
    norm = some_norm()
    static = StaticBatchNorm2d(norm).train()
    assert static.state_dict().keys() == norm.state_dict().keys() - {"num_batches_tracked"}
    before = static.running_var.clone()
    static(torch.randn(3, 5, 4, 4) * 9).square().sum().backward()
    assert torch.equal(static.running_var, before)
    assert static.weight.grad is not None
    assert static.bias.grad is not None
    assert {name for name, _ in static.named_parameters()} == {"weight", "bias"}


def test_freezing_norms_changes_no_output(backbone: nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    expected = backbone.eval()(x)
    freeze_norms(backbone)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    for actual, feature in zip(backbone.train()(x), expected, strict=True):
        torch.testing.assert_close(actual, feature)


def test_freezing_norms_keeps_the_activations_inside_them() -> None:
    backbone = create_backbone("mobilenetv3_small_050").eval()
    x = torch.randn(1, 3, 64, 64)
    expected = backbone(x)
    freeze_norms(backbone)
    for actual, feature in zip(backbone(x), expected, strict=True):
        torch.testing.assert_close(actual, feature)


@pytest.mark.parametrize("affine", [False, True])
def test_the_affine_part_of_norms_can_be_frozen_too(backbone: nn.Module, *, affine: bool) -> None:
    freeze_norms(backbone, affine=affine)
    norms = [module for module in backbone.modules() if isinstance(module, StaticBatchNorm2d)]
    assert norms
    for norm in norms:
        assert norm.weight.requires_grad == norm.bias.requires_grad == (not affine)
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.weight.requires_grad for conv in convolutions)
    sum(feature.sum() for feature in backbone(torch.randn(1, 3, 64, 64))).backward()
    assert all((norm.weight.grad is None) == affine for norm in norms)


# ---------------------------------------------------------------- stages


@pytest.mark.parametrize("stages", [-1, 0, 1, 2, 3, 4])
def test_stem_and_stages_stop_learning(backbone: nn.Module, stages: int) -> None:
    freeze_stages(backbone, stages)
    frozen = {name.split(".")[0] for name, p in backbone.named_parameters() if not p.requires_grad}
    learning = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    parts = [{"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]
    assert frozen == set().union(*parts[: stages + 1])
    assert learning == set().union(*parts[stages + 1 :])


ANY = ["resnet18", "convnext_atto", "efficientnet_b0", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224"]


@pytest.mark.parametrize("name", ANY)
def test_any_timm_model_of_these_strides_gives_its_features_channels_first(name: str) -> None:
    backbone = create_backbone(name).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(feature.shape[2:]) for feature in features] == [(8, 12), (4, 6), (2, 3)]
    assert [feature.shape[1] for feature in features] == feature_channels(backbone)


@pytest.mark.parametrize("name", ANY)
def test_stages_are_frozen_from_the_stem_on_whatever_their_names(name: str) -> None:
    counts = []
    for stages in (-1, 0, 1, 2, 3, 4):
        backbone = create_backbone(name)
        freeze_stages(backbone, stages)
        learning = [parameter.requires_grad for parameter in backbone.parameters()]
        # what is frozen comes first, in the order a picture passes through
        assert learning == sorted(learning)
        counts.append(sum(learning))
    assert counts == sorted(set(counts), reverse=True)
    assert counts[0] == len(learning)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vgg11_no_such"])
def test_models_without_such_features_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=name):
        create_backbone(name)


def test_features_of_other_strides_are_refused() -> None:
    with pytest.raises(UserError, match=r"strides \[16, 16, 16\].*needs 8, 16 and 32"), torch.device("meta"):
        create_backbone("vit_tiny_patch16_224")


# ---------------------------------------------------------------- as the reference builds them


def test_res2net_pools_the_last_split_only_where_it_strides() -> None:
    """timm pools it in the first block too, whose stride is 1."""
    with torch.device("meta"):
        backbone = create_backbone("res2net101d")
    pools = {name: block.pool for name, block in backbone.named_modules() if hasattr(block, "is_first")}
    assert {name for name, pool in pools.items() if pool is not None} == {"layer2.0", "layer3.0", "layer4.0"}


def test_the_first_block_of_res2net_is_that_of_the_reference() -> None:
    torch.manual_seed(1)
    block = create_backbone("res2net50d").eval().layer1[0]
    x = torch.randn(2, 64, 9, 7)
    with torch.no_grad():
        splits = block.bn1(block.conv1(x)).relu().split(26, dim=1)
        branches = [bn(conv(s)).relu() for conv, bn, s in zip(block.convs, block.bns, splits[:3], strict=True)]
        out = block.bn3(block.conv3(torch.cat([*branches, splits[3]], dim=1)))
        torch.testing.assert_close(block(x), (out + block.downsample(x)).relu())


def test_resnets_stride_in_the_3x3_convolution() -> None:
    with torch.device("meta"):
        backbone = create_backbone("resnet50")
    for stage in (backbone.layer2, backbone.layer3, backbone.layer4):
        assert [stage[0].conv1.stride, stage[0].conv2.stride] == [(1, 1), (2, 2)]


def test_caffes_resnets_stride_in_the_first_1x1_convolution() -> None:
    backbone = create_backbone("resnet26", width=0.125).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm starts the last norm of a block from 0, which hides the block
    plain = copy.deepcopy(backbone)
    stride_in_first(backbone)
    for stage in (backbone.layer2, backbone.layer3, backbone.layer4):
        assert [stage[0].conv1.stride, stage[0].conv2.stride] == [(2, 2), (1, 1)]
        assert stage[1].conv1.stride == stage[1].conv2.stride == (1, 1)
    assert backbone.layer1[0].conv1.stride == backbone.layer1[0].conv2.stride == (1, 1)
    # the same weights and sizes, and other features
    assert backbone.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for actual, other in zip(backbone(x), plain(x), strict=True):
            assert actual.shape == other.shape
            assert not torch.allclose(actual, other)
        block = backbone.layer2[0]
        y = torch.randn(1, block.conv1.in_channels, 9, 8)
        hidden = block.bn1(torch.conv2d(y, block.conv1.weight, stride=2)).relu()
        hidden = block.bn2(torch.conv2d(hidden, block.conv2.weight, padding=1)).relu()
        expected = (block.bn3(block.conv3(hidden)) + block.downsample(y)).relu()
        torch.testing.assert_close(block(y), expected)


def test_ssds_vgg_is_frozen_by_its_own_stages() -> None:
    backbone = create_backbone("ssd_vgg16", width=1 / 16)
    learning = []
    for stages in (-1, 4):
        freeze_stages(backbone, stages)
        learning.append(sum(p.requires_grad for p in backbone.parameters()))
    assert learning[0] == len(list(backbone.parameters()))
    assert learning[1] < learning[0]


# ---------------------------------------------------------------- deformable


@pytest.mark.parametrize(
    ("name", "stages", "convs"),
    [("resnet50", (2, 3, 4), 13), ("resnet50", (4,), 3), ("res2net50d", (3, 4), 27), ("resnext50_32x4d", (1,), 3)],
)
def test_3x3_convolutions_of_the_stages_become_deformable(name: str, stages: tuple[int, ...], convs: int) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name)
        make_deformable(backbone, stages)
    found = [name for name, module in backbone.named_modules() if isinstance(module, DeformConv2d)]
    assert len(found) == convs
    assert {int(name[5]) for name in found} == set(stages)


def test_a_deformable_backbone_starts_as_the_plain_one() -> None:
    backbone = create_backbone("resnet26", width=0.125).eval()
    deformable = copy.deepcopy(backbone)
    make_deformable(deformable, (2, 3, 4))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for actual, expected in zip(deformable(x), backbone(x), strict=True):
            torch.testing.assert_close(actual, expected)


def test_a_stage_without_3x3_convolutions_is_refused() -> None:
    with torch.device("meta"), pytest.raises(UserError, match="stage 2 of the backbone has no 3x3 convolution"):
        make_deformable(create_backbone("convnext_atto"), (2,))


# ---------------------------------------------------------------- weights and the pictures they learnt from


def test_weights_see_pictures_as_they_learnt_them_however_those_are_normalised() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False)).double()
    picture = 255 * torch.rand(1, 3, 9, 9, dtype=torch.float64)
    means = torch.tensor([123.675, 116.28, 103.53], dtype=torch.float64)[:, None, None]
    learnt = (picture - means) / torch.tensor([58.395, 57.12, 57.375], dtype=torch.float64)[:, None, None]
    wanted = backbone(learnt)
    take_pictures(backbone, "resnet50.tv_in1k", std=(58.395, 57.12, 57.375), bgr=False)
    assert torch.equal(backbone(learnt), wanted)
    take_pictures(backbone, "resnet50.tv_in1k", std=(1.0, 1.0, 1.0), bgr=True)
    torch.testing.assert_close(backbone((picture - means).flip(1)), wanted)


def test_weights_of_a_whole_backbone_are_not_for_a_narrow_one() -> None:
    with pytest.raises(UserError, match=r"backbone\.width is 0\.5, and ImageNet weights.*weights 'none'"):
        create_backbone("resnet18", pretrained=True, width=0.5)
