"""What the SFT model thinks of each pair, and a model that prefers what people preferred."""

from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.dpo import CODE_VERSION

KNOWN_TABLES = 3
"""Newest earlier tables that are re-hashed and looked into: a pair that went and came back, two models in turn."""


@tracked(
    Made(
        "reference_logprobs",
        "Log-probabilities of each pair under the SFT model, in place of a second model; and the pairs as tokens.",
        frozenset({"parquet", "pytorch"}),
        "reference_logprobs.parquet",
    ),
    stage="dpo",
    code_version=CODE_VERSION,
    reads=["preference_pairs", "sft_checkpoint"],
    settings=["model", "compute"],
    on_gpu=True,
)
def reference_logprobs(step: Step) -> Outcome:
    """Score every pair once; what earlier tables hold, log-probs of the same model and tokens, is taken over."""
    earlier = step.home.all_made("reference_logprobs")[:KNOWN_TABLES]
    return step.perform(
        "dpo_pipeline.dpo.reference:compute_reference",
        pairs=step.read("preference_pairs"),
        checkpoint=step.read("sft_checkpoint"),
        out=step.folder(),
        known=[artifact.path for artifact in earlier if not artifact.verify()],
        model=step.profile.model,
        compute=step.profile.compute,
    )


@tracked(
    Made("dpo_checkpoint", "The SFT model, moved toward what people preferred.", frozenset({"pytorch"})),
    stage="dpo",
    code_version=CODE_VERSION,
    reads=["preference_pairs", "reference_logprobs", "sft_checkpoint"],
    settings=["dpo", "model", "compute"],
    on_gpu=True,
)
def dpo_checkpoint(step: Step) -> Outcome:
    """Direct preference optimization."""
    return step.perform(
        "dpo_pipeline.dpo.train:train_dpo",
        pairs=step.read("preference_pairs"),
        reference=step.read("reference_logprobs"),
        checkpoint=step.read("sft_checkpoint"),
        out=step.folder(),
        work=step.work / "checkpoints",
        dpo=step.profile.dpo,
        model=step.profile.model,
        compute=step.profile.compute,
    )
