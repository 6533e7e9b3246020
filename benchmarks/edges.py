"""Milliseconds that each statistic of the edge distributions of 1,000 boxes takes on one core, and all together.

    OMP_NUM_THREADS=1 python benchmarks/edges.py

The distributions are peaked as a trained detector's, with a second peak on every tenth edge. CPU time, median of 200
runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from gfocal.edges import EdgeDistributions


def example(bins: int, count: int = 1000) -> EdgeDistributions:
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(count, 4, 1, generator=generator) * (bins - 1)
    width = 0.3 + torch.rand(count, 4, 1, generator=generator) * 1.5
    steps = torch.arange(bins)
    heights = (-((steps - place) / width).abs()).exp() + 0.01 * torch.rand(count, 4, bins, generator=generator)
    second = (torch.rand(count, 4, 1, generator=generator) < 0.1) * 0.6
    heights += second * (-((steps - (place + bins / 2) % bins) / width).abs()).exp()
    direction = torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None]
    return EdgeDistributions(heights / heights.sum(-1, keepdim=True), 500 + 8 * direction * steps + 0 * heights)


def fresh(edges: EdgeDistributions) -> EdgeDistributions:
    """Return the same distributions, of which nothing is known yet."""
    return EdgeDistributions(edges.probabilities, edges.positions)


def milliseconds(work: Callable[[], object], runs: int = 200) -> float:
    times: list[float] = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times)


@torch.inference_mode()  # as the distributions that a model predicts
def main() -> None:
    torch.set_num_threads(1)
    for bins in (8, 17):
        edges = example(bins)
        x = edges.mean + 3
        statistics: dict[str, Callable[[EdgeDistributions], object]] = {
            "mean": lambda e: e.mean,
            "std": lambda e: e.std,
            "entropy": lambda e: e.entropy,
            "quantile": lambda e: e.quantile(0.9),
            "central interval": lambda e: e.interval(0.9),
            "shortest interval": lambda e: e.interval(0.9, kind="shortest"),
            "cdf": lambda e, x=x: e.cdf(x),
            "log_prob": lambda e, x=x: e.log_prob(x),
            "modes": lambda e: e.modes(),
        }
        print(f"{bins} bins, 1000 boxes: milliseconds")
        for name, statistic in statistics.items():
            print(f"  {name:<18} {milliseconds(lambda s=statistic, e=edges: s(fresh(e))):6.2f}")

        def every(edges: EdgeDistributions = edges, statistics: dict = statistics) -> None:
            again = fresh(edges)
            for statistic in statistics.values():
                statistic(again)

        print(f"  {'all on one set':<18} {milliseconds(every):6.2f}")


if __name__ == "__main__":
    main()
