"""How long `gfocal doctor` takes over 100,000 annotations of a COCO file without reading pictures: 10 s are aimed at.

The time of the whole command, a process of its own, the best of some rounds; then where it goes, in this process.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPLITS = {"train": 90_000, "val": 10_000}
A_PICTURE = 7
"""Boxes, about as in COCO."""
CLASSES = 80
ROUNDS = 3


def write_data(folder: Path) -> None:
    """Write a data.yaml and a COCO file a split, with boxes of all sizes."""
    (folder / "images").mkdir()
    for split, count in SPLITS.items():
        dice = random.Random(split)
        images = [
            {"id": i, "file_name": f"{i:06d}.jpg", "width": 640, "height": dice.choice((426, 480, 640))}
            for i in range(-(-count // A_PICTURE))
        ]
        annotations: list[dict[str, object]] = []
        for number in range(count):
            width, height = (round(4 * 100 ** dice.random(), 2) for _ in "xy")
            corner = [round(dice.uniform(0, side), 2) for side in (640 - width, 426 - height)]
            annotations.append(
                {
                    "id": number + 1,
                    "image_id": number // A_PICTURE,
                    "category_id": dice.randrange(CLASSES),
                    "bbox": [*corner, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
        categories = [{"id": label, "name": f"class {label}"} for label in range(CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
    lines = [f"{split}: {{images: images, annotations: {split}.json}}" for split in SPLITS]
    (folder / "data.yaml").write_text("\n".join(lines))


def command_seconds(folder: Path) -> tuple[float, float]:
    """Return the seconds of the whole command, and those of the processor."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "gfocal.cli.__main__", "doctor", folder, "--no-pictures"]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print seconds, and what took most of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        seconds, busy = min(command_seconds(folder) for _ in range(ROUNDS))
        print(f"the whole command: {seconds:.1f} s, {busy:.1f} s of the processor", flush=True)
        from gfocal.analysis.doctor import examine

        start, busy = time.perf_counter(), time.process_time()
        report = examine(folder, pictures=False)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        print(f"after starting: {seconds:.1f} s, {busy:.1f} s of the processor", flush=True)
        print(report.text())
        with cProfile.Profile() as profile:
            examine(folder, pictures=False)
        pstats.Stats(profile).sort_stats("cumulative").print_stats("gfocal", 25)


if __name__ == "__main__":
    main()
