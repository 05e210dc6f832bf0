"""The output head where a loss is taken, and nowhere else: log-probs of N given tokens, tile by tile.

Logits of a tile are formed, reduced in fp32 and dropped; the backward pass forms them again. Shapes: N tokens, C width,
V vocabulary.
"""

from typing import Any, NamedTuple

import torch

TILE_ELEMENTS = 1 << 20
"""Most logits at once, 4 MiB in fp32, unless that is too few rows."""
LEAST_ROWS = 128
"""Fewer rows would read the whole output matrix too often: at 128,256 tokens this is a tile of 63 MiB."""


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
        tiles = _tiles(len(targets), len(weight))
        logps = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        normalizers = torch.empty_like(logps)
        logits = None
        for tile in tiles:
            logits = _logits(hidden[tile], weight, bias, finish)
            normalizers[tile] = logits.logsumexp(-1)
            logps[tile] = logits.gather(-1, targets[tile, None])[:, 0] - normalizers[tile]
        # One tile is small enough to keep; of several, each is formed again when its gradient is due.
        ctx.save_for_backward(hidden, weight, bias, targets, normalizers, logits if len(tiles) == 1 else None)
        ctx.finish = finish
        return logps

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  torch types it for any number of gradients
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, normalizers, kept = ctx.saved_tensors
        finish: Finish = ctx.finish
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if needs_weight else None
        grad_bias = torch.zeros(len(weight), dtype=torch.float32, device=weight.device) if needs_bias else None
        for tile in _tiles(len(targets), len(weight)):
            logits = _logits(hidden[tile], weight, bias, finish) if kept is None else kept
            slope = finish.scale if finish.cap is None else finish.scale * (1 - (logits / finish.cap) ** 2)
            scores = logits.sub_(normalizers[tile, None]).exp_().mul_(-grad[tile, None])
            scores.scatter_add_(1, targets[tile, None], grad[tile, None])
            scores = (scores if finish == Finish() else scores.mul_(slope)).to(hidden.dtype)
            if grad_bias is not None:
                grad_bias += scores.sum(0)
            if grad_hidden is not None:
                grad_hidden[tile] = scores @ weight
            if grad_weight is not None and grad_weight.dtype == hidden.dtype:
                grad_weight.addmm_(scores.T, hidden[tile])
            elif grad_weight is not None:
                grad_weight += scores.T @ hidden[tile]
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(weight.dtype),
            None,
            None,
        )


def _logits(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, finish: Finish) -> torch.Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
    if finish.scale != 1:
        logits = logits * finish.scale
    return logits if finish.cap is None else finish.cap * torch.tanh(logits / finish.cap)


def rows_of_a_tile(vocabulary: int) -> int:
    """How many tokens' logits are formed at once."""
    return max(LEAST_ROWS, TILE_ELEMENTS // vocabulary)


def _tiles(tokens: int, vocabulary: int) -> list[slice]:
    rows = rows_of_a_tile(vocabulary)
    return [slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows)]
