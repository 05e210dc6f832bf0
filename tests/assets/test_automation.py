"""The schedule trains only when the drops changed."""

import dagster as dg

from assets.automation import retraining
from resources.artifact_store import ArtifactHome


def made(home, asset, partition=None, parents=()):
    from dpo_pipeline.core.artifacts import Outcome, Recipe

    with home.store.staging() as folder:
        (folder / "file.txt").write_text(f"{asset} {partition}")
        artifact = home.store.publish(folder, Recipe(asset, "1", {"drop": partition}, tuple(parents)), Outcome())
    home.ledger.append("finished", asset=asset, partition=partition, artifact=artifact.digest)
    return artifact


def scheduled(home):
    return retraining(dg.build_schedule_context(resources={"home": ArtifactHome(folder=str(home.root))}))


def test_training_waits_for_a_first_drop_then_for_a_change(home):
    from dpo_pipeline.core.artifacts import Parent

    assert "no drop" in scheduled(home).skip_message
    made(home, "raw_annotations", "may")
    judged = made(home, "judgments", "may")
    assert isinstance(scheduled(home), dg.RunRequest)
    pairs = made(home, "preference_pairs", parents=[Parent("judgments/may", "judgments", judged.digest)])
    made(home, "dpo_checkpoint", parents=[Parent("preference_pairs", "preference_pairs", pairs.digest)])
    assert "already rests on all 1 drops" in scheduled(home).skip_message
    made(home, "raw_annotations", "june")
    made(home, "judgments", "june")
    assert isinstance(scheduled(home), dg.RunRequest)
