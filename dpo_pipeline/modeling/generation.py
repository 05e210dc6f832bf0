"""Replies of a model to prompts: batched, with a key-value cache, reproducible by seed."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.modeling.forward import causal_model
from dpo_pipeline.modeling.template import Conversation, Tokens, encode_prompts, end_of_turn_ids

SECONDS_BETWEEN_WORDS = 5.0


class Generated(NamedTuple):
    """A reply as text without special tokens, its tokens (the end not counted), and whether the model ended it."""

    text: str
    token_count: int
    is_finished: bool


@torch.inference_mode()
def generate_replies(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Conversation],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_size: int,
    reporter: Reporter,
) -> list[Generated]:
    """One reply per prompt, in the order given, without the end-of-turn token.

    Args:
        model: As `policy.load_policy` returns it.
        tokenizer: The model's tokenizer, with its chat template.
        prompts: Conversations that end with a user turn.
        max_new_tokens: A reply is cut after this many tokens.
        temperature: 0 is greedy; otherwise samples from the whole distribution at that temperature.
        seed: The same seed, prompts and batch size give the same replies on the same device.
        batch_size: Prompts answered at once.
        reporter: Hears how far the work is.
    """
    model.eval()
    longest = getattr(causal_model(model).config, "max_position_embeddings", None) or 1 << 30
    encoded = encode_prompts(tokenizer, prompts, max_length=max(1, longest - max_new_tokens))
    replies = [Generated("", 0, is_finished=False)] * len(prompts)
    by_length = sorted(range(len(prompts)), key=lambda index: (len(encoded[index]), index))
    spoke = time.monotonic()
    for start in range(0, len(prompts), batch_size):
        batch = by_length[start : start + batch_size]
        answers = _answer(
            model,
            [encoded[index] for index in batch],
            ends=end_of_turn_ids(tokenizer),
            pad=tokenizer.pad_token_id,
            max_new_tokens=max_new_tokens,
            choose=_Chooser(temperature, seed_for(seed, "replies", start), model.device),
        )
        for index, (tokens, is_finished) in zip(batch, answers, strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            replies[index] = Generated(text, len(tokens), is_finished)
        if time.monotonic() - spoke > SECONDS_BETWEEN_WORDS:
            spoke = time.monotonic()
            reporter.say(f"Answered {start + len(batch)} of {len(prompts)} prompts.")
    return replies


class _Chooser:
    """The next token of each row from its logits: the likeliest, or drawn at a temperature."""

    def __init__(self, temperature: float, seed: int, device: torch.device) -> None:
        self.temperature = temperature
        self.chance = torch.Generator(device).manual_seed(seed)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        if self.temperature == 0:
            return logits.argmax(-1)
        probabilities = (logits.float() / self.temperature).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=self.chance)[:, 0]


def _answer(
    model: Any, prompts: Sequence[Tokens], *, ends: frozenset[int], pad: int, max_new_tokens: int, choose: _Chooser
) -> list[tuple[list[int], bool]]:
    """Reply tokens of each prompt, the end left out, and whether it ended; rows that have ended leave the batch."""
    ids, mask = _left_padded(prompts, pad, model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    live = list(range(len(prompts)))
    replies: list[list[int]] = [[] for _ in prompts]
    cache = None
    for _ in range(max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, chosen = output.past_key_values, choose(output.logits[:, -1])
        tokens = chosen.tolist()
        going = [row for row, token in enumerate(tokens) if token not in ends]
        for row in going:
            replies[live[row]].append(tokens[row])
        if not going:
            live = []
            break
        if len(going) < len(live):
            rows = torch.tensor(going, device=ids.device)
            cache.batch_select_indices(rows)
            chosen, mask, positions = chosen[rows], mask[rows], positions[rows]
            live = [live[row] for row in going]
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return [(tokens, row not in live) for row, tokens in enumerate(replies)]


def _left_padded(prompts: Sequence[Tokens], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, (B, L), prompts ending in the last column."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
