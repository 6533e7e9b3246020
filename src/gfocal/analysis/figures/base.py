"""What a figure is: what it is drawn from, and the picture and the table that come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from matplotlib.figure import Figure as Sheet

from gfocal.analysis.runs import Plan, Run
from gfocal.config import Recipe
from gfocal.data.dataset import Dataset
from gfocal.errors import UserError
from gfocal.model import Model, load_model
from gfocal.testing import check_classes

Cell: TypeAlias = "str | int | float"

MOST_POINTS = 20_000
"""Of a scatter plot; more are drawn from at random."""


@dataclass(frozen=True)
class Drawing:
    """A figure as a sheet of matplotlib, and the numbers behind it: the names of the columns, and the rows."""

    sheet: Sheet
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Material:
    """What a figure is drawn from.

    sources: run folders or files of weights, in the order of the figure's recipes. runs: what was trained for it, empty
    where the user named the models. dataset: the test pictures, None where none are needed. plan: scale, data, device.
    seed: of what is drawn at random.
    """

    sources: tuple[Path, ...]
    runs: tuple[Run, ...]
    dataset: Dataset | None
    plan: Plan
    seed: int

    @property
    def pictures(self) -> Dataset:
        """The test pictures."""
        assert self.dataset is not None
        return self.dataset

    def label(self, index: int, usual: str) -> str:
        """Return a model's name in the figure: `usual` where it was trained for it, else what the user named."""
        return usual if self.runs else str(self.sources[index])

    def model(self, index: int) -> Model:
        """Load a model; UserError where its classes are not those of the pictures."""
        model = load_model(self.sources[index], device=self.plan.device)
        if self.dataset is not None:
            check_classes(model.class_names, self.dataset.class_names, where=str(self.sources[index]))
        return model

    def model_with_distributions(self, index: int) -> Model:
        """Load a model whose edges are distributions over bins; UserError where they are not."""
        model = self.model(index)
        if model.criterion.box.bins is None:
            raise UserError(
                f"{self.sources[index]}: the figure is drawn from distributions of edges, and the model's boxes are "
                f"{model.recipe.box['name']!r}: name a model with box 'general'"
            )
        return model

    def without_quality(self, index: int) -> UserError:
        """Return the error for a model that should predict a quality beside the class, and does not."""
        return UserError(
            f"{self.sources[index]}: the figure needs a quality predicted beside the class score, and the model has "
            "none: name a model with a quality branch, or GFL V2 where the figure is of V2"
        )


@dataclass(frozen=True)
class Figure:
    """A figure of a paper.

    title: what it shows. source: where it stands, as "V1 Fig. 5a". recipes: makers of the recipes, of the paper's
    scale, whose models it is drawn from. needs_data: whether it is drawn from test pictures. draw: makes it, under the
    settings of `plotting.STYLE`.
    """

    title: str
    source: str
    recipes: tuple[Callable[[], Recipe], ...]
    needs_data: bool
    draw: Callable[[Material], Drawing]
