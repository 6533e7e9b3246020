"""What a golden case measures of a model loaded from an official file."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from weights import images, truths

import gfocal

RECIPES = (
    "gfl_r50_fpn_1x",
    "gflv2_r50_fpn_1x",
    "atss_r50_fpn_1x",
    "fcos_r50_fpn_1x",
    "retinanet_r50_fpn_1x",
    "foveabox_r50_fpn_1x",
    "ssd512_vgg16",
)
FOUND_FROM_THE_FILE = RECIPES[:2]
ROWS = {"retinanet_r50_fpn_1x": 63, "ssd512_vgg16": 499}
"""Every which location is kept, 7 by default."""
SIZES = {"ssd512_vgg16": [(512, 512)]}
RATES = {"retinanet_r50_fpn_1x": 1e-5, "foveabox_r50_fpn_1x": 1e-5}
"""Learning rate of the steps, 1e-3 by default: towers without norms leap farther."""


def recipe_of(name):
    """Return the recipe of a case: SSD's with a quarter of its channels, since it takes large pictures."""
    recipe = gfocal.get_recipe(name)
    width = {"width": 0.25} if name == "ssd512_vgg16" else {}
    return recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update=width)})


def measure(name, state):
    """Return scores, boxes, detections, losses, gradient norm and three SGD steps, as NumPy arrays."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "official.pth"
        torch.save({"meta": {}, "state_dict": state}, path)
        model = gfocal.load(path, recipe=None if name in FOUND_FROM_THE_FILE else recipe_of(name), device="cpu")
    assert model.recipe == recipe_of(name)
    batch, sizes = images(0, SIZES.get(name, [(96, 128), (64, 160)]))
    model.detector.eval()
    with torch.inference_mode():
        raw = model.detector(batch)
        found = model.postprocess(raw, sizes)
    rows = slice(0, None, ROWS.get(name, 7))
    out = {
        "scores": raw.scores[:, rows, ::5].numpy(),
        "box": raw.box[:, rows].numpy(),
        "boxes": found[0].boxes[:20].numpy(),
        "box_scores": found[0].scores[:20].numpy(),
        "labels": found[0].labels[:20].numpy(),
    }
    model.detector.train()
    learning = [p for p in model.detector.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(learning, lr=RATES.get(name, 1e-3), momentum=0.9, weight_decay=1e-4)
    curve = []
    for step in range(3):
        losses = model.criterion(model.detector(batch), truths(sizes, 1))
        total = sum(losses.values())
        sgd.zero_grad()
        total.backward()
        if step == 0:
            out |= {f"loss_{key}": np.float64(value.item()) for key, value in losses.items()}
            out["grad_norm"] = np.float64(torch.cat([p.grad.double().flatten() for p in learning]).norm())
        curve.append(total.item())
        sgd.step()
    return out | {"curve": np.array(curve)}
