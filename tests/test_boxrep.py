from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfocal.boxrep import BOXES, Dirac, Gaussian, General
from gfocal.edges import EdgeDistributions


def test_the_papers_choice_is_17_bins_one_stride_apart() -> None:
    box = General()
    assert box.width == 17
    assert box.bins == tuple(float(i) for i in range(17))


@pytest.mark.parametrize(("n", "delta"), [(1, 1.0), (12, 1.0), (16, 2.0), (8, 0.5), (32, 0.5)])
def test_bins_run_from_0_to_n_delta(n: int, delta: float) -> None:
    box = General(n=n, delta=delta)
    assert box.width == n + 1
    assert box.bins is not None
    assert len(box.bins) == n + 1
    assert box.bins[0] == 0
    assert box.bins[-1] == pytest.approx(n * delta)


def test_the_value_is_the_expectation_of_equation_5() -> None:
    logits = [0.1, 2.0, -0.5, 1.0]
    total = sum(math.exp(x) for x in logits)
    expected = sum(math.exp(x) / total * i * 0.5 for i, x in enumerate(logits))
    code = torch.tensor(logits).expand(2, 4, 4)
    torch.testing.assert_close(General(n=3, delta=0.5).values(code), torch.full((2, 4), expected))


@given(seed=st.integers(0, 10_000), delta=st.sampled_from([0.5, 1.0, 3.0]))
def test_values_stay_between_the_ends_and_grow_with_mass_farther_out(seed: int, delta: float) -> None:
    box = General(n=6, delta=delta)
    code = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(seed)) * 5
    values = box.values(code)
    assert (values >= 0).all()
    assert (values <= 6 * delta + 1e-4).all()
    assert (box.values(code + torch.arange(7) * 0.5) >= values - 1e-5).all()
    torch.testing.assert_close(box.probabilities(code).sum(-1), torch.ones(3, 4))


def test_the_loss_is_the_weighted_mean_over_the_edges() -> None:
    box = General(n=4, dfl_weight=0.25)
    code = torch.randn(3, 4, 5)
    targets = torch.tensor([[0.0, 0.5, 1.25, 3.0]]).expand(3, 4)
    log_p = code.log_softmax(-1)
    edges = [
        -log_p[:, 0, 0],
        -0.5 * (log_p[:, 1, 0] + log_p[:, 1, 1]),
        -(0.75 * log_p[:, 2, 1] + 0.25 * log_p[:, 2, 2]),
        -log_p[:, 3, 3],
    ]
    (loss,) = box.losses(code, targets).values()
    torch.testing.assert_close(loss, 0.25 * sum(edges) / 4)


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0])
def test_targets_beyond_the_last_bin_are_learnt_a_tenth_of_a_bin_before_it(delta: float) -> None:
    box = General(n=4, delta=delta)
    code = torch.randn(1, 4, 5)
    end = box.losses(code, torch.full((1, 4), 3.9 * delta))["dfl"]
    for target in (3.95, 4.0, 100.0):
        torch.testing.assert_close(box.losses(code, torch.full((1, 4), target * delta))["dfl"], end)
    start = box.losses(code, torch.zeros(1, 4))["dfl"]
    torch.testing.assert_close(box.losses(code, torch.full((1, 4), -7.0))["dfl"], start)


def test_without_weight_there_is_no_distribution_focal_loss() -> None:
    assert General(dfl_weight=0.0).losses(torch.zeros(1, 4, 17), torch.zeros(1, 4)) == {}


def test_no_box_has_no_loss() -> None:
    losses = General().losses(torch.zeros(0, 4, 17), torch.zeros(0, 4))
    assert losses["dfl"].shape == (0,)
    assert General().values(torch.zeros(0, 4, 17)).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_keep_their_precision_under_autocast(dtype: torch.dtype) -> None:
    code = torch.randn(50, 4, 17)
    box = General()
    with torch.autocast("cpu", dtype):
        values = box.values(code)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, box.values(code))


def test_impossible_distributions_are_refused_with_the_value() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        General(n=0)
    for delta in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"delta must be greater than 0, got {delta}"):
            General(delta=delta)


# ---------------------------------------------------------------- Dirac delta


def test_a_dirac_delta_is_its_number_and_has_no_loss_of_its_own() -> None:
    code = torch.randn(2, 3, 4, 1)
    assert torch.equal(Dirac().values(code), code[..., 0])
    assert Dirac().losses(code[0], torch.randn(3, 4)) == {}
    assert (Dirac().width, Dirac().bins) == (1, None)
    with pytest.raises(NotImplementedError, match="no bins"):
        Dirac().probabilities(code)


# ---------------------------------------------------------------- Gaussian


@given(seed=st.integers(0, 10_000), weight=st.sampled_from([0.25, 1.0, 2.0]))
def test_the_gaussian_loss_is_the_likelihood_without_its_constant(seed: int, weight: float) -> None:
    box = Gaussian(weight=weight)
    generator = torch.Generator().manual_seed(seed)
    code = torch.randn(3, 4, 2, generator=generator) * 3
    targets = torch.randn(3, 4, generator=generator) * 5
    normal = torch.distributions.Normal(code[..., 0], box.variances(code).sqrt())
    expected = -normal.log_prob(targets) - math.log(2 * math.pi) / 2
    (loss,) = box.losses(code, targets).values()
    assert list(box.losses(code, targets)) == ["box"]
    torch.testing.assert_close(loss, weight * expected.mean(-1), rtol=1e-4, atol=1e-4)


def test_mean_and_variance_are_read_off_the_code() -> None:
    code = torch.randn(2, 3, 4, 2) * 4
    box = Gaussian(smallest=0.01)
    assert torch.equal(box.values(code), code[..., 0])
    torch.testing.assert_close(box.variances(code), (code[..., 1].exp() + 1).log() + 0.01)
    assert (box.variances(torch.full((1, 4, 2), -1e4)) >= 0.01).all()
    assert (box.width, box.bins) == (2, None)
    with pytest.raises(NotImplementedError, match="no bins"):
        box.probabilities(code)


def test_the_gaussian_loss_is_least_at_the_target_and_its_squared_error() -> None:
    box, target, error = Gaussian(), 2.0, 0.7

    def loss(mean: float, variance: float) -> float:
        raw = math.log(math.expm1(variance - box.smallest))  # the inverse of the softplus
        code = torch.tensor([mean, raw], dtype=torch.float64).expand(1, 4, 2)
        return box.losses(code, torch.full((1, 4), target, dtype=torch.float64))["box"].item()

    for variance in (0.1, 1.0, 5.0):  # over the mean the least is at the target
        assert all(loss(target, variance) < loss(target + step, variance) for step in (-0.5, -0.01, 0.01, 0.5))
    best = error**2  # over the variance it is at the square of the error
    assert all(loss(target + error, best) < loss(target + error, best * factor) for factor in (0.5, 0.99, 1.01, 2))
    assert loss(target + error, best) == pytest.approx(0.5 + math.log(best) / 2)


def test_the_spread_of_a_gaussian_is_its_own() -> None:
    code = torch.randn(50, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2
    box = Gaussian()
    spread = box.distribution(code)
    assert spread is not None
    mass, values = spread
    torch.testing.assert_close(mass.sum(-1), torch.ones(50, 4, dtype=torch.float64))
    mean = (mass * values).sum(-1)
    torch.testing.assert_close(mean, box.values(code))
    std = (mass * (values - mean[..., None]).square()).sum(-1).sqrt()
    torch.testing.assert_close(std / box.variances(code).sqrt(), torch.ones(50, 4).double(), rtol=0, atol=3e-3)
    edges = EdgeDistributions(mass, values)
    normal = torch.distributions.Normal(box.values(code), box.variances(code).sqrt())
    for q in (0.01, 0.05, 0.5, 0.9):
        share = normal.cdf(edges.quantile(q))
        torch.testing.assert_close(share, torch.full_like(share, q), rtol=0, atol=2e-3)
    # within three deviations the density is off by what a cell averages over
    x = normal.sample().clamp(edges.quantile(0.002), edges.quantile(0.998))
    torch.testing.assert_close(edges.log_prob(x), normal.log_prob(x), rtol=0, atol=0.4)


def test_a_dirac_has_no_spread_and_a_general_its_bins() -> None:
    assert Dirac().distribution(torch.zeros(2, 4, 1)) is None
    code = torch.randn(2, 4, 5)
    spread = General(n=4, delta=0.5).distribution(code)
    assert spread is not None
    torch.testing.assert_close(spread[0], code.softmax(-1))
    assert spread[1][1, 2].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_gradients_of_the_gaussian_agree_with_finite_differences() -> None:
    code = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda code: Gaussian().losses(code, targets)["box"], (code,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gaussian_loss_is_float32_and_finite_for_any_code(dtype: torch.dtype) -> None:
    code = torch.tensor([-3e4, -50.0, 0.0, 50.0, 3e4]).repeat(4, 1).T[..., None].expand(5, 4, 2).to(dtype)
    loss = Gaussian().losses(code, torch.zeros(5, 4))["box"]
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert Gaussian().losses(code[:0], torch.zeros(0, 4))["box"].shape == (0,)


@pytest.mark.parametrize("option", ["weight", "smallest"])
def test_impossible_gaussians_are_refused_with_the_value(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be greater than 0, got 0"):
        Gaussian(**{option: 0.0})


def test_the_choices_are_named() -> None:
    assert {"dirac": Dirac, "gaussian": Gaussian, "general": General} == BOXES
