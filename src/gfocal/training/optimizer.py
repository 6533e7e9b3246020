"""What moves the weights: the recipe's optimiser over what learns, and its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from gfocal.config import GroupConfig, ScheduleConfig
from gfocal.errors import UserError
from gfocal.nn.backbone import freeze_norms


def freeze(detector: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Stop the parts of these names from learning, the statistics of their batch norms included.

    UserError for a name of nothing.
    """
    modules = dict(detector.named_modules())
    for prefix in prefixes:
        if prefix not in modules or not list(modules[prefix].parameters()):
            raise _no_such_part("freeze", prefix, detector)
        frozen = freeze_norms(modules[prefix], affine=True)
        frozen.requires_grad_(False)
        if frozen is not modules[prefix]:
            parent, _, name = prefix.rpartition(".")
            setattr(modules[parent], name, frozen)


def make_optimizer(detector: nn.Module, schedule: ScheduleConfig) -> torch.optim.Optimizer:
    """Return the optimiser of all parameters that learn, in groups as the schedule says.

    UserError for a group that no parameter belongs to, and where nothing is left to learn.
    """
    learning = {name: parameter for name, parameter in detector.named_parameters() if parameter.requires_grad}
    if not learning:
        raise UserError("every parameter is frozen: nothing is left to learn")
    owners = [_owner(name, schedule.groups) for name in learning]
    for number, group in enumerate(schedule.groups):
        if number not in owners:
            raise _no_such_part(f"groups[{number}].prefix", group.prefix, detector)
    # norms and biases have no scale to shrink; weight decay there only hurts short runs of AdamW
    plain = schedule.optimizer == "adamw"
    kinds = [(owner, plain and parameter.ndim <= 1) for owner, parameter in zip(owners, learning.values(), strict=True)]
    rows: list[dict[str, Any]] = []
    for kind in dict.fromkeys(kinds):
        group = schedule.groups[kind[0]] if kind[0] is not None else GroupConfig(prefix="all")
        decay = schedule.weight_decay if group.weight_decay is None else group.weight_decay
        members = [parameter for parameter, own in zip(learning.values(), kinds, strict=True) if own == kind]
        rows.append({"params": members, "lr": schedule.lr * group.lr_factor, "weight_decay": 0.0 if kind[1] else decay})
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(rows, lr=schedule.lr, momentum=schedule.momentum)
    return torch.optim.AdamW(rows, lr=schedule.lr, fused=True)


def learning_rate_factor(schedule: ScheduleConfig, total_steps: int) -> Callable[[int], float]:
    """Return the factor on the learning rate at each step, from 0: linear warm-up, then the recipe's decay."""
    warmup = min(schedule.warmup, total_steps // 5)

    def factor(step: int) -> float:
        share = step / max(total_steps, 1)
        if schedule.decay == "cosine":
            decayed = (1 + math.cos(math.pi * min(share, 1.0))) / 2
        else:
            decayed = 0.1 ** sum(share >= milestone for milestone in schedule.milestones)
        if step >= warmup:
            return decayed
        return decayed * (schedule.warmup_factor + (1 - schedule.warmup_factor) * step / warmup)

    return factor


def _owner(name: str, groups: tuple[GroupConfig, ...]) -> int | None:
    """Return the number of the last group that a parameter belongs to, so that a later one refines an earlier."""
    return next((n for n, group in reversed(list(enumerate(groups))) if _under(name, group.prefix)), None)


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _no_such_part(field: str, prefix: str, detector: nn.Module) -> UserError:
    parts: Mapping[str, None] = dict.fromkeys(name.split(".")[0] for name, _ in detector.named_parameters())
    return UserError(
        f"{field} {prefix!r} is no part of the detector that learns: parts are {', '.join(parts)}, "
        "and what lies in them, as backbone.layer1"
    )
