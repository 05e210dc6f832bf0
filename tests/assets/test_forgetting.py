"""After a tombstone the graph refuses the old tables, reads the drop again by itself, and the views show the mark."""

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.arrivals import is_read
from assets.definitions import build_definitions
from assets.forgetting import forgotten
from assets.materialize import materialize
from dpo_pipeline.annotations.tombstones import drops_to_read_again
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage import forget
from dpo_pipeline.samples.scenario import generate_scenario
from resources.artifact_store import ArtifactHome
from resources.dagster_view import mark_in
from resources.gpu import Gpu
from resources.mlflow_tracking import NoTracking
from resources.mlflow_view import FORGOTTEN, MlflowView
from resources.settings import PipelineSettings
from tests.resources.worlds import World

PAIRS = [dg.AssetKey("preference_pairs")]


def requests_of(home):
    with dg.build_sensor_context(resources={"home": ArtifactHome(folder=str(home.root))}) as context:
        return [request for request in forgotten(context) if isinstance(request, dg.RunRequest)]


@pytest.fixture
def world(tmp_path):
    home = Home(tmp_path / "home")
    generate_scenario(home.inbox, seed=3, scale=0.03)
    settings = PipelineSettings(profile="demo", overrides={"least_pairs": 10})
    resources = {
        "settings": settings,
        "home": ArtifactHome(folder=str(home.root)),
        "tracking": NoTracking(),
        "gpu": Gpu(launcher="inline"),
    }
    with dg.DagsterInstance.ephemeral() as instance:
        yield home, instance, build_definitions(resources), settings


def test_a_tombstone_stops_the_tables_until_the_drop_is_read_again(world):
    home, instance, definitions, settings = world
    assert materialize(definitions, instance, home=home, job="ingest")
    first = home.partitions("judgments")[0]
    annotator = pq.read_table(home.latest("judgments", first).path / "judgments.parquet")["annotator"][0].as_py()
    assert requests_of(home) == []
    stone = forget.bury(home, forget.plan_annotator(home, annotator), person="Ada", reason="Ticket 12")
    due = drops_to_read_again(home)
    assert first in due
    assert [request.run_key for request in requests_of(home)] == [f"{drop}:{stone.number}" for drop in due]
    assert [drop for drop in home.partitions("judgments") if not is_read(home, drop, settings)] == due

    train = definitions.resolve_job_def("train")
    stopped = train.execute_in_process(instance=instance, asset_selection=PAIRS, raise_on_error=False)
    assert not stopped.success
    reason = next(reversed(list(home.ledger.lines())))["reason"]
    assert f"rests on drop {first} as it was read before records of it were forgotten" in reason

    assert materialize(definitions, instance, home=home, job="ingest")
    assert requests_of(home) == []
    assert train.execute_in_process(instance=instance, asset_selection=PAIRS).success
    pairs = pq.read_table(home.latest("preference_pairs").path / "pairs.parquet")["annotators"].to_pylist()
    assert pairs
    assert annotator not in {name for names in pairs for name in names}
    made = home.latest("judgments", first)
    assert made.manifest["settings"]["forgotten"]["annotators"] == [annotator]


def test_a_run_of_mlflow_is_marked_once(home, mlflow_tables):
    mlflow_tables(home)
    world = World(home, "")
    start = world.start("run-1")
    world.begin(start)
    marks = {start["attempt"]: "learned from records that are forgotten: tombstone on ledger line 9", "unheard of": "x"}
    [said] = MlflowView().mark(home, marks)
    assert "tombstone on ledger line 9" in said
    assert MlflowView().mark(home, marks) == []
    [run] = world.runs(start["attempt"])
    assert run.data.tags[FORGOTTEN] == marks[start["attempt"]]


def test_dagster_shows_the_mark_once_beside_the_asset():
    marks = {"run-1/dpo_checkpoint/-/0": "learned from records that are forgotten"}
    with dg.DagsterInstance.ephemeral() as instance:
        assert len(list(mark_in(instance, marks))) == 1
        assert list(mark_in(instance, marks)) == []
        [record] = instance.fetch_observations(dg.AssetKey("dpo_checkpoint"), limit=5).records
        assert record.asset_observation.metadata["forgotten"].value == "learned from records that are forgotten"
