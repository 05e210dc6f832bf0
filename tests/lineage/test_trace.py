"""What is traced is found where a plain scan finds it, by either of its names, and a rejection has its reason."""

import pyarrow.parquet as pq
import pytest

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.lineage.trace import as_text, trace_annotator, trace_pair, trace_record


def rows(home, asset, file, drop=None):
    return pq.read_table(home.latest(asset, drop).path / file).to_pylist()


def test_an_annotators_pairs_are_those_that_a_scan_of_the_tables_finds(built_once):
    home = built_once
    judged = [
        row for drop in home.partitions("judgments") for row in rows(home, "judgments", "judgments.parquet", drop)
    ]
    annotator = judged[0]["annotator"]
    traced = trace_annotator(home, annotator)
    assert traced.judgments == {row["judgment_id"] for row in judged if row["annotator"] == annotator}
    both = rows(home, "preference_pairs", "pairs.parquet") + rows(home, "preference_pairs", "excluded_pairs.parquet")
    assert traced.pairs == {row["pair_id"] for row in both if traced.judgments & set(row["judgment_ids"])}
    assert "train" in as_text(traced)


def test_a_record_leads_to_its_judgment_and_a_rejected_one_to_its_reason(built_once):
    home, drop = built_once, built_once.partitions("judgments")[0]
    row = rows(home, "judgments", "judgments.parquet", drop)[0]
    traced = trace_record(home, f"{drop}/{row['file']}:{row['record_number']}")
    assert row["judgment_id"] in traced.judgments
    rejected = rows(home, "rejected_records", "rejected_records.parquet", drop)[0]
    text = as_text(trace_record(home, f"{drop}/{rejected['file']}:{rejected['record_number']}"))
    assert f"rejected: {rejected['reason']}" in text


def test_a_pair_leads_back_to_its_judgments(built_once):
    row = rows(built_once, "preference_pairs", "pairs.parquet")[0]
    assert trace_pair(built_once, row["pair_id"]).judgments == set(row["judgment_ids"])


def test_everything_with_texts_or_weights_made_from_it_is_named(built, published):
    """Whoever deletes what is named leaves no texts in sketches, no quoted disagreements, no points of a sweep."""
    parents = {
        "annotator_report": ("judgments", "pair_sketches", "preference_pairs"),
        "sweep_point": ("preference_pairs",),
    }
    for kind, names in parents.items():
        with built.store.staging() as folder:
            (folder / "something").write_text(kind)
            behind = tuple(Parent(name, name, one.digest) for name in names for one in built.all_made(name))
            published(built, Recipe(kind, "1", {}, behind), folder, Outcome())
    trained = next(row for row in rows(built, "preference_pairs", "pairs.parquet") if row["split"] == "train")
    traced = trace_pair(built, trained["pair_id"])
    named = {hit.artifact.digest for hit in traced.hits}
    drops = {hit.artifact.manifest["settings"]["drop"] for hit in traced.hits if hit.artifact.kind == "judgments"}
    assert {built.latest("pair_sketches", drop).digest for drop in drops} <= named
    assert built.latest("annotator_report").digest in named
    assert built.latest("sweep_point").digest in {hit.artifact.digest for hit in traced.hits if hit.learned}


def test_the_platforms_own_id_is_understood_by_the_homes_key(built_once):
    from dpo_pipeline.annotations.tables import Pseudonyms
    from dpo_pipeline.lineage.trace import names_of

    assert Pseudonyms(built_once.pseudonym_key()).of("worker 7") in names_of(built_once, "worker 7")


@pytest.mark.parametrize("record", ["nothing", "file.jsonl:x", "file.jsonl:99999"])
def test_what_was_never_read_is_an_error_that_says_so(built_once, record):
    with pytest.raises(InputError):
        trace_record(built_once, record)
