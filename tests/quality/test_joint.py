"""Joint scores: one number for both, and products whose quality is read off the edge distributions."""

from __future__ import annotations

import itertools

import pytest
import torch

from gfocal.ops import quality_focal_loss, quality_focal_loss_of_product
from gfocal.quality.joint import DGQP, STATISTICS, Composed, Joint, Statistics
from helpers import head, raw_of, target_of

# location, label, IoU, whether positive
ROWS = [(0, 1, 0.7, True), (4, 0, 0.3, True), (4, 2, 0.9, False), (1, 2, 0.5, False)]
COMBINATIONS = [names for count in (1, 2, 3) for names in itertools.combinations(sorted(STATISTICS), count)]


@pytest.mark.parametrize("make", [Joint, Composed])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_the_joint_score_is_learnt_with_the_quality_focal_loss(make: type[Joint | Composed], beta: float) -> None:
    quality = make(head(32, 3), beta=beta)
    logits, target = torch.randn(2, 3, 3), target_of(ROWS, batch=2, count=3)
    raw = raw_of(quality, logits)
    torch.testing.assert_close(raw.scores, logits.sigmoid())
    assert torch.equal(raw.class_scores, raw.scores)
    labels = target.at_true_class(target.iou * target.positive, like=logits)
    assert list(quality.losses(raw, target)) == ["cls"]
    torch.testing.assert_close(quality.losses(raw, target)["cls"], quality_focal_loss(logits, labels, beta=beta))


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_the_product_of_class_and_quality_is_learnt_as_one(beta: float) -> None:
    quality = DGQP(head(32, 3), beta=beta)
    cls, iou, target = torch.randn(2, 3, 3), torch.randn(2, 3), target_of(ROWS, batch=2, count=3)
    raw = raw_of(quality, cls, iou)
    torch.testing.assert_close(raw.scores, cls.sigmoid() * iou.sigmoid()[..., None])
    assert torch.equal(raw.class_scores, raw.scores)
    labels = target.at_true_class(target.iou * target.positive, like=cls)
    expected = quality_focal_loss_of_product(cls, iou, labels, beta=beta)
    torch.testing.assert_close(quality.losses(raw, target)["cls"], expected)


# ---------------------------------------------------------------- statistics


def test_the_statistics_are_the_highest_probabilities_and_their_mean_edge_by_edge() -> None:
    read = DGQP(head(32, 3), top_k=2).read
    p = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25], [0.05, 0.05, 0.9], [0.2, 0.3, 0.5]])
    expected = [0.6, 0.3, 0.45, 0.5, 0.25, 0.375, 0.9, 0.05, 0.475, 0.5, 0.3, 0.4]
    torch.testing.assert_close(read(p.log().reshape(1, 12, 1, 1)).flatten(), torch.tensor(expected))


def test_the_variance_is_of_the_highest_probabilities() -> None:
    p = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25], [0.05, 0.05, 0.9], [0.2, 0.3, 0.5]])
    # of two numbers: a quarter of their difference squared
    expected = [0.3**2 / 4, 0.25**2 / 4, 0.85**2 / 4, 0.2**2 / 4]
    read = Statistics(2, ("var",))
    torch.testing.assert_close(read(p.log().reshape(1, 12, 1, 1)).flatten(), torch.tensor(expected))
    # over all bins the mean is that of any distribution, and says nothing
    everything = Statistics(3, ("mean",))(torch.randn(1, 12, 4, 4))
    torch.testing.assert_close(everything, torch.full((1, 4, 4, 4), 1 / 3))


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_any_statistics_stand_side_by_side_for_each_edge(names: tuple[str, ...]) -> None:
    box = torch.randn(2, 4 * 9, 3, 5)
    read = Statistics(4, names)
    result = read(box)
    assert result.shape == (2, read.size, 3, 5)
    top = box.unflatten(1, (4, 9)).softmax(2).sort(dim=2, descending=True).values[:, :, :4]
    of = {"top": top, "mean": top.mean(2, keepdim=True), "var": top.var(2, keepdim=True, correction=0)}
    torch.testing.assert_close(result, torch.cat([of[name] for name in names], dim=2).flatten(1, 2))


def test_the_statistics_do_not_depend_on_where_the_mass_lies() -> None:
    read = Statistics(4, ("top", "mean", "var"))
    box = torch.randn(2, 4, 17, 3, 5)
    moved = box[:, :, torch.randperm(17)]
    torch.testing.assert_close(read(moved.flatten(1, 2)), read(box.flatten(1, 2)))


@pytest.mark.parametrize("names", [(), ("top", "top")])
def test_no_statistic_and_one_twice_are_refused(names: tuple[str, ...]) -> None:
    for make in (DGQP, Composed):
        with pytest.raises(ValueError, match="statistics must name one or more of top, mean and var, each once"):
            make(head(32, 3), statistics=names)


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize(("top_k", "hidden"), [(1, 64), (4, 64), (4, 8), (16, 64)])
def test_the_predictor_has_the_papers_size(top_k: int, hidden: int) -> None:
    quality = DGQP(head(32, 3), top_k=top_k, hidden=hidden)
    extra = sum(p.numel() for p in quality.predictor.parameters())
    assert extra == 4 * (top_k + 1) * hidden + hidden + hidden + 1
    assert quality.read(torch.zeros(1, 68, 2, 2)).shape == (1, 4 * (top_k + 1), 2, 2)
    assert quality.min_bins == top_k


def test_the_quality_is_equation_5_of_the_statistics() -> None:
    quality = DGQP(head(32, 3), hidden=2)
    box = torch.randn(1, 68, 1, 1)
    features = quality.read(box).flatten().tolist()
    w1, b1 = quality.predictor[0].weight[:, :, 0, 0].tolist(), quality.predictor[0].bias.tolist()
    w2, b2 = quality.predictor[2].weight.flatten().tolist(), quality.predictor[2].bias.item()
    hidden = [max(0.0, _dot(row, features)) for row in w1]
    assert b1 == [0.0, 0.0]
    _, logits = quality(torch.zeros(1, 32, 1, 1), torch.zeros(1, 32, 1, 1), box)
    assert logits.item() == pytest.approx(_dot(w2, hidden) + b2, abs=1e-6)


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_the_composed_score_is_read_from_class_feature_and_statistics_together() -> None:
    quality = Composed(head(32, 3), dims=5, top_k=2)
    torch.nn.init.normal_(quality.cls.weight)
    feature, box = torch.randn(1, 32, 3, 3), torch.randn(1, 4 * 6, 3, 3)
    logits, apart = quality(feature, torch.randn(1, 32, 3, 3), box)
    assert apart is None
    enriched = torch.einsum("oc,bchw->bohw", quality.enrich[0].weight[:, :, 0, 0], quality.read(box))
    enriched = (enriched + quality.enrich[0].bias[:, None, None]).relu()
    expected = torch.conv2d(torch.cat([feature, enriched], dim=1), quality.cls.weight, quality.cls.bias, padding=1)
    torch.testing.assert_close(logits, expected)
    assert quality.cls.in_channels == 32 + 5
    assert quality.enrich[0].in_channels == 4 * 3


@pytest.mark.parametrize("make", [DGQP, Composed])
def test_the_quality_learns_through_the_distributions(make: type[DGQP | Composed]) -> None:
    quality = make(head(32, 3))
    box = torch.randn(1, 68, 2, 2, requires_grad=True)
    outputs = quality(torch.zeros(1, 32, 2, 2), torch.zeros(1, 32, 2, 2), box)
    (gradient,) = torch.autograd.grad(sum(out.sum() for out in outputs if out is not None), box)
    assert gradient.abs().sum() > 0


def test_looking_at_no_probability_is_refused() -> None:
    for make in (DGQP, Composed):
        with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
            make(head(32, 3), top_k=0)
