"""The steps of a run, from where it stands to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

import torch

from gfocal.data.collate import Batch
from gfocal.training.course import Course
from gfocal.training.order import seed_of
from gfocal.training.signals import listening
from gfocal.training.state import save_state
from gfocal.training.validation import figures_of


def follow(course: Course) -> bool:
    """Do the steps that are left; return whether the run came to its end, rather than being asked to stop."""
    batches = _groups(iter(course.loader), course.accumulate)
    with listening() as stop, course.journal as journal:
        for step in range(course.start + 1, course.total_steps + 1):
            start = time.perf_counter()
            group = [batch.to(course.fabric.device, non_blocking=True) for batch in _next(batches)]
            ready = time.perf_counter()
            course.left_out.note(fault for batch in group for fault in batch.faults)
            # chance inside the network too follows from the step, so that it need not be remembered
            torch.manual_seed(seed_of(course.seed, step, course.fabric.global_rank))
            course.model.detector.train()
            rate = float(course.stepper.scheduler.get_last_lr()[0])
            losses = course.stepper(group, step)
            if course.average is not None:
                course.average.update(course.model.detector)
            journal.step(step, losses, lr=rate, waited=ready - start, worked=time.perf_counter() - ready)
            last = step == course.total_steps
            if course.validate is not None and is_due(step, course.total_steps, times=course.validations):
                metrics = course.validate()
                journal.validation(step, figures_of(metrics))
                course.keeper.validated(metrics)
                if course.show is not None:
                    course.show(step)
            if last or course.keeper.has_enough:
                break
            stopped = stop.heard_by(course.fabric, step)
            if (stopped or (course.save_every and step % course.save_every == 0)) and course.fabric.is_global_zero:
                save_state(course.out, course.state(step))
            if stopped:
                return False
    course.keeper.save("last")
    return True


def _next(batches: Iterator[list[Batch]]) -> list[Batch]:
    """Return the next batches; an error comes without its frames, which would keep the loader's processes alive."""
    try:
        return next(batches)
    except Exception as error:
        raise error.with_traceback(None) from None


def is_due(step: int, total_steps: int, *, times: int) -> bool:
    """Return whether something is due after a step that is to happen so many times in all, the last after the last.

    >>> [step for step in range(1, 11) if is_due(step, 10, times=4)]
    [3, 5, 8, 10]
    """
    return step * times // total_steps > (step - 1) * times // total_steps


def _groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield the batches in lists of `size`."""
    while group := list(islice(batches, size)):
        yield group
