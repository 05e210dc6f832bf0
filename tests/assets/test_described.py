"""What a person sees of a materialization: remarks as they are, the speed of a training as a picture."""

import base64

import pyarrow as pa
import pyarrow.parquet as pq

from assets.column_lineage import LINEAGE
from assets.described import describe, describe_remarks
from dpo_pipeline.core.artifacts import Outcome, Recipe


def test_the_speed_of_a_training_is_a_picture_and_other_tables_of_remarks_are_left_out():
    speeds = {"step": [10, 20, 30], "tokens_per_second": [900, 1_100, 1_000]}
    shown = describe_remarks({"peak_memory_bytes": 7, "speeds": speeds, "another": {"a": 1}})
    assert sorted(shown) == ["peak memory bytes", "speed"]
    head, _, encoded = shown["speed"].value.partition("base64,")
    assert head == "![speed](data:image/png;"
    assert base64.b64decode(encoded.rstrip(")")).startswith(b"\x89PNG")


def test_a_training_of_which_no_speed_was_noted_has_no_picture():
    assert describe_remarks({"speeds": {"step": [], "tokens_per_second": []}, "seconds": 1.5}) == {"seconds": 1.5}


def test_what_a_person_looks_at_first_comes_first_and_columns_say_what_they_are_made_of(home):
    table = pa.table({"pair_id": ["p"], "chosen": ["Yes."]})
    with home.store.staging() as folder:
        pq.write_table(table, folder / "pairs.parquet")
        (folder / "report.html").write_text("<p>")
        (folder / "curves.png").write_bytes(b"\x89PNG")
        artifact = home.store.publish(folder, Recipe("preference_pairs", "1", {}, ()), Outcome(counts={"pairs": 1}))
    shown = describe(artifact, table="pairs.parquet", pages="http://127.0.0.1:1")
    names = list(shown)
    assert names[:4] == ["report", "lineage", "curves", "pairs"]
    assert names[-2:] == ["digest", "folder"]
    columns = {column.name: column.description for column in shown["dagster/column_schema"].schema.columns}
    assert columns["chosen"] == "From judgments: response_a, response_b, choice, annotator, votes."
    assert list(shown["dagster/column_lineage"].deps_by_column) == list(LINEAGE["preference_pairs"][1])
