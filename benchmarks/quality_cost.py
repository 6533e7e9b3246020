"""What a quality costs in the forward pass at 800x1216 with ResNet-50: V2 over V1, and V1 over ATSS with centerness.

Only the output layers differ between those detectors, and they are a hundredth of the whole, less than the noise of a
shared machine. So the output layers alone are timed, in turns A B A B in one process, and the difference of their
medians is given as a share of the whole forward pass of the same process. Targets: 1 % in float32 and 2 % in bfloat16.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial

import torch
from torch import Tensor

from gfocal.analysis.efficiency import alternate
from gfocal.detector import Detector
from gfocal.devices import autocast, choose_device, keep_memory
from gfocal.model import build
from gfocal.runtime.eager import accelerated

PAIRS = {"V2 over V1": ("gflv2_r50_fpn_1x", "gfl_r50_fpn_1x"), "V1 over ATSS": ("gfl_r50_fpn_1x", "atss_r50_fpn_1x")}
LEVELS = [(100, 152), (50, 76), (25, 38), (13, 19), (7, 10)]
TURNS = 60
WHOLE_TURNS = 5


def output_layers(detector: Detector, features: list[Tensor]) -> Tensor:
    """Do what `Detector.forward` does after the trunk, as far as the qualities differ."""
    classes, qualities = [], []
    for level, feature in enumerate(features):
        outputs = detector.outputs_of(level)
        box = detector.scales[level](outputs.box_conv(feature).float())
        logits, quality = outputs.quality(feature, feature, box)
        classes.append(logits.float().flatten(2).transpose(1, 2))
        if quality is not None:
            qualities.append(quality.float().flatten(1))
    together = torch.cat(qualities, 1) if qualities else None
    return detector.outputs_of(0).quality.scores(torch.cat(classes, 1), together)[0]


def main() -> None:
    device = choose_device(None)
    keep_memory()
    layout = {"memory_format": torch.channels_last}
    image = torch.randn(1, 3, 800, 1216).to(device, **layout)
    features = [torch.randn(1, 256, *size).to(device, **layout) for size in LEVELS]
    for pair, names in PAIRS.items():
        for precision in (torch.float32, torch.bfloat16):
            # the copies that predict
            detectors = [accelerated(build(name).detector, precision) for name in names]
            name = str(precision).removeprefix("torch.")
            with torch.inference_mode(), autocast(precision, device):
                inputs = [feature.to(precision) for feature in features]
                works = [partial(output_layers, detector, inputs) for detector in detectors]
                ours, theirs = alternate(works, turns=TURNS, device=device)
                (times,) = alternate([partial(detectors[1], image)], turns=WHOLE_TURNS, device=device)
                whole = statistics.median(times)
            extra = statistics.median(ours) - statistics.median(theirs)
            print(
                f"{pair:<12} {name:<8} {extra / whole:+.2%}  ({1e3 * extra:+.2f} ms of {1e3 * whole:.1f} ms)",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
