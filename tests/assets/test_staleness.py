"""A new small drop: what Dagster itself shows as stale before and after, and what is read and computed for it."""

from dataclasses import dataclass

import dagster as dg
import pyarrow.parquet as pq
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from assets.definitions import build_definitions
from assets.materialize import materialize
from dpo_pipeline.core.home import Home
from dpo_pipeline.samples.scenario import generate_scenario
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_tracking import NoTracking
from resources.settings import PipelineSettings

SMALL = {
    "model": {"scratch": {"vocabulary_size": 400, "hidden_size": 16, "intermediate_size": 32, "layer_count": 1}},
    "compute": {"device": "cpu"},
    "sft": {"epochs": 1},
    "dpo": {"epochs": 1},
    "evaluation": {"generation_count": 2, "max_new_tokens": 4, "bootstrap_samples": 100},
}
DROPS = ("2026-09-first", "2026-10-second")
OF_A_DROP = {"raw_annotations", "judgments", "rejected_records", "demonstrations", "pair_sketches"}
OF_ALL_DROPS = {
    "preference_pairs",
    "annotator_report",
    "sft_checkpoint",
    "reference_logprobs",
    "dpo_checkpoint",
    "evaluation_report",
    "champion",
    "release",
}


THIRD = "2026-11-third"


READ_ALL_DROPS = {"preference_pairs", "annotator_report", "sft_checkpoint", "evaluation_report"}
"""What is made from tables of single drops; Dagster calls stale what has a changed input, and what stands behind that
only once the input was made again."""


@dataclass
class Story:
    """What was shown after each chapter, and the ledger's lines at its end."""

    home: Home
    shown: dict[str, dict]
    lines: dict[str, int]
    keys: dict[str, set]

    def attempts(self, after, until):
        """Asset and drop of every attempt between two chapters."""
        lines = list(self.home.ledger.lines())[self.lines[after] : self.lines[until]]
        return sorted((line["asset"], line["partition"]) for line in lines if line["event"] == "started")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A small scenario goes through a home, twice; then a drop of a few pairs comes, is read, and all is made again."""
    home = Home(tmp_path_factory.mktemp("staleness") / "home")
    generate_scenario(home.inbox, seed=3, scale=0.03)
    definitions = build_definitions(
        {
            "settings": PipelineSettings(profile="demo", overrides=SMALL),
            "home": ArtifactHome(folder=str(home.root)),
            "tracking": NoTracking(),
            "gpu": Gpu(launcher="inline"),
        }
    )
    told = Story(home, {}, {}, {})
    with dg.DagsterInstance.ephemeral() as instance:
        for chapter, job in {
            "first": "everything",
            "again": "everything",
            "read": "ingest",
            "last": "everything",
        }.items():
            if chapter == "read":
                put_third_drop(home, tmp_path_factory.mktemp("third"))
            assert materialize(definitions, instance, home=home, job=job)
            told.shown[chapter] = shown(definitions, instance)
            told.lines[chapter] = len(list(home.ledger.lines()))
            table = pq.read_table(home.latest("reference_logprobs").path / "reference_logprobs.parquet")
            told.keys[chapter] = set(table["key"].to_pylist())
    return told


def put_third_drop(home, aside):
    """A drop of judgments only: without demonstrations the SFT model stays the same."""
    generate_scenario(aside, seed=4, scale=0.01)
    later = max(path for path in aside.iterdir() if path.is_dir())
    (later / "agent_replies.jsonl").unlink()
    later.rename(home.inbox / THIRD)


def shown(definitions, instance):
    """What the UI shows: for each status, the assets, those of a drop with the drop."""
    resolver = CachingStaleStatusResolver(instance, definitions.resolve_asset_graph(), LoadingContextForTest(instance))
    found = {status: set() for status in StaleStatus}
    for key in definitions.resolve_asset_graph().materializable_asset_keys:
        name = key.to_user_string()
        partitions = definitions.resolve_asset_graph().get(key).partitions_def
        drops = partitions.get_partition_keys(dynamic_partitions_store=instance) if partitions else [None]
        for drop in drops:
            found[resolver.get_status(key, drop)].add((name, drop) if drop else name)
    return found


def expected(*drops, stale=frozenset()):
    return {
        StaleStatus.FRESH: (OF_ALL_DROPS - stale) | {(name, drop) for name in OF_A_DROP for drop in drops},
        StaleStatus.STALE: set(stale),
        StaleStatus.MISSING: {"sweep_report"},
    }


def test_after_everything_nothing_is_shown_as_stale(story):
    assert story.shown["first"] == expected(*DROPS)


def test_made_again_without_change_nothing_is_shown_as_stale(story):
    assert story.shown["again"] == expected(*DROPS)
    assert story.attempts("first", "again") == sorted((name, None) for name in OF_ALL_DROPS), "no drop is read again"


def test_after_a_new_drop_exactly_what_reads_the_drops_is_stale(story):
    assert story.shown["read"] == expected(*DROPS, THIRD, stale=READ_ALL_DROPS)


def test_made_again_with_the_new_drop_nothing_is_shown_as_stale(story):
    assert story.shown["last"] == expected(*DROPS, THIRD)


def test_only_the_new_drop_is_read_and_sketched(story):
    assert story.attempts("again", "read") == sorted((name, THIRD) for name in OF_A_DROP)
    assert story.attempts("read", "last") == sorted((name, None) for name in OF_ALL_DROPS)


def test_of_the_earlier_drops_no_likeness_is_measured_and_no_pair_tokenized_or_scored_again(story):
    tables, reference, trainings = (
        [line["remarks"] for line in story.home.finished() if line["asset"] == asset]
        for asset in ("preference_pairs", "reference_logprobs", "dpo_checkpoint")
    )
    assert tables[-1]["likenesses_reused"] == tables[0]["likenesses_measured"] > 0
    assert tables[-1]["likenesses_measured"] < tables[0]["likenesses_measured"]
    new = story.keys["last"] - story.keys["first"]
    assert reference[-1]["scored"] == len(new) > 0
    assert reference[-1]["reused"] == len(story.keys["last"]) - len(new) > len(new)
    assert reference[-1]["tokenized"] == len(new)
    assert trainings[-1]["tokenized"] == 0
