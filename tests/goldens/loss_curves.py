"""Make the loss curves of a recipe a family, at tiny width from seeded weights: run once, and where one should change.

Provenance: made by this package itself, at the commit that added them, after it had agreed with the authors' code (see
make.py). Usage: python tests/goldens/loss_curves.py
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

import gfocal
from gfocal.builder import build_parts
from gfocal.config import BackboneConfig, HeadConfig

RECIPES = (
    "gfl_r50_fpn_1x",
    "gflv2_r50_fpn_1x",
    "atss_r50_fpn_1x",
    "fcos_r50_fpn_1x",
    "retinanet_r50_fpn_1x",
    "foveabox_r50_fpn_1x",
    "ssd512_vgg16",
)
STEPS = 20
CLASSES = ("circle", "square", "star")


def tiny(name):
    """Return a recipe of the paper with three classes and few channels, from random weights."""
    recipe = gfocal.get_recipe(name)
    narrow = {"name": "resnet26", "width": 0.125}  # the smallest one of bottlenecks, as the paper's are
    if name == "ssd512_vgg16":
        narrow = {"width": 1 / 16}
    backbone = BackboneConfig.model_validate(recipe.backbone.model_dump() | narrow | {"weights": "none"})
    head = HeadConfig(channels=64, depth=1)
    return recipe.model_copy(update={"backbone": backbone, "head": head, "class_names": CLASSES})


def curve_of(name):
    """Return each loss of each step of training on one batch: two pictures of 64 x 96, or one as SSD needs it."""
    recipe = tiny(name)
    parts = build_parts(recipe)
    seed_weights(parts.detector)
    rng = np.random.default_rng(0)
    height, width, count = (512, 512, 1) if name == "ssd512_vgg16" else (64, 96, 2)
    images = torch.from_numpy(rng.standard_normal((count, 3, height, width)).astype(np.float32))
    shares = torch.tensor([[0.05, 0.1, 0.65, 0.9], [0.5, 0.3, 0.98, 0.99], [0.3, 0.05, 0.55, 0.4]])
    boxes = shares * torch.tensor([width, height, width, height])
    truths = [{"boxes": boxes, "labels": torch.arange(3)}, {"boxes": boxes[:1] + 3, "labels": torch.tensor([1])}]
    sgd = torch.optim.SGD(parts.detector.parameters(), lr=0.005, momentum=0.9, weight_decay=1e-4)
    curves = {}
    for _ in range(STEPS):
        losses = parts.criterion(parts.detector.train()(images), truths[:count])
        sgd.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(parts.detector.parameters(), 10.0)
        sgd.step()
        for key, value in losses.items():
            curves.setdefault(key, []).append(value.item())
    return curves


def seed_weights(detector):
    """Fill all layers with numbers that follow from their order, about as large as they start."""
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if parameter.ndim > 1:
                spread = 0.01 if name.startswith(("trunk.", "outputs.")) else (2 / parameter[0].numel()) ** 0.5
                parameter.copy_(torch.from_numpy(spread * rng.standard_normal(tuple(parameter.shape))))


if __name__ == "__main__":
    curves = {name: curve_of(name) for name in RECIPES}
    rounded = {n: {key: [float(f"{v:.7g}") for v in values] for key, values in c.items()} for n, c in curves.items()}
    (Path(__file__).parent / "loss_curves.json").write_text(json.dumps(rounded, indent=1) + "\n")
