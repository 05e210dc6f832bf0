"""Overlaps with benchmarks over several drops: which pair met which item, counted once each, said in the log."""

import json

import pyarrow.parquet as pq
import pytest
from preference_worlds import judgment

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.sketch import sketch_drop

TRAINS = "A train leaves the station at noon and travels sixty miles an hour; when does it arrive in the next town"
LAMPS = "Four lamps hang in a row and each is twice as bright as the one before; how bright is the last of them"


@pytest.fixture
def settings(tmp_path):
    files = []
    for name, items in (("maths", [TRAINS, "How many?", LAMPS]), ("geography", ["What is the capital of France?"])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"prompt": item}) for item in items))
        files.append({"path": str(path), "sha256": sha256_of_file(path), "name": name})
    return PreferenceSettings(benchmarks=files)


ROWS = {
    "may": [
        judgment(TRAINS, "At one o'clock, I think.", "Never, it is cancelled.", "a"),
        judgment(LAMPS, "Eight times as bright.", "It is not bright at all.", "a"),
        judgment("Where is my parcel?", "On its way to you.", "I do not know that.", "a"),
    ],
    "june": [
        judgment(TRAINS, "At one o'clock, I think.", "Never, it is cancelled.", "a", "ann-2"),
        judgment(TRAINS + " in the valley", "At two o'clock, I believe.", "It had better be soon.", "a"),
        judgment("What is the capital of France?", "Paris is the capital.", "Lyon is the capital.", "a"),
    ],
}


def test_pairs_and_items_are_counted_once_over_all_drops(world, settings):
    drops = [world.drop(name, rows, settings=settings) for name, rows in ROWS.items()]
    out, outcome = world.build(*drops, settings=settings)
    assert outcome.facts["benchmark_overlaps"] == {
        "maths": {"items": 3, "items_met": 2, "pairs_found": 3},
        "geography": {"items": 1, "items_met": 1, "pairs_found": 1},
    }
    assert outcome.counts["pairs"] == 1
    rows = pq.read_table(out / "benchmark_overlaps.parquet").to_pylist()
    assert sorted((row["benchmark"], row["item"]) for row in rows) == [
        ("geography", 1), ("maths", 1), ("maths", 1), ("maths", 3),
    ]  # fmt: skip
    excluded = pq.read_table(out / "excluded_pairs.parquet").to_pylist()
    assert {row["pair_id"] for row in rows} == {row["pair_id"] for row in excluded}
    assert {row["benchmark_sha256"] for row in rows} == {file.sha256 for file in settings.benchmarks}


def test_without_an_overlap_the_table_is_there_and_empty(world, settings):
    drop = world.drop("may", [ROWS["may"][2]], settings=settings)
    out, outcome = world.build(drop, settings=settings)
    assert outcome.facts["benchmark_overlaps"]["maths"] == {"items": 3, "items_met": 0, "pairs_found": 0}
    assert pq.read_table(out / "benchmark_overlaps.parquet").num_rows == 0


def test_without_benchmarks_there_is_no_table(world):
    out, outcome = world.build(world.drop("may", ROWS["may"]))
    assert "benchmark_overlaps" not in outcome.facts
    assert not (out / "benchmark_overlaps.parquet").exists()


def test_the_log_says_what_is_compared_and_what_the_rules_cost(world, settings, tmp_path):
    said = []

    class Listener:
        def say(self, sentence):
            said.append(sentence)

        def metrics(self, step, values):
            pass

    drop = world.drop("may", ROWS["may"], settings=settings)
    sketch_drop(drop.judgments, world.new_folder("again"), settings=settings, reporter=Listener())
    assert said[0] == "benchmark_overlap: maths 3 items, geography 1 items"
    assert "cleaning rules took" in said[-2] or "cleaning rules took" in said[-1]
