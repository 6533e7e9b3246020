"""How the time of a picture grows with its pixels, and what a batch saves.

    python benchmarks/scaling.py [RECIPE]

Prints the exponent e of time = c · pixels^e over squares of 320 to 1600 pixels, the sizes in turns, and the time of a
picture in a batch of 8 over that of one alone.
"""

from __future__ import annotations

import math
import statistics
import sys
from functools import partial

import numpy as np
import torch

from gfocal.analysis.efficiency import alternate
from gfocal.devices import keep_memory
from gfocal.model import build

SIDES = (320, 480, 640, 960, 1280, 1600)
TURNS = 3


def main() -> None:
    torch.manual_seed(0)
    keep_memory()
    model = build(sys.argv[1] if len(sys.argv) > 1 else "gflv2_r50_fpn_1x")

    def find(side: int, batch: int = 1) -> None:
        model.find(torch.zeros(batch, 3, side, side), [(side, side)] * batch)

    times = alternate([partial(find, side) for side in SIDES], turns=TURNS, device=model.device)
    medians = [statistics.median(values) for values in times]
    for side, seconds in zip(SIDES, medians, strict=True):
        print(f"{side:>5} x {side:<5} {1000 * seconds:9.1f} ms  {1e9 * seconds / side**2:8.1f} ns a pixel")
    exponent = np.polyfit([2 * math.log(side) for side in SIDES], [math.log(value) for value in medians], 1)[0]
    print(f"exponent: {exponent:.3f}")
    one, eight = alternate([partial(find, 640), partial(find, 640, 8)], turns=TURNS, device=model.device)
    share = statistics.median(eight) / 8 / statistics.median(one)
    print(f"a picture of 640x640 in a batch of 8 over one alone: {share:.3f}")


if __name__ == "__main__":
    main()
