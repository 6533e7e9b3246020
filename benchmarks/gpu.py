"""Latency and throughput on a CUDA device: V1 and V2 with ResNet-50, beside torchvision's FCOS, and a training step.

    make bench-gpu

Batches of 1, 8 and 32 in float16 and bfloat16, as they are and compiled; V2 over V1 by `quality_cost.py`.
"""

from __future__ import annotations

import sys

import quality_cost
import torch
import training_step

from gfocal.analysis.benchmark import benchmark

NAMES = ("gflv2_r50_fpn_1x", "gfl_r50_fpn_1x")


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing to measure")
    for precision in ("float16", "bfloat16"):
        for batch in (1, 8, 32):
            try:
                found = benchmark(
                    NAMES,
                    batch=batch,
                    turns=20,
                    precision=precision,
                    device="cuda",
                    backends=("torch", "compile"),
                    torchvision=True,
                )
                print(found.text(), flush=True)
            except torch.OutOfMemoryError:
                print(f"batch {batch} in {precision}: does not fit into this GPU's memory", flush=True)
            torch.cuda.empty_cache()
            # or what was compiled before counts against the few graphs that PyTorch compiles of one function
            torch._dynamo.reset()
    quality_cost.main()
    sys.argv[1:] = []
    training_step.main()


if __name__ == "__main__":
    main()
