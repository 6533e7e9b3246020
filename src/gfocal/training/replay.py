"""Doing the step again that a run ended at, to see where its loss stops being a number."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gfocal.config import Recipe
from gfocal.data.pictures import path_text
from gfocal.devices import autocast, choose_device, choose_precision
from gfocal.errors import UserError
from gfocal.model import Model, build
from gfocal.training.guard import FORMAT
from gfocal.training.state import read_tensors
from gfocal.training.step import outputs


def replay(path: str | Path, *, precision: str | None = None, device: str | None = None) -> str:
    """Do the step of a file that a run left behind again and return what is found, as text.

    Told are the losses of the batch and of each picture alone, the first layer that puts out what is not finite, and
    the parameters whose values or gradients are not. precision: None as in the run. UserError for another file.
    """
    content = read_tensors(Path(path))
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: not a file that a run left behind for replay")
    where = choose_device(device)
    dtype = choose_precision(precision or content["precision"], where)
    model = build(Recipe.from_yaml(content["recipe"], where=str(path)), device=where)
    model.detector.load_state_dict(content["weights"])
    model.detector.train()
    images, names = content["images"].to(where), content["names"]
    truths = [{k: v.to(where) if isinstance(v, Tensor) else v for k, v in t.items()} for t in content["truths"]]

    lines = [f"step {content['step']} in {str(dtype).removeprefix('torch.')}, {len(names)} pictures"]
    spoilt = [name for name, value in model.detector.named_parameters() if not value.isfinite().all()]
    lines.append(f"weights that are not finite: {_listed(spoilt)}")
    bad_layers: list[str] = []
    with autocast(dtype, where):
        with _watched(model.detector, bad_layers):
            losses = model.criterion(outputs(model.detector, images), truths)
        lines.append(f"losses: {_shown(losses)}")
        lines.append(f"first layer whose output is not finite: {bad_layers[0] if bad_layers else 'none'}")
        for index, name in enumerate(names):
            alone = _alone(model, images[index : index + 1], truths[index : index + 1])
            lines.append(f"  {path_text(name)}: {alone}, {_boxes(truths[index])}")
    torch.stack(list(losses.values())).sum().backward()
    gradients = [n for n, p in model.detector.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    lines.append(f"gradients that are not finite: {_listed(gradients)}")
    return "\n".join(lines)


@torch.no_grad()
def _alone(model: Model, images: Tensor, truths: Sequence[Mapping[str, Any]]) -> str:
    """Return the losses of one picture, or that it is too small for batch norms to have a variance."""
    try:
        return _shown(model.criterion(outputs(model.detector, images), truths))
    except UserError:
        return "too small to be done alone"


@contextmanager
def _watched(detector: nn.Module, found: list[str]) -> Generator[None]:
    """Meanwhile take note of layers, in the order they run, that put out what is not finite."""
    names = {module: name for name, module in detector.named_modules() if not list(module.children())}

    def look(module: nn.Module, inputs: Any, out: Any) -> None:
        if isinstance(out, Tensor) and not out.isfinite().all():
            found.append(names[module])

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _shown(losses: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())


def _boxes(truth: Mapping[str, Any]) -> str:
    boxes = truth["boxes"]
    if not len(boxes):
        return "no box"
    sides = boxes[:, 2:] - boxes[:, :2]
    return f"{len(boxes)} boxes, sides {float(sides.min()):.4g} to {float(sides.max()):.4g} pixels"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"
