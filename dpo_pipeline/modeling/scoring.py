"""Log-probs of responses, summed per sequence: what DPO compares, what the reference table holds, what evaluation reads."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings

Conversation = Sequence[Mapping[str, str]]
"""Messages `{"role": ..., "content": ...}`; system, user and assistant turns in order."""


class Pair(NamedTuple):
    """Two responses to one prompt, as text."""

    pair_id: str
    prompt: Conversation
    chosen: str
    rejected: str


class PairScore(NamedTuple):
    """What a model thinks of a pair: summed log-probs (nats) of the response tokens, and how many there are."""

    pair_id: str
    chosen_logp: float
    rejected_logp: float
    chosen_tokens: int
    rejected_tokens: int


class PairScores(NamedTuple):
    """The scored pairs in the order given, and the pairs left out with the reason code."""

    rows: list[PairScore]
    left_out: dict[str, str]


class NllResult(NamedTuple):
    """Mean negative log-likelihood (nats per token) of the last assistant turns; NaN where nothing could be scored."""

    mean_nll: float
    tokens: int
    conversations: int
    left_out: dict[int, str]


def score_pairs(
    model: object,
    tokenizer: object,
    pairs: Sequence[Pair],
    *,
    model_settings: ModelSettings,
    compute: ComputeSettings,
    reporter: Reporter,
) -> PairScores:
    """Summed log-probs of both responses of each pair under `model`, without gradients.

    Args:
        model: As `policy.load_policy` returns it.
        tokenizer: The model's tokenizer, with its chat template.
        pairs: Any number of pairs; those of one prompt are scored together.
        model_settings: Gives `max_length`.
        compute: Gives `batch_tokens`.
        reporter: Hears how far the work is.

    Returns:
        One row per pair in the order given, except those left out (over-long, special tokens in the text).
    """
    raise NotImplementedError


def mean_nll(
    model: object,
    tokenizer: object,
    conversations: Sequence[Conversation],
    *,
    model_settings: ModelSettings,
    compute: ComputeSettings,
    reporter: Reporter,
) -> NllResult:
    """Mean NLL per token of the last assistant turn of each conversation (end-of-turn token included)."""
    raise NotImplementedError
