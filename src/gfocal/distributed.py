"""What the processes of a distributed run have in common, in one place."""

from __future__ import annotations

import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def mean_over_ranks(value: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the mean of a detached value over all ranks; the value itself where there is one process."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def wait_for_all() -> None:
    """Return when all ranks have come here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
