"""What is found in several views of a picture comes out in its own pixels, as the recipe ranks and suppresses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gfocal
from gfocal.builder import Parts
from gfocal.config import BackboneConfig, PicturesConfig, Recipe
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.structures import Truth
from gfocal.testing import detect, detect_augmented, evaluate
from gfocal.tta import Augmentation, mirror, predict_augmented
from helpers import Edges, assert_same_detections, loud

NAMES = ("circle", "square", "star")
SEEDS = st.integers(0, 10_000)
FUSES = ("boxes", "distributions")
IDENTITY = Augmentation((1.0,), flip=False)
HEIGHT, WIDTH = 64, 96  # a size that the tiny recipe does not resize


@pytest.fixture(scope="module")
def model(tiny_recipe: Recipe) -> Model:
    torch.manual_seed(0)
    return loud(gfocal.build(tiny_recipe, device="cpu"))


@pytest.fixture(scope="module")
def model_v1(tiny_recipe_v1: Recipe) -> Model:
    torch.manual_seed(0)
    return loud(gfocal.build(tiny_recipe_v1, device="cpu"))


def noise(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0,), (1.0, 0.09), (11.0,), (math.nan,), (math.inf,)])
def test_scales_out_of_range_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"scales .* 0\.1\.\.10"):
        Augmentation(scales)


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_unknown_way_to_fuse_is_refused() -> None:
    with pytest.raises(UserError, match="fuse must be boxes or distributions, got 'edges'"):
        Augmentation(fuse="edges")  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- predict_augmented


def test_what_is_found_in_a_mirrored_picture_lies_on_its_distributions_when_mirrored_back(model: Model) -> None:
    picture = noise()
    found = mirror(model.predict(picture[:, ::-1].copy()), WIDTH)
    assert len(found) > 5
    assert found.edges is not None
    limit = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    torch.testing.assert_close(found.edges.mean.clamp(min=0).minimum(limit), found.boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [{}, {"size": (48, 72)}, {"threshold": 0.2}, {"precision": "bfloat16"}],
    ids=["recipe", "size", "threshold", "precision"],
)
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (57, 91)])
def test_one_plain_view_is_what_predict_finds(model: Model, shape: tuple[int, int], options: dict[str, object]) -> None:
    picture = noise(*shape)
    found = predict_augmented(model, picture, IDENTITY, **options)  # pyright: ignore[reportArgumentType]
    assert len(found) > 5
    assert_same_detections(found, model.predict(picture, **options))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("nms", ["agnostic", "soft_linear", "soft_gaussian"])
def test_views_are_ranked_and_suppressed_as_the_recipe_says(model: Model, nms: str) -> None:
    process = replace(model.postprocess, nms=nms, ranking="pairs", max_per_level=20, max_detections=30)
    other = Model(model.recipe, Parts(model.detector, model.criterion, process), model.device)
    found = predict_augmented(other, noise(), IDENTITY)
    assert_same_detections(found, other.predict(noise()))
    assert not torch.equal(found.scores, model.predict(noise()).scores[: len(found)])


def test_a_scale_is_a_factor_on_the_size(model: Model) -> None:
    picture = noise()
    found = predict_augmented(model, picture, Augmentation((2.0,), flip=False), size=(HEIGHT, WIDTH))
    assert_same_detections(found, model.predict(picture, size=(2 * HEIGHT, 2 * WIDTH)))


def test_a_scale_at_which_the_model_sees_nothing_is_refused(tiny_recipe: Recipe) -> None:
    values = tiny_recipe.model_dump() | {"family": {"name": "ssd"}, "quality": {"name": "none"}}
    values |= {"box": {"name": "dirac"}, "backbone": BackboneConfig(name="ssd_vgg16", weights="none", width=1 / 16)}
    values["pictures"] = PicturesConfig(short=512, long=512, train_short=(512, 512), keep_aspect=False)
    ssd = gfocal.build(Recipe.model_validate(values), device="cpu")
    with pytest.raises(UserError, match=r"scale 0\.5 .* 'ssd' needs 512 pixels at least, got 256: .* from 1 on"):
        predict_augmented(ssd, noise(), Augmentation((1.0, 0.5), flip=False))
    with pytest.raises(UserError, match=r"from 0\.854 on"):
        predict_augmented(ssd, noise(), Augmentation((0.85,), flip=False), size=(600, 600))


@pytest.mark.parametrize("fuse", FUSES)
def test_the_same_view_twice_is_as_good_as_once(model: Model, fuse: str) -> None:
    once, twice = (
        predict_augmented(model, noise(), Augmentation(scales, flip=False, fuse=fuse))  # pyright: ignore[reportArgumentType]
        for scales in ((1.0,), (1.0, 1.0))
    )
    assert len(once) > 5
    assert_same_detections(twice, once, pixels=1e-3)


def test_the_best_of_all_views_wins(model: Model) -> None:
    picture = noise()
    found = predict_augmented(model, picture, Augmentation((1.0, 1.25)))
    views = [
        model.predict(view, size=size)
        for view in (picture, picture[:, ::-1].copy())
        for size in ((HEIGHT, WIDTH), (80, 120))
    ]
    assert found.scores[0] == max(view.scores[0] for view in views)


@pytest.mark.parametrize("fuse", FUSES)
def test_a_mirrored_picture_shows_the_same_mirrored(model: Model, fuse: str) -> None:
    augmentation = Augmentation((1.0,), fuse=fuse)  # pyright: ignore[reportArgumentType]
    picture = noise()
    found = predict_augmented(model, picture, augmentation)
    assert len(found) > 5
    there = predict_augmented(model, picture[:, ::-1].copy(), augmentation)
    # the means: a mixture lies on ascending bins, which a mirror image of it does not
    torch.testing.assert_close(mirror(there, WIDTH).boxes, found.boxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(there.scores, found.scores)
    assert torch.equal(there.labels, found.labels)
    assert found.edges is not None
    assert there.edges is not None
    torch.testing.assert_close(there.edges.std[:, [2, 1, 0, 3]], found.edges.std, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("fuse", FUSES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_found_lies_in_the_picture_on_its_distributions(model: Model, fuse: str, precision: str) -> None:
    height, width = 57, 91
    augmentation = Augmentation((0.5, 1.0, 1.5), fuse=fuse)  # pyright: ignore[reportArgumentType]
    found = predict_augmented(model, noise(height, width), augmentation, size=(60, 100), precision=precision)
    assert 5 < len(found) <= model.recipe.test.max_detections
    assert (found.scores.diff() <= 0).all()
    limit = torch.tensor([width, height, width, height])
    assert (found.boxes >= 0).all()
    assert (found.boxes <= limit + 1e-3).all()
    assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
    assert found.edges is not None
    rough = {"rtol": 0.02, "atol": 1.0} if precision == "bfloat16" else {"rtol": 1e-4, "atol": 1e-3}
    torch.testing.assert_close(found.edges.mean.float().clamp(min=0).minimum(limit), found.boxes, **rough)


def test_fusing_moves_boxes_and_nothing_else(model: Model, model_v1: Model) -> None:
    for each in (model, model_v1):
        plain, fused = (predict_augmented(each, noise(), Augmentation((0.75, 1.0), fuse=fuse)) for fuse in FUSES)
        assert len(plain) > 5
        assert (plain.quality is None) == (each is model_v1)
        assert not torch.equal(plain.boxes, fused.boxes)
        assert_same_detections(replace(fused, boxes=plain.boxes, edges=None), replace(plain, edges=None))


@pytest.mark.parametrize("fuse", FUSES)
def test_views_in_which_nothing_is_found_give_nothing(model: Model, fuse: str) -> None:
    augmentation = Augmentation((0.5, 1.0), fuse=fuse)  # pyright: ignore[reportArgumentType]
    found = predict_augmented(model, noise(), augmentation, threshold=1.0)
    assert len(found) == 0
    assert found.edges is not None
    assert found.quality is not None


def test_a_model_without_bins_sees_views_but_fuses_none(tiny_recipe_v1: Recipe) -> None:
    model = loud(gfocal.build(tiny_recipe_v1, box=Edges(), device="cpu"))
    found = predict_augmented(model, noise(), Augmentation((1.0, 1.25)))
    assert len(found) > 5
    assert found.edges is None
    with pytest.raises(UserError, match="distributions cannot be fused"):
        predict_augmented(model, noise(), Augmentation((1.0, 1.25), fuse="distributions"))


# ---------------------------------------------------------------- over a data set


@final
class Noises:
    """Three pictures of several sizes; the truth of each is some of what a model finds in it."""

    class_names = NAMES
    category_ids = (0, 1, 2)
    sizes = ((64, 96), (57, 91), (80, 50))

    def __init__(self, model: Model) -> None:
        found = [model.predict(self.picture(index)) for index in range(len(self))]
        self.truths = [
            Truth(
                image_id=10 + index,
                name=f"noise {index}",
                size=self.sizes[index],
                boxes=found[index].boxes[1:30:3],
                labels=found[index].labels[1:30:3],
                crowd=torch.zeros(len(found[index].boxes[1:30:3]), dtype=torch.bool),
            )
            for index in range(len(self))
        ]

    def __len__(self) -> int:
        return len(self.sizes)

    def truth(self, index: int) -> Truth:
        return self.truths[index]

    def picture(self, index: int) -> NDArray[np.uint8]:
        return noise(*self.sizes[index], seed=index)


def test_a_data_set_is_gone_through_in_its_order(model: Model) -> None:
    data = Noises(model)
    augmentation = Augmentation((1.0, 0.75), fuse="distributions")
    pairs = list(detect_augmented(model, data, augmentation, size=(48, 80)))
    assert [truth.image_id for truth, _ in pairs] == [10, 11, 12]
    for index, (_, found) in enumerate(pairs):
        assert_same_detections(found, predict_augmented(model, data.picture(index), augmentation, size=(48, 80)))


def test_one_plain_view_gives_the_metrics_of_none(model: Model) -> None:
    data = Noises(model)
    done: list[int] = []
    plain = evaluate(model, data)
    same = evaluate(model, data, augmentation=IDENTITY, progress=done.append)
    assert 0.05 < plain.ap < 1
    assert json.dumps(same.to_dict()) == json.dumps(plain.to_dict())
    assert done == [1, 2, 3]
    for (truth, found), (other, again) in zip(
        detect(model, data), detect_augmented(model, data, IDENTITY), strict=True
    ):
        assert truth is other
        assert_same_detections(found, again)


def test_other_views_give_other_metrics(model: Model) -> None:
    data = Noises(model)
    varied = evaluate(model, data, augmentation=Augmentation((0.75, 1.0)))
    assert varied.num_pictures == 3
    assert varied.ap != evaluate(model, data).ap


@pytest.mark.parametrize("fuse", FUSES)
@settings(max_examples=5)
@given(seed=SEEDS, shape=st.sampled_from([(1, 1), (3, 90), (33, 64), (200, 40)]))
def test_any_picture_can_be_seen_in_all_views(model: Model, fuse: str, seed: int, shape: tuple[int, int]) -> None:
    augmentation = Augmentation((0.5, 1.0), fuse=fuse)  # pyright: ignore[reportArgumentType]
    found = predict_augmented(model, noise(*shape, seed=seed), augmentation, threshold=0.01)
    assert torch.isfinite(found.boxes).all()
    assert (found.boxes <= torch.tensor([shape[1], shape[0]] * 2) * (1 + 1e-5)).all()
    assert found.edges is not None
    assert torch.isfinite(found.edges.entropy).all()
