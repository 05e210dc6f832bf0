"""What a user takes away: weights, card, pairs in other tools' formats."""

from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.release import CODE_VERSION


@tracked(
    Made("release", "The DPO model with its card, and the pairs as TRL and hosted services read them."),
    stage="release",
    code_version=CODE_VERSION,
    reads=["dpo_checkpoint", "evaluation_report", "preference_pairs"],
    settings=["release", "model"],
)
def release(step: Step) -> Outcome:
    """Write the release."""
    from dpo_pipeline.release.release import release_model

    return release_model(
        step.read("dpo_checkpoint"),
        step.read("evaluation_report"),
        step.read("preference_pairs"),
        step.folder(),
        release=step.profile.release,
        model=step.profile.model,
        reporter=step,
    )
