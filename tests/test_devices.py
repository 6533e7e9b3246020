from __future__ import annotations

import platform
import re
import resource
from pathlib import Path

import pytest
import torch

from gfocal.devices import _container_share, autocast, choose_device, choose_precision, described, settle, threads_each
from gfocal.errors import UserError

CPU = torch.device("cpu")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")


def test_the_gpu_is_taken_where_there_is_one() -> None:
    expected = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device(None) == choose_device("auto") == expected


def test_a_named_device_is_taken() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device(CPU) == CPU


@without_cuda
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no CUDA device"):
        choose_device(name)


@pytest.mark.parametrize("name", ["gpu", "cpux", "", "cudaa" if torch.cuda.is_available() else "tpu!"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="choose from auto, cpu, cuda"):
        choose_device(name)


@pytest.mark.parametrize("name", ["meta", "vulkan", "mtia"])
def test_a_device_this_machine_lacks_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name):
        choose_device(name)


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_named_precision_is_taken(name: str, dtype: torch.dtype) -> None:
    assert choose_precision(name, CPU) is dtype


def test_float16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match=r"float16.*GPU"):
        choose_precision("float16", CPU)
    assert choose_precision("float16", torch.device("cuda")) is torch.float16


def test_left_to_itself_the_precision_is_one_the_device_is_fast_in() -> None:
    chosen = choose_precision(None, CPU)
    assert chosen is choose_precision("auto", CPU)
    assert chosen in (torch.float32, torch.bfloat16)


def test_an_unknown_precision_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        choose_precision("bf16", CPU)


def test_float32_on_a_gpu_is_not_rounded_to_tf32_and_the_users_setting_stays() -> None:
    for allowed in (True, False):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=allowed):
            with autocast(torch.float32, torch.device("cuda")):
                assert not torch.backends.cudnn.allow_tf32
            assert torch.backends.cudnn.allow_tf32 == allowed


def test_autocast_runs_convolutions_in_the_chosen_precision() -> None:
    conv = torch.nn.Conv2d(3, 4, 3)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.no_grad(), autocast(dtype, CPU):
            assert conv(torch.zeros(1, 3, 8, 8)).dtype is dtype


def test_threads_are_cut_to_the_share_of_the_container(tmp_path: Path) -> None:
    limits = tmp_path / "cpu.max"
    for text, share in (("150000 100000\n", 1), ("400000 100000\n", 4), ("10000 100000\n", 1), ("max 100000\n", None)):
        limits.write_text(text)
        assert _container_share(limits) == share
    assert _container_share(tmp_path / "missing") is None


def test_what_computes_is_told() -> None:
    threads = torch.get_num_threads()
    assert re.fullmatch(
        rf"by PyTorch on cpu \(.+\) in bfloat16, {threads} threads?", described("PyTorch", CPU, torch.bfloat16)
    )
    assert described("onnxruntime 1.20", "cpu", "int8").startswith("by onnxruntime 1.20 on cpu in int8, ")
    assert described("onnxruntime 1.20", "cuda", "int8") == "by onnxruntime 1.20 on cuda in int8"


def page_faults_of_feature_maps() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16 * 2**20)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory as they see fit")
def test_memory_that_is_freed_is_kept_for_the_next_feature_map() -> None:
    settle()
    page_faults_of_feature_maps()
    assert page_faults_of_feature_maps() < 1000


def test_processes_share_the_threads_of_this_one_however_many_cores_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert [threads_each(count) for count in (1, 2, 3, 9)] == [5, 2, 1, 1]
