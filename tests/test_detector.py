from __future__ import annotations

import pytest
import torch
from torch import nn

from gfocal.builder import Parts, build_parts
from gfocal.config import BackboneConfig, Recipe
from gfocal.nn.backbone import StaticBatchNorm2d
from gfocal.recipes import get_recipe

STRIDES = (8, 16, 32, 64, 128)


def test_rows_run_level_by_level_and_row_by_row(tiny_parts: Parts) -> None:
    detector = tiny_parts.detector.eval()
    for i, scale in enumerate(detector.scales):
        nn.init.constant_(scale.scale, 1 + i / 10)
    nn.init.normal_(detector.outputs_of(0).box_conv.bias)
    images = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        raw = detector(images)
        row = 0
        for level, feature in enumerate(detector.neck(detector.backbone(images))):
            cls_feature, box_feature = detector.trunk(feature, level)
            box = detector.scales[level](detector.outputs_of(0).box_conv(box_feature))
            class_logits, quality_logits = detector.outputs_of(0).quality(cls_feature, box_feature, box)
            for y in range(feature.shape[2]):
                for x in range(feature.shape[3]):
                    assert raw.priors.points[row].tolist() == [x * STRIDES[level], y * STRIDES[level]]
                    torch.testing.assert_close(raw.class_logits[:, row], class_logits[:, :, y, x])
                    torch.testing.assert_close(raw.box[:, row], box[:, :, y, x].view(2, 4, 17))
                    torch.testing.assert_close(raw.quality_logits[:, row], quality_logits[:, 0, y, x])
                    row += 1
    assert row == raw.scores.shape[1] == len(raw.priors)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 32), (96, 224), (256, 160)])
def test_shapes_follow_the_picture(tiny_parts: Parts, height: int, width: int) -> None:
    with torch.no_grad():
        raw = tiny_parts.detector.eval()(torch.zeros(2, 3, height, width))
    sizes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    count = sum(h * w for h, w in sizes)
    assert [(grid.height, grid.width, grid.stride) for grid in raw.priors.grids] == [
        (*size, stride) for size, stride in zip(sizes, STRIDES, strict=True)
    ]
    assert raw.scores.shape == raw.class_logits.shape == (2, count, 3)
    assert raw.box.shape == (2, count, 4, 17)
    assert raw.quality_logits is not None
    assert raw.quality_logits.shape == (2, count)
    assert len(raw.priors) == count


def test_the_scores_are_probabilities_of_the_logits(tiny_parts: Parts) -> None:
    with torch.no_grad():
        raw = tiny_parts.detector.eval()(torch.randn(1, 3, 64, 64))
    assert raw.quality_logits is not None
    torch.testing.assert_close(raw.scores, raw.class_logits.sigmoid() * raw.quality_logits.sigmoid()[..., None])


def test_without_a_quality_apart_there_are_no_quality_logits(tiny_recipe_v1: Recipe) -> None:
    raw = build_parts(tiny_recipe_v1).detector.eval()(torch.randn(1, 3, 64, 64))
    assert raw.quality_logits is None
    torch.testing.assert_close(raw.scores, raw.class_logits.sigmoid())


def test_pictures_of_a_batch_do_not_see_each_other(tiny_parts: Parts) -> None:
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        together = tiny_parts.detector.eval()(images)
        alone = tiny_parts.detector(images[1:2])
    torch.testing.assert_close(together.scores[1:2], alone.scores, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(together.box[1:2], alone.box, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_are_float32_under_autocast(tiny_parts: Parts, dtype: torch.dtype) -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype):
        raw = tiny_parts.detector.eval()(torch.randn(1, 3, 64, 64))
    assert raw.quality_logits is not None
    for value in (raw.scores, raw.box, raw.class_logits, raw.quality_logits, raw.priors.points):
        assert value.dtype == torch.float32


@pytest.mark.parametrize("training", [False, True])
def test_the_output_is_of_one_type_in_training_and_test(tiny_parts: Parts, *, training: bool) -> None:
    raw = tiny_parts.detector.train(training)(torch.randn(2, 3, 64, 64))
    assert raw.scores.shape == (2, 86, 3)


# ---------------------------------------------------------------- freezing


def started_from_imagenet(recipe: Recipe) -> Parts:
    config = recipe.backbone.model_copy(update={"weights": "imagenet"})
    return build_parts(recipe.model_copy(update={"backbone": config}))


def test_what_starts_from_imagenet_keeps_its_statistics_in_training_too(tiny_recipe: Recipe, tiny_parts: Parts) -> None:
    detector = started_from_imagenet(tiny_recipe).detector.train()
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in detector.modules())
    norms = {name: module for name, module in detector.named_modules() if isinstance(module, StaticBatchNorm2d)}
    learning = {name for name, module in tiny_parts.detector.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms.keys() == learning
    before = {key: value.clone() for key, value in detector.state_dict().items() if "running" in key}
    detector(torch.randn(2, 3, 64, 64) * 5 + 3)
    for key, value in before.items():
        assert torch.equal(detector.state_dict()[key], value), key


def test_what_starts_from_imagenet_freezes_stem_and_first_stage(tiny_recipe: Recipe) -> None:
    detector = started_from_imagenet(tiny_recipe).detector.train()
    frozen = {name for name, p in detector.named_parameters() if not p.requires_grad}
    expected = {
        name
        for name, _ in detector.named_parameters()
        if name.startswith(("backbone.conv1.", "backbone.bn1.", "backbone.layer1."))
    }
    assert frozen == expected
    # the affine part of the other norms learns
    raw = detector(torch.randn(2, 3, 64, 64))
    (raw.class_logits.sum() + raw.box.sum()).backward()
    assert detector.backbone.layer2[0].bn1.weight.grad is not None
    assert detector.backbone.layer1[0].conv1.weight.grad is None


@pytest.mark.parametrize(
    ("stages", "last"), [(-1, ()), (0, ("conv1", "bn1")), (2, ("conv1", "bn1", "layer1", "layer2"))]
)
def test_other_stages_can_be_frozen(tiny_recipe: Recipe, stages: int, last: tuple[str, ...]) -> None:
    config = tiny_recipe.backbone.model_copy(update={"weights": "imagenet", "frozen_stages": stages})
    detector = build_parts(tiny_recipe.model_copy(update={"backbone": config})).detector
    frozen = {name.split(".")[1] for name, p in detector.named_parameters() if not p.requires_grad}
    assert frozen == set(last)


def test_what_starts_from_random_weights_freezes_nothing(tiny_parts: Parts) -> None:
    detector = tiny_parts.detector.train()
    assert all(p.requires_grad for p in detector.parameters())
    assert not any(isinstance(module, StaticBatchNorm2d) for module in detector.modules())
    before = detector.backbone.bn1.running_mean.clone()
    detector(torch.randn(2, 3, 64, 64) + 3)
    assert not torch.equal(detector.backbone.bn1.running_mean, before)


def test_norms_can_learn_from_imagenet_too(tiny_recipe: Recipe) -> None:
    config = BackboneConfig(name="resnet18", weights="imagenet", width=0.25, frozen_norms=False)
    detector = build_parts(tiny_recipe.model_copy(update={"backbone": config})).detector
    assert not any(isinstance(module, StaticBatchNorm2d) for module in detector.modules())


# ---------------------------------------------------------------- size


def parameters(name: str) -> tuple[int, int]:
    """Return the number of parameters of a recipe's detector and how many of them learn."""
    with torch.device("meta"):
        found = list(build_parts(get_recipe(name)).detector.parameters())
    return sum(p.numel() for p in found), sum(p.numel() for p in found if p.requires_grad)


def test_the_parameters_are_as_many_as_in_the_authors_code() -> None:
    # counted in github.com/implus/GFocalV2 at bfcc2b9; V2's file has one class output more, which is never used
    total, trainable = parameters("gfl_r50_fpn_1x")
    assert trainable == 32_215_193
    assert round(total / 1e6, 2) == 32.44
    total_v2, trainable_v2 = parameters("gflv2_r50_fpn_1x")
    # two fully connected layers, 20 -> 64 -> 1 (V2 Sec. 3.2)
    assert total_v2 - total == trainable_v2 - trainable == 1_409 == 20 * 64 + 64 + 64 + 1
