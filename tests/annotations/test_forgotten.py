"""Laws of reading with some of it forgotten: the rest is as it was, the books balance, no word of it is kept."""

import json

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_pipeline.annotations.forgotten import ANYBODY, Forgotten, said_in_row, text_digest
from dpo_pipeline.annotations.read import read_drop
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.tables import Origin, Pseudonyms
from dpo_pipeline.core.metrics import Quiet

KEY = b"a key of the home, 32 bytes long"
RULES = """
files:
  - match: "verdicts.jsonl"
    mapping: {prompt: question, response_a: one, response_b: two, verdict: verdict, annotator: who, justification: why}
    vocabulary: {left: -2, right: 2}
"""
WHO = st.sampled_from(["ann", "bob", "cem", "dia"])
RECORDS = st.lists(
    st.tuples(WHO, st.integers(0, 5), st.sampled_from(["left", "right", "perhaps"])), min_size=1, max_size=12
)


def record(who, item, verdict):
    said = {"question": f"Question {item}?", "one": f"One {item}.", "two": f"Two {item}.", "verdict": verdict}
    return {**said, "who": who, "why": f"Secret of {who}."}


def read(folder, records, forgotten):
    raw = folder / "raw" / "files"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "drop.yaml").write_text(RULES)
    (raw / "verdicts.jsonl").write_text("".join(json.dumps(record(*one)) + "\n" for one in records))
    out = {name: folder / name for name in ("judgments", "rejected", "demonstrations")}
    for path in out.values():
        path.mkdir(exist_ok=True)
    outcome = read_drop(
        raw.parent,
        drop="d",
        settings=AnnotationSettings(),
        pseudonym_key=KEY,
        reporter=Quiet(),
        forgotten=forgotten,
        **out,
    )
    tables = [
        pq.read_table(out[name] / f"{file}.parquet").to_pylist()
        for name, file in (("judgments", "judgments"), ("rejected", "rejected_records"))
    ]
    return *tables, outcome.books


@settings(max_examples=40)
@given(records=RECORDS, gone=st.sets(WHO, max_size=3), places=st.sets(st.integers(1, 12), max_size=3))
def test_the_rest_is_as_it_was_the_books_balance_and_no_word_is_kept(tmp_path, records, gone, places):
    judged, rejected, books = read(tmp_path, records, Forgotten())
    sha = (judged + rejected)[0]["file_sha256"]
    of = Pseudonyms(KEY).of
    annotators, origin = {of(name) for name in gone}, Origin("d", "", "verdicts.jsonl", sha)
    forgotten = Forgotten(
        annotators=tuple(sorted(annotators)), records=tuple(sorted(origin.id_of(place, 0) for place in places))
    )
    again, left_out, books_again = read(tmp_path, records, forgotten)
    assert again == [row for row in judged if row["annotator"] not in annotators and row["record_number"] not in places]
    assert books_again.is_balanced
    assert books_again.records_in == books.records_in
    numbers = {row["record_number"] for row in left_out if row["reason"] == "forgotten"}
    assert numbers == {row["record_number"] for row in judged + rejected} & (
        places | {row["record_number"] for row in judged if row["annotator"] in annotators}
    )
    assert not [name for name in gone if f"Secret of {name}" in str(left_out)]


@settings(max_examples=40)
@given(records=RECORDS, item=st.integers(0, 5), who=st.none() | WHO)
def test_a_forgotten_text_goes_from_everybody_or_from_one_annotator_alone(tmp_path, records, item, who):
    judged, _, _ = read(tmp_path, records, Forgotten())
    meant = next((row for row in judged if f"Question {item}?" in str(row["prompt"])), None)
    if meant is None:
        return
    by = ANYBODY if who is None else Pseudonyms(KEY).of(who)
    again, _, books = read(tmp_path, records, Forgotten(texts=(text_digest(said_in_row(meant), KEY, by=by),)))
    assert books.is_balanced
    assert again == [
        row for row in judged if said_in_row(row) != said_in_row(meant) or (who is not None and row["annotator"] != by)
    ]


def test_case_width_quotes_spacing_and_invisible_characters_make_no_other_text():
    row = {"prompt": [{"role": "user", "content": "Where is “it”?"}], "response_a": "Here.", "response_b": "There."}
    same = {
        "prompt": [{"role": "user", "content": ' WHERE  is\u200b "it"？'}],
        "response_a": "there.",
        "response_b": "Ｈere.\n",
    }
    other = {**row, "response_a": "Here!"}
    digests = {text_digest(said_in_row(one), KEY) for one in (row, same)}
    assert len(digests) == 1
    assert text_digest(said_in_row(other), KEY) not in digests
    assert text_digest(said_in_row(row), b"another key") not in digests
