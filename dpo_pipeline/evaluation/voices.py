"""Who is heard in an evaluation: checkpoints, and the model as it was before any training; named by content."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpo_pipeline.core.digests import digest_of_json, sha256_of_file, short
from dpo_pipeline.core.manifests import MANIFEST
from dpo_pipeline.evaluation.training import describe_training, model_settings_of
from dpo_pipeline.modeling.policy import policy_digest
from dpo_pipeline.modeling.settings import ModelSettings
from dpo_pipeline.sft.starting import ROLE as CHAMPION_ROLE

MODEL = "model"


@dataclass(frozen=True, slots=True)
class Voice:
    """One model of a report.

    Attributes:
        name: How the report calls it: `base`, `sft`, `dpo`, `champion`, ...
        checkpoint: A checkpoint artifact's folder.
        is_before_training: Whether the model this checkpoint's training started from is meant, not the checkpoint.
    """

    name: str
    checkpoint: Path
    is_before_training: bool = False

    @property
    def settings(self) -> ModelSettings:
        """The model settings the checkpoint was trained with.

        Raises:
            ArtifactError: If the checkpoint does not say.
        """
        return model_settings_of(self.checkpoint)

    @property
    def identity(self) -> str:
        """Digest of weights and tokenizer: equal for equal models, wherever they lie."""
        if not self.is_before_training:
            return model_digest(self.checkpoint)
        tokenizer = self.checkpoint / MODEL / "tokenizer.json"
        settings = self.settings
        return digest_of_json(
            [
                "before training",
                settings.model_dump(mode="json", exclude={"adapter", "max_length", "architecture"}),
                policy_digest(Path(settings.path)) if settings.path else None,
                sha256_of_file(tokenizer) if tokenizer.exists() else None,
            ]
        )

    @property
    def tokenizer(self) -> str | None:
        """Digest of its tokenizer, without the cutting and padding that happened to be set; None where it has none."""
        try:
            values = json.loads((self.checkpoint / MODEL / "tokenizer.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return digest_of_json({name: part for name, part in values.items() if name not in {"truncation", "padding"}})

    @property
    def words(self) -> str:
        """What it is, in a sentence or two; empty where the name says it."""
        begun = str(describe_training(self.checkpoint)["facts"].get("started_from", ""))
        went_on = begun.startswith(f"{CHAMPION_ROLE} ")
        if not self.is_before_training:
            who = f"{CHAMPION_ROLE} {short(begun.removeprefix(f'{CHAMPION_ROLE} '))}"
            return f"{self.name} went on from the {who} of its day, not from the base model." if went_on else ""
        settings = self.settings
        name = "The base model, before every training of this line" if went_on else "The model before SFT"
        if settings.scratch is not None:
            return f"{name}: random weights, nothing was pretrained. It shows what no learning looks like."
        return f"{name}: {settings.hub or 'the pretrained weights'}."


def notes_on_tokenizers(voices: Sequence[Voice], challenger: str) -> list[str]:
    """A sentence for each model whose tokenizer is known to be another one than the challenger's."""
    digests = {voice.name: voice.tokenizer for voice in voices}
    own = digests[challenger]
    return [
        f"{name} has another tokenizer than {challenger}: its KL and its figures per token compare only roughly. "
        "Perplexity is per token of one tokenizer for all models."
        for name, digest in digests.items()
        if None not in (own, digest) and digest != own
    ]


def model_digest(checkpoint: Path) -> str:
    """The digest of a checkpoint's weights and tokenizer, from its manifest where it has one (inputs are re-hashed)."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        own = {entry["name"]: entry["sha256"] for entry in files if entry["name"].startswith(f"{MODEL}/")}
    except (OSError, ValueError, KeyError, TypeError):
        own = {}
    return digest_of_json(own) if own else policy_digest(checkpoint / MODEL)
