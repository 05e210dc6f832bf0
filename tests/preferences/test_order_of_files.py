"""Law, from export files to tables: which file and line a record came in changes nothing but what names them."""

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from preference_worlds import World

from dpo_pipeline.annotations.read import read_drop
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.preferences.build import DropTables, build_pairs
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.sketch import sketch_drop

DROP_YAML = """\
mapping: {prompt: prompt, response_a: one, response_b: two, verdict: verdict, annotator: worker, judged_at: at,
          dimensions: {tone: tone}}
scale: likert_7
"""
TELLS_WHERE = {"judgment_id", "file", "file_sha256", "record_number", "group_id"}
"""Columns of `judgments.parquet` that say where a record stood."""
ASKED = "How do I return the blue lamp that I bought in your shop last week?"
LONG = "You can return it within thirty days: put it into its box and bring it to any of our shops."
SHORT = "Bring it back to a shop with the receipt, and you will be given the money."
RECORD = st.fixed_dictionaries(
    {
        "prompt": st.sampled_from(
            [ASKED, ASKED + " Please", ASKED.upper(), "Hello there, who are you?", "Tell me a joke"]
        ),
        "one": st.sampled_from([LONG, LONG.upper(), SHORT, "No.", " "]),
        "two": st.sampled_from([SHORT, SHORT + " Thanks", LONG, "Maybe later, sir"]),
        "verdict": st.integers(1, 7),
        "worker": st.sampled_from(["ann", "bob", "cat", "dan", None]),
        "tone": st.sampled_from([1, 3, 4, 6, 7]),
    }
)


def tables_of(world, files):
    """Read, sketch and build a drop whose files are given as lists of records; and what was read."""
    root = world.new_folder("drop")
    folders = {name: root / name for name in ("judgments", "rejected", "demonstrations", "sketches", "pairs")}
    for folder in (root / "raw" / "files", *folders.values()):
        folder.mkdir(parents=True)
    (root / "raw" / "files" / "drop.yaml").write_text(DROP_YAML)
    for name, records in files.items():
        (root / "raw" / "files" / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    into = {name: folders[name] for name in ("judgments", "rejected", "demonstrations")}
    books = read_drop(
        root / "raw", drop="may", settings=AnnotationSettings(), pseudonym_key=b"key", reporter=Quiet(), **into
    ).books
    drop = DropTables("may", folders["judgments"], folders["sketches"])
    rules = PreferenceSettings(held_out_share=0.4)
    sketch_drop(drop.judgments, drop.sketches, settings=rules, reporter=Quiet())
    outcome = build_pairs([drop], folders["pairs"], settings=rules, reporter=Quiet())
    judgments = pq.read_table(drop.judgments / "judgments.parquet")
    return SimpleNamespace(
        folder=folders["pairs"],
        judgments=judgments.to_pylist(),
        books=(books.as_dict(), outcome.books.as_dict(), dict(outcome.counts), dict(outcome.facts)),
    )


def without(table, names):
    rows = [{name: value for name, value in row.items() if name not in names} for row in table]
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)


@settings(max_examples=15)
@given(records=st.lists(RECORD, min_size=1, max_size=14), data=st.data())
def test_the_order_of_files_and_rows_changes_only_what_names_them(tmp_path_factory, records, data):
    """Under other file names every table keeps its bytes; with rows shuffled among files, only judgments' ids differ.

    Each verdict tells its time: which of an annotator's verdicts on a pair is the last is no matter of files then.
    """
    world = World(tmp_path_factory.mktemp("order"))
    records = [{"id": number, "at": f"2026-05-01T10:{number:02}:00Z", **one} for number, one in enumerate(records)]
    cut = data.draw(st.integers(0, len(records)), label="cut")
    files = {"a.jsonl": records[:cut], "b.jsonl": records[cut:]}
    files = {name: some for name, some in files.items() if some}
    plain = tables_of(world, files)

    renamed = tables_of(world, {name.translate({97: "z"}): some for name, some in files.items()})
    assert without(renamed.judgments, {"file"}) == without(plain.judgments, {"file"})
    assert renamed.books == plain.books
    for path in plain.folder.iterdir():
        assert (renamed.folder / path.name).read_bytes() == path.read_bytes(), path.name

    mixed = data.draw(st.permutations(records), label="shuffled")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(records)), min_size=2, max_size=2), label="cuts"))
    parts = (mixed[: cuts[0]], mixed[cuts[0] : cuts[1]], mixed[cuts[1] :])
    shuffled = tables_of(world, {f"{name}.jsonl": some for name, some in zip("pqr", parts, strict=True) if some})
    assert without(shuffled.judgments, TELLS_WHERE) == without(plain.judgments, TELLS_WHERE)
    assert shuffled.books == plain.books
    for path in plain.folder.iterdir():
        here, there = pq.read_table(path), pq.read_table(shuffled.folder / path.name)
        if "judgment_ids" in here.column_names:
            sizes = [[len(ids) for ids in table["judgment_ids"].to_pylist()] for table in (here, there)]
            assert sizes[0] == sizes[1]
            assert here.drop_columns("judgment_ids").equals(there.drop_columns("judgment_ids"))
        else:
            assert (shuffled.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_without_times_the_last_of_an_annotators_verdicts_is_the_last_by_file_name_and_line(world):
    """What the order of files does decide, exactly: who changed their mind without saying when."""
    one = {"id": 1, "prompt": ASKED, "one": LONG, "two": SHORT, "worker": "ann", "tone": 4}
    first, second = {**one, "verdict": 1}, {**one, "id": 2, "verdict": 7}

    def chosen(files):
        (row,) = pq.read_table(tables_of(world, files).folder / "pairs.parquet").to_pylist()
        return row["chosen"]

    assert chosen({"a.jsonl": [first], "b.jsonl": [second]}) == SHORT
    assert chosen({"b.jsonl": [first], "a.jsonl": [second]}) == LONG
    assert chosen({"a.jsonl": [first, second]}) == SHORT
    assert chosen({"a.jsonl": [second, first]}) == LONG
