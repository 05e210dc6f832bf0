"""All pairs of two groups of sets at once: the same near copies as pair by pair, whatever the sizes of the blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.preferences import all_pairs
from dpo_pipeline.preferences.all_pairs import enough_for, near_copies_in, pieces
from dpo_pipeline.preferences.shingles import Shingles

SIMILARITIES = [0.1, 0.3, 0.5, 0.6, 0.9, 1.0]


def sets_of(lists):
    ends = np.cumsum([0, *map(len, lists)])
    return Shingles(np.array([value for some in lists for value in some], np.uint32), ends)


@st.composite
def groups(draw):
    """Two groups of sets of one template: some of its shingles, some that few have, some of them twice."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    frequent, rare = draw(st.sampled_from([(8, 4), (30, 200), (150, 300)]))
    keep = draw(st.sampled_from([0.5, 0.8, 0.95]))

    def one():
        own = np.flatnonzero(chance.random(frequent) < keep)
        more = frequent + chance.integers(0, rare, chance.integers(1, 1 + frequent // 3))
        return chance.permutation(np.concatenate([own, more, own[:2]])).tolist()

    asked, others = ([one() for _ in range(draw(st.integers(1, 25)))] for _ in range(2))
    return asked, [*others, asked[0]] if draw(st.booleans()) else others


@given(
    groups(),
    st.sampled_from(SIMILARITIES),
    st.fixed_dictionaries(
        {
            "ASKED_AT_ONCE": st.sampled_from([1, 3, 2048]),
            "OTHERS_AT_ONCE": st.sampled_from([1, 5, 4096]),
            "FIRST_OTHERS": st.sampled_from([1, 64]),
            "SHINGLES_AT_ONCE": st.sampled_from([1, 100, 1 << 20]),
            "PAIRS_AT_ONCE": st.sampled_from([1, 7, 1 << 18]),
            "COINCIDENCES_PER_BIT": st.sampled_from([0, 2, 450, 1 << 30]),
        }
    ),
    st.randoms(use_true_random=False),
)
def test_law_of_all_pairs(both, similarity, sizes, chance):
    """Found is who has a near copy by brute force, and what is named is one, in whatever order the others stand."""
    asked, others = both
    alike = np.array([[len({*one} & {*two}) / len({*one} | {*two}) for two in others] for one in asked])
    places = list(range(len(others)))
    chance.shuffle(places)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(all_pairs, name, size)
        near = near_copies_in(sets_of(asked), sets_of(others), np.array(places), enough_for(similarity))
    assert (near >= 0).tolist() == (alike >= similarity).any(axis=1).tolist()
    for row in np.flatnonzero(near >= 0):
        assert alike[row, near[row]] >= similarity


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_law_of_enough(similarity):
    """The fewest whose quotient reaches the similarity, as floating-point numbers divide."""
    enough = enough_for(similarity)(np.arange(2, 400)).tolist()
    for size, shared in enumerate(enough, start=2):
        assert shared / (size - shared) >= similarity
        assert (shared - 1) / (size - shared + 1) < similarity


def test_large_sets_are_worked_on_in_smaller_pieces(monkeypatch):
    monkeypatch.setattr(all_pairs, "SHINGLES_AT_ONCE", 10)
    cuts = list(pieces(np.array([4, 4, 4, 30, 1, 1, 1, 1]), 3, first=2))
    assert cuts == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 7), slice(7, 8)]
