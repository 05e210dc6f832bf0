"""The split, examined from the published table alone: planted leaks are found, and nothing else is."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preference_worlds import judgment

from dpo_pipeline.preferences import leakage, prompt_index, spill
from dpo_pipeline.preferences.leakage import near_leaks, prompts_on_both_sides
from dpo_pipeline.preferences.settings import PreferenceSettings

SETTINGS = PreferenceSettings(consensus="majority", held_out_share=0.4)


@pytest.fixture
def pairs(world):
    """Sixty prompts of fourteen words drawn from two hundred, built into both sides."""
    chance = np.random.default_rng(5)
    words = [f"word{number}" for number in range(200)]
    prompts = [" ".join(chance.choice(words, 14)) for _ in range(60)]
    rows = [
        judgment(prompt, f"First answer {number}.", f"Second one, {number}.") for number, prompt in enumerate(prompts)
    ]
    out, _ = world.build(world.drop("may", rows), settings=SETTINGS)
    return out


def change(folder, edit):
    """Publish the table with some of its rows changed by hand, as a careless tool might."""
    table = pq.read_table(folder / "pairs.parquet")
    rows = table.to_pylist()
    edit(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "pairs.parquet")


def first_of_each_side(rows):
    return [next(row for row in rows if row["split"] == side) for side in ("train", "held_out")]


def test_a_clean_split_has_no_leak(pairs):
    assert near_leaks(pairs, jaccard=0.5) == []
    assert prompts_on_both_sides(pairs) == []


def test_a_planted_near_copy_is_found_with_its_true_similarity(pairs):
    found = {}

    def plant(rows):
        trained, held = first_of_each_side(rows)
        turn = trained["prompt"][0]["content"]
        held["prompt"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": turn + " PLEASE"}]
        found["ids"] = (trained["prompt_id"], held["prompt_id"])
        found["grams"] = len(set(itertools.pairwise(turn.split())))

    change(pairs, plant)
    ((*ids, similarity),) = near_leaks(pairs, jaccard=0.5)
    assert tuple(ids) == found["ids"]
    assert similarity == pytest.approx(found["grams"] / (found["grams"] + 1))
    assert near_leaks(pairs, jaccard=0.99) == []


def test_a_prompt_moved_by_hand_is_its_own_near_copy(pairs):
    def move(rows):
        trained, _ = first_of_each_side(rows)
        rows.append({**trained, "split": "held_out"})

    change(pairs, move)
    ((left, right, similarity),) = near_leaks(pairs, jaccard=0.5)
    assert (left, similarity) == (right, 1.0)


def test_reading_in_small_pieces_changes_nothing(pairs, monkeypatch):
    def plant(rows):
        sides = [[row for row in rows if row["split"] == side] for side in ("train", "held_out")]
        for trained, held in zip(*sides, strict=False):
            held["prompt"] = trained["prompt"]

    change(pairs, plant)
    whole = near_leaks(pairs, jaccard=0.3)
    assert len(whole) > 10
    monkeypatch.setattr(leakage, "BATCH_ROWS", 3)
    monkeypatch.setattr(prompt_index, "CANDIDATES_AT_ONCE", 4)
    monkeypatch.setattr(spill, "RANGE_ROWS", 5)
    monkeypatch.setattr(spill, "PENDING_BYTES", 300)
    assert near_leaks(pairs, jaccard=0.3) == whole


def test_a_leak_is_found_in_a_crowd_on_both_sides(pairs):
    """Planted: of forty bigrams the copy shares all but one; all others, 150 on either side, lack four each."""
    words = [f"word{number}" for number in range(41)]
    found = {}

    def plant(rows):
        one_of_each = first_of_each_side(rows)
        rows[:] = [{**row, "prompt_id": f"{at:032x}"} for at, row in enumerate([*one_of_each * 150, one_of_each[1]])]
        for number, row in enumerate(rows):
            one, other = 1 + 3 * (number % 6), 20 + 3 * (number % 7)
            text = [f"new{number}" if place in (one, other) else word for place, word in enumerate(words)]
            row["prompt"] = [{"role": "user", "content": " ".join(text)}]
        rows[150]["prompt"] = [{"role": "user", "content": " ".join([*words[:-1], "last"])}]
        rows[300]["prompt"] = [{"role": "user", "content": " ".join(words)}]
        found["leak"] = (rows[150]["prompt_id"], rows[300]["prompt_id"], pytest.approx(39 / 41))

    change(pairs, plant)
    assert near_leaks(pairs, jaccard=0.9) == [found["leak"]]


def test_one_side_alone_leaks_nothing(pairs):
    def keep_train(rows):
        rows[:] = [row for row in rows if row["split"] == "train"]

    change(pairs, keep_train)
    assert near_leaks(pairs, jaccard=0.1) == []
    change(pairs, list.clear)
    assert near_leaks(pairs, jaccard=0.1) == []
