"""Settings of the preference tables."""

from typing import Literal

from pydantic import Field

from dpo_pipeline.core.settings import Settings


class PreferenceSettings(Settings):
    """How judgments become pairs, and which pairs are trained on."""

    consensus: Literal["majority", "strength", "dawid_skene"] = "dawid_skene"
    """How votes are added up: count them, sum their strengths, or weigh annotators by estimated reliability."""

    min_p_chosen: float = Field(default=0.6, gt=0.5, le=1)
    """Least probability that the chosen response is the better one; below it the pair is a contradiction."""

    near_duplicate_jaccard: float = Field(default=0.8, gt=0, le=1)
    """Similarity of word 2-grams from which prompt and both responses count as the same pair."""

    prompt_cluster_jaccard: float = Field(default=0.5, gt=0, le=1)
    """Similarity of word 2-grams from which two prompts must stand on the same side of the split."""

    held_out_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of prompt clusters held out for evaluation."""

    split_salt: str = "dpo-pipeline/1"
    """Salt of the split's hash; never change it once a model has been trained."""
