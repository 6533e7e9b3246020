"""A detector ready for use: pictures in, detections out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.boxrep import BoxRepresentation
from gfocal.builder import Parts, build_parts
from gfocal.calibration import Calibration
from gfocal.checkpoint import load_state, save_weights, without_init
from gfocal.config import Recipe, name_of_outside
from gfocal.devices import autocast, choose_device, choose_precision, described
from gfocal.errors import UserError, unknown
from gfocal.predictor import Predictor
from gfocal.quality import Quality
from gfocal.recipes import get_recipe
from gfocal.runtime.backends import BACKENDS, RUNTIMES
from gfocal.runtime.copies import Copies
from gfocal.structures import Detections, Raw
from gfocal.weights import open_weights


@final
class Model(Predictor):
    """A recipe's detector, criterion and post-processing on one device, and a calibration where it has one."""

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        device: torch.device,
        *,
        calibration: Calibration | None = None,
        backend: str = "torch",
    ) -> None:
        if backend not in BACKENDS:
            raise unknown("backend", backend, tuple(BACKENDS))
        if calibration is not None and calibration.class_names != recipe.class_names:
            raise ValueError(f"the calibration is for classes {calibration.class_names}, not {recipe.class_names}")
        self.recipe = recipe
        self.device = device
        self.calibration = calibration
        self.detector = parts.detector.to(device).to(memory_format=torch.channels_last)
        self.criterion = parts.criterion
        self.postprocess = parts.postprocess
        self.backend = backend
        self._copies = Copies(BACKENDS[backend])

    @property
    def parts(self) -> Parts:
        """The three objects that the model stands on."""
        return Parts(self.detector, self.criterion, self.postprocess)

    def with_calibration(self, calibration: Calibration | None) -> Model:
        """Return the model with another calibration, or none; the detector itself is shared.

        ValueError where the calibration is of other classes.

        >>> import gfocal
        >>> model = gfocal.build("gflv2_r18_mini", device="cpu")
        >>> model.with_calibration(None).detector is model.detector
        True
        """
        return Model(self.recipe, self.parts, self.device, calibration=calibration, backend=self.backend)

    def with_backend(self, backend: str) -> Model:
        """Return the model with another way to predict; the detector itself is shared.

        backend: "torch"; "compile" has PyTorch compile the detector, which takes minutes at the first picture and
        again at the first of another size; "openvino" converts it for OpenVINO, which takes seconds (extra `openvino`,
        CPU only). UserError for others.

        >>> import gfocal
        >>> gfocal.build("gflv2_r18_mini", device="cpu").with_backend("compile").backend
        'compile'
        """
        return Model(self.recipe, self.parts, self.device, calibration=self.calibration, backend=backend)

    def calibrated(self, found: Detections) -> Detections:
        """Return what `postprocess` found with calibrated edges and with bands, as it is where there is no calibration.

        >>> import gfocal
        >>> model = gfocal.build("gflv2_r18_mini", device="cpu")
        >>> found = model.predict(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy())
        >>> model.calibrated(found) is found
        True
        """
        return found if self.calibration is None else self.calibration.apply(found)

    def find(
        self,
        images: Float[Tensor, "b 3 h w"],
        sizes: Sequence[tuple[int, int]],
        *,
        scales: Sequence[tuple[float, float]] | None = None,
        threshold: float | None = None,
        precision: str | None = None,
    ) -> list[Detections]:
        """Return the detections of each picture of a padded batch (see `Predictor.find`)."""
        raw = self.forward(images, precision=precision)
        found = self.postprocess(raw, sizes, scales=scales, threshold=threshold)
        return [self.calibrated(one.cpu()) for one in found]

    def computing(self, precision: str | None = None) -> str:
        """Return what computes, where, and in which precision, for people (see `Predictor.computing`)."""
        return described(RUNTIMES[self.backend], self.device, choose_precision(precision, self.device))

    def forward(self, images: Tensor, *, precision: str | None = None) -> Raw:
        """Return the raw output for a padded batch (b, 3, h, w) of normalised pictures, without gradients.

        A private copy of the detector computes it, made by the backend: equal to the detector's own output within the
        last digits of the precision.
        """
        dtype = choose_precision(precision, self.device)
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(dtype, self.device):
            return self._copies.of(self.detector, dtype)(images)

    def save(self, path: str | Path) -> None:
        """Write weights, recipe and calibration as one .safetensors file, which `gfocal.load` reads back."""
        save_weights(Path(path), self.detector, self.recipe, calibration=self.calibration)


def build(
    recipe: str | Path | Recipe,
    *,
    quality: Quality | None = None,
    box: BoxRepresentation | None = None,
    device: str | torch.device | None = None,
    fetch_weights: bool = False,
) -> Model:
    """Return a fresh model of a recipe, by name, YAML file or as it is.

    quality, box: replace the recipe's part by an instance from anywhere; the model's recipe then names it
    `module:Class`, and what is saved loads only when such an instance is given again. fetch_weights: load the ImageNet
    weights that the recipe starts from. UserError for an unknown recipe, parts that do not fit together, or weights
    that cannot be fetched.
    """
    recipe = get_recipe(recipe)
    outside = {"quality": quality, "box": box}
    named = {axis: {"name": name_of_outside(part)} for axis, part in outside.items() if part is not None}
    recipe = recipe.model_copy(update=named)
    parts = build_parts(recipe, quality=quality, box=box, fetch_weights=fetch_weights)
    parts.detector.eval()
    return Model(recipe, parts, choose_device(device))


def convert(source: str | Path, out: str | Path, *, recipe: str | Path | Recipe | None = None) -> Recipe:
    """Write weights of any kind that `load` takes as one .safetensors file, whole or not at all; return their recipe.

    UserError where the source does not fit, or `out` does not end with .safetensors or cannot be written.
    """
    if Path(out).suffix != ".safetensors":
        raise UserError(f"{out}: converted weights are .safetensors: let the name end so")
    model = load_model(source, recipe=recipe, device="cpu")
    model.save(out)
    return model.recipe


def load_model(
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
    weights = open_weights(source, recipe=recipe)
    with without_init():
        parts = build_parts(weights.recipe, quality=quality, box=box)
    load_state(parts.detector.eval(), weights.state, where=str(weights.path))
    model = Model(weights.recipe, parts, choose_device(device))
    calibration = weights.calibration
    if calibration is None:
        return model
    if len(calibration.class_names) != len(model.class_names):
        raise UserError(f"{weights.path}: its calibration is of other classes: calibrate the model again")
    # classes may be called otherwise in a recipe of the caller's, but they are the same, in the same order
    return model.with_calibration(replace(calibration, class_names=model.class_names))
