"""What is trained on and scored, in a few arrays: tokens end to end, pairs, and groups of pairs that share a prompt.

A million pairs of 250 tokens are one gigabyte this way; as Python objects, texts included, they were more than three.
Items are views, made when they are asked for.
"""

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dpo_pipeline.core.lazy import Lazy
from dpo_pipeline.modeling.batches import Comparison, Group
from dpo_pipeline.modeling.template import Tokens

NONE: Tokens = np.empty(0, np.int32)
Places = npt.NDArray[np.int64]


class TokenLists(Lazy[Tokens]):
    """Lists of tokens in the order in which they were added; all are added before the first is read."""

    def __init__(self) -> None:
        # array grows in place where the system can move pages, so that filling it never holds everything twice.
        self._tokens, self._ends = array("i"), array("q", [0])

    def append(self, tokens: Tokens) -> None:
        """Add a list at the end."""
        self._tokens.frombytes(tokens.astype(np.intc, copy=False).tobytes())
        self._ends.append(len(self._tokens))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def item(self, place: int) -> Tokens:
        """A view."""
        start, end = self._ends[place], self._ends[place + 1]
        return np.frombuffer(self._tokens, np.intc, end - start, start * self._tokens.itemsize) if end > start else NONE


class EncodedPair(NamedTuple):
    """A pair as tokens, and its row in its table."""

    prompt: Tokens
    chosen: Tokens
    rejected: Tokens
    row: int


class TokenPairs(Lazy[EncodedPair]):
    """Pairs as tokens, in the order in which they were added."""

    def __init__(self) -> None:
        self._lists, self._rows = TokenLists(), array("q")

    @property
    def rows(self) -> Places:
        """The pairs' rows in their table."""
        return np.asarray(self._rows, np.int64)

    def append(self, pair: EncodedPair) -> None:
        """Add a pair at the end."""
        for tokens in pair[:3]:
            self._lists.append(tokens)
        self._rows.append(pair.row)

    def __len__(self) -> int:
        return len(self._rows)

    def item(self, place: int) -> EncodedPair:
        """Views."""
        prompt, chosen, rejected = (self._lists.item(3 * place + part) for part in range(3))
        return EncodedPair(prompt, chosen, rejected, self._rows[place])


class Replies(Lazy[Group]):
    """Groups of one prompt and one response, in the order in which they were added."""

    def __init__(self) -> None:
        self._lists = TokenLists()

    def append(self, group: Group) -> None:
        """Add a prompt and its response at the end."""
        self._lists.append(group.prompt)
        self._lists.append(group.responses[0])

    def __len__(self) -> int:
        return len(self._lists) // 2

    def item(self, place: int) -> Group:
        """Views."""
        return Group(self._lists.item(2 * place), (self._lists.item(2 * place + 1),))


class PairGroups(Lazy[Group]):
    """Groups of pairs of one prompt: equal responses once, comparisons in the pairs' order.

    Args:
        pairs: All pairs.
        members: Places among them, those of a group side by side.
        starts: Where in `members` each group begins.
        ends: Where it ends.
    """

    def __init__(self, pairs: Sequence[EncodedPair], members: Places, starts: Places, ends: Places) -> None:
        self._pairs, self._members, self._starts, self._ends = pairs, members, starts, ends

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def pair_counts(self) -> list[int]:
        """How many pairs each group holds."""
        return (self._ends - self._starts).tolist()

    def item(self, place: int) -> Group:
        """The group, of views of its pairs' tokens."""
        members = self._members[self._starts[place] : self._ends[place]]
        pairs = [self._pairs[member] for member in members.tolist()]
        responses: dict[bytes, Tokens] = {}
        for pair in pairs:
            for response in (pair.chosen, pair.rejected):
                responses.setdefault(response.tobytes(), response)
        number = {key: index for index, key in enumerate(responses)}
        comparisons = (
            Comparison(number[pair.chosen.tobytes()], number[pair.rejected.tobytes()], pair.row) for pair in pairs
        )
        return Group(pairs[0].prompt, tuple(responses.values()), tuple(comparisons))

    def select(self, wanted: npt.NDArray[np.bool_]) -> "PairGroups":
        """The groups for which `wanted` is true."""
        return PairGroups(self._pairs, self._members, self._starts[wanted], self._ends[wanted])


def group_pairs(pairs: Sequence[EncodedPair], *, most_pairs: int, most_tokens: int) -> PairGroups:
    """Groups in order of their first pair: pairs of one prompt together, equal responses once.

    Every pair is in exactly one group. A prompt with very many pairs becomes several groups.

    Args:
        pairs: Tokenized pairs.
        most_pairs: Most comparisons in one group.
        most_tokens: A group takes no further pair beyond this many tokens.
    """
    keys = np.fromiter((blake2b(pair.prompt.tobytes(), digest_size=16).digest() for pair in pairs), "S16", len(pairs))
    _, prompts, counts = np.unique(keys, return_inverse=True, return_counts=True)
    is_alone = counts[prompts] == 1
    alone, others = np.flatnonzero(is_alone), np.flatnonzero(~is_alone)
    others = others[np.argsort(prompts[others], kind="stable")]
    of_prompts = np.split(others, np.flatnonzero(np.diff(prompts[others])) + 1) if len(others) else []
    several = [group for places in of_prompts for group in _cut(pairs, places, most_pairs, most_tokens)]
    members = np.concatenate([alone, *several])
    ends = np.cumsum(np.concatenate([np.ones(len(alone), np.int64), np.array([*map(len, several)], np.int64)]))
    starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]])
    order = np.argsort(members[starts])
    return PairGroups(pairs, members, starts[order], ends[order])


def _cut(pairs: Sequence[EncodedPair], places: Places, most_pairs: int, most_tokens: int) -> list[Places]:
    """The places of one prompt's pairs, cut where a group is full."""
    cuts, first, held = list[int](), 0, dict[bytes, int]()
    for number, place in enumerate(places.tolist()):
        pair = pairs[place]
        new = {response.tobytes(): len(response) for response in (pair.chosen, pair.rejected)}
        tokens = len(pair.prompt) + sum({**held, **new}.values())
        if number > first and (number - first >= most_pairs or tokens > most_tokens):
            cuts.append(number)
            first, held = number, {}
        held |= new
    return np.split(places, cuts)
