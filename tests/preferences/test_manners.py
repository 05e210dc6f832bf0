"""Values put aside by annotator: medians and most frequent ones are numpy's, however the values came in."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.preferences import manners, spill
from dpo_pipeline.preferences.manners import ValuesByAnnotator
from dpo_pipeline.preferences.spill import Scratch, slices

PIECES = st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=12), max_size=4)


@given(pieces=PIECES, size=st.integers(1, 5))
def test_medians_and_most_frequent_values_are_those_of_all_values_of_a_person(pieces, size):
    values = ValuesByAnnotator(Scratch(None), np.float32)
    own = {who: [value for piece in pieces for name, value in piece if name == who] for who in range(5)}
    with pytest.MonkeyPatch.context() as patch:
        for module in (spill, manners):
            patch.setattr(module, "slices", lambda count: slices(count, size))
        for piece in pieces:
            values.add(*np.array(piece, np.int32).reshape(-1, 2).T)
        medians, most = values.medians(5), values.most_frequent(5)
    assert np.isnan(medians).tolist() == [not some for some in own.values()]
    assert [value for value in medians if not np.isnan(value)] == [np.median(some) for some in own.values() if some]
    assert most.tolist() == [max(Counter(some).values(), default=0) for some in own.values()]
