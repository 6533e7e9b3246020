"""All that a run needs to go on as if it had never stopped, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gfocal.errors import UserError, first_line
from gfocal.files import whole_or_absent

FORMAT = "gfocal-run-1"
NAME = "state.pt"
"""Of the file in a run's folder; it goes when the run is finished."""


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all; UserError where the disk refuses."""
    with whole_or_absent(path) as scratch:
        try:
            torch.save(content, scratch)
        except RuntimeError as error:  # what PyTorch's writer makes of a full disk
            raise OSError(None, f"{' '.join(str(error).split())}; is the disk full?") from error


def save_state(out: Path, state: dict[str, Any]) -> None:
    """Write the state of a run; a former one stays until the new one is whole."""
    save_tensors(out / NAME, {"format": FORMAT, **state})


def load_state_of(out: Path) -> dict[str, Any]:
    """Return the state of a run on the CPU; UserError where there is none, or it cannot be read."""
    path = out / NAME
    if not path.exists():
        finished = (out / "last.safetensors").exists()
        raise UserError(
            f"{out}: this run is finished: there is nothing to resume"
            if finished
            else f"{out}: holds no {NAME}: no run was interrupted here after its first checkpoint"
        )
    state = read_tensors(path)
    if state.get("format") != FORMAT:
        raise UserError(f"{path}: holds no state of a run (format {state.get('format')!r}, expected {FORMAT!r})")
    return state


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a file of `save_tensors`; UserError where it is missing, broken or holds code."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged archive makes the reader raise nearly anything
        raise UserError(f"{path}: not a file of gfocal, or cut short ({first_line(error)})") from error
    return content if isinstance(content, dict) else {}
