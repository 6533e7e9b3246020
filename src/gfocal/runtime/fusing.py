"""Batch norms, additions and activations as part of the convolutions before them: the same numbers in fewer passes."""

from __future__ import annotations

import copy
import operator
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeGuard, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gfocal.nn.backbone import StaticBatchNorm2d
from gfocal.nn.dcn import DeformConv2d, ModulatedDeformConv2d
from gfocal.runtime.packing import PackedConv2d

CONVOLUTIONS = (nn.Conv2d, DeformConv2d, ModulatedDeformConv2d)
NORMS = (nn.BatchNorm2d, StaticBatchNorm2d)
ADDITIONS = (operator.add, operator.iadd, torch.add)
RELUS = (F.relu, torch.relu, torch.relu_)


def traced(network: nn.Module) -> fx.GraphModule | None:
    """Return a network as a graph over its own modules, or None where its course depends on values.

    Convolutions and batch norms are single steps of the graph. What the functions below do to it takes effect with
    `recompile`, and leaves the network itself as it is.
    """
    try:
        graph = _Tracer().trace(network)
    except Exception:  # what a network of the wild does with a stand-in for a tensor is not ours to know
        return None
    module = fx.GraphModule(network, graph)
    # tracing looks into hooks of the parts, but not into those of the whole
    module._forward_pre_hooks.update(network._forward_pre_hooks)  # pyright: ignore[reportPrivateUsage]
    module._forward_hooks.update(network._forward_hooks)  # pyright: ignore[reportPrivateUsage]
    return module


def skip_identities(graph: fx.GraphModule) -> None:
    """Take out what does nothing."""
    for node in list(graph.graph.nodes):
        if _calls(node, graph, (nn.Identity,)):
            _skip(node, cast("fx.Node", node.args[0]))


def fold_norms(graph: fx.GraphModule) -> None:
    """Let every convolution that a batch norm, and nothing else, follows do the work of that norm, too."""
    for node in list(graph.graph.nodes):
        if not (_calls(node, graph, NORMS) and _once(node, graph)):
            continue
        before = node.args[0]
        if not (_calls(before, graph, CONVOLUTIONS) and _once(before, graph) and len(before.users) == 1):
            continue
        norm = graph.get_submodule(str(node.target))
        graph.set_submodule(str(before.target), _folded(graph.get_submodule(str(before.target)), norm))
        # what timm builds into some norms comes after them: dropout and activation, in this order
        parts = [part for part in norm.modules() if part is not norm]
        rest = [part for part in parts if not isinstance(part, nn.Sequential | nn.Identity)]
        if rest:
            graph.set_submodule(str(node.target), rest[0] if len(rest) == 1 else nn.Sequential(*rest))
        else:
            _skip(node, before)


def fuse_additions(graph: fx.GraphModule) -> None:
    """Let packed convolutions add what is added to their output, where nothing else sees that output."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in ADDITIONS or node.kwargs:
            continue
        conv, other = node.args if _fusible(node.args[0], graph) else reversed(node.args)
        # a weight may be of another shape
        computed = isinstance(other, fx.Node) and other.op != "get_attr"
        if computed and _fusible(conv, graph) and len(conv.args) == 1:
            with graph.graph.inserting_before(node):
                both = graph.graph.call_module(str(conv.target), (conv.args[0], other))
            _skip(node, both)
            graph.graph.erase_node(conv)


def fuse_activations(graph: fx.GraphModule) -> None:
    """Let packed convolutions cut at 0 what a ReLU behind them would, where nothing else sees their output."""
    for node in list(graph.graph.nodes):
        rectifies = node.op == "call_function" and node.target in RELUS
        conv = node.args[0] if node.args else None
        if (rectifies or _calls(node, graph, (nn.ReLU,))) and _fusible(conv, graph):
            cast("PackedConv2d", graph.get_submodule(str(conv.target))).rectified = True
            _skip(node, conv)
    graph.delete_all_unused_submodules()


@final
class _Tracer(fx.Tracer):
    """Leaves convolutions and norms whole, whoever wrote them, and what other threads compute meanwhile alone."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record the call of a module; tracing patches modules for all threads, of which the others only compute."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return what a module holds, which stands for itself in other threads."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, CONVOLUTIONS + NORMS) or super().is_leaf_module(m, module_qualified_name)


def _calls(node: object, graph: fx.GraphModule, kinds: tuple[type[nn.Module], ...]) -> TypeGuard[fx.Node]:
    """Return whether a node of the graph is the call of a module of these kinds."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    return isinstance(graph.get_submodule(str(node.target)), kinds)


def _once(node: fx.Node, graph: fx.GraphModule) -> bool:
    """Return whether the module that a node calls is called nowhere else in the graph."""
    return Counter(other.target for other in graph.graph.nodes if other.op == "call_module")[node.target] == 1


def _fusible(node: object, graph: fx.GraphModule) -> TypeGuard[fx.Node]:
    if not (_calls(node, graph, (PackedConv2d,)) and _once(node, graph) and len(node.users) == 1):
        return False
    return not cast("PackedConv2d", graph.get_submodule(str(node.target))).rectified


def _skip(node: fx.Node, value: fx.Node) -> None:
    """Take a node out of its graph; what used it uses `value`."""
    node.replace_all_uses_with(value)
    node.graph.erase_node(node)


def _folded(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """Return a convolution that does the work of the batch norm behind it, too."""
    scale = (cast("Tensor", norm.running_var) + cast("float", norm.eps)).rsqrt()
    shift = -cast("Tensor", norm.running_mean)
    weight, bias = cast("Tensor", conv.weight), cast("Tensor | None", conv.bias)
    if bias is not None:
        shift = shift + bias
    factor, offset = cast("Tensor | None", norm.weight), cast("Tensor | None", norm.bias)
    scale = scale if factor is None else scale * factor
    shift = shift * scale if offset is None else shift * scale + offset
    one = copy.deepcopy(conv, {id(weight): nn.Parameter(weight * scale[:, None, None, None], requires_grad=False)})
    one.bias = nn.Parameter(shift, requires_grad=False)
    return one
