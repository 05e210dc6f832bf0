"""Settings of supervised fine-tuning."""

from typing import Self

from pydantic import Field, model_validator

from dpo_pipeline.core.settings import Settings
from dpo_pipeline.modeling.settings import OptimizerSettings


class SftSettings(Settings):
    """Supervised fine-tuning on demonstrations, loss on the assistant's tokens only."""

    epochs: float = Field(default=2.0, gt=0)
    """Passes over the demonstrations."""

    batch_size: int = Field(default=16, ge=1)
    """Conversations per optimizer step."""

    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=2e-5)
    """AdamW and its schedule."""

    chosen_as_demonstrations: bool = False
    """Also learn the chosen responses of the training pairs, where their source permits it."""

    override_sft_permission: bool = False
    """Use sources that forbid SFT all the same (smoke runs only); the report says so."""

    held_out_share: float = Field(default=0.02, ge=0, lt=1)
    """Share of demonstrations kept aside, by prompt, to measure perplexity."""

    held_out_similarity: float = Field(default=0.5, gt=0, le=1)
    """Jaccard similarity of word 2-grams from which a prompt counts as a copy of one the evaluation holds out, and is
    not learned; keep it equal to preferences.prompt_cluster_jaccard."""

    validation_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the prompts learned from that is kept aside to watch the training on; those of held_out_share are for
    the report and never looked at."""

    validations: int = Field(default=10, ge=1)
    """How many times, evenly spread, the conversations kept aside are scored."""

    patience: int = Field(default=0, ge=0)
    """Validations without a lower loss after which training stops early, and publishes the weights of the best one;
    0 never does, and publishes the last."""

    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Minutes between checkpoints a retry can resume from."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.patience and not self.validation_share:
            message = f"patience {self.patience} needs conversations to look at; set validation_share above 0"
            raise ValueError(message)
        return self
