"""Settings of supervised fine-tuning."""

from typing import Literal

from pydantic import Field

from dpo_pipeline.core.settings import Settings


class OptimizerSettings(Settings):
    """AdamW and its schedule, shared by both training stages."""

    learning_rate: float = Field(gt=0, lt=1)
    """Peak learning rate."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after warm-up."""

    warmup_share: float = Field(0.1, ge=0, le=1)
    """Share of all steps spent rising to the peak."""

    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay on matrices; never on biases and norms."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""


class SftSettings(Settings):
    """Supervised fine-tuning on demonstrations, loss on the assistant's tokens only."""

    epochs: float = Field(2.0, gt=0)
    """Passes over the demonstrations."""

    batch_size: int = Field(16, ge=1)
    """Conversations per optimizer step."""

    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=2e-5)
    """AdamW and its schedule."""

    chosen_as_demonstrations: bool = False
    """Also learn the chosen responses of the training pairs, where their source permits it."""

    override_sft_permission: bool = False
    """Use sources that forbid SFT all the same (smoke runs only); the report says so."""

    held_out_share: float = Field(0.02, ge=0, lt=1)
    """Share of demonstrations kept aside, by prompt, to measure perplexity."""

    checkpoint_minutes: float = Field(10.0, gt=0)
    """Minutes between checkpoints a retry can resume from."""
