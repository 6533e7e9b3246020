"""Milliseconds on one core of what happens before and after the network: reading, preparing, post-processing.

    OMP_NUM_THREADS=1 python benchmarks/postprocess.py [PICTURE ...]

Post-processing: 80 classes at 800x1216, from no score above the threshold to all of them. Preparing: a JPEG of 640x480
full of noise, and pictures of yours, to 800 rows. CPU time, the median of 200 runs. Targets: 5 ms, 8 ms where
all scores are above, 6 ms for the picture.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import torch
from edges import milliseconds

from gfocal.data.pictures import read_picture
from gfocal.data.scenes import Scenes
from gfocal.model import build
from gfocal.structures import Raw

THRESHOLD = 0.05


def cases(raw: Raw) -> dict[str, Raw]:
    generator = torch.Generator().manual_seed(0)
    shape = raw.scores.shape
    count = shape[1] * shape[2]
    box = torch.randn(raw.box.shape, generator=generator) * 2

    def of(scores: torch.Tensor) -> Raw:
        return replace(raw, scores=scores, class_scores=scores, box=box)

    low = 0.8 * THRESHOLD * torch.rand(shape, generator=generator)
    some = low.clone()
    some.view(-1)[torch.randperm(count, generator=generator)[:1500]] = torch.rand(1500, generator=generator)
    one = low.clone()
    label = torch.randint(0, shape[2], (1, shape[1], 1), generator=generator)
    one.scatter_(2, label, THRESHOLD + 0.9 * torch.rand(label.shape, generator=generator))
    return {
        "no score above": of(low),
        "1,500 scores above": of(some),
        "one class of each location above": of(one),
        "all scores above": of(THRESHOLD + 0.95 * torch.rand(shape, generator=generator)),
    }


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    model = build("gflv2_r50_fpn_1x", device="cpu")
    raw = model.detector(torch.randn(1, 3, 800, 1216))
    for name, case in cases(raw).items():
        spent = milliseconds(lambda case=case: model.postprocess(case, [(800, 1216)]))
        print(f"post-processing, {name:<34} {spent:6.2f} ms")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        cv2.imwrite(str(path), Scenes(1, size=(480, 640)).picture(0))
        for file in (path, *map(Path, sys.argv[1:])):
            picture = read_picture(file)
            print(f"{file.name}: {picture.shape[1]}x{picture.shape[0]}, {file.stat().st_size // 1024} KiB")
            print(f"  reading {milliseconds(partial(read_picture, file)):52.2f} ms")
            print(f"  resizing and normalising {milliseconds(partial(model.prepare(), picture)):35.2f} ms")


if __name__ == "__main__":
    main()
