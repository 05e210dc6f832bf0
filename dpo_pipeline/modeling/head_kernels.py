"""The output head's two elementwise passes as Triton kernels, for CUDA: each reads a tile of logits once.

Written out in torch the same passes read and write a tile of fp32 logits eight times. The logits stay in the number
format of the product (bf16 under autocast), all arithmetic is fp32. Shapes: R rows of a tile, V vocabulary.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false
# Triton comes with torch's CUDA builds only.

import torch
import triton
import triton.language as tl

REDUCE_BLOCK = 4096
SLOPE_BLOCK = 2048


def normalizers_and_chosen(
    logits: torch.Tensor, targets: torch.Tensor, scale: float, cap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-sum-exp of each row of finished logits, and the target's finished logit; both (R,) in fp32.

    Args:
        logits: As the product gave them, (R, V), rows contiguous.
        targets: Token ids, (R,).
        scale: Multiplies the logits.
        cap: Squashes them smoothly to within +-cap; None: it does not.
    """
    rows, vocabulary = logits.shape
    normalizers = torch.empty(rows, dtype=torch.float32, device=logits.device)
    chosen = torch.empty_like(normalizers)
    _reduce[(rows,)](
        logits, logits.stride(0), targets, normalizers, chosen, vocabulary, scale, cap or 1.0,
        HAS_CAP=cap is not None, BLOCK=REDUCE_BLOCK, num_warps=8,
    )  # fmt: skip
    return normalizers, chosen


def to_slopes(
    logits: torch.Tensor,
    targets: torch.Tensor,
    normalizers: torch.Tensor,
    grad: torch.Tensor,
    scale: float,
    cap: float | None,
) -> torch.Tensor:
    """Overwrite logits, (R, V), with grad * d logp / d logits: grad * (onehot - softmax), through cap and scale.

    Args:
        logits: As the product gave them; overwritten and returned.
        targets: Token ids, (R,).
        normalizers: Of the forward pass, (R,).
        grad: Gradient by each row's log-prob, (R,), fp32.
        scale: As in the forward pass.
        cap: Likewise.
    """
    rows, vocabulary = logits.shape
    _slope[(rows, triton.cdiv(vocabulary, SLOPE_BLOCK))](
        logits, logits.stride(0), targets, normalizers, grad.contiguous(), vocabulary, scale, cap or 1.0,
        HAS_CAP=cap is not None, BLOCK=SLOPE_BLOCK, num_warps=8,
    )  # fmt: skip
    return logits


@triton.jit
def _squash(x, cap):
    # tanh(x) = 2 sigmoid(2 x) - 1
    return 2 * tl.sigmoid(2 * x / cap) - 1


@triton.jit
def _reduce(
    logits_ptr, row_stride, targets_ptr, normalizers_ptr, chosen_ptr, vocabulary, scale, cap,
    HAS_CAP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # One program a row: running maximum and running sum of exponentials (Milakov and Gimelshein 2018, algorithm 3).
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_stride
    largest = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocabulary
        x = tl.load(row_ptr + columns, mask=inside, other=0.0).to(tl.float32) * scale
        if HAS_CAP:
            x = cap * _squash(x, cap)
        x = tl.where(inside, x, -float("inf"))
        higher = tl.maximum(largest, x)
        # A lane that has seen nothing yet holds -inf twice, whose difference would be no number.
        total = tl.where(higher == -float("inf"), 0.0, total * tl.exp(largest - higher) + tl.exp(x - higher))
        largest = higher
    top = tl.max(largest, axis=0)
    total_all = tl.sum(total * tl.exp(largest - top), axis=0)
    tl.store(normalizers_ptr + row, top + tl.log(total_all))
    x = tl.load(row_ptr + tl.load(targets_ptr + row)).to(tl.float32) * scale
    if HAS_CAP:
        x = cap * _squash(x, cap)
    tl.store(chosen_ptr + row, x)


@triton.jit
def _slope(
    logits_ptr, row_stride, targets_ptr, normalizers_ptr, grad_ptr, vocabulary, scale, cap,
    HAS_CAP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < vocabulary
    pointers = logits_ptr + row * row_stride + columns
    x = tl.load(pointers, mask=inside, other=0.0).to(tl.float32) * scale
    slope = scale
    if HAS_CAP:
        squashed = _squash(x, cap)
        x = cap * squashed
        slope = scale * (1 - squashed * squashed)
    probability = tl.exp(x - tl.load(normalizers_ptr + row))
    is_target = columns == tl.load(targets_ptr + row)
    gradient = tl.load(grad_ptr + row) * (tl.where(is_target, 1.0, 0.0) - probability) * slope
    tl.store(pointers, gradient.to(logits_ptr.dtype.element_ty), mask=inside)
