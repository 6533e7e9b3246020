"""Edge distributions of all kinds that may come."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from gfocal.edges import EdgeDistributions

seeds = st.integers(0, 10_000)
bin_counts = st.sampled_from([2, 3, 8, 17])
spacings = st.sampled_from([0.5, 1.0, 7.3, 64.0])
kinds = st.sampled_from(["soft", "sharp", "gaps", "ties"])


def any_edges(seed: int, bins: int, step: float, kind: str, dtype: torch.dtype = torch.float64) -> EdgeDistributions:
    """Return distributions that are smooth, almost on one bin, with empty bins, or with bins of one height."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, bins, generator=generator, dtype=torch.float64)
    if kind == "sharp":
        logits = logits * 20
    mass = logits.softmax(-1)
    if kind == "gaps":
        mass = mass * (torch.rand(3, 4, bins, generator=generator) < 0.5)
        mass[..., int(torch.randint(bins, (1,), generator=generator))] += 0.1
    if kind == "ties":
        mass = torch.randint(0, 3, (3, 4, bins), generator=generator).double()
        mass[..., int(torch.randint(bins, (1,), generator=generator))] += 1
    mass = mass / mass.sum(-1, keepdim=True)
    direction = torch.tensor([-1.0, -1.0, 1.0, 1.0]).double()[:, None]
    positions = torch.arange(3).double()[:, None, None] * 16 + 200 + direction * torch.arange(bins).double() * step
    return EdgeDistributions(mass.to(dtype), positions.to(dtype))
