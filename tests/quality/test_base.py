"""What holds for every quality representation, and the labels and layers that they share."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from gfocal.classification import Softmax
from gfocal.quality import QUALITIES, Quality
from gfocal.quality.base import one_number, output_conv
from gfocal.quality.joint import Joint, best_score
from helpers import head, raw_of, target_of

CHANNELS, CLASSES = 32, 5
APART = {"branch", "dgqp", "conv"}
"""Qualities that predict a number of their own."""
MANY = {"none", "branch", "guided", "joint"}
"""Qualities for several anchors a cell."""

# location, label, IoU, whether positive
ROWS = [(0, 1, 0.7, True), (4, 0, 0.3, True), (4, 2, 0.9, False), (1, 2, 0.5, False)]


def outputs(quality: Quality, *, height: int = 4, width: int = 3) -> tuple[torch.Tensor, torch.Tensor | None]:
    feature, box = torch.zeros(2, CHANNELS, height, width), torch.zeros(2, 4 * 17, height, width)
    return quality(feature, feature, box)


@pytest.mark.parametrize("name", sorted(QUALITIES))
def test_every_location_starts_from_a_class_score_of_a_hundredth(name: str) -> None:
    class_logits, quality_logits = outputs(QUALITIES[name](head(CHANNELS, CLASSES)))
    # the composed score also stands on statistics, which are never all 0
    limit = 0.1 if name == "composed" else 1e-4
    torch.testing.assert_close(class_logits.sigmoid(), torch.full((2, CLASSES, 4, 3), 0.01), rtol=limit, atol=0)
    assert (quality_logits is not None) == (name in APART)
    if quality_logits is not None:
        # untaught, a quality says neither good nor bad
        torch.testing.assert_close(quality_logits.sigmoid(), torch.full((2, 1, 4, 3), 0.5), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", sorted(MANY))
def test_each_anchor_of_a_cell_has_logits_of_its_own(name: str) -> None:
    quality = QUALITIES[name](head(CHANNELS, CLASSES, anchors=3))
    class_logits, quality_logits = outputs(quality)
    assert class_logits.shape == (2, 3 * CLASSES, 4, 3)
    if quality_logits is not None:
        assert quality_logits.shape == (2, 3, 4, 3)
    assert quality.max_anchors is None


@pytest.mark.parametrize("name", sorted(QUALITIES.keys() - MANY))
def test_what_reads_the_box_of_a_cell_takes_one_anchor(name: str) -> None:
    assert QUALITIES[name](head(CHANNELS, CLASSES)).max_anchors == 1


@pytest.mark.parametrize("name", ["none", "branch", "guided"])
def test_a_softmax_has_one_logit_more_and_starts_even(name: str) -> None:
    quality = QUALITIES[name](head(CHANNELS, CLASSES, anchors=2, classification=Softmax()))
    class_logits, quality_logits = outputs(quality)
    assert class_logits.shape == (2, 2 * (CLASSES + 1), 4, 3)
    assert (class_logits == 0).all()
    rows = class_logits.permute(0, 2, 3, 1).reshape(2, -1, CLASSES + 1)
    apart = None if quality_logits is None else quality_logits.permute(0, 2, 3, 1).reshape(2, -1)
    scores, class_scores = quality.scores(rows, apart)
    assert scores.shape == class_scores.shape == (2, 2 * 12, CLASSES)
    torch.testing.assert_close(class_scores, torch.full_like(scores, 1 / (CLASSES + 1)))


@pytest.mark.parametrize("name", sorted(QUALITIES))
def test_no_pair_and_no_positive_have_finite_losses(name: str) -> None:
    quality = QUALITIES[name](head(CHANNELS, CLASSES))
    logits = torch.randn(2, 3, CLASSES, requires_grad=True)
    raw = raw_of(quality, logits, torch.randn(2, 3) if name in APART else None)
    for rows in ([], [(4, 0, 0.3, False)]):
        target = target_of(rows, batch=2, count=3)
        losses = quality.losses(raw, target)
        assert "cls" in losses
        for loss in losses.values():
            assert loss.isfinite().all()
            assert (loss >= 0).all()
        weight = quality.box_weight(raw, target)
        assert weight is None or weight.shape == (len(rows),)
        (gradient,) = torch.autograd.grad(losses["cls"].sum(), logits)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", sorted(QUALITIES))
def test_weights_of_box_losses_have_no_gradient(name: str) -> None:
    quality = QUALITIES[name](head(CHANNELS, CLASSES))
    logits = torch.randn(2, 3, CLASSES, requires_grad=True)
    apart = torch.randn(2, 3, requires_grad=True) if name in APART else None
    weight = quality.box_weight(raw_of(quality, logits, apart), target_of(ROWS, batch=2, count=3))
    if name == "none":
        assert weight is None
    else:
        assert weight.shape == (len(ROWS),)
        assert not weight.requires_grad


@pytest.mark.parametrize("name", ["joint", "dgqp", "composed", "conv"])
def test_a_joint_quality_weights_box_losses_by_the_best_score(name: str) -> None:
    quality = QUALITIES[name](head(CHANNELS, 3))
    raw = raw_of(quality, torch.randn(2, 3, 3), torch.randn(2, 3) if name in APART else None)
    best = raw.scores.flatten(0, 1).max(-1).values
    target = target_of(ROWS, batch=2, count=3)
    torch.testing.assert_close(quality.box_weight(raw, target), best[[0, 4, 4, 1]])
    torch.testing.assert_close(best_score(raw, target), best[[0, 4, 4, 1]])


def test_the_joint_label_is_the_iou_at_the_true_class_of_positives_alone() -> None:
    target = target_of(ROWS, batch=2, count=3)
    labels = target.at_true_class(target.iou * target.positive, like=torch.zeros(2, 3, 3))
    expected = torch.zeros(2, 3, 3)
    expected[0, 0, 1] = 0.7
    expected[1, 1, 0] = 0.3
    torch.testing.assert_close(labels, expected)
    none = target_of([], batch=2, count=3)
    assert none.at_true_class(none.iou, like=torch.zeros(2, 3, 3)).sum() == 0


def test_layers_start_near_the_probability_they_are_given() -> None:
    conv = output_conv(64, 7, probability=0.2)
    torch.testing.assert_close(conv.bias.sigmoid(), torch.full((7,), 0.2))
    assert conv.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert (output_conv(8, 2).bias == 0).all()
    assert conv(torch.zeros(1, 64, 5, 6)).shape == (1, 7, 5, 6)
    layers = one_number(20, 16)
    assert layers(torch.zeros(2, 20, 3, 4)).shape == (2, 1, 3, 4)
    assert sum(p.numel() for p in layers.parameters()) == 20 * 16 + 16 + 16 + 1


def test_a_negative_exponent_is_refused_everywhere() -> None:
    for name in ("joint", "dgqp", "composed", "conv"):
        with pytest.raises(ValueError, match="beta must be at least 0, got -1"):
            QUALITIES[name](head(CHANNELS, CLASSES), beta=-1.0)
    assert Joint(head(CHANNELS, CLASSES), beta=0.0).beta == 0


@pytest.mark.parametrize(("name", "option"), [("conv", "hidden"), ("dgqp", "hidden"), ("composed", "dims")])
def test_layers_without_width_are_refused(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        QUALITIES[name](head(CHANNELS, CLASSES), **{option: 0})


def test_the_choices_are_those_of_the_papers() -> None:
    assert set(QUALITIES) == {"none", "branch", "guided", "joint", "dgqp", "composed", "conv"}
    from gfocal.quality.convs import Places
    from gfocal.quality.joint import Statistic
    from gfocal.quality.separate import Label

    assert get_args(Label) == ("centerness", "iou")
    assert get_args(Statistic) == ("top", "mean", "var")
    assert len(get_args(Places)) == 7
