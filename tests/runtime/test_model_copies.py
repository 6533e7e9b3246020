"""Models predict by a private copy of their detector, which always has the detector's own weights."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import gfocal
from gfocal.config import BackboneConfig
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.recipes import get_recipe
from gfocal.runtime import eager
from gfocal.structures import Raw

RECIPES = ("gfl_r18_mini", "gflv2_r18_mini", "atss_r50_fpn_1x", "ssd512_vgg16", "retinanet_r50_fpn_1x")


def small(name: str) -> Model:
    """Return a narrow model of a recipe, its weights drawn, its norms as after training."""
    recipe = get_recipe(name)
    backbone = recipe.backbone.model_copy(update={"width": 0.25, "weights": "none"})
    if backbone.name.startswith("resnet"):
        backbone = BackboneConfig(name="resnet18", weights="none", width=0.25)
    torch.manual_seed(0)
    model = gfocal.build(recipe.model_copy(update={"backbone": backbone}), device="cpu")
    for module in model.detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, std=0.2)
    return model


def direct(model: Model, images: torch.Tensor) -> Raw:
    with torch.no_grad():
        return model.detector.eval()(images)


def assert_same(ours: Raw, theirs: Raw, *, relative: float) -> None:
    for name in ("scores", "class_scores", "class_logits", "box", "quality_logits"):
        one, other = getattr(ours, name), getattr(theirs, name)
        if other is None:
            assert one is None
        else:
            assert one.dtype == other.dtype
            assert (one - other).abs().max() <= relative * max(float(other.abs().max()), 1), name
    assert torch.equal(ours.priors.points, theirs.priors.points)
    assert ours.priors.grids == theirs.priors.grids


@pytest.mark.parametrize("name", RECIPES)
def test_the_copy_computes_what_the_detector_does(name: str) -> None:
    model = small(name)
    sides = ((512, 512),) if name == "ssd512_vgg16" else ((64, 96), (96, 64), (128, 128))
    for batch, size in enumerate(sides, start=1):
        images = torch.randn(batch, 3, *size)
        assert_same(model.forward(images), direct(model, images), relative=1e-5)


def test_bfloat16_is_near() -> None:
    model = small("gflv2_r18_mini")
    images = torch.randn(1, 3, 96, 96)
    assert_same(model.forward(images, precision="bfloat16"), direct(model, images), relative=0.03)
    assert_same(model.forward(images), direct(model, images), relative=1e-5)


def test_weights_in_the_precision_already_give_what_autocast_makes_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "_packs", lambda dtype: False)  # as on a GPU, or a CPU without such instructions
    model = small("gflv2_r18_mini")
    images = torch.randn(1, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    twin = eager.folded(model.detector)[0]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        wanted = twin(images)
    assert_same(model.forward(images, precision="bfloat16"), wanted, relative=0)
    assert_same(model.forward(images), direct(model, images), relative=1e-5)
    assert all(weight.dtype is torch.float32 for weight in model.detector.parameters())


def optimise(model: Model) -> None:
    images = torch.randn(1, 3, 64, 64)
    optimizer = torch.optim.SGD(model.detector.parameters(), lr=0.1)
    raw = model.detector.train()(images)
    (raw.class_logits.square().mean() + raw.box.square().mean()).backward()
    optimizer.step()


def reload(model: Model) -> None:
    model.detector.load_state_dict({key: value * 1.1 for key, value in model.detector.state_dict().items()})


def assign(model: Model) -> None:
    state = {key: value * 1.1 for key, value in model.detector.state_dict().items()}
    model.detector.load_state_dict(state, assign=True)


def average(model: Model) -> None:
    for weight in model.detector.parameters():
        weight.data.mul_(1.1)


def bias_alone(model: Model) -> None:
    with torch.no_grad():
        model.detector.outputs_of(0).box_conv.bias += 1


def other_layer(model: Model) -> None:
    outputs = model.detector.outputs_of(0)
    outputs.box_conv = nn.Conv2d(outputs.box_conv.in_channels, outputs.box_conv.out_channels, 3, padding=1)


@pytest.mark.parametrize("change", [optimise, reload, assign, average, bias_alone, other_layer])
def test_changed_weights_are_seen(change: object) -> None:
    model = small("gfl_r18_mini")
    images = torch.randn(1, 3, 64, 64)
    before = model.forward(images)
    assert callable(change)
    change(model)
    after = model.forward(images)
    assert not torch.equal(before.box, after.box)
    assert_same(after, direct(model, images), relative=1e-5)


def test_the_detector_itself_stays_as_it_is() -> None:
    model = small("gflv2_r18_mini")
    before = {key: value.clone() for key, value in model.detector.state_dict().items()}
    layers = [type(module) for module in model.detector.modules()]
    model.forward(torch.randn(1, 3, 64, 64))
    model.forward(torch.randn(1, 3, 64, 64), precision="bfloat16")
    assert [type(module) for module in model.detector.modules()] == layers
    assert all(torch.equal(value, before[key]) for key, value in model.detector.state_dict().items())
    raw = model.detector.train()(torch.randn(1, 3, 64, 64))
    raw.scores.sum().backward()
    assert any(weight.grad is not None for weight in model.detector.parameters())


def test_a_backbone_that_cannot_be_traced_keeps_its_norms() -> None:
    class Wayward(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return self.inner(images if images.mean() < 1e9 else images / 2)

    model = small("gfl_r18_mini")
    model.detector.backbone = Wayward(model.detector.backbone)
    images = torch.randn(1, 3, 64, 64)
    assert_same(model.forward(images), direct(model, images), relative=1e-5)


def test_predicting_leaves_the_detector_in_training() -> None:
    model = small("gflv2_r18_mini")
    images = torch.randn(1, 3, 64, 64)
    expected = direct(model, images)
    norm = next(module for module in model.detector.train().modules() if isinstance(module, nn.BatchNorm2d))
    norm.eval()
    flags = [module.training for module in model.detector.modules()]
    for one in (model, model.with_calibration(None), model.with_backend("torch")):
        assert_same(one.forward(images), expected, relative=1e-5)
    assert [module.training for module in model.detector.modules()] == flags


def test_a_model_that_has_predicted_can_be_copied_and_pickled() -> None:
    model = small("gflv2_r18_mini")
    images = torch.randn(1, 3, 64, 64)
    found = model.forward(images)
    assert_same(copy.deepcopy(model).forward(images), found, relative=1e-6)
    assert_same(pickle.loads(pickle.dumps(model)).forward(images), found, relative=1e-6)


@pytest.mark.parametrize("name", ["gcresnext26ts", "mambaout_femto"])
def test_backbones_of_unusual_kinds_are_computed_as_they_are(name: str) -> None:
    """One adds what has one value a channel, the other puts channels last until a hook turns them."""
    recipe = get_recipe("gfl_r18_mini")
    torch.manual_seed(0)
    backbone = BackboneConfig(name=name, weights="none")
    model = gfocal.build(recipe.model_copy(update={"backbone": backbone}), device="cpu")
    images = torch.randn(1, 3, 64, 96)
    assert_same(model.forward(images), direct(model, images), relative=1e-4)


def test_a_family_refuses_pictures_that_its_levels_cannot_hold() -> None:
    with pytest.raises(UserError, match="'ssd' needs 512 pixels at least, got 300"):
        small("ssd512_vgg16").prepare((300, 400))
    assert small("gfl_r18_mini").predict(np.zeros((9, 7, 3), np.uint8), size=(7, 9)).boxes.shape[1] == 4


def test_threads_that_make_copies_and_threads_that_predict_leave_each_other_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    models = [small("gfl_r18_mini") for _ in range(6)]
    want = models[0].predict(picture).scores
    with ThreadPoolExecutor(4) as threads:  # five copies are made while the first one predicts
        found = list(
            threads.map(lambda place: models[place].predict(picture).scores, [1, 0, 0, 2, 0, 3, 0, 4, 0, 0, 5])
        )
    assert all(torch.equal(scores, want) for scores in found)
