"""A whole ranking in one cell: every way of writing it gives the same ranks, anything else a reason."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.annotations.orders import names_of, ranks_of
from dpo_pipeline.annotations.records import Unusable

COLUMNS = ["answer_a", "answer_b", "answer_c"]
NAMES = names_of(COLUMNS)


@pytest.mark.parametrize(
    ("value", "ranks"),
    [
        ("B > A > C", [2, 1, 3]),
        ("b>a>c", [2, 1, 3]),
        ("2,1,3", [2, 1, 3]),
        ("2; 1; 3", [2, 1, 3]),
        ("BAC", [2, 1, 3]),
        ("213", [2, 1, 3]),
        (213, [2, 1, 3]),
        (213.0, [2, 1, 3]),
        ("answer_b > answer_a > answer_c", [2, 1, 3]),
        ('["b", "a", "c"]', [2, 1, 3]),
        (["B", "A", "C"], [2, 1, 3]),
        ([2, 1, 3], [2, 1, 3]),
        ("B > A = C", [2, 1, 2]),
        ('[["b"], ["a", "c"]]', [2, 1, 2]),
        ('{"A": 2, "B": 1, "C": 3}', [2, 1, 3]),
        ({"answer_a": 1.5, "answer_b": 1}, [1.5, 1, None]),
        ("B", [None, 1, None]),
        (2, [None, 1, None]),
    ],
)
def test_an_order_however_it_is_written(value, ranks):
    assert ranks_of(value, NAMES, 3) == ranks


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing_field"),
        ("", "missing_field"),
        ([], "missing_field"),
        ("{}", "missing_field"),
        ("B > D", "unknown_verdict"),
        ("B > A > B", "unknown_verdict"),
        ("[B, A", "unknown_verdict"),
        ({"A": "first"}, "unknown_verdict"),
        ({"A": True}, "unknown_verdict"),
        (4, "unknown_verdict"),
        (True, "wrong_type"),
        (1.5, "wrong_type"),
    ],
)
def test_what_is_no_order_has_a_reason(value, reason):
    with pytest.raises(Unusable) as caught:
        ranks_of(value, NAMES, 3)
    assert caught.value.reason.value == reason


def test_columns_that_count_from_zero_are_called_by_their_own_numbers():
    assert ranks_of("1 > 0", names_of(["response_0", "response_1"]), 2) == [2, 1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_it_gives_ranks_or_a_reason_whatever_the_cell_holds(value):
    try:
        ranks = ranks_of(value, NAMES, 3)
    except Unusable:
        return
    assert len(ranks) == 3
    assert any(rank is not None and math.isfinite(rank) for rank in ranks)


@given(st.permutations(["a", "b", "c"]))
def test_written_and_read_it_is_the_same_order(order):
    ranks = ranks_of(" > ".join(order), NAMES, 3)
    assert sorted("abc", key=lambda name: ranks["abc".index(name)]) == order
