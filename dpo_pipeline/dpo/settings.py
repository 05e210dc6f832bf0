"""Settings of direct preference optimization."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from dpo_pipeline.core.settings import Settings
from dpo_pipeline.modeling.settings import OptimizerSettings


class DpoLoss(StrEnum):
    """The surrogate; `dpo/losses.py` has the equation of each."""

    SIGMOID = "sigmoid"
    ROBUST = "robust"
    IPO = "ipo"
    HINGE = "hinge"
    SIMPO = "simpo"
    SIGMOID_NORM = "sigmoid_norm"
    APO_ZERO = "apo_zero"
    APO_DOWN = "apo_down"

    @property
    def needs_reference(self) -> bool:
        """Whether the loss uses the frozen reference's log-probs."""
        return self is not DpoLoss.SIMPO

    @property
    def is_length_averaged(self) -> bool:
        """Whether log-probs are divided by the number of response tokens."""
        return self in {DpoLoss.IPO, DpoLoss.SIMPO, DpoLoss.SIGMOID_NORM}


class DpoSettings(Settings):
    """Direct preference optimization (arXiv 2305.18290) against a table of reference log-probs."""

    loss: DpoLoss = DpoLoss.SIGMOID
    """Which surrogate of the preference likelihood is minimised."""

    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull toward the reference; 0.1 for summed log-probs, about 5 for sigmoid_norm."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Assumed share of flipped labels: cDPO under sigmoid, unbiased under robust; `preference_pairs` estimates it as
    `label_noise.kept_pairs`."""

    simpo_gamma: float = Field(default=0.3, ge=0)
    """Target margin of simpo, as a share of beta."""

    nll_weight: float = Field(default=0.0, ge=0)
    """Weight of the length-normalised negative log-likelihood of chosen (RPO, arXiv 2404.19733)."""

    use_agreement: bool = False
    """Weigh each pair by 2 * p_chosen - 1, so that contested pairs count less."""

    strength_offset: float = Field(default=0.0, ge=0)
    """Margin of implicit rewards demanded per unit of the annotators' mean strength (ODPO, arXiv 2402.10571); ipo aims
    that much higher, apo_zero asks half of it of each response."""

    epochs: float = Field(default=1.0, gt=0)
    """Passes over the training pairs."""

    batch_size: int = Field(default=64, ge=1)
    """Pairs per optimizer step."""

    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=5e-7)
    """AdamW and its schedule."""

    validation_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training prompts kept aside to watch the training on; the evaluation's own are never looked at."""

    validations: int = Field(default=10, ge=1)
    """How many times, evenly spread, the prompts kept aside are scored."""

    patience: int = Field(default=0, ge=0)
    """Validations without a better accuracy after which training stops early, and publishes the weights of the best;
    0 never does, and publishes the last."""

    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Minutes between checkpoints a retry can resume from."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.patience and not self.validation_share:
            message = f"patience {self.patience} needs pairs to look at; set validation_share above 0"
            raise ValueError(message)
        return self
