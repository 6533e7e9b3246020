"""The wish of a system that a run should end soon."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import final

import torch
from lightning.fabric import Fabric

from gfocal.distributed import mean_over_ranks

EVERY = 10
"""Steps after which several processes ask one another; each time the device waits."""


@final
class StopRequest:
    """Whether SIGTERM has come, to any of the processes, which must end at the same step."""

    def __init__(self) -> None:
        self.came = False

    def heard_by(self, fabric: Fabric, step: int) -> bool:
        """Return whether the run is to end after this step: asked at the same steps by all processes."""
        if fabric.world_size == 1:
            return self.came
        if step % EVERY:
            return False
        flag = torch.tensor(float(self.came), device=fabric.device)
        return mean_over_ranks(flag).item() > 0


@contextmanager
def listening() -> Generator[StopRequest]:
    """Take note of SIGTERM meanwhile instead of dying from it; in a thread that signals do not reach, of none."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: object) -> None:
        request.came = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
