"""`tracked`: attempts leave their lines in the ledger, inputs are pinned and re-hashed, equal recipes are reused."""

import json
from collections.abc import Iterator

import dagster as dg
import pytest

from assets import tracked as module
from assets.definition import DEFINITIONS
from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Outcome, Parent
from dpo_pipeline.core.errors import InputError
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.mlflow_client import connect
from resources.mlflow_tracking import MlflowTracking, NoTracking
from resources.settings import PipelineSettings


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """The real assets stay out of these tests, and the toys out of the others."""
    real = dict(DEFINITIONS)
    DEFINITIONS.clear()
    yield
    DEFINITIONS.clear()
    DEFINITIONS.update(real)


def asset(name, *, writes="text", reads=(), error=None, **options):
    """A tracked asset that writes one file, or raises."""

    def body(step: Step) -> Outcome:
        body.calls += 1
        if error is not None:
            raise error
        (step.folder() / "file.txt").write_text(writes)
        step.metrics(1, {"loss": 0.5})
        return Outcome(counts={"rows": 3}, remarks={"device": "cpu"})

    body.calls = 0
    body.__name__ = name
    made = tracked(Made(name, "A toy."), stage="toys", code_version="1", reads=reads, **options)(body)
    return made, body


def run(home, *assets, instance=None, overrides=None, tracking=None, **options):
    resources = {
        "settings": PipelineSettings(profile="demo", overrides=overrides or {}),
        "home": ArtifactHome(folder=str(home.root)),
        "tracking": tracking or NoTracking(),
        "gpu": Gpu(launcher="inline"),
    }
    return dg.materialize(
        list(assets),
        resources=resources,
        instance=instance or dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
        **options,
    )


def events(home):
    return [(line["event"], line["asset"]) for line in home.ledger.lines()]


def test_a_finished_attempt_tells_what_from_what_under_which_code(home):
    first, _ = asset("first")
    second, _ = asset("second", reads=["first"], settings=["dpo"])
    result = run(home, first, second)
    assert result.success
    assert events(home) == [("started", "first"), ("finished", "first"), ("started", "second"), ("finished", "second")]
    started, finished = list(home.ledger.lines())[2:]
    artifact = home.latest("second")
    assert finished["artifact"] == artifact.digest
    assert [parent.digest for parent in artifact.parents] == [home.latest("first").digest]
    assert started["settings"]["dpo"]["beta"] == 0.1
    assert started["code"]["source_sha256"]
    assert started["environment"]["versions"]["pyarrow"]
    assert started["process"]["pid"]
    assert home.ledger.verify() == []


def test_the_data_version_is_the_digest_and_metadata_comes_from_the_artifact(home):
    first, _ = asset("first")
    [event] = run(home, first).asset_materializations_for_node("first")
    assert event.tags["dagster/data_version"] == home.latest("first").digest
    assert event.metadata["rows"].value == 3
    assert event.metadata["device"].value == "cpu"
    assert event.metadata["attempt"].value.endswith("/first/-/0")


def test_an_equal_recipe_is_reused_and_other_settings_are_not(home):
    first, body = asset("first", settings=["dpo"])
    run(home, first)
    run(home, first)
    assert body.calls == 1
    assert list(home.ledger.lines())[-1]["remarks"]["reused"] is True
    run(home, first, overrides={"dpo": {"beta": 0.2}})
    assert body.calls == 2


def test_settings_of_other_stages_do_not_matter(home):
    first, body = asset("first", settings=["dpo"])
    run(home, first)
    run(home, first, overrides={"sft": {"epochs": 9}})
    assert body.calls == 1


def test_a_flipped_byte_in_an_input_stops_the_step_before_it_runs(home):
    first, _ = asset("first")
    second, body = asset("second", reads=["first"])
    run(home, first)
    (home.latest("first").path / "file.txt").write_text("tezt")
    result = run(home, first, second, selection=["second"])
    assert not result.success
    assert body.calls == 0
    description = result.failure_data_for_node("second").user_failure_data.description
    assert "file.txt hashes to" in description
    assert "materialize first again" in description
    refused = [line for line in home.ledger.lines() if line["asset"] == "second"]
    assert [line["event"] for line in refused] == ["started", "failed"]
    assert refused[1]["reason"] == description
    assert refused[1]["attempt"].endswith("/second/-/0")


def test_an_altered_artifact_is_set_aside_as_evidence_and_made_again(home):
    first, body = asset("first")
    run(home, first)
    artifact = home.latest("first")
    (artifact.path / "file.txt").write_text("tezt")
    assert run(home, first).success
    assert body.calls == 2
    assert home.latest("first").verify() == []
    [aside] = (home.store.root / ".damaged" / "first").iterdir()
    assert aside.name.startswith(artifact.digest)
    assert (aside / "file.txt").read_text() == "tezt"


def test_a_foreseen_error_ends_the_attempt_with_its_sentence_and_is_not_retried(home):
    broken, body = asset(
        "broken", error=InputError("the drop is empty", expected="records", do="Look again"), on_gpu=True
    )
    result = run(home, broken)
    assert not result.success
    assert body.calls == 1
    assert result.failure_data_for_node("broken").user_failure_data.description == (
        "the drop is empty. Expected: records. Look again."
    )
    assert events(home) == [("started", "broken"), ("failed", "broken")]


def test_an_error_that_names_a_file_no_utf8_can_name_still_ends_the_attempt(home):
    broken, _ = asset("broken", error=OSError("caf\udce9.jsonl"))
    assert not run(home, broken).success
    assert list(home.ledger.lines())[-1]["reason"] == "OSError: caf\\udce9.jsonl"


def test_an_unforeseen_error_on_the_gpu_is_retried_once_as_another_attempt(home):
    broken, body = asset("broken", error=OSError("bus"), on_gpu=True)
    run(home, broken)
    assert body.calls == 2
    attempts = [line["attempt"].rsplit("/", 1)[1] for line in home.ledger.lines() if line["event"] == "failed"]
    assert attempts == ["0", "1"]


def test_termination_is_recorded_as_killed_and_not_retried(home):
    stopped, body = asset("stopped", error=dg.DagsterExecutionInterruptedError(), on_gpu=True)
    assert not run(home, stopped).success
    assert body.calls == 1
    assert events(home) == [("started", "stopped"), ("killed", "stopped")]


@pytest.mark.parametrize(
    ("error", "event", "reason"),
    [
        (OSError("caf\udce9.jsonl"), "failed", "OSError: caf\\udce9.jsonl"),
        (InputError("caf\udce9.jsonl is no table"), "failed", "caf\\udce9.jsonl is no table."),
        (dg.DagsterExecutionInterruptedError(), "killed", "DagsterExecutionInterruptedError: "),
    ],
)
def test_whatever_goes_wrong_while_inputs_are_pinned_is_in_the_ledger(home, error, event, reason):
    def also_reads(_home, _profile):
        raise error

    early, body = asset("early", also_reads=also_reads)
    assert not run(home, early).success
    assert body.calls == 0
    assert events(home) == [("started", "early"), (event, "early")]
    assert list(home.ledger.lines())[-1]["reason"] == reason


def test_a_partitioned_input_is_read_for_all_drops_in_order_of_arrival(home):
    raw, _ = asset("raw_annotations", by_drop=True)
    total, _ = asset("total", reads=["raw_annotations"])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("drops", ["b", "a"])
        for drop in ("b", "a"):
            assert run(home, raw, instance=instance, partition_key=drop).success
        assert run(home, raw, total, instance=instance, selection=["total"]).success
    assert [parent.role for parent in home.latest("total").parents] == ["raw_annotations/b", "raw_annotations/a"]


def test_an_input_that_is_no_dependency_is_pinned_rehashed_and_in_the_recipe_or_simply_not_there(home):
    champion, _ = asset("champion_checkpoint")

    def todays(current, _profile):
        made = current.latest_line("champion_checkpoint")
        return {"champion": current.latest("champion_checkpoint")} if made else {}

    seen = []

    def compare(step: Step) -> Outcome:
        seen.append(step.find("champion"))
        (step.folder() / "report.txt").write_text("x")
        return Outcome()

    report = tracked(Made("report", "A toy."), stage="toys", code_version="1", also_reads=todays)(compare)
    run(home, report)
    without = home.latest("report")
    assert (seen, without.parents) == ([None], ())
    run(home, champion)
    run(home, report)
    reigning = home.latest("champion_checkpoint")
    assert seen[1] == reigning.path
    assert home.latest("report").parents == (Parent("champion", "champion_checkpoint", reigning.digest),)
    run(home, report)
    assert len(seen) == 2
    (reigning.path / "file.txt").write_text("tezt")
    result = run(home, report)
    assert "file.txt hashes to" in result.failure_data_for_node("compare").user_failure_data.description


def test_every_materialization_leads_to_its_mlflow_run_and_its_lineage_page(home, mlflow_tables):
    mlflow_tables(home)
    first, _ = asset("first")
    second, _ = asset("second", reads=["first"])
    result = run(home, first, second, tracking=MlflowTracking())
    client, experiment = connect("", home.mlflow)
    runs = {found.data.tags["attempt"]: found.info.run_id for found in client.search_runs([experiment])}
    for name in ("first", "second"):
        [event] = result.asset_materializations_for_node(name)
        attempt, digest = event.metadata["attempt"].value, home.latest(name).digest
        assert event.metadata["MLflow run"].value.endswith(f"/#/experiments/{experiment}/runs/{runs[attempt]}")
        assert event.metadata["lineage"].value.endswith(f"/lineage/{name}/{digest}.html")


def test_what_the_work_finds_out_is_on_record_also_where_it_fails(home):
    def body(step: Step) -> Outcome:
        step.note(device="cpu", resumed_from_step=0)
        step.note(resumed_from_step=12)
        step.metrics(13, {"loss": 0.5})
        step.metrics(14, {"loss": float("nan")})
        raise InputError("the loss is not finite")

    broken = tracked(Made("broken", "A toy."), stage="toys", code_version="1", settings=["model"])(body)
    assert not run(home, broken).success
    started, failed = home.ledger.lines()
    assert started["seeds"] == {"model.seed": 17}
    installed = home.ledger.path.with_name("environments") / f"{started['environment']['installed_sha256']}.json"
    assert json.loads(installed.read_text())["pyarrow"] == started["environment"]["versions"]["pyarrow"]
    assert failed["noted"] == {"device": "cpu", "resumed_from_step": 12}
    assert failed["curves"] == {"loss": {"points": 1, "step": 13, "value": 0.5}}


def test_where_the_profile_insists_on_mlflow_nothing_begins_without_it(home):
    first, body = asset("first", on_gpu=True)
    away = MlflowTracking(uri="http://127.0.0.1:9")
    result = run(home, first, tracking=away, overrides={"tracking": {"when_away": "refuse"}})
    assert not result.success
    assert body.calls == 0
    description = result.failure_data_for_node("first").user_failure_data.description
    assert description.startswith("MLflow at http://127.0.0.1:9 cannot be reached")
    assert events(home) == [("started", "first"), ("failed", "first")]
    assert list(home.ledger.lines())[1]["reason"] == description
    assert run(home, first, tracking=away).success


def test_a_faulty_profile_fails_with_all_its_faults(home):
    first, body = asset("first")
    result = run(home, first, overrides={"dpo": {"beta": -1, "epochs": 0}})
    description = result.failure_data_for_node("first").user_failure_data.description
    assert "dpo.beta is -1" in description
    assert "dpo.epochs is 0" in description
    assert body.calls == 0
    assert events(home) == [("started", "first"), ("failed", "first")]


def test_an_asset_defined_any_other_way_is_refused_when_the_code_location_is_loaded():
    @dg.asset
    def stranger() -> None: ...

    first, _ = asset("first")
    module.assert_all_tracked([first])
    with pytest.raises(TypeError, match=r"not made by `tracked`: stranger\."):
        module.assert_all_tracked([first, stranger])
