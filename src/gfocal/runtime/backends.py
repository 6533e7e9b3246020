"""Ways to compute a detector when nothing is to be learnt."""

from __future__ import annotations

from collections.abc import Mapping

from gfocal.runtime.compiled import Compiled
from gfocal.runtime.copies import Make
from gfocal.runtime.eager import accelerated
from gfocal.runtime.openvino import OpenVino

BACKENDS: Mapping[str, Make] = {"torch": accelerated, "compile": Compiled, "openvino": OpenVino}
RUNTIMES: Mapping[str, str] = {"torch": "PyTorch", "compile": "PyTorch, compiled,", "openvino": "OpenVINO"}
"""What people call that which computes then."""
