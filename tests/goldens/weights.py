"""Weights, pictures and boxes of the golden cases, each array a function of its name alone."""

import zlib

import numpy as np
import torch


def official_state(keys):
    """Fill official keys and shapes, so that deep networks stay finite and scores pass the threshold."""
    return {key: torch.from_numpy(_fill(key, shape)) for key, shape in keys.items()}


def _fill(key, shape):
    rng = np.random.default_rng(zlib.crc32(f"golden {key}".encode()))
    if key.endswith("project"):
        return np.arange(shape[0], dtype=np.float32)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    noise = rng.standard_normal(shape)
    if len(shape) >= 2:
        values = noise * (2 / np.prod(shape[1:])) ** 0.5
    elif key.endswith("running_var"):
        values = 1 + 0.1 * np.tanh(noise)
    elif key.endswith(".weight"):
        values = (0.2 if ".bn3." in key else 1.0) * (1 + 0.1 * np.tanh(noise))
    elif key.endswith("scale"):
        values = 1 + 0.05 * np.tanh(noise)
    else:
        values = 0.1 * noise - (3 if key == "bbox_head.gfl_cls.bias" else 0)
    if "gfl_cls" in key and shape[0] == 81:
        values[80] = -30.0 if key.endswith("bias") else 0.0
    return np.asarray(values, np.float32)


def images(seed):
    """Two normalised pictures of different size in one zero-padded batch, and their padded sizes."""
    rng = np.random.default_rng(seed)
    sizes = [(96, 128), (64, 160)]
    batch = torch.zeros(2, 3, 96, 160)
    for index, (height, width) in enumerate(sizes):
        coarse = rng.standard_normal((3, height // 8, width // 8)).astype(np.float32)
        batch[index, :, :height, :width] = torch.from_numpy(np.kron(coarse, np.ones((1, 8, 8), np.float32)))
    return batch, sizes


def truths(sizes, seed):
    """Six boxes in the first picture, two in the second."""
    rng = np.random.default_rng(seed)
    found = []
    for (height, width), count in zip(sizes, (6, 2), strict=True):
        sides = rng.uniform(10, 60, (count, 2))
        corner = rng.uniform(0, 1, (count, 2)) * (np.array([width, height]) - sides)
        boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
        labels = torch.from_numpy(rng.integers(0, 80, count))
        found.append({"boxes": torch.from_numpy(boxes), "labels": labels, "size": (height, width)})
    return found
