"""From judgments to pairs: worked examples, planted duplicates, and the laws of the tables."""

import importlib.util
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preference_worlds import World, judgment, tiny

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.preferences import (
    deduplicate,
    near_duplicates,
)
from dpo_pipeline.preferences.schemas import EXCLUDED_PAIRS, PAIRS, SPLITS
from dpo_pipeline.preferences.settings import PreferenceSettings

MAJORITY = PreferenceSettings(consensus="majority")
ASKED = "How do I return the blue lamp that I bought in your shop last week?"
LONG = "You can return it within thirty days: put it into its box and bring it to any of our shops."
SHORT = "Bring it back to a shop with the receipt, and you will be given the money."


def read(folder, name="pairs"):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def only(folder):
    (row,) = read(folder)
    return row


def reasons(folder):
    return Counter(row["reason"] for row in read(folder, "excluded_pairs"))


def test_a_pair_says_what_its_judgments_add_up_to(world):
    """Three for LONG at strengths 3, 1 (shown second) and 2, one against at 1, one tie: (3 + 1 + 2 - 1 + 0) / 5 = 1."""
    rows = [
        judgment(ASKED, LONG, SHORT, "a", "ann", strength=-3, dimensions=[{"name": "tone", "strength": -2}]),
        judgment(
            ASKED, SHORT, LONG, "b", "bob", strength=1, dimensions=[{"name": "tone", "strength": 1}], source="csv"
        ),
        judgment(ASKED.upper(), LONG, SHORT, "a", None, strength=-2),
        judgment(ASKED, LONG, SHORT, "b", "eve", strength=1, sft_allowed=False),
        judgment(ASKED, LONG, SHORT, "tie", "kim"),
        judgment(ASKED, LONG, SHORT, "skipped", "zoe"),
    ]
    out, outcome = world.build(world.drop("may", rows), settings=MAJORITY)
    row = only(out)
    assert (row["chosen"], row["rejected"]) == (LONG, SHORT)
    assert row["prompt"] == [{"role": "user", "content": ASKED}]
    assert row["p_chosen"] == pytest.approx(3.5 / 5)
    assert row["margin"] == pytest.approx(1.0)
    assert row["strength"] == pytest.approx((3 + 1 + 2 + 1 + 0) / 5), "however they took sides"
    assert row["agreement"] == pytest.approx(0.75)
    assert row["judgment_count"] == 5
    assert row["annotator_count"] == 4
    assert row["annotators"] == ["ann", "bob", "eve", "kim"]
    assert row["judgment_ids"] == sorted(given["judgment_id"] for given in rows[:5])
    assert row["dimensions"] == [{"name": "tone", "strength": 1.5}]
    assert row["sources"] == ["csv", "test"]
    assert row["drops"] == ["may"]
    assert row["group_id"] == row["prompt_id"]
    assert row["sft_allowed"] is False
    assert outcome.books.as_dict() == {"in": 6, "kept": {"judgments": 5}, "merged": 0, "rejected": {"skipped": 1}}
    assert outcome.counts["pairs_shown_in_both_orders"] == 1


def test_the_table_keeps_the_characters_of_the_text(world):
    rows = [
        judgment("Solve x² ≤ ½\r\nnow ", "“Über” 1\r\n", "no", "a", "ann"),
        judgment("solve x² ≤ ½ now", "no", '"über" 1', "b", "bob"),
        judgment("Solve x² ≤ ½\r\nnow ", "“Über” 1\r\n", "no", "a", "cat"),
    ]
    row = only(world.build(world.drop("may", rows), settings=MAJORITY)[0])
    assert row["judgment_count"] == 3
    assert row["prompt"][0]["content"] == "Solve x² ≤ ½\nnow"
    assert row["chosen"] == "“Über” 1"


def test_an_annotators_last_word_counts_once_whatever_file_or_drop_it_came_in(world):
    def said(choice, hour, **given_):
        return judgment(ASKED, LONG, SHORT, choice, "ann", judged_at=datetime(2026, 5, 1, hour, tzinfo=UTC), **given_)

    first = world.drop("may", [said("a", 9), said("b", 12), judgment(ASKED, SHORT, LONG, "b", "bob")])
    second = world.drop("june", [said("a", 10, file="late.jsonl"), judgment(ASKED, LONG, SHORT, "a", "ann")])
    out, outcome = world.build(
        first, second, settings=PreferenceSettings(consensus="majority", min_p_chosen_when_split=0.51)
    )
    assert outcome.books.as_dict() == {"in": 5, "kept": {}, "merged": 3, "rejected": {"contradiction": 2}} | {
        "kept": {"judgments": 0}
    }
    assert outcome.counts["judgments_repeated"] == 3
    assert reasons(out) == {"contradiction": 1}


def test_the_same_file_delivered_again_counts_once(world):
    rows = [judgment(ASKED, LONG, SHORT, "a", None), judgment(ASKED, LONG, SHORT, "a", "bob")]
    out, outcome = world.build(world.drop("may", rows), world.drop("june", rows), settings=MAJORITY)
    assert only(out)["judgment_count"] == 2
    assert only(out)["drops"] == ["may"]
    assert outcome.counts["judgments_delivered_twice"] == 2
    assert outcome.books.merged == 2


def test_every_exclusion_has_its_reason(world):
    rows = [
        judgment("one", LONG, SHORT, "tie"),
        judgment("two", LONG, SHORT, "a", "ann"),
        judgment("two", LONG, SHORT, "b", "bob"),
        judgment("three", LONG, SHORT, "both_bad"),
        judgment("four", LONG, SHORT, "skipped"),
        judgment("five", LONG, SHORT, "not_rateable"),
        judgment("six", "", SHORT, "b"),
        judgment("seven", LONG, LONG.upper(), "b"),
        judgment([], LONG, SHORT, "b"),
        judgment("nine", LONG, SHORT, "b"),
    ]
    out, outcome = world.build(world.drop("may", rows), settings=MAJORITY)
    expected = {
        "tie": 1,
        "contradiction": 1,
        "both_bad": 1,
        "no_verdict": 2,
        "empty_response": 1,
        "identical_responses": 1,
        "prompt_missing": 1,
    }
    assert reasons(out) == expected
    assert outcome.books.rejected == expected | {"contradiction": 2}
    assert len(read(out)) == 1
    details = {row["reason"]: row["detail"] for row in read(out, "excluded_pairs")}
    assert details["contradiction"] == (
        "The judgments contradict each other: neither response is probably better (0.5). Judgments: 2."
    )


def test_min_judgments(world):
    drop = world.drop(
        "may", [judgment("one", LONG, SHORT), judgment("one", LONG, SHORT, "a", "bob"), judgment("two", LONG, SHORT)]
    )
    out, _ = world.build(drop, settings=PreferenceSettings(consensus="majority", min_judgments=2))
    assert only(out)["judgment_count"] == 2
    assert reasons(out) == {"few_judgments": 1}


def test_near_duplicates_fall_to_the_pair_with_most_judgments(world):
    """The copy, edited throughout and shown the other way round, has two judgments, so it stays."""
    edited = (ASKED + " Thanks", SHORT.replace("money", "price"), LONG.replace("thirty", "fourteen"))
    rows = [
        judgment(ASKED, LONG, SHORT, "a", "ann"),
        judgment(*edited, "b", "bob"),
        judgment(*edited, "b", "cat"),
        judgment(
            ASKED,
            "Something else entirely, about the warranty and the repair.",
            "Ask again next week please.",
            "a",
            "dan",
        ),
    ]
    out, outcome = world.build(world.drop("may", rows), settings=MAJORITY)
    assert len(read(out)) == 2
    (loser,) = read(out, "excluded_pairs")
    winner = next(row for row in read(out) if row["judgment_count"] == 2)
    assert loser["reason"] == "near_duplicate"
    assert loser["winner_pair_id"] == winner["pair_id"]
    assert loser["judgment_ids"] == [rows[0]["judgment_id"]]
    assert outcome.books.rejected == {"near_duplicate": 1}


def test_judgments_of_the_same_responses_under_a_nearly_equal_prompt_are_added(world):
    rows = [
        judgment(ASKED, LONG, SHORT, "a", "ann"),
        judgment(ASKED, LONG, SHORT, "a", "bob"),
        judgment(ASKED + " Thanks", SHORT, LONG, "b", "cat"),
        judgment(ASKED + " Thanks", SHORT, LONG, "b", "ann"),
    ]
    out, outcome = world.build(world.drop("may", rows), settings=MAJORITY)
    row = only(out)
    assert row["annotators"] == ["ann", "bob", "cat"]
    assert row["judgment_count"] == 3
    (loser,) = read(out, "excluded_pairs")
    assert (loser["winner_pair_id"], loser["judgment_ids"]) == (row["pair_id"], [])
    assert loser["detail"].endswith("Its judgments count for that pair.")
    assert outcome.books.as_dict() == {"in": 4, "kept": {"judgments": 3}, "merged": 1, "rejected": {}}


def test_other_numbers_are_another_question(world):
    rows = [
        judgment(f"What is 2 + {n} and why is that so, my friend?", "It is 4.", "It is 5.", "ab"[n - 2]) for n in (2, 3)
    ]
    out, outcome = world.build(world.drop("may", rows), settings=MAJORITY)
    assert len(read(out)) == 2
    assert outcome.counts["prompt_clusters"] == 1


def test_a_flood_of_copies_leaves_one(world):
    """More copies than a row is compared with: all of them still fall to the one with most judgments."""
    marks = [".", ";", ",", " -", "..", ";;", ",,", " --"]
    rows = [judgment(ASKED + one + other, LONG + one, SHORT + other) for one in marks for other in marks]
    rows.append(
        judgment(
            ASKED + rows[30]["prompt"][0]["content"][len(ASKED) :],
            rows[30]["response_a"],
            rows[30]["response_b"],
            "a",
            "bob",
        )
    )
    out, _ = world.build(world.drop("may", rows), settings=MAJORITY)
    assert only(out)["annotators"] == ["ann-1", "bob"]
    assert reasons(out) == {"near_duplicate": 63}


def test_a_system_prompt_tells_pairs_and_only_there_prompts_apart(world):
    """Alike but for the system prompt: other pairs, yet one side of the split."""

    def under(system):
        return [{"role": "system", "content": system}, {"role": "user", "content": ASKED}]

    rows = [judgment(under("You are a pirate."), LONG, SHORT), judgment(under("You are a clerk."), LONG, SHORT)]
    out, _ = world.build(world.drop("may", rows), settings=MAJORITY)
    one, other = read(out)
    assert one["prompt_id"] != other["prompt_id"]
    assert one["cluster_id"] == other["cluster_id"]


def test_a_shared_system_prompt_does_not_make_prompts_alike(world):
    system = {"role": "system", "content": "You are the friendly assistant of a shop for lamps. " * 8}
    rows = [
        judgment([system, {"role": "user", "content": f"{word} {number} tell me something"}], LONG, SHORT)
        for number, word in enumerate(("first", "second", "third"))
    ]
    out, outcome = world.build(world.drop("may", rows), settings=MAJORITY)
    assert outcome.counts["prompt_clusters"] == 3
    assert len(read(out)) == 3


def test_conversations_with_the_same_opening_stand_together(world):
    opening = {"role": "user", "content": "My lamp arrived broken and I am angry"}
    rows = [
        judgment([opening, {"role": "assistant", "content": reply}, {"role": "user", "content": end}], LONG, SHORT)
        for reply, end in (
            ("Sorry! Which one?", "The blue one"),
            (LONG, "That is far too much for me to read right now, sir"),
        )
    ]
    _, outcome = world.build(world.drop("may", rows), settings=MAJORITY)
    assert outcome.counts["prompt_clusters"] == 1


def test_personal_data_can_be_redacted_in_the_tables(world):
    rows = [judgment("Write to me: jo@example.org", LONG + " Call 555-123-4567.", SHORT)]
    settings_ = PreferenceSettings(consensus="majority", rules={"email": "redact", "phone": "redact"})
    row = only(world.build(world.drop("may", rows, settings=settings_), settings=settings_)[0])
    assert row["prompt"][0]["content"] == "Write to me: [EMAIL]"
    assert row["chosen"] == LONG + " Call [PHONE]."
    assert row["flags"] == ["email", "phone"]


def test_texts_redacted_by_other_rules_are_refused(world):
    drop = world.drop("may", [judgment("Write to me: jo@example.org", LONG, SHORT)])
    with pytest.raises(InputError, match="drop may were made with other rules for personal data"):
        world.build(drop, settings=PreferenceSettings(consensus="majority", rules={"email": "redact"}))


def test_texts_come_in_the_order_of_the_pairs_from_many_row_groups_and_drops(world, monkeypatch):
    """Ranges, row groups and slices are made tiny: each text must still stand beside the pair it belongs to."""
    tiny(monkeypatch)
    numbers = [f"{number}{'lamp' * (number % 5)}" for number in range(60)]
    rows = [judgment(f"Ask {text}", f"{text} is better", f"{text} is worse") for text in numbers]
    out, _ = world.build(
        *(world.drop(name, rows[start::3]) for start, name in enumerate(("may", "june", "july"))), settings=MAJORITY
    )
    table = pq.read_table(out / "pairs.parquet").to_pylist()
    assert len(table) == 60
    assert [row["pair_id"] for row in table] == sorted(row["pair_id"] for row in table)
    for row in table:
        text = row["prompt"][0]["content"].removeprefix("Ask ")
        assert (row["chosen"], row["rejected"]) == (f"{text} is better", f"{text} is worse")


def test_a_choice_decides_the_side_even_where_the_strength_forgot_its_sign(world):
    row = only(world.build(world.drop("may", [judgment(ASKED, LONG, SHORT, "b", strength=0)]), settings=MAJORITY)[0])
    assert (row["chosen"], row["margin"]) == (SHORT, 1.0)


def test_no_drop_is_refused(world):
    with pytest.raises(InputError, match="no drop"):
        world.build()


def test_an_unknown_choice_is_refused(world):
    with pytest.raises(InputError, match="'maybe'"):
        world.build(world.drop("may", [judgment(ASKED, LONG, SHORT, "maybe")]))


def test_a_sketch_of_other_judgments_is_refused(world):
    one, other = world.drop("may", [judgment(ASKED, LONG, SHORT)]), world.drop("june", [judgment("x", "y", "z")] * 2)
    with pytest.raises(InputError, match="the sketch of drop may has 2 rows, its judgments 1"):
        world.build(one._replace(sketches=other.sketches))


def test_empty_drops_give_empty_tables(world):
    out, outcome = world.build(world.drop("may", []), world.drop("june", []))
    assert (read(out), read(out, "excluded_pairs"), read(out, "splits")) == ([], [], [])
    assert outcome.books.is_balanced


def test_tables_carry_their_schemas(world):
    rows = [judgment(f"prompt {number}", LONG, SHORT) for number in range(5)]
    out, _ = world.build(world.drop("may", rows), settings=MAJORITY)
    for name, schema in (("pairs", PAIRS), ("excluded_pairs", EXCLUDED_PAIRS), ("splits", SPLITS)):
        found = pq.read_schema(out / f"{name}.parquet")
        assert found.equals(schema)
        assert schema.metadata.items() <= found.metadata.items()


TEXT = st.sampled_from([LONG, SHORT, SHORT + " Thanks", LONG.upper(), "No.", "", "Maybe later, sir"])
PROMPT = st.sampled_from([ASKED, ASKED + " Please", ASKED.lower(), "Hello there", "", "Tell me a joke about lamps"])
ROW = st.builds(
    judgment,
    PROMPT,
    TEXT,
    TEXT,
    st.sampled_from(["a", "b", "a", "b", "tie", "both_bad", "skipped", "not_rateable"]),
    st.sampled_from(["ann", "bob", "cat", None]),
    record_number=st.integers(1, 3),
    votes=st.integers(1, 2),
)
DROPS = st.lists(st.lists(ROW, max_size=8), min_size=1, max_size=3)
METHOD = st.sampled_from(["majority", "strength", "dawid_skene", "bradley_terry"])


def unlike(rows):
    """The rows without those whose judgment id occurred before: a table has each once."""
    return list({row["judgment_id"]: row for row in rows}.values())


@settings(max_examples=12)
@given(drops=DROPS, method=METHOD, chance=st.randoms(use_true_random=False))
def test_laws_of_the_build(tmp_path_factory, drops, method, chance):
    """Books balance, every judgment is in one place, row order does not matter, earlier splits stay."""
    world = World(tmp_path_factory.mktemp("laws"))
    settings_ = PreferenceSettings(consensus=method, held_out_share=0.4)
    drops = [unlike(rows) for rows in drops]
    tables = [world.drop(f"drop-{number}", rows) for number, rows in enumerate(drops)]
    out, outcome = world.build(*tables, settings=settings_)
    books = outcome.books
    assert books.records_in == sum(map(len, drops))
    assert books.is_balanced

    pairs, excluded = read(out), read(out, "excluded_pairs")
    counted = [name for row in pairs for name in row["judgment_ids"]]
    left = [name for row in excluded for name in row["judgment_ids"]]
    assert len(counted) == books.kept["judgments"]
    assert len(set(counted + left)) == len(counted + left)
    assert (
        len({row["pair_id"] for row in pairs + excluded})
        == len(pairs) + len(excluded)
        == outcome.counts["pairs_distinct"]
    )
    for row in pairs:
        assert 0.5 < row["p_chosen"] <= 1
        assert 0 <= row["margin"] <= row["strength"] <= 3
        assert row["judgment_count"] == len(row["judgment_ids"])
        assert row["chosen"] != row["rejected"]
    kept = {row["pair_id"] for row in pairs}
    assert all(row["winner_pair_id"] is None or row["reason"] == "near_duplicate" for row in excluded)
    assert pq.read_table(out / "pairs.parquet").column("pair_id").to_pylist() == sorted(kept)

    sides = {row["cluster_id"]: set() for row in pairs}
    for row in pairs:
        sides[row["cluster_id"]].add(row["split"])
    assert all(len(some) == 1 for some in sides.values())

    shuffled = [chance.sample(rows, len(rows)) for rows in drops]
    again, _ = world.build(*(world.drop(f"drop-{n}", rows) for n, rows in enumerate(shuffled)), settings=settings_)
    for name in ("pairs", "excluded_pairs", "splits"):
        assert (again / f"{name}.parquet").read_bytes() == (out / f"{name}.parquet").read_bytes()

    files = sorted(path.name for path in out.iterdir())
    final = {row["prompt_id"]: (row["split"], row["cluster_id"], row["first_drop"]) for row in read(out, "splits")}
    for count in range(1, len(tables)):
        early, _ = world.build(*tables[:count], settings=settings_)
        for row in read(early, "splits"):
            assert final[row["prompt_id"]] == (row["split"], row["cluster_id"], row["first_drop"])
        resumed, _ = world.build(*tables, settings=settings_, known=[early])
        assert [(resumed / name).read_bytes() for name in files] == [(out / name).read_bytes() for name in files]


@settings(max_examples=8)
@given(drops=DROPS, method=METHOD)
def test_the_bounds_of_memory_change_no_byte(tmp_path_factory, drops, method):
    """Law: sketched and built a few rows at a time, with and without an earlier build, the tables are the same."""
    world = World(tmp_path_factory.mktemp("bounds"))
    settings_ = PreferenceSettings(consensus=method, held_out_share=0.4)
    drops = [unlike(rows) for rows in drops]
    out, outcome = world.build(
        *(world.drop(f"drop-{number}", rows) for number, rows in enumerate(drops)), settings=settings_
    )
    with pytest.MonkeyPatch.context() as patch:
        tiny(patch)
        tables = [world.drop(f"drop-{number}", rows) for number, rows in enumerate(drops)]
        again, bounded = world.build(*tables, settings=settings_)
        early, _ = world.build(tables[0], settings=settings_)
        resumed, _ = world.build(*tables, settings=settings_, known=[early])
    files = sorted(path.name for path in out.iterdir())
    for other in (again, resumed):
        assert sorted(path.name for path in other.iterdir()) == files
        assert [(other / name).read_bytes() for name in files] == [(out / name).read_bytes() for name in files]
    assert (bounded.counts, bounded.facts) == (outcome.counts, outcome.facts)
    assert bounded.books.as_dict() == outcome.books.as_dict()


def test_a_later_build_measures_only_what_no_earlier_one_did(world):
    numbered = [judgment(ASKED + mark, LONG + mark, SHORT + mark) for mark in ("", " Thanks", " Please", " Now")]
    first = world.drop("may", numbered[:3])
    early, alone = world.build(first, settings=MAJORITY)
    assert alone.remarks["likenesses_measured"] > 0
    _, again = world.build(first, settings=MAJORITY, known=[early])
    assert again.remarks == {
        "likenesses_measured": 0,
        "likenesses_reused": alone.remarks["likenesses_measured"],
        "prompts_searched_in_crowds": 0,
    }
    both = (first, world.drop("june", numbered[3:]))
    fresh, _ = world.build(*both, settings=MAJORITY)
    resumed, outcome = world.build(*both, settings=MAJORITY, known=[early])
    assert outcome.remarks["likenesses_reused"] > 0
    assert outcome.remarks["likenesses_measured"] > 0
    for path in fresh.iterdir():
        assert (resumed / path.name).read_bytes() == path.read_bytes()


def test_likenesses_of_another_version_are_measured_again(world):
    drop = world.drop("may", [judgment(ASKED, LONG, SHORT), judgment(ASKED + " Thanks", LONG, SHORT)])
    early, alone = world.build(drop, settings=MAJORITY)
    for name in ("likeness_of_pairs", "likeness_of_prompts"):
        table = pq.read_table(early / f"{name}.parquet")
        old = table.replace_schema_metadata({**table.schema.metadata, b"shingle_version": b"0"})
        pq.write_table(old, early / f"{name}.parquet")
    _, outcome = world.build(drop, settings=MAJORITY, known=[early, world.new_folder("of an older version")])
    assert outcome.remarks == {**alone.remarks, "likenesses_reused": 0}
    assert outcome.remarks["likenesses_measured"] > 0


def test_planted_near_duplicates_are_found_and_others_left(world, monkeypatch):
    """The benchmark's planting, small: recall over 0.95 up to 5 % edits, precision over 0.99."""
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(benchmarks))
    spec = importlib.util.spec_from_file_location("bench_near_duplicates", benchmarks / "bench_near_duplicates.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    pairs, truth = bench.planted(4000, 3)
    folder = world.new_folder("bench")
    bench.write(folder, pairs)
    found = bench.judge(bench.ours(folder, PreferenceSettings()), truth)
    for kind in ("exact", "spelling", "swapped"):
        assert found[kind] == 1.0
    assert found["words_1_to_3"] > 0.95
    assert found["words_5_percent"] > 0.97
    assert found["same_prompt"] == 0
    assert found["same_prompt_and_one_response"] == 0
    assert found["half_of_both_responses"] == 0
    assert found["precision"] > 0.99


def test_a_held_out_prompt_stays_out_though_later_drops_bring_near_copies(world):
    """Ten drops of prompts, a third of them edits of earlier ones: nothing held out is ever near a trained prompt."""
    chance = np.random.default_rng(1)
    words = [f"word{number}" for number in range(300)]
    known: list[list[str]] = []
    drops = []
    for number in range(4):
        rows = []
        for _ in range(60):
            if known and chance.random() < 0.35:
                text = list(known[chance.integers(len(known))])
                text[chance.integers(len(text))] = "edited"
            else:
                text = list(chance.choice(words, 14))
                known.append(text)
            rows.append(judgment(" ".join(text), LONG + f" {len(known)}", SHORT))
        drops.append(world.drop(f"drop-{number}", unlike(rows)))
    out, outcome = world.build(*drops, settings=PreferenceSettings(consensus="majority", held_out_share=0.3))
    splits = {row["prompt_id"]: row["split"] for row in read(out, "splits")}
    grams = {
        row["prompt_id"]: set(zip(*(row["prompt"][0]["content"].split()[at:] for at in (0, 1)), strict=False))
        for row in read(out)
    }
    held = [name for name in grams if splits[name] == "held_out"]
    trained = [name for name in grams if splits[name] == "train"]
    assert held
    near = [
        (one, other)
        for one in held
        for other in trained
        if len(grams[one] & grams[other]) >= 0.5 * len(grams[one] | grams[other])
    ]
    assert len(near) <= 0.02 * len(held)
    assert json.dumps(outcome.facts)


def test_of_an_earlier_builds_prompts_only_what_new_ones_touch_is_looked_for(world, monkeypatch):
    """The edges among the first drops are taken over as they stand; the tables are those of a build from nothing.

    Seventy prompts that share most of their words, in a known order of arrival: buckets of more than a window's rows.
    """
    chance = np.random.default_rng(3)
    words = [f"word{number}" for number in range(24)]
    prompts = [
        " ".join("other" if place in chance.integers(0, 24, 3) else word for place, word in enumerate(words))
        + f" and {number * 7}"
        for number in range(70)
    ]
    rows = [judgment(text, f"good {at}", f"bad {at}") for at, text in enumerate(prompts)]
    drops = [world.drop("may", rows[:50]), world.drop("june", rows[45:60]), world.drop("july", rows[60:])]
    early, _ = world.build(*drops[:2], settings=MAJORITY)
    fresh, alone = world.build(*drops, settings=MAJORITY)
    looked_at = []
    links = near_duplicates._links
    monkeypatch.setattr(
        near_duplicates,
        "_links",
        lambda keys, order, early: looked_at.append(len(order)) or links(keys, order, early),
    )
    monkeypatch.setattr(near_duplicates, "ROWS_PER_PIECE", 9)
    resumed, outcome = world.build(*drops, settings=MAJORITY, known=[early])
    for path in fresh.iterdir():
        assert (resumed / path.name).read_bytes() == path.read_bytes()
    assert min(looked_at) < 70, "buckets without a new prompt are passed by"
    assert 0 < outcome.remarks["likenesses_measured"] < alone.remarks["likenesses_measured"] / 2
    other_order = (drops[1], drops[0], drops[2])
    fresh, _ = world.build(*other_order, settings=MAJORITY)
    resumed, outcome = world.build(*other_order, settings=MAJORITY, known=[early])
    assert outcome.remarks["likenesses_reused"] > 0, "of another order only what was measured is taken over"
    for path in fresh.iterdir():
        assert (resumed / path.name).read_bytes() == path.read_bytes()


def test_a_search_by_other_code_is_not_taken_over(world, monkeypatch):
    """Raising CODE_VERSION is enough: whoever changes which edges are proposed need not remember the cache."""
    drops = [world.drop(name, [judgment(ASKED + name, LONG, SHORT)]) for name in (" Thanks", " Please")]
    since, propose = [], deduplicate.propose

    def watched(*given, **named):
        since.append(named.get("since", 0))
        return propose(*given, **named)

    monkeypatch.setattr(deduplicate, "propose", watched)
    same, _ = world.build(drops[0], settings=MAJORITY)
    with monkeypatch.context() as patch:
        patch.setattr(deduplicate, "CODE_VERSION", "0")
        other, _ = world.build(drops[0], settings=MAJORITY)
    for known, expected in ((same, 1), (other, 0)):
        since.clear()
        world.build(*drops, settings=MAJORITY, known=[known])
        assert max(since) == expected


def test_draws_of_another_salt_are_refused(world):
    drop = world.drop("may", [judgment(ASKED, LONG, SHORT)])
    with pytest.raises(InputError, match="drop may were sketched with another split_salt"):
        world.build(drop, settings=PreferenceSettings(consensus="majority", split_salt="another"))
