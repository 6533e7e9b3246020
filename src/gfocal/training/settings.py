"""What a run is told beside its recipe, and what that makes of the recipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from gfocal.config import PicturesConfig, Recipe, ScheduleConfig
from gfocal.errors import UserError, unknown
from gfocal.files import whole_or_absent

OnBadData: TypeAlias = Literal["error", "skip"]
STARTS = ("imagenet", "none")
"""What training starts from by name instead of by file."""
NAME = "run.json"
"""Of the file in a run's folder that holds the settings."""


@dataclass(frozen=True)
class Settings:
    """How a run is done: what changes none of its results but by rounding, and where its data is.

    data: what --data takes, None where open data sets were handed over. batch: pictures of one process at a time.
    accumulate: such batches to a step. devices, nodes: processes on each machine, machines. save_every: steps between
    saved states. compile: whether PyTorch compiles the detector. on_bad_data: whether what of the data cannot be used
    ends the run or is left out. loggers: names of `LOGGERS` beside the curves that are always written.
    """

    data: str | None
    seed: int
    batch: int
    accumulate: int
    workers: int
    precision: str | None
    device: str | None
    devices: int
    nodes: int
    on_bad_data: str
    save_every: int
    compile: bool
    loggers: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "devices", "nodes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: must be at least 1")
        if self.save_every < 0:
            raise UserError(f"save_every is {self.save_every}: must be at least 1, or 0 for never")
        if self.on_bad_data not in get_args(OnBadData):
            raise unknown("on_bad_data", self.on_bad_data, get_args(OnBadData))

    @property
    def processes(self) -> int:
        """Processes on all machines."""
        return self.devices * self.nodes

    @property
    def pictures_a_step(self) -> int:
        """Pictures that the weights move by at once, on all machines."""
        return self.processes * self.batch * self.accumulate

    def write(self, out: Path) -> None:
        """Write them into a run's folder."""
        with whole_or_absent(out / NAME) as scratch:
            scratch.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def read_settings(out: Path) -> dict[str, Any]:
    """Return the settings of a run's folder; UserError where it holds none."""
    path = out / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["loggers"] = tuple(values["loggers"])
        return values
    except FileNotFoundError as error:
        raise UserError(f"{out}: not the folder of a run: it holds no {NAME}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}): give recipe, data and out instead") from error


def batch_for(recipe: Recipe, *, processes: int, accumulate: int) -> int:
    """Return the pictures of one process at a time that come nearest to the recipe's batch from above."""
    return -(-recipe.schedule.batch // max(processes * accumulate, 1))


def resolve(
    recipe: Recipe,
    class_names: tuple[str, ...],
    settings: Settings,
    *,
    weights: str | Path | None,
    size: tuple[int, int] | None,
    epochs: int | None,
    steps: int | None,
    changes: dict[str, object],
) -> Recipe:
    """Return the recipe of this very run; the learning rate follows the pictures of a step in proportion.

    changes: of the schedule, by field, as the user gave them; None changes nothing.
    """
    values = recipe.model_dump(mode="json")
    values["class_names"] = class_names
    if weights in STARTS:
        values["backbone"] |= {"weights": weights}
    length: dict[str, object] = {"epochs": epochs, "steps": None} if epochs is not None else {}
    length |= {"steps": steps} if steps is not None else {}
    given = {name: value for name, value in changes.items() if value is not None}
    values["schedule"] |= {"batch": settings.pictures_a_step, "lr": _rate(recipe.schedule, settings)} | length | given
    if size is not None:
        values["pictures"] |= _resized(recipe.pictures, size)
    return Recipe.from_values(values, where=f"recipe {recipe.name}")


def _resized(pictures: PicturesConfig, size: tuple[int, int]) -> dict[str, object]:
    """Return what of the pictures follows from a size (short, long), by field."""
    short, long = size
    if not 32 <= short <= long:
        raise UserError(f"size {short} {long}: give the short side, at least 32, then the long one")

    def scaled(sides: tuple[int, int]) -> list[int]:
        return [max(round(side * short / pictures.short), 32) for side in sides]

    train_short = [min(side, long) for side in scaled(pictures.train_short)]
    jitter_size = None if pictures.jitter_size is None else scaled(pictures.jitter_size)
    return {"short": short, "long": long, "train_short": train_short, "jitter_size": jitter_size}


def rate_text(schedule: ScheduleConfig, settings: Settings) -> str:
    """Return for people what a recipe's learning rate becomes in this very run."""
    processes = "process" if settings.processes == 1 else "processes"
    return (
        f"learning rate {_rate(schedule, settings):.4g}: {settings.pictures_a_step} pictures a step "
        f"({settings.processes} {processes} × {settings.batch} × {settings.accumulate} accumulated), "
        f"{schedule.lr:.4g} for {schedule.batch} in the recipe"
    )


def _rate(schedule: ScheduleConfig, settings: Settings) -> float:
    if settings.pictures_a_step == schedule.batch:  # lr * n / n may round, and no run is resumed with another rate
        return schedule.lr
    return schedule.lr * settings.pictures_a_step / schedule.batch
