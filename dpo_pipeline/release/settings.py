"""Settings of the release."""

from enum import StrEnum

from dpo_pipeline.core.settings import Settings


class PairFormat(StrEnum):
    """A file format for preference pairs that other trainers and hosted services read."""

    TRL = "trl"
    OPENAI = "openai"


class ReleaseSettings(Settings):
    """What a user takes away."""

    merge_adapter: bool = False
    """Fold a trained adapter into the base weights, so that the model loads without peft; needs the base's disk."""

    pair_formats: tuple[PairFormat, ...] = (PairFormat.TRL, PairFormat.OPENAI)
    """Formats the training and held-out pairs are written in; `openai` is also Azure's, Together's and Fireworks'."""
