"""What was planted in the full-size scenario is what the tables say was found; no training needed for that."""

import json

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.definitions import build_definitions
from assets.materialize import materialize
from dpo_pipeline.core.home import Home
from dpo_pipeline.samples.scenario import generate_scenario
from resources.artifact_store import ArtifactHome
from resources.mlflow_tracking import NoTracking
from resources.settings import PipelineSettings


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home whose tables were built from the whole scenario."""
    made = Home(tmp_path_factory.mktemp("planted") / "home")
    generate_scenario(made.inbox, seed=17)
    definitions = build_definitions(
        {"settings": PipelineSettings(), "home": ArtifactHome(folder=str(made.root)), "tracking": NoTracking()}
    )
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(definitions, instance, home=made, job="ingest")
        tables = dg.materialize(
            list(definitions.assets),
            selection=["preference_pairs", "annotator_report"],
            resources=dict(definitions.resources),
            instance=instance,
        )
    assert tables.success
    return made


@pytest.fixture(scope="module")
def planted(home):
    return json.loads((home.root / "planted.json").read_text())


def test_every_broken_record_is_rejected_for_the_reason_it_was_planted_with(home, planted):
    expected, found = {}, {}
    for fault in planted["faults"].values():
        if "reason" in fault:
            expected[fault["reason"]] = expected.get(fault["reason"], 0) + fault["count"]
    for drop in home.partitions("judgments"):
        for reason, count in home.latest("judgments", drop).books.rejected.items():
            found[reason] = found.get(reason, 0) + count
    assert found == expected


def test_the_careless_annotator_is_named_and_nobody_else_is(home, planted):
    table = pq.read_table(home.latest("annotator_report").path / "annotators.parquet").to_pylist()
    suspected = [row for row in table if row["suspected"]]
    assert len(table) == len(planted["annotators"])
    assert len(suspected) == planted["faults"]["careless_annotators"]["count"] == 1
    assert suspected[0]["reliability"] == min(row["reliability"] for row in table)


def test_reliabilities_are_those_the_annotators_were_given(home, planted):
    table = pq.read_table(home.latest("annotator_report").path / "annotators.parquet").to_pylist()
    given = sorted(one["reliability"] for one in planted["annotators"].values())
    found = sorted(row["reliability"] for row in table)
    assert max(abs(a - b) for a, b in zip(given, found, strict=True)) < 0.05


def test_ties_contradictions_and_duplicates_do_not_reach_training(home, planted):
    counts, faults = home.latest("preference_pairs").counts, planted["faults"]
    assert counts["excluded_tie"] >= 0.9 * faults["ties"]["count"]
    assert counts["excluded_both_bad"] >= 0.9 * faults["both_bad"]["count"]
    assert counts["excluded_contradiction"] >= faults["contradictory_votes"]["count"]
    assert counts["excluded_near_duplicate"] >= 0.8 * faults["near_duplicates"]["count"]
    assert counts["pairs_shown_in_both_orders"] >= 0.9 * faults["swapped_duplicates"]["count"]
    assert counts["judgments_repeated"] == faults["repeated_verdicts"]["count"]
    kept = pq.read_table(home.latest("preference_pairs").path / "pairs.parquet", columns=["prompt"]).to_pylist()
    prompts = {row["prompt"][-1]["content"] for row in kept}
    assert not prompts & {where["prompt"] for where in faults["contradictory_votes"]["where"]}
