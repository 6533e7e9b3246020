"""Private copies of a detector for inference, made anew when its weights have changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from gfocal.detector import Detector
from gfocal.structures import Raw

Network: TypeAlias = Callable[[Tensor], Raw]
Make: TypeAlias = Callable[[Detector, torch.dtype], Network]
MAKING = threading.Lock()
"""Held by the thread that makes a copy: tracing changes PyTorch's modules for the whole process."""
SAMPLE = 16
"""Weights of which a number is looked at for changes behind PyTorch's back."""


@final
class Copies:
    """Keeps one copy of a detector for each precision that was asked for; itself it is copied and pickled without them.

    make: makes it of a detector, which it leaves as it is, and a dtype.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self._made: dict[torch.dtype, tuple[_Stamp, Network]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # what runtimes have laid out for themselves can be neither copied nor pickled
        return {"_make": self._make, "_made": {}}

    def of(self, detector: Detector, dtype: torch.dtype) -> Network:
        """Return the copy that computes in `dtype`, with the weights the detector has now."""
        stamp = _Stamp.of(detector)
        known = self._known(stamp, dtype)
        if known is None:
            with MAKING:
                known = self._known(stamp, dtype)  # another thread may have made it meanwhile
                if known is None:
                    known = self._make(detector, dtype)
                    self._made[dtype] = stamp, known
        return known

    def _known(self, stamp: _Stamp, dtype: torch.dtype) -> Network | None:
        made = self._made.get(dtype)
        return made[1] if made is not None and made[0] == stamp else None


@dataclass(frozen=True)
class _Stamp:
    """Tells whether weights are still what they were, without reading them all.

    versions: address of each and how often PyTorch changed it. sample: one number of a few, because what is done
    through `.data` is not counted.
    """

    versions: tuple[tuple[int, int], ...]
    sample: tuple[float, ...]

    @classmethod
    def of(cls, detector: Detector) -> _Stamp:
        """Return the stamp of a detector's weights as they are now."""
        # twice as fast as parameters() and buffers(), and it is done for every picture
        held = [part for m in detector.modules() for part in (m._parameters, m._buffers) if part]  # pyright: ignore[reportPrivateUsage]
        tensors = [tensor for part in held for tensor in part.values() if tensor is not None]
        versions = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        some = [t.detach().as_strided((1,), (1,), t.storage_offset()) for t in tensors[:: len(tensors) // SAMPLE + 1]]
        return cls(versions, tuple(torch.cat(some).tolist()))
