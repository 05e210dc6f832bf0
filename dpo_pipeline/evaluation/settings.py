"""Settings of the evaluation."""

from pydantic import Field

from dpo_pipeline.core.settings import Settings


class Rubric(Settings):
    """Rules a reply can be checked against without a model; the demo's brand guidelines are one."""

    name: str
    """Name shown in the report."""

    max_words: int | None = Field(None, ge=1)
    """Longest reply that counts as concise, in words."""

    required: dict[str, list[str]] = {}
    """Per requirement, regular expressions of which at least one must match (case ignored)."""

    forbidden: dict[str, list[str]] = {}
    """Per prohibition, regular expressions of which none may match (case ignored)."""


class EvaluationSettings(Settings):
    """What the report measures."""

    generation_count: int = Field(200, ge=1)
    """Held-out prompts each model replies to."""

    max_new_tokens: int = Field(128, ge=1)
    """Longest reply generated, in tokens."""

    bootstrap_samples: int = Field(2_000, ge=100)
    """Resamples behind each 95 % interval."""

    rubric: Rubric | None = None
    """Rules the replies are judged by; absent: no rubric judge."""

    shown_replies: int = Field(24, ge=1)
    """Replies shown side by side in the report."""
