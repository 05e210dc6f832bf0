"""Matrix products in fp32 on a CPU by the library that is fast on it, and in shapes that come again.

Torch multiplies fp32 matrices with MKL, whose kernels for AMD stop at AVX2: on a Zen 5 core they do 105 GFLOP/s where
oneDNN, which torch brings too, does 240 in the same number format (docs/log.md). oneDNN compiles a kernel for every
shape it meets, at half a millisecond and 0.6 MiB each, so rows are padded to a multiple of `ROWS`.
"""

import functools
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROWS = 64
LEAST_WEIGHTS = 1 << 12
"""Smaller matrices are multiplied sooner than a function of ours is called."""
KERNELS_KEPT = 128
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS_KEPT))  # read at its first use; 1,024 by itself


@functools.cache
def is_faster() -> bool:
    """Whether oneDNN is worth calling by name: on AMD's CPUs with AVX-512, where torch was built with MKL.

    It depends on the machine alone, never on a timing, so that a training that is resumed rounds as it did before.
    """
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and _vendor() == "AuthenticAMD"
    )


def is_by_onednn(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether `product` leaves these to oneDNN: fp32 on a CPU where that is faster, and large enough."""
    is_ours = a.device.type == "cpu" and a.dtype == b.dtype == torch.float32 and b.numel() >= LEAST_WEIGHTS
    return is_ours and is_faster()


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """A @ b.T + bias, without gradients; (N, K), (M, K), (M,) -> (N, M). Any strides will do.

    Where it can and is faster oneDNN computes it, else torch as it always does.
    """
    if is_by_onednn(a, b):
        return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")  # noqa: SLF001  no public name for it
    return torch.nn.functional.linear(a, b, bias)


class _Linear(torch.autograd.Function):
    """x @ weight.T + bias by `product`, and its gradients likewise."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        needs_x, needs_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        return product(_rows(x), weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  torch types it for any number of gradients
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = _rows(grad)
        grad_x = None if weight is None else product(rows, weight.T).view(*grad.shape[:-1], weight.shape[1])
        grad_weight = None if x is None else product(rows.T, _rows(x).T)
        return grad_x, grad_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


@contextmanager
def installed(model: torch.nn.Module) -> Iterator[None]:
    """The model's linear layers multiply by `product` for a while; those in fp32 on a CPU and large enough."""
    layers = [module for module in model.modules() if type(module) is torch.nn.Linear and _is_served(module.weight)]
    for layer in layers:
        layer.forward = functools.partial(_forward, layer)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return _Linear.apply(x, layer.weight, layer.bias)  # pyright: ignore[reportReturnType]


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(..., K) -> (N, K)."""
    return x.reshape(-1, x.shape[-1])


def _is_served(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= LEAST_WEIGHTS


def _vendor() -> str:
    """The CPU's maker as Linux tells it, else as the platform does; perhaps empty."""
    facts = Path("/proc/cpuinfo")
    if not facts.exists():
        return "AuthenticAMD" if "AMD" in platform.processor() else ""
    with facts.open(encoding="utf-8") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
