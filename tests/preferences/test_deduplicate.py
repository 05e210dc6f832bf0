"""Which pairs count as the same: the rule at its edges, across drops, and in a flood of equal texts."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from preference_worlds import judgment

from dpo_pipeline.preferences.near_duplicates import propose
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.spill import Scratch

MAJORITY = PreferenceSettings(consensus="majority")
ASKED = "Is a shop right to ask for the receipt when somebody brings back a lamp that was a present?"
OTHER = "Most shops will take a present back without one, but they give you a voucher and no money for it."
LONG = "You can return it within thirty days: put it into its box and bring it to any of our shops."


def read(folder, name="pairs"):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({"a": "No, I agree."}, 2),
        ({"a": "Yes, I agree, of course."}, 1),
        ({"prompt": ASKED.replace("lamp", "book").replace("right", "wise")}, 1),
        ({"b": LONG}, 2),
    ],
)
def test_no_part_may_say_something_else_however_alike_the_whole(world, changed, kept):
    """Law: whole at least 0.6 and every part at least 0.4; "Yes, I agree." and "No, I agree." have 1/3."""
    pair = {"prompt": ASKED, "a": "Yes, I agree.", "b": OTHER}
    rows = [judgment(**pair), judgment(**{**pair, **changed}, annotator="ann-2")]
    out, _ = world.build(world.drop("may", rows), settings=MAJORITY)
    assert len(read(out)) == kept


def test_responses_are_matched_as_fits_better_whichever_is_called_low(world):
    """An edit moves a response's key: among twelve edits some copies are low where the original is high."""
    short = "Bring it back to a shop with the receipt, and you will be given the money."
    asked = "May I return the lamp?"
    edits = ["now", "then", "soon", "thus", "still", "once", "here", "there", "also", "too", "again", "well"]
    rows = [judgment(asked, f"{LONG} {word}", f"{short} {word}", annotator=word) for word in edits]
    drop = world.drop("may", [judgment(asked, LONG, short), *rows])
    texts = pq.read_table(drop.judgments / "judgments.parquet", columns=["response_a"])["response_a"].to_pylist()
    sides = pq.read_table(drop.sketches / "verdicts.parquet")["b_is_low"].to_pylist()
    assert {text.startswith(LONG) for text in texts} == {True}
    assert set(sides) == {True, False}
    out, _ = world.build(drop, settings=MAJORITY)
    assert len(read(out)) == 1


def test_judgments_of_a_pair_that_falls_count_for_its_winner_in_another_drop(world):
    """Two verdicts in May, one in June under a nearly equal prompt: June's counts for May's pair, and is booked."""
    may = [judgment(ASKED, OTHER, LONG, "a", name) for name in ("ann", "bob")]
    june = [judgment(ASKED + " Thanks", LONG, OTHER, "b", "cat")]
    out, outcome = world.build(world.drop("may", may), world.drop("june", june), settings=MAJORITY)
    (row,) = read(out)
    assert row["drops"] == ["june", "may"]
    assert row["annotators"] == ["ann", "bob", "cat"]
    assert sorted(row["judgment_ids"]) == sorted(one["judgment_id"] for one in may + june)
    (loser,) = read(out, "excluded_pairs")
    assert loser["winner_pair_id"] == row["pair_id"]
    assert outcome.books.as_dict() == {"in": 3, "kept": {"judgments": 3}, "merged": 0, "rejected": {}}


def test_the_winner_may_be_in_the_later_drop(world):
    """Most judgments decide, not the order of arrival; an edited response is left out, not added."""
    may = [judgment(ASKED, OTHER, LONG, "a", "ann")]
    june = [judgment(ASKED, OTHER, LONG + " Thanks", "a", name) for name in ("bob", "cat")]
    out, outcome = world.build(world.drop("may", may), world.drop("june", june), settings=MAJORITY)
    (row,) = read(out)
    assert row["drops"] == ["june"]
    (loser,) = read(out, "excluded_pairs")
    assert loser["winner_pair_id"] == row["pair_id"]
    assert loser["judgment_ids"] == [may[0]["judgment_id"]]
    assert outcome.books.rejected == {"near_duplicate": 1}


def test_a_hundred_thousand_equal_texts_stay_linear():
    """Every band holds one bucket of all rows: the edges are counted, nine per row at most, not five billion."""
    count = 100_000
    bands = np.full((16, count), 7, np.uint32)
    edges = np.concatenate(list(propose(bands, np.arange(count), count, Scratch(None))))
    assert len(edges) < 9 * count
    assert set(edges[:, 1].tolist()) == set(range(1, count))
