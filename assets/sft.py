"""The base model learns from demonstrations."""

from collections.abc import Mapping

from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Artifact, Outcome
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import Profile
from dpo_pipeline.sft import CODE_VERSION

TOKENS = "tokens.parquet"


def _start(home: Home, profile: Profile) -> Mapping[str, Artifact]:
    """Nothing or the champion, as the profile's `operation.start_from` says."""
    from dpo_pipeline.sft.starting import start_of

    return start_of(home, profile.operation.start_from)


@tracked(
    Made("sft_checkpoint", "Base model + demonstrations, held-out prompts left out.", frozenset({"pytorch"})),
    stage="sft",
    code_version=CODE_VERSION,
    reads=["demonstrations", "preference_pairs"],
    also_reads=_start,
    settings=["sft", "model", "compute"],
    on_gpu=True,
)
def sft_checkpoint(step: Step) -> Outcome:
    """Supervised fine-tuning; texts that the checkpoint before held as tokens are not tokenized again."""
    earlier = step.home.all_made("sft_checkpoint")[:1]
    return step.perform(
        "dpo_pipeline.sft.train:train_sft",
        demonstrations=step.read_all("demonstrations"),
        pairs=step.read("preference_pairs"),
        out=step.folder(),
        work=step.work / "checkpoints",
        start=step.find("champion"),
        known=[artifact.path for artifact in earlier if artifact.holds(TOKENS)],
        sft=step.profile.sft,
        model=step.profile.model,
        compute=step.profile.compute,
    )
