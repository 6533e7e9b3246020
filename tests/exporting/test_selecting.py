"""The post-processing inside of exported files finds what post-processing finds, field by field."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gfocal.boxrep import BoxRepresentation, Dirac, Gaussian, General
from gfocal.coding import Coding, Deltas, Distances, Logarithms
from gfocal.errors import UserError
from gfocal.exported.model import detections_of
from gfocal.postprocess import PostProcess
from gfocal.programs.selecting import Selection
from gfocal.structures import Detections, Raw
from helpers import assert_same_detections
from raws import COUNT, NAMES, RANKINGS, N, processor, random_raw

PICTURES = [(48, 64), (40, 50)]


def selected(postprocess: PostProcess, raw: Raw) -> list[Detections]:
    outputs = Selection(postprocess)(raw, torch.tensor(PICTURES))
    assert {len(values) for values in outputs.values()} == {len(PICTURES)}
    assert {values.shape[1] for values in outputs.values()} == {postprocess.max_detections}
    return [
        detections_of(outputs, index, scale=(1.0, 1.0), threshold=postprocess.score_threshold, class_names=NAMES)
        for index in range(len(PICTURES))
    ]


def assert_same(postprocess: PostProcess, raw: Raw) -> None:
    for one, other in zip(selected(postprocess, raw), postprocess(raw, PICTURES), strict=True):
        assert_same_detections(one, other, pixels=1e-4)
        for field in ("levels", "locations"):
            assert torch.equal(getattr(one, field), getattr(other, field))


@given(
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.05, 0.5, 0.9, 0.999]),
    nms=st.sampled_from([0.3, 0.6]),
    per_level=st.sampled_from([1, 5, 40, 1000, None]),
    ranking=st.sampled_from(RANKINGS),
    most=st.sampled_from([1, 7, 100, 300]),
)
@settings(max_examples=60)
def test_any_rule_selects_what_post_processing_does(
    *, seed: int, threshold: float, nms: float, per_level: int | None, ranking: str, most: int
) -> None:
    rules = {"score_threshold": threshold, "nms_threshold": nms, "max_per_level": per_level}
    postprocess = replace(processor(), **rules, ranking=ranking, max_detections=most)  # type: ignore[arg-type]
    assert_same(postprocess, random_raw(seed, pictures=2))


@pytest.mark.parametrize(
    ("coding", "box"),
    [
        (Distances(), Dirac()),
        (Distances(), Gaussian()),
        (Distances(), General(n=N, delta=0.5)),
        (Deltas(stds=(0.1, 0.1, 0.2, 0.2)), Dirac()),
        (Logarithms(), Dirac()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_any_coding_of_boxes_is_decoded(coding: Coding, box: BoxRepresentation) -> None:
    raw = random_raw(3, pictures=2)
    raw = replace(raw, box=raw.box[..., : box.width])
    assert_same(PostProcess(coding, box, NAMES), raw)


@pytest.mark.parametrize("ranking", RANKINGS)
def test_the_threshold_is_held_against_the_class_scores(ranking: str) -> None:
    raw = random_raw(5, pictures=2)
    held = torch.rand(raw.scores.shape)
    raw = replace(raw, scores=raw.scores * held, class_scores=held)
    assert_same(replace(processor(), score_threshold=0.7, ranking=ranking), raw)  # type: ignore[arg-type]


def test_scores_at_the_threshold_are_left_out_and_all_of_many_equal_ones_stay() -> None:
    raw = random_raw(7, pictures=2)
    steps = (raw.scores * 8).round() / 8
    raw = replace(raw, scores=steps, class_scores=steps, box=far_apart(raw.box))
    postprocess = replace(processor(), score_threshold=0.5)
    for one, other in zip(selected(postprocess, raw), postprocess(raw, PICTURES), strict=True):
        assert one.scores.min() > 0.5
        assert_same_detections(in_order(one), in_order(other), pixels=1e-4)


def in_order(found: Detections) -> Detections:
    """Return the best first, and those of one score by location and class."""
    assert found.locations is not None
    ties = (found.locations * len(NAMES) + found.labels).argsort()
    return found[ties][found.scores[ties].argsort(descending=True, stable=True)]


def far_apart(code: Tensor) -> Tensor:
    """Make all boxes as small as points, so that none suppresses another."""
    peak = torch.zeros_like(code)
    peak[..., 0] = 50.0
    return peak


def test_pictures_without_anything_have_no_detections() -> None:
    raw = random_raw(0, pictures=2)
    raw = replace(raw, scores=torch.zeros(2, COUNT, len(NAMES)), class_scores=torch.zeros(2, COUNT, len(NAMES)))
    assert [len(found) for found in selected(processor(), raw)] == [0, 0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"nms": "soft_linear"}, "test.nms is 'soft_linear'"), ({"vote_sigma": 0.02}, "test.vote_sigma is set")],
)
def test_what_no_runtime_has_an_operator_for_is_refused(changes: dict[str, float | str], reason: str) -> None:
    with pytest.raises(UserError, match=f"{reason} in the recipe.*export with raw"):
        Selection(processor(**changes))
