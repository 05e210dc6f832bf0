"""The whole graph on a small scenario: everything is made, what was planted is found, an altered byte is named."""

import json
import shutil
from dataclasses import replace

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.definitions import build_definitions
from assets.materialize import materialize
from dpo_pipeline.core.artifacts import Artifact, ArtifactStore, Outcome, Recipe
from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.lineage.chain import ancestors, chain_of
from dpo_pipeline.lineage.evidence import check_files
from dpo_pipeline.lineage.rebuild import rebuild
from dpo_pipeline.lineage.results import check_figures, check_training_rows
from dpo_pipeline.lineage.summary import summarize
from dpo_pipeline.lineage.verify import verify
from dpo_pipeline.samples.scenario import generate_scenario
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_tracking import NoTracking
from resources.settings import PipelineSettings

SMALL = {
    "least_pairs": 10,
    "model": {"scratch": {"vocabulary_size": 600, "hidden_size": 32, "intermediate_size": 64, "layer_count": 1}},
    "compute": {"device": "cpu"},
    "sft": {"epochs": 1},
    "dpo": {"epochs": 1},
    "evaluation": {"generation_count": 6, "max_new_tokens": 8, "bootstrap_samples": 200},
}


def definitions_of(home):
    return build_definitions(
        {
            "settings": PipelineSettings(profile="demo", overrides=SMALL),
            "home": ArtifactHome(folder=str(home.root)),
            "tracking": NoTracking(),
            "gpu": Gpu(launcher="inline"),
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home through which a small scenario has gone, and the instance that saw it."""
    from dpo_pipeline.core.home import Home

    home = Home(tmp_path_factory.mktemp("pipeline") / "home")
    generate_scenario(home.inbox, seed=3, scale=0.06)
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(definitions_of(home), instance, home=home, job="everything")
        yield home, instance


def planted(home):
    return json.loads((home.root / "planted.json").read_text())


def test_every_asset_is_made_and_the_ledger_is_whole(made):
    home, _ = made
    assert home.partitions("judgments") == ["2026-09-first", "2026-10-second"]
    ends = [line["event"] for line in home.ledger.lines() if line["event"] != "started"]
    assert set(ends) == {"finished"}
    assert home.ledger.verify() == []
    assert [fault for check in verify(home, "evaluation_report") for fault in check.faults] == []


def test_every_broken_record_is_rejected_for_the_reason_it_was_planted_with(made):
    home, _ = made
    expected: dict[str, int] = {}
    for fault in planted(home)["faults"].values():
        if "reason" in fault:
            expected[fault["reason"]] = expected.get(fault["reason"], 0) + fault["count"]
    found: dict[str, int] = {}
    for drop in home.partitions("judgments"):
        for reason, count in home.latest("judgments", drop).books.rejected.items():
            found[reason] = found.get(reason, 0) + count
    assert found == expected


def test_the_books_of_the_tables_balance_and_the_planted_duplicates_are_merged_or_left_out(made):
    home, _ = made
    pairs = home.latest("preference_pairs")
    faults = planted(home)["faults"]
    assert pairs.books.is_balanced
    assert pairs.counts["pairs_shown_in_both_orders"] >= 0.9 * faults["swapped_duplicates"]["count"]
    assert pairs.counts["excluded_near_duplicate"] >= 0.8 * faults["near_duplicates"]["count"]


def test_the_data_versions_dagster_shows_are_the_digests(made):
    home, instance = made
    for name in ("preference_pairs", "sft_checkpoint", "dpo_checkpoint", "evaluation_report"):
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event.asset_materialization.tags["dagster/data_version"] == home.latest(name).digest


def test_the_first_dpo_loss_is_ln_2(made):
    home, _ = made
    assert home.latest("dpo_checkpoint").facts["first_loss"] == pytest.approx(0.693147, abs=1e-4)


def test_the_summary_names_records_figures_and_places(made):
    home, _ = made
    text = summarize(home)
    for heading in ("RECORDS", "TRAINING", "HELD OUT", "REPLIES", "WHERE"):
        assert heading in text
    assert f"{home.latest('preference_pairs').counts['pairs']:,} pairs" in text


def test_running_again_makes_nothing_new(made):
    home, instance = made
    before = {path for kind in home.store.root.iterdir() for path in kind.iterdir()}
    assert materialize(definitions_of(home), instance, home=home, job="everything")
    assert {path for kind in home.store.root.iterdir() for path in kind.iterdir()} == before


def test_one_altered_byte_in_a_raw_file_is_named_by_verify(made):
    home, _ = made
    raw = next(
        node.artifact for node in _nodes(chain_of(home, "evaluation_report")) if node.artifact.kind == "raw_annotations"
    )
    path = next(path for path in sorted((raw.path / "files").rglob("*")) if path.is_file() and path.stat().st_size)
    original = path.read_bytes()
    path.write_bytes(original[:-1] + b"?")
    try:
        faults = [fault for check in verify(home, "evaluation_report") for fault in check.faults]
        assert len(faults) >= 2  # the file, and the tables that it no longer gives
        assert str(path) in faults[0]
    finally:
        path.write_bytes(original)


def test_one_flipped_byte_in_any_file_up_to_the_release_is_named_with_both_digests(made):
    home, _ = made
    nodes = ancestors(chain_of(home, "release"))
    files = [node.artifact.path / entry["name"] for node in nodes.values() for entry in node.artifact.manifest["files"]]
    assert len(files) > 40
    for path in files:
        before, claimed = path.read_bytes(), sha256_of_file(path)
        path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
        faults = check_files(home, nodes).faults
        assert faults == (f"{path} hashes to {sha256_of_file(path)}, the manifest claims {claimed}",)
        path.write_bytes(before)


def _nodes(node):
    yield node
    for parent in node.parents:
        yield from _nodes(parent)


def altered(home, tmp_path, kind, file, change):
    """The node of an artifact whose folder is a copy with one table changed, its inputs as they are."""
    node = chain_of(home, kind)
    folder = tmp_path / node.artifact.path.name
    shutil.copytree(node.artifact.path, folder)
    table = pq.read_table(folder / file)
    pq.write_table(change(table), folder / file)
    return {folder.name: replace(node, artifact=Artifact(folder, node.artifact.manifest))}


def less(column, by):
    """A change of a table: the model `dpo`'s values of a column are smaller by so much."""

    def change(table):
        rows = table.to_pylist()
        for row in rows:
            row[column] -= by * (row["model"] == "dpo")
        return pa.Table.from_pylist(rows, schema=table.schema)

    return change


def all_won(table):
    rows = [row | {"verdict": "second"} for row in table.to_pylist()]
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.mark.parametrize(
    ("file", "change", "figure"),
    [
        ("scores.parquet", less("chosen_log_prob", 50.0), "preferences/dpo/chosen_log_prob/value"),
        ("scores.parquet", less("chosen_log_prob", 50.0), "slices/0/"),
        ("replies.parquet", lambda table: table.slice(1), "generations/base/greedy/count"),
        ("demonstration_scores.parquet", less("log_prob", 3.0), "perplexity/dpo/value"),
        ("demonstration_scores.parquet", lambda table: table.slice(1), "perplexity/base/value"),
        ("comparisons.parquet", all_won, "judges/0/win_rate/value"),
    ],
)
def test_rows_that_do_not_give_the_reports_figures_are_found(made, tmp_path, file, change, figure):
    home, _ = made
    faults = check_figures(home, altered(home, tmp_path, "evaluation_report", file, change)).faults
    assert any(f": {figure}" in fault and " from the rows" in fault for fault in faults), faults


@pytest.mark.parametrize(
    "path",
    [
        ("perplexity", "dpo", "value"),
        ("divergence", "dpo", "kl_per_token", "high"),
        ("judges", 0, "win_rate", "value"),
        ("preferences", "dpo", "against_reference", "implicit_accuracy", "low"),
        ("decision", "p_value"),
        ("held_out", "contamination", "in_demonstrations"),
    ],
)
def test_a_changed_figure_of_the_report_is_named_with_both_values(made, tmp_path, path):
    home, _ = made
    nodes = altered(home, tmp_path, "evaluation_report", "scores.parquet", lambda table: table)
    file = next(iter(nodes.values())).artifact.path / "report.json"
    assert check_figures(home, nodes).faults == ()
    report = json.loads(file.read_text())
    place = report
    for step in path[:-1]:
        place = place[step]
    before, place[path[-1]] = place[path[-1]], 0.987654
    file.write_text(json.dumps(report))
    [fault] = check_figures(home, nodes).faults
    name = "/".join(str(step) for step in path)
    assert fault == f"{file.parent}: {name} is 0.987654 in report.json, {before} from the rows"


def test_figures_of_older_code_are_not_called_proven(made):
    home, _ = made
    node = chain_of(home, "evaluation_report")
    older = replace(node.artifact, manifest={**node.artifact.manifest, "code_version": "1"})
    check = check_figures(home, {"report": replace(node, artifact=older)})
    assert (check.outcome, check.looked_at.split(" values")[0]) == ("not run", "0")


def test_a_training_pair_that_was_scored_as_held_out_is_named(made, tmp_path):
    home, _ = made
    train = pq.read_table(home.latest("preference_pairs").path / "pairs.parquet", filters=[("split", "=", "train")])
    pair = train["pair_id"][0].as_py()

    def leaky(table):
        ids = [pair, *table["pair_id"].to_pylist()[1:]]
        return table.set_column(table.column_names.index("pair_id"), "pair_id", pa.array(ids))

    nodes = altered(home, tmp_path, "evaluation_report", "scores.parquet", leaky)
    [fault] = check_training_rows(home, nodes).faults
    assert f"pair {pair} was scored as held out; its split is train" in fault


def test_tables_and_trainings_come_out_again(made):
    home, _ = made
    said = []
    tables, trainings = rebuild(home, ancestors(chain_of(home, "evaluation_report")), said.append)
    assert (tables.faults, tables.not_run, trainings.faults, trainings.not_run) == ((), None, (), None)
    assert tables.looked_at == "7 of 7 artifacts are equal, from the raw files of 2 drops"
    assert trainings.looked_at == "3 of 3 artifacts are equal, repeated on this machine"
    assert any(line.startswith("    DPO on ") for line in said)
    assert [line for line in said if "of 10: " in line][-1].startswith("10 of 10: dpo_checkpoint")


@pytest.fixture
def other_weights(made, tmp_path):
    """A DPO checkpoint that somebody replaced whole: other weights, a manifest that fits them, a line in the ledger."""
    home, _ = made
    node = chain_of(home, "dpo_checkpoint")
    shutil.copytree(node.artifact.path, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    weights = tmp_path / "out" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    manifest = node.artifact.manifest
    recipe = Recipe("dpo_checkpoint", manifest["code_version"], manifest["settings"], node.artifact.parents)
    outcome = Outcome(node.artifact.counts, node.artifact.facts, node.artifact.books)
    forged = ArtifactStore(tmp_path / "store").publish(tmp_path / "out", recipe, outcome)
    return home, replace(node, artifact=forged), node.artifact


def rebuilt(home, node):
    return rebuild(home, {node.artifact.path.name: node}, lambda _: None)[1]


def test_weights_that_do_not_come_out_again_are_a_fault_that_names_file_and_both_digests(other_weights):
    home, node, true = other_weights
    [fault] = rebuilt(home, node).faults
    claimed, again = (
        next(entry["sha256"] for entry in artifact.manifest["files"] if entry["name"] == "model/model.safetensors")
        for artifact in (node.artifact, true)
    )
    assert f"{node.artifact.path} does not come out again: model/model.safetensors has sha256 {claimed}" in fault
    assert f"made again {again}" in fault


def test_a_difference_under_other_packages_or_code_proves_nothing_and_names_them(other_weights):
    home, node, _ = other_weights
    versions = {**node.started["environment"]["versions"], "torch": "1.0"}
    started = {**node.started, "environment": {"versions": versions}, "code": {"git_commit": "abc"}}
    check = rebuilt(home, replace(node, started=started))
    assert check.faults == ()
    assert "that proves nothing, for torch was 1.0, here it is" in check.not_run
    assert "the code was that of abc, here it is another" in check.not_run


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"remarks": {"device": "Running on NVIDIA H100 (cuda, 79.1 GiB) in bf16"}}, "trained otherwise than on a CPU"),
        ({"remarks": {}}, "the ledger does not say on what"),
    ],
)
def test_a_training_on_another_device_is_not_tried_and_says_so(made, change, reason):
    home, _ = made
    node = chain_of(home, "dpo_checkpoint")
    check = rebuilt(home, replace(node, attempt={**node.attempt, **change}))
    assert check.faults == ()
    assert reason in check.not_run


def test_what_an_older_room_made_is_not_tried_and_says_which_commit_to_check_out(made, monkeypatch):
    home, _ = made
    monkeypatch.setattr("dpo_pipeline.dpo.CODE_VERSION", "999")
    check = rebuilt(home, chain_of(home, "dpo_checkpoint"))
    assert "this is 999: check out" in check.not_run
