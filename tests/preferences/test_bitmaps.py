"""The bound from bitmaps: never below the true similarity, and low enough to be of use."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.preferences.bitmaps import likeness_bound
from dpo_pipeline.preferences.near_duplicates import jaccard_between
from dpo_pipeline.preferences.shingles import Shingles

# Few values, repeats, and values that share a bit; empty sets among them.
SETS = st.lists(st.lists(st.integers(0, 40).map(lambda value: value * 171), max_size=30), min_size=1, max_size=6)


def as_shingles(sets: list[list[int]]) -> Shingles:
    bounds = np.cumsum([0, *(len(one) for one in sets)])
    return Shingles(np.array([value for one in sets for value in one], np.uint32), bounds)


@given(SETS, SETS)
def test_no_pair_is_more_alike_than_its_bound(left, right):
    ours, theirs = as_shingles(left), as_shingles(right)
    edges = np.stack([one.ravel() for one in np.indices((len(left), len(right)))], axis=1)
    assert (likeness_bound(ours, theirs, edges) >= jaccard_between(ours, theirs, edges)).all()


def test_sets_without_common_bits_have_their_true_similarity_as_bound():
    left, right = as_shingles([[1, 2, 3], [], [7]]), as_shingles([[2, 3, 4], [], [600]])
    edges = np.array([[0, 0], [1, 1], [2, 2], [1, 0]])
    np.testing.assert_array_equal(likeness_bound(left, right, edges), [0.5, 1.0, 0.0, 0.0])


def test_long_prompts_of_one_template_are_bounded_well_below_one_half():
    """129 shingles, a third of them the template's: true similarity 0.2, which 512 bits tell from 0.5."""
    chance = np.random.default_rng(5)
    template = chance.integers(0, 2**32, 43)
    sets = as_shingles([[*template, *chance.integers(0, 2**32, 86)] for _ in range(40)])
    edges = np.stack(np.triu_indices(40, 1), axis=1)
    assert likeness_bound(sets, sets, edges).max() < 0.5
