"""Which device and which precision to compute in."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch

from gfocal.errors import UserError, unknown

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]


def choose_device(name: str | torch.device | None) -> torch.device:
    """Return the named device, or the GPU where there is one; UserError for a device this machine lacks."""
    if isinstance(name, torch.device):
        name = str(name)
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device 'cuda' was asked for, but PyTorch sees no CUDA device: take device 'cpu'")
    try:
        device = torch.device(name)
        # PyTorch has names for devices that this machine, or this build, lacks
        torch.zeros(1, device=device).item()
        return device
    except (RuntimeError, AssertionError) as error:
        raise unknown("device", name, ("auto", "cpu", "cuda")) from error


def choose_precision(precision: str | None, device: torch.device) -> torch.dtype:
    """Return the dtype of convolutions: as named, or for None and "auto" bfloat16 where the device is built for it.

    UserError for an unknown name, or float16 on a CPU, which has no fast float16.
    """
    if precision is None or precision == "auto":
        return torch.bfloat16 if _fast_bfloat16(device) else torch.float32
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    dtype: torch.dtype = getattr(torch, precision)
    if dtype is torch.float16 and device.type == "cpu":
        raise UserError("precision 'float16' needs a GPU: use bfloat16 or float32 on a CPU")
    return dtype


def settle(device: torch.device | None = None) -> None:
    """Let a program use this machine well, before it computes anything.

    Threads of the CPU are cut to the share that a container gives, which PyTorch does not look at, unless the
    environment variable OMP_NUM_THREADS says how many there shall be; `keep_memory` is done, but for a GPU. device:
    what will compute, None where that is not known yet.
    """
    share = _container_share()
    if share is not None and share < torch.get_num_threads() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(share)
    if device is None or device.type == "cpu":
        keep_memory()


def precision_name(dtype: str | torch.dtype) -> str:
    """Return what `choose_precision` takes for a dtype.

    >>> precision_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def described(runtime: str, device: str | torch.device, precision: str | torch.dtype) -> str:
    """Return what computes, where, and in which precision, for people.

    >>> described("PyTorch", torch.device("cpu"), torch.float32)  # doctest: +ELLIPSIS
    'by PyTorch on cpu (...) in float32, ... thread...'
    """
    named, precision = str(device), precision_name(precision)
    if isinstance(device, torch.device):
        cuda = device.type == "cuda"
        named += f" ({torch.cuda.get_device_name(device) if cuda else _capability()})"
    if named.startswith("cuda"):
        return f"by {runtime} on {named} in {precision}"
    threads = torch.get_num_threads()
    return f"by {runtime} on {named} in {precision}, {threads} thread{'' if threads == 1 else 's'}"


def keep_memory() -> None:
    """Let this process keep what memory it has freed, on a CPU with the GNU C library, for feature maps to come.

    Otherwise each large one is asked from the system anew, page by page: a tenth of the time of a network. Nothing is
    done where one of the C library's own environment variables for it is set.
    """
    own = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is not None and not any(name in os.environ for name in own):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def threads_each(num_processes: int) -> int:
    """Return the share of this process's threads, which are no more than a container gives, of each of some others."""
    return max(torch.get_num_threads() // num_processes, 1)


def _c_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""From malloc.h."""


def _container_share(limits: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Return how many CPUs the container may use at once, at least 1, or None where nothing says so."""
    try:
        quota, period = limits.read_text(encoding="ascii").split()
        return max(int(quota) // int(period), 1)
    except (OSError, ValueError):  # no cgroup of version 2, or "max" for no limit
        return None


def _capability() -> str:
    return "AMX" if _has_amx() else torch.backends.cpu.get_cpu_capability()


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which convolutions run in `dtype`; in float32 a GPU may not round to TF32."""
    if dtype is not torch.float32:
        return torch.autocast(device.type, dtype)
    return nullcontext() if device.type == "cpu" else _without_tf32()


@contextmanager
def _without_tf32() -> Generator[None]:
    """Keep convolutions from rounding to the 10 bits of TF32, unless the user has said what each operator may do."""
    cudnn = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # how PyTorch says that operators have settings of their own
        yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # AVX-512 without BF16 computes bfloat16 by way of float32, slower than float32 itself
    return _has_amx() or torch.cpu._is_avx512_bf16_supported()  # pyright: ignore[reportPrivateUsage]


def _has_amx() -> bool:
    return torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]
