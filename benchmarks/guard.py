"""What must not get slower: ratios of times of one process, held against those stored in ratios.json.

    python benchmarks/guard.py [--store]

Every figure is the time of a work over that of the bare convolutions of gflv2_r18_mini at 256x320 in the same turn, in
float32, the median over all turns. Writes runs/bench.json; a ratio more than 1.15 times the stored one is reported, if
that was stored on a machine alike: elsewhere convolutions and the rest are not fast and slow in the same proportion.
--store makes this run the stored one.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from edges import example, fresh
from training_step import step, truths

from gfocal.analysis.benchmark import bare_convolutions
from gfocal.analysis.efficiency import alternate
from gfocal.data.collate import pad
from gfocal.data.scenes import Scenes
from gfocal.devices import keep_memory
from gfocal.model import build

STORED = Path(__file__).with_name("ratios.json")
OUT = Path("runs/bench.json")
CPUS = Path("/proc/cpuinfo")
LIMIT = 1.15
SIZE = (256, 320)
TURNS = 31


def works() -> dict[str, Callable[[], object]]:
    """Return what is timed; the first is what the others are divided by."""
    torch.manual_seed(0)
    v2, v1 = (build(name, device="cpu") for name in ("gflv2_r18_mini", "gfl_r18_mini"))
    picture = Scenes(1, size=(480, 640)).picture(0)
    prepare = v2.prepare(SIZE)
    prepared = prepare(picture)
    images = pad(prepared.image)
    raw = v2.forward(images, precision="float32")
    edges = example(17, count=100)
    learning, truth = build("gfl_r18_mini", device="cpu"), truths(torch.device("cpu"))

    def loss(images: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(learning.criterion(learning.detector(images), truth).values())).sum()

    return {
        "bare convolutions": bare_convolutions(v2, images, precision="float32"),
        "network V2": lambda: v2.forward(images, precision="float32"),
        "network V1": lambda: v1.forward(images, precision="float32"),
        "predict V2": lambda: v2.predict(picture, size=SIZE, precision="float32"),
        "preparing 480x640": lambda: prepare(picture),
        "post-processing": lambda: v2.postprocess(raw, [prepared.size]),
        "statistics of edges": lambda: fresh(edges).interval(0.9, kind="shortest"),
        "training step V1": step(learning, loss, torch.float32),
    }


def machine() -> str:
    """Return what ratios depend on."""
    model = ""
    if CPUS.is_file():
        model = next((line for line in CPUS.read_text().splitlines() if line.startswith("model name")), "")
    name = model.partition(":")[2].strip() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def _ratio(times: list[float], base: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(times, base, strict=True)), 4)


def main() -> None:
    keep_memory()
    todo = works()
    base, *rest = alternate(list(todo.values()), turns=TURNS, device=torch.device("cpu"))
    ratios = {name: _ratio(times, base) for name, times in zip(list(todo)[1:], rest, strict=True)}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"machine": machine(), "ratios": ratios}, indent=2) + "\n")
    stored = json.loads(STORED.read_text()) if STORED.is_file() else {"machine": None, "ratios": {}}
    alike = stored["machine"] == machine()
    for name, ratio in ratios.items():
        known = stored["ratios"].get(name)
        slower = alike and known is not None and ratio > LIMIT * known
        print(f"{name:<24} {ratio:8.3f}  stored {known}{'  SLOWER' if slower else ''}")
    if not alike:
        print(f"nothing is compared: the stored ratios are of {stored['machine'] or 'no machine'}, this is {machine()}")
    print(f"written to {OUT}")
    if "--store" in sys.argv:
        STORED.write_text(OUT.read_text())
        print(f"stored in {STORED}")


if __name__ == "__main__":
    main()
