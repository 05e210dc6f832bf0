"""Tokens, pairs and groups in a few arrays: what went in comes out, and the groups are those of a plain loop."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.modeling.batches import Group
from dpo_pipeline.modeling.examples import EncodedPair, Replies, TokenLists, TokenPairs, group_pairs

TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=6)
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4)), max_size=30)


def tokens(*values):
    return np.array(values, dtype=np.int32)


@given(st.lists(TOKENS, max_size=20))
def test_lists_of_tokens_come_out_as_they_went_in(lists):
    held = TokenLists()
    for each in lists:
        held.append(tokens(*each))
    assert [each.tolist() for each in held] == lists
    assert all(each.dtype == np.int32 for each in held)
    assert [each.tolist() for each in held[1:3]] == lists[1:3]
    with pytest.raises(IndexError):
        held[len(lists)]


@given(st.lists(st.tuples(TOKENS, TOKENS, TOKENS, st.integers(0, 2**40)), max_size=10))
def test_pairs_and_replies_come_out_as_they_went_in(rows):
    pairs, replies = TokenPairs(), Replies()
    for prompt, chosen, rejected, row in rows:
        pairs.append(EncodedPair(tokens(*prompt), tokens(*chosen), tokens(*rejected), row))
        replies.append(Group(tokens(*prompt), (tokens(*chosen),)))
    assert [(*(part.tolist() for part in pair[:3]), pair.row) for pair in pairs] == rows
    assert pairs.rows.tolist() == [row for *_, row in rows]
    assert [(g.prompt.tolist(), g.responses[0].tolist(), g.comparisons) for g in replies] == [
        (prompt, chosen, ()) for prompt, chosen, *_ in rows
    ]


def test_a_ranking_is_one_prompt_and_each_response_once():
    prompt, a, b, c = tokens(1, 2), tokens(3), tokens(4, 5), tokens(6)
    pairs = [EncodedPair(prompt, *pair, row) for row, pair in enumerate([(a, b), (a, c), (b, c)])]
    [group] = group_pairs(pairs, most_pairs=8, most_tokens=100)
    assert [r.tolist() for r in group.responses] == [[3], [4, 5], [6]]
    assert [tuple(c) for c in group.comparisons] == [(0, 1, 0), (0, 2, 1), (1, 2, 2)]
    assert group.tokens == 2 + 1 + 2 + 1, "not the 3 x 2 x prompt that pairs would cost"
    assert group.longest == 4


@given(PAIRS, st.integers(1, 5), st.integers(1, 40))
def test_every_pair_is_in_exactly_one_group_as_it_was(spec, most_pairs, most_tokens):
    """Law of `group_pairs`: nothing is lost, doubled or turned around, and no group has more pairs than allowed."""
    texts = {n: tokens(*range(10 * n + 3, 11 * n + 5)) for n in range(5)}
    pairs = [EncodedPair(texts[p], texts[c], texts[r], row) for row, (p, c, r) in enumerate(spec)]
    groups = group_pairs(pairs, most_pairs=most_pairs, most_tokens=most_tokens)
    found = {}
    for group in groups:
        assert 1 <= len(group.comparisons) <= most_pairs
        for winner, loser, row in group.comparisons:
            assert row not in found
            found[row] = (group.prompt, group.responses[winner], group.responses[loser])
    assert {row: tuple(t.tolist() for t in texts) for row, texts in found.items()} == {
        pair.row: (pair.prompt.tolist(), pair.chosen.tolist(), pair.rejected.tolist()) for pair in pairs
    }


@given(PAIRS, st.integers(1, 5), st.integers(1, 40))
def test_the_groups_are_those_of_a_plain_loop(spec, most_pairs, most_tokens):
    """The oracle goes through the pairs once, puts each into its prompt's newest group, or begins another one."""
    texts = {n: tokens(*range(10 * n + 3, 11 * n + 5)) for n in range(5)}
    pairs = [EncodedPair(texts[p], texts[c], texts[r], row) for row, (p, c, r) in enumerate(spec)]
    groups, newest = [], {}
    for row, spoken in enumerate(spec):
        prompt, *both = spoken
        members = newest.get(prompt)
        said = {number for other in members or () for number in spec[other][1:]} | {*both}
        size = len(texts[prompt]) + sum(len(texts[number]) for number in said)
        if members is None or len(members) >= most_pairs or size > most_tokens:
            groups.append(newest.setdefault(prompt, []) if members is None else [])
            newest[prompt] = groups[-1]
        newest[prompt].append(row)
    found = group_pairs(pairs, most_pairs=most_pairs, most_tokens=most_tokens)
    assert [[c.row for c in group.comparisons] for group in found] == groups
    assert found.pair_counts == [len(group) for group in groups]
    first = np.arange(len(groups)) % 2 == 0
    assert [[c.row for c in group.comparisons] for group in found.select(first)] == groups[::2]


def test_a_pair_takes_little_more_than_its_tokens():
    """60 tokens are 240 bytes; with ends, row and places of its group a pair may take 100 more."""
    count, chance = 5_000, np.random.default_rng(0)
    made = [chance.integers(3, 4_000, (3, 20)).astype(np.int32) for _ in range(count)]
    tracemalloc.start()
    pairs = TokenPairs()
    for row, each in enumerate(made):
        pairs.append(EncodedPair(*each, row))
    groups = group_pairs(pairs, most_pairs=64, most_tokens=1_000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(groups) == count
    assert held / count < 340
