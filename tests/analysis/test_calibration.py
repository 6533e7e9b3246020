"""Calibration: measures against brute force, fits against known truth, promises against repeated draws."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfocal.analysis.calibration import calibration_report, conformal_quantile, fit_calibration, fit_temperatures
from gfocal.analysis.calibration.box_metrics import box_coverage
from gfocal.analysis.calibration.calibrating import calibrate, calibrated, coverage_over_splits, random_part
from gfocal.analysis.calibration.classification import detection_error, localisation_error, score_reliability
from gfocal.analysis.calibration.edge_metrics import (
    calibration_error,
    crps,
    edge_scores,
    negative_log_likelihood,
    outward_pit,
    spearman,
)
from gfocal.analysis.calibration.fitting import LEAST_OF_LEVEL, class_groups
from gfocal.analysis.calibration.softness import softness_report
from gfocal.analysis.calibration.synthetic import synthetic_matches
from gfocal.analysis.calibration.writing import write_report
from gfocal.analysis.matching import Outcomes
from gfocal.errors import UserError
from gfocal.structures import EdgeDistributions

MASSES = (0.5, 0.8, 0.9, 0.95)


def binomial(share, count, *, deviations=4):
    """Return how far a share measured on so many may lie off by chance."""
    return deviations * math.sqrt(share * (1 - share) / count)


def random_edges(seed, *, boxes=3, bins=5):
    generator = torch.Generator().manual_seed(seed)
    start = 50 + 50 * torch.rand(boxes, 4, 1, generator=generator, dtype=torch.float64)
    step = (2 + 6 * torch.rand(boxes, 4, 1, generator=generator, dtype=torch.float64)) * torch.tensor(
        [[-1.0], [-1], [1], [1]]
    )
    probabilities = (2 * torch.randn(boxes, 4, bins, generator=generator, dtype=torch.float64)).softmax(-1)
    return EdgeDistributions(probabilities, start + step * torch.arange(bins))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("offset", [-70.0, -9.3, 0.0, 4.1, 70.0])
def test_crps_is_the_integral_of_its_definition(seed, offset):
    edges = random_edges(seed)
    truths = edges.mean + offset
    low, high, count = float(edges.positions.min()) - 90, float(edges.positions.max()) + 90, 20_000
    width = (high - low) / count
    x = low + width * (torch.arange(count, dtype=torch.float64) + 0.5)
    many = EdgeDistributions(*(part.repeat(count, 1, 1) for part in (edges.probabilities, edges.positions)))
    cdf = many.cdf(x.repeat_interleave(3)[:, None].expand(-1, 4)).view(count, 3, 4)
    expected = ((cdf - (x[:, None, None] >= truths).double()) ** 2).sum(0) * width
    torch.testing.assert_close(crps(edges, truths), expected, rtol=2e-3, atol=2e-2)


def test_crps_of_a_sure_edge_is_the_absolute_error_but_for_the_width_of_its_cell():
    probabilities = torch.tensor([0.0, 1.0, 0.0]).expand(1, 4, 3)
    edges = EdgeDistributions(probabilities, torch.tensor([0.0, 0.001, 0.002]).expand(1, 4, 3))
    truths = torch.tensor([[10.0, -10.0, 3.0, 0.001]])
    torch.testing.assert_close(crps(edges, truths), torch.tensor([[10.0, 10.0, 3.0, 0.0]]), rtol=0, atol=2e-3)


def test_likelihood_is_the_density_of_the_cell_and_finite_without_any():
    edges = random_edges(0)
    inside = edges.quantile(0.3)
    torch.testing.assert_close(negative_log_likelihood(edges, inside), -edges.log_prob(inside), rtol=0, atol=0.2)
    sure = EdgeDistributions(torch.tensor([1.0, 0.0]).expand(1, 4, 2), torch.tensor([0.0, 8.0]).expand(1, 4, 2))
    assert negative_log_likelihood(sure, torch.full((1, 4), 9.0)).isfinite().all()


def test_pit_runs_outwards_on_every_edge():
    edges = random_edges(1)
    small, large = edges.quantile(0.1), edges.quantile(0.9)
    inside, outside = outward_pit(edges, small), outward_pit(edges, large)
    np.testing.assert_allclose(inside, np.tile([0.9, 0.9, 0.1, 0.1], (3, 1)), atol=1e-6)
    np.testing.assert_allclose(outside, np.tile([0.1, 0.1, 0.9, 0.9], (3, 1)), atol=1e-6)


def test_distributions_that_are_true_are_found_calibrated():
    matched = synthetic_matches(5000, seed=3)
    scores = edge_scores(matched.edges, matched.truths, masses=MASSES)
    for row in scores.intervals:
        assert abs(row.coverage - row.mass) < binomial(row.mass, 4 * 5000)
        assert all(abs(edge - row.mass) < binomial(row.mass, 5000) for edge in row.edges)
    assert scores.error < 3 * 0.31 / math.sqrt(5000)
    assert scores.outside == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_recovered_and_mends_the_coverage(temperature):
    fitted = synthetic_matches(6000, temperature=temperature, seed=4)
    (row,) = fit_temperatures(fitted.edges, fitted.truths, fitted.levels)
    assert row == pytest.approx([temperature] * 4, rel=0.1)
    tested = synthetic_matches(4000, temperature=temperature, seed=5)
    edges, _ = calibrated(fit_calibration(fitted, ("thing",)), tested)
    before, after = (edge_scores(e, tested.truths, masses=MASSES) for e in (tested.edges, edges))
    assert all(abs(row.coverage - row.mass) < 0.02 for row in after.intervals)
    assert after.error < 0.02
    assert after.likelihood <= before.likelihood + 0.01
    assert after.crps <= before.crps + 0.02
    assert temperature == 1 or before.error > after.error


def test_each_level_has_its_temperature_if_it_has_enough_boxes():
    parts = [synthetic_matches(3000, temperature=value, seed=seed) for seed, value in enumerate((0.5, 2.0))]
    edges = EdgeDistributions.cat([part.edges for part in parts])
    truths = torch.cat([part.truths for part in parts])
    levels = torch.cat([torch.zeros(3000), torch.full((3000,), 2)]).long()
    first, missing, third, pooled = fit_temperatures(edges, truths, levels)
    assert first == pytest.approx([0.5] * 4, rel=0.1)
    assert third == pytest.approx([2.0] * 4, rel=0.1)
    assert missing == pooled
    few = fit_temperatures(edges[: LEAST_OF_LEVEL - 1], truths[: LEAST_OF_LEVEL - 1], levels[: LEAST_OF_LEVEL - 1])
    assert few[0] == few[-1]


def test_annotations_beyond_the_cells_are_fitted_as_if_in_the_nearest_and_told_of():
    matched = synthetic_matches(500)
    end = matched.edges.positions[..., -1]
    beyond = end + 500 * matched.edges.step.sign()
    assert fit_temperatures(matched.edges, beyond, matched.levels) == fit_temperatures(
        matched.edges, end, matched.levels
    )
    scores = edge_scores(matched.edges, torch.cat([beyond[:250], end[250:]]), masses=(0.9,))
    assert scores.outside == 0.5
    assert math.isfinite(scores.likelihood)
    assert scores.intervals[0].coverage < 0.5


@given(st.integers(1, 300), st.floats(0.05, 0.99))
def test_the_conformal_quantile_is_the_rank_of_the_finite_sample(count, mass):
    errors = np.random.default_rng(count).permutation(count).astype(float)
    rank = math.ceil((count + 1) * mass - 1e-9)
    assert conformal_quantile(errors, mass) == (math.inf if rank > count else rank - 1)


def test_conformal_coverage_holds_over_repeated_draws_for_few_boxes_too():
    rng = np.random.default_rng(0)
    draws = [
        (rng.gumbel(size=20_000) <= conformal_quantile(rng.gumbel(size=count), 0.9)).mean()
        for _ in range(400)
        for count in (15,)
    ]
    # ceil(16 · 0.9) = 15 of 15: 15/16 exactly, on average over draws
    assert np.mean(draws) == pytest.approx(15 / 16, abs=4 * np.std(draws) / math.sqrt(len(draws)))


@pytest.mark.parametrize("spread", ["predicted", "side", "constant"])
def test_bands_cover_what_they_promise_however_wrong_the_distributions_are(spread):
    found = synthetic_matches(2000, temperature=4.0, seed=6)
    parts = [random_part(found.num_pictures, 0.5, seed=seed) for seed in range(6)]
    rows = {row.stage: row for row in coverage_over_splits(found, ("thing",), parts, spread=spread)}
    assert rows["before"].means[2] < 0.8
    for stage in ("conformal", "outer", "inner"):
        assert rows[stage].means == pytest.approx(MASSES, abs=0.03)


def test_classes_with_enough_boxes_have_bands_of_their_own_and_the_rest_share():
    matched = synthetic_matches(1000)
    labels = torch.cat([torch.zeros(500), torch.ones(300), torch.full((150,), 2), torch.full((50,), 3)]).long()
    truths = matched.truths.clone()
    truths[labels == 1] = matched.boxes[labels == 1]
    matched = dataclasses.replace(matched, labels=labels, truths=truths)
    fitted = fit_calibration(matched, ("a", "b", "c", "d", "e"))
    assert fitted.groups == (1, 2, 3, 0, 0)
    own, exact = fitted.intervals[1], fitted.intervals[2]
    assert max(exact) == 0 < min(own)
    # class d alone has too few for a pool of its own, so the pool is of all boxes
    assert fitted.intervals[0] == fit_calibration(matched, ("a", "b", "c", "d", "e"), least=2000).intervals[0]
    groups, pools = class_groups(labels, 5, least=200)
    assert groups == (1, 2, 0, 0, 0)
    assert set(labels[pools[0]].tolist()) == {2, 3}


def test_too_few_boxes_give_infinite_bands_and_not_wrong_ones():
    matched = synthetic_matches(5)
    bands = fit_calibration(matched, ("thing",)).bands(matched.boxes, matched.edges, matched.labels)
    lower, upper = bands.interval(0.95)
    assert lower.isneginf().all()
    assert upper.isposinf().all()
    held = box_coverage(bands, matched.boxes, matched.truths)[-1]
    assert (held.outer, held.inner, held.inner_area) == (1.0, 1.0, 0.0)


def outcomes(scores, correct, iou=None, labels=None):
    count = len(scores)
    correct = torch.as_tensor(correct)
    return Outcomes(
        torch.as_tensor(scores, dtype=torch.float32),
        torch.zeros(count, dtype=torch.long) if labels is None else torch.as_tensor(labels),
        correct,
        correct.float() if iou is None else torch.as_tensor(iou),
        torch.zeros(count, 4),
        torch.zeros(count, dtype=torch.long),
    )


def test_scores_that_are_true_are_found_calibrated_and_others_not():
    rng = np.random.default_rng(1)
    scores = rng.random(20_000)
    true = outcomes(scores, rng.random(20_000) < scores)
    assert detection_error(true) < 0.02
    assert localisation_error(true) < 0.02
    assert detection_error(outcomes(scores, rng.random(20_000) < scores**2)) == pytest.approx(1 / 6, abs=0.02)


def test_errors_of_scores_by_hand():
    mixed = outcomes([0.92, 0.94, 0.22, 0.24], [True, False, False, False], [0.8, 0.0, 0.0, 0.0], [0, 0, 0, 1])
    # bins 0.90-0.95: |0.5 - 0.93| of two; 0.20-0.25: |0 - 0.23| of two
    assert detection_error(mixed) == pytest.approx((2 * 0.43 + 2 * 0.23) / 4, abs=1e-6)
    # class 0: |0.4 - 0.93| of two and |0 - 0.22| of one; class 1: 0.24
    assert localisation_error(mixed) == pytest.approx(((2 * 0.53 + 0.22) / 3 + 0.24) / 2, abs=1e-6)
    bins = score_reliability(mixed).bins
    assert [(row.count, row.precision, row.iou) for row in bins] == [(2, 0.0, 0.0), (2, 0.5, pytest.approx(0.4))]
    empty = score_reliability(outcomes(np.zeros(0), np.zeros(0, bool)))
    assert math.isnan(empty.d_ece)
    assert math.isnan(empty.la_ece)
    assert empty.bins == ()


@given(st.lists(st.integers(0, 5), min_size=3, max_size=30), st.integers(0, 1000))
def test_spearman_is_the_correlation_of_mean_ranks(values, seed):
    other = np.random.default_rng(seed).integers(0, 4, len(values))
    ranks = [[(np.sum(v < x) + np.sum(v <= x) + 1) / 2 for x in v] for v in (np.array(values), other)]
    if min(np.ptp(r) for r in ranks) == 0:
        assert math.isnan(spearman(values, other))
    else:
        assert spearman(values, other) == pytest.approx(np.corrcoef(*ranks)[0, 1])
        assert spearman(values, other) == pytest.approx(spearman(np.exp(values), other))


def test_softness_that_is_known_is_held_against_the_spread():
    matched = synthetic_matches(2000)
    soft = dataclasses.replace(matched, softness=matched.edges.std * math.sqrt(12) + 1)
    report = calibration_report(soft, soft, ("thing",), pictures=(50, 50)).softness
    assert report.before == pytest.approx(1)
    assert sum(row.count for row in report.buckets) == 8000
    assert [row.std for row in report.buckets] == sorted(row.std for row in report.buckets)
    assert "rank correlation with true softness" in calibration_report(soft, soft, ("t",), pictures=(50, 50)).text()
    bands = fit_calibration(matched, ("thing",)).bands(matched.boxes, matched.edges, matched.labels)
    assert softness_report(matched, bands, calibrated=matched.edges) is None
    flat = dataclasses.replace(soft, edges=None)
    report = calibration_report(flat, flat, ("thing",), pictures=(50, 50))
    assert report.calibration.spread == "constant"
    assert math.isnan(report.softness.before)
    assert report.softness.error > 0
    assert report.before is None


@pytest.mark.parametrize("with_edges", [True, False])
def test_reports_are_plain_values_text_page_and_plots(tmp_path, with_edges):
    matched = synthetic_matches(400)
    if not with_edges:
        matched = dataclasses.replace(matched, edges=None)
    report = calibration_report(matched, matched, ("<thing>",), pictures=(50, 50))
    report = dataclasses.replace(report, source="<model>", data="data")
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["test"] == {"pictures": 50, "boxes": 400}
    text = report.text()
    assert ("uncalibrated" in text) == with_edges
    assert "D-ECE" in text
    page = write_report(tmp_path / "page.html", report).read_text()
    assert "<thing>" not in page
    assert "<model>" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "probability promised" in page
    assert ("share predicted" in page) == with_edges


def test_plots_are_pictures_with_their_numbers(tmp_path):
    matched = dataclasses.replace(synthetic_matches(200), edges=None)
    folder = write_report(tmp_path / "plots", calibration_report(matched, matched, ("thing",), pictures=(50, 50)))
    names = {path.name for path in folder.iterdir()}
    assert names == {"coverage.png", "coverage.csv", "scores.png", "scores.csv", "report.json"}
    assert (folder / "coverage.csv").read_text().startswith("line,x,y\nconformal,0.5,")


def test_parts_are_random_repeatable_and_never_empty():
    assert int(random_part(64, 0.5, seed=0).sum()) == 32
    assert torch.equal(random_part(64, 0.5, seed=1), random_part(64, 0.5, seed=1))
    assert not torch.equal(random_part(64, 0.5, seed=1), random_part(64, 0.5, seed=2))
    assert int(random_part(2, 0.001, seed=0).sum()) == 1
    with pytest.raises(UserError, match="only 1"):
        random_part(1, 0.5, seed=0)


def test_nothing_to_fit_is_refused():
    with pytest.raises(ValueError, match="no box is matched"):
        fit_calibration(synthetic_matches(5)[:0], ("thing",))


def test_calibration_error_of_the_worst():
    assert calibration_error(np.zeros((10, 4))) == pytest.approx(0.5)


def test_splits_are_of_one_split() -> None:
    with pytest.raises(UserError, match="splits parts one split anew each time"):
        calibrate("nowhere", "scenes", splits=2, fit_split="train")
