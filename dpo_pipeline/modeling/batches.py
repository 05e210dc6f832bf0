"""What goes through the model at once: groups of one prompt and its responses, packed without padding.

The unit is the group, never the pair: one prompt, K responses, the list of (winner, loser). A pair is K = 2, a
demonstration is K = 1. Shapes: T packed tokens, N response tokens, S responses, M comparisons.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.modeling.template import Tokens


class Comparison(NamedTuple):
    """`winner` and `loser` are positions among the group's responses, `row` is the pair's row in its table."""

    winner: int
    loser: int
    row: int


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt, its responses, and which was preferred to which."""

    prompt: Tokens
    responses: tuple[Tokens, ...]
    comparisons: tuple[Comparison, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of the prompt, once, and of all responses."""
        return len(self.prompt) + sum(map(len, self.responses))

    @property
    def longest(self) -> int:
        """Tokens of the prompt and the longest response."""
        return len(self.prompt) + max(map(len, self.responses))


def digest_of_groups(groups: Iterable[Group]) -> str:
    """The SHA-256 over all tokens and comparisons in their order: the identity of what a training goes through."""
    digest = hashlib.sha256()
    for group in groups:
        shape = [len(group.prompt), *map(len, group.responses), *(n for c in group.comparisons for n in c)]
        digest.update(np.asarray([len(shape), *shape], dtype="<i8").tobytes())
        for tokens in (group.prompt, *group.responses):
            digest.update(tokens.astype("<i4").tobytes())
    return digest.hexdigest()


def plan_steps(weights: Sequence[int], *, batch_size: int, epochs: float, seed: int) -> list[Sequence[int]]:
    """The groups of every optimizer step: a function of the arguments alone, so that a restart finds its place.

    In each whole epoch every group comes exactly once, in an order shuffled by (seed, epoch). A step takes groups while
    their weights add up to at most `batch_size`; a heavier group stands alone.

    Args:
        weights: How many examples each group counts for: its pairs, or 1 for a demonstration.
        batch_size: Examples per optimizer step.
        epochs: Passes over the groups; a fraction ends the last pass early.
        seed: Seed of the order.

    >>> [list(step) for step in plan_steps([1, 1, 1, 1, 1], batch_size=2, epochs=1, seed=5)]
    [[3, 4], [2, 1], [0]]
    """
    steps: list[Sequence[int]] = []
    whole, rest = int(epochs), epochs - int(epochs)
    for epoch in range(whole + (rest > 0)):
        order = np.random.default_rng(seed_for(seed, "order", epoch)).permutation(len(weights))
        of_epoch = _cut_by_weight(order.tolist(), weights, batch_size)
        steps += of_epoch if epoch < whole else of_epoch[: max(1, round(rest * len(of_epoch)))]
    return steps


def _cut_by_weight(order: Sequence[int], weights: Sequence[int], batch_size: int) -> list[Sequence[int]]:
    steps: list[array[int]] = []
    filled = batch_size
    for index in order:
        if filled + weights[index] > batch_size:
            steps.append(array("q"))
            filled = 0
        steps[-1].append(index)
        filled += weights[index]
    return [*steps]


def cut_by_tokens(groups: Sequence[Group], *, batch_tokens: int) -> list[list[Group]]:
    """Micro-batches of at most `batch_tokens` packed tokens, groups of like lengths together, of about equal size.

    Every group is in exactly one micro-batch; a group beyond the budget stands alone.
    """
    batches = places_by_tokens([group.tokens for group in groups], batch_tokens=batch_tokens)
    return [[groups[place] for place in batch] for batch in batches]


def places_by_tokens(sizes: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """`cut_by_tokens` for groups of these sizes in tokens: the places of each micro-batch.

    >>> places_by_tokens([7, 3, 9, 2], batch_tokens=12)
    [[3, 1, 0], [2]]
    """
    total = sum(sizes)
    even = total / max(1, -(-total // batch_tokens))
    batches: list[list[int]] = []
    filled = 0
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        if not batches or filled + sizes[place] > batch_tokens or filled >= even:
            batches.append([])
            filled = 0
        batches[-1].append(place)
        filled += sizes[place]
    return batches


@dataclass(frozen=True, slots=True)
class Packed:
    """Groups as one row of tokens: prompt, response, response, prompt, response, ...

    Attributes:
        input_ids: Token ids, (1, T).
        position_ids: Positions, (1, T); each response continues its prompt's count.
        layout: Per group the prompt's length and the responses' lengths; what the attention needs.
        predictors: Position in T whose hidden state predicts each response token, (N,).
        needed: The same positions, each once, in order.
        targets: The response tokens, (N,).
        owners: The response, 0..S-1, each response token belongs to, (N,).
        lengths: Tokens of each response, (S,).
        winners: Response preferred in each comparison, (M,).
        losers: Response not preferred, (M,).
        rows: The comparison's pair in its table, as plain numbers.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    layout: tuple[tuple[int, tuple[int, ...]], ...]
    predictors: torch.Tensor
    needed: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    lengths: torch.Tensor
    winners: torch.Tensor
    losers: torch.Tensor
    rows: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """T: what the forward pass has to work through."""
        return self.input_ids.shape[1]


def pack(groups: Sequence[Group], device: torch.device | str = "cpu") -> Packed:
    """The groups as one packed row on `device`."""
    ids: list[Tokens] = []
    positions, predictors, targets, owners, lengths = [], [], [], [], []
    winners, losers, rows = [], [], []
    start = 0
    for group in groups:
        prompt_length, first_response = len(group.prompt), len(lengths)
        ids.append(group.prompt)
        positions.append(np.arange(prompt_length))
        prompt_end, start = start + prompt_length - 1, start + prompt_length
        for response in group.responses:
            length = len(response)
            ids.append(response)
            positions.append(np.arange(prompt_length, prompt_length + length))
            # The last prompt token predicts the first token of every response; each response token the next one.
            predictors.append(np.append(prompt_end, np.arange(start, start + length - 1)))
            targets.append(response)
            owners.append(np.full(length, len(lengths)))
            lengths.append(length)
            start += length
        winners += [first_response + c.winner for c in group.comparisons]
        losers += [first_response + c.loser for c in group.comparisons]
        rows += [c.row for c in group.comparisons]

    def tensor(values: object) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int64)).to(device, non_blocking=True)

    return Packed(
        input_ids=tensor(np.concatenate(ids))[None],
        position_ids=tensor(np.concatenate(positions))[None],
        layout=tuple((len(group.prompt), tuple(map(len, group.responses))) for group in groups),
        predictors=tensor(np.concatenate(predictors)),
        needed=tensor(np.unique(np.concatenate(predictors))),
        targets=tensor(np.concatenate(targets)),
        owners=tensor(np.concatenate(owners)),
        lengths=tensor(lengths),
        winners=tensor(winners),
        losers=tensor(losers),
        rows=tuple(rows),
    )


def with_padding(batch: Packed, multiple: int) -> tuple[Packed, int]:
    """The batch with tokens, needed rows and targets at multiples of a number, and how many tokens were added.

    At least one token is added, and what else is padded points at the last of them: nobody looks at any.
    """
    added = multiple - batch.tokens % multiple
    last = batch.tokens + added - 1
    pad = torch.nn.functional.pad
    return replace(
        batch,
        input_ids=pad(batch.input_ids, (0, added)),
        position_ids=pad(batch.position_ids, (0, added)),
        predictors=pad(batch.predictors, (0, -len(batch.predictors) % multiple), value=last),
        needed=pad(batch.needed, (0, -len(batch.needed) % multiple), value=last),
        targets=pad(batch.targets, (0, -len(batch.targets) % multiple)),
    ), added
