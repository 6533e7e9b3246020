"""Pictures in, detections out: what models and exported files have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gfocal.config import Recipe
from gfocal.data.collate import pad
from gfocal.data.pictures import read_picture, to_rgb
from gfocal.data.preparing import Prepare
from gfocal.errors import UserError
from gfocal.families import family_of
from gfocal.structures import Detections

Picture: TypeAlias = "str | Path | Image.Image | npt.NDArray[np.uint8]"


class Predictor(ABC):
    """A detector of a recipe that finds boxes in pictures, however it computes.

    recipe: tells its classes and how pictures are prepared for it.
    """

    recipe: Recipe

    @abstractmethod
    def find(
        self,
        images: Float[Tensor, "b 3 h w"],
        sizes: Sequence[tuple[int, int]],
        *,
        scales: Sequence[tuple[float, float]] | None = None,
        threshold: float | None = None,
        precision: str | None = None,
    ) -> list[Detections]:
        """Return the detections of each picture of a padded batch of normalised pictures, in the host's memory.

        sizes: (height, width) of each in the batch before padding. scales: pixels of the batch for one of the picture,
        along x and y, by which boxes are divided. threshold, precision: as in `predict`.
        """

    @abstractmethod
    def computing(self, precision: str | None = None) -> str:
        """Return what computes, where, and in which precision, for people: "by PyTorch on cpu ...".

        precision: as in `predict`. UserError for one that this does not compute in.
        """

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        return self.recipe.class_names

    @property
    def least_side(self) -> int:
        """The least size in pixels that the short side of a picture may be resized to."""
        least = family_of(self.recipe.family).least_side
        return least if least > 32 else 1  # what is smaller than a cell of the coarsest level is padded

    @overload
    def predict(
        self,
        source: Picture,
        *,
        size: tuple[int, int] | None = None,
        precision: str | None = None,
        threshold: float | None = None,
    ) -> Detections: ...

    @overload
    def predict(
        self,
        source: Sequence[Picture],
        *,
        size: tuple[int, int] | None = None,
        precision: str | None = None,
        threshold: float | None = None,
    ) -> list[Detections]: ...

    def predict(
        self,
        source: Picture | Sequence[Picture],
        *,
        size: tuple[int, int] | None = None,
        precision: str | None = None,
        threshold: float | None = None,
    ) -> Detections | list[Detections]:
        """Return what is in a picture, or in each of a list, in the picture's own pixels.

        source: path, PIL image, uint8 RGB array (h, w, 3), or a list of them. size: (short, long) side in pixels the
        picture is resized to; None takes the recipe's. precision: "float32", "bfloat16", "float16", or None for the
        fastest that the device is built for. threshold: lowest score, 0..1 (with a quality branch, as of ATSS
        and FCOS, that of the class before the branch lowers it); None takes the recipe's test threshold.
        Where the model has a calibration, `edges` are the calibrated distributions, and `bands` tell where edges and
        boxes lie with stated probabilities; boxes, scores and their order are the same with and without one.
        A list is looked at one picture at a time. UserError for a picture that cannot be read, or a threshold that is
        not in 0..1.
        """
        single = isinstance(source, str | Path | Image.Image | np.ndarray)
        pictures = [source] if single else list(source)
        prepare = self.prepare(size)
        found = [self._predict(picture, prepare, precision, threshold) for picture in pictures]
        return found[0] if single else found

    def _predict(
        self, picture: Picture, prepare: Prepare, precision: str | None, threshold: float | None
    ) -> Detections:
        array = read_picture(picture) if isinstance(picture, str | Path) else to_rgb(picture)
        prepared = prepare(array)
        (found,) = self.find(
            pad(prepared.image), [prepared.size], scales=[prepared.scale], threshold=threshold, precision=precision
        )
        return found

    def prepare(self, size: tuple[int, int] | None = None) -> Prepare:
        """Return the preparation of a picture for this model; size: (short, long), None for the recipe's."""
        pictures = self.recipe.pictures
        try:
            short, long = (pictures.short, pictures.long) if size is None else size
        except (TypeError, ValueError):
            raise UserError(f"size must be (short, long) in pixels, got {size!r}") from None
        if not 1 <= short <= long:
            raise UserError(f"size must be (short, long) with 1 <= short <= long, got {(short, long)}")
        if short < self.least_side:
            raise UserError(
                f"size: family {self.recipe.family['name']!r} needs {self.least_side} pixels at least, got {short}"
            )
        return Prepare(
            short=short,
            long=long,
            mean=pictures.mean,
            std=pictures.std,
            bgr=pictures.bgr,
            upscale=pictures.upscale or size is not None,
            keep_aspect=pictures.keep_aspect,
        )
