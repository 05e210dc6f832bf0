"""What a user takes away: the champion's weights, its card, its pairs in other tools' formats."""

from collections.abc import Mapping
from typing import Any

from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Artifact, Outcome, Recipe
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import Profile
from dpo_pipeline.release import CODE_VERSION


def _champions_own(home: Home, _profile: Profile) -> Mapping[str, Artifact]:
    """The champion with the report and the pairs it was promoted on; the newest ones before the first promotion."""
    from dpo_pipeline.release.choice import choose_release

    return choose_release(home).inputs


def _promotion(home: Home, _recipe: Recipe) -> Mapping[str, Any]:
    """What the card says of the promotion."""
    from dpo_pipeline.release.choice import choose_release

    return {"promotion": choose_release(home).promotion}


@tracked(
    Made(
        "release",
        "The champion with its card, and its pairs as TRL and hosted services read them.",
        frozenset({"huggingface", "parquet"}),
    ),
    stage="release",
    code_version=CODE_VERSION,
    after=["champion"],
    also_reads=_champions_own,
    also_shaped=_promotion,
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
        promotion=step.shaped["promotion"],
        reporter=step,
    )
