"""A private copy of a detector for inference."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

from gfocal.detector import Detector
from gfocal.runtime.fusing import fold_norms, fuse_activations, fuse_additions, skip_identities, traced
from gfocal.runtime.packing import pack


@torch.no_grad()
def accelerated(detector: Detector, dtype: torch.dtype) -> Detector:
    """Return a copy of a detector for inference in `dtype`: norms folded, and on a CPU convolutions packed and fused.

    Elsewhere weights of convolutions are in `dtype` already, which autocast would make of them for every picture.
    Weights that nothing changes are those of `detector` themselves. A backbone that cannot be traced keeps its norms.
    """
    twin, graphs = folded(detector)
    if _device(detector).type != "cpu" or not _packs(dtype):
        cast(twin, dtype)
        return twin
    pack(twin, dtype)
    for graph in graphs:
        fuse_additions(graph)
        fuse_activations(graph)
        graph.recompile()
    return twin


def cast(network: nn.Module, dtype: torch.dtype) -> None:
    """Give every plain convolution of a network a weight and a bias of its own in `dtype`."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.weight.dtype is not dtype:
            module.weight = nn.Parameter(module.weight.detach().to(dtype), requires_grad=False)
            if module.bias is not None:
                module.bias = nn.Parameter(module.bias.detach().to(dtype), requires_grad=False)


@torch.no_grad()
def folded(detector: Detector) -> tuple[Detector, list[fx.GraphModule]]:
    """Return a copy of a detector in eval() whose norms are folded, and those of its parts that are graphs."""
    graphs: list[fx.GraphModule] = []
    tensors: dict[int, object] = {id(tensor): tensor for tensor in [*detector.parameters(), *detector.buffers()]}
    twin = copy.deepcopy(detector, tensors).eval()
    for name in ("backbone", "neck"):
        graph = traced(twin.get_submodule(name))
        if graph is not None:
            skip_identities(graph)
            fold_norms(graph)
            graph.recompile()
            twin.set_submodule(name, graph)
            graphs.append(graph)
    return twin, graphs


def _packs(dtype: torch.dtype) -> bool:
    """Return whether oneDNN is there and computes in `dtype` on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype is torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
