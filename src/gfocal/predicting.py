"""Detections of whatever a user names, in a folder: a line of JSON for each picture, and drawings."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from gfocal.data.pictures import path_text
from gfocal.draw.marking import is_drawing
from gfocal.errors import UserError, unknown
from gfocal.files import forget_scratch, numbered, sha256_of_file
from gfocal.finding import Result, Search, Task, find_all, load_for_search
from gfocal.frames import Source
from gfocal.progress import ProgressBar
from gfocal.results import LINES, Results, alone_in
from gfocal.sharing import devices_of, find_shared
from gfocal.sources import Sources
from gfocal.weights import weights_file

OnBadData: TypeAlias = Literal["error", "skip"]


@dataclass(frozen=True)
class Totals:
    """What a run has done: frames looked at, boxes found in them, sources that could not be read."""

    frames: int
    boxes: int
    left_out: int

    def summary(self, out: Path) -> str:
        """Return one line for the end of a run.

        >>> Totals(2, 5, 1).summary(Path("runs"))
        '2 pictures, 5 boxes: runs/detections.jsonl; left out 1 that could not be read'
        """
        missing = f"; left out {self.left_out} that could not be read" if self.left_out else ""
        return f"{self.frames} pictures, {self.boxes} boxes: {out / LINES}{missing}"


def predict_to_folder(
    model: str | Path,
    names: Sequence[str],
    out: Path,
    search: Search,
    *,
    draw: bool = True,
    resume: bool = False,
    on_bad_data: str = "error",
    device: str = "auto",
    devices: str | None = None,
    tell: Callable[[Result], None] = lambda result: None,
) -> Totals:
    """Find boxes in all that is named, and write them to `out`: detections.jsonl, predict.json and drawings.

    model: what `gfocal.load` takes. names: as of `Sources`. draw: write each picture as PNG, each video as MP4, with
    its boxes. resume: go on after the lines that are there. on_bad_data: "skip" leaves out what cannot be read instead
    of ending there. devices: several processes, as `devices_of` says; then lines come in the order in which they are
    done, else in that of the names. tell: called with each result once it is written. UserError for anything that does
    not fit; what was found before is written.
    """
    if on_bad_data not in get_args(OnBadData):
        raise unknown("on_bad_data", on_bad_data, get_args(OnBadData))
    sources = Sources(names, leave_out=out)
    total = sources.count(every=search.every)
    live = any(source.live for source in sources)
    shared = devices_of(devices, device) if devices is not None else ()
    if live and (resume or len(shared) > 1):
        raise UserError("what a camera or stream shows can be neither resumed nor shared among devices: leave that out")
    with alone_in(out), Results(out, _settings(model, search), resume=resume, endless=live) as results:
        if draw:
            _clear_the_way(sources, out)
        tasks = _tasks(sources, results.recorded, out if draw else None)
        if len(shared) > 1:
            found = find_shared(model, shared, tasks, search, pictures=total)
        else:
            loaded = load_for_search(model, search, pictures=total, device=shared[0] if shared else device)
            found = find_all(loaded, tasks, search, live=live)
        totals = _write(found, results, search=search, total=total, skip=on_bad_data == "skip", tell=tell)
        results.finish()
    return totals


def _write(
    found: Generator[Result],
    results: Results,
    *,
    search: Search,
    total: int | None,
    skip: bool,
    tell: Callable[[Result], None],
) -> Totals:
    """Write results as they come, and show how far it is; UserError for the first fault, unless they are skipped."""
    frames = boxes = left_out = 0
    before = sum(-(-index // search.every) for index in results.recorded.values())
    with closing(found), ProgressBar(total, "predicting", start=before) as bar:
        for result in found:
            if result.fault is None:
                results.append(result.line)
                frames, boxes = frames + 1, boxes + result.num_boxes
            elif skip:
                left_out += 1
            else:
                raise UserError(result.fault)
            tell(result)
            bar.update(before + frames + left_out)
    return Totals(frames, boxes, left_out)


def _tasks(sources: Sources, recorded: Mapping[str, int], out: Path | None) -> Iterator[Task]:
    """Yield what is left to do; out: the folder for drawings, None for none."""
    taken: dict[str, int] = {}
    for number, source in enumerate(sources):
        start = recorded.get(source.name, 0)
        drawing = None if out is None else _drawing(out, source, taken)
        if start and drawing is not None and os.path.exists(drawing):
            drawing = None  # it was finished after its last frame
        if source.moving or not start:
            yield Task(number, source, start, drawing)


def _drawing(out: Path, source: Source, taken: dict[str, int]) -> Path:
    """Return the file for a drawing: drawings of one name from several folders get a number."""
    return out / f"{numbered(source.stem, taken)}.{'mp4' if source.moving else 'png'}"


def _clear_the_way(sources: Sources, out: Path) -> None:
    """Remove what a run that was killed left of half-written drawings.

    UserError where a drawing would replace what is none, or be taken for a picture of the run, as it lies among them.
    """
    hidden = tuple(path.name for path in out.glob(".*"))
    here, real = os.path.realpath(out), lru_cache(maxsize=1)(os.path.realpath)  # sources come folder by folder
    taken: dict[str, int] = {}
    for source in sources:
        if source.local and real(os.path.dirname(source.place)) == here:
            raise UserError(
                f"{path_text(source.name)}: lies in the folder that drawings are written to: name another by --out, or "
                "give --no-draw"
            )
        path = _drawing(out, source, taken)
        if os.path.lexists(path) and not is_drawing(path):
            raise UserError(
                f"{path_text(path)}: is there already, and no drawing of this program: name another folder by --out, "
                "or give --no-draw"
            )
        if any(name.startswith(f".{path.stem}.") for name in hidden):
            forget_scratch(path)


def _settings(model: str | Path, search: Search) -> dict[str, object]:
    """Return what results depend on, as plain values."""
    tiling = search.tiling
    return {
        "model": _digest(model),
        "threshold": search.threshold,
        "size": None if search.size is None else list(search.size),
        "precision": search.precision or "auto",
        "tile": None if tiling is None else list(tiling.tile),
        "overlap": None if tiling is None else tiling.overlap,
        "every": search.every,
    }


def _digest(model: str | Path) -> str:
    """Return the SHA-256 of the file that a model is loaded from, and of the .bin that an .xml goes with."""
    path = Path(model) if Path(model).is_file() else weights_file(model)
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return "sha256:" + "+".join(sha256_of_file(file) for file in files if file.exists())
