"""What an exported file tells of itself, so that nothing else is needed to run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from gfocal.calibration import Calibration
from gfocal.config import Recipe
from gfocal.errors import UserError
from gfocal.version import __version__

FORMAT = "gfocal-export-1"

Content: TypeAlias = Literal["detections", "raw"]
FilePrecision: TypeAlias = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class Header:
    """The model that a file computes: its recipe, its calibration where it has one, and what was made of it.

    content: "detections", after suppression, or "raw", the output of the detector. precision: of the convolutions.
    version: of the package that wrote the file.
    """

    recipe: Recipe
    content: Content
    precision: FilePrecision
    calibration: Calibration | None = None
    version: str = __version__

    def to_texts(self) -> dict[str, str]:
        """Return the header as texts under short keys, as the formats of files hold them."""
        texts = {
            "format": FORMAT,
            "version": self.version,
            "content": self.content,
            "precision": self.precision,
            "recipe": json.dumps(self.recipe.model_dump(mode="json")),
        }
        if self.calibration is not None:
            texts["calibration"] = json.dumps(self.calibration.to_dict())
        return texts

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], *, where: str) -> Header:
        """Read what `to_texts` gave; UserError names the file `where` it is something else."""
        if texts.get("format") != FORMAT:
            raise UserError(
                f"{where}: no file of `gfocal export` (format {texts.get('format')!r}, expected {FORMAT!r}): export "
                "the model again"
            )
        try:
            content = cast("Content", texts["content"])
            precision = cast("FilePrecision", texts["precision"])
            recipe = Recipe.from_values(json.loads(texts["recipe"]), where=f"{where}, recipe")
            calibration = texts.get("calibration")
            read = None if calibration is None else Calibration.from_dict(json.loads(calibration))
            if content not in get_args(Content) or precision not in get_args(FilePrecision):
                raise ValueError(f"content {content!r}, precision {precision!r}")
            return cls(recipe, content, precision, read, texts["version"])
        except UserError:
            raise
        except (KeyError, ValueError) as error:
            raise UserError(f"{where}: what the file tells of itself is broken ({error}): export it again") from error
