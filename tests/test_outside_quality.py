"""A quality representation from outside the package, in a few lines, goes all the way of one from inside."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import final

import pytest
import torch
from torch import Tensor, nn

import gfocal
from gfocal.classification import PRIOR_PROBABILITY
from gfocal.config import Recipe
from gfocal.data.collate import collate
from gfocal.data.examples import EvaluationExamples
from gfocal.data.scenes import CLASS_NAMES, Scenes
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.quality import Quality
from gfocal.quality.base import output_conv
from gfocal.quality.joint import DGQP, best_score, product_losses, product_scores
from gfocal.structures import Raw, Target
from helpers import Edges, assert_same_detections, head, loud


@final
class Sharpness(Quality):
    """Class score times how sharp the edges are: a line, learnt, through the entropy of their distributions."""

    max_anchors = 1
    min_bins = 2

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls = output_conv(channels, num_classes, probability=PRIOR_PROBABILITY)
        self.line = nn.Parameter(torch.tensor([1.0, -1.0]))

    def forward(self, cls_feature: Tensor, box_feature: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        p = box.unflatten(1, (4, -1)).softmax(dim=2)
        entropy = torch.special.entr(p).sum(dim=2).mean(dim=1, keepdim=True)
        return self.cls(cls_feature), self.line[0] + self.line[1] * entropy

    def scores(self, class_logits: Tensor, quality_logits: Tensor | None) -> tuple[Tensor, Tensor]:
        return product_scores(class_logits, quality_logits)

    def losses(self, raw: Raw, target: Target) -> dict[str, Tensor]:
        return product_losses(raw, target, beta=2.0)

    def box_weight(self, raw: Raw, target: Target) -> Tensor:
        return best_score(raw, target)


NAME = f"{__name__}:Sharpness"
SCENES = Scenes(4, size=(96, 96))
SIZE = (96, 96)


def sharpness() -> Sharpness:
    return Sharpness(64, len(CLASS_NAMES))


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    values = tiny_recipe.model_dump() | {"class_names": CLASS_NAMES}
    values["pictures"] |= {"short": 96, "long": 96, "train_short": (96, 96)}
    values["schedule"] |= {"batch": 2, "steps": 3, "warmup": 1, "validations": 1}
    return Recipe.model_validate(values)


def taught(model: Model, steps: int) -> list[float]:
    """Train a model on the scenes and return the loss of each step."""
    examples = EvaluationExamples(SCENES, model.prepare(SIZE))
    batch = collate([examples[index] for index in range(len(examples))])
    optimizer = torch.optim.SGD(model.detector.parameters(), lr=0.01, momentum=0.9)
    losses: list[float] = []
    for _ in range(steps):
        total = sum(model.criterion(model.detector.train()(batch.images), batch.truths).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    return losses


def test_it_takes_thirty_lines() -> None:
    assert len(inspect.getsource(Sharpness).splitlines()) <= 30


def test_it_is_built_trained_evaluated_saved_and_loaded_like_any_other(recipe: Recipe, tmp_path: Path) -> None:
    model = gfocal.build(recipe, quality=sharpness(), device="cpu")
    assert model.recipe.quality == {"name": NAME}
    before = model.detector.outputs_of(0).quality.line.clone()
    losses = taught(model, 6)
    assert losses[-1] < losses[0]
    assert not torch.equal(model.detector.outputs_of(0).quality.line, before)
    metrics = gfocal.evaluate(model, SCENES, size=SIZE)
    assert metrics.num_pictures == 4
    assert 0 <= metrics.ap <= 1

    path = tmp_path / "sharp.safetensors"
    loud(model).save(path)
    loaded = gfocal.load(path, quality=sharpness(), device="cpu")
    assert loaded.recipe == model.recipe
    picture = SCENES.picture(0)
    found = model.predict(picture, precision="float32")
    assert len(found) > 0
    assert found.quality is not None
    assert_same_detections(loaded.predict(picture, precision="float32"), found)


def test_it_goes_through_a_run_and_its_folder(recipe: Recipe, tmp_path: Path) -> None:
    data = {"train": SCENES, "val": Scenes(2, seed=1, size=(96, 96))}
    model = gfocal.train(recipe, data, tmp_path / "run", quality=sharpness(), workers=0, device="cpu")
    assert model.recipe.quality == {"name": NAME}
    kept = Recipe.from_yaml((tmp_path / "run" / "recipe.yaml").read_text(), where="recipe.yaml")
    assert kept == model.recipe
    loaded = gfocal.load(tmp_path / "run", quality=sharpness(), device="cpu")
    for key, value in loaded.detector.state_dict().items():
        counts_steps = key.endswith("num_batches_tracked")  # of no effect, so that it is not saved
        assert counts_steps or torch.equal(value, model.detector.state_dict()[key]), key


def test_what_it_saved_loads_only_with_it(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "sharp.safetensors"
    gfocal.build(recipe, quality=sharpness(), device="cpu").save(path)
    with pytest.raises(UserError, match=r"quality from outside gfocal.*Sharpness.*none was given"):
        gfocal.load(path, device="cpu")
    with pytest.raises(UserError, match=r"Sharpness.*DGQP.*was given"):
        gfocal.load(path, quality=DGQP(head(64, len(CLASS_NAMES))), device="cpu")
    with pytest.raises(UserError, match="does not fit the model"):
        gfocal.load(path, quality=Sharpness(64, 2), device="cpu")


def test_a_box_representation_from_outside_does_the_same(recipe: Recipe, tmp_path: Path) -> None:
    joint = recipe.model_copy(update={"quality": {"name": "joint"}})
    model = gfocal.build(joint, box=Edges(), device="cpu")
    assert model.recipe.box == {"name": "helpers:Edges"}
    path = tmp_path / "edges.safetensors"
    model.save(path)
    assert gfocal.load(path, box=Edges(), device="cpu").recipe == model.recipe
    with pytest.raises(UserError, match=r"box from outside gfocal, 'helpers:Edges', and none was given"):
        gfocal.load(path, device="cpu")


def test_a_recipe_that_names_it_needs_it(recipe: Recipe) -> None:
    named = recipe.model_copy(update={"quality": {"name": NAME}})
    with pytest.raises(UserError, match=r"pass an instance of it as quality="):
        gfocal.build(named, device="cpu")
    assert gfocal.build(named, quality=sharpness(), device="cpu").recipe == named


def test_it_is_refused_where_it_does_not_fit(recipe: Recipe) -> None:
    dirac = recipe.model_copy(update={"box": {"name": "dirac"}})
    with pytest.raises(UserError, match="Sharpness reads the 2 highest probabilities"):
        gfocal.build(dirac, quality=sharpness(), device="cpu")
