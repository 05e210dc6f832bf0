"""A liar who writes tables, manifests and ledger alike is still found: the rows are made again from the raw files."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.metrics import Aloud
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.lineage.chain import ancestors, chain_of, with_rejected
from dpo_pipeline.lineage.records import TABLES, check_annotators, check_books, check_rows
from dpo_pipeline.lineage.results import check_near_leaks, check_split
from dpo_pipeline.lineage.verify import verify
from dpo_pipeline.preferences import progress


@pytest.fixture
def forged(published):
    """Publishes a table again with changed rows, as somebody would who can write everything."""
    return lambda *arguments: forge(published, *arguments)


def forge(publish, home, asset, partition, file, change):
    true = home.latest(asset, partition)
    recipe = Recipe(asset, true.manifest["code_version"], true.manifest["settings"], true.parents)
    with home.store.staging() as folder:
        for path in true.path.iterdir():
            if path.name != "manifest.json":
                (folder / path.name).write_bytes(path.read_bytes())
        write_table(folder / file, change(pq.read_table(folder / file)))
        return publish(home, recipe, folder, Outcome(true.counts, true.facts, true.books), partition)


def nodes_of(home, artifact):
    return ancestors(chain_of(home, f"{artifact.kind}/{artifact.digest}"))


def replaced(table, name, values):
    return table.set_column(
        table.column_names.index(name), table.schema.field(name), pa.array(values, table[name].type)
    )


def test_an_honest_chain_has_no_fault(built_once):
    checks = verify(built_once, "preference_pairs")
    assert [fault for check in checks for fault in check.faults] == []
    ran = {check.name for check in checks if check.not_run is None}
    assert {
        "rows are those of the raw files",
        "books balance and equal the rows",
        "files are what was published",
    } <= ran


@pytest.mark.parametrize("column", ["annotator", "choice", "judgment_id"])
def test_judgments_that_the_raw_files_do_not_give_are_found(built, forged, column):
    drop = built.partitions("judgments")[0]

    def change(table):
        values = table[column].to_pylist()
        return replaced(table, column, [values[1], *values[1:]] if values[0] != values[1] else ["tie", *values[1:]])

    made = forged(built, "judgments", drop, TABLES["judgments"], change)
    [fault] = check_rows(built, nodes_of(built, made)).faults
    assert str(made.path) in fault
    assert column in fault


def test_a_home_without_its_key_says_that_the_rows_were_not_read_again(built):
    (built.root / "keys" / "pseudonym.key").unlink()
    check = check_rows(built, nodes_of(built, built.latest("preference_pairs")))
    assert "pseudonym.key is not there" in str(check.not_run)
    assert not (built.root / "keys" / "pseudonym.key").exists()


def test_rejected_rows_that_vanish_are_missed_by_the_books(built, forged):
    drop = built.partitions("judgments")[0]
    made = forged(built, "rejected_records", drop, TABLES["rejected_records"], lambda table: table.slice(1))
    [fault] = check_books(built, nodes_of(built, made)).faults
    assert str(made.path) in fault


def test_pairs_that_vanish_are_missed_by_the_books(built, forged):
    made = forged(built, "preference_pairs", None, "pairs.parquet", lambda table: table.slice(1))
    assert any("the books say kept" in fault for fault in check_books(built, nodes_of(built, made)).faults)


def test_a_pair_with_another_annotator_than_its_judgments_is_named(built, forged):
    def change(table):
        return replaced(table, "annotators", [["mallory"], *table["annotators"].to_pylist()[1:]])

    made = forged(built, "preference_pairs", None, "pairs.parquet", change)
    [fault] = check_annotators(built, nodes_of(built, made)).faults
    assert "['mallory']" in fault


def test_a_training_prompt_that_is_held_out_as_well_is_named(built, forged):
    def change(table):
        held_out = table.filter(pc.field("split") == "held_out").slice(0, 1)
        return pa.concat_tables([table, replaced(held_out, "split", ["train"])])

    made = forged(built, "preference_pairs", None, "pairs.parquet", change)
    [fault] = check_split(built, nodes_of(built, made)).faults
    assert "stand in train and in held-out" in fault


def test_a_near_copy_under_a_cluster_of_its_own_is_found(built, forged):
    """What the clusters in the table say does not matter: the words of the prompts are compared again."""

    def change(table):
        held_out = table.filter(pc.field("split") == "held_out").slice(0, 1)
        held_out = replaced(held_out, "split", ["train"])
        for name in ("prompt_id", "cluster_id"):
            held_out = replaced(held_out, name, ["f" * 32])
        words = held_out["prompt"].to_pylist()[0]
        words[-1]["content"] += " Thank you."
        return pa.concat_tables([table, replaced(held_out, "prompt", [words])])

    made = forged(built, "preference_pairs", None, "pairs.parquet", change)
    nodes = nodes_of(built, made)
    assert check_split(built, nodes).faults == ()
    [fault] = check_near_leaks(built, nodes).faults
    assert str(made.path) in fault
    assert "f" * 32 in fault


def test_what_was_left_out_stands_beside_the_chain_and_is_proven_with_it(built):
    drop = built.partitions("judgments")[0]
    left_out = built.latest("rejected_records", drop)
    nodes = with_rejected(built, nodes_of(built, built.latest("preference_pairs")))
    assert nodes[left_out.digest].role == f"rejected_records/{drop}"
    path = left_out.path / TABLES["rejected_records"]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert any(str(path) in fault for check in verify(built, "preference_pairs") for fault in check.faults)


def test_a_table_of_what_was_left_out_that_is_gone_is_named(built):
    drop = built.partitions("judgments")[0]
    left_out = built.latest("rejected_records", drop)
    (left_out.path / "manifest.json").unlink()
    [fault] = verify(built, f"judgments/{drop}")[1].faults
    assert fault.startswith(f"rejected_records/{drop}, read together with judgments")
    assert left_out.digest in fault


def test_the_audit_says_how_far_a_long_search_is(built, monkeypatch):
    monkeypatch.setattr(progress, "SAY_EVERY_SECONDS", 0.0)
    said: list[str] = []
    verify(built, "preference_pairs", reporter=Aloud(said.append))
    assert said
    assert all("keys of prompts searched for near copies across the split" in line for line in said)
