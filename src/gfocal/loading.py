"""`gfocal.load`: a trained model, or one that was exported, from whatever file holds it."""

from __future__ import annotations

import logging
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from gfocal.boxrep import BoxRepresentation
from gfocal.config import Recipe
from gfocal.data.collate import pad
from gfocal.errors import UserError, first_line
from gfocal.exported import ExportedModel, is_exported, load_exported
from gfocal.model import Model, load_model
from gfocal.predictor import Predictor
from gfocal.quality import Quality

logger = logging.getLogger(__name__)


def load(
    source: str | Path,
    *,
    recipe: str | Path | Recipe | None = None,
    quality: Quality | None = None,
    box: BoxRepresentation | None = None,
    device: str | torch.device | None = None,
    backend: str = "torch",
) -> Model | ExportedModel:
    """Return a trained model, or one that was exported, whose `predict` is the same.

    source: a folder of `gfocal train` (its best weights), a .safetensors file of `Model.save`, an official .pth of
    GFocalV2 or mmdetection 2.x or 3.x, the name of a recipe whose weights mmdetection publishes, which are downloaded
    once, or an .onnx or .xml file of `gfocal export`. recipe: name, YAML file or Recipe of an official file; None finds
    it from the keys. quality, box: an instance of the part from outside the package that the model was built with.
    device: "cpu", "cuda" or None for the GPU where there is one. backend: how the model computes, see
    `Model.with_backend`; an exported file has its own. UserError where the file does not fit, naming every key that is
    missing, unexpected or misshapen.
    """
    if is_exported(source):
        if any(part is not None for part in (recipe, quality, box)) or backend != "torch":
            raise UserError(f"{source}: an exported file brings its recipe, parts and runtime: give none of them")
        return load_exported(source, device=device)
    model = load_model(source, recipe=recipe, quality=quality, box=box, device=device)
    return model if backend == "torch" else model.with_backend(backend)


def load_inner(source: str | Path | Predictor, *, device: str | torch.device | None = None) -> Model:
    """Return a model with its detector, for what looks at more than detections; source: what `load` returns or takes.

    UserError for an exported file, which holds neither the detector nor what it finds before suppression.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, Predictor) or is_exported(source):
        name = "the model" if isinstance(source, Predictor) else source
        raise UserError(
            f"{name}: an exported file does not tell what the detector finds before suppression, which is needed here: "
            "give the weights it was made from"
        )
    return load_model(source, device=device)


def load_for(
    source: str | Path,
    *,
    pictures: int | None,
    device: str | torch.device | None = None,
    backend: str = "auto",
    size: tuple[int, int] | None = None,
    precision: str | None = None,
) -> Model | ExportedModel:
    """Return what `load` does, ready for a run over so many pictures; None where their number is not known.

    backend: "auto" takes OpenVINO where it is installed, the run is long and on a CPU, and OpenVINO is the faster one
    in a trial of a few pictures. size, precision: those of the run, as in `Predictor.predict`. UserError for a
    precision that the model does not compute in.
    """
    model = load(source, device=device, backend="torch" if backend == "auto" else backend)
    model.computing(precision)  # one that it does not compute in is refused before anything long
    long = backend == "auto" and pictures is not None and pictures >= LONG_RUN
    if not (long and isinstance(model, Model) and model.device.type == "cpu" and find_spec("openvino")):
        return model
    other = model.with_backend("openvino")
    logger.info("%d pictures: trying whether OpenVINO is faster", pictures)
    try:
        theirs = _trial(other, size, precision)
    except Exception as error:  # nobody asked for OpenVINO, and what its converter cannot do is not the user's fault
        logger.info("OpenVINO cannot compute this model (%s): PyTorch it is", first_line(error))
        return model
    ours = _trial(model, size, precision)
    chosen = other if theirs < WORTH * ours else model
    logger.info("OpenVINO %.0f ms a picture, PyTorch %.0f ms: %s it is", 1e3 * theirs, 1e3 * ours, chosen.backend)
    return chosen


def _trial(model: Model, size: tuple[int, int] | None, precision: str | None) -> float:
    """Return the least time of three forward passes for a picture of 640 x 480, in seconds."""
    images = pad(model.prepare(size)(np.zeros((480, 640, 3), dtype=np.uint8)).image)
    model.forward(images, precision=precision)
    times: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        model.forward(images, precision=precision)
        times.append(time.perf_counter() - start)
    return min(times)


LONG_RUN = 500
"""Pictures from where on the seconds that converting and trying take are worth it."""

WORTH = 0.95
"""Share of PyTorch's time that another backend may take at most: a trial on a busy machine is no closer than that."""
