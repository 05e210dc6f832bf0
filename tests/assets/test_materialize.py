"""The terminal path: what a person reads while a run waits, and how it ends."""

import threading
import time

import dagster as dg
import pytest

from assets.definition import DEFINITIONS
from assets.materialize import close_books, terminal_logger
from assets.tracked import Made, tracked
from dpo_pipeline.core.artifacts import Outcome
from resources.artifact_store import ArtifactHome
from resources.findings import Findings
from resources.gpu import POOL, Gpu
from resources.settings import PipelineSettings
from resources.tracking import NoTracking


@pytest.fixture
def toy():
    """A tracked asset on the device, known to these tests alone."""

    @tracked(Made("toy", "A toy."), stage="toys", code_version="1", on_gpu=True)
    def toy(step):
        step.say("at work")
        (step.folder() / "file.txt").write_text("x")
        return Outcome()

    yield toy
    del DEFINITIONS["toy"]


def test_a_run_that_waits_for_the_device_says_so_instead_of_standing_still(home, toy, capsys):
    resources = {
        "settings": PipelineSettings(),
        "home": ArtifactHome(folder=str(home.root)),
        "tracking": NoTracking(),
        "gpu": Gpu(launcher="inline"),
    }
    job = dg.define_asset_job("train", selection=[toy])
    definitions = dg.Definitions([toy], jobs=[job], resources=resources, loggers={"console": terminal_logger})
    with dg.instance_for_test() as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(POOL, 1)
        storage.claim_concurrency_slot(POOL, "another-run", "sft_checkpoint")

        def free_once_somebody_waits():
            while not storage.get_concurrency_info(POOL).pending_step_count:
                time.sleep(0.05)
            storage.free_concurrency_slot_for_step("another-run", "sft_checkpoint")

        free = threading.Thread(target=free_once_somebody_waits, daemon=True)
        free.start()
        found = definitions.resolve_job_def("train")
        assert found.execute_in_process({"loggers": {"console": {}}}, instance=instance).success
        free.join()
    said = capsys.readouterr().err.splitlines()
    words = [line.split(maxsplit=2)[2] for line in said]
    assert words == ["waits: another run holds the device; it starts when that one ends", "at work"]


def test_the_last_lines_are_calm_where_all_agrees_and_name_faults_where_not(capsys):
    close_books(Findings(deeds=["signed a/1", "signed a/2"]))
    assert capsys.readouterr().err == (
        "\nlineage: 2 artifacts were signed\nlineage: ledger, Dagster, MLflow and disk agree\n"
    )
    close_books(Findings(deeds=["MLflow was told of x: KILLED"], faults=[f"fault {n}" for n in range(12)]))
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[:2] == ["lineage: MLflow was told of x: KILLED", "lineage: DOES NOT AGREE: fault 0"]
    assert lines[-1] == "lineage: ... 12 in all; `dpo-pipeline lineage reconcile` lists them"
    assert len(lines) == 12
