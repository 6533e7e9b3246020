"""Parts fit together: every quality with every box representation builds, learns and finds boxes."""

from __future__ import annotations

import pytest
import torch
from annotated_types import Ge

from gfocal.boxrep import BOXES, General
from gfocal.builder import build_parts
from gfocal.config import HeadConfig, Recipe
from gfocal.errors import UserError
from gfocal.quality import DGQP, QUALITIES
from helpers import Edges

QUALITY_SPECS = [
    *({"name": name} for name in sorted(QUALITIES)),
    {"name": "joint", "beta": 0.0},
    {"name": "dgqp", "top_k": 1, "hidden": 8, "beta": 1.0},
]
BOX_SPECS = [
    *({"name": name} for name in sorted(BOXES)),
    {"name": "general", "n": 12},
    {"name": "general", "n": 32, "delta": 0.5},
    {"name": "general", "dfl_weight": 0.0},
]
HEIGHT, WIDTH = 64, 96
TRUTHS = [
    {"boxes": torch.tensor([[4.0, 6.0, 60.0, 58.0], [50.0, 20.0, 95.0, 63.0]]), "labels": torch.tensor([0, 2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "size": (64, 64)},
]


def spec_id(spec: dict[str, object]) -> str:
    return ",".join(str(value) if key == "name" else f"{key}={value}" for key, value in spec.items())


@pytest.mark.parametrize("quality", QUALITY_SPECS, ids=spec_id)
@pytest.mark.parametrize("box", BOX_SPECS, ids=spec_id)
def test_every_quality_learns_with_every_box(
    tiny_recipe: Recipe, quality: dict[str, object], box: dict[str, object]
) -> None:
    parts = build_parts(tiny_recipe.model_copy(update={"quality": quality, "box": box}))
    optimizer = torch.optim.SGD(parts.detector.parameters(), lr=0.01)
    images = torch.randn(2, 3, HEIGHT, WIDTH)
    for _ in range(2):
        losses = parts.criterion(parts.detector.train()(images), TRUTHS)
        assert losses.keys() == {"cls", "box"} | ({"dfl"} if box.get("dfl_weight") != 0 else set())
        loss = sum(losses.values(), torch.zeros(()))
        assert loss.isfinite()
        assert all(value > 0 for value in losses.values())
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in parts.detector.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # a level without positives learns no box, and timm starts each block's last norm from 0
            assert parameter.grad.any() or name.startswith(("scales.", "backbone.")), name
        optimizer.step()

    with torch.no_grad():
        raw = parts.detector.eval()(images)
    sizes = [(60, 90), (64, 64)]
    for found, (height, width) in zip(parts.postprocess(raw, sizes, threshold=1e-4), sizes, strict=True):
        limit = torch.tensor([width, height, width, height], dtype=torch.float32)
        assert 0 < len(found) <= 100
        assert (found.boxes >= 0).all()
        assert (found.boxes <= limit).all()
        assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert (found.scores.diff() <= 0).all()
        assert (found.quality is None) == (quality["name"] == "joint")
        assert found.edges is not None
        assert found.edges.probabilities.shape[-1] == parts.criterion.box.width
        torch.testing.assert_close(found.edges.mean.clamp(min=0).minimum(limit), found.boxes, rtol=1e-4, atol=1e-3)


def test_the_parts_share_what_they_have_in_common(tiny_recipe: Recipe) -> None:
    parts = build_parts(tiny_recipe)
    assert parts.criterion.quality is parts.detector.quality
    assert parts.criterion.box is parts.postprocess.box
    assert parts.postprocess.class_names == tiny_recipe.class_names
    test = tiny_recipe.test
    assert parts.postprocess.score_threshold == test.score_threshold
    assert parts.postprocess.max_per_level == test.max_per_level
    assert parts.criterion.giou_weight == 2.0


def test_options_reach_their_parts(tiny_recipe: Recipe) -> None:
    parts = build_parts(
        tiny_recipe.model_copy(
            update={
                "family": {"name": "atss", "topk": 5, "anchor_scale": 4.0},
                "quality": {"name": "dgqp", "top_k": 3, "hidden": 16, "beta": 1.0},
                "box": {"name": "general", "n": 8, "delta": 2.0, "dfl_weight": 0.5},
            }
        )
    )
    assert parts.detector.priors.scale == 4.0
    assert parts.detector.box_conv.out_channels == 4 * 9
    assert isinstance(parts.criterion.quality, DGQP)
    assert (parts.criterion.quality.top_k, parts.criterion.quality.beta) == (3, 1.0)
    assert parts.criterion.quality.predictor[0].weight.shape[:2] == (16, 16)
    assert isinstance(parts.criterion.box, General)
    assert (parts.criterion.box.delta, parts.criterion.box.dfl_weight) == (2.0, 0.5)


def test_a_part_from_outside_takes_the_place_of_the_recipes(tiny_recipe_v1: Recipe) -> None:
    box = Edges()
    parts = build_parts(tiny_recipe_v1, box=box)
    assert parts.criterion.box is parts.postprocess.box is box
    raw = parts.detector.eval()(torch.randn(2, 3, HEIGHT, WIDTH))
    assert raw.box.shape[2:] == (4, 1)
    losses = parts.criterion(raw, TRUTHS)
    assert losses.keys() == {"cls", "box"}
    (found, _) = parts.postprocess(raw, [(64, 96), (64, 64)], threshold=1e-4)
    assert len(found) > 0
    assert found.edges is None

    quality = DGQP(64, 3, top_k=2)
    assert build_parts(tiny_recipe_v1, quality=quality).detector.quality is quality


def test_a_quality_that_reads_distributions_needs_some(tiny_recipe: Recipe) -> None:
    with pytest.raises(UserError, match=r"DGQP.*Edges"):
        build_parts(tiny_recipe, box=Edges())


def test_a_quality_cannot_look_at_more_probabilities_than_there_are(tiny_recipe: Recipe) -> None:
    recipe = tiny_recipe.model_copy(
        update={"quality": {"name": "dgqp", "top_k": 8}, "box": {"name": "general", "n": 4}}
    )
    with pytest.raises(UserError, match="top_k"):
        build_parts(recipe)


def test_an_unknown_backbone_is_named(tiny_recipe: Recipe) -> None:
    backbone = tiny_recipe.backbone.model_copy(update={"name": "resnet19"})
    with pytest.raises(UserError, match="resnet19"):
        build_parts(tiny_recipe.model_copy(update={"backbone": backbone}))


def test_the_narrowest_head_takes_the_smallest_picture(tiny_recipe: Recipe) -> None:
    bounds = HeadConfig.model_fields["channels"].metadata
    narrowest = next(bound.ge for bound in bounds if isinstance(bound, Ge))
    head = tiny_recipe.head.model_copy(update={"channels": narrowest})
    detector = build_parts(tiny_recipe.model_copy(update={"head": head})).detector
    assert detector.eval()(torch.zeros(1, 3, 32, 32)).scores.shape[0] == 1


def test_the_same_seed_builds_the_same_weights(tiny_recipe: Recipe) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_parts(tiny_recipe).detector.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
