"""Replies of a model to prompts: batched, with a key-value cache, reproducible by seed."""

from collections.abc import Sequence

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.modeling.scoring import Conversation


def generate_replies(
    model: object,
    tokenizer: object,
    prompts: Sequence[Conversation],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_size: int,
    reporter: Reporter,
) -> list[str]:
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
    raise NotImplementedError
