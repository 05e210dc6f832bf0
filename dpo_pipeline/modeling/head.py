"""The output head where a loss is taken, and nowhere else: log-probs of N given tokens, tile by tile.

Logits of a tile are formed, reduced in fp32 and dropped; the backward pass forms them again. Shapes: N tokens, C width,
V vocabulary.
"""

import functools
from typing import Any, NamedTuple

import torch

from dpo_pipeline.modeling.products import ROWS, is_by_onednn, product

TILE_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Most logits at once, unless that is too few rows: 4 MiB in fp32 fit a CPU's cache, 256 MiB in bf16 fill a card."""
LEAST_ROWS = 128
"""Fewer rows would read the whole output matrix too often: at 128,256 tokens this is a tile of 63 MiB."""
FP32_BYTES = 4.0


class Finish(NamedTuple):
    """What some models do to their logits: multiply by `scale`, then squash smoothly to within +-`cap`."""

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> "Finish":
        """As a configuration states it: Gemma's cap, Cohere's factor, Granite's divisor."""
        scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
        return cls(float(scale), getattr(config, "final_logit_softcapping", None))


def token_logps(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    *,
    finish: Finish = Finish(),  # noqa: B008  immutable
) -> torch.Tensor:
    """Log softmax(finish(hidden @ weight.T + bias))[targets] in fp32, (N,), without ever holding (N, V).

    Args:
        hidden: Hidden states that predict the targets, (N, C).
        weight: Output embeddings, (V, C).
        bias: Output bias, (V,), or None.
        targets: Token ids, (N,).
        finish: What the model does to its logits.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return _TokenLogps.apply(hidden, weight, bias, targets, finish)


class _TokenLogps(torch.autograd.Function):
    """With p = softmax(logits): d logp / d logits = onehot(target) - p."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        finish: Finish,
    ) -> torch.Tensor:
        tiles = _tiles(len(targets), len(weight), hidden.device)
        logps = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        normalizers = torch.empty_like(logps)
        logits = None
        for tile in tiles:
            logits = product(hidden[tile], weight, bias)
            normalizers[tile], chosen = _normalizers_and_chosen(logits, targets[tile], finish)
            logps[tile] = chosen - normalizers[tile]
        # One tile is small enough to keep; of several, each is formed again when its gradient is due.
        ctx.save_for_backward(hidden, weight, bias, targets, normalizers, logits if len(tiles) == 1 else None)
        ctx.finish = finish
        return logps

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  torch types it for any number of gradients
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, normalizers, kept = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if needs_weight else None
        grad_bias = torch.zeros(len(weight), dtype=torch.float32, device=weight.device) if needs_bias else None
        for tile in _tiles(len(targets), len(weight), hidden.device):
            logits = product(hidden[tile], weight, bias) if kept is None else kept
            slopes = _slopes(logits, targets[tile], normalizers[tile], grad[tile], ctx.finish)
            if grad_bias is not None:
                grad_bias += slopes.sum(0, dtype=torch.float32)
            if grad_hidden is not None:
                grad_hidden[tile] = product(slopes, weight.T)
            if grad_weight is not None:
                _add_product(grad_weight, slopes.T, hidden[tile])
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(weight.dtype),
            None,
            None,
        )


def _normalizers_and_chosen(
    logits: torch.Tensor, targets: torch.Tensor, finish: Finish
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-sum-exp of each row of finished logits, and the target's finished logit; both in fp32."""
    if kernels := _kernels(logits):
        return kernels.normalizers_and_chosen(logits, targets, *finish)
    finished = _finished(logits, finish)
    return finished.logsumexp(-1), finished.gather(-1, targets[:, None])[:, 0]


def _slopes(
    logits: torch.Tensor, targets: torch.Tensor, normalizers: torch.Tensor, grad: torch.Tensor, finish: Finish
) -> torch.Tensor:
    """The gradient by the logits, in their number format; overwrites them where it can."""
    if kernels := _kernels(logits):
        return kernels.to_slopes(logits, targets, normalizers, grad, *finish)
    finished = _finished(logits, finish)
    slope = finish.scale if finish.cap is None else finish.scale * (1 - (finished / finish.cap) ** 2)
    scores = finished.sub_(normalizers[:, None]).exp_().mul_(-grad[:, None])
    scores.scatter_add_(1, targets[:, None], grad[:, None])
    return (scores if finish == Finish() else scores.mul_(slope)).to(logits.dtype)


def _finished(logits: torch.Tensor, finish: Finish) -> torch.Tensor:
    """In fp32; the same memory where nothing is to be done."""
    logits = logits.float()
    if finish.scale != 1:
        logits = logits * finish.scale
    return logits if finish.cap is None else finish.cap * torch.tanh(logits / finish.cap)


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add a @ b to fp32 `total` in place; rounding each tile's product to bf16 first would bias a sum of many tiles."""
    if is_by_onednn(a, b.T):  # which has no adding in place; elsewhere a second matrix of that size is not needed
        total += product(a, b.T)
    elif a.dtype == total.dtype:
        total.addmm_(a, b)
    elif total.is_cuda:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.float(), b.float())


def _kernels(logits: torch.Tensor) -> Any:
    """The fused passes where they can run, else None: on a CUDA card, with Triton, which torch brings on Linux."""
    return _triton_kernels() if logits.is_cuda else None


@functools.cache
def _triton_kernels() -> Any:
    try:
        from dpo_pipeline.modeling import head_kernels
    except ImportError:
        return None
    return head_kernels


def rows_of_a_tile(vocabulary: int, device: str) -> int:
    """How many tokens' logits are formed at once.

    Args:
        vocabulary: Tokens in the vocabulary.
        device: cuda, mps or cpu.
    """
    rows = TILE_ELEMENTS["cuda" if device == "cuda" else "cpu"] // vocabulary
    return max(LEAST_ROWS, rows - rows % ROWS)


def bytes_of_a_logit(device: str, compute_bytes: float) -> float:
    """What a logit of a tile takes at the peak: itself, and what its reduction makes of it.

    Triton's passes read a tile and write the next; torch makes an fp32 copy of one in bf16, and exponentials of that.
    For a card that is not in this machine Triton is taken for granted: torch's builds for CUDA bring it.

    Args:
        device: cuda, mps or cpu.
        compute_bytes: Bytes of a logit as it is computed: 2 or 4.
    """
    if device == "cuda" and not (torch.cuda.is_available() and _triton_kernels() is None):
        return 2 * compute_bytes
    return compute_bytes + FP32_BYTES * (1 if compute_bytes == FP32_BYTES else 2)


def _tiles(tokens: int, vocabulary: int, device: torch.device) -> list[slice]:
    rows = rows_of_a_tile(vocabulary, device.type)
    return [slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows)]
