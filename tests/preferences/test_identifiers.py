"""Identities as pairs of words: found among sorted ones whatever the order they are asked for in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.preferences.identifiers import places

IDENTITIES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20)


@given(IDENTITIES, IDENTITIES)
def test_places_are_those_in_the_list_and_minus_one_for_who_is_not_there(known, wanted):
    """Words so small that many share their high word, or differ in it alone."""
    listed = sorted(set(known))
    found = places(*(np.array(some, np.uint64).reshape(-1, 2) for some in (listed, wanted)))
    assert found.tolist() == [listed.index(one) if one in listed else -1 for one in wanted]
