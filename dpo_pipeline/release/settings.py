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

    name: str = "dpo-pipeline release"
    """What model and dataset are called on their cards."""

    model_license: str = "unknown"
    """Licence of the model, as the Hugging Face hub spells it (`apache-2.0`, `llama3.1`, `other`)."""

    dataset_license: str = "unknown"
    """Licence of the preference pairs, spelled likewise; it is bound by the licences of what was judged."""

    languages: tuple[str, ...] = ("en",)
    """Languages of prompts and responses, as ISO 639-1 codes."""

    intended_use: str = "Research and internal evaluation by the team that collected the preferences."
    """Who should use model and pairs for what: a paragraph of the cards."""

    dataset: bool = True
    """Write the pairs as a dataset of their own as well: Parquet per split, card and Croissant description."""
