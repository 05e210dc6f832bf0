"""Attention over packed groups: each prompt is encoded once and its responses are branches blind to each other.

Registered with transformers under `NAME`: for a name it does not know, transformers builds no mask and hands the
`layout` keyword through every layer to the function here, so no model is patched. Shapes: H heads, G key/value heads,
T packed tokens, D head size.

The first response is attended together with its prompt as one causal sequence; every further response attends to the
prompt's keys and values and, causally, to itself.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

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
        last_layer: Index of a layer after which nobody asks for the prompts' rows but the last one of each: their
            queries are skipped there, and zeros stand in. None: no such layer.
        padding: Tokens behind the last group that nobody looks at and that look at nothing: zeros stand in for them.
    """

    def __init__(
        self, groups: Lengths, device: torch.device, *, last_layer: int | None = None, padding: int = 0
    ) -> None:
        self.groups, self.device, self.last_layer, self.padding = groups, device, last_layer, padding
        self._masks: dict[tuple[int, int, int | None, torch.dtype], torch.Tensor] = {}

    @cached_property
    def pieces(self) -> list[int]:
        """Lengths to split the row into: prompt + first response, then each further response; group after group."""
        pieces = [size for prompt, (first, *others) in self.groups for size in (prompt + first, *others)]
        return [*pieces, self.padding] if self.padding else pieces

    def mask(self, queries: int, keys: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores of the last `queries` of `keys` positions: 0 where they may look, else -inf.

        Args:
            queries: Rows: positions keys - queries ... keys - 1.
            keys: Columns: positions 0 ... keys - 1.
            window: How many positions, itself included, a query may look back on; None for all.
            dtype: Number format of the scores.
        """
        key = (queries, keys, window, dtype)
        if key not in self._masks:
            blocked = torch.full((queries, keys), float("-inf"), dtype=dtype, device=self.device)
            future = blocked.triu(keys - queries + 1)
            self._masks[key] = future if window is None else future + blocked.tril(keys - queries - window)
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


class Terms(NamedTuple):
    """How scores are formed: scale, dropout, how far back a query looks, and the cap some models put on scores."""

    scale: float | None
    dropout: float
    window: int | None
    cap: float | None


def shared_prompt_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one packed row; the signature is transformers' AttentionInterface.

    Args:
        module: The attention layer; its `layer_idx` tells whether it is the last.
        query: (1, H, T, D).
        key: (1, G, T, D).
        value: (1, G, T, D).
        options: `layout` (required), `scaling`, `dropout`, `sliding_window`, `softcap`.

    Returns:
        (1, T, H, D), and None for the attention weights.

    Raises:
        NotImplementedError: If the model wants something else of its attention, such as sinks.
    """
    for name in ("s_aux", "position_bias", "head_mask"):
        if options.get(name) is not None:
            message = f"attention with {name}"
            raise NotImplementedError(message)
    layout: Layout = options["layout"]
    terms = Terms(
        options.get("scaling"), options.get("dropout", 0.0), options.get("sliding_window"), options.get("softcap")
    )
    # The rotary embedding of fp32 weights leaves fp32 queries, also under autocast; products round them all the same.
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    has_kernel = query.is_cuda and dtype in {torch.bfloat16, torch.float16} and varlen_kernel() is not None
    is_plain = not terms.dropout and terms.cap is None and query.shape[-1] == value.shape[-1]
    if has_kernel and is_plain:
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        return _varlen(query, key, value, layout=layout, terms=terms), None
    is_last = layout.last_layer is not None and getattr(module, "layer_idx", None) == layout.last_layer
    return _split(query, key, value, layout=layout, terms=terms, skip_prompts=is_last), None


def _split(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    layout: Layout,
    terms: Terms,
    skip_prompts: bool = False,
) -> torch.Tensor:
    """One call per piece: first responses with their prompt, causal; further ones against prompt and themselves."""
    share = query.shape[1] // key.shape[1]
    if share > 1:
        key, value = key.repeat_interleave(share, dim=1), value.repeat_interleave(share, dim=1)
    # `split`, not slices: the gradient of a slice is a row of zeros as long as T, once per slice.
    pieces = zip(*(states.split(layout.pieces, dim=2) for states in (query, key, value)), strict=True)
    outputs = []
    for prompt, (_, *others) in layout.groups:
        q, k, v = next(pieces)
        if skip_prompts and prompt > 1:
            outputs.append(v.new_zeros(*q.shape[:2], prompt - 1, v.shape[-1]))
            q = q[:, :, prompt - 1 :]
        outputs.append(_attend(q, k, v, layout=layout, terms=terms))
        for _ in others:
            q, own_k, own_v = next(pieces)
            branch_k, branch_v = torch.cat([k[:, :, :prompt], own_k], 2), torch.cat([v[:, :, :prompt], own_v], 2)
            outputs.append(_attend(q, branch_k, branch_v, layout=layout, terms=terms))
    if layout.padding:
        _, _, v = next(pieces)
        outputs.append(torch.zeros_like(v))
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, layout: Layout, terms: Terms) -> torch.Tensor:
    """Causal attention of the last positions to all: a flash kernel without a mask wherever one will do."""
    queries, keys = q.shape[2], k.shape[2]
    window = terms.window if terms.window is not None and terms.window < keys else None
    if terms.cap is not None:
        scale = terms.scale if terms.scale is not None else q.shape[-1] ** -0.5
        scores = terms.cap * torch.tanh(q @ k.transpose(-1, -2) * (scale / terms.cap))
        weights = (scores + layout.mask(queries, keys, window, q.dtype)).float().softmax(-1).to(q.dtype)
        return torch.dropout(weights, terms.dropout, terms.dropout > 0) @ v
    if queries == keys and window is None:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=terms.scale, dropout_p=terms.dropout)
    mask = layout.mask(queries, keys, window, q.dtype)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=terms.scale, dropout_p=terms.dropout)


@functools.cache
def varlen_kernel() -> Callable[..., Any] | None:
    """Torch's flash attention over sequences of various lengths; None where torch has none with windows (before 2.11).

    It takes fewer key heads than query heads from torch 2.12 on; before, keys and values are spread to all query heads.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if "window_size" not in known:
        return None

    def call(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *bounds: Any, **options: Any) -> Any:
        share = query.shape[1] // key.shape[1]
        if share > 1 and "enable_gqa" in known:
            options["enable_gqa"] = True
        elif share > 1:
            key, value = key.repeat_interleave(share, dim=1), value.repeat_interleave(share, dim=1)
        return varlen_attn(query, key, value, *bounds, **options)

    return call


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, layout: Layout, terms: Terms
) -> torch.Tensor:
    """One flash call for all pieces; keys and values gathered so that every branch has its prompt's before its own."""
    plan, kernel = layout.varlen, varlen_kernel()
    assert kernel is not None
    output = kernel(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1)[plan.gather],
        value[0].transpose(0, 1)[plan.gather],
        plan.query_bounds,
        plan.key_bounds,
        plan.longest_query,
        plan.longest_key,
        scale=terms.scale,
        # Causal, aligned at the bottom right: the last query sees the last key.
        window_size=(-1 if terms.window is None else terms.window - 1, 0),
    )
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
        model.set_attn_implementation(before or "sdpa")


AttentionInterface.register(NAME, shared_prompt_attention)
