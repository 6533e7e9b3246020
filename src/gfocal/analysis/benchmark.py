"""How fast a model is on this machine, against its own bare convolutions and against other models."""

from __future__ import annotations

import copy
import json
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from gfocal.analysis.efficiency import alternate, middle_and_quartiles
from gfocal.data.collate import Prepared, pad
from gfocal.data.pictures import read_picture
from gfocal.data.scenes import Scenes
from gfocal.devices import choose_precision, precision_name
from gfocal.errors import UserError
from gfocal.files import whole_or_absent
from gfocal.loading import load
from gfocal.model import Model, build
from gfocal.predictor import Predictor
from gfocal.recipes import RECIPES

BARE = "bare convolutions"


@dataclass(frozen=True)
class Timing:
    """What one piece of work took: seconds a picture, the median over the turns and their quartiles.

    ratio: to the first line of the benchmark in the same turn, the median over the turns, and its quartiles.
    """

    work: str
    seconds: float
    quartiles: tuple[float, float]
    ratio: float
    ratio_quartiles: tuple[float, float]


@dataclass(frozen=True)
class Benchmark:
    """Timings of one run and how they were taken.

    size: (height, width) of the network's input in pixels. batch: pictures at once. turns: of each work.
    """

    timings: tuple[Timing, ...]
    device: str
    precision: str
    threads: int
    size: tuple[int, int]
    batch: int
    turns: int
    torch: str

    def text(self) -> str:
        """Return a table for people."""
        lines = [
            f"{self.device}, {self.precision}, {self.threads} threads, PyTorch {self.torch}, {self.batch} x "
            f"{self.size[0]}x{self.size[1]}, median of {self.turns} turns",
            f"{'':<50} {'ms a picture':>12} {'quartiles':>17} {'ratio':>8} {'quartiles':>13}",
        ]
        for one in self.timings:
            low, high = (f"{1000 * value:.1f}" for value in one.quartiles)
            ratios = (one.ratio, *one.ratio_quartiles)
            lines.append(
                f"{one.work:<50} {1000 * one.seconds:>12.1f} {low:>8} {high:>8} "
                + " ".join(f"{value:>{width}.3f}" for value, width in zip(ratios, (8, 6, 6), strict=True))
            )
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the benchmark as JSON, whole or not at all."""
        with whole_or_absent(path) as scratch:
            scratch.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def benchmark(
    models: Predictor | str | Path | Sequence[Predictor | str | Path],
    *,
    size: tuple[int, int] = (800, 1216),
    batch: int = 1,
    turns: int = 7,
    precision: str | None = None,
    device: str | None = None,
    backends: Sequence[str] = ("torch",),
    torchvision: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Benchmark:
    """Return how long models take for a picture, all of them in turns in this process so that they meet one machine.

    models: what `gfocal.load` returns or takes, or names of recipes, which then have random weights. size: (height,
    width) of the network's input in pixels, multiples of 32. batch: pictures at once. precision: as `predict` takes it.
    backends: ways in which each model computes, see `Model.with_backend`. torchvision: also time its FCOS with
    ResNet-50, in float32. progress: called with the number of turns done.

    Of each model are timed `predict` from a JPEG file to detections (for one picture at a time), from prepared pictures
    to detections, and of the first the parts: reading and preparing, the network, post-processing, and the convolutions
    of the network alone, on inputs of their sizes, in the same precision, channels last.

    >>> import gfocal
    >>> found = gfocal.benchmark("gflv2_r18_mini", size=(64, 96), turns=1, device="cpu")
    >>> [timing.work for timing in found.timings][0]
    'bare convolutions'
    """
    if size[0] % 32 or size[1] % 32 or min(size) < 32:
        raise UserError(f"size must be multiples of 32 pixels, height and width, got {size}")
    sources = [models] if isinstance(models, Predictor | str | Path) else list(models)
    opened: dict[str, Predictor] = {}
    for place, source in enumerate(sources):
        model = _opened(source, device)
        ways = backends if isinstance(model, Model) else ("file",)
        for way in ways:
            name = _name(source, place) if way in ("torch", "file") else f"{_name(source, place)}, {way}"
            opened[name] = model.with_backend(way) if isinstance(model, Model) else model
    where = next((model.device for model in opened.values() if isinstance(model, Model)), torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        works = _works(opened, _jpeg(Path(folder), size), size=size, batch=batch, precision=precision)
        if torchvision:
            works["torchvision fcos_resnet50_fpn, float32"] = _torchvision(size, batch, where)
        with torch.inference_mode():
            times = alternate(list(works.values()), turns=turns, device=where, progress=progress)
    per_picture = {name: [value / batch for value in values] for name, values in zip(works, times, strict=True)}
    first = next(iter(per_picture.values()))
    return Benchmark(
        timings=tuple(_timing(name, values, first) for name, values in per_picture.items()),
        device=_device_name(where),
        precision=precision_name(choose_precision(precision, where)),
        threads=torch.get_num_threads(),
        size=size,
        batch=batch,
        turns=turns,
        torch=torch.__version__,
    )


def _works(
    models: Mapping[str, Predictor], picture: Path, *, size: tuple[int, int], batch: int, precision: str | None
) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    works: dict[str, Callable[[], object]] = {}
    first = next(iter(models.values()))
    if isinstance(first, Model):
        works |= _parts(first, picture, size=size, batch=batch, precision=precision)
    for name, model in models.items():
        prepared = model.prepare((min(size), max(size)))(read_picture(picture))
        images = _pictures(prepared, batch)
        # a file's runtime takes them from the CPU, whatever it computes on
        images = images.to(model.device) if isinstance(model, Model) else images
        sizes, scales = [prepared.size] * batch, [prepared.scale] * batch

        def find(model: Predictor = model, images: Tensor = images, geometry: Any = (sizes, scales)) -> object:
            return model.find(images, geometry[0], scales=geometry[1], precision=precision)

        def predict(model: Predictor = model) -> object:
            return model.predict(picture, size=(min(size), max(size)), precision=precision)

        works[f"{name}: find"] = find
        if batch == 1:
            works[f"{name}: predict from a JPEG"] = predict
    return works


def _parts(
    model: Model, picture: Path, *, size: tuple[int, int], batch: int, precision: str | None
) -> dict[str, Callable[[], object]]:
    """Return the parts that the time of a model goes to."""
    prepare = model.prepare((min(size), max(size)))
    prepared = prepare(read_picture(picture))
    images = _pictures(prepared, batch).to(model.device)
    raw = model.forward(images, precision=precision)
    return {
        BARE: bare_convolutions(model, images, precision=precision),
        "reading and preparing": lambda: [prepare(read_picture(picture)) for _ in range(batch)],
        "network": lambda: model.forward(images, precision=precision),
        "post-processing": lambda: model.postprocess(raw, [prepared.size] * batch, scales=[prepared.scale] * batch),
    }


def _pictures(prepared: Prepared, batch: int) -> Tensor:
    """Return a batch of one picture, in the layout in which pictures are prepared."""
    return pad(prepared.image).expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def bare_convolutions(model: Model, images: Tensor, *, precision: str | None = None) -> Callable[[], None]:
    """Return the work of the convolutions of a model alone, each on an input of its size, in the precision given."""
    dtype = choose_precision(precision, model.device)
    calls: list[tuple[nn.Conv2d, Tensor]] = []

    def note(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv2d)
        noise = torch.randn(inputs[0].shape, device=inputs[0].device)
        calls.append((conv, noise.to(dtype, memory_format=torch.channels_last)))

    # of a copy, because the user's detector stays as it is, training or not
    detector = copy.deepcopy(model.detector).eval()
    for module in detector.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(note)
    detector(images.to(model.device, memory_format=torch.channels_last))
    ready = [(conv, conv.weight.to(dtype), None if conv.bias is None else conv.bias.to(dtype), x) for conv, x in calls]

    def run() -> None:
        for conv, weight, bias, x in ready:
            torch.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    return run


def _torchvision(size: tuple[int, int], batch: int, device: torch.device) -> Callable[[], object]:
    from torchvision.models.detection import fcos_resnet50_fpn  # it takes seconds to load

    sides = {"min_size": min(size), "max_size": max(size)}
    other = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=80, **sides).to(device).eval()
    pictures = list(torch.rand(batch, 3, *size, device=device))
    return lambda: other(pictures)


def _opened(source: Predictor | str | Path, device: str | None) -> Predictor:
    if isinstance(source, Predictor):
        return source
    if not Path(source).exists() and str(source) in RECIPES:
        torch.manual_seed(0)
        return build(source, device=device)
    return load(source, device=device)


def _name(source: Predictor | str | Path, place: int) -> str:
    return f"model {place + 1}" if isinstance(source, Predictor) else str(source)


def _jpeg(folder: Path, size: tuple[int, int]) -> Path:
    """Write a picture of the aspect of `size` with something in it, 5/8 as high: 760x500 for 800x1216."""
    height, width = (max(side * 5 // 8, 32) for side in size)
    small = Scenes(1, size=(256, 256)).picture(0)
    path = folder / "picture.jpg"
    if not cv2.imwrite(str(path), np.ascontiguousarray(cv2.resize(small, (width, height))[..., ::-1])):
        raise UserError(f"{path}: cannot be written")
    return path


def _timing(work: str, seconds: Sequence[float], base: Sequence[float]) -> Timing:
    # within a turn, what disturbs the one mostly disturbs the other
    ratios = [value / other for value, other in zip(seconds, base, strict=True)]
    middle, ends = middle_and_quartiles(seconds)
    return Timing(work, middle, ends, *middle_and_quartiles(ratios))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
