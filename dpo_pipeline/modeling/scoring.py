"""What a model thinks of given texts: log-probs of pairs and perplexity of conversations, without gradients."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.modeling import processes
from dpo_pipeline.modeling.batches import Group, pack, places_by_tokens
from dpo_pipeline.modeling.device import Device, choose_device
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.examples import EncodedPair, Replies, TokenPairs, group_pairs
from dpo_pipeline.modeling.forward import Scorer, make_scorer
from dpo_pipeline.modeling.settings import ComputeSettings
from dpo_pipeline.modeling.template import Conversation, LeftOut

SECONDS_BETWEEN_WORDS = 5.0
ENCODED_AT_ONCE = 4_096


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
    """The scored pairs in the order given, and the reason code of each pair left out, by pair_id."""

    rows: list[PairScore]
    left_out: dict[str, str]


class NllResult(NamedTuple):
    """Mean negative log-likelihood (nats per token) of the last assistant turns; NaN where nothing could be scored."""

    mean_nll: float
    tokens: int
    conversations: int


class EncodedPairs(NamedTuple):
    """Pairs as tokens (`row` is the position among those given), reasons by pair_id, prompt tokens cut by pair_id."""

    pairs: TokenPairs
    left_out: dict[str, str]
    cut: dict[str, int]

    @classmethod
    def none(cls) -> "EncodedPairs":
        """No pairs yet; `encode_more` adds some."""
        return cls(TokenPairs(), {}, {})


def score_pairs(
    model: Any,
    encoder: Encoder,
    pairs: Sequence[Pair],
    *,
    compute: ComputeSettings,
    reporter: Reporter,
) -> PairScores:
    """Summed log-probs of both responses of each pair under `model`, without gradients.

    Args:
        model: As `policy.load_policy` returns it.
        encoder: The model's tokenizer and the longest conversation.
        pairs: Any number of pairs; those of one prompt are scored together.
        compute: Gives `batch_tokens`, device and precision.
        reporter: Hears how far the work is.

    Returns:
        One row per pair in the order given, except those left out (over-long, special tokens in the text).
    """
    encoded = encode_pairs(encoder, pairs)
    scores = score_encoded(model, encoded.pairs, device=choose_device(compute), reporter=reporter)
    rows: list[PairScore] = []
    for pair in encoded.pairs:
        chosen, rejected = scores[pair.row].tolist()
        rows.append(PairScore(pairs[pair.row].pair_id, chosen, rejected, len(pair.chosen), len(pair.rejected)))
    return PairScores(rows, encoded.left_out)


def mean_nll(model: Any, groups: Replies, *, compute: ComputeSettings, reporter: Reporter) -> NllResult:
    """Mean NLL per token of each reply, end of turn included."""
    if not groups:
        return NllResult(math.nan, 0, 0)
    device = choose_device(compute)
    scorer = make_scorer(model, device, probe=groups, reporter=reporter)
    total = 0.0

    def add(_: Sequence[Group], logps: list[float]) -> None:
        nonlocal total
        total -= sum(logps)

    score_groups(scorer, groups, reporter=reporter, take=add)
    tokens = sum(len(group.responses[0]) for group in groups)
    total = processes.summed(torch.tensor(total, dtype=torch.float64)).item()
    return NllResult(total / tokens, tokens, len(groups))


def encode_replies(encoder: Encoder, conversations: Sequence[Conversation]) -> Replies:
    """Each conversation's last turn with what stands before it, as tokens; those that cannot be scored left out."""
    groups = Replies()
    for start in range(0, len(conversations), ENCODED_AT_ONCE):
        some = conversations[start : start + ENCODED_AT_ONCE]
        items = encoder.encode([each[:-1] for each in some], [[each[-1]["content"]] for each in some])
        for item in items:
            if not isinstance(item, LeftOut):
                groups.append(Group(item.prompt, item.responses))
    return groups


def encode_pairs(encoder: Encoder, pairs: Sequence[Pair]) -> EncodedPairs:
    """The pairs as tokens, with the reason of each one left out and the cut of each prompt that was too long."""
    result = EncodedPairs.none()
    encode_more(result, encoder, pairs, first_row=0)
    return result


def encode_more(result: EncodedPairs, encoder: Encoder, pairs: Sequence[Pair], *, first_row: int) -> None:
    """Add pairs whose rows begin at `first_row` to those encoded before."""
    prompts, replies = [pair.prompt for pair in pairs], [(pair.chosen, pair.rejected) for pair in pairs]
    encoded = encoder.encode(prompts, replies)
    for row, (pair, item) in enumerate(zip(pairs, encoded, strict=True), start=first_row):
        if isinstance(item, LeftOut):
            result.left_out[pair.pair_id] = str(item)
            continue
        result.pairs.append(EncodedPair(item.prompt, item.responses[0], item.responses[1], row))
        if item.prompt_tokens_cut:
            result.cut[pair.pair_id] = item.prompt_tokens_cut


def score_encoded(
    model: Any, pairs: Sequence[EncodedPair], *, device: Device, reporter: Reporter
) -> npt.NDArray[np.float64]:
    """The summed log-probs of chosen and rejected by a pair's row, (rows, 2); zeros where no pair has the row."""
    if not pairs:
        return np.zeros((0, 2))
    groups = group_pairs(pairs, most_pairs=len(pairs), most_tokens=device.batch_tokens)
    scorer = make_scorer(model, device, probe=groups, reporter=reporter)
    scores = np.zeros((1 + max(pair.row for pair in pairs), 2))

    def keep(batch: Sequence[Group], logps: list[float]) -> None:
        first = 0
        for group in batch:
            for winner, loser, row in group.comparisons:
                scores[row] = (logps[first + winner], logps[first + loser])
            first += len(group.responses)

    score_groups(scorer, groups, reporter=reporter, take=keep)
    return processes.summed(torch.from_numpy(scores)).numpy()  # each row is zero in all processes but one


@torch.no_grad()
def score_groups(
    scorer: Scorer,
    groups: Sequence[Group],
    *,
    reporter: Reporter,
    take: Callable[[Sequence[Group], list[float]], None],
) -> None:
    """Score groups in batches of like lengths; `take` gets each batch and its responses' summed log-probs in order.

    Where several processes share the work, `take` gets those of this process's groups only.
    """
    scorer.model.eval()
    sizes = [group.tokens for group in groups]
    mine = processes.share_of_sizes(sizes)
    batches = places_by_tokens([sizes[place] for place in mine], batch_tokens=scorer.device.batch_tokens)
    started = spoke = time.monotonic()
    done = 0
    with scorer.session():
        for places in batches:
            batch = [groups[mine[place]] for place in places]
            take(batch, scorer.logps(pack(batch, scorer.device.torch)).tolist())
            done += len(batch)
            if time.monotonic() - spoke > SECONDS_BETWEEN_WORDS:
                spoke = time.monotonic()
                left = (spoke - started) / done * (len(mine) - done)
                reporter.say(f"Scored {done} of {len(mine)} prompts; about {left:.0f} s left.")
