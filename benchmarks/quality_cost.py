"""What a quality costs in the forward pass at 800x1216 with ResNet-50: V2 over V1, and V1 over ATSS with centerness.

Times are medians of turns A B A B in one process on random weights, without post-processing, as ratios; the spread is
the middle half of the ratios of single turns. Targets: V2 over V1 at most 1.01 in float32 and 1.02 in bfloat16, V1
over ATSS at most 1.01.
"""

from __future__ import annotations

import statistics
import sys

import torch

from gfocal.analysis.efficiency import alternate
from gfocal.devices import choose_device
from gfocal.model import build

PAIRS = {"V2 / V1": ("gflv2_r50_fpn_1x", "gfl_r50_fpn_1x"), "V1 / ATSS": ("gfl_r50_fpn_1x", "atss_r50_fpn_1x")}
SIZE = (800, 1216)


def main() -> None:
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    device = choose_device(None)
    images = torch.randn(1, 3, *SIZE).to(device, memory_format=torch.channels_last)
    for pair, names in PAIRS.items():
        models = [build(name) for name in names]
        for precision in ("float32", "bfloat16"):
            works = [lambda model=model: model.forward(images, precision=precision) for model in models]
            times = alternate(works, turns=turns, device=device)
            ratio = statistics.median(times[0]) / statistics.median(times[1])
            low, _, high = statistics.quantiles([a / b for a, b in zip(*times, strict=True)], n=4)
            seconds = statistics.median(times[1])
            print(f"{pair:<10} {precision:<9} {ratio:.4f}  ({low:.4f} to {high:.4f})  of {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main()
