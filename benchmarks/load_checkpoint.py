"""Loading an official file of 200 MB against bare PyTorch: time as a ratio, and memory above the process before.

Each measurement is a process of its own that has loaded the libraries and, for PyTorch, built the model; A B A B.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from gfocal.builder import build_parts
from gfocal.recipes import get_recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import official_name

RECIPE = "gfl_r101_dcn_fpn_ms2x"
ROUNDS = 5

COMMON = """
import json, sys, threading, time
from pathlib import Path
import torch, timm, torchvision, gfocal
from gfocal import model, weights, official
from gfocal.builder import build_parts
path, recipe = Path(sys.argv[1]), sys.argv[2]

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def measured(load):
    before, peak, done = resident(), [0], threading.Event()
    def watch():
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident())
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    kept = load()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    print(json.dumps([seconds, (max(peak[0], resident()) - before) / path.stat().st_size]))
    return kept
"""
OURS = COMMON + "measured(lambda: gfocal.load(path, device='cpu'))"
BARE = (
    COMMON
    + """
detector = build_parts(gfocal.get_recipe(recipe)).detector
state = official.convert_official(official.read_official(path), gfocal.get_recipe(recipe))
torch.save(state, path.with_suffix(".plain.pth"))
state = None
measured(lambda: detector.load_state_dict(torch.load(path.with_suffix(".plain.pth"), weights_only=True), strict=False))
"""
)


def write_official(path: Path) -> None:
    """Write random weights under the authors' names."""
    detector = build_parts(get_recipe(RECIPE)).detector
    state = {official_name(key): value.contiguous() for key, value in detector.state_dict().items()}
    torch.save({"meta": {}, "state_dict": state}, path)


def main() -> None:
    """Print the medians and their ratios as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "official.pth"
        write_official(path)
        rounds: dict[str, list[list[float]]] = {"ours": [], "bare": []}
        for _ in range(ROUNDS):
            for name, script in (("ours", OURS), ("bare", BARE)):
                command = [sys.executable, "-W", "ignore", "-c", script, path, RECIPE]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rounds[name].append(json.loads(done.stdout))
        seconds = {name: statistics.median(row[0] for row in rows) for name, rows in rounds.items()}
        memory = {name: statistics.median(row[1] for row in rows) for name, rows in rounds.items()}
        result = {
            "file_megabytes": round(path.stat().st_size / 1e6),
            "seconds": seconds,
            "time_ratio": seconds["ours"] / seconds["bare"],
            "memory_over_file": memory,
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
