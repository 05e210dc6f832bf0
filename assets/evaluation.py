"""Did it get better? Held-out preferences and replies, SFT against DPO, with intervals."""

from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.evaluation import CODE_VERSION


@tracked(
    Made("evaluation_report", "SFT against DPO on held-out data: report.json and one page.", frozenset({"html"})),
    stage="evaluation",
    code_version=CODE_VERSION,
    reads=["preference_pairs", "demonstrations", "sft_checkpoint", "dpo_checkpoint", "reference_logprobs"],
    settings=["evaluation", "dpo", "model", "compute"],
    on_gpu=True,
)
def evaluation_report(step: Step) -> Outcome:
    """Evaluate both checkpoints."""
    return step.perform(
        "dpo_pipeline.evaluation.evaluate:evaluate",
        pairs=step.read("preference_pairs"),
        demonstrations=step.read_all("demonstrations"),
        sft=step.read("sft_checkpoint"),
        dpo=step.read("dpo_checkpoint"),
        reference=step.read("reference_logprobs"),
        out=step.folder(),
        work=step.work / "evaluation",
        evaluation=step.profile.evaluation,
        dpo_settings=step.profile.dpo,
        model=step.profile.model,
        compute=step.profile.compute,
    )
