"""`gfocal.load`: a trained model, or one that was exported, from whatever file holds it."""

from __future__ import annotations

from pathlib import Path

import torch

from gfocal.boxrep import BoxRepresentation
from gfocal.config import Recipe
from gfocal.errors import UserError
from gfocal.exported import ExportedModel, is_exported, load_exported
from gfocal.model import Model, load_model
from gfocal.quality import Quality


def load(
    source: str | Path,
    *,
    recipe: str | Path | Recipe | None = None,
    quality: Quality | None = None,
    box: BoxRepresentation | None = None,
    device: str | torch.device | None = None,
) -> Model | ExportedModel:
    """Return a trained model, or one that was exported, whose `predict` is the same.

    source: a folder of `gfocal train` (its best weights), a .safetensors file of `Model.save`, an official .pth of
    GFocalV2 or mmdetection 2.x or 3.x, the name of a recipe whose weights mmdetection publishes, which are downloaded
    once, or an .onnx or .xml file of `gfocal export`. recipe: name, YAML file or Recipe of an official file; None finds
    it from the keys. quality, box: an instance of the part from outside the package that the model was built with.
    device: "cpu", "cuda" or None for the GPU where there is one. UserError where the file does not fit, naming every
    key that is missing, unexpected or misshapen.
    """
    if is_exported(source):
        if any(part is not None for part in (recipe, quality, box)):
            raise UserError(f"{source}: an exported file brings its recipe and parts: give none of them")
        return load_exported(source, device=device)
    return load_model(source, recipe=recipe, quality=quality, box=box, device=device)
