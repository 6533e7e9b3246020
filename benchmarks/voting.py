"""What variance voting changes: AP of a head's arrays after plain suppression, and after voting with several sigmas.

python benchmarks/voting.py HEADS.npz ANNOTATIONS.json
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from gfocal.evaluation import CocoEvaluator, Metrics
from gfocal.heads import open_heads
from gfocal.ops.nms import nms_per_class
from gfocal.ops.voting import vote


def score(heads: str, annotations: str, sigma: float | None) -> Metrics:
    evaluator: CocoEvaluator | None = None
    for truth, found in open_heads(heads, annotations, suppress=False):
        evaluator = evaluator or CocoEvaluator(found.class_names)
        kept, _ = nms_per_class(found.boxes, found.scores, found.labels, iou_threshold=0.6, limit=100)
        best = found[kept]
        if sigma is not None:
            edges = vote(found.boxes, found.labels, found.edges, kept, sigma=sigma)
            height, width = truth.size
            limit = torch.tensor([width, height, width, height])
            best = replace(best, edges=edges, boxes=edges.mean.clamp(min=0).minimum(limit))
        evaluator.add(truth, best)
    assert evaluator is not None
    return evaluator.metrics()


def main() -> None:
    torch.set_num_threads(1)
    for sigma in (None, 0.005, 0.01, 0.02, 0.04, 0.08):
        metrics = score(*sys.argv[1:3], sigma)
        name = "plain" if sigma is None else f"sigma {sigma}"
        print(f"{name:<12} AP {metrics.ap:.4f}  AP50 {metrics.ap50:.4f}  AP75 {metrics.ap75:.4f}")


if __name__ == "__main__":
    main()
