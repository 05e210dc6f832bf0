"""Which device and which number format a stage runs on, in words a person can check."""

import errno
import importlib
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError

from dpo_pipeline.core.errors import CapacityError
from dpo_pipeline.modeling.settings import ComputeSettings, Precision

CGROUP = Path("/sys/fs/cgroup")

# Beyond this a CPU gains no speed, only memory use: products are efficient already and activations leave the caches.
CPU_BATCH_TOKENS = 1_024


@dataclass(frozen=True, slots=True)
class Device:
    """Where tensors live.

    Attributes:
        kind: cuda, mps or cpu.
        name: The card's or machine's name for people.
        precision: bf16 or fp32, never auto.
        memory_bytes: Memory a training could have at most.
        batch_tokens: Most tokens in one forward pass.
    """

    kind: str
    name: str
    precision: Precision
    memory_bytes: int
    batch_tokens: int

    @property
    def torch(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.kind)

    @property
    def sentence(self) -> str:
        """Device, memory and precision in one sentence."""
        return f"Running on {self.name} ({self.kind}, {self.memory_bytes / 2**30:.1f} GiB) in {self.precision}"

    def autocast(self) -> "torch.autocast | nullcontext[None]":
        """The context matrix products run in: bf16 with fp32 reductions, or nothing at all."""
        if self.precision is Precision.BF16:
            return torch.autocast(self.kind, torch.bfloat16)
        return nullcontext()


def choose_device(compute: ComputeSettings) -> Device:
    """The device the settings ask for, made ready: threads, denormals, precision.

    Raises:
        CapacityError: If it is not on this machine or lacks the precision asked for.
    """
    kind, tokens = _kind(compute.device), compute.batch_tokens
    if kind == "cpu":
        torch.set_num_threads(compute.threads or max(1, len(os.sched_getaffinity(0)) // compute.processes))
        # A saturated loss has gradients so small that a CPU computes them ten times slower; as zeros they are free.
        torch.set_flush_denormal(True)
        # A CPU computes bf16 too, but not every one is faster with it: it has to be asked for.
        precision = Precision.FP32 if compute.precision is Precision.AUTO else compute.precision
        name = f"CPU with {torch.get_num_threads()} threads"
        memory = int(min(psutil.virtual_memory().total, _container_limit()))
        return Device(kind, name, precision, memory, min(tokens, CPU_BATCH_TOKENS))
    _require_a_card_each(kind, compute.processes)
    if kind == "cuda":
        card = torch.cuda.get_device_properties(torch.cuda.current_device())
        best = Precision.BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else Precision.FP32
        return Device(kind, card.name, _precision(compute.precision, best=best), card.total_memory, tokens)
    precision = _precision(compute.precision, best=Precision.FP32)
    return Device(kind, "Apple GPU", precision, torch.mps.recommended_max_memory(), tokens)


def peak_memory_bytes(device: Device) -> int:
    """The most memory this process has used: of the card where there is one, else resident memory."""
    if device.kind == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory_bytes(device: Device) -> float:
    """Memory a training could take now: free on the card, else available in this machine or container."""
    if device.kind == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    used = CGROUP / "memory.current"
    in_container = _container_limit() - (int(used.read_text(encoding="ascii")) if used.exists() else 0)
    return float(min(psutil.virtual_memory().available, in_container))


@contextmanager
def capacity_in_words(doing: str) -> Iterator[None]:
    """Turn running out of memory or disk into a CapacityError that says what to change.

    Args:
        doing: What was being done: "training".
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise CapacityError(f"memory ran out while {doing}", do=MORE_MEMORY) from error
        # safetensors has no type of its own for a full disk; its words are all there is.
        is_full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
        if is_full or any(words in str(error) for words in WORDS_FOR_NO_DISK):
            raise CapacityError(f"the disk filled up while {doing}", do=MORE_DISK) from error
        raise


def require_bitsandbytes(setting: str) -> Any:
    """The bitsandbytes package, for what the setting asks for.

    Raises:
        CapacityError: If it is not installed or there is no CUDA card.
    """
    return _cuda_package("bitsandbytes", extra="quantized", setting=setting)


def require_liger(setting: str) -> Any:
    """Liger's package of fused kernels, for what the setting asks for.

    Raises:
        CapacityError: If it is not installed or there is no CUDA card.
    """
    return _cuda_package("liger_kernel.transformers", extra="kernels", setting=setting)


def _cuda_package(name: str, *, extra: str, setting: str) -> Any:
    try:
        package = importlib.import_module(name) if torch.cuda.is_available() else None
    except ImportError:
        package = None
    if package is None:
        raise CapacityError(
            f"{setting} needs {name.partition('.')[0]} and a CUDA card; this machine lacks one of them",
            do=f"Install dpo-pipeline[{extra}] on a CUDA machine, or change the setting",
        )
    return package


WORDS_FOR_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation")
WORDS_FOR_NO_DISK = ("No space left on device", "Disk quota exceeded")
MORE_MEMORY = (
    "Lower compute.batch_tokens, switch on compute.gradient_checkpointing, or train an adapter (model.adapter); "
    "a retry resumes from the last checkpoint"
)
MORE_DISK = "Free some space and run again; a retry resumes from the last checkpoint"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on a CPU torch says so in the words of a RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS_FOR_NO_MEMORY)
    )


def _kind(wanted: str) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(kind for kind, is_there in there.items() if is_there)
    if not there[wanted]:
        found = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise CapacityError(
            f"compute.device is {wanted}, and this machine has {found} only",
            do="Set compute.device to auto, or run on a machine that has it",
        )
    return wanted


def _require_a_card_each(kind: str, processes: int) -> None:
    cards = torch.cuda.device_count() if kind == "cuda" else 1
    if processes > cards:
        raise CapacityError(
            f"compute.processes is {processes}, and this machine has {cards} {kind} device(s)",
            expected="at most one process to a device; on a CPU any number",
            do=f"Set compute.processes to {cards}",
        )


def _precision(wanted: Precision, *, best: Precision) -> Precision:
    if wanted is Precision.AUTO:
        return best
    if wanted is Precision.BF16 and best is not Precision.BF16:
        raise CapacityError(
            "compute.precision is bf16, which this device does not have", do="Set compute.precision to auto or fp32"
        )
    return wanted


def _container_limit() -> float:
    """The memory this container may use at most; infinite where nothing limits it."""
    limit = CGROUP / "memory.max"
    text = limit.read_text(encoding="ascii").strip() if limit.exists() else "max"
    return float("inf") if text == "max" else float(text)
