"""Raw outputs of two levels and what post-processes them, for the tests of post-processing."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from gfocal.boxrep import General
from gfocal.coding import Distances
from gfocal.config import TestConfig
from gfocal.postprocess import PostProcess
from gfocal.structures import Raw
from helpers import square_anchors

SIZES = [(6, 8), (3, 4)]
STRIDES = (8, 16)
COUNT = 6 * 8 + 3 * 4
NAMES = ("circle", "square", "star")
RANKINGS = get_args(TestConfig.model_fields["ranking"].annotation)
N = 4


def raw_of(scores: Tensor, code: Tensor, quality_logits: Tensor | None = None) -> Raw:
    return Raw(
        scores=scores,
        class_scores=scores,
        box=code,
        class_logits=scores.logit(),
        quality_logits=quality_logits,
        priors=square_anchors(STRIDES)([torch.zeros(1, 1, *size) for size in SIZES]),
    )


def random_raw(seed: int, *, pictures: int = 1, classes: int = len(NAMES), spread: float = 2.0) -> Raw:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(pictures, COUNT, classes, generator=generator)
    code = torch.randn(pictures, COUNT, 4, N + 1, generator=generator) * spread
    return raw_of(scores, code, torch.randn(pictures, COUNT, generator=generator))


def processor(**changes: float | str) -> PostProcess:
    return PostProcess(Distances(), General(n=N), NAMES, **changes)  # type: ignore[arg-type]
