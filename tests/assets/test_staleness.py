"""What Dagster itself shows as stale: nothing after a whole run, exactly what a new drop reaches, nothing again."""

import dagster as dg
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
    "evaluation": {"generation_count": 2, "max_new_tokens": 4, "bootstrap_samples": 50},
}
SWEEPS = {"sweep_point", "sweep_report"}
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


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home through which a small scenario has gone, its definitions, and the instance that saw it."""
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
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(definitions, instance, home=home, job="everything")
        yield home, definitions, instance


def shown(world):
    """What the UI shows: for each status, the assets, those of a drop with the drop."""
    _, definitions, instance = world
    graph = definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    found = {status: set() for status in StaleStatus}
    for key in graph.materializable_asset_keys:
        name = key.to_user_string()
        drops = instance.get_dynamic_partitions("drops") if name in OF_A_DROP else [None]
        for drop in drops:
            found[resolver.get_status(key, drop)].add(f"{name}/{drop}" if drop else name)
    return found


def of_drops(world):
    return {f"{name}/{drop}" for name in OF_A_DROP for drop in world[2].get_dynamic_partitions("drops")}


def whole(world):
    return {
        StaleStatus.FRESH: OF_ALL_DROPS | of_drops(world),
        StaleStatus.STALE: set(),
        StaleStatus.MISSING: SWEEPS,
    }


def test_nothing_is_stale_but_what_a_new_drop_reaches_and_only_until_it_is_made_again(world, tmp_path):
    home, definitions, instance = world
    assert len(of_drops(world)) == 2 * len(OF_A_DROP)
    assert shown(world) == whole(world)

    assert materialize(definitions, instance, home=home, job="everything")
    assert shown(world) == whole(world), "made again without change"

    generate_scenario(tmp_path, seed=4, scale=0.01)
    later = max(path for path in tmp_path.iterdir() if path.is_dir())
    later.rename(home.inbox / "2026-11-third")
    assert materialize(definitions, instance, home=home, job="ingest")
    assert len(of_drops(world)) == 3 * len(OF_A_DROP)
    assert shown(world) == {
        StaleStatus.FRESH: of_drops(world),
        StaleStatus.STALE: OF_ALL_DROPS,
        StaleStatus.MISSING: SWEEPS,
    }

    before = {drop: home.latest_line("judgments", drop)["attempt"] for drop in home.partitions("judgments")}
    assert materialize(definitions, instance, home=home, job="everything")
    assert shown(world) == whole(world)
    assert {drop: home.latest_line("judgments", drop)["attempt"] for drop in before} == before, "no drop was read again"
