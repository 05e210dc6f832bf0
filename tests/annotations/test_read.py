"""Reading whole drops: the bundled scenario against what was planted, real HH-RLHF, and the tables themselves."""

import gzip
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.schemas import DEMONSTRATIONS, JUDGMENTS, REJECTED_RECORDS
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.tables import Pseudonyms
from dpo_pipeline.core.tables import describe
from dpo_pipeline.samples.scenario import generate_scenario

HH = os.environ.get("DPO_BENCH_HH")  # the path of hh_rlhf_harmless/test.jsonl.gz
PAIR = {"prompt": "Say hi.", "response_a": "Hi", "response_b": "No", "verdict": "a", "who": "w1", "shown": "left"}
MAPPING = (
    "mapping: {prompt: prompt, response_a: response_a, response_b: response_b, verdict: verdict, annotator: who}\n"
)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return home, generate_scenario(home / "inbox", seed=3, scale=0.05)


@pytest.mark.parametrize("drop", ["2026-09-first", "2026-10-second"])
def test_what_was_planted_is_found(scenario, drop, read):
    home, facts = scenario
    folder = home / "inbox" / drop
    result = read({path.name: path.read_bytes() for path in folder.iterdir() if path.name != "_COMPLETE"}, drop=drop)
    planted = {
        (where["file"], where["record_number"], entry["reason"])
        for entry in facts.faults.values()
        if "reason" in entry
        for where in entry["where"]
        if where["drop"] == drop
    }
    assert {(row["file"], row["record_number"], row["reason"]) for row in result.rejected} == planted
    assert len(result.judgments) == facts.drops[drop]["verdicts"]
    assert len(result.demonstrations) == facts.drops[drop]["demonstrations"]
    assert result.outcomes.judgments.facts["values_left_out"] == {}


def test_an_annotator_has_one_pseudonym_in_both_drops_and_no_address(scenario, read):
    home, facts = scenario
    found, text = [], ""
    for drop in facts.drops:
        files = {path.name: path.read_bytes() for path in (home / "inbox" / drop).iterdir()}
        result = read({name: content for name, content in files.items() if name != "_COMPLETE"}, drop=drop)
        found.append({row["annotator"] for row in result.judgments})
        text += json.dumps([result.judgments, result.rejected, result.demonstrations], default=str)
    assert found[0] == found[1]
    assert len(found[0]) == len(facts.annotators)
    assert found[0] == {Pseudonyms(b"test key").of(number) for number in facts.annotators}
    assert "annotators.example" not in text
    assert "203.0.113" not in text


def test_the_log_names_nobody(read):
    """Ids, addresses and what was written stay out of every line, whatever becomes of the record."""
    said = []

    class Listener:
        def say(self, sentence):
            said.append(sentence)

        def metrics(self, step, values):
            pass

    secrets = ("anna.muster", "W-4711", "203.0.113.9", "hunter2")
    record = {**PAIR, "who": secrets[0] + "@example.org", "email": secrets[1], "ip": secrets[2], "note": secrets[3]}
    lines = [
        record,
        record,
        record,
        {**record, "verdict": secrets[3]},
        {**record, "response_a": None},
        {"who": secrets[0]},
    ]
    result = read({"export.jsonl": "\n".join(map(json.dumps, lines)), "drop.yaml": MAPPING}, reporter=Listener())
    assert len(result.rejected) == 3
    assert said
    assert not [sentence for sentence in said for secret in secrets if secret in sentence]


def test_the_scenario_keeps_strength_sides_and_dimensions(scenario, read):
    home, _ = scenario
    folder = home / "inbox" / "2026-10-second"
    result = read({path.name: path.read_bytes() for path in folder.iterdir() if path.name != "_COMPLETE"})
    choices = Counter(row["choice"] for row in result.judgments)
    assert set(choices) >= {"a", "b", "tie", "both_bad"}
    assert {row["strength"] for row in result.judgments if row["choice"] == "a"} <= {-1, -2, -3}
    assert {row["strength"] for row in result.judgments if row["choice"] not in "ab"} == {0}
    assert {row["shown_first"] for row in result.judgments} == {"a", "b"}
    names = {one["name"] for row in result.judgments for one in row["dimensions"]}
    assert names == {"concise", "acknowledges", "specific", "actionable", "tone"}
    assert all(row["judged_at"] is not None and row["seconds"] > 0 for row in result.judgments)


@pytest.mark.skipif(not HH, reason="DPO_BENCH_HH names no file of HH-RLHF")
def test_hh_rlhf_is_booked_and_cut_at_the_last_assistant_turn(read):
    result = read({"test.jsonl.gz": Path(HH).read_bytes()})
    assert result.books.as_dict() == {
        "in": 2312,
        "kept": {"judgment_records": 2299},
        "merged": 0,
        "rejected": {"empty_response": 4, "role_order": 4, "unequal_contexts": 5},
    }
    lines = [json.loads(line) for line in gzip.decompress(Path(HH).read_bytes()).splitlines()]
    for row in result.judgments:
        chosen = lines[row["record_number"] - 1]["chosen"]
        before, _, last = chosen.rpartition("\n\nAssistant:")
        assert row["response_a"] == last.strip()
        assert row["prompt"][-1]["role"] == "user"
        assert before.endswith(row["prompt"][-1]["content"].strip()) or before.strip().endswith(
            row["prompt"][-1]["content"]
        )
    assert {row["sft_allowed"] for row in result.judgments} == {False}
    assert {row["source"] for row in result.judgments} == {"hh_rlhf"}


def test_hh_may_be_used_for_sft_only_if_the_drop_says_so(read):
    line = json.dumps({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"})
    assert read({"hh.jsonl": line}).judgments[0]["sft_allowed"] is False
    assert read({"hh.jsonl": line, "drop.yaml": "sft_allowed: true"}).judgments[0]["sft_allowed"] is True


def test_the_tables_have_the_published_schemas(read):
    result = read({"export.jsonl": json.dumps(PAIR), "drop.yaml": MAPPING})
    for name, schema in (("judgments", JUDGMENTS), ("rejected", REJECTED_RECORDS), ("demonstrations", DEMONSTRATIONS)):
        found = result.tables[name].schema
        assert found.equals(schema)
        assert [one["description"] for one in describe(found)] == [one["description"] for one in describe(schema)]
        assert result.tables[name].schema.metadata == schema.metadata


def test_equal_input_gives_equal_bytes(read):
    files = {"a.jsonl": json.dumps(PAIR) + "\nbroken", "b.csv": "prompt,chosen,rejected\nx,y,z\n", "drop.yaml": MAPPING}
    digests = [
        [
            hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in result.folders.values()
            for path in sorted(folder.iterdir())
        ]
        for result in (read(files), read(files))
    ]
    assert digests[0] == digests[1]


def test_ids_depend_on_content_and_place_only(read):
    first = read({"a.jsonl": json.dumps(PAIR), "drop.yaml": MAPPING}, drop="one")
    renamed = read({"b.jsonl": json.dumps(PAIR), "drop.yaml": MAPPING}, drop="two")
    moved = read({"a.jsonl": "\n" + json.dumps(PAIR), "drop.yaml": MAPPING})
    ids = [result.judgments[0]["judgment_id"] for result in (first, renamed, moved)]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 32


def test_pseudonyms_need_the_key_and_keep_platforms_apart_where_asked(read):
    files = {"a.jsonl": json.dumps(PAIR), "drop.yaml": MAPPING}
    plain = read(files).judgments[0]["annotator"]
    assert plain == read(files).judgments[0]["annotator"]
    assert plain != read(files, key=b"another key").judgments[0]["annotator"]
    assert plain != read({**files, "drop.yaml": MAPPING + "annotator_namespace: acme/"}).judgments[0]["annotator"]
    assert "w1" not in plain


def test_a_record_with_an_unusable_part_is_booked_as_kept_and_as_rejected(read):
    task = {
        "id": 1,
        "data": {"prompt": "p", "text1": "x", "text2": "y"},
        "annotations": [
            {
                "id": 1,
                "completed_by": 1,
                "result": [{"type": "pairwise", "from_name": "p", "value": {"selected": "left"}}],
            },
            {
                "id": 2,
                "completed_by": 2,
                "result": [{"type": "pairwise", "from_name": "p", "value": {"selected": "up"}}],
            },
        ],
    }
    result = read({"export.json": json.dumps([task])})
    assert result.books.as_dict() == {
        "in": 2,
        "kept": {"judgment_records": 1},
        "merged": 0,
        "rejected": {"unknown_verdict": 1},
    }


def test_books_are_kept_per_file(read):
    line = json.dumps(PAIR)
    result = read({"a.jsonl": f"{line}\n{line}\nx", "b.jsonl": "{}", "drop.yaml": MAPPING})
    assert {name: book["in"] for name, book in result.per_file.items()} == {"a.jsonl": 3, "b.jsonl": 1}
    assert result.outcomes.rejected.facts["reasons"]["invalid_json"] == Reason.INVALID_JSON.sentence


def test_an_ignored_file_is_booked(read):
    result = read({"a.jsonl": json.dumps(PAIR), "drop.yaml": "files: [{match: 'a.*', ignore: true}]"})
    assert [row["reason"] for row in result.rejected] == ["ignored_file"]


def test_row_groups_are_bounded_whatever_the_files(read, tmp_path):
    import pyarrow.parquet as pq

    line = json.dumps(PAIR) + "\n"
    files = {f"{name}.jsonl": line * count for name, count in (("a", 15_000), ("b", 12_000), ("c", 1))}
    result = read({**files, "drop.yaml": MAPPING})
    metadata = pq.ParquetFile(result.folders["judgments"] / "judgments.parquet").metadata
    assert [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)] == [20_000, 7_001]
    assert [row["file"] for row in result.judgments] == ["a.jsonl"] * 15_000 + ["b.jsonl"] * 12_000 + ["c.jsonl"]
    assert [row["record_number"] for row in result.judgments[:3]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("scale", "reverse", "verdict", "expected"),
    [
        ("likert_7", False, 1, ("a", -3)),
        ("likert_7", False, "4", ("tie", 0)),
        ("likert_7", False, 7.0, ("b", 3)),
        ("likert_7", True, 1, ("b", 3)),
        ("likert_5", False, 2, ("a", -1)),
        ("signed_3", False, "-3", ("a", -3)),
        (None, False, "Model A", ("a", -2)),
        (None, False, "both bad", ("both_bad", 0)),
        (None, False, "N/A", ("not_rateable", 0)),
    ],
)
def test_verdicts_on_every_scale(read, scale, reverse, verdict, expected):
    drop = MAPPING + (f"scale: {scale}\n" if scale else "")
    settings = AnnotationSettings(likert_reversed=reverse)
    (row,) = read({"a.jsonl": json.dumps({**PAIR, "verdict": verdict}), "drop.yaml": drop}, settings=settings).judgments
    assert (row["choice"], row["strength"]) == expected


@pytest.mark.parametrize("verdict", [8, "0", True, "much", 3.5, [1], None, ""])
def test_verdicts_off_every_scale_are_rejected(read, verdict):
    result = read({"a.jsonl": json.dumps({**PAIR, "verdict": verdict}), "b.jsonl": json.dumps({**PAIR, "verdict": 1}),
                   "drop.yaml": MAPPING + "scale: likert_7\nfiles: []\n"})  # fmt: skip
    assert [row["file"] for row in result.judgments] == ["b.jsonl"]


def test_long_records_make_smaller_row_groups(read, monkeypatch):
    import pyarrow.parquet as pq

    from dpo_pipeline.annotations import tables

    monkeypatch.setattr(tables, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 50_000)
    lines = [json.dumps({**PAIR, "response_a": "x" * 3_000 + str(number)}) for number in range(100)]
    result = read({"a.jsonl": "\n".join(lines), "drop.yaml": MAPPING})
    assert pq.ParquetFile(result.folders["judgments"] / "judgments.parquet").metadata.num_row_groups > 5
    assert [row["record_number"] for row in result.judgments] == list(range(1, 101))
