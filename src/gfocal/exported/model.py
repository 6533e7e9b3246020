"""An exported file in the place of a model: the same pictures in, the same detections out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.builder import build_parts
from gfocal.checkpoint import without_init
from gfocal.errors import UserError, within_one
from gfocal.exported.engines import ENGINES, Engine
from gfocal.postprocess import PostProcess
from gfocal.predictor import Predictor
from gfocal.programs.graph import raw_of
from gfocal.structures import Detections, EdgeDistributions


@final
class ExportedModel(Predictor):
    """A detector that a runtime computes from a file of `gfocal export`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.recipe = engine.header.recipe
        self._postprocess: PostProcess | None = None
        if engine.header.content == "raw":
            with without_init():
                self._postprocess = build_parts(self.recipe).postprocess

    def computing(self, precision: str | None = None) -> str:
        """Return what computes, where, and in which precision, for people (see `Predictor.computing`)."""
        return self.engine.computing(precision)

    def find(
        self,
        images: Float[Tensor, "b 3 h w"],
        sizes: Sequence[tuple[int, int]],
        *,
        scales: Sequence[tuple[float, float]] | None = None,
        threshold: float | None = None,
        precision: str | None = None,
    ) -> list[Detections]:
        """Return the detections of each picture of a padded batch (see `Predictor.find`).

        A file with suppression inside has its recipe's threshold inside, too: UserError for a lower one. A higher one
        is held against what is left after suppression, which is the same but where a quality branch has a say in the
        order (`class_scores`): there, what it drops may have suppressed something first.
        """
        scales = [(1.0, 1.0)] * len(sizes) if scales is None else scales
        inputs = {"images": images.cpu().numpy()}
        if self._postprocess is not None:
            raw = raw_of(self.engine.run(inputs, precision=precision))
            found = self._postprocess(raw, sizes, scales=scales, threshold=threshold)
        else:
            lowest = self.recipe.test.score_threshold
            if threshold is not None and within_one("threshold", threshold) < lowest:
                raise UserError(
                    f"threshold {threshold} is under {lowest}, below which the file leaves out boxes itself: export "
                    "it with raw, or a recipe with a lower test.score_threshold"
                )
            inputs["sizes"] = np.array(sizes, dtype=np.int64).reshape(-1, 2)
            outputs = self.engine.run(inputs, precision=precision)
            found = [
                detections_of(
                    outputs,
                    index,
                    scale=scale,
                    threshold=lowest if threshold is None else threshold,
                    class_names=self.class_names,
                )
                for index, scale in enumerate(scales)
            ]
        calibration = self.engine.header.calibration
        return found if calibration is None else [calibration.apply(one) for one in found]


def load_exported(path: str | Path, *, device: str | torch.device | None = None) -> ExportedModel:
    """Return the model that an .onnx or .xml file computes.

    device: "cpu", "cuda" for an .onnx file where ONNX Runtime has it, or None for the best there is. UserError where
    the file is missing, none of `gfocal export`, or its runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not is_exported(path):
        raise UserError(f"{path}: exported models are .onnx or .xml files")
    return ExportedModel(ENGINES[path.suffix](path, device=device))


def is_exported(source: str | Path) -> bool:
    """Return whether a name ends as those of exported files do.

    >>> is_exported("model.onnx"), is_exported("runs/demo")
    (True, False)
    """
    return Path(source).suffix in ENGINES


def detections_of(
    outputs: Mapping[str, Tensor],
    index: int,
    *,
    scale: tuple[float, float],
    threshold: float,
    class_names: tuple[str, ...],
) -> Detections:
    """Return the rows of one picture that stand for boxes above the threshold."""
    own = {name: values[index] for name, values in outputs.items()}
    rows = (own["scores"] > 0) & (own.get("class_scores", own["scores"]) > threshold)
    own = {name: values[rows] for name, values in own.items()}
    ratio = own["boxes"].new_tensor([*scale, *scale])
    edges = None
    if "edges" in own:
        edges = EdgeDistributions(own["edges"], own["positions"] / ratio[:, None])
    return Detections(
        boxes=own["boxes"] / ratio,
        scores=own["scores"],
        labels=own["labels"],
        class_names=class_names,
        quality=own.get("quality"),
        edges=edges,
        levels=own["levels"],
        locations=own["locations"],
    )
