from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gfocal.ops import (
    distribution_focal_loss,
    focal_loss,
    generalized_focal_loss,
    giou_loss,
    quality_focal_loss,
    quality_focal_loss_of_product,
)

BETAS = (0.0, 0.5, 1.0, 2.0, 2.5, 4.0)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def quality_focal(y: float, p: float, beta: float) -> float:
    """V1 Eq. 2 as it is printed."""
    return -(abs(y - p) ** beta) * ((1 - y) * math.log(1 - p) + y * math.log(p))


# ---------------------------------------------------------------- golden values


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("logit", "y"), [(0.0, 0.0), (0.3, 1.0), (-1.5, 0.62), (2.0, 0.25), (-4.6, 0.0), (4.0, 0.9)])
def test_quality_focal_loss_is_equation_2(logit: float, y: float, beta: float) -> None:
    loss = quality_focal_loss(torch.tensor([logit]), torch.tensor([y]), beta=beta)
    assert loss.item() == pytest.approx(quality_focal(y, sigmoid(logit), beta), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("logit", [-3.0, -0.2, 0.0, 1.7])
def test_focal_loss_is_equation_1_with_the_weight_of_positives(logit: float, gamma: float) -> None:
    p = sigmoid(logit)
    positive, negative = -((1 - p) ** gamma) * math.log(p), -(p**gamma) * math.log(1 - p)
    logits, targets = torch.tensor([logit, logit]), torch.tensor([1.0, 0.0])
    plain = focal_loss(logits, targets, gamma=gamma, alpha=None)
    torch.testing.assert_close(plain, torch.tensor([positive, negative]))
    weighted = focal_loss(logits, targets, gamma=gamma, alpha=0.25)
    torch.testing.assert_close(weighted, torch.tensor([0.25 * positive, 0.75 * negative]))


def test_a_focusing_exponent_of_0_leaves_the_cross_entropy() -> None:
    logits, targets = torch.randn(50), torch.rand(50)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(quality_focal_loss(logits, targets, beta=0.0), expected)


@pytest.mark.parametrize("n", [1, 2, 7, 16])
@pytest.mark.parametrize("delta", [0.5, 1.0, 3.0])
def test_distribution_focal_loss_is_equation_6_over_delta(n: int, delta: float) -> None:
    logits = [math.sin(3 * i) for i in range(n + 1)]
    total = sum(math.exp(x) for x in logits)
    for i in range(n):
        y = (i + 0.3) * delta
        left, right = i * delta, (i + 1) * delta
        log_left, log_right = logits[i] - math.log(total), logits[i + 1] - math.log(total)
        expected = -((right - y) * log_left + (y - left) * log_right) / delta
        loss = distribution_focal_loss(torch.tensor([logits]), torch.tensor([y]), delta=delta)
        assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0])
def test_a_target_on_a_bin_learns_that_bin_alone_and_one_beyond_learns_the_nearest_end(delta: float) -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.5])
    minus_log_p = -logits.log_softmax(0)
    on_bins = distribution_focal_loss(logits.expand(4, 4), torch.arange(4.0) * delta, delta=delta)
    torch.testing.assert_close(on_bins, minus_log_p)
    beyond = distribution_focal_loss(logits.expand(4, 4), torch.tensor([-0.1, -50.0, 3.01, 99.0]) * delta, delta=delta)
    torch.testing.assert_close(beyond, minus_log_p[[0, 0, 3, 3]])


def test_giou_loss_is_1_minus_giou() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [3.0, 4.0, 9.0, 7.0]])
    targets = torch.tensor([[1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 3.0, 1.0], [3.0, 4.0, 9.0, 7.0]])
    expected = torch.tensor([1 - (1 / 7 - 2 / 9), 1 - (0 - 1 / 3), 0.0])
    torch.testing.assert_close(giou_loss(boxes, targets), expected)


# ---------------------------------------------------------------- one family (V1 supplements B and C)


@pytest.mark.parametrize("beta", BETAS)
def test_quality_focal_loss_is_a_special_case_of_gfl(beta: float) -> None:
    logits, targets = torch.randn(100, dtype=torch.float64) * 3, torch.rand(100, dtype=torch.float64)
    log_right, log_left = logits.sigmoid().log(), (1 - logits.sigmoid()).log()
    general = generalized_focal_loss(log_left, log_right, targets, y_left=0.0, y_right=1.0, beta=beta)
    torch.testing.assert_close(general, quality_focal_loss(logits, targets, beta=beta))


@pytest.mark.parametrize("gamma", BETAS)
def test_focal_loss_is_a_special_case_of_gfl(gamma: float) -> None:
    logits = torch.randn(100, dtype=torch.float64) * 3
    targets = torch.randint(0, 2, (100,)).double()
    log_right, log_left = logits.sigmoid().log(), (1 - logits.sigmoid()).log()
    general = generalized_focal_loss(log_left, log_right, targets, y_left=0.0, y_right=1.0, beta=gamma)
    torch.testing.assert_close(general, focal_loss(logits, targets, gamma=gamma, alpha=None))


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0])
def test_distribution_focal_loss_is_a_special_case_of_gfl(delta: float) -> None:
    logits = torch.randn(100, 9, dtype=torch.float64)
    targets = torch.rand(100, dtype=torch.float64) * 8 * delta
    left = (targets / delta).floor().clamp(max=7).long()
    log_p = logits.log_softmax(-1)
    general = generalized_focal_loss(
        log_p.gather(1, left[:, None])[:, 0],
        log_p.gather(1, left[:, None] + 1)[:, 0],
        targets,
        y_left=left * delta,
        y_right=(left + 1) * delta,
        beta=0.0,
    )
    torch.testing.assert_close(general / delta, distribution_focal_loss(logits, targets, delta=delta))


@given(
    y_left=st.floats(-20, 20),
    width=st.floats(0.01, 20),
    share=st.floats(0, 1),
    beta=st.sampled_from(BETAS),
    p=st.floats(1e-6, 1 - 1e-6),
)
def test_the_minimum_of_gfl_lies_where_the_mean_is_the_target(
    y_left: float, width: float, share: float, beta: float, p: float
) -> None:
    y_right = y_left + width
    y = min(y_left + share * width, y_right)

    def gfl(p_right: float) -> float:
        pair = torch.tensor([1 - p_right, p_right], dtype=torch.float64).log()
        target = torch.tensor([y], dtype=torch.float64)
        return generalized_focal_loss(pair[:1], pair[1:], target, y_left=y_left, y_right=y_right, beta=beta).item()

    at_optimum = gfl((y - y_left) / (y_right - y_left))
    assert at_optimum <= gfl(p) + 1e-6 * width
    assert at_optimum >= 0
    if beta > 0:
        assert at_optimum == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_a_certain_prediction_of_an_end_costs_nothing(beta: float) -> None:
    log_p = torch.tensor([1.0, 0.0]).log().requires_grad_()
    for left, right, target in ((log_p[:1], log_p[1:], 2.0), (log_p[1:], log_p[:1], 3.0)):
        loss = generalized_focal_loss(left, right, torch.tensor([target]), y_left=2.0, y_right=3.0, beta=beta)
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss.sum(), log_p)
        assert gradient.isfinite().all()


@given(y=st.floats(0, 1), logit=st.floats(-12, 12), beta=st.sampled_from(BETAS))
def test_the_score_that_equals_the_quality_minimises_quality_focal_loss(y: float, logit: float, beta: float) -> None:
    best = max(-40.0, min(40.0, math.log(y) - math.log1p(-y))) if 0 < y < 1 else math.copysign(40, y - 0.5)
    pair = torch.tensor([best, logit], dtype=torch.float64)
    at_best, elsewhere = quality_focal_loss(pair, torch.full_like(pair, y), beta=beta)
    assert at_best <= elsewhere + 1e-12


# ---------------------------------------------------------------- V2's product of two scores


@pytest.mark.parametrize("beta", BETAS)
def test_the_product_form_equals_the_loss_of_the_product(beta: float) -> None:
    cls, quality = torch.randn(200, 3, dtype=torch.float64) * 4, torch.randn(200, dtype=torch.float64) * 4
    targets = torch.rand(200, 3, dtype=torch.float64)
    joint = cls.sigmoid() * quality.sigmoid()[:, None]
    entropy = torch.nn.functional.binary_cross_entropy(joint, targets, reduction="none")
    expected = (targets - joint).abs() ** beta * entropy
    torch.testing.assert_close(quality_focal_loss_of_product(cls, quality, targets, beta=beta), expected)


@pytest.mark.parametrize("beta", BETAS)
def test_the_product_form_is_finite_for_any_logit_and_close_to_float64(beta: float) -> None:
    values = torch.tensor([-100.0, -88.0, -30.0, -5.0, -0.1, 0.0, 3.0, 16.0, 40.0, 100.0])
    cls, quality, targets = torch.meshgrid(values, values, torch.tensor([0.0, 0.4, 1.0]), indexing="ij")
    results: dict[torch.dtype, list[Tensor]] = {}
    for dtype in (torch.float32, torch.float64):
        c = cls.reshape(-1, 1).to(dtype).requires_grad_()
        q = quality.reshape(-1).to(dtype).requires_grad_()
        loss = quality_focal_loss_of_product(c, q, targets.reshape(-1, 1).to(dtype), beta=beta)
        results[dtype] = [loss.detach(), *torch.autograd.grad(loss.sum(), (c, q))]
    for single, double in zip(*results.values(), strict=True):
        assert single.isfinite().all()
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_the_slope_of_the_product_form_keeps_its_digits_where_negatives_end() -> None:
    values = torch.linspace(-30, 10, 81)
    cls, quality = torch.meshgrid(values, values, indexing="ij")
    slopes: list[Tensor] = []
    for dtype in (torch.float32, torch.float64):
        c, q = cls.reshape(-1, 1).to(dtype).requires_grad_(), quality.reshape(-1).to(dtype).requires_grad_()
        loss = quality_focal_loss_of_product(c, q, torch.zeros_like(c), beta=0.0)
        slopes.append(torch.stack([one.flatten() for one in torch.autograd.grad(loss.sum(), (c, q))]))
    torch.testing.assert_close(slopes[0].double(), slopes[1], rtol=1e-5, atol=0)


# ---------------------------------------------------------------- precision and gradients


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_under_autocast_too(dtype: torch.dtype) -> None:
    logits, bins = torch.randn(6, 3).to(dtype), torch.randn(6, 5).to(dtype)
    targets = torch.rand(6, 3).to(dtype)
    boxes = torch.tensor([[0.0, 0.0, 8.0, 4.0]]).expand(6, 4).to(dtype)
    calls = {
        "fl": lambda a: focal_loss(a(logits), a(targets).round()),
        "qfl": lambda a: quality_focal_loss(a(logits), a(targets)),
        "product": lambda a: quality_focal_loss_of_product(a(logits), a(logits[:, 0]), a(targets)),
        "dfl": lambda a: distribution_focal_loss(a(bins), a(targets[:, 0]) * 4),
        "gfl": lambda a: generalized_focal_loss(
            a(-logits.abs() - 0.1), a(-logits.abs() - 0.5), a(targets), y_left=0.0, y_right=1.0
        ),
        "giou": lambda a: giou_loss(a(boxes), a(boxes) + 1),
    }
    for name, call in calls.items():
        expected = call(lambda x: x.float())
        with torch.autocast("cpu", dtype):
            result = call(lambda x: x)
        assert result.dtype == torch.float32, name
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("beta", BETAS)
def test_gradients_agree_with_finite_differences(beta: float) -> None:
    logits = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    quality = torch.randn(5, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(5, 2, dtype=torch.float64)
    log_p = (-torch.rand(5, 2, dtype=torch.float64) - 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: quality_focal_loss(x, targets, beta=beta), logits)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets.round(), gamma=beta), logits)
    product = lambda c, q: quality_focal_loss_of_product(c, q, targets, beta=beta)  # noqa: E731
    assert torch.autograd.gradcheck(product, (logits, quality))
    general = lambda a: generalized_focal_loss(  # noqa: E731
        a[:, 0], a[:, 1], targets[:, 0], y_left=0.0, y_right=1.0, beta=beta
    )
    assert torch.autograd.gradcheck(general, log_p)


@pytest.mark.parametrize("delta", [0.5, 1.0])
def test_gradients_of_the_box_losses_agree_with_finite_differences(delta: float) -> None:
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    targets = ((torch.arange(5, dtype=torch.float64) + 0.3) * delta).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: distribution_focal_loss(x, y, delta=delta), (logits, targets))
    corner = torch.rand(5, 2, dtype=torch.float64)
    boxes = torch.cat([corner, corner + 1 + torch.rand(5, 2)], dim=1)
    moved = boxes + 0.3
    assert torch.autograd.gradcheck(lambda x: giou_loss(x, moved), boxes.requires_grad_())


@pytest.mark.parametrize("beta", BETAS)
def test_the_gradient_is_finite_where_the_distance_is_0(beta: float) -> None:
    x = torch.zeros(1, requires_grad=True)
    half = torch.tensor([0.5])
    far = torch.full((1,), 200.0, requires_grad=True)
    joint = (torch.nn.functional.logsigmoid(x) * 2).exp().detach()
    log_half = half.log().requires_grad_()
    losses = [
        (x, quality_focal_loss(x, half, beta=beta)),
        (x, quality_focal_loss_of_product(x[:, None], x, joint[:, None], beta=beta)),
        (far, focal_loss(far, torch.ones(1), gamma=beta)),
        (log_half, generalized_focal_loss(log_half, log_half, half, y_left=0.0, y_right=1.0, beta=beta)),
    ]
    for value, loss in losses:
        (gradient,) = torch.autograd.grad(loss.sum(), value)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("delta", [0.25, 1.0, 2.0])
def test_the_weights_of_distribution_focal_loss_sum_to_1_and_average_to_the_target(delta: float) -> None:
    n = 6
    targets = torch.tensor([0.0, 0.2, 1.0, 2.5, 5.999, 6.0, -3.0, 11.0], dtype=torch.float64) * delta
    logits = torch.randn(len(targets), n + 1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(distribution_focal_loss(logits, targets, delta=delta).sum(), logits)
    # the gradient of a cross entropy is softmax minus the weights
    weights = logits.detach().softmax(-1) - gradient
    assert (weights > -1e-12).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(targets))
    bins = torch.arange(n + 1, dtype=torch.float64) * delta
    torch.testing.assert_close(weights @ bins, targets.clamp(0, n * delta))
    assert ((weights.abs() > 1e-9) & ((bins - targets.clamp(0, n * delta)[:, None]).abs() > delta)).sum() == 0


# ---------------------------------------------------------------- empty input and refusals


def test_no_element_gives_no_loss_and_a_gradient() -> None:
    none, rows, boxes = torch.zeros(0), torch.zeros(0, 5, requires_grad=True), torch.zeros(0, 4)
    losses = [
        focal_loss(none, none),
        quality_focal_loss(none, none),
        generalized_focal_loss(none, none, none, y_left=0.0, y_right=1.0),
        distribution_focal_loss(rows, none),
        giou_loss(boxes, boxes),
    ]
    assert [tuple(loss.shape) for loss in losses] == [(0,)] * 5
    assert quality_focal_loss_of_product(rows, none, rows.detach()).shape == (0, 5)
    distribution_focal_loss(rows, none).sum().backward()
    assert rows.grad is not None


def test_extra_dimensions_are_kept() -> None:
    assert quality_focal_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)).shape == (2, 3, 4)
    assert distribution_focal_loss(torch.zeros(2, 3, 9), torch.zeros(2, 3)).shape == (2, 3)
    assert quality_focal_loss_of_product(torch.zeros(2, 3, 4), torch.zeros(2, 3), torch.zeros(2, 3, 4)).shape == (
        2,
        3,
        4,
    )


def test_a_negative_exponent_is_refused() -> None:
    x = torch.zeros(1)
    with pytest.raises(ValueError, match=r"-0\.5"):
        focal_loss(x, x, gamma=-0.5)
    with pytest.raises(ValueError, match=r"-0\.5"):
        quality_focal_loss(x, x, beta=-0.5)
    with pytest.raises(ValueError, match=r"-0\.5"):
        quality_focal_loss_of_product(x[:, None], x, x[:, None], beta=-0.5)
    with pytest.raises(ValueError, match=r"-0\.5"):
        generalized_focal_loss(x, x, x, y_left=0.0, y_right=1.0, beta=-0.5)


def test_a_distribution_needs_a_positive_delta_and_two_bins() -> None:
    with pytest.raises(ValueError, match="delta"):
        distribution_focal_loss(torch.zeros(1, 3), torch.zeros(1), delta=0.0)
    with pytest.raises(ValueError, match="two bins"):
        distribution_focal_loss(torch.zeros(1, 1), torch.zeros(1))
