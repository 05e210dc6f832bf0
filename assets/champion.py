"""Who becomes champion: the gate weighs the newest checkpoint against today's; the ledger keeps what follows."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Artifact, Outcome, Recipe
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND, champion_digest, promote, rollbacks_of
from dpo_pipeline.evaluation import CODE_VERSION
from dpo_pipeline.evaluation.standing import opponent_of_newest, standing_of
from resources.tracking import Tracking

ALIAS = "champion"


class Word(dg.Config):
    """What a person may say when materializing `champion`; left as it is, the rule decides."""

    promote: bool = Field(
        default=False,
        description="Promote the newest checkpoint by hand, whatever the rule says of it. A broken check still forbids "
        "it. Needs a reason.",
    )
    reason: str = Field(
        default="", description="Why, in a sentence a reader of the ledger will understand in a year. Kept for ever."
    )
    person: str = Field(default="", description="Who decides: a name or an account. Kept in the ledger for ever.")


def _withdrawn(home: Home, recipe: Recipe) -> Mapping[str, Any]:
    """Why the newest checkpoint was rolled back before: such a one is decided otherwise."""
    [challenger] = [parent.digest for parent in recipe.parents if parent.role == "dpo_checkpoint"]
    return {"withdrawn": [change.reason for change in rollbacks_of(home, challenger)]}


def _follow(step: Step, decision: Artifact, tracking: Tracking) -> None:
    """Write the promotion into the ledger, once per decision; MLflow's alias follows the ledger."""
    from dpo_pipeline.evaluation.champion import promotion_of

    promotion = promotion_of(decision)
    if promotion is None:
        return
    promote(step.home, promotion)
    if (now := champion_digest(step.home)) is not None:
        tracking.move_alias(CHAMPION_KIND, ALIAS, now, home=step.home, warn=step.context.log.warning)
        step.say(f"champion is {now}")


@tracked(
    Made(
        "champion",
        "The gate: whether the newest checkpoint becomes champion, and why; promotes it if so.",
        frozenset({"json", "mlflow"}),
    ),
    stage="evaluation",
    code_version=CODE_VERSION,
    reads=["evaluation_report", "dpo_checkpoint", "preference_pairs"],
    also_reads=lambda home, _profile: opponent_of_newest(home),
    settings=["champion"],
    config=Word,
    also_shaped=_withdrawn,
    settle=_follow,
)
def champion(step: Step) -> Outcome:
    """Decide by the stated rule, or by a person's word."""
    from dpo_pipeline.evaluation.champion import ByHand, decide_champion
    from dpo_pipeline.evaluation.examination import examine

    standing = standing_of(step.home, step.inputs["evaluation_report"][0][1])
    standing.assert_newest(step.inputs["dpo_checkpoint"][0][1], step.inputs["preference_pairs"][0][1])
    outcome = decide_champion(
        standing,
        examine(
            step.home,
            standing,
            settings=step.profile.champion,
            jaccard=step.profile.preferences.prompt_cluster_jaccard,
            reporter=step,
        ),
        step.folder(),
        settings=step.profile.champion,
        by_hand=ByHand.parse(step.shaped["said"], where="the run's config of `champion`"),
    )
    step.say(f"{outcome.facts['ruling'].replace('_', ' ')}: {outcome.facts['reason']}")
    return outcome
