"""Arrays in files: what is written stays, whatever is given back to the system, and orders are those of a sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.preferences import spill
from dpo_pipeline.preferences.spill import Scratch, slices, stable_order


@given(st.lists(st.integers(-1, 3), max_size=30), st.integers(1, 7))
def test_a_stable_order_is_that_of_a_stable_sort_however_it_is_cut(keys, size):
    """Law: as `sorted` by key, places with a negative key left out."""
    array = np.array(keys, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "slices", lambda count: slices(count, size))
        found = stable_order(lambda some: array[some], len(array), Scratch(None))
    wanted = [place for place, key in enumerate(keys) if key >= 0]
    assert found.tolist() == sorted(wanted, key=keys.__getitem__)


def test_what_is_let_go_is_still_there(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "MOST_MAPPED", 0)
    scratch = Scratch(tmp_path)
    array, pairs = scratch.empty(100_000, np.int32), scratch.empty((2, 10), np.uint64).T
    array[:], pairs[3] = np.arange(100_000), (7, 8)
    scratch.let_go()
    assert (array == np.arange(100_000)).all()
    assert pairs.tolist() == [[7, 8] if row == 3 else [0, 0] for row in range(10)]
    array[5] = 50
    scratch.let_go()
    assert array[4:7].tolist() == [4, 50, 6]
    assert list(tmp_path.iterdir()) == [], "the files have no name"


def test_records_are_read_by_place_and_as_an_array(tmp_path):
    scratch = Scratch(tmp_path)
    file = scratch.rows(np.dtype([("one", "<i4"), ("other", "<u8")]))
    for start in (0, 3):
        rows = np.zeros(3, file.dtype)
        rows["one"], rows["other"] = np.arange(start, start + 3), 2**63
        file.append(rows)
    assert file.read(2, 5)["one"].tolist() == [2, 3, 4]
    assert file.mapped()["one"].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(file.mapped()["other"].tolist()) == {2**63}
    assert len(scratch.rows(file.dtype).mapped()) == 0
