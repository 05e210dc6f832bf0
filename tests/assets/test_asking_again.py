"""A drop whose run failed is asked for again, three times with growing pauses; what a person did is left to them."""

import dagster as dg
import pytest

from assets import asking_again
from assets.arrivals import new_drops
from assets.asking_again import PAUSES_SECONDS, troubles
from assets.definitions import build_definitions
from dpo_pipeline.samples.scenario import generate_scenario
from resources.artifact_store import ArtifactHome
from resources.gpu import Gpu
from resources.settings import PipelineSettings
from resources.tracking import NoTracking


class Clock:
    """The time as `asking_again` sees it: the machine's, put forward."""

    def __init__(self):
        self.forward = 0.0

    def time(self):
        import time

        return time.time() + self.forward


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(asking_again, "time", clock)
    return clock


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def sensor(home, instance):
    """The sensor at work: looks, and what it requests is run; its answer."""
    generate_scenario(home.inbox, seed=5, scale=0.04)
    [first, second, *_] = sorted(path.name for path in home.inbox.iterdir() if path.is_dir())
    resources = {
        "settings": PipelineSettings(),
        "home": ArtifactHome(folder=str(home.root)),
        "tracking": NoTracking(),
        "gpu": Gpu(launcher="inline"),
    }
    job = build_definitions(resources).resolve_job_def("ingest")
    seen = {"cursor": None, "keys": []}

    def look(run=True):
        given = {name: resources[name] for name in ("home", "settings")}
        with dg.build_sensor_context(instance=instance, cursor=seen["cursor"], resources=given) as context:
            answer = new_drops(context)
        if isinstance(answer, dg.SkipReason):
            return answer.skip_message
        seen["cursor"] = answer.cursor
        instance.add_dynamic_partitions("drops", [request.partition_key for request in answer.run_requests])
        for request in answer.run_requests if run else []:
            assert request.run_key not in seen["keys"], "Dagster would pass over it"
            seen["keys"].append(request.run_key)
            job.execute_in_process(
                instance=instance, partition_key=request.partition_key, tags=request.tags, raise_on_error=False
            )
        return [request.partition_key for request in answer.run_requests]

    return look, first, second


@pytest.fixture
def full_disk(monkeypatch):
    """Reading a drop fails while the switch is on, as on a full disk."""
    from dpo_pipeline.annotations import read

    real, broken = read.read_drop, {"drops": set()}

    def read_drop(*given, drop, **named):
        if drop in broken["drops"]:
            raise OSError(28, "No space left on device")
        return real(*given, drop=drop, **named)

    monkeypatch.setattr(read, "read_drop", read_drop)
    return broken["drops"]


def test_it_is_asked_for_again_after_a_pause_and_taken_in_when_the_cause_is_gone(sensor, full_disk, clock):
    look, first, second = sensor
    full_disk.add(first)
    assert look() == [first, second]
    assert f"{first!r} failed once as it is" in (said := look())
    assert "it is asked for again in 5 min" in said
    assert second not in said
    full_disk.clear()
    clock.forward = PAUSES_SECONDS[0]
    assert look() == [first]
    assert first not in look()


def test_after_three_more_failures_a_person_has_to_look(sensor, full_disk, clock, instance):
    look, first, _ = sensor
    full_disk.add(first)
    look()
    for pause in PAUSES_SECONDS:
        clock.forward = pause - 30  # since the run that has just ended
        assert "asked for again in" in look()
        clock.forward = pause + 30
        assert look() == [first]
    clock.forward = 86_400
    said = look()
    assert f"{first!r} failed 4 times as it is, see run " in said
    assert "not asked for again: mend the cause, then start the job ingest for it by hand" in said
    newest = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": first}))[0]
    assert newest.run_id[:8] in said


def test_a_changed_drop_is_another_state_and_begins_anew(sensor, full_disk, home):
    look, first, _ = sensor
    full_disk.add(first)
    look()
    full_disk.clear()
    (home.inbox / first / "more.jsonl").write_text("{}")
    assert look() == [first]


def test_what_a_person_terminated_or_ran_by_hand_is_left_to_them(sensor, full_disk, instance):
    look, first, second = sensor
    full_disk |= {first, second}
    look()
    job = dg.job(name="ingest")(lambda: None)
    for drop, status in ((first, dg.DagsterRunStatus.CANCELED), (second, dg.DagsterRunStatus.SUCCESS)):
        state = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": drop}))[0].tags["drop/state"]
        tags = {"dagster/partition": drop, "drop/state": state}
        assert troubles(instance, {drop: state})
        instance.create_run_for_job(job, status=status, tags=tags)
        assert troubles(instance, {drop: state}) == {}
    assert "failed" not in look()


def test_a_drop_materialized_on_its_page_in_the_ui_is_not_asked_for_again(sensor, full_disk, clock, instance):
    """That runs Dagster's own job of assets, not `ingest`, and without the sensor's tags."""
    look, first, _ = sensor
    full_disk.add(first)
    look()
    assert f"{first!r} failed once" in look()
    by_hand = dg.job(name="__ASSET_JOB")(lambda: None)
    instance.create_run_for_job(by_hand, status=dg.DagsterRunStatus.SUCCESS, tags={"dagster/partition": first})
    assert "failed" not in look()
    clock.forward = PAUSES_SECONDS[0] + 30
    assert "nothing new" in look()
