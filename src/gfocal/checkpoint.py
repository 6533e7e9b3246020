"""Weights on disk: safetensors with the recipe inside, whole or absent; loaded whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from gfocal.calibration import Calibration
from gfocal.config import Recipe
from gfocal.errors import UserError
from gfocal.files import whole_or_absent

FORMAT = "gfocal-1"


def save_weights(path: Path, detector: nn.Module, recipe: Recipe, *, calibration: Calibration | None = None) -> None:
    """Write the detector's weights, its recipe and calibration as safetensors; the file is whole or absent."""
    state = {key: value.contiguous() for key, value in detector.state_dict().items() if _is_weight(key)}
    metadata = {"format": FORMAT, "recipe": json.dumps(recipe.model_dump(mode="json"))}
    if calibration is not None:
        metadata["calibration"] = json.dumps(calibration.to_dict())
    with whole_or_absent(path) as scratch:
        try:
            safetensors.torch.save_file(state, scratch, metadata)
        except safetensors.SafetensorError as error:  # what its writer makes of a full disk
            raise OSError(None, f"{error}; is the disk full?") from error


def read_weights(path: Path) -> tuple[Recipe, dict[str, Tensor]]:
    """Read a file of `save_weights`; UserError where it is missing, broken or of another kind."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  a file, not a dict
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file, or cut short ({error})") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: holds no gfocal model (format {metadata.get('format')!r}, expected {FORMAT!r})")
    try:
        values = json.loads(metadata["recipe"])
    except (KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: holds no readable recipe") from error
    return Recipe.from_values(values, where=f"{path}, recipe"), state


def read_calibration(path: Path) -> Calibration | None:
    """Return the calibration in a file of `save_weights`, None where it has none; UserError where it is broken."""
    with safetensors.safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("calibration")
    if text is None:
        return None
    try:
        return Calibration.from_dict(json.loads(text))
    except ValueError as error:
        raise UserError(f"{path}: holds no readable calibration ({error}): calibrate the model again") from error


def load_state(detector: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load all weights or none; UserError names every missing, unexpected and misshapen key."""
    own = {key: value for key, value in detector.state_dict().items() if _is_weight(key)}
    problems = [
        *(f"missing {key}" for key in own if key not in state),
        *(f"unexpected {key}" for key in state if key not in own),
        *(
            f"{key} is {tuple(value.shape)}, the model's {tuple(own[key].shape)}"
            for key, value in state.items()
            if key in own and value.shape != own[key].shape
        ),
    ]
    if problems:
        raise UserError(f"{where}: does not fit the model: {'; '.join(problems)}")
    # assigned, because copying into memory that nothing was written to yet would walk through it twice
    placed = {key: _placed(value, own[key]) for key, value in state.items()}
    # the counters of batch norms are the only keys that own leaves out
    detector.load_state_dict(placed, strict=False, assign=True)


def _placed(value: Tensor, like: Tensor) -> Tensor:
    """Return a copy of a weight as the model holds it: device, precision, and channels last where there are any."""
    layout = torch.channels_last if value.ndim == 4 else torch.preserve_format
    return value.to(like.device, like.dtype, copy=True, memory_format=layout)


def load_all_but_classes(detector: nn.Module, state: Mapping[str, Tensor], *, where: str) -> list[str]:
    """Load what was learnt on other classes and return the keys of the class layers, which stay as they are.

    UserError, with nothing loaded, where anything else does not fit.
    """
    own = detector.state_dict()
    kept = [key for key in own if CLASS_LAYERS in key]
    load_state(detector, {**state, **{key: own[key] for key in kept}}, where=where)
    return kept


@contextmanager
def without_init() -> Generator[None]:
    """Leave parameters unset that are built meanwhile, and the random generator alone: weights are to follow."""
    with _NoDraws():
        yield


@final
class _NoDraws(TorchFunctionMode):
    """Passes over all that fills a tensor with random numbers."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Return the tensor as it is, or call what is no drawing."""
        if func in DRAWS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


DRAWS: frozenset[Any] = frozenset(
    {Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, init.normal_, init.uniform_, init.kaiming_uniform_}
)
"""What initialisation draws with; the error function only works on what was drawn."""

CLASS_LAYERS = ".quality.cls."
"""What the keys hold whose shape or meaning follows the classes."""


def _is_weight(key: str) -> bool:
    return not key.endswith("num_batches_tracked")
