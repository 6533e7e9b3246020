"""Whole numbers of 8 bits in place of floats, by NNCF, but in the first layers and where edges become distributions."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from gfocal.detector import Detector

Inputs: TypeAlias = dict[str, npt.NDArray[Any]]
Node: TypeAlias = tuple[str, Sequence[str], Sequence[str]]

FIRST = 5
"""Convolutions from the picture on that stay in float: of a ResNet-50 the stem and the first block, 3 % of its
multiply-adds. docs/export.md tells what that brings."""


def quantize_onnx(model: Any, detector: Detector, examples: Callable[[int], Inputs], *, count: int) -> Any:
    """Return an `onnx.ModelProto` in int8 but for the `FIRST` convolutions, those of box codes and all that follows.

    examples: the inputs of a picture by its number, under `count`, that the ranges of values are measured on.
    """
    nodes = [(node.name, list(node.input), list(node.output)) for node in model.graph.node]
    names = {f"detector.{name}" for name, _ in detector.named_parameters() if _begins(name)}
    first = [node.name for node in model.graph.node if node.op_type == "Conv"][:FIRST]
    return _quantized(model, first, _below(nodes, names), examples, count)


def quantize_openvino(model: Any, detector: Detector, examples: Callable[[int], Inputs], *, count: int) -> Any:
    """Return an `openvino.Model` in int8 (see `quantize_onnx`)."""
    weights: list[npt.NDArray[Any]] = []
    with torch.no_grad():
        for level, scale in enumerate(detector.scales):
            weight = detector.outputs_of(level).box_conv.weight
            weights += [weight.cpu().numpy(), scale(weight).cpu().numpy()]
    nodes: list[Node] = []
    names: set[str] = set()
    convolutions: list[str] = []
    norms: list[str] = []
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        nodes.append((name, [port.get_node().get_friendly_name() for port in node.input_values()], [name]))
        # OpenVINO forgets what a weight is called, and multiplies it by the scale of its level
        if node.get_type_name() == "Constant" and any(_alike(node.data, weight) for weight in weights):
            names.add(name)
        if node.get_type_name() == "Convolution":
            convolutions.append(name)
        if node.get_type_name() == "GroupNormalization":  # NNCF would round what it reads
            norms.append(name)
    return _quantized(model, convolutions[:FIRST] + norms, _below(nodes, names), examples, count)


def _begins(name: str) -> bool:
    """Return whether a parameter belongs to the layers at which the head of distributions begins."""
    return name.endswith(".box_conv.weight")


def _alike(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-5)


def _below(nodes: Iterable[Node], begin: set[str]) -> list[str]:
    """Return the names of the nodes (name, inputs, outputs), in their order, that anything of `begin` flows into."""
    reached = set(begin)
    below: list[str] = []
    for name, inputs, outputs in nodes:
        if not reached.isdisjoint(inputs):
            reached.update(outputs)
            below.append(name)
    return below


def _quantized(model: Any, others: list[str], below: list[str], examples: Callable[[int], Inputs], count: int) -> Any:
    assert below, "the convolutions of box codes are not in the graph"
    with _quiet():
        import nncf  # pyright: ignore[reportMissingImports]

        return nncf.quantize(
            model,
            nncf.Dataset(range(count), examples),
            # activations that are never negative get all 256 values for their one side
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=count,
            # the levels share their convolutions: what is right for one level's bias is wrong for that of the others
            advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
            # some of the nodes change nothing, and NNCF drops those before it looks for names
            ignored_scope=nncf.IgnoredScope(names=list(dict.fromkeys([*others, *below])), validate=False),
        )


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep NNCF from the terminal, which tells of each of its steps, of layers it leaves alone, and that CUDA lacks."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
