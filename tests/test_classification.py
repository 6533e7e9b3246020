"""Class losses against one class a location, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gfocal.classification import Classification, Focal, Softmax
from gfocal.ops import focal_loss
from helpers import target_of

# location, label, IoU, whether positive: two pictures of three locations, the second with one pair in vain
ROWS = [(1, 2, 0.7, True), (4, 0, 0.3, True), (4, 1, 0.9, False), (0, 1, 0.5, False)]


def test_values_stand_at_the_true_class_and_add_up() -> None:
    target = target_of(ROWS, batch=2, count=3)
    placed = target.at_true_class(torch.tensor([1.0, 2.0, 4.0, 0.0]), like=torch.zeros(2, 3, 4))
    expected = torch.zeros(2, 3, 4)
    expected[0, 1, 2], expected[1, 1, 0], expected[1, 1, 1] = 1.0, 2.0, 4.0
    assert torch.equal(placed, expected)


# ---------------------------------------------------------------- focal


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.4, 1.5), (0.5, 0.0)])
def test_the_focal_loss_is_that_of_the_paper(alpha: float, gamma: float) -> None:
    logits = torch.randn(2, 3, 3)
    losses = Focal(alpha=alpha, gamma=gamma).losses(logits, target_of(ROWS, batch=2, count=3))
    for location in range(6):
        for label in range(3):
            p = 1 / (1 + math.exp(-logits.flatten(0, 1)[location, label].item()))
            if (location, label) in ((1, 2), (4, 0)):
                expected = -alpha * (1 - p) ** gamma * math.log(p)
            else:
                expected = -(1 - alpha) * p**gamma * math.log(1 - p)
            assert losses.flatten(0, 1)[location, label].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_focal_scores_are_sigmoids_of_each_class_alone() -> None:
    logits = torch.randn(2, 3, 4)
    torch.testing.assert_close(Focal().scores(logits), logits.sigmoid())
    assert (Focal().outputs(3), Focal().first_probability) == (3, 0.01)


def test_weights_of_the_focal_loss_count_at_the_true_class_alone() -> None:
    logits, target = torch.randn(2, 3, 3), target_of(ROWS, batch=2, count=3)
    plain = Focal().losses(logits, target)
    weighted = Focal().losses(logits, target, weight=torch.tensor([0.5, 3.0, 9.0, 9.0]))
    expected = plain.clone()
    expected[0, 1, 2] *= 0.5
    expected[1, 1, 0] *= 3.0
    torch.testing.assert_close(weighted, expected)


@given(seed=st.integers(0, 10_000))
def test_weights_of_1_change_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = target_of(ROWS, batch=2, count=3)
    for part in (Focal(), Softmax()):
        logits = torch.randn(2, 3, part.outputs(3), generator=generator)
        ones = torch.ones(len(ROWS))
        torch.testing.assert_close(part.losses(logits, target, weight=ones), part.losses(logits, target))


# ---------------------------------------------------------------- softmax


def cross_entropy(logits: Tensor, label: int) -> float:
    values = [math.exp(value) for value in logits.tolist()]
    return -math.log(values[label] / sum(values))


def logits_with(losses: list[list[float]]) -> Tensor:
    """Return logits of two classes and a background, whose cross entropy as background is each of `losses`."""
    share = torch.tensor(losses).neg().exp()[..., None]
    return torch.cat([(1 - share) / 2, (1 - share) / 2, share], dim=-1).log()


def test_only_the_hardest_negatives_of_each_picture_count() -> None:
    # one positive in the first picture, two in the second: three and six negatives, of which only five are there
    background = [[0.1, 0.9, 0.5, 0.2, 0.8, 0.7, 0.3], [0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7]]
    logits = logits_with(background)
    target = target_of([(0, 1, 0.0, True), (7, 0, 0.0, True), (8, 1, 0.0, True)], batch=2, count=7)
    losses = Softmax(negatives=3).losses(logits, target)
    expected = torch.tensor([[0.0, 0.9, 0.0, 0.0, 0.8, 0.7, 0.0], [0.0, 0.0, 0.2, 0.3, 0.4, 0.6, 0.7]])
    for picture, location, label in ((0, 0, 1), (1, 0, 0), (1, 1, 1)):
        expected[picture, location] = cross_entropy(logits[picture, location], label)
    torch.testing.assert_close(losses, expected)


def test_a_picture_without_positives_has_no_negatives_either() -> None:
    target = target_of([(0, 0, 0.0, True), (3, 1, 0.0, False)], batch=2, count=3)
    losses = Softmax().losses(torch.randn(2, 3, 3), target)
    assert (losses[0] > 0).all()
    assert (losses[1] == 0).all()


def test_locations_that_do_not_count_are_no_hard_negatives() -> None:
    counted = torch.ones(1, 6, dtype=torch.bool)
    counted[0, 1] = False
    logits = logits_with([[0.1, 0.9, 0.5, 0.2, 0.8, 0.7]])
    target = target_of([(0, 1, 0.0, True)], batch=1, count=6, counted=counted)
    losses = Softmax(negatives=2).losses(logits, target)
    torch.testing.assert_close(losses[0, 1:], torch.tensor([0.0, 0.0, 0.0, 0.8, 0.7]))


def test_of_negatives_that_tie_the_first_are_taken() -> None:
    logits = logits_with([[0.5] * 8])
    losses = Softmax(negatives=3).losses(logits, target_of([(4, 0, 0.0, True)], batch=1, count=8))
    assert (losses[0] > 0).tolist() == [True, True, True, False, True, False, False, False]


def test_weights_of_the_softmax_count_at_positives_alone() -> None:
    logits, target = (
        torch.randn(2, 3, 3),
        target_of([(1, 1, 0, True), (4, 0, 0, True), (4, 1, 0, False)], batch=2, count=3),
    )
    plain = Softmax().losses(logits, target)
    weighted = Softmax().losses(logits, target, weight=torch.tensor([0.5, 3.0, 9.0]))
    expected = plain.clone()
    expected[0, 1] *= 0.5
    expected[1, 1] *= 3.0
    torch.testing.assert_close(weighted, expected)


def test_softmax_scores_leave_the_background_out() -> None:
    logits = torch.randn(2, 3, 5)
    scores = Softmax().scores(logits)
    torch.testing.assert_close(scores, logits.softmax(-1)[..., :4])
    torch.testing.assert_close(scores.sum(-1), 1 - logits.softmax(-1)[..., 4])
    assert (Softmax().outputs(3), Softmax().first_probability) == (4, None)


def test_which_negatives_are_hard_has_no_gradient_and_their_loss_has() -> None:
    logits = torch.randn(1, 8, 3, requires_grad=True)
    losses = Softmax(negatives=2).losses(logits, target_of([(0, 0, 0.0, True)], batch=1, count=8))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert (gradient.abs().sum(-1) > 0).tolist() == (losses > 0).tolist()
    assert (losses > 0).sum() == 3


# ---------------------------------------------------------------- both


@pytest.mark.parametrize("part", [Focal(), Softmax()])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_half_logits_are_float32(part: Classification, dtype: torch.dtype) -> None:
    logits = torch.randn(2, 3, part.outputs(3)) * 20
    target = target_of(ROWS[:2], batch=2, count=3)
    losses = part.losses(logits.to(dtype), target)
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    torch.testing.assert_close(losses, part.losses(logits.to(dtype).float(), target))


def test_the_focal_loss_is_the_packages_own() -> None:
    logits = torch.randn(2, 3, 3)
    target = target_of([], batch=2, count=3)
    torch.testing.assert_close(Focal().losses(logits, target), focal_loss(logits, torch.zeros_like(logits)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Focal(alpha=-0.1), "alpha must be at least 0"),
        (lambda: Focal(gamma=-1.0), "gamma must be at least 0"),
        (lambda: Softmax(negatives=-1), "negatives must be at least 0"),
    ],
)
def test_impossible_options_are_refused(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]
