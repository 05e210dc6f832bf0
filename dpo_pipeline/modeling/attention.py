"""Attention over packed groups: each prompt is encoded once and its responses are branches blind to each other.

Registered with transformers under `NAME`: for a name it does not know, transformers builds no mask and hands the
`layout` keyword through every layer to the function here, so no model is patched. Shapes: H heads, G key/value heads,
T packed tokens, D head size.

The first response is attended together with its prompt as one causal sequence; every further response attends to the
prompt's keys and values and, causally, to itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

NAME = "shared_prompt"

Lengths = tuple[tuple[int, tuple[int, ...]], ...]
"""Per group the prompt's length and the responses' lengths, in tokens."""


class Layout:
    """Where groups, prompts and responses lie in a packed row, and what the attention derives from it once per batch.

    Args:
        groups: Per group the prompt's length and the responses' lengths.
        device: Where the masks are needed.
    """

    def __init__(self, groups: Lengths, device: torch.device) -> None:
        self.groups, self.device = groups, device
        self._masks: dict[tuple[int, int, torch.dtype], torch.Tensor] = {}

    @cached_property
    def pieces(self) -> list[int]:
        """Lengths to split the row into: prompt + first response, then each further response; group after group."""
        return [size for prompt, (first, *others) in self.groups for size in (prompt + first, *others)]

    def branch_mask(self, prompt: int, response: int, dtype: torch.dtype) -> torch.Tensor:
        """What a further response adds to its scores: 0 where it may look, else -inf; (response, prompt + response)."""
        key = (prompt, response, dtype)
        if key not in self._masks:
            blocked = torch.full((response, prompt + response), float("-inf"), dtype=dtype, device=self.device)
            self._masks[key] = blocked.triu(prompt + 1)
        return self._masks[key]

    @cached_property
    def varlen(self) -> "VarlenPlan":
        """The same attention as one variable-length call."""
        return VarlenPlan(self)


class VarlenPlan:
    """Sequences of queries and gathered keys for one causal, bottom-right aligned variable-length attention call.

    Attributes:
        gather: Positions in T of the keys and values, prompts repeated for every further response, (K,).
        query_bounds: Cumulated query lengths, (sequences + 1,), int32.
        key_bounds: Cumulated key lengths, likewise.
        longest_query: Longest query sequence.
        longest_key: Longest key sequence.
    """

    def __init__(self, layout: Layout) -> None:
        gather, queries, keys, start = [], [], [], 0
        for prompt, (first, *others) in layout.groups:
            gather.append(torch.arange(start, start + prompt + first))
            queries.append(prompt + first)
            keys.append(prompt + first)
            branch = start + prompt + first
            for response in others:
                gather += [torch.arange(start, start + prompt), torch.arange(branch, branch + response)]
                queries.append(response)
                keys.append(prompt + response)
                branch += response
            start = branch
        self.gather = torch.cat(gather).to(layout.device)
        self.query_bounds = _bounds(queries).to(layout.device)
        self.key_bounds = _bounds(keys).to(layout.device)
        self.longest_query, self.longest_key = max(queries), max(keys)


def shared_prompt_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one packed row; the signature is transformers' AttentionInterface.

    Args:
        module: The attention layer; gives the default scale.
        query: (1, H, T, D).
        key: (1, G, T, D).
        value: (1, G, T, D).
        attention_mask: None: transformers builds none for this name.
        options: `layout` (required), `scaling`, `dropout`; the rest is not for us.

    Returns:
        (1, T, H, D), and None for the attention weights.
    """
    layout: Layout = options["layout"]
    scale = options.get("scaling")
    dropout = options.get("dropout", 0.0)
    if query.is_cuda and query.dtype in {torch.bfloat16, torch.float16} and dropout == 0:
        return _varlen(query, key, value, layout=layout, scale=scale), None
    return _split(query, key, value, layout=layout, scale=scale, dropout=dropout), None


def _split(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, layout: Layout, scale: float | None, dropout: float
) -> torch.Tensor:
    """One scaled-dot-product call per piece: flash kernels, no mask for first responses, a small one for the others."""
    share = query.shape[1] // key.shape[1]
    if share > 1:
        key, value = key.repeat_interleave(share, dim=1), value.repeat_interleave(share, dim=1)
    # `split`, not slices: the gradient of a slice is a row of zeros as long as T, once per slice.
    pieces = zip(*(states.split(layout.pieces, dim=2) for states in (query, key, value)), strict=True)
    outputs = []
    for prompt, (_, *others) in layout.groups:
        q, k, v = next(pieces)
        outputs.append(scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout))
        prompt_keys, prompt_values = k[:, :, :prompt], v[:, :, :prompt]
        for response in others:
            q, k, v = next(pieces)
            k, v = torch.cat([prompt_keys, k], dim=2), torch.cat([prompt_values, v], dim=2)
            mask = layout.branch_mask(prompt, response, q.dtype)
            outputs.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, dropout_p=dropout))
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1)


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, layout: Layout, scale: float | None
) -> torch.Tensor:
    """One flash call for all pieces; keys and values gathered so that every branch has its prompt's before its own."""
    from torch.nn.attention.varlen import varlen_attn

    plan = layout.varlen
    output = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1)[plan.gather],
        value[0].transpose(0, 1)[plan.gather],
        plan.query_bounds,
        plan.key_bounds,
        plan.longest_query,
        plan.longest_key,
        scale=scale,
        window_size=(-1, 0),  # causal, aligned at the bottom right
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, torch.Tensor)
    return output[None]


def _bounds(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """The model with another attention for a while: `NAME` for packed rows, `sdpa` for everything else."""
    before = model.config._attn_implementation  # noqa: SLF001  transformers' own name for it, without a public one
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


AttentionInterface.register(NAME, shared_prompt_attention)
