"""The base model learns from demonstrations."""

from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.sft import CODE_VERSION


@tracked(
    Made("sft_checkpoint", "Base model + demonstrations, held-out prompts left out.", frozenset({"pytorch"})),
    stage="sft",
    code_version=CODE_VERSION,
    reads=["demonstrations", "preference_pairs"],
    settings=["sft", "model", "compute"],
    on_gpu=True,
)
def sft_checkpoint(step: Step) -> Outcome:
    """Supervised fine-tuning."""
    return step.perform(
        "dpo_pipeline.sft.train:train_sft",
        demonstrations=step.read_all("demonstrations"),
        pairs=step.read("preference_pairs"),
        out=step.folder(),
        work=step.work / "checkpoints",
        sft=step.profile.sft,
        model=step.profile.model,
        compute=step.profile.compute,
    )
