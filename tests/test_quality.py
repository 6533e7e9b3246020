from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gfocal.ops import quality_focal_loss, quality_focal_loss_of_product
from gfocal.priors import SquareAnchors
from gfocal.quality import DGQP, QUALITIES, Joint, Quality, iou_at_true_class
from gfocal.structures import Raw, Target


def raw_of(quality: Quality, class_logits: Tensor, quality_logits: Tensor | None) -> Raw:
    batch, count = class_logits.shape[:2]
    return Raw(
        scores=quality.scores(class_logits, quality_logits),
        box=torch.zeros(batch, count, 4, 5),
        class_logits=class_logits,
        quality_logits=quality_logits,
        priors=SquareAnchors((8,))([torch.zeros(1, 1, 1, count)]),
    )


def target_of(rows: list[tuple[int, int, float, bool]], *, batch: int, count: int) -> Target:
    """Return a target from rows of location, label, IoU and whether the pair is positive."""
    location, labels, iou, positive = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Target(
        location=torch.tensor(location, dtype=torch.long),
        positive=torch.tensor(positive, dtype=torch.bool),
        counted=torch.ones(batch, count, dtype=torch.bool),
        labels=torch.tensor(labels, dtype=torch.long),
        values=torch.zeros(len(rows), 4),
        iou=torch.tensor(iou, dtype=torch.float32),
    )


ROWS = [(0, 1, 0.7, True), (4, 0, 0.3, True), (4, 2, 0.9, False), (1, 2, 0.5, False)]


def test_the_joint_label_is_the_iou_at_the_true_class_of_positives_alone() -> None:
    labels = iou_at_true_class(torch.zeros(2, 3, 3), target_of(ROWS, batch=2, count=3))
    expected = torch.zeros(2, 3, 3)
    expected[0, 0, 1] = 0.7
    expected[1, 1, 0] = 0.3
    torch.testing.assert_close(labels, expected)
    assert iou_at_true_class(torch.zeros(2, 3, 3), target_of([], batch=2, count=3)).sum() == 0


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_the_joint_score_is_learnt_with_the_quality_focal_loss(beta: float) -> None:
    quality = Joint(32, 3, beta=beta)
    logits, target = torch.randn(2, 3, 3), target_of(ROWS, batch=2, count=3)
    raw = raw_of(quality, logits, None)
    torch.testing.assert_close(raw.scores, logits.sigmoid())
    labels = iou_at_true_class(logits, target)
    assert list(quality.losses(raw, target)) == ["cls"]
    torch.testing.assert_close(quality.losses(raw, target)["cls"], quality_focal_loss(logits, labels, beta=beta))


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_the_product_of_class_and_quality_is_learnt_as_one(beta: float) -> None:
    quality = DGQP(32, 3, beta=beta)
    cls, iou, target = torch.randn(2, 3, 3), torch.randn(2, 3), target_of(ROWS, batch=2, count=3)
    raw = raw_of(quality, cls, iou)
    torch.testing.assert_close(raw.scores, cls.sigmoid() * iou.sigmoid()[..., None])
    labels = iou_at_true_class(cls, target)
    expected = quality_focal_loss_of_product(cls, iou, labels, beta=beta)
    torch.testing.assert_close(quality.losses(raw, target)["cls"], expected)


@pytest.mark.parametrize("name", sorted(QUALITIES))
def test_box_losses_are_weighted_by_the_best_score_without_a_gradient(name: str) -> None:
    quality = QUALITIES[name](32, 3)
    cls = torch.randn(2, 3, 3, requires_grad=True)
    raw = raw_of(quality, cls, torch.randn(2, 3) if quality.min_bins else None)
    weight = quality.box_weight(raw, target_of(ROWS, batch=2, count=3))
    best = raw.scores.detach().flatten(0, 1).max(-1).values
    torch.testing.assert_close(weight, best[[0, 4, 4, 1]])
    assert not weight.requires_grad


@pytest.mark.parametrize("name", sorted(QUALITIES))
def test_every_location_starts_from_a_class_score_of_a_hundredth(name: str) -> None:
    quality = QUALITIES[name](32, 5)
    feature, box = torch.zeros(1, 32, 4, 4), torch.zeros(1, 4 * 17, 4, 4)
    class_logits, quality_logits = quality(feature, feature, box)
    torch.testing.assert_close(class_logits.sigmoid(), torch.full((1, 5, 4, 4), 0.01))
    assert (quality_logits is None) == (quality.min_bins == 0)
    if quality_logits is not None:
        assert quality_logits.shape == (1, 1, 4, 4)


def test_the_statistics_are_the_highest_probabilities_and_their_mean_edge_by_edge() -> None:
    quality = DGQP(32, 3, top_k=2)
    p = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25], [0.05, 0.05, 0.9], [0.2, 0.3, 0.5]])
    statistics = quality.statistics(p.log().reshape(1, 12, 1, 1))
    expected = [0.6, 0.3, 0.45, 0.5, 0.25, 0.375, 0.9, 0.05, 0.475, 0.5, 0.3, 0.4]
    torch.testing.assert_close(statistics.flatten(), torch.tensor(expected))


def test_the_statistics_do_not_depend_on_where_the_mass_lies() -> None:
    quality = DGQP(32, 3)
    box = torch.randn(2, 4, 17, 3, 5)
    moved = box[:, :, torch.randperm(17)]
    torch.testing.assert_close(quality.statistics(moved.flatten(1, 2)), quality.statistics(box.flatten(1, 2)))


@pytest.mark.parametrize(("top_k", "hidden"), [(1, 64), (4, 64), (4, 8), (16, 64)])
def test_the_predictor_has_the_papers_size(top_k: int, hidden: int) -> None:
    quality = DGQP(32, 3, top_k=top_k, hidden=hidden)
    extra = sum(p.numel() for p in quality.predictor.parameters())
    assert extra == 4 * (top_k + 1) * hidden + hidden + hidden + 1
    assert quality.statistics(torch.zeros(1, 68, 2, 2)).shape == (1, 4 * (top_k + 1), 2, 2)


def test_the_quality_is_equation_5_of_the_statistics() -> None:
    quality = DGQP(32, 3, hidden=2)
    box = torch.randn(1, 68, 1, 1)
    features = quality.statistics(box).flatten().tolist()
    w1, b1 = quality.predictor[0].weight[:, :, 0, 0].tolist(), quality.predictor[0].bias.tolist()
    w2, b2 = quality.predictor[2].weight.flatten().tolist(), quality.predictor[2].bias.item()
    hidden = [max(0.0, _dot(row, features)) for row in w1]
    assert b1 == [0.0, 0.0]
    _, logits = quality(torch.zeros(1, 32, 1, 1), torch.zeros(1, 32, 1, 1), box)
    assert logits.item() == pytest.approx(_dot(w2, hidden) + b2, abs=1e-6)


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_the_quality_learns_through_the_distributions() -> None:
    quality = DGQP(32, 3)
    box = torch.randn(1, 68, 2, 2, requires_grad=True)
    _, logits = quality(torch.zeros(1, 32, 2, 2), torch.zeros(1, 32, 2, 2), box)
    (gradient,) = torch.autograd.grad(logits.sum(), box)
    assert gradient.abs().sum() > 0


def test_looking_at_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        DGQP(32, 3, top_k=0)
