"""What a golden case measures of a model loaded from an official file."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from weights import images, truths

import gfocal

ROWS = slice(0, None, 7)


def measure(recipe, state):
    """Return scores, boxes, detections, losses, gradient norm and three SGD steps, as NumPy arrays."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "official.pth"
        torch.save({"meta": {}, "state_dict": state}, path)
        model = gfocal.load(path, device="cpu")
    assert model.recipe.name == recipe
    batch, sizes = images(0)
    model.detector.eval()
    with torch.inference_mode():
        raw = model.detector(batch)
        found = model.postprocess(raw, sizes)
    out = {
        "scores": raw.scores[:, ROWS, ::5].numpy(),
        "box": raw.box[:, ROWS].numpy(),
        "boxes": found[0].boxes[:20].numpy(),
        "box_scores": found[0].scores[:20].numpy(),
        "labels": found[0].labels[:20].numpy(),
    }
    model.detector.train()
    learning = [p for p in model.detector.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(learning, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    curve = []
    for step in range(3):
        losses = model.criterion(model.detector(batch), truths(sizes, 1))
        total = sum(losses.values())
        sgd.zero_grad()
        total.backward()
        if step == 0:
            out |= {f"loss_{name}": np.float64(value.item()) for name, value in losses.items()}
            out["grad_norm"] = np.float64(torch.cat([p.grad.double().flatten() for p in learning]).norm())
        curve.append(total.item())
        sgd.step()
    return out | {"curve": np.array(curve)}
