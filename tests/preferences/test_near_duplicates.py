"""Shingles, signatures and the search for near duplicates, against sets, datasketch and scipy."""

import itertools
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.preferences.near_duplicates import WINDOW, components, distinct, elect, jaccard, overlaps, propose
from dpo_pipeline.preferences.shingles import NO_KEY, Shingles, band_keys, shingle, signatures
from dpo_pipeline.preferences.spill import Scratch

WORDS = st.sampled_from(["apple", "pear", "plum", "fig", "a", "of", "日", "é"])
TEXTS = st.lists(WORDS, max_size=12).map(" ".join)


def strings(texts):
    return pa.array(texts, pa.string())


def proposed(bands):
    count = bands.shape[1]
    return np.concatenate([np.zeros((0, 2), np.int64), *propose(bands, np.arange(count), count, Scratch(None))])


def sets_of(sets):
    return [set(sets.values[start:end].tolist()) for start, end in itertools.pairwise(sets.bounds)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello world foo", 3),
        ("", 0),
        ("...", 0),
        ("日本語 abc", 4),
        ("x—y z…w", 4),
        ("สวัสดี", 6),
        ("ab日cd", 3),
        ("日。本、語", 3),
        ("don't", 2),
        ("w" * 5000, 1),
        ("naïve café", 2),
    ],
)
def test_words(text, words):
    assert len(shingle(strings([text]), words=1).values) == words
    assert len(shingle(strings([text])).values) == (words if words < 2 else words - 1)


@given(st.lists(TEXTS, max_size=6))
def test_shingles_are_those_of_each_text_alone(texts):
    """Law: a text's shingles do not depend on its neighbours (a first version read into the next text)."""
    together = shingle(strings(texts))
    for text, start, end in zip(texts, together.bounds[:-1], together.bounds[1:], strict=True):
        assert together.values[start:end].tolist() == shingle(strings([text])).values.tolist()


@given(TEXTS, TEXTS)
def test_jaccard_is_that_of_word_pairs(one, other):
    def grams(text):
        words = re.findall(r"[a-zé]+|日", text)
        return set(itertools.pairwise(words)) if len(words) > 1 else {(word,) for word in words}

    union = grams(one) | grams(other)
    expected = len(grams(one) & grams(other)) / len(union) if union else 1.0
    assert jaccard(shingle(strings([one, other])), np.array([[0, 1]]))[0] == pytest.approx(expected)


@given(st.lists(st.sets(st.integers(1, 30), max_size=10), min_size=2, max_size=6), st.data())
def test_overlaps_are_those_of_sets(sets, data):
    flat = Shingles(
        np.array([value for some in sets for value in sorted(some)], np.uint32),
        np.cumsum([0, *map(len, sets)]),
    )
    row = st.integers(0, len(sets) - 1)
    edges = np.array(data.draw(st.lists(st.tuples(row, row), min_size=1, max_size=8)))
    shared, either = overlaps(flat, flat, edges)
    assert shared.tolist() == [len(sets[i] & sets[j]) for i, j in edges]
    assert either.tolist() == [len(sets[i] | sets[j]) for i, j in edges]


def test_long_words_hash_apart_and_alike():
    texts = ["x" * 64, "x" * 65, "x" * 66, "x" * 8, "x" * 9, "x" * 16, "x" * 17]
    hashes = shingle(strings(texts + texts), words=1).values
    assert len(set(hashes.tolist())) == len(texts)
    assert hashes[: len(texts)].tolist() == hashes[len(texts) :].tolist()


def test_signatures_estimate_jaccard_as_well_as_datasketch():
    """Both are unbiased estimates from the same number of hashes; datasketch is an independent implementation."""
    from datasketch import MinHash

    chance = np.random.default_rng(3)
    vocabulary = [f"word{number}" for number in range(400)]
    errors = {"ours": [], "theirs": []}
    for share in np.linspace(0.1, 0.95, 24):
        base = chance.choice(vocabulary, 120, replace=False)
        other = base.copy()
        places = chance.choice(120, int((1 - share) * 120), replace=False)
        other[places] = chance.choice(vocabulary, len(places))
        sets = shingle(strings([" ".join(base), " ".join(other)]), words=1)
        truth = jaccard(sets, np.array([[0, 1]]))[0]
        signature = signatures(sets, count=256)
        errors["ours"].append((signature[:, 0] == signature[:, 1]).mean() - truth)
        sketches = []
        for words in (base, other):
            sketch = MinHash(num_perm=256, seed=1)
            sketch.update_batch([word.encode() for word in words])
            sketches.append(sketch)
        errors["theirs"].append(sketches[0].jaccard(sketches[1]) - truth)
    ours, theirs = (np.sqrt(np.mean(np.square(some))) for some in errors.values())
    assert abs(np.mean(errors["ours"])) < 0.02
    assert ours < 1.5 * theirs


def test_the_signature_of_a_union_is_the_minimum():
    one, other, both = strings(["apple pear"]), strings(["plum fig"]), strings(["apple pear plum fig"])
    merged = np.minimum(*(signatures(shingle(some, words=1), count=16) for some in (one, other)))
    assert (merged == signatures(shingle(both, words=1), count=16)).all()


def test_band_keys_are_pinned_and_empty_texts_have_none():
    """Band keys are stored in sketches: they must not depend on numpy, Arrow or the batch."""
    keys = band_keys(signatures(shingle(strings(["the quick brown fox jumps", ""])), count=12), bands=2)
    assert keys[:, 1].tolist() == [NO_KEY, NO_KEY]
    assert keys[:, 0].tolist() == [4039738250, 447262548]


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=25), st.integers(1, 25))
def test_proposed_edges_share_a_key_and_do_not_change_when_rows_are_appended(rows, count):
    bands = np.array(rows, np.uint32).T
    edges = proposed(bands)
    assert all(((bands[:, i] == bands[:, j]) & (bands[:, i] != 0)).any() for i, j in edges)
    assert len(set(map(tuple, edges.tolist()))) == len(edges)
    count = min(count, len(rows))
    before = proposed(bands[:, :count])
    within = edges[(edges < count).all(axis=1)]
    assert sorted(map(tuple, within.tolist())) == sorted(map(tuple, before.tolist()))
    # Whoever shares a bucket is connected: no row is lost, however large the bucket.
    label = components(len(rows), edges)
    for band in bands:
        for key in set(band.tolist()) - {0}:
            assert len(set(label[band == key].tolist())) == 1


@given(st.integers(1, 12), st.data())
def test_components_are_those_of_scipy(count, data):
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    row = st.integers(0, count - 1)
    edges = np.array(data.draw(st.lists(st.tuples(row, row), max_size=15)), np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count))
    theirs = connected_components(graph, directed=False)[1]
    ours = components(count, edges)
    for members in (np.flatnonzero(theirs == number) for number in set(theirs.tolist())):
        assert set(ours[members].tolist()) == {int(members.min())}


@given(st.integers(1, 10), st.data())
def test_every_loser_is_a_neighbour_of_its_winner_and_winners_are_strangers(count, data):
    row = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(row, row).filter(lambda pair: pair[0] != pair[1]), max_size=15))
    edges = np.array(pairs, np.int64).reshape(-1, 2)
    rank = np.array(data.draw(st.permutations(range(count))))
    winner = elect(edges, rank)
    linked = {frozenset(edge) for edge in edges.tolist()}
    stays = np.flatnonzero(winner < 0)
    assert not any(frozenset(pair) in linked for pair in itertools.combinations(stays.tolist(), 2))
    for loser in np.flatnonzero(winner >= 0).tolist():
        assert frozenset((loser, int(winner[loser]))) in linked
        assert winner[winner[loser]] == -1
        assert rank[winner[loser]] < rank[loser]


@given(st.lists(st.integers(0, 9)))
def test_distinct(values):
    assert distinct(np.array(values, np.uint64)).tolist() == sorted(set(values))


@given(
    st.lists(st.integers(0, 3), max_size=40),
    st.integers(0, 12),
    st.integers(0, 40),
    st.randoms(use_true_random=False),
)
def test_law_of_the_links(keys, early, since, chance):
    """Of each bucket: all pairs of its first `early` + 1 rows, and every row with the first and the eight before it.

    Of rows from a place in the order on, exactly those links that end in one of them.
    """
    count = len(keys)
    order = np.array(chance.sample(range(count), count), np.int32)
    bands = np.array([keys], np.uint32)
    expected, late = set(), set()
    for key in (1, 2, 3):
        bucket = [int(row) for row in order if keys[row] == key]
        for at, row in enumerate(bucket):
            for before in range(at):
                if before == 0 or at - before <= WINDOW or at <= early:
                    edge = (min(row, bucket[before]), max(row, bucket[before]))
                    expected.add(edge)
                    if order.tolist().index(row) >= since:
                        late.add(edge)

    def found(**given_):
        pieces = list(propose(bands, order, count, Scratch(None), early=early, **given_))
        return [tuple(edge) for piece in pieces for edge in piece.tolist()]

    assert found() == sorted(expected)
    assert set(found(since=since)) == (late if since else expected)
