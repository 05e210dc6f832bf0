"""Did it get better? Held-out preferences and replies of base, SFT, DPO and today's champion, with intervals."""

from collections.abc import Mapping
from typing import Any

from assets.step import Step
from assets.tracked import Made, tracked
from dpo_pipeline.core.artifacts import Outcome, Recipe
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND
from dpo_pipeline.evaluation import CODE_VERSION
from dpo_pipeline.evaluation.standing import forgotten_behind, opponent_of_newest

WARNED = "warned"
KNOWN_REPORTS = 3
"""Newest earlier reports looked into for answers that need not be asked for again."""


def _taken_back(home: Home, recipe: Recipe) -> Mapping[str, Any]:
    """What the report must say of models that learned from what a tombstone took back; nothing where there is none."""
    checkpoints = [parent for parent in recipe.parents if parent.kind == CHAMPION_KIND]
    names = {parent.digest: "champion" if parent.role == "champion" else "challenger" for parent in checkpoints}
    said = forgotten_behind(home, {name: digest for digest, name in names.items()})
    return {WARNED: [f"The {name} {how}; its weights keep that." for name, how in said.items()]} if said else {}


@tracked(
    Made(
        "evaluation_report",
        "Base, SFT, DPO and today's champion on held-out data: report.json and one page.",
        frozenset({"html"}),
    ),
    stage="evaluation",
    code_version=CODE_VERSION,
    reads=["preference_pairs", "demonstrations", "sft_checkpoint", "dpo_checkpoint", "reference_logprobs"],
    also_reads=lambda home, _profile: opponent_of_newest(home),
    also_shaped=_taken_back,
    settings=["evaluation", "dpo", "model", "compute"],
    on_gpu=True,
)
def evaluation_report(step: Step) -> Outcome:
    """Evaluate the checkpoints side by side; what earlier reports hold of the same models is taken over."""
    earlier = step.home.all_made("evaluation_report")[:KNOWN_REPORTS]
    return step.perform(
        "dpo_pipeline.evaluation.evaluate:evaluate",
        pairs=step.read("preference_pairs"),
        demonstrations=step.read_all("demonstrations"),
        sft=step.read("sft_checkpoint"),
        dpo=step.read("dpo_checkpoint"),
        reference=step.read("reference_logprobs"),
        champion=step.find("champion"),
        known=[artifact.path for artifact in earlier if not artifact.verify()],
        out=step.folder(),
        work=step.work / "evaluation",
        evaluation=step.profile.evaluation,
        dpo_settings=step.profile.dpo,
        model=step.profile.model,
        compute=step.profile.compute,
        warned=step.shaped.get(WARNED, []),
    )
