"""Did it get better? Held-out preferences and replies of base, SFT, DPO and today's champion, with intervals."""

from assets.step import Step
from assets.tracked import Made, tracked
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.evaluation import CODE_VERSION
from dpo_pipeline.evaluation.standing import opponent_of_newest

KNOWN_REPORTS = 3
"""Newest earlier reports looked into for answers that need not be asked for again."""


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
    )
