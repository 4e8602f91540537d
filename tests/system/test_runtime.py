"""Devices, memory and precision, without a GPU."""

import contextlib
import errno
import subprocess

import cv2
import numpy as np
import pytest
import torch

from stereo.attention import ATTENTIONS
from stereo.errors import UsageError
from stereo.matching.engine import computing_in
from stereo.matching.options import MatchOptions
from stereo.models.kernels import pick_kernels
from stereo.system import cgroups, machine, runtime
from stereo.system.opencv import quiet_opencv
from stereo.system.runtime import exact_fp32, free_bytes, is_out_of_memory, pick_device
from stereo.training.config import TrainerConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def raised(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


OUT_OF_MEMORY = [
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried "
    "to allocate 4000000000000 bytes.",
    "std::bad_alloc",
    "Triton Error [CUDA]: out of memory",
    "Invalid buffer size: 20.00 GiB",
    "MPS backend out of memory (MPS allocated: 17.0 GiB, max allowed: 18.1 GiB)",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "unable to mmap 4096 bytes from file </x>: Cannot allocate memory (12)",
    "CUDA driver error: out of memory",
    "HIP error: out of memory",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
]
OTHER_FAULTS = [
    "unsupported memory format option ChannelsLast3d",
    "required rank 4 tensor to use channels_last format, memory format wrong",
    "CUDA error: an illegal memory access was encountered",
    "could not create a memory object",
    "some elements of the input tensor and the written-to tensor refer to a single memory location",
    "Trying to access pinned memory of another device",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "shared memory limit exceeded; raise /dev/shm",
]


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_library_out_of_memory_messages_are_recognised(text):
    assert is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("text", OTHER_FAULTS)
def test_other_errors_that_mention_memory_are_not(text):
    assert not is_out_of_memory(RuntimeError(text))


def test_real_errors_and_out_of_memory_types_are_distinguished():
    assert is_out_of_memory(raised(lambda: torch.empty(2**58)))
    assert is_out_of_memory(raised(lambda: np.empty(2**58)))
    assert is_out_of_memory(raised(lambda: cv2.resize(np.zeros((1, 1), np.uint8), (2**30, 2**30))))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(OSError(errno.ENOENT, "std::bad_alloc"))
    assert not is_out_of_memory(ValueError("std::bad_alloc"))
    assert not is_out_of_memory(raised(lambda: cv2.cvtColor(np.zeros(3), cv2.COLOR_BGR2GRAY)))
    assert not is_out_of_memory(raised(lambda: torch.zeros(2).view(3)))


def test_out_of_memory_of_onnx_runtime_is_recognised_by_its_module():
    text = "Failed to allocate memory for requested buffer of size 4096"
    theirs = type("RuntimeException", (Exception,), {"__module__": "onnxruntime.capi.state"})
    assert is_out_of_memory(theirs(text))
    assert not is_out_of_memory(type("Other", (Exception,), {})(text))


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Give a function that writes a tree of control groups and makes it this process's."""
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")

    def write(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return free_bytes(CPU)

    return write


MIB = 2**20


def test_page_cache_of_a_container_counts_as_free(container):
    files = {
        "memory.max": f"{100 * MIB}\n",
        "memory.current": f"{90 * MIB}\n",
        "memory.stat": f"anon {10 * MIB}\nfile {80 * MIB}\ninactive_file {70 * MIB}\n",
    }
    assert container("0::/\n", files) == 80 * MIB


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "400000 100000"}, 2),
        (
            "3:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        (
            "3:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        (
            "4:cpuset:/b\n3:cpu,cpuacct:/a\n",
            {
                "cpu/a/cpu.cfs_quota_us": "50000\n",
                "cpu/a/cpu.cfs_period_us": "100000\n",
                "cpu/b/cpu.cfs_quota_us": "25000\n",
                "cpu/b/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        ("0::/kubepods-pod1.slice:cri-containerd:abc\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("", {}, None),
    ],
)
def test_the_quota_of_a_container_is_read(container, own, files, quota):
    container(own, files)
    assert cgroups.cpu_quota() == quota


def test_the_closest_limit_of_nested_groups_counts(container):
    files = {
        "a/memory.max": f"{50 * MIB}",
        "a/memory.current": f"{30 * MIB}",
        "a/memory.stat": f"inactive_file {5 * MIB}",
        "a/b/memory.max": "max",
        "a/b/memory.current": f"{20 * MIB}",
        "a/b/memory.stat": f"inactive_file {5 * MIB}",
        "c/memory.max": "1",
        "c/memory.current": "1",
    }
    assert container("0::/a/b\n", files) == 25 * MIB


def test_a_group_whose_path_is_the_hosts_is_read_at_the_root(container):
    files = {"memory.max": f"{50 * MIB}", "memory.current": f"{30 * MIB}"}
    assert container("0::/kubepods/pod1/abc\n", files) == 20 * MIB


def test_cgroups_of_version_1_are_read_too(container):
    files = {
        "memory/docker/x/memory.limit_in_bytes": f"{64 * MIB}",
        "memory/docker/x/memory.usage_in_bytes": f"{60 * MIB}",
        "memory/docker/x/memory.stat": f"inactive_file 1\ntotal_inactive_file {40 * MIB}",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.usage_in_bytes": f"{60 * MIB}",
    }
    assert container("5:cpu,cpuacct:/x\n4:memory:/docker/x\n0::/\n", files) == 44 * MIB


def test_no_limit_and_an_exceeded_limit_are_handled(container):
    assert container("0::/\n", {"memory.max": "max", "memory.current": "5"}) > MIB
    assert container("0::/\n", {"memory.max": "5", "memory.current": "9"}) == 0


def precision():
    cudnn = torch.backends.cudnn
    return {
        "everywhere": torch.backends.fp32_precision,
        "cudnn": cudnn.fp32_precision,
        "convolutions": cudnn.conv.fp32_precision,
        "rnn": cudnn.rnn.fp32_precision,
        "matmul": torch.backends.cuda.matmul.fp32_precision,
        "enabled": cudnn.enabled,
        "benchmark": cudnn.benchmark,
        "deterministic": cudnn.deterministic,
    }


@pytest.fixture
def restored():
    """Begin and end with PyTorch's defaults, whatever ran before in this process."""
    _set_defaults()
    kept = precision()
    yield
    _set_defaults()
    assert precision() == kept


def _set_defaults():
    cudnn = torch.backends.cudnn
    torch.backends.fp32_precision = cudnn.fp32_precision = "none"
    torch.backends.cuda.matmul.fp32_precision = "none"
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "tf32"
    cudnn.benchmark, cudnn.deterministic = False, False


SETTINGS = {
    "none": lambda torch: None,
    "all of PyTorch": lambda torch: setattr(torch.backends, "fp32_precision", "tf32"),
    "all of it, ieee": lambda torch: setattr(torch.backends, "fp32_precision", "ieee"),
    "cuDNN": lambda torch: setattr(torch.backends.cudnn, "fp32_precision", "tf32"),
    "convolutions": lambda torch: setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"),
    "products": lambda torch: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "without": lambda torch: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "the older way": lambda torch: setattr(torch.backends.cudnn, "allow_tf32", False),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_fp32_is_exact_and_the_callers_settings_stay(setting, restored):
    SETTINGS[setting](torch)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True
    before = precision()
    with computing_in(torch.float32, CPU):
        inside = precision()
    assert precision() == before
    assert "tf32" not in (inside["convolutions"], inside["matmul"])
    for name in ("enabled", "benchmark", "deterministic"):
        assert inside[name] == before[name]
    with computing_in(torch.bfloat16, CPU):
        assert precision() == before


def test_a_default_stays_a_default(restored):
    # PyTorch has no way back from a setting to its default: a process of its own would be needed.
    torch.backends.cudnn.conv.fp32_precision = "none"
    torch.backends.fp32_precision = "tf32"
    with contextlib.suppress(ZeroDivisionError), exact_fp32():
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        raise ZeroDivisionError
    torch.backends.fp32_precision = "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"


@pytest.mark.parametrize("options", [MatchOptions, TrainerConfig])
def test_a_match_and_a_recipe_take_the_same_devices(options):
    for device in ("auto", "cpu", "cuda", "cuda:1", "mps"):
        assert options(device=device).device == device
    for device in ("tpu", "cuda:", "cuda:x", "cuda:01", "cpu:1", 3):
        with pytest.raises(UsageError, match="device"):
            options(device=device)


def test_a_gpu_beyond_those_of_the_machine_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="no device 'cuda:2'"):
        pick_device("cuda:2")


def test_each_of_torchruns_processes_has_a_gpu_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda:1")
    assert pick_device("cuda:0") == torch.device("cuda:0")
    assert pick_device("cpu") == CPU


def test_free_memory_of_a_gpu_includes_what_pytorch_keeps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5 * MIB, 90 * MIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 30 * MIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 10 * MIB)
    assert free_bytes(CUDA) == 25 * MIB


def test_fp16_on_the_cpu_and_emulated_bf16_are_not_used(monkeypatch):
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        runtime.pick_dtype("fp16", CPU)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert runtime.pick_dtype("fp16", CUDA) == torch.float16
    assert runtime.pick_dtype("auto", CUDA, bf16_by_default=True) == torch.float32


@pytest.mark.parametrize("options", [MatchOptions, TrainerConfig])
@pytest.mark.parametrize("wrong", [{"precision": "fp64"}, {"kernels": "cuda"}], ids=str)
def test_unknown_precisions_and_kernels_are_refused(options, wrong):
    with pytest.raises(UsageError, match="unknown"):
        options(**wrong)


def test_auto_selects_nothing_untested(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    assert pick_device("cpu:0").type == "cpu"  # as accelerate names it in several processes
    assert pick_device("mps").type == "mps"
    assert pick_kernels("auto", CUDA) == "torch"


@pytest.mark.parametrize("source", ["file", "platform"])
@pytest.mark.parametrize(
    ("instructions", "vendor", "fast"),
    [
        ("", "AuthenticAMD", False),
        ("_is_avx512_bf16_supported", "AuthenticAMD", True),
        ("_is_avx512_bf16_supported", "GenuineIntel", False),
        ("_is_amx_tile_supported", "GenuineIntel", True),
    ],
)
def test_auto_is_bf16_where_that_is_faster(
    monkeypatch, tmp_path, source, instructions, vendor, fast
):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == instructions)
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(runtime, "_CPU_INFO", file)
    if source == "file":
        file.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu vme\n\n")
    else:
        monkeypatch.setattr(runtime.platform, "processor", lambda: f"Family 6 Model 1, {vendor}")
    monkeypatch.setattr(runtime, "cpu_facts", runtime.cpu_facts.__wrapped__)
    cpu = torch.device("cpu")
    assert runtime.has_bf16(cpu) == bool(instructions)
    expected = torch.bfloat16 if fast else torch.float32
    assert runtime.pick_dtype("auto", cpu, bf16_by_default=True) == expected
    assert runtime.pick_dtype("auto", cpu) == torch.float32


@pytest.mark.parametrize("name", ["performer", "reformer"])
def test_redrawing_keeps_the_buffers_and_their_device(name):
    module = ATTENTIONS[name](8)
    before = dict(module.named_buffers())
    module.begin_step(1000)
    after = dict(module.named_buffers())
    assert before and all(after[key] is tensor for key, tensor in before.items())
    module.to("meta").begin_step(2000)
    assert {buffer.device.type for buffer in module.buffers()} == {"meta"}


def test_exact_fp32_lasts_as_long_as_one_thread_is_in_it(restored):
    first, second = exact_fp32(), exact_fp32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"


def test_an_installed_package_is_of_no_commit(tmp_path, monkeypatch):
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "lib" / "stereo" / "system" / "a.py"))
    (tmp_path / "lib").mkdir()
    assert machine.commit() is None


def test_a_clone_is_of_its_commit_and_marked_when_changed(tmp_path, monkeypatch):
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a"]
    (tmp_path / "file").write_text("a")
    for call in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *call], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True)[:12]
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "stereo" / "system" / "a.py"))
    assert machine.commit() == head
    (tmp_path / "file").write_text("b")
    assert machine.commit() == f"{head}+"


def test_opencv_is_silent_for_the_block_alone():
    log = cv2.utils.logging
    before = log.getLogLevel()
    with contextlib.suppress(ZeroDivisionError), quiet_opencv():
        assert log.getLogLevel() == log.LOG_LEVEL_SILENT != before
        raise ZeroDivisionError
    assert log.getLogLevel() == before
