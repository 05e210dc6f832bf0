"""Decontamination: planted overlaps are found, near misses are not, whatever the file's format."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.preferences.benchmarks import overlapping
from dpo_pipeline.preferences.normalize import TURN_SEPARATOR, normalise
from dpo_pipeline.preferences.pinned import BenchmarkFile

ITEM = "A train leaves the station at noon and travels sixty miles an hour; when does it arrive in the next town"
SHORT = "What is the capital of France?"
WORDS = ITEM.split()


def benchmark(path, **given):
    return BenchmarkFile(path=str(path), sha256=sha256_of_file(path), **given)


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": text}) for text in (ITEM, SHORT)))
    return (benchmark(path),)


def found(texts, items):
    return overlapping(normalise(pa.array(texts)), items).tolist()


def test_what_overlaps_by_more_than_half_is_found(items):
    """The item has 21 words: a run of 11 covers more than half, one of 10 less; two runs add up."""
    halves = " ".join(WORDS[:8]) + " something else entirely " + " ".join(WORDS[12:20])
    cases = {
        ITEM: True,
        ITEM.upper() + " Explain.": True,
        "Please tell me: " + " ".join(WORDS[3:14]): True,
        " ".join(WORDS[3:13]): False,
        halves: True,
        "Where is my parcel? It should have been here on Monday, and nobody answers the phone at all.": False,
        " ".join(reversed(WORDS)): False,
        "": False,
    }
    assert len(WORDS) == 21
    assert dict(zip(cases, found(list(cases), items), strict=True)) == cases


def test_a_short_item_must_be_a_whole_turn(items):
    assert found([SHORT.lower(), "Tell me: " + SHORT, SHORT + " And of Spain, please?"], items) == [True, False, False]
    turns = pa.array([normalise(pa.array(["hello there"]))[0].as_py() + TURN_SEPARATOR + SHORT.lower()])
    assert overlapping(turns, items).tolist() == [True]


def test_every_format_gives_the_same_items(tmp_path, items):
    rows = [{"question": ITEM}, {"question": SHORT}]
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    with (tmp_path / "b.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["question"])
        writer.writeheader()
        writer.writerows(rows)
    for name in ("b.json", "b.jsonl.gz", "b.parquet", "b.csv"):
        assert found([ITEM, SHORT, "no"], (benchmark(tmp_path / name, field="question"),)) == [True, True, False], name


def test_a_line_separator_inside_a_string_cuts_nothing(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps({"prompt": ITEM + "\u2028"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found([ITEM], (benchmark(path),)) == [True]


@pytest.mark.parametrize("name", ["b.parquet", "b.json", "b.jsonl", "b.jsonl.gz", "b.parquet.gz"])
def test_a_broken_file_is_said(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"{broken")
    with pytest.raises(InputError, match="cannot be read"):
        found([ITEM], (benchmark(path),))


def test_a_wrong_field_and_a_changed_file_are_said(tmp_path, items):
    with pytest.raises(InputError, match=r"item 1 of .* has no text in the field 'text'"):
        found([ITEM], (items[0].model_copy(update={"field": "text"}),))
    changed = items[0].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(InputError, match="has the SHA-256"):
        found([ITEM], (changed,))


def test_a_contaminated_pair_is_in_neither_side(world, items):
    from preference_worlds import judgment

    from dpo_pipeline.preferences.settings import PreferenceSettings

    rows = [
        judgment(ITEM, "At one o'clock, I think.", "Never.", "a"),
        judgment("How are you today?", "Fine.", "Bad.", "a"),
    ]
    settings = PreferenceSettings(benchmarks=items)
    out, outcome = world.build(world.drop("may", rows, settings=settings), settings=settings)
    assert outcome.counts["pairs"] == 1
    assert pq.read_table(out / "excluded_pairs.parquet")["reason"].to_pylist() == ["benchmark_overlap"]
