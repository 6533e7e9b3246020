"""Qualities beside the class: none, a branch of its own, and weights that guide the class loss."""

from __future__ import annotations

import math

import pytest
import torch

from gfocal.boxrep import Dirac
from gfocal.classification import Focal, Softmax
from gfocal.coding import Distances
from gfocal.postprocess import PostProcess
from gfocal.quality.separate import Branch, Guided, Plain, class_conv, label_of
from gfocal.structures import Raw
from helpers import head, raw_of, square_anchors, target_of

# Location, label, IoU, whether positive. Points of the three cells of a picture lie at x = 0, 8, 16 and y = 0.
ROWS = [(1, 1, 0.7, True), (5, 0, 0.3, True), (4, 2, 0.9, False)]
# Distances from the points (8, 0), (16, 0), (8, 0): 4 4 12 1, then 8 8 8 8, then a box that does not hold its point.
BOXES = [[4.0, -4.0, 20.0, 1.0], [8.0, -8.0, 24.0, 8.0], [9.0, -4.0, 30.0, 4.0]]
CENTERNESS = [math.sqrt(4 / 12 * 1 / 4), 1.0, 0.0]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_labels_are_the_iou_or_the_centerness_of_the_true_box() -> None:
    target = target_of(ROWS, batch=2, count=3, boxes=BOXES)
    torch.testing.assert_close(label_of(target, "iou"), torch.tensor([0.7, 0.3, 0.9]))
    torch.testing.assert_close(label_of(target, "centerness"), torch.tensor(CENTERNESS))


def test_without_a_quality_the_class_is_all() -> None:
    quality = Plain(head(32, 3))
    raw, target = raw_of(quality, torch.randn(2, 3, 3)), target_of(ROWS, batch=2, count=3, boxes=BOXES)
    torch.testing.assert_close(raw.scores, raw.class_logits.sigmoid())
    assert torch.equal(raw.class_scores, raw.scores)
    losses = quality.losses(raw, target)
    assert list(losses) == ["cls"]
    torch.testing.assert_close(losses["cls"], Focal().losses(raw.class_logits, target))
    assert quality.box_weight(raw, target) is None


# ---------------------------------------------------------------- branch


@pytest.mark.parametrize("label", ["centerness", "iou"])
def test_a_branch_learns_its_label_by_binary_cross_entropy_at_each_pair(label: str) -> None:
    quality = Branch(head(32, 3), label=label)
    branch = torch.randn(2, 3)
    raw, target = raw_of(quality, torch.randn(2, 3, 3), branch), target_of(ROWS, batch=2, count=3, boxes=BOXES)
    losses = quality.losses(raw, target)
    assert list(losses) == ["cls", "quality"]
    torch.testing.assert_close(losses["cls"], Focal().losses(raw.class_logits, target))
    truth = CENTERNESS if label == "centerness" else [0.7, 0.3, 0.9]
    expected = []
    for (location, *_), y in zip(ROWS, truth, strict=True):
        p = sigmoid(branch.flatten()[location].item())
        expected.append(-(y * math.log(p) + (1 - y) * math.log(1 - p)))
    torch.testing.assert_close(losses["quality"], torch.tensor(expected))
    torch.testing.assert_close(quality.box_weight(raw, target), torch.tensor(truth))


def test_a_branch_stands_on_the_box_feature_and_the_class_on_its_own() -> None:
    quality = Branch(head(32, 3))
    cls_feature = torch.randn(1, 32, 3, 3, requires_grad=True)
    box_feature = torch.randn(1, 32, 3, 3, requires_grad=True)
    class_logits, branch = quality(cls_feature, box_feature, torch.zeros(1, 4, 3, 3))
    assert torch.autograd.grad(class_logits.sum(), box_feature, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(branch.sum(), cls_feature, allow_unused=True) == (None,)


@pytest.mark.parametrize("classification", [Focal(), Softmax()])
def test_the_branch_joins_in_the_ranking_and_not_in_what_the_threshold_is_held_against(
    classification: Focal | Softmax,
) -> None:
    quality = Branch(head(32, 3, classification=classification))
    logits, branch = torch.randn(2, 3, classification.outputs(3)), torch.randn(2, 3)
    scores, class_scores = quality.scores(logits, branch)
    torch.testing.assert_close(class_scores, classification.scores(logits))
    torch.testing.assert_close(scores, class_scores * branch.sigmoid()[..., None])


def test_the_test_threshold_is_held_against_the_class_score_alone() -> None:
    """A class score of .2 and a quality of .1 pass a threshold of .05 with a reported score of .02."""
    quality = Branch(head(32, 1))
    class_scores = torch.tensor([[0.2, 0.04, 0.6, 0.9]])
    branch = torch.tensor([[0.1, 1 - 1e-6, 0.5, 0.02]])
    logits = class_scores.logit()[..., None]
    scores, held = quality.scores(logits, branch.logit())
    priors = square_anchors((64,))([torch.zeros(1, 1, 2, 2)])
    raw = Raw(scores, held, torch.full((1, 4, 4, 1), 0.25), logits, branch.logit(), priors)
    (found,) = PostProcess(Distances(), Dirac(), ("thing",))(raw, [(128, 128)])
    # the second is under the threshold however good its quality; the others are in the order of their products
    torch.testing.assert_close(found.scores, torch.tensor([0.3, 0.02, 0.018]))
    torch.testing.assert_close(found.quality, torch.tensor([0.5, 0.1, 0.02]))
    # the ranking of a level goes by the product
    (first,) = PostProcess(Distances(), Dirac(), ("thing",), max_per_level=1)(raw, [(128, 128)])
    torch.testing.assert_close(first.scores, torch.tensor([0.3]))


# ---------------------------------------------------------------- guided


@pytest.mark.parametrize("label", ["centerness", "iou"])
def test_guided_weights_change_the_loss_at_the_true_class_of_positives_alone(label: str) -> None:
    quality = Guided(head(32, 3), label=label)
    raw, target = raw_of(quality, torch.randn(2, 3, 3)), target_of(ROWS, batch=2, count=3, boxes=BOXES)
    plain, guided = Focal().losses(raw.class_logits, target), quality.losses(raw, target)["cls"]
    first, second = (CENTERNESS if label == "centerness" else [0.7, 0.3])[:2]
    expected = plain.clone()
    expected[0, 1, 1] *= first  # location 1, class 1
    expected[1, 2, 0] *= second  # location 5, class 0
    torch.testing.assert_close(guided, expected)
    weight = CENTERNESS if label == "centerness" else [0.7, 0.3, 0.9]
    torch.testing.assert_close(quality.box_weight(raw, target), torch.tensor(weight))


def test_guided_scores_are_class_scores() -> None:
    logits = torch.randn(2, 3, 3)
    scores, class_scores = Guided(head(32, 3)).scores(logits, None)
    torch.testing.assert_close(scores, logits.sigmoid())
    assert torch.equal(scores, class_scores)


def test_a_guided_softmax_weights_its_positives_and_leaves_its_negatives() -> None:
    quality = Guided(head(32, 3, classification=Softmax()), label="iou")
    raw, target = raw_of(quality, torch.randn(2, 3, 4)), target_of(ROWS, batch=2, count=3, boxes=BOXES)
    plain, guided = Softmax().losses(raw.class_logits, target), quality.losses(raw, target)["cls"]
    expected = plain.clone()
    expected[0, 1] *= 0.7
    expected[1, 2] *= 0.3
    torch.testing.assert_close(guided, expected)


def test_the_class_layer_has_an_output_for_each_class_and_anchor() -> None:
    assert class_conv(head(16, 3, anchors=2)).out_channels == 6
    softmax = class_conv(head(16, 3, anchors=2, classification=Softmax()))
    assert softmax.out_channels == 8
    assert (softmax.bias == 0).all()
