"""`gfocal.load`: a trained model from whatever file holds it."""

from __future__ import annotations

from pathlib import Path

import torch

from gfocal.boxrep import BoxRepresentation
from gfocal.config import Recipe
from gfocal.model import Model, load_model
from gfocal.quality import Quality


def load(
    source: str | Path,
    *,
    recipe: str | Path | Recipe | None = None,
    quality: Quality | None = None,
    box: BoxRepresentation | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """Return a trained model.

    source: a folder of `gfocal train` (its best weights), a .safetensors file of `Model.save`, an official .pth of
    GFocalV2 or mmdetection 2.x or 3.x, or the name of a recipe whose weights mmdetection publishes, which are
    downloaded once. recipe: name, YAML file or Recipe of an official file; None finds it from the keys.
    quality, box: an instance of the part from outside the package that the model was built with. device: "cpu", "cuda"
    or None for the GPU where there is one. UserError where the file does not fit, naming every
    key that is missing, unexpected or misshapen.
    """
    return load_model(source, recipe=recipe, quality=quality, box=box, device=device)
