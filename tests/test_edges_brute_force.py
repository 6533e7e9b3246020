"""The statistics of edge distributions against walks over their bins in plain Python."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distributions import any_edges, bin_counts, kinds, seeds, spacings
from gfocal.edges import EdgeDistributions


def on_a_line(edges: EdgeDistributions, box: int, edge: int) -> tuple[list[float], list[float], float]:
    """Return bins and masses of one edge from left to right, and their distance."""
    places, masses = edges.positions[box, edge].tolist(), edges.probabilities[box, edge].tolist()
    pairs = sorted(zip(places, masses, strict=True))
    return [place for place, _ in pairs], [mass for _, mass in pairs], pairs[1][0] - pairs[0][0]


def below(places: list[float], masses: list[float], step: float, x: float) -> float:
    return sum(m * min(max((x - p) / step + 0.5, 0.0), 1.0) for p, m in zip(places, masses, strict=True))


def shortest_width(masses: list[float], share: float) -> float:
    """Return the least width in cells, tried from every border in both directions, cell by cell."""
    best = math.inf
    for line in (masses, masses[::-1]):
        for start in range(len(line)):
            left, width = share, 0.0
            for mass in line[start:]:
                if mass >= left > 0:
                    best = min(best, width + left / mass)
                    break
                left, width = left - mass, width + 1
    return best


def peaks_of(masses: list[float]) -> list[tuple[float, float]]:
    """Return (place in bins, mass) of every peak, by walking over runs of one height."""
    runs = [(mass, list(run)) for mass, run in itertools.groupby(range(len(masses)), key=lambda i: masses[i])]
    heights = [-1.0, *[mass for mass, _ in runs], -1.0]
    middles = [(run[0] + run[-1]) / 2 for _, run in runs]
    around = list(zip(heights, heights[1:], heights[2:], strict=False))
    tops = [i for i, (a, b, c) in enumerate(around) if a < b > c]
    valleys = [middles[i] for i, (a, b, c) in enumerate(around) if a > b < c]
    ends = [-0.5, *valleys, len(masses) - 0.5]
    index = list(map(float, range(len(masses))))
    return [
        (middles[top], below(index, masses, 1.0, high) - below(index, masses, 1.0, low))
        for top, (low, high) in zip(tops, itertools.pairwise(ends), strict=True)
    ]


EVERY = [(box, edge) for box in range(3) for edge in range(4)]


@given(seed=seeds, bins=bin_counts, step=spacings, kind=kinds)
def test_the_cdf_is_the_mass_below_and_the_density_its_slope(seed: int, bins: int, step: float, kind: str) -> None:
    edges = any_edges(seed, bins, step, kind)
    generator = torch.Generator().manual_seed(seed)
    x = edges.positions[..., 0] + (torch.rand(3, 4, generator=generator) * 1.4 - 0.2) * bins * edges.step
    cdf, density = edges.cdf(x), edges.log_prob(x).exp()
    for box, edge in EVERY:
        places, masses, width = on_a_line(edges, box, edge)
        at = x[box, edge].item()
        assert cdf[box, edge].item() == pytest.approx(below(places, masses, width, at), abs=1e-9)
        # far enough from the borders of the cells, the slope of the mass is the density
        if abs(((at - places[0]) / width + 0.5) % 1 - 0.5) < 0.49:
            h = 1e-3 * width
            slope = (below(places, masses, width, at + h) - below(places, masses, width, at - h)) / (2 * h)
            assert density[box, edge].item() == pytest.approx(slope, abs=1e-9)


@given(seed=seeds, bins=bin_counts, step=spacings, kind=kinds, q=st.floats(0.001, 0.999))
def test_cdf_and_quantile_undo_each_other(seed: int, bins: int, step: float, kind: str, q: float) -> None:
    edges = any_edges(seed, bins, step, kind)
    torch.testing.assert_close(
        edges.cdf(edges.quantile(q)), torch.full((3, 4), q, dtype=torch.float64), atol=1e-9, rtol=0
    )


@given(seed=seeds, bins=bin_counts, step=spacings, kind=kinds)
def test_the_density_integrates_to_mean_and_variance(seed: int, bins: int, step: float, kind: str) -> None:
    edges = any_edges(seed, bins, step, kind)
    # even steps that never fall on the border of a cell
    parts = 10
    steps = (torch.arange(bins * parts) + 0.5).double() / parts - 0.5
    x = edges.positions[..., :1] + edges.step[..., None] * steps
    # a row for each step
    each = EdgeDistributions(
        *(v.expand(len(steps), 3, 4, bins).flatten(0, 1) for v in (edges.probabilities, edges.positions))
    )
    mass = each.log_prob(x.permute(2, 0, 1).flatten(0, 1)).exp().view(-1, 3, 4).permute(1, 2, 0)
    mass = mass * edges.step.abs()[..., None] / parts
    torch.testing.assert_close(mass.sum(-1), torch.ones(3, 4).double())
    mean = (mass * x).sum(-1)
    torch.testing.assert_close(edges.mean, mean)
    variance = (mass * (x - mean[..., None]).square()).sum(-1) + (edges.step / parts).square() / 12
    torch.testing.assert_close(edges.variance, variance, rtol=1e-6, atol=1e-9)


@given(seed=seeds, bins=bin_counts, step=spacings, kind=kinds, mass=st.floats(0.01, 1))
def test_no_interval_is_shorter_than_the_shortest(seed: int, bins: int, step: float, kind: str, mass: float) -> None:
    edges = any_edges(seed, bins, step, kind)
    low, high = edges.interval(mass, kind="shortest")
    torch.testing.assert_close(
        edges.cdf(high) - edges.cdf(low), torch.full((3, 4), mass, dtype=torch.float64), atol=1e-9, rtol=0
    )
    for box, edge in EVERY:
        _, masses, width = on_a_line(edges, box, edge)
        # where bins are empty, a little more mass may need a much longer interval: rounding may fall on either side
        least, most = (shortest_width(masses, mass * sum(masses) * share) * width for share in (1 - 1e-9, 1 + 1e-9))
        assert least - 1e-6 <= (high - low)[box, edge].item() <= most + 1e-6


@given(seed=seeds, bins=bin_counts, step=spacings, kind=kinds, least=st.sampled_from([1e-6, 0.0499, 0.2999]))
def test_modes_are_the_peaks_with_all_up_to_the_valleys(
    seed: int, bins: int, step: float, kind: str, least: float
) -> None:
    edges = any_edges(seed, bins, step, kind)
    places, masses = edges.modes(least=least)
    counts = []
    for box, edge in EVERY:
        expected = peaks_of(edges.probabilities[box, edge].tolist())
        expected = sorted((p for p in expected if p[1] >= least), key=lambda p: -p[1])
        found = masses[box, edge][masses[box, edge] > 0]
        assert found.tolist() == pytest.approx([mass for _, mass in expected])
        where = (places[box, edge] - edges.positions[box, edge, 0]) / edges.step[box, edge]
        # peaks of one mass may come in any order
        got = sorted(zip(found.tolist(), where.tolist(), strict=False))
        for (mass, place), (other_place, other_mass) in zip(got, sorted(expected, key=lambda p: p[::-1]), strict=True):
            assert mass == pytest.approx(other_mass)
            assert place == pytest.approx(other_place) or len({round(m, 6) for m, _ in got}) < len(got)
        assert places[box, edge, len(found) :].isnan().all()
        counts.append(len(found))
    assert places.shape == masses.shape == (3, 4, max(1, *counts))
