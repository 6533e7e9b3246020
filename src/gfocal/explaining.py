"""Boxes that explain themselves: a model, or the outputs of anybody's head, over pictures, as a page and as PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gfocal.data.collate import pad
from gfocal.data.dataset import Dataset, place_of
from gfocal.data.pictures import path_text, read_picture
from gfocal.draw.explain.material import Explained
from gfocal.draw.explain.page import write_page
from gfocal.draw.explain.still import write_stills
from gfocal.errors import UserError
from gfocal.files import numbered
from gfocal.frames import cut_stem
from gfocal.heads import HeadOutputs, is_heads, open_annotations, open_heads, suppressed
from gfocal.loading import load_inner
from gfocal.model import Model
from gfocal.predictor import Predictor
from gfocal.sources import picture_files
from gfocal.structures import Detections, Truth
from gfocal.testing import open_for

FROM_DATA = 50
"""Pictures taken of a data set where none are named."""

_BLANK = 60  # a dark grey, on which true boxes, white, and all colours of classes stand out
_HEADS_THRESHOLD = 0.05


def explain(
    model: Predictor | str | Path,
    pictures: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path,
    data: str | Path | Dataset | None = None,
    split: str = "val",
    limit: int | None = None,
    threshold: float | None = None,
    first_score: float = 0.3,
    candidates: int = 300,
    size: tuple[int, int] | None = None,
    precision: str | None = None,
    png: str | Path | None = None,
    title: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write one page that works offline, in which each box can be asked where its edges may lie; return its pictures.

    model: a Model, weights that `gfocal.load` takes, or an .npz of a head's outputs, which needs `data` and where
    pictures that cannot be read are left blank. pictures: files, or folders of them. data: what --data takes; its boxes
    of `split` are shown as the truth, and without `pictures` its first ones are looked at, 50 or `limit`. threshold:
    the lowest score told, None for the recipe's test threshold. first_score: the lowest that is shown at first.
    candidates: boxes before suppression told of a picture. png: a folder for still pictures, too. title: heading of the
    page, None for one from the model's name. progress: called with the number of pictures done and that of all.
    UserError for what cannot be read or written, and pictures that `data` does not hold.

    >>> import gfocal, tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (96, 64)).save(folder / "grey.png")
    >>> model = gfocal.build("gflv2_r18_mini", device="cpu")
    >>> gfocal.explain(model, folder / "grey.png", out=folder / "page.html")
    1
    """
    paths = [Path(pictures)] if isinstance(pictures, str | Path) else [Path(picture) for picture in pictures]
    if is_heads(model):
        name, class_names, views, see = _of_heads(
            Path(model), paths, data, split=split, limit=limit, threshold=threshold
        )
    else:
        name = short_name(Path(model)) if isinstance(model, str | Path) else "the model"
        model = load_inner(model)
        views = _views(paths, data, model=model, split=split, limit=limit)
        class_names = model.class_names
        see = partial(_of_model, model, threshold=threshold, size=size, precision=precision)
    seen = _told(views, see, None if png is None else Path(png), score=first_score, progress=progress)
    return write_page(
        Path(out),
        seen,
        title=f"What {name} sees" if title is None else title,
        class_names=class_names,
        first_score=first_score,
        most=candidates,
    )


@dataclass(frozen=True)
class _View:
    """A picture that is to be looked at: read when its turn comes."""

    name: str
    read: Callable[[], npt.NDArray[np.uint8]]
    truth: Truth | None = None


def _told(
    views: Sequence[_View],
    see: Callable[[_View], Explained],
    png: Path | None,
    *,
    score: float,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Explained]:
    """Yield what is seen in each picture; on the way, write the stills and tell the progress."""
    taken: dict[str, int] = {}
    for done, explained in enumerate(map(see, views), start=1):
        stem = numbered(cut_stem(Path(explained.name).stem) or "picture", taken)
        if png is not None:
            write_stills(png, stem, explained, score=score)
        yield explained
        if progress is not None:
            progress(done, len(views))


def short_name(path: Path) -> str:
    """Return what a person calls weights: the run's folder rather than its best.safetensors."""
    return path.parent.name if path.stem in ("best", "last") and path.parent.name else path.stem


def _views(
    paths: Sequence[Path],
    data: str | Path | Dataset | None,
    *,
    model: Model,
    split: str,
    limit: int | None,
) -> list[_View]:
    if data is None:
        if not paths:
            raise UserError("there is nothing to look at: name pictures, or a data set")
        files = picture_files(paths)
        return [_View(file.name, lambda file=file: read_picture(file)) for file in files[:limit]]
    dataset = open_for(model, data, split)
    return [
        _View(truth.name, lambda index=index: dataset.picture(index), truth)
        for index, truth in _chosen(dataset, paths, split=split, limit=limit)
    ]


def _chosen(dataset: Dataset, paths: Sequence[Path], *, split: str, limit: int | None) -> Iterator[tuple[int, Truth]]:
    """Yield index and truth of the pictures that are named, or else of the first ones."""
    if not paths:
        every = ((index, dataset.truth(index)) for index in range(len(dataset)))
        yield from islice(every, FROM_DATA if limit is None else limit)
        return
    places: dict[str, list[tuple[int, Path]]] = {}
    for index in range(len(dataset)):
        place = place_of(dataset, index)
        places.setdefault(place.name, []).append((index, place))
    for file in picture_files(paths)[:limit]:
        index = _meant(file, places.get(file.name, ()), split=split)
        yield index, dataset.truth(index)


def _meant(file: Path, places: Sequence[tuple[int, Path]], *, split: str) -> int:
    """Return which picture of a data set a file is: of those of its name, the one whose path ends most like its own."""
    if not places:
        raise UserError(f"{path_text(file)}: no picture of split {split} has this name: leave it or data out")
    alike = [_common_end(file, place) for _, place in places]
    best = [place for place, length in zip(places, alike, strict=True) if length == max(alike)]
    if len(best) > 1:
        raise UserError(
            f"{path_text(file)}: it may be any of {len(best)} pictures of split {split}, as {path_text(best[0][1])} or "
            f"{path_text(best[1][1])}: name the file that the data set holds"
        )
    return best[0][0]


def _common_end(one: Path, other: Path) -> int:
    """Return how many parts at their ends two paths have in common."""
    pairs = zip(reversed(one.absolute().parts), reversed(other.absolute().parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _of_model(
    model: Model, view: _View, *, threshold: float | None, size: tuple[int, int] | None, precision: str | None
) -> Explained:
    """Return what a model finds in a picture, and what it was chosen from."""
    picture = view.read()
    prepared = model.prepare(size)(picture)
    raw = model.forward(pad(prepared.image), precision=precision)
    sizes, scales = [prepared.size], [prepared.scale]
    (before,) = model.postprocess.candidates(raw, sizes, scales=scales, threshold=threshold)
    before, after = before.cpu(), model.postprocess.suppressed(before).cpu()
    assert before.locations is not None
    return Explained(
        name=view.name,
        picture=picture,
        before=model.calibrated(before),
        after=model.calibrated(after),
        source=_same_pair(before, after),
        class_scores=raw.scores[0].float().cpu()[before.locations],
        truth=view.truth,
        overlap=model.postprocess.nms_threshold,
    )


def _same_pair(before: Detections, after: Detections) -> Tensor:
    """Return the row among the first detections of each of the second: that of the same location and class."""
    assert before.locations is not None
    assert after.locations is not None
    classes = len(before.class_names)
    ours, theirs = before.locations * classes + before.labels, after.locations * classes + after.labels
    order = ours.argsort()
    return order[torch.searchsorted(ours[order], theirs)]


def _of_heads(
    path: Path,
    paths: Sequence[Path],
    data: str | Path | Dataset | None,
    *,
    split: str,
    limit: int | None,
    threshold: float | None,
) -> tuple[str, tuple[str, ...], list[_View], Callable[[_View], Explained]]:
    """Return name, classes and pictures of a head's outputs, and what tells what they hold for one."""
    if data is None:
        raise UserError(f"{path}: outputs of a head need their annotations: give data")
    dataset = open_annotations(data, split)
    heads = open_heads(path, dataset, threshold=_HEADS_THRESHOLD if threshold is None else threshold)
    chosen = _chosen(dataset, paths, split=split, limit=limit)
    views = [_View(truth.name, lambda index=index: dataset.picture(index), truth) for index, truth in chosen]
    see = partial(_of_outputs, heads.outputs, class_names=dataset.class_names, threshold=heads.threshold)
    return path.stem, dataset.class_names, views, see


def _of_outputs(outputs: HeadOutputs, view: _View, *, class_names: tuple[str, ...], threshold: float) -> Explained:
    """Return what a head's outputs hold for a picture; without the picture itself, boxes lie on a blank one."""
    assert view.truth is not None
    truth = view.truth
    try:
        picture = view.read()
    except UserError:  # the arrays come without pictures
        picture = np.full((*truth.size, 3), _BLANK, np.uint8)
    before = outputs.candidates(truth.image_id, class_names, size=truth.size, threshold=threshold)
    after = suppressed(before)
    assert before.locations is not None
    return Explained(
        name=view.name,
        picture=picture,
        before=before,
        after=after,
        source=_same_pair(before, after),
        class_scores=outputs.scores[before.locations],
        truth=truth,
    )
