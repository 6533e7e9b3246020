"""What several tests need to make and compare weights."""

from __future__ import annotations

from pathlib import Path

import torch

import gfocal
from gfocal.builder import Parts, build_parts
from gfocal.config import BackboneConfig, HeadConfig, Recipe
from gfocal.data.scenes import CLASS_NAMES
from gfocal.recipes import get_recipe


def randomised(parts: Parts) -> Parts:
    """Give every weight and statistic a value of its own, so that none can be mistaken for another."""
    with torch.no_grad():
        for key, value in parts.detector.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape) + 0.5 if "var" in key else torch.randn(value.shape) * 0.05)
    return parts


def assert_same_weights(first: Parts, second: Parts) -> None:
    state, other = first.detector.state_dict(), second.detector.state_dict()
    assert state.keys() == other.keys()
    for key, value in state.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, other[key]), key


def without_weights(recipe: Recipe) -> Parts:
    torch.manual_seed(99)
    return build_parts(recipe)


def save_eager_model(folder: Path) -> None:
    """Save the smallest detector that knows the classes of scenes, with random weights that find much everywhere."""
    tiny = {
        "class_names": CLASS_NAMES,
        "backbone": BackboneConfig(name="resnet18", weights="none", width=0.125),
        "head": HeadConfig(channels=64, depth=1),
    }
    torch.manual_seed(0)
    model = gfocal.build(get_recipe("gflv2_r18_mini").model_copy(update=tiny), device="cpu")
    with torch.no_grad():
        model.detector.quality.cls.bias.fill_(1.0)
    model.save(folder / "best.safetensors")
